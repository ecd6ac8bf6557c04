#include "support.h"
#include "reactor/thread.h"
#include "reactor/wake.h"
#include <errno.h>
#include <stdlib.h>

enum { ENDS_MAX = 8 };

/* One side of a socket pair, watched; the other side is written to make it readable. */
struct end {
    struct evpt_watch watch;
    struct evpt_loop *loop;
    int fd, peer;
    int calls;
    uint32_t last;
    struct end *victim; /* what act() does it to */
};

static void make_end(struct end *end, struct evpt_loop *loop, bool readable)
{
    int fds[2];
    support_socketpair(fds);
    *end = (struct end){.loop = loop, .fd = fds[0], .peer = fds[1]};
    if (readable)
        ck_assert_int_eq(evpt_sys_write(end->peer, "x", 1), 1);
}

static void start_end(struct end *end, uint32_t events, evpt_watch_fn fn)
{
    ck_assert_int_eq(evpt_watch_start(end->loop, &end->watch, end->fd, events, fn, end), 0);
}

static void drop_end(struct end *end)
{
    evpt_watch_stop(&end->watch);
    evpt_sys_close(end->fd);
    evpt_sys_close(end->peer);
}

static void count_call(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct end *end = user;
    end->calls++;
    end->last = events;
}

static int turn(struct evpt_loop *loop)
{
    int ran = evpt_loop_turn(loop, 0);
    ck_assert_int_ge(ran, 0);
    return ran;
}

/* ---- descriptors ---- */

START_TEST(test_reports_readiness_until_it_is_gone)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    char byte;
    make_end(&end, loop, true);
    start_end(&end, EVPT_READ, count_call);
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_uint_eq(end.last, EVPT_READ);
    ck_assert_int_eq(evpt_sys_read(end.fd, &byte, 1), 1);
    ck_assert_int_eq(turn(loop), 0);
    ck_assert_int_eq(end.calls, 2);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_changed_interest_is_in_force_at_the_next_wait)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    make_end(&end, loop, true);
    start_end(&end, EVPT_READ, count_call);
    evpt_watch_set(&end.watch, EVPT_WRITE);
    turn(loop);
    ck_assert_uint_eq(end.last, EVPT_WRITE);
    evpt_watch_set(&end.watch, EVPT_READ | EVPT_WRITE);
    turn(loop);
    ck_assert_uint_eq(end.last, EVPT_READ | EVPT_WRITE);
    evpt_watch_set(&end.watch, 0);
    ck_assert_int_eq(turn(loop), 0);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_interest_changed_there_and_back_costs_no_system_call)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    make_end(&end, loop, false);
    start_end(&end, EVPT_READ, count_call);
    support_reset_calls();
    for (int i = 0; i < 10; i++) {
        evpt_watch_set(&end.watch, EVPT_READ | EVPT_WRITE);
        evpt_watch_set(&end.watch, EVPT_READ);
    }
    turn(loop);
    ck_assert_uint_eq(support_calls.epoll_set, 0);
    for (int i = 0; i < 10; i++)
        evpt_watch_set(&end.watch, i % 2 ? EVPT_WRITE : 0);
    turn(loop);
    ck_assert_uint_eq(support_calls.epoll_set, 1);
    ck_assert_uint_eq(end.last, EVPT_WRITE);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_hangup_is_reported_without_interest)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    make_end(&end, loop, false);
    start_end(&end, 0, count_call);
    ck_assert_int_eq(turn(loop), 0);
    evpt_sys_close(end.peer);
    end.peer = -1;
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_uint_eq(end.last, EVPT_HANGUP);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_refused_descriptor_leaves_the_watcher_stopped)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_watch watch = {0};
    ck_assert_int_eq(evpt_watch_start(loop, &watch, 9999, EVPT_READ, count_call, NULL), -EBADF);
    ck_assert(!evpt_watch_is_started(&watch));
    evpt_watch_stop(&watch);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_more_watchers_than_one_wait_can_fetch_all_get_their_turn)
{
    enum { COUNT = 400 };
    static struct end ends[COUNT];
    struct evpt_loop *loop = support_loop();
    for (int i = 0; i < COUNT; i++) {
        make_end(&ends[i], loop, true);
        start_end(&ends[i], EVPT_READ, count_call);
    }
    ck_assert_int_eq(turn(loop), EVPT_LOOP_EVENTS_MAX);
    for (int i = 0; i < 5; i++)
        turn(loop);
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_gt(ends[i].calls, 0);
        drop_end(&ends[i]);
    }
    evpt_loop_free(loop);
}
END_TEST

