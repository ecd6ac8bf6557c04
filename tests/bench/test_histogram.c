/* The histogram against values that were kept and sorted. */
#include "tools/evpt_bench/histogram.h"

#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 20000 };

static struct bench_histogram *make(void)
{
    struct bench_histogram *histogram = calloc(1, sizeof(*histogram));
    ck_assert_ptr_nonnull(histogram);
    return histogram;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Spread evenly over the orders of magnitude: 1 ns to 73 minutes. */
static uint64_t random_value(uint64_t *state)
{
    unsigned bits = (unsigned)(next_random(state) % BENCH_HISTOGRAM_VALUE_BITS) + 1;
    return next_random(state) >> (64 - bits);
}

static uint64_t exact_quantile(const uint64_t *sorted, size_t count, double quantile)
{
    size_t rank = (size_t)ceil(quantile * (double)count);
    return sorted[rank ? rank - 1 : 0];
}

START_TEST(test_histogram_quantile_is_at_most_a_thousandth_above_the_exact_one)
{
    static const double quantiles[] = {0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    static uint64_t values[VALUES];
    uint64_t state = test_seed();
    struct bench_histogram *histogram = make();
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = random_value(&state);
        bench_histogram_record(histogram, values[i]);
    }
    qsort(values, VALUES, sizeof(values[0]), compare);
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        uint64_t exact = exact_quantile(values, VALUES, quantiles[i]);
        uint64_t got = bench_histogram_quantile(histogram, quantiles[i], 0);
        ck_assert_uint_ge(got, exact);
        ck_assert_uint_le(got, exact + exact / 1000);
    }
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 1, 0), values[VALUES - 1]);
    free(histogram);
}
END_TEST

START_TEST(test_histogram_keeps_values_below_2048_exactly)
{
    struct bench_histogram *histogram = make();
    for (uint64_t value = 0; value < 2048; value++) {
        ck_assert_uint_eq(bench_histogram_top(bench_histogram_index(value)), value);
        bench_histogram_record(histogram, value);
    }
    for (uint64_t rank = 1; rank <= 2048; rank++)
        ck_assert_uint_eq(bench_histogram_quantile(histogram, (double)rank / 2048, 0), rank - 1);
    free(histogram);
}
END_TEST

START_TEST(test_histogram_buckets_lie_side_by_side)
{
    for (uint32_t i = 0; i + 1 < BENCH_HISTOGRAM_BUCKETS; i++) {
        uint64_t top = bench_histogram_top(i);
        ck_assert_uint_eq(bench_histogram_index(top), i);
        ck_assert_uint_eq(bench_histogram_index(top + 1), i + 1);
    }
    uint64_t last = bench_histogram_top(BENCH_HISTOGRAM_BUCKETS - 1);
    ck_assert_uint_eq(last, (UINT64_C(1) << BENCH_HISTOGRAM_VALUE_BITS) - 1);
    ck_assert_uint_eq(bench_histogram_index(last), BENCH_HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(test_histogram_of_parts_is_that_of_the_whole)
{
    uint64_t state = test_seed();
    struct bench_histogram *whole = make(), *parts[2] = {make(), make()};
    for (int i = 0; i < VALUES; i++) {
        uint64_t value = random_value(&state) % 1000000; /* sums that a double holds exactly */
        bench_histogram_record(whole, value);
        bench_histogram_record(parts[next_random(&state) % 2], value);
    }
    bench_histogram_merge(parts[0], parts[1]);
    ck_assert_mem_eq(parts[0], whole, sizeof(*whole));
    bench_histogram_clear(parts[1]);
    bench_histogram_merge(parts[0], parts[1]);
    ck_assert_mem_eq(parts[0], whole, sizeof(*whole));
    free(whole);
    free(parts[0]);
    free(parts[1]);
}
END_TEST

START_TEST(test_histogram_rebuilt_from_its_buckets_has_the_same_quantiles)
{
    uint64_t state = test_seed();
    struct bench_histogram *histogram = make(), *rebuilt = make();
    for (int i = 0; i < VALUES; i++)
        bench_histogram_record(histogram, random_value(&state));
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        if (histogram->buckets[i])
            bench_histogram_add_bucket(rebuilt, i, histogram->buckets[i]);
    }
    rebuilt->max = histogram->max;
    ck_assert_uint_eq(rebuilt->count, VALUES);
    for (int i = 0; i <= 1000; i++)
        ck_assert_uint_eq(bench_histogram_quantile(rebuilt, i / 1000.0, 0),
                          bench_histogram_quantile(histogram, i / 1000.0, 0));
    free(histogram);
    free(rebuilt);
}
END_TEST

START_TEST(test_histogram_counts_what_is_too_long_and_keeps_its_maximum)
{
    struct bench_histogram *histogram = make();
    uint64_t limit = UINT64_C(1) << BENCH_HISTOGRAM_VALUE_BITS;
    bench_histogram_record(histogram, 5);
    bench_histogram_record(histogram, limit - 1);
    ck_assert_uint_eq(histogram->overflows, 0);
    bench_histogram_record(histogram, limit);
    bench_histogram_record(histogram, UINT64_MAX);
    ck_assert_uint_eq(histogram->overflows, 2);
    ck_assert_uint_eq(histogram->count, 4);
    ck_assert_uint_eq(histogram->max, UINT64_MAX);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.25, 0), 5);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 1, 0), UINT64_MAX);
    free(histogram);
}
END_TEST

START_TEST(test_histogram_takes_what_never_came_for_longer_than_everything)
{
    struct bench_histogram *histogram = make();
    for (int i = 0; i < 98; i++)
        bench_histogram_record(histogram, 100);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.99, 0), 100);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.98, 2), 100);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.99, 2), UINT64_MAX);
    free(histogram);
}
END_TEST

START_TEST(test_histogram_without_values_says_nothing)
{
    struct bench_histogram *histogram = make();
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.5, 0), 0);
    ck_assert_uint_eq(bench_histogram_quantile(histogram, 0.5, 1), UINT64_MAX);
    ck_assert_double_eq(bench_histogram_mean(histogram), 0);
    ck_assert_double_eq(bench_histogram_deviation(histogram), 0);
    free(histogram);
}
END_TEST

START_TEST(test_histogram_knows_mean_and_deviation)
{
    static const uint64_t values[] = {2, 4, 4, 4, 5, 5, 7, 9};
    struct bench_histogram *histogram = make();
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        bench_histogram_record(histogram, values[i] * 1000000);
    ck_assert_double_eq_tol(bench_histogram_mean(histogram), 5e6, 1e-3);
    ck_assert_double_eq_tol(bench_histogram_deviation(histogram), 2e6, 1e-3);
    free(histogram);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("histogram");
    tcase_add_test(tcase, test_histogram_quantile_is_at_most_a_thousandth_above_the_exact_one);
    tcase_add_test(tcase, test_histogram_keeps_values_below_2048_exactly);
    tcase_add_test(tcase, test_histogram_buckets_lie_side_by_side);
    tcase_add_test(tcase, test_histogram_of_parts_is_that_of_the_whole);
    tcase_add_test(tcase, test_histogram_rebuilt_from_its_buckets_has_the_same_quantiles);
    tcase_add_test(tcase, test_histogram_counts_what_is_too_long_and_keeps_its_maximum);
    tcase_add_test(tcase, test_histogram_takes_what_never_came_for_longer_than_everything);
    tcase_add_test(tcase, test_histogram_without_values_says_nothing);
    tcase_add_test(tcase, test_histogram_knows_mean_and_deviation);
    return run_tests("bench/histogram", tcase);
}
