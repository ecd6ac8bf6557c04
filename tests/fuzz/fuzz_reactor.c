/* Operations on a loop, as the input says: watchers, timers, deferred work, hooks, wakes and a pair
 * are started, changed, stopped and freed, outside of callbacks and inside of them, while bytes
 * come and go on real socket pairs and time passes.
 *
 * A model beside it knows what may be called and what must be: whatever is called was asked for;
 * and in a quiet turn, in which callbacks do nothing, everything is called that has a reason to be.
 * Each object is memory of its own, so that a touch after its end is seen.
 */
#include "fuzz.h"

#include "reactor/loop.h"
#include "reactor/pair.h"
#include "reactor/wake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 6
#define OPS_MAX 20000 /* of one run: callbacks go on for as long as the input does */

struct watcher {
    struct evpt_watch watch;
    int fd, peer;
    uint32_t wanted;
    size_t unread;
    bool peer_closed;
    uint64_t read_turn; /* when it was read last */
    unsigned calls;     /* in this turn */
};

struct timed {
    struct evpt_timer timer;
    uint64_t deadline_ns, number, started_turn;
    bool in_order; /* its deadline was to come when it was started */
};

struct later {
    struct evpt_deferred deferred;
    bool pending;
};

struct hook {
    struct evpt_loop_hook hook;
    unsigned calls;
};

struct waker {
    struct evpt_wake wake;
    bool signalled;
};

struct element {
    struct evpt_mpsc_node node; /* first: the queue hands out the node */
    uint64_t number;
};

static struct {
    struct fuzz_input *in;
    struct evpt_loop *loop;
    struct watcher *watchers[SLOTS];
    struct timed *timers[SLOTS];
    struct later *laters[SLOTS];
    struct hook *hooks[SLOTS];
    struct waker *wakers[SLOTS];
    struct evpt_pair *pair;
    uint64_t written, read; /* elements of the pair */
    uint64_t timer_number, turn;
    uint64_t fired_tick, fired_number; /* the last timer of this turn */
    bool fired, inside, quiet;
    unsigned ops;
} it;

static void play(void);

/* A callback: may do as it likes. */
static void enter(void)
{
    if (it.quiet)
        return;
    bool inside = it.inside;
    it.inside = true;
    for (unsigned n = fuzz_byte(it.in) % 4; n; n--)
        play();
    it.inside = inside;
}

static void *new_object(size_t size)
{
    void *object = calloc(1, size);
    FUZZ_CHECK(object);
    return object;
}

/* ---- watchers ---- */

static void on_ready(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct watcher *watcher = user;
    FUZZ_CHECK(&watcher->watch == watch && evpt_watch_is_started(watch));
    FUZZ_CHECK(events && !(events & ~(watcher->wanted | (uint32_t)EVPT_HANGUP)));
    if (events & EVPT_READ && watcher->read_turn != it.turn) /* else a sibling was faster */
        FUZZ_CHECK(watcher->unread || watcher->peer_closed);
    if (events & EVPT_HANGUP)
        FUZZ_CHECK(watcher->peer_closed);
    watcher->calls++;
    enter();
}

static void start_watcher(unsigned slot, uint8_t how)
{
    struct watcher *watcher = new_object(sizeof(*watcher));
    int fds[2];
    FUZZ_CHECK(evpt_sys_socketpair(fds) == 0);
    watcher->fd = fds[0];
    watcher->peer = fds[1];
    watcher->wanted = how & (EVPT_READ | EVPT_WRITE);
    if (evpt_watch_start(it.loop, &watcher->watch, watcher->fd, watcher->wanted, on_ready,
                         watcher) == 0) {
        it.watchers[slot] = watcher;
        return;
    }
    FUZZ_CHECK(!evpt_watch_is_started(&watcher->watch));
    evpt_sys_close(fds[0]);
    evpt_sys_close(fds[1]);
    free(watcher);
}

static void stop_watcher(unsigned slot)
{
    struct watcher *watcher = it.watchers[slot];
    it.watchers[slot] = NULL;
    evpt_watch_stop(&watcher->watch);
    FUZZ_CHECK(!evpt_watch_is_started(&watcher->watch));
    evpt_sys_close(watcher->fd); /* its number is the next one's */
    evpt_sys_close(watcher->peer_closed ? -1 : watcher->peer);
    free(watcher);
}

static void use_watcher(unsigned slot, uint8_t how)
{
    struct watcher *watcher = it.watchers[slot];
    char bytes[64] = {0};
    if (!watcher) {
        start_watcher(slot, how);
        return;
    }
    switch (how % 5) {
    case 0:
        stop_watcher(slot);
        break;
    case 1:
        watcher->wanted = how / 8 % 4;
        evpt_watch_set(&watcher->watch, watcher->wanted);
        break;
    case 2:
        if (!watcher->peer_closed && evpt_sys_write(watcher->peer, bytes, 1) == 1)
            watcher->unread++;
        break;
    case 3: {
        ssize_t got = evpt_sys_read(watcher->fd, bytes, 1u + how / 8);
        watcher->read_turn = it.turn;
        FUZZ_CHECK(watcher->unread ? got > 0 : got <= 0);
        watcher->unread -= got > 0 ? (size_t)got : 0;
        break;
    }
    default:
        evpt_sys_close(watcher->peer_closed ? -1 : watcher->peer);
        watcher->peer_closed = true;
    }
}