/* ---- hostile callbacks ---- */

static void stop_self(struct evpt_watch *watch, uint32_t events, void *user)
{
    count_call(watch, events, user);
    evpt_watch_stop(watch);
}

START_TEST(test_survives_self_stopped_in_callback)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    make_end(&end, loop, true);
    start_end(&end, EVPT_READ, stop_self);
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_int_eq(turn(loop), 0);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

static void drop_victim(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct end *end = user;
    count_call(watch, events, user);
    if (end->victim)
        drop_end(end->victim);
    if (end->victim)
        end->victim->victim = NULL;
    end->victim = NULL;
}

/* Whichever of the two comes first closes the other: both events were fetched in one batch. */
START_TEST(test_survives_sibling_closed_in_callback)
{
    struct evpt_loop *loop = support_loop();
    struct end ends[2];
    for (int i = 0; i < 2; i++) {
        make_end(&ends[i], loop, true);
        start_end(&ends[i], EVPT_READ, drop_victim);
    }
    ends[0].victim = &ends[1];
    ends[1].victim = &ends[0];
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_int_eq(ends[0].calls + ends[1].calls, 1);
    drop_end(ends[0].calls ? &ends[0] : &ends[1]);
    evpt_loop_free(loop);
}
END_TEST

static void free_self(struct evpt_watch *watch, uint32_t events, void *user)
{
    drop_end(user);
    evpt_sys_free(user);
}

START_TEST(test_survives_self_freed_in_callback)
{
    struct evpt_loop *loop = support_loop();
    for (int i = 0; i < 3; i++) {
        struct end *end = evpt_sys_alloc(sizeof(*end));
        make_end(end, loop, true);
        start_end(end, EVPT_READ, free_self);
    }
    ck_assert_int_eq(turn(loop), 3);
    evpt_loop_free(loop);
}
END_TEST

/* Closes its sibling and opens a descriptor that gets the sibling's number and slot. */
static void replace_victim(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct end *end = user, *victim = end->victim;
    count_call(watch, events, user);
    if (!victim)
        return;
    int number = victim->fd;
    evpt_watch_stop(&victim->watch);
    evpt_sys_close(victim->fd);
    int fd = evpt_sys_eventfd(); /* not readable */
    ck_assert_int_eq(fd, number);
    victim->fd = fd;
    victim->victim = NULL;
    start_end(victim, EVPT_READ, replace_victim);
    end->victim = NULL;
}

START_TEST(test_stale_event_does_not_reach_a_new_watcher_of_the_same_number)
{
    struct evpt_loop *loop = support_loop();
    struct end ends[2];
    for (int i = 0; i < 2; i++) {
        make_end(&ends[i], loop, true);
        start_end(&ends[i], EVPT_READ, replace_victim);
    }
    ends[0].victim = &ends[1];
    ends[1].victim = &ends[0];
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_int_eq(ends[0].calls + ends[1].calls, 1);
    turn(loop);
    ck_assert_int_eq(ends[0].calls * ends[1].calls, 0);
    drop_end(&ends[0]);
    drop_end(&ends[1]);
    evpt_loop_free(loop);
}
END_TEST

static void silence_victim(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct end *end = user;
    count_call(watch, events, user);
    evpt_watch_set(&end->victim->watch, 0);
}

START_TEST(test_sibling_that_lost_its_interest_is_not_called)
{
    struct evpt_loop *loop = support_loop();
    struct end ends[2];
    for (int i = 0; i < 2; i++) {
        make_end(&ends[i], loop, true);
        start_end(&ends[i], EVPT_READ, silence_victim);
    }
    ends[0].victim = &ends[1];
    ends[1].victim = &ends[0];
    ck_assert_int_eq(turn(loop), 1);
    drop_end(&ends[0]);
    drop_end(&ends[1]);
    evpt_loop_free(loop);
}
END_TEST

/* Callbacks that stop, close, replace and mute each other at random. An end counts its
 * incarnations; an event for an earlier one would come with the earlier user pointer's number. */
enum { CROWD = 24, CROWD_TURNS = 3000 };

