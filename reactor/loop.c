#include "reactor/loop.h"
#include "reactor/pool.h"
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

/* What a token leads to. The generation is that of the watcher which has the slot now; it changes
 * when the watcher stops. 32 bits: an event would have to be held back over four thousand million
 * stops. */
struct slot {
    struct evpt_watch *watch; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

enum { NO_SLOT = UINT32_MAX };

struct evpt_loop {
    _Atomic(const void *) owner;
    int epoll;
    bool turning;
    uint64_t now_ns;
    uint64_t turns;
    struct evpt_histogram *away; /* NULL: not measured */
    uint64_t left_wait_ns;       /* when the last wait ended */
    struct slot *slots;
    uint32_t slot_count, first_free;
    uint32_t watch_count;
    struct evpt_list changed; /* watchers whose interest epoll does not know yet */
    struct evpt_list deferred;
    struct evpt_list hooks;
    struct evpt_pool pool;
    uint8_t *scratch;
    struct evpt_timer_wheel wheel;
    struct evpt_sys_event events[EVPT_LOOP_EVENTS_MAX];
};

/* ---- whose loop it is ---- */

/* Its address tells threads apart. */
static _Thread_local const char this_thread;

void evpt_loop_adopt(struct evpt_loop *loop)
{
    assert(!loop->turning);
    atomic_store_explicit(&loop->owner, &this_thread, memory_order_relaxed);
}

bool evpt_loop_is_mine(const struct evpt_loop *loop)
{
    /* relaxed, as above: a thread always sees what it stored itself, and whatever else it may see
     * is another thread's address */
    return atomic_load_explicit(&loop->owner, memory_order_relaxed) == &this_thread;
}

static void assert_mine(const struct evpt_loop *loop)
{
    if (EVPT_DEBUG)
        assert(evpt_loop_is_mine(loop));
}

/* ---- life ---- */

int evpt_loop_new(struct evpt_loop **ret_loop)
{
    struct evpt_loop *loop = evpt_sys_zalloc(sizeof(*loop));
    if (!loop)
        return -ENOMEM;
    loop->scratch = evpt_sys_alloc(EVPT_LOOP_SCRATCH);
    loop->epoll = loop->scratch ? evpt_sys_epoll_new() : -ENOMEM;
    if (loop->epoll < 0) {
        int error = loop->epoll;
        evpt_sys_free(loop->scratch);
        evpt_sys_free(loop);
        return error;
    }
    loop->first_free = NO_SLOT;
    evpt_list_init(&loop->changed);
    evpt_list_init(&loop->deferred);
    evpt_list_init(&loop->hooks);
    evpt_pool_init(&loop->pool);
    evpt_timer_wheel_init(&loop->wheel, evpt_loop_update_now(loop));
    evpt_loop_adopt(loop);
    *ret_loop = loop;
    return 0;
}

void evpt_loop_free(struct evpt_loop *loop)
{
    if (!loop)
        return;
    assert_mine(loop);
    assert(!loop->turning);
    assert(loop->watch_count == 0);
    assert(evpt_list_is_empty(&loop->hooks));
    while (evpt_list_pop_front(&loop->deferred))
        continue;
    evpt_timer_wheel_fini(&loop->wheel);
    evpt_pool_fini(&loop->pool);
    evpt_sys_close(loop->epoll);
    evpt_sys_free(loop->slots);
    evpt_sys_free(loop->scratch);
    evpt_sys_free(loop);
}

uint64_t evpt_loop_now(const struct evpt_loop *loop)
{
    return loop->now_ns;
}

uint64_t evpt_loop_update_now(struct evpt_loop *loop)
{
    return loop->now_ns = evpt_sys_now_ns();
}

uint64_t evpt_loop_turns(const struct evpt_loop *loop)
{
    return loop->turns;
}

void evpt_loop_measure(struct evpt_loop *loop, struct evpt_histogram *away)
{
    assert_mine(loop);
    loop->away = away;
    loop->left_wait_ns = evpt_loop_update_now(loop);
}

uint8_t *evpt_loop_scratch(struct evpt_loop *loop)
{
    return loop->scratch;
}

struct evpt_pool *evpt_loop_pool(struct evpt_loop *loop)
{
    return &loop->pool;
}

/* ---- descriptors ---- */

static int add_slots(struct evpt_loop *loop)
{
    uint32_t count = loop->slot_count ? loop->slot_count * 2 : 64;
    struct slot *slots = evpt_sys_realloc(loop->slots, count * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    /* the lowest number first: neighbours in the table are used together */
    for (uint32_t i = count; i-- > loop->slot_count;) {
        slots[i] = (struct slot){.next_free = loop->first_free};
        loop->first_free = i;
    }
    loop->slots = slots;
    loop->slot_count = count;
    return 0;
}

static int take_slot(struct evpt_loop *loop, struct evpt_watch *watch)
{
    int error = loop->first_free == NO_SLOT ? add_slots(loop) : 0;
    if (error)
        return error;
    struct slot *slot = &loop->slots[loop->first_free];
    watch->slot = loop->first_free;
    loop->first_free = slot->next_free;
    slot->watch = watch;
    loop->watch_count++;
    return 0;
}

static void give_slot(struct evpt_loop *loop, uint32_t number)
{
    struct slot *slot = &loop->slots[number];
    slot->watch = NULL;
    slot->generation++;
    slot->next_free = loop->first_free;
    loop->first_free = number;
    loop->watch_count--;
}

static uint64_t token_of(const struct evpt_watch *watch)
{
    return (uint64_t)watch->loop->slots[watch->slot].generation << 32 | watch->slot;
}

/* The watcher that an event is for, or NULL if it has been stopped since. */
static struct evpt_watch *find_watch(const struct evpt_loop *loop, uint64_t token)
{
    const struct slot *slot = &loop->slots[(uint32_t)token];
    return slot->generation == token >> 32 ? slot->watch : NULL;
}

int evpt_watch_start(struct evpt_loop *loop, struct evpt_watch *watch, int fd, uint32_t events,
                     evpt_watch_fn fn, void *user)
{
    assert_mine(loop);
    assert(!evpt_watch_is_started(watch));
    assert(!(events & ~(uint32_t)(EVPT_READ | EVPT_WRITE | EVPT_EDGE)));
    *watch = (struct evpt_watch){.loop = loop,
                                 .fn = fn,
                                 .user = user,
                                 .fd = fd,
                                 .wanted = (uint8_t)events,
                                 .applied = (uint8_t)events};
    int error = take_slot(loop, watch);
    if (!error) {
        error = evpt_sys_epoll_set(loop->epoll, EVPT_EPOLL_ADD, fd, events, token_of(watch));
        if (error)
            give_slot(loop, watch->slot);
    }
    if (error)
        watch->loop = NULL;
    return error;
}

void evpt_watch_set(struct evpt_watch *watch, uint32_t events)
{
    assert_mine(watch->loop);
    assert(!(events & ~(uint32_t)(EVPT_READ | EVPT_WRITE)));
    watch->wanted = (uint8_t)events;
    if (events != watch->applied && !evpt_list_is_linked(&watch->changed))
        evpt_list_push_back(&watch->loop->changed, &watch->changed);
}

void evpt_watch_stop(struct evpt_watch *watch)
{
    struct evpt_loop *loop = watch->loop;
    if (!loop)
        return;
    assert_mine(loop);
    int error = evpt_sys_epoll_set(loop->epoll, EVPT_EPOLL_REMOVE, watch->fd, 0, 0);
    assert(!error); /* it can only be that the descriptor was closed before */
    (void)error;
    evpt_list_remove(&watch->changed);
    give_slot(loop, watch->slot);
    watch->loop = NULL;
}

static void apply_changes(struct evpt_loop *loop)
{
    struct evpt_list *link;
    while ((link = evpt_list_pop_front(&loop->changed))) {
        struct evpt_watch *watch = EVPT_CONTAINER_OF(link, struct evpt_watch, changed);
        if (watch->wanted == watch->applied)
            continue; /* changed there and back */
        int error = evpt_sys_epoll_set(loop->epoll, EVPT_EPOLL_CHANGE, watch->fd, watch->wanted,
                                       token_of(watch));
        assert(!error); /* as in evpt_watch_stop */
        (void)error;
        watch->applied = watch->wanted;
    }
}

/* ---- timers ---- */

struct evpt_timer_wheel *evpt_loop_wheel(struct evpt_loop *loop)
{
    return &loop->wheel;
}

void evpt_loop_timer(struct evpt_loop *loop, struct evpt_timer *timer, uint64_t after_ns,
                     evpt_timer_fn fn, void *user)
{
    assert_mine(loop);
    uint64_t deadline_ns = loop->now_ns + after_ns;
    if (deadline_ns < after_ns)
        deadline_ns = EVPT_FOREVER;
    evpt_timer_start(&loop->wheel, timer, deadline_ns, fn, user);
}

/* ---- deferred work and hooks ---- */

void evpt_loop_defer(struct evpt_loop *loop, struct evpt_deferred *deferred, evpt_deferred_fn fn,
                     void *user)
{
    assert_mine(loop);
    if (evpt_list_is_linked(&deferred->link))
        return;
    deferred->fn = fn;
    deferred->user = user;
    evpt_list_push_back(&loop->deferred, &deferred->link);
}

void evpt_deferred_cancel(struct evpt_deferred *deferred)
{
    evpt_list_remove(&deferred->link);
}

void evpt_loop_add_hook(struct evpt_loop *loop, struct evpt_loop_hook *hook)
{
    assert_mine(loop);
    evpt_list_push_back(&loop->hooks, &hook->link);
}

void evpt_loop_remove_hook(struct evpt_loop_hook *hook)
{
    evpt_list_remove(&hook->link);
}

static int run_deferred(struct evpt_loop *loop)
{
    int ran = 0;
    struct evpt_list todo, *link;
    evpt_list_move(&todo, &loop->deferred); /* what these defer is for the next round */
    for (; (link = evpt_list_pop_front(&todo)); ran++) {
        struct evpt_deferred *deferred = EVPT_CONTAINER_OF(link, struct evpt_deferred, link);
        deferred->fn(deferred, deferred->user);
    }
    return ran;
}

static int run_hooks(struct evpt_loop *loop)
{
    int ran = 0;
    struct evpt_list todo, *link;
    if (evpt_list_is_empty(&loop->hooks))
        return 0; /* it is asked three times a turn */
    evpt_list_move(&todo, &loop->hooks);
    while ((link = evpt_list_pop_front(&todo))) {
        /* back in its place before the call, which may remove and free it */
        evpt_list_push_back(&loop->hooks, link);
        struct evpt_loop_hook *hook = EVPT_CONTAINER_OF(link, struct evpt_loop_hook, link);
        ran += hook->before(hook);
    }
    return ran;
}

/* Hooks once: messages that come in faster than they are taken make larger batches so, while to
 * look again at once would mean few at a time and a cache line that goes to and fro with the
 * producer. Deferred work until none is left; the bound keeps work that feeds itself from shutting
 * out the sockets. */
static int settle(struct evpt_loop *loop)
{
    int total = run_hooks(loop);
    for (int round = 0; round < EVPT_LOOP_SETTLE_MAX && !evpt_list_is_empty(&loop->deferred);
         round++)
        total += run_deferred(loop);
    return total;
}

/* Asks everybody, also after a "no": `before` follows for all of them. */
static bool may_rest(struct evpt_loop *loop)
{
    bool all = true;
    for (struct evpt_list *link = loop->hooks.next; link != &loop->hooks; link = link->next) {
        struct evpt_loop_hook *hook = EVPT_CONTAINER_OF(link, struct evpt_loop_hook, link);
        all = hook->rest(hook) && all;
    }
    return all;
}

/* ---- the turn ---- */

/* The count of events in loop->events, or a negative error. The loop's time is new afterwards. */
static int wait_for_events(struct evpt_loop *loop, uint64_t deadline_ns)
{
    if (deadline_ns) {
        uint64_t timer_ns = evpt_timer_wheel_next(&loop->wheel);
        if (timer_ns < deadline_ns)
            deadline_ns = timer_ns;
        /* The turn's time may be old by now, and the wait would last too long by as much; but it
         * takes no clock to wait for ever. */
        if ((deadline_ns != EVPT_FOREVER || loop->away) &&
            deadline_ns <= evpt_loop_update_now(loop))
            deadline_ns = 0;
    }
    if (deadline_ns && !may_rest(loop))
        deadline_ns = 0;
    uint64_t began_ns = loop->now_ns;
    int count = evpt_sys_epoll_wait(loop->epoll, loop->events, EVPT_LOOP_EVENTS_MAX, loop->now_ns,
                                    deadline_ns);
    evpt_loop_update_now(loop);
    if (loop->away) { /* a wait that does not block is part of the work before it */
        uint64_t until_ns = deadline_ns ? began_ns : loop->now_ns;
        evpt_histogram_add(loop->away, until_ns - loop->left_wait_ns);
        loop->left_wait_ns = loop->now_ns;
    }
    return count;
}

static int dispatch(struct evpt_loop *loop, int count)
{
    int ran = 0;
    for (int i = 0; i < count; i++) {
        struct evpt_watch *watch = find_watch(loop, loop->events[i].token);
        if (!watch)
            continue;
        uint32_t events = loop->events[i].events & (watch->wanted | (uint32_t)EVPT_HANGUP);
        if (!events)
            continue;
        watch->fn(watch, events, watch->user);
        ran++;
    }
    return ran;
}

int evpt_loop_turn(struct evpt_loop *loop, uint64_t deadline_ns)
{
    assert_mine(loop);
    assert(!loop->turning);
    loop->turning = true;
    loop->turns++;

    int ran = settle(loop);
    apply_changes(loop);
    int count = wait_for_events(loop, ran ? 0 : deadline_ns);
    ran += run_hooks(loop); /* first of all: it tells producers that nobody sleeps any more */
    if (count > 0)
        ran += dispatch(loop, count);
    ran += (int)evpt_timer_wheel_advance(&loop->wheel, loop->now_ns);
    ran += settle(loop);

    loop->turning = false;
    return count < 0 ? count : ran;
}
