/* A histogram of times for one writer and any number of readers: how many took at most so long.
 *
 * The bounds are the same for all of them, 10 us to 10 s in steps of 1, 2.5 and 5, so histograms
 * can be added up. An update is two relaxed loads and stores; a reader sees each count as it was at
 * some moment, and takes the sum of the counts for their total, so that the two always agree.
 */
#ifndef EVPT_REACTOR_HISTOGRAM_H
#define EVPT_REACTOR_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define EVPT_HISTOGRAM_BOUNDS 19
extern const uint64_t evpt_histogram_bounds_ns[EVPT_HISTOGRAM_BOUNDS];

struct evpt_histogram {                                 /* zeroed: empty */
    _Atomic uint64_t counts[EVPT_HISTOGRAM_BOUNDS + 1]; /* the last one: longer than all bounds */
    _Atomic uint64_t sum_ns;
};

/* A counter of one writer goes up. Relaxed: it says nothing about anything else. */
static inline void evpt_count_up(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

/* The writer. A bound belongs to the bucket below it. */
static inline void evpt_histogram_add(struct evpt_histogram *histogram, uint64_t ns)
{
    unsigned bucket = 0; /* most times are short: the first few comparisons find them */
    while (bucket < EVPT_HISTOGRAM_BOUNDS && ns > evpt_histogram_bounds_ns[bucket])
        bucket++;
    evpt_count_up(&histogram->counts[bucket], 1);
    evpt_count_up(&histogram->sum_ns, ns);
}

/* Any thread: adds what `from` has counted to `to`, whose writer is the caller. */
static inline void evpt_histogram_merge(struct evpt_histogram *to, struct evpt_histogram *from)
{
    for (unsigned i = 0; i <= EVPT_HISTOGRAM_BOUNDS; i++)
        evpt_count_up(&to->counts[i], atomic_load_explicit(&from->counts[i], memory_order_relaxed));
    evpt_count_up(&to->sum_ns, atomic_load_explicit(&from->sum_ns, memory_order_relaxed));
}

#endif
