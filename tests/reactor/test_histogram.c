/* Histograms, and a loop that measures how long it is away from its wait. */
#include "reactor/histogram.h"
#include "reactor/loop.h"
#include "reactor/thread.h"
#include "support.h"

static uint64_t count_in(struct evpt_histogram *histogram, unsigned bucket)
{
    return atomic_load_explicit(&histogram->counts[bucket], memory_order_relaxed);
}

static uint64_t total(struct evpt_histogram *histogram)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= EVPT_HISTOGRAM_BOUNDS; i++)
        sum += count_in(histogram, i);
    return sum;
}

START_TEST(test_histogram_bounds_rise_and_belong_to_the_bucket_below)
{
    struct evpt_histogram histogram = {0};
    uint64_t sum_ns = 0;
    for (unsigned i = 0; i < EVPT_HISTOGRAM_BOUNDS; i++) {
        uint64_t bound_ns = evpt_histogram_bounds_ns[i];
        ck_assert(i == 0 || bound_ns > evpt_histogram_bounds_ns[i - 1]);
        evpt_histogram_add(&histogram, bound_ns);
        ck_assert_uint_eq(count_in(&histogram, i), i ? 2 : 1);
        evpt_histogram_add(&histogram, bound_ns + 1);
        ck_assert_uint_eq(count_in(&histogram, i + 1), 1);
        sum_ns += 2 * bound_ns + 1;
    }
    ck_assert_uint_eq(total(&histogram), 2 * EVPT_HISTOGRAM_BOUNDS);
    ck_assert_uint_eq(atomic_load(&histogram.sum_ns), sum_ns);
}
END_TEST

START_TEST(test_histogram_counts_nothing_and_everything)
{
    struct evpt_histogram histogram = {0};
    evpt_histogram_add(&histogram, 0);
    evpt_histogram_add(&histogram, UINT64_MAX / 2);
    ck_assert_uint_eq(count_in(&histogram, 0), 1);
    ck_assert_uint_eq(count_in(&histogram, EVPT_HISTOGRAM_BOUNDS), 1);
}
END_TEST

START_TEST(test_histograms_add_up)
{
    struct evpt_histogram sum = {0}, one = {0}, other = {0};
    evpt_histogram_add(&one, 1);
    evpt_histogram_add(&other, 2);
    evpt_histogram_add(&other, EVPT_NS_PER_S);
    evpt_histogram_merge(&sum, &one);
    evpt_histogram_merge(&sum, &other);
    ck_assert_uint_eq(total(&sum), 3);
    ck_assert_uint_eq(count_in(&sum, 0), 2);
    ck_assert_uint_eq(atomic_load(&sum.sum_ns), EVPT_NS_PER_S + 3);
}
END_TEST

enum { ADDED = 100000 };

static void add_many(void *user)
{
    for (int i = 0; i < ADDED; i++)
        evpt_histogram_add(user, EVPT_NS_PER_MS);
}

/* A reader sees no count fall, and in the end all of them. For ThreadSanitizer, too. */
START_TEST(test_histogram_is_read_while_it_is_written)
{
    struct evpt_histogram histogram = {0};
    struct evpt_thread thread = {0};
    ck_assert_int_eq(evpt_thread_start(&thread, "writer", add_many, &histogram), 0);
    for (uint64_t before = 0, seen = 0; seen < ADDED; before = seen) {
        struct evpt_histogram copy = {0};
        evpt_histogram_merge(&copy, &histogram);
        seen = total(&copy);
        if (seen < before)
            ck_abort_msg("fell from %lu to %lu", before, seen);
    }
    evpt_thread_join(&thread);
    ck_assert_uint_eq(atomic_load(&histogram.sum_ns), ADDED * EVPT_NS_PER_MS);
}
END_TEST

/* ---- the loop ---- */

static void take_long(struct evpt_timer *timer, void *user)
{
    support_pass_time(30 * EVPT_NS_PER_MS);
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned bucket = 0;
    while (bucket < EVPT_HISTOGRAM_BOUNDS && ns > evpt_histogram_bounds_ns[bucket])
        bucket++;
    return bucket;
}

START_TEST(test_loop_counts_what_its_callbacks_take_and_not_what_it_waits)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_histogram away = {0};
    struct evpt_timer timer = {0};
    support_stop_clock();
    evpt_loop_measure(loop, &away);
    evpt_loop_timer(loop, &timer, EVPT_NS_PER_S, take_long, NULL);
    uint64_t turns = 1;
    while (evpt_loop_turn(loop, EVPT_FOREVER) == 0) /* waits a second in all, then works */
        turns++;
    ck_assert_uint_eq(count_in(&away, 0), turns);
    ck_assert_int_eq(evpt_loop_turn(loop, 0), 0);
    ck_assert_uint_eq(total(&away), turns + 1);
    ck_assert_uint_eq(count_in(&away, bucket_of(30 * EVPT_NS_PER_MS)), 1);
    ck_assert_uint_eq(atomic_load(&away.sum_ns), 30 * EVPT_NS_PER_MS);
    evpt_loop_free(loop);
}
END_TEST

/* The thread of a loop may have other work between two turns; events wait for that just so. */
START_TEST(test_loop_counts_what_is_done_between_its_turns)
{
    struct evpt_loop *loop = support_loop();
    struct evpt_histogram away = {0};
    support_stop_clock();
    evpt_loop_measure(loop, &away);
    support_pass_time(200 * EVPT_NS_PER_MS);
    ck_assert_int_eq(evpt_loop_turn(loop, evpt_sys_now_ns() + EVPT_NS_PER_S), 0);
    ck_assert_uint_eq(atomic_load(&away.sum_ns), 200 * EVPT_NS_PER_MS);
    evpt_loop_measure(loop, NULL);
    ck_assert_int_eq(evpt_loop_turn(loop, 0), 0);
    ck_assert_uint_eq(total(&away), 1);
    evpt_loop_free(loop);
}
END_TEST

SUPPORT_MAIN("reactor/histogram", test_histogram_bounds_rise_and_belong_to_the_bucket_below,
             test_histogram_counts_nothing_and_everything, test_histograms_add_up,
             test_histogram_is_read_while_it_is_written,
             test_loop_counts_what_its_callbacks_take_and_not_what_it_waits,
             test_loop_counts_what_is_done_between_its_turns)
