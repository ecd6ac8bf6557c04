/* EvThread: a thread with a loop of its own and a pair through which others reach it.
 *
 *     evpt_ev_thread_init(&t, on_messages, user);     loop and pair exist; others may write
 *     evpt_ev_thread_start(&t, "name", between, user); (runThread) turns the loop until stopped
 *     evpt_ev_thread_send(&t, &message->node);        any thread (sendMsgData)
 *     evpt_ev_thread_stop(&t);                        any thread; then join
 *     evpt_ev_thread_fini(&t);
 *
 * A program that brings its own thread turns `t.loop` itself instead of starting one (the node
 * does: there the loop of the cluster thread can pass from thread to thread, see
 * services/scheduler.h).
 */
#ifndef EVPT_REACTOR_EV_THREAD_H
#define EVPT_REACTOR_EV_THREAD_H

#include "reactor/loop.h"
#include "reactor/pair.h"
#include "reactor/thread.h"

/* Called by the thread before each turn; returns until when the turn may wait (0: not at all). */
typedef uint64_t (*evpt_ev_thread_between_fn)(void *user);

struct evpt_ev_thread { /* caller's storage, must not move */
    struct evpt_loop *loop;
    struct evpt_pair pair;
    /* private */
    struct evpt_thread thread;
    evpt_ev_thread_between_fn between;
    void *user;
    _Atomic bool stopping;
};

int evpt_ev_thread_init(struct evpt_ev_thread *t, evpt_pair_fn on_messages, void *user);
/* `between` may be NULL. */
int evpt_ev_thread_start(struct evpt_ev_thread *t, const char *name,
                         evpt_ev_thread_between_fn between, void *user);
void evpt_ev_thread_send(struct evpt_ev_thread *t, struct evpt_mpsc_node *node);
/* Asks the thread to end after its current turn. Any thread. */
void evpt_ev_thread_stop(struct evpt_ev_thread *t);
void evpt_ev_thread_join(struct evpt_ev_thread *t);
/* After join. The loop's other users must be gone. NULL and zeroed are fine. */
void evpt_ev_thread_fini(struct evpt_ev_thread *t);

#endif
