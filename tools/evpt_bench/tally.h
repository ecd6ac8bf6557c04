/* What came of the calls: outcomes by code, and the histograms. Shared by the client here and the
 * Lua module of --local (meter.c). */
#ifndef EVPT_BENCH_TALLY_H
#define EVPT_BENCH_TALLY_H

#include "services/code.h"
#include "tools/evpt_bench/histogram.h"
#include <string.h>

#define BENCH_CODE_OTHER EVPT_CODE_COUNT /* a code that this version does not know */
#define BENCH_CODES (EVPT_CODE_COUNT + 1)

struct bench_tally {
    uint64_t outcomes[BENCH_CODES];
    struct bench_histogram latency; /* of calls that were answered with ok or timed out */
    struct bench_histogram lag;     /* open loop: how late calls were started */
};

/* A call has ended after `ns`, and stands for `covers` messages. A call that timed out counts with
 * the time it was waited for, so that timeouts cannot flatter the percentiles; other errors say
 * nothing about the speed of the method. */
static inline void bench_tally_end(struct bench_tally *tally, unsigned code, uint64_t covers,
                                   uint64_t ns)
{
    tally->outcomes[code < BENCH_CODE_OTHER ? code : BENCH_CODE_OTHER] += covers;
    if (code == EVPT_CODE_OK || code == EVPT_CODE_TIMEOUT)
        bench_histogram_record(&tally->latency, ns);
}

static inline void bench_tally_merge(struct bench_tally *tally, const struct bench_tally *from)
{
    for (unsigned i = 0; i < BENCH_CODES; i++)
        tally->outcomes[i] += from->outcomes[i];
    bench_histogram_merge(&tally->latency, &from->latency);
    bench_histogram_merge(&tally->lag, &from->lag);
}

static inline void bench_tally_clear(struct bench_tally *tally)
{
    memset(tally, 0, sizeof(*tally)); /* half a megabyte: no temporary */
}

static inline uint64_t bench_tally_ended(const struct bench_tally *tally)
{
    uint64_t ended = 0;
    for (unsigned i = 0; i < BENCH_CODES; i++)
        ended += tally->outcomes[i];
    return ended;
}

#endif
