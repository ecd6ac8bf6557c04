/* The schedule of an open loop: slot i is due at begin + i / rate, whatever has become of the
 * others. */
#ifndef EVPT_BENCH_PACE_H
#define EVPT_BENCH_PACE_H

#include <stdint.h>

struct bench_pace {
    uint64_t begin_ns;
    double rate; /* slots a second */
};

static inline uint64_t bench_pace_at(const struct bench_pace *pace, uint64_t slot)
{
    return pace->begin_ns + (uint64_t)((double)slot * 1e9 / pace->rate);
}

/* How many slots are due by `now_ns`. */
static inline uint64_t bench_pace_due(const struct bench_pace *pace, uint64_t now_ns)
{
    if (now_ns < pace->begin_ns)
        return 0;
    uint64_t due = (uint64_t)((double)(now_ns - pace->begin_ns) * pace->rate / 1e9) + 1;
    /* rounding may be off by one slot; bench_pace_at has the last word */
    while (due > 0 && bench_pace_at(pace, due - 1) > now_ns)
        due--;
    while (bench_pace_at(pace, due) <= now_ns)
        due++;
    return due;
}

#endif