struct crowd {
    struct evpt_loop *loop;
    struct support_random random;
    struct member {
        struct crowd *crowd;
        struct end *end; /* from the heap, freed when it is dropped */
    } members[CROWD];
    size_t calls;
};

static void crowd_act(struct evpt_watch *watch, uint32_t events, void *user);

static void crowd_join(struct crowd *crowd, struct member *member)
{
    member->crowd = crowd;
    member->end = evpt_sys_alloc(sizeof(*member->end));
    ck_assert_ptr_nonnull(member->end);
    make_end(member->end, crowd->loop, support_below(&crowd->random, 4));
    ck_assert_int_eq(evpt_watch_start(crowd->loop, &member->end->watch, member->end->fd, EVPT_READ,
                                      crowd_act, member),
                     0);
}

static void crowd_leave(struct member *member)
{
    if (!member->end)
        return;
    drop_end(member->end);
    evpt_sys_free(member->end);
    member->end = NULL;
}

static void crowd_act(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct member *self = user;
    struct crowd *crowd = self->crowd;
    ck_assert_ptr_eq(&self->end->watch, watch); /* nobody's stale event */
    ck_assert(events & (watch->wanted | EVPT_HANGUP));
    crowd->calls++;
    for (uint64_t i = support_below(&crowd->random, 3); i > 0; i--) {
        struct member *member = &crowd->members[support_below(&crowd->random, CROWD)];
        switch (support_below(&crowd->random, 3)) {
        case 0:
            crowd_leave(member);
            break;
        case 1:
            crowd_leave(member);
            crowd_join(crowd, member);
            break;
        default:
            if (member->end)
                evpt_watch_set(&member->end->watch, (uint32_t)support_below(&crowd->random, 4));
        }
    }
}

START_TEST(test_survives_a_crowd_that_closes_and_replaces_each_other)
{
    static struct crowd crowd;
    crowd.random = support_seed();
    crowd.loop = support_loop();
    for (int i = 0; i < CROWD_TURNS; i++) {
        struct member *member = &crowd.members[support_below(&crowd.random, CROWD)];
        if (!member->end)
            crowd_join(&crowd, member);
        turn(crowd.loop);
    }
    ck_assert_uint_gt(crowd.calls, CROWD_TURNS);
    for (int i = 0; i < CROWD; i++)
        crowd_leave(&crowd.members[i]);
    evpt_loop_free(crowd.loop);
}
END_TEST

/* ---- time ---- */

static void set_flag(struct evpt_timer *timer, void *user)
{
    *(bool *)user = true;
}

START_TEST(test_waits_for_the_timer_and_not_longer)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_timer timer = {0};
    bool fired = false;
    support_stop_clock();
    uint64_t start_ns = evpt_loop_update_now(loop);
    evpt_loop_timer(loop, &timer, 300 * EVPT_NS_PER_MS, set_flag, &fired);
    while (!fired)
        ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    ck_assert_uint_ge(evpt_loop_now(loop), start_ns + 300 * EVPT_NS_PER_MS);
    ck_assert_uint_lt(evpt_loop_now(loop), start_ns + 300 * EVPT_NS_PER_MS + EVPT_TIMER_TICK_NS);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_waits_on_the_real_clock)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_timer timer = {0};
    bool fired = false;
    uint64_t start_ns = evpt_loop_update_now(loop);
    evpt_loop_timer(loop, &timer, 20 * EVPT_NS_PER_MS, set_flag, &fired);
    TURN_UNTIL(loop, fired);
    ck_assert_uint_ge(evpt_sys_now_ns() - start_ns, 20 * EVPT_NS_PER_MS);
    ck_assert_uint_lt(support_calls.epoll_wait, 6); /* it slept, and did not spin */
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_turn_ends_at_its_own_deadline)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_timer timer = {0};
    bool fired = false;
    support_stop_clock();
    uint64_t now_ns = evpt_loop_update_now(loop);
    evpt_loop_timer(loop, &timer, EVPT_NS_PER_S, set_flag, &fired);
    ck_assert_int_eq(evpt_loop_turn(loop, now_ns + 12345), 0);
    ck_assert_uint_eq(evpt_loop_now(loop), now_ns + 12345);
    ck_assert_int_eq(evpt_loop_turn(loop, now_ns), 0); /* in the past: no wait */
    ck_assert_uint_eq(evpt_loop_now(loop), now_ns + 12345);
    ck_assert(!fired);
    evpt_loop_free(loop);
}
END_TEST