/* ---- timers ---- */

static uint64_t tick_of(uint64_t ns)
{
    return (ns + EVPT_TIMER_TICK_NS - 1) / EVPT_TIMER_TICK_NS;
}

static void on_time(struct evpt_timer *timer, void *user)
{
    struct timed *timed = user;
    FUZZ_CHECK(&timed->timer == timer && !evpt_timer_is_running(timer));
    FUZZ_CHECK(timed->deadline_ns != EVPT_FOREVER);
    FUZZ_CHECK(evpt_loop_now(it.loop) >= timed->deadline_ns);
    uint64_t tick = tick_of(timed->deadline_ns);
    if (timed->in_order && timed->started_turn != it.turn) {
        if (it.fired)
            FUZZ_CHECK(it.fired_tick < tick ||
                       (it.fired_tick == tick && it.fired_number < timed->number));
        it.fired = true;
        it.fired_tick = tick;
        it.fired_number = timed->number;
    }
    timed->deadline_ns = EVPT_FOREVER; /* once */
    enter();
}

static void use_timer(unsigned slot, uint8_t how)
{
    struct evpt_timer_wheel *wheel = evpt_loop_wheel(it.loop);
    struct timed *timed = it.timers[slot];
    if (!timed)
        timed = it.timers[slot] = new_object(sizeof(*timed));
    switch (how % 4) {
    case 0:
        evpt_timer_stop(wheel, &timed->timer);
        FUZZ_CHECK(!evpt_timer_is_running(&timed->timer));
        it.timers[slot] = NULL;
        free(timed);
        break;
    case 1:
        evpt_timer_stop(wheel, &timed->timer);
        timed->deadline_ns = EVPT_FOREVER;
        break;
    default: {
        uint64_t after_ns = (uint64_t)(how / 4 % 8) << fuzz_byte(it.in) % 56;
        timed->deadline_ns = evpt_loop_now(it.loop) + after_ns;
        timed->number = ++it.timer_number;
        timed->started_turn = it.turn;
        timed->in_order = after_ns > EVPT_TIMER_TICK_NS;
        evpt_loop_timer(it.loop, &timed->timer, after_ns, on_time, timed);
        FUZZ_CHECK(evpt_timer_is_running(&timed->timer));
    }
    }
    evpt_timer_wheel_check(wheel);
}

/* ---- deferred work ---- */

static void on_later(struct evpt_deferred *deferred, void *user)
{
    struct later *later = user;
    FUZZ_CHECK(&later->deferred == deferred && later->pending);
    later->pending = false;
    enter();
}

static void use_later(unsigned slot, uint8_t how)
{
    struct later *later = it.laters[slot];
    if (!later)
        later = it.laters[slot] = new_object(sizeof(*later));
    if (how % 4 >= 2) {
        evpt_loop_defer(it.loop, &later->deferred, on_later, later);
        later->pending = true;
        return;
    }
    evpt_deferred_cancel(&later->deferred);
    later->pending = false;
    if (how % 4 == 0) {
        it.laters[slot] = NULL;
        free(later);
    }
}

/* ---- hooks ---- */

static int hook_before(struct evpt_loop_hook *hook)
{
    EVPT_CONTAINER_OF(hook, struct hook, hook)->calls++;
    enter();
    return 0; /* the hook may be gone */
}

static bool hook_rest(struct evpt_loop_hook *hook)
{
    (void)hook;
    return true;
}

static void use_hook(unsigned slot)
{
    struct hook *hook = it.hooks[slot];
    if (hook) {
        it.hooks[slot] = NULL;
        evpt_loop_remove_hook(&hook->hook);
        free(hook);
        return;
    }
    hook = it.hooks[slot] = new_object(sizeof(*hook));
    hook->hook = (struct evpt_loop_hook){.before = hook_before, .rest = hook_rest};
    evpt_loop_add_hook(it.loop, &hook->hook);
}

/* ---- wakes, and the pair ---- */

static void on_wake(struct evpt_wake *wake, void *user)
{
    struct waker *waker = user;
    FUZZ_CHECK(&waker->wake == wake);
    waker->signalled = false;
    enter();
}

static void use_waker(unsigned slot, uint8_t how)
{
    struct waker *waker = it.wakers[slot];
    if (!waker) {
        waker = new_object(sizeof(*waker));
        if (evpt_wake_init(&waker->wake, it.loop, on_wake, waker) == 0) {
            it.wakers[slot] = waker;
        } else {
            evpt_wake_fini(&waker->wake);
            free(waker);
        }
    } else if (how % 4) {
        evpt_wake_signal(&waker->wake);
        waker->signalled = true;
    } else {
        it.wakers[slot] = NULL;
        evpt_wake_fini(&waker->wake);
        free(waker);
    }
}

