#include "support.h"
#include "reactor/mpsc.h"
#include "reactor/thread.h"
#include <sched.h>

struct item {
    struct evpt_mpsc_node node;
    unsigned producer, number;
};

static struct item *item_of(struct evpt_mpsc_node *node)
{
    return EVPT_CONTAINER_OF(node, struct item, node);
}

START_TEST(test_takes_everything_in_the_order_pushed)
{
    struct evpt_mpsc queue;
    struct item items[4];
    evpt_mpsc_init(&queue, false);
    for (unsigned i = 0; i < 4; i++) {
        items[i].number = i;
        evpt_mpsc_push(&queue, &items[i].node);
    }
    struct evpt_mpsc_node *list = evpt_mpsc_take(&queue);
    for (unsigned i = 0; i < 4; i++, list = list->next)
        ck_assert_uint_eq(item_of(list)->number, i);
    ck_assert_ptr_null(list);
    ck_assert_ptr_null(evpt_mpsc_take(&queue));
}
END_TEST

START_TEST(test_only_the_first_push_on_a_parked_queue_wakes)
{
    struct evpt_mpsc queue;
    struct item items[3];
    evpt_mpsc_init(&queue, true);
    ck_assert(evpt_mpsc_push(&queue, &items[0].node));
    ck_assert(!evpt_mpsc_push(&queue, &items[1].node));
    struct evpt_mpsc_node *list = evpt_mpsc_take(&queue);
    ck_assert_ptr_eq(list, &items[0].node);
    ck_assert_ptr_eq(list->next, &items[1].node);
    ck_assert(!evpt_mpsc_push(&queue, &items[2].node));
    ck_assert_ptr_eq(evpt_mpsc_take(&queue), &items[2].node);
}
END_TEST

START_TEST(test_parks_only_when_empty)
{
    struct evpt_mpsc queue;
    struct item item;
    evpt_mpsc_init(&queue, false);
    evpt_mpsc_push(&queue, &item.node);
    ck_assert(!evpt_mpsc_park(&queue));
    ck_assert(!evpt_mpsc_is_empty(&queue));
    ck_assert_ptr_eq(evpt_mpsc_take(&queue), &item.node);
    ck_assert(evpt_mpsc_park(&queue));
    ck_assert(evpt_mpsc_park(&queue)); /* parked already is as good */
    ck_assert(evpt_mpsc_is_empty(&queue));
    ck_assert(evpt_mpsc_push(&queue, &item.node));
}
END_TEST

START_TEST(test_taking_from_a_parked_queue_unparks)
{
    struct evpt_mpsc queue;
    struct item item;
    evpt_mpsc_init(&queue, true);
    ck_assert_ptr_null(evpt_mpsc_take(&queue));
    ck_assert(!evpt_mpsc_push(&queue, &item.node));
}
END_TEST

/* ---- threads ---- */

enum { PRODUCERS = 4, ITEMS = 20000 };

struct shared {
    struct evpt_mpsc queue;
    atomic_uint wakes; /* pushes that found the consumer parked */
};

struct producer {
    struct evpt_thread thread;
    struct shared *shared;
    struct item items[ITEMS];
};

static void produce(void *user)
{
    struct producer *producer = user;
    for (unsigned i = 0; i < ITEMS; i++) {
        if (evpt_mpsc_push(&producer->shared->queue, &producer->items[i].node))
            atomic_fetch_add_explicit(&producer->shared->wakes, 1, memory_order_relaxed);
    }
}

/* The consumer parks whenever it finds nothing, and goes on only when it has been woken: a wake-up
 * too few would hang the test, one too many fails it. */
START_TEST(test_each_park_is_answered_by_exactly_one_push)
{
    static struct producer producers[PRODUCERS];
    static struct shared shared;
    unsigned next[PRODUCERS] = {0}, parked = 0;
    evpt_mpsc_init(&shared.queue, false);
    atomic_init(&shared.wakes, 0);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        producers[i].shared = &shared;
        for (unsigned j = 0; j < ITEMS; j++)
            producers[i].items[j] = (struct item){.producer = i, .number = j};
    }
    for (unsigned i = 0; i < PRODUCERS; i++)
        ck_assert_int_eq(
            evpt_thread_start(&producers[i].thread, "producer", produce, &producers[i]), 0);
    for (unsigned got = 0; got < PRODUCERS * ITEMS;) {
        struct evpt_mpsc_node *list = evpt_mpsc_take(&shared.queue);
        for (; list; list = list->next, got++) {
            struct item *item = item_of(list);
            ck_assert_uint_eq(item->number, next[item->producer]++);
        }
        if (got == PRODUCERS * ITEMS || !evpt_mpsc_park(&shared.queue))
            continue;
        parked++;
        while (atomic_load_explicit(&shared.wakes, memory_order_relaxed) != parked)
            sched_yield();
    }
    for (unsigned i = 0; i < PRODUCERS; i++)
        evpt_thread_join(&producers[i].thread);
    ck_assert_uint_eq(atomic_load(&shared.wakes), parked);
    ck_assert_ptr_null(evpt_mpsc_take(&shared.queue));
}
END_TEST

SUPPORT_MAIN("reactor/mpsc", test_takes_everything_in_the_order_pushed,
             test_only_the_first_push_on_a_parked_queue_wakes, test_parks_only_when_empty,
             test_taking_from_a_parked_queue_unparks,
             test_each_park_is_answered_by_exactly_one_push)