static void take_long(struct evpt_timer *timer, void *user)
{
    support_pass_time(50 * EVPT_NS_PER_MS);
}

START_TEST(test_time_spent_in_callbacks_is_not_waited_for_again)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_timer timer = {0}, slow = {0};
    bool fired = false;
    support_stop_clock();
    uint64_t start_ns = evpt_loop_update_now(loop);
    evpt_loop_timer(loop, &timer, 60 * EVPT_NS_PER_MS, set_flag, &fired);
    evpt_loop_timer(loop, &slow, 1, take_long, NULL);
    while (!fired)
        ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    ck_assert_uint_lt(evpt_sys_now_ns() - start_ns, 62 * EVPT_NS_PER_MS);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_delay_without_end_never_fires)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_timer timer = {0};
    bool fired = false;
    support_stop_clock();
    evpt_loop_timer(loop, &timer, UINT64_MAX - 1, set_flag, &fired);
    for (int i = 0; i < 100; i++)
        evpt_loop_turn(loop, evpt_sys_now_ns() + 86400 * EVPT_NS_PER_S);
    ck_assert(!fired);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_turn_reads_the_clock_twice_at_most)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    struct evpt_timer timer = {0};
    bool fired = false;
    make_end(&end, loop, true);
    start_end(&end, EVPT_READ, count_call);
    evpt_loop_timer(loop, &timer, EVPT_NS_PER_S, set_flag, &fired);
    support_reset_calls();
    ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_uint_le(support_calls.now, 2);
    ck_assert_uint_eq(support_calls.epoll_wait, 1);
    ck_assert_uint_eq(support_calls.epoll_set, 0);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

/* ---- deferred work and hooks ---- */

struct job {
    struct evpt_deferred deferred;
    struct evpt_loop *loop;
    struct job *other;
    int runs;
};

static void run_job(struct evpt_deferred *deferred, void *user)
{
    ((struct job *)user)->runs++;
}

START_TEST(test_deferred_work_runs_once_and_before_the_wait)
{
    struct evpt_loop *loop = support_loop();
    struct job job = {0};
    evpt_loop_defer(loop, &job.deferred, run_job, &job);
    evpt_loop_defer(loop, &job.deferred, run_job, &job);
    ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 1); /* and does not wait for ever */
    ck_assert_int_eq(job.runs, 1);
    ck_assert_int_eq(turn(loop), 0);
    evpt_loop_free(loop);
}
END_TEST

static void cancel_other(struct evpt_deferred *deferred, void *user)
{
    struct job *job = user;
    job->runs++;
    evpt_deferred_cancel(&job->other->deferred);
}

START_TEST(test_deferred_work_can_be_cancelled_by_its_neighbour)
{
    struct evpt_loop *loop = support_loop();
    struct job jobs[2] = {{.other = &jobs[1]}, {.other = &jobs[0]}};
    evpt_loop_defer(loop, &jobs[0].deferred, cancel_other, &jobs[0]);
    evpt_loop_defer(loop, &jobs[1].deferred, cancel_other, &jobs[1]);
    ck_assert_int_eq(turn(loop), 1);
    ck_assert_int_eq(jobs[0].runs, 1);
    ck_assert_int_eq(jobs[1].runs, 0);
    evpt_loop_free(loop);
}
END_TEST

static void defer_again(struct evpt_deferred *deferred, void *user)
{
    struct job *job = user;
    job->runs++;
    evpt_loop_defer(job->loop, deferred, defer_again, job);
}

