/* Log-linear histogram of nanoseconds: three significant digits from 1 ns to 73 minutes.
 *
 * Values below 2048 have a bucket each. Above, each doubling is cut into 1024 buckets of one width,
 * so a bucket is at most 1/1024 as wide as any value in it: what comes out is at most 0.1 % above
 * what went in, and never below it. Recording is a shift, two additions and no branch on the value;
 * histograms of parts of a run are merged by adding their buckets. The idea and the layout are
 * those of HdrHistogram.
 *
 * No allocation, no thread: a zeroed struct is an empty histogram.
 */
#ifndef EVPT_BENCH_HISTOGRAM_H
#define EVPT_BENCH_HISTOGRAM_H

#include <stdint.h>

#define BENCH_HISTOGRAM_HALF_BITS 10 /* 2^10 buckets for each doubling */
#define BENCH_HISTOGRAM_VALUE_BITS 42
#define BENCH_HISTOGRAM_BUCKETS                                                                    \
    ((BENCH_HISTOGRAM_VALUE_BITS - BENCH_HISTOGRAM_HALF_BITS + 1) << BENCH_HISTOGRAM_HALF_BITS)

struct bench_histogram {
    uint64_t count;
    uint64_t overflows; /* of these, how many were longer than the last bucket; they count there */
    uint64_t max;       /* exact, also above the last bucket */
    double sum, square_sum; /* for mean and deviation */
    uint64_t buckets[BENCH_HISTOGRAM_BUCKETS];
};

void bench_histogram_record(struct bench_histogram *histogram, uint64_t value);
/* Adds everything that `from` has. */
void bench_histogram_merge(struct bench_histogram *histogram, const struct bench_histogram *from);
/* Adds `count` values of one bucket; nothing else changes (for who brings max and sums too). */
void bench_histogram_add_bucket(struct bench_histogram *histogram, uint32_t index, uint64_t count);
void bench_histogram_clear(struct bench_histogram *histogram);

/* The value that the share `quantile` (0.99: p99) of all values does not exceed; `infinite` more
 * values are taken to lie above all others. 0 where there is none; UINT64_MAX where it is one of
 * the infinite ones. */
uint64_t bench_histogram_quantile(const struct bench_histogram *histogram, double quantile,
                                  uint64_t infinite);
double bench_histogram_mean(const struct bench_histogram *histogram);
double bench_histogram_deviation(const struct bench_histogram *histogram);

/* The bucket that a value lies in, and the highest value of a bucket. */
uint32_t bench_histogram_index(uint64_t value);
uint64_t bench_histogram_top(uint32_t index);

#endif
