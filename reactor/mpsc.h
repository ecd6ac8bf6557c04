/* Multi-producer single-consumer queue: the one place where threads meet.
 *
 * Producers push whole elements with one compare-and-swap; the consumer takes everything at once
 * with one exchange and gets it in the order pushed. No lock, no allocation, and no ABA problem: an
 * element leaves only together with all others.
 *
 * The head is one of three things: NULL (empty, the consumer is awake), a list of elements (newest
 * first), or PARKED (empty, and the consumer has gone to rest). Whoever pushes on PARKED has to see
 * to it that the consumer runs again: for a pair (pair.h) by writing its eventfd, for an actor
 * (services/) by making it runnable. So under load nobody wakes anybody.
 *
 *     PARKED --push--> list       push returns true: the pusher wakes the consumer, exactly once
 *     list   --push--> list       push returns false
 *     list   --take--> NULL       the consumer owns the elements
 *     NULL   --park--> PARKED     park fails if an element came in meanwhile
 *
 * The idea of a parked mark in the head is ponyc's (messageq.c: the low bit of the head), taken to
 * a stack that is reversed on take, as libuv and the Linux kernel's llist do.
 */
#ifndef EVPT_REACTOR_MPSC_H
#define EVPT_REACTOR_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct evpt_mpsc_node {
    struct evpt_mpsc_node *next;
};

struct evpt_mpsc {
    _Atomic(struct evpt_mpsc_node *) head;
};

#define EVPT_MPSC_PARKED ((struct evpt_mpsc_node *)(void *)1)

/* An empty queue, whose consumer counts as parked if `parked`. Before any other thread sees it. */
static inline void evpt_mpsc_init(struct evpt_mpsc *queue, bool parked)
{
    atomic_init(&queue->head, parked ? EVPT_MPSC_PARKED : NULL);
}

/* Any thread. The queue owns the node until it is taken. True: the consumer was parked, and it is
 * now for the caller to wake it. */
static inline bool evpt_mpsc_push(struct evpt_mpsc *queue, struct evpt_mpsc_node *node)
{
    struct evpt_mpsc_node *head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    do {
        node->next = head == EVPT_MPSC_PARKED ? NULL : head;
        /* release: pairs with the acquire in take; the consumer sees what the node contains */
    } while (!atomic_compare_exchange_weak_explicit(&queue->head, &head, node, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return head == EVPT_MPSC_PARKED;
}

/* Consumer only. Everything pushed so far, oldest first, linked by `next`; NULL if there is
 * nothing. The consumer counts as awake from here on. */
static inline struct evpt_mpsc_node *evpt_mpsc_take(struct evpt_mpsc *queue)
{
    struct evpt_mpsc_node *node = NULL, *list = NULL;
    /* relaxed peek: an empty queue costs no locked instruction; a push that this misses is seen by
     * the next take or refuses the park */
    if (atomic_load_explicit(&queue->head, memory_order_relaxed))
        node = atomic_exchange_explicit(&queue->head, NULL, memory_order_acq_rel);
    if (node == EVPT_MPSC_PARKED)
        return NULL;
    while (node) {
        struct evpt_mpsc_node *next = node->next;
        node->next = list;
        list = node;
        node = next;
    }
    return list;
}

/* Consumer only. True: the queue is empty and the consumer counts as parked; the next push says so
 * to its pusher. False: there are elements to take. */
static inline bool evpt_mpsc_park(struct evpt_mpsc *queue)
{
    struct evpt_mpsc_node *expected = NULL;
    /* release: what the consumer wrote before resting is seen by the thread that takes over from it
     * after a push that found PARKED (acquire side of push) */
    return atomic_compare_exchange_strong_explicit(&queue->head, &expected, EVPT_MPSC_PARKED,
                                                   memory_order_acq_rel, memory_order_relaxed) ||
           expected == EVPT_MPSC_PARKED;
}

/* Any thread; a hint, already old when it returns. */
static inline bool evpt_mpsc_is_empty(struct evpt_mpsc *queue)
{
    struct evpt_mpsc_node *head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    return head == NULL || head == EVPT_MPSC_PARKED;
}

#endif
