#include "tools/evpt_bench/histogram.h"

#include <math.h>
#include <string.h>

enum { HALF_BITS = BENCH_HISTOGRAM_HALF_BITS, BUCKETS = BENCH_HISTOGRAM_BUCKETS };

/* The lowest HALF_BITS + 1 bits that matter stay; what is shifted out is the width of the bucket.
 * Values below 2^(HALF_BITS + 1) are not shifted at all. */
uint32_t bench_histogram_index(uint64_t value)
{
    unsigned bits = 64u - (unsigned)__builtin_clzll(value | UINT64_C(1) << HALF_BITS);
    unsigned shift = bits - (HALF_BITS + 1);
    uint64_t index = ((uint64_t)shift << HALF_BITS) + (value >> shift);
    return index < BUCKETS ? (uint32_t)index : BUCKETS - 1;
}

uint64_t bench_histogram_top(uint32_t index)
{
    unsigned shift = index >> HALF_BITS ? (index >> HALF_BITS) - 1 : 0;
    uint64_t kept = index - ((uint64_t)shift << HALF_BITS);
    return ((kept + 1) << shift) - 1;
}

void bench_histogram_record(struct bench_histogram *histogram, uint64_t value)
{
    histogram->buckets[bench_histogram_index(value)]++;
    histogram->count++;
    histogram->overflows += value >> BENCH_HISTOGRAM_VALUE_BITS != 0;
    histogram->sum += (double)value;
    histogram->square_sum += (double)value * (double)value;
    if (value > histogram->max)
        histogram->max = value;
}

void bench_histogram_merge(struct bench_histogram *histogram, const struct bench_histogram *from)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        histogram->buckets[i] += from->buckets[i];
    histogram->count += from->count;
    histogram->overflows += from->overflows;
    histogram->sum += from->sum;
    histogram->square_sum += from->square_sum;
    if (from->max > histogram->max)
        histogram->max = from->max;
}

void bench_histogram_add_bucket(struct bench_histogram *histogram, uint32_t index, uint64_t count)
{
    histogram->buckets[index] += count;
    histogram->count += count;
}

void bench_histogram_clear(struct bench_histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
}

uint64_t bench_histogram_quantile(const struct bench_histogram *histogram, double quantile,
                                  uint64_t infinite)
{
    uint64_t total = histogram->count + infinite;
    uint64_t rank = (uint64_t)ceil(quantile * (double)total);
    if (total == 0)
        return 0;
    if (rank == 0)
        rank = 1;
    if (rank > histogram->count)
        return UINT64_MAX;
    uint64_t seen = 0;
    uint32_t index = 0;
    while ((seen += histogram->buckets[index]) < rank)
        index++;
    uint64_t top = bench_histogram_top(index);
    /* the exact maximum is known: no percentile lies above it, and an overflow is not cut */
    return top > histogram->max || index == BUCKETS - 1 ? histogram->max : top;
}

double bench_histogram_mean(const struct bench_histogram *histogram)
{
    return histogram->count ? histogram->sum / (double)histogram->count : 0;
}

double bench_histogram_deviation(const struct bench_histogram *histogram)
{
    double mean = bench_histogram_mean(histogram);
    double square = histogram->count ? histogram->square_sum / (double)histogram->count : 0;
    return square > mean * mean ? sqrt(square - mean * mean) : 0; /* rounding may go below 0 */
}
