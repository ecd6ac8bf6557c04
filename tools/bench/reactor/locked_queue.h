/* The queue for the libraries that bring a wake-up between threads but no queue: a list under a
 * mutex, taken as a whole, with a wake-up only for the first element of an empty list. That is what
 * programs on these libraries do where they do it well.
 */
#ifndef EVPT_BENCH_LOCKED_QUEUE_H
#define EVPT_BENCH_LOCKED_QUEUE_H

#include "bench.h"
#include <pthread.h>

struct lib_message {
    struct lib_message *next;
};

static inline struct lib_message *lib_next(struct lib_message *message)
{
    return message->next;
}

struct locked_queue {
    pthread_mutex_t lock;
    struct lib_message *first, **end;
};

static inline void locked_queue_init(struct locked_queue *queue)
{
    pthread_mutex_init(&queue->lock, NULL);
    queue->first = NULL;
    queue->end = &queue->first;
}

static inline void locked_queue_fini(struct locked_queue *queue)
{
    pthread_mutex_destroy(&queue->lock);
}

/* True: it was empty, wake the consumer. */
static inline bool locked_queue_push(struct locked_queue *queue, struct lib_message *message)
{
    message->next = NULL;
    pthread_mutex_lock(&queue->lock);
    bool was_empty = !queue->first;
    *queue->end = message;
    queue->end = &message->next;
    pthread_mutex_unlock(&queue->lock);
    return was_empty;
}

/* Everything, oldest first; NULL where there is nothing. */
static inline struct lib_message *locked_queue_take(struct locked_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    struct lib_message *list = queue->first;
    queue->first = NULL;
    queue->end = &queue->first;
    pthread_mutex_unlock(&queue->lock);
    return list;
}

#endif
