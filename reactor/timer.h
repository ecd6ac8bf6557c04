/* Hierarchical timer wheel with intrusive entries.
 *
 * 5 levels of 64 slots; a tick is 2^20 ns (about 1 ms). Insert and cancel are O(1), and an entry
 * moves down at most 4 times before it fires. The wheel calls nobody's clock: time comes in as
 * `now_ns`. An entry never fires early; it fires in the first advance whose time has reached the
 * end of the tick that its deadline lies in, so at most one tick late. Entries of one tick fire in
 * the order in which they were started, entries of earlier ticks first.
 *
 * Level 0 holds the ticks of the current block of 64, one tick a slot; level 1 the other blocks of
 * the current 64 blocks, one block a slot; and so on. A timer's level is thus the highest base-64
 * digit in which its tick differs from the wheel's: at any moment there is just one slot for a
 * tick, which is what keeps the order, and no slot ever holds two rounds of the wheel. What lies
 * beyond the last level (2^50 ns, 13 days) waits in a list of its own, looked through once in 13
 * days.
 *
 *     struct evpt_timer t = {0};
 *     evpt_timer_start(&wheel, &t, now_ns + 5 * EVPT_NS_PER_MS, on_time, user);
 *     ...
 *     evpt_timer_wheel_advance(&wheel, now_ns);
 *
 * Belongs to one thread. Callbacks run inside evpt_timer_wheel_advance only, and may start and stop
 * any timer, their own included; a timer started by a callback with a deadline in the past fires in
 * the next advance, so advance always ends.
 */
#ifndef EVPT_REACTOR_TIMER_H
#define EVPT_REACTOR_TIMER_H

#include "reactor/list.h"
#include <stdint.h>

#define EVPT_TIMER_LEVELS 5
#define EVPT_TIMER_SLOTS 64 /* the bits of a word: the next used slot is one instruction away */
#define EVPT_TIMER_TICK_NS (UINT64_C(1) << 20)

struct evpt_timer;
typedef void (*evpt_timer_fn)(struct evpt_timer *timer, void *user);

/* In the caller's storage; zeroed: not running. 40 bytes: there is one for each call in flight. */
struct evpt_timer {
    /* private */
    struct evpt_list link;
    uint64_t tick; /* when it fires */
    evpt_timer_fn fn;
    void *user;
};

struct evpt_timer_wheel {
    /* private */
    uint64_t tick;     /* all ticks before this one have fired */
    uint64_t earliest; /* tick that a timer started now gets at least; `tick` outside of advance */
    uint64_t occupied[EVPT_TIMER_LEVELS]; /* one bit a slot */
    size_t count;
    struct evpt_list slots[EVPT_TIMER_LEVELS][EVPT_TIMER_SLOTS];
    struct evpt_list beyond;
};

void evpt_timer_wheel_init(struct evpt_timer_wheel *wheel, uint64_t now_ns);
/* Unlinks all timers without calling them. Zeroed is fine. */
void evpt_timer_wheel_fini(struct evpt_timer_wheel *wheel);

/* (Re)starts a timer; EVPT_FOREVER as deadline never fires. */
void evpt_timer_start(struct evpt_timer_wheel *wheel, struct evpt_timer *timer,
                      uint64_t deadline_ns, evpt_timer_fn fn, void *user);
/* Stops it; nothing where it is not running. Afterwards it is never called. */
void evpt_timer_stop(struct evpt_timer_wheel *wheel, struct evpt_timer *timer);
static inline bool evpt_timer_is_running(const struct evpt_timer *timer)
{
    return evpt_list_is_linked(&timer->link);
}

/* Fires what is due; returns how many. Not from inside a timer's callback. */
size_t evpt_timer_wheel_advance(struct evpt_timer_wheel *wheel, uint64_t now_ns);
/* When to call advance next: a time not later than needed (it may be earlier, at the boundary of a
 * level), or EVPT_FOREVER where no timer is running. */
uint64_t evpt_timer_wheel_next(const struct evpt_timer_wheel *wheel);
size_t evpt_timer_wheel_count(const struct evpt_timer_wheel *wheel);
/* Debug: asserts every invariant. */
void evpt_timer_wheel_check(const struct evpt_timer_wheel *wheel);

#endif