START_TEST(test_work_that_feeds_itself_does_not_shut_out_the_sockets)
{
    struct evpt_loop *loop = support_loop();
    struct job job = {.loop = loop};
    struct end end;
    make_end(&end, loop, true);
    start_end(&end, EVPT_READ, count_call);
    evpt_loop_defer(loop, &job.deferred, defer_again, &job);
    ck_assert_int_gt(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(end.calls, 1);
    ck_assert_int_eq(job.runs, 2 * EVPT_LOOP_SETTLE_MAX);
    drop_end(&end);
    ck_assert(evpt_list_is_linked(&job.deferred.link));
    evpt_loop_free(loop);
    ck_assert(!evpt_list_is_linked(&job.deferred.link));
}
END_TEST

struct hook {
    struct evpt_loop_hook hook;
    struct evpt_loop *loop;
    struct hook *victim;
    int befores, rests, work;
    bool busy;
};

static int hook_before(struct evpt_loop_hook *base)
{
    struct hook *hook = EVPT_CONTAINER_OF(base, struct hook, hook);
    hook->befores++;
    if (hook->victim)
        evpt_loop_remove_hook(&hook->victim->hook);
    int ran = hook->work;
    hook->work = 0;
    return ran;
}

static bool hook_rest(struct evpt_loop_hook *base)
{
    struct hook *hook = EVPT_CONTAINER_OF(base, struct hook, hook);
    hook->rests++;
    return !hook->busy;
}

static void add_hook(struct hook *hook, struct evpt_loop *loop)
{
    *hook = (struct hook){.hook = {.before = hook_before, .rest = hook_rest}, .loop = loop};
    evpt_loop_add_hook(loop, &hook->hook);
}

START_TEST(test_hook_with_late_work_keeps_the_loop_from_blocking)
{
    struct evpt_loop *loop = support_loop();
    struct hook hooks[2];
    add_hook(&hooks[0], loop);
    add_hook(&hooks[1], loop);
    hooks[0].busy = true;
    ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(hooks[0].rests, 1);
    ck_assert_int_eq(hooks[1].rests, 1);
    evpt_loop_remove_hook(&hooks[0].hook);
    evpt_loop_remove_hook(&hooks[1].hook);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_hook_is_not_asked_to_rest_when_the_loop_does_not_wait)
{
    struct evpt_loop *loop = support_loop();
    struct hook hook;
    add_hook(&hook, loop);
    hook.work = 1;
    ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(turn(loop), 0);
    ck_assert_int_eq(hook.rests, 0);
    ck_assert_int_ge(hook.befores, 4);
    evpt_loop_remove_hook(&hook.hook);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_hook_removes_itself_and_its_neighbour)
{
    struct evpt_loop *loop = support_loop();
    struct hook hooks[3];
    for (int i = 0; i < 3; i++)
        add_hook(&hooks[i], loop);
    hooks[0].victim = &hooks[1];
    hooks[2].victim = &hooks[2];
    turn(loop);
    ck_assert_int_eq(hooks[1].befores, 0);
    ck_assert_int_eq(hooks[2].befores, 1);
    evpt_loop_remove_hook(&hooks[0].hook);
    evpt_loop_free(loop);
}
END_TEST

/* ---- life, memory, threads ---- */

START_TEST(test_new_loop_survives_any_refused_allocation)
{
    struct evpt_loop *loop = NULL;
    int refused = 0;
    for (;; refused++) {
        support_fail_allocation(refused + 1);
        int error = evpt_loop_new(&loop);
        support_fail_allocation(0);
        if (!error)
            break;
        ck_assert_int_eq(error, -ENOMEM);
        ck_assert_ptr_null(loop);
        support_teardown(); /* nothing half-made is left */
    }
    ck_assert_int_gt(refused, 1);
    evpt_loop_free(loop);
    evpt_loop_free(NULL);
}
END_TEST

START_TEST(test_watcher_without_memory_for_its_slot_is_refused)
{
    struct evpt_loop *loop = support_loop();
    struct end end;
    make_end(&end, loop, false);
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_watch_start(loop, &end.watch, end.fd, EVPT_READ, count_call, &end),
                     -ENOMEM);
    ck_assert(!evpt_watch_is_started(&end.watch));
    start_end(&end, EVPT_READ, count_call);
    drop_end(&end);
    evpt_loop_free(loop);
}
END_TEST

static void adopt_and_turn(void *user)
{
    struct evpt_loop *loop = user;
    ck_assert(!evpt_loop_is_mine(loop));
    evpt_loop_adopt(loop);
    ck_assert(evpt_loop_is_mine(loop));
    ck_assert_int_eq(evpt_loop_turn(loop, 0), 0);
}

START_TEST(test_loop_passes_from_thread_to_thread)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_thread thread = {0};
    ck_assert(evpt_loop_is_mine(loop));
    ck_assert_int_eq(evpt_thread_start(&thread, "other", adopt_and_turn, loop), 0);
    evpt_thread_join(&thread);
    ck_assert(!evpt_loop_is_mine(loop));
    evpt_loop_adopt(loop);
    ck_assert_int_eq(turn(loop), 0);
    ck_assert_uint_eq(evpt_loop_turns(loop), 2);
    evpt_loop_free(loop);
}
END_TEST

