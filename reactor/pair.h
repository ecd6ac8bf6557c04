/* EvPairs: whole messages from any thread to the thread of a loop.
 *
 * SEED.md: other threads write with writeData, the loop's thread reads with readData. Here a write
 * is a push on an mpsc queue (mpsc.h), a read takes the whole queue at once, and the eventfd is
 * written only if the loop has said that it is about to sleep: under load there is no system call
 * at all.
 *
 *     evpt_pair_init(&pair, loop, on_messages, user);
 *     evpt_pair_write(&pair, &message->node);             any thread
 *     on_messages(user, list): the loop's thread, list in order of writing
 */
#ifndef EVPT_REACTOR_PAIR_H
#define EVPT_REACTOR_PAIR_H

#include "reactor/loop.h"
#include "reactor/mpsc.h"
#include "reactor/wake.h"

/* `list`: the elements, oldest first, linked by `next`; they belong to the callee. */
typedef void (*evpt_pair_fn)(void *user, struct evpt_mpsc_node *list);

struct evpt_pair { /* caller's storage, must not move */
    /* private */
    struct evpt_loop_hook hook;
    struct evpt_wake wake;
    struct evpt_mpsc queue;
    evpt_pair_fn fn;
    void *user;
};

/* The loop's thread. */
int evpt_pair_init(struct evpt_pair *pair, struct evpt_loop *loop, evpt_pair_fn fn, void *user);
/* No producer may write any more. Elements still in the queue are handed to `fn` once more.
 * NULL and zeroed are fine. */
void evpt_pair_fini(struct evpt_pair *pair);
/* Any thread (writeData). */
void evpt_pair_write(struct evpt_pair *pair, struct evpt_mpsc_node *node);
/* The loop's thread (readData): hands what is there to `fn` now; returns whether there was
 * anything. The loop does this by itself at every turn. */
bool evpt_pair_read(struct evpt_pair *pair);

#endif
