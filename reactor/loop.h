/* The event loop: descriptors, timers, deferred work, hooks.
 *
 * Single-threaded: everything on a loop belongs to the thread that turns it, which debug builds
 * assert (evpt_loop_adopt moves a loop to another thread between two turns). The one thing that
 * other threads may touch is a pair (pair.h) or a wake.
 *
 * One turn:
 *   1. settle: hooks' `before` (pairs hand over what they got), then deferred work (streams flush)
 *      until there is none left, at most EVPT_LOOP_SETTLE_MAX rounds
 *   2. changed interests are handed to epoll, one call per changed watcher
 *   3. one wait: until the next timer or the turn's deadline; not at all if step 1 ran anything, so
 *      that `while (!done)` below sees what those callbacks did before the loop goes to sleep
 *   4. hooks' `before`, then the events, at most EVPT_LOOP_EVENTS_MAX a turn, then due timers
 *   5. settle again: what the callbacks have written leaves in this turn
 *
 * epoll is level-triggered. Its token is slot and generation: an event that was fetched for a
 * watcher stopped since, or whose fd number was reused within the batch, finds another generation
 * and is dropped. So any callback may stop and free any watcher, its own and its siblings'
 * included. Events that nobody wants any more (evpt_watch_set by a sibling) are dropped too.
 *
 *     struct evpt_loop *loop;
 *     int error = evpt_loop_new(&loop);
 *     evpt_watch_start(loop, &watch, fd, EVPT_READ, on_ready, user);
 *     while (!done)
 *         evpt_loop_turn(loop, EVPT_FOREVER);
 *     evpt_loop_free(loop);
 */
#ifndef EVPT_REACTOR_LOOP_H
#define EVPT_REACTOR_LOOP_H

#include "reactor/histogram.h"
#include "reactor/list.h"
#include "reactor/sys.h"
#include "reactor/timer.h"

#define EVPT_LOOP_EVENTS_MAX 256 /* fetched by one wait: bounds the time between two flushes */
#define EVPT_LOOP_SETTLE_MAX 8   /* rounds of deferred work before a wait */
#define EVPT_LOOP_SCRATCH (256 * 1024) /* one read's worth: bigger gains nothing on loopback */

struct evpt_loop;
struct evpt_pool;
struct evpt_watch;

/* `events`: what came of EVPT_READ | EVPT_WRITE | EVPT_HANGUP; HANGUP (error or hang-up) is
 * reported whatever was asked for, again and again until the watcher is stopped. */
typedef void (*evpt_watch_fn)(struct evpt_watch *watch, uint32_t events, void *user);

struct evpt_watch { /* caller's storage; zeroed: stopped */
    /* private */
    struct evpt_loop *loop;
    struct evpt_list changed;
    evpt_watch_fn fn;
    void *user;
    int fd;
    uint32_t slot;
    uint8_t wanted, applied; /* interest asked for; interest that epoll knows */
};

int evpt_loop_new(struct evpt_loop **ret_loop);
/* Watchers must be stopped and hooks removed before (asserted); timers and deferred work are
 * unlinked. NULL is fine. */
void evpt_loop_free(struct evpt_loop *loop);

/* One turn; waits until `deadline_ns` at the latest (0: does not wait). Returns the number of
 * callbacks that ran, or a negative error of the wait itself. */
int evpt_loop_turn(struct evpt_loop *loop, uint64_t deadline_ns);
/* The calling thread owns the loop from now on. Only between two turns, and ordered after the last
 * one. */
void evpt_loop_adopt(struct evpt_loop *loop);
/* Any thread. */
bool evpt_loop_is_mine(const struct evpt_loop *loop);
/* The time of the current turn (read once after the wait), as old as the turn: whoever computes for
 * long and then starts a short timer calls evpt_loop_update_now, which reads the clock. */
uint64_t evpt_loop_now(const struct evpt_loop *loop);
uint64_t evpt_loop_update_now(struct evpt_loop *loop);
/* Total turns, for metrics and tests. */
uint64_t evpt_loop_turns(const struct evpt_loop *loop);
/* From now on counts how long the loop was away from its wait each time, what its thread did
 * between two turns included: so long may an event have waited. NULL: not any more. */
void evpt_loop_measure(struct evpt_loop *loop, struct evpt_histogram *away);

/* ---- descriptors ---- */

/* The descriptor stays the caller's. -errno where epoll refuses it, -ENOMEM. The watcher must not
 * move while it is started. EVPT_EDGE beside EVPT_READ is for eventfds (wake.h): a socket watched
 * so falls silent unless its callback reads all there is. */
int evpt_watch_start(struct evpt_loop *loop, struct evpt_watch *watch, int fd, uint32_t events,
                     evpt_watch_fn fn, void *user);
/* Changes the interest (EVPT_READ | EVPT_WRITE or 0); applied before the next wait. */
void evpt_watch_set(struct evpt_watch *watch, uint32_t events);
/* Call it before the descriptor is closed. Nothing where it is stopped. */
void evpt_watch_stop(struct evpt_watch *watch);
static inline bool evpt_watch_is_started(const struct evpt_watch *watch)
{
    return watch->loop != NULL;
}

/* ---- timers: the loop's wheel, advanced at the end of each turn ---- */

struct evpt_timer_wheel *evpt_loop_wheel(struct evpt_loop *loop);
/* evpt_timer_start on it, `after_ns` from the turn's time. */
void evpt_loop_timer(struct evpt_loop *loop, struct evpt_timer *timer, uint64_t after_ns,
                     evpt_timer_fn fn, void *user);

/* ---- deferred work: runs once, before the next wait ---- */

struct evpt_deferred;
typedef void (*evpt_deferred_fn)(struct evpt_deferred *deferred, void *user);
struct evpt_deferred { /* caller's storage; zeroed: not pending */
    /* private */
    struct evpt_list link;
    evpt_deferred_fn fn;
    void *user;
};
/* Nothing where it is pending already. */
void evpt_loop_defer(struct evpt_loop *loop, struct evpt_deferred *deferred, evpt_deferred_fn fn,
                     void *user);
void evpt_deferred_cancel(struct evpt_deferred *deferred);

/* ---- hooks: who has work that no descriptor announces ---- */

struct evpt_loop_hook;
struct evpt_loop_hook { /* caller's storage */
    /* Does pending work; returns how many callbacks ran. */
    int (*before)(struct evpt_loop_hook *hook);
    /* The loop is about to block. Returns false if there is work after all: the loop then does not.
     * May not add or remove hooks. `before` follows, whether the loop has blocked or not. */
    bool (*rest)(struct evpt_loop_hook *hook);
    /* private */
    struct evpt_list link;
};
void evpt_loop_add_hook(struct evpt_loop *loop, struct evpt_loop_hook *hook);
void evpt_loop_remove_hook(struct evpt_loop_hook *hook);

/* ---- memory that the streams of the loop share ---- */

/* The read buffer: EVPT_LOOP_SCRATCH bytes, valid until the callback that got it returns. */
uint8_t *evpt_loop_scratch(struct evpt_loop *loop);
struct evpt_pool *evpt_loop_pool(struct evpt_loop *loop);

#endif