/* ---- wake ---- */

static void count_wake(struct evpt_wake *wake, void *user)
{
    ++*(int *)user;
}

START_TEST(test_signals_before_the_turn_make_one_callback)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_wake wake;
    int wakes = 0;
    ck_assert_int_eq(evpt_wake_init(&wake, loop, count_wake, &wakes), 0);
    ck_assert_int_eq(turn(loop), 0);
    for (int i = 0; i < 10; i++)
        evpt_wake_signal(&wake);
    ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(turn(loop), 0);
    ck_assert_int_eq(wakes, 1);
    evpt_wake_fini(&wake);
    evpt_wake_fini(&wake);
    evpt_wake_fini(NULL);
    evpt_loop_free(loop);
}
END_TEST

static void signal_again(struct evpt_wake *wake, void *user)
{
    if (++*(int *)user < 3)
        evpt_wake_signal(wake);
}

START_TEST(test_signal_during_the_callback_makes_another_and_none_is_read)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_wake wake;
    int wakes = 0;
    ck_assert_int_eq(evpt_wake_init(&wake, loop, signal_again, &wakes), 0);
    evpt_wake_signal(&wake);
    support_reset_calls();
    for (int i = 1; i <= 3; i++) {
        ck_assert_int_eq(evpt_loop_turn(loop, EVPT_FOREVER), 1);
        ck_assert_int_eq(wakes, i);
    }
    ck_assert_int_eq(turn(loop), 0); /* what was reported is not reported again */
    ck_assert_uint_eq(support_calls.epoll_wait, 4);
    ck_assert_uint_eq(support_calls.eventfd_signal, 2);
    ck_assert_uint_eq(support_calls.eventfd_clear, 0);
    evpt_wake_fini(&wake);
    evpt_loop_free(loop);
}
END_TEST

static void signal_wake(void *user)
{
    evpt_wake_signal(user);
}

START_TEST(test_signal_from_another_thread_ends_the_wait)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_thread thread = {0};
    struct evpt_wake wake;
    int wakes = 0;
    ck_assert_int_eq(evpt_wake_init(&wake, loop, count_wake, &wakes), 0);
    ck_assert_int_eq(evpt_thread_start(&thread, "other", signal_wake, &wake), 0);
    while (!wakes)
        ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    evpt_thread_join(&thread);
    evpt_wake_fini(&wake);
    evpt_loop_free(loop);
}
END_TEST

SUPPORT_MAIN("reactor/loop", test_reports_readiness_until_it_is_gone,
             test_changed_interest_is_in_force_at_the_next_wait,
             test_interest_changed_there_and_back_costs_no_system_call,
             test_hangup_is_reported_without_interest,
             test_refused_descriptor_leaves_the_watcher_stopped,
             test_more_watchers_than_one_wait_can_fetch_all_get_their_turn,
             test_survives_self_stopped_in_callback, test_survives_sibling_closed_in_callback,
             test_survives_self_freed_in_callback,
             test_stale_event_does_not_reach_a_new_watcher_of_the_same_number,
             test_sibling_that_lost_its_interest_is_not_called,
             test_survives_a_crowd_that_closes_and_replaces_each_other,
             test_waits_for_the_timer_and_not_longer, test_waits_on_the_real_clock,
             test_turn_ends_at_its_own_deadline,
             test_time_spent_in_callbacks_is_not_waited_for_again,
             test_delay_without_end_never_fires, test_turn_reads_the_clock_twice_at_most,
             test_deferred_work_runs_once_and_before_the_wait,
             test_deferred_work_can_be_cancelled_by_its_neighbour,
             test_work_that_feeds_itself_does_not_shut_out_the_sockets,
             test_hook_with_late_work_keeps_the_loop_from_blocking,
             test_hook_is_not_asked_to_rest_when_the_loop_does_not_wait,
             test_hook_removes_itself_and_its_neighbour,
             test_new_loop_survives_any_refused_allocation,
             test_watcher_without_memory_for_its_slot_is_refused,
             test_loop_passes_from_thread_to_thread, test_signals_before_the_turn_make_one_callback,
             test_signal_during_the_callback_makes_another_and_none_is_read,
             test_signal_from_another_thread_ends_the_wait)