static void on_elements(void *user, struct evpt_mpsc_node *list)
{
    (void)user;
    while (list) {
        struct element *element = (struct element *)(void *)list;
        list = list->next;
        FUZZ_CHECK(element->number == it.read++);
        free(element);
    }
    enter();
}

static void use_pair(uint8_t how)
{
    if (!it.pair) {
        it.pair = new_object(sizeof(*it.pair));
        if (evpt_pair_init(it.pair, it.loop, on_elements, NULL)) {
            evpt_pair_fini(it.pair);
            free(it.pair);
            it.pair = NULL;
        }
    } else if (how % 8) {
        struct element *element = new_object(sizeof(*element));
        element->number = it.written++;
        evpt_pair_write(it.pair, &element->node);
    } else {
        struct evpt_pair *pair = it.pair;
        it.pair = NULL; /* it hands over what is left, and there may be another one afterwards */
        evpt_pair_fini(pair);
        free(pair);
    }
}

/* ---- turns ---- */

static void turn(void)
{
    it.turn++;
    it.fired = false;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (it.watchers[i])
            it.watchers[i]->calls = 0;
        if (it.hooks[i])
            it.hooks[i]->calls = 0;
    }
    FUZZ_CHECK(evpt_loop_turn(it.loop, 0) >= 0);
    for (unsigned i = 0; i < SLOTS; i++)
        FUZZ_CHECK(!it.watchers[i] || it.watchers[i]->calls <= 1);
    evpt_timer_wheel_check(evpt_loop_wheel(it.loop));
}

static bool is_due(const struct watcher *watcher)
{
    return watcher->peer_closed || (watcher->wanted & EVPT_READ && watcher->unread) ||
           watcher->wanted & EVPT_WRITE;
}

static void quiet_turn(void)
{
    it.quiet = true;
    turn();
    for (unsigned i = 0; i < SLOTS; i++) {
        const struct timed *timed = it.timers[i];
        FUZZ_CHECK(!it.watchers[i] || it.watchers[i]->calls == (is_due(it.watchers[i]) ? 1 : 0));
        FUZZ_CHECK(!it.hooks[i] || it.hooks[i]->calls >= 2);
        FUZZ_CHECK(!it.laters[i] || !it.laters[i]->pending);
        FUZZ_CHECK(!it.wakers[i] || !it.wakers[i]->signalled);
        FUZZ_CHECK(!timed || timed->deadline_ns == EVPT_FOREVER ||
                   timed->deadline_ns + EVPT_TIMER_TICK_NS > evpt_loop_now(it.loop));
    }
    FUZZ_CHECK(!it.pair || it.read == it.written);
    it.quiet = false;
}

static void pass_time(uint8_t how)
{
    static const uint64_t ms[] = {1, 2, 63, 70, 5000, 300000, 20000000, UINT64_C(1500000000)};
    fuzz_pass_ms(ms[how % 8]);
}

static void play(void)
{
    uint8_t what = fuzz_byte(it.in), how = fuzz_byte(it.in);
    unsigned slot = what / 16 % SLOTS;
    if (it.ops++ >= OPS_MAX)
        return;
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        use_watcher(slot, how);
        break;
    case 4:
    case 5:
        use_timer(slot, how);
        break;
    case 6:
    case 7:
        use_later(slot, how);
        break;
    case 8:
        use_hook(slot);
        break;
    case 9:
        use_waker(slot, how);
        break;
    case 10:
        use_pair(how);
        break;
    case 11:
        (void)fuzz_refuse_allocation(how % 8);
        break;
    case 12:
        pass_time(how);
        break;
    default:
        if (it.inside)
            break;
        if (how % 2)
            quiet_turn();
        else
            turn();
    }
}

static void take_apart(void)
{
    (void)fuzz_refuse_allocation(0);
    it.quiet = true;
    it.inside = false;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (it.watchers[i])
            stop_watcher(i);
        if (it.hooks[i])
            use_hook(i);
        if (it.wakers[i])
            use_waker(i, 0);
    }
    if (it.pair)
        use_pair(0);
    FUZZ_CHECK(it.read == it.written);
    evpt_loop_free(it.loop); /* timers and deferred work it may still have */
    for (unsigned i = 0; i < SLOTS; i++) {
        FUZZ_CHECK(!it.timers[i] || !evpt_timer_is_running(&it.timers[i]->timer));
        free(it.timers[i]);
        free(it.laters[i]);
    }
}

void fuzz_one(struct fuzz_input *in)
{
    memset(&it, 0, sizeof(it));
    it.in = in;
    FUZZ_CHECK(evpt_loop_new(&it.loop) == 0);
    while (fuzz_left(in))
        play();
    (void)fuzz_refuse_allocation(0);
    quiet_turn();
    take_apart();
}
