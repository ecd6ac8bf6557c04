/* The calls in flight of the client, by the session that their frames bear.
 *
 * A call lies in a slot; the session is the slot's number and its generation, so the answer to a
 * call that was given up long ago does not find the one that has the slot now. Slots do not move:
 * timers lie in them.
 */
#ifndef EVPT_BENCH_CALLS_H
#define EVPT_BENCH_CALLS_H

#include "reactor/timer.h"

#include <stdbool.h>
#include <stdint.h>

struct bench_call {
    struct evpt_timer timeout;
    uint64_t start_ns;   /* open loop: the intended start */
    uint32_t connection; /* index */
    uint32_t covers;     /* messages that its answer stands for */
    uint32_t session;    /* 0: free */
    uint32_t next_free;
    uint32_t generation;
};

#define BENCH_CALLS_SLOT_BITS 20
#define BENCH_CALLS_MAX (1u << BENCH_CALLS_SLOT_BITS)
#define BENCH_CALLS_CHUNK 1024

struct bench_calls { /* zeroed: empty, once first_free is set by _init */
    struct bench_call *chunks[BENCH_CALLS_MAX / BENCH_CALLS_CHUNK];
    uint32_t capacity, count, first_free;
};

void bench_calls_init(struct bench_calls *calls);
/* Timers of calls in flight must have been stopped. */
void bench_calls_fini(struct bench_calls *calls);
/* A new call with its session set; NULL: no memory, or too many. */
struct bench_call *bench_calls_take(struct bench_calls *calls);
/* By session; NULL: it has ended. */
struct bench_call *bench_calls_find(const struct bench_calls *calls, uint32_t session);
void bench_calls_give(struct bench_calls *calls, struct bench_call *call);
/* The call in a slot below `capacity`; NULL where it is free. */
struct bench_call *bench_calls_at(const struct bench_calls *calls, uint32_t slot);

#endif
