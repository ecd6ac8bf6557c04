/* The checkers checked: what the fixture is there to find, it finds. */
#include "support.h"

static int failures_of(const TTest *test)
{
    Suite *suite = suite_create("planted");
    TCase *tcase = tcase_create("planted");
    tcase_add_checked_fixture(tcase, support_setup, support_teardown);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed;
}

START_TEST(plant_nothing)
{
    evpt_sys_free(evpt_sys_alloc(1));
}
END_TEST

START_TEST(plant_memory)
{
    static void *kept; /* reachable, so that the sanitizer's own search has nothing to say */
    kept = evpt_sys_alloc(1);
    ck_assert_ptr_nonnull(kept);
}
END_TEST

START_TEST(plant_descriptor)
{
    ck_assert_int_ge(evpt_sys_reserve_fd(), 0);
}
END_TEST

START_TEST(plant_loop)
{
    static struct evpt_loop *kept;
    kept = support_loop();
    ck_assert_ptr_nonnull(kept);
}
END_TEST

START_TEST(test_fixture_passes_a_clean_test)
{
    ck_assert_int_eq(failures_of(plant_nothing), 0);
}
END_TEST

START_TEST(test_fixture_fails_a_test_that_leaks_memory)
{
    ck_assert_int_eq(failures_of(plant_memory), 1);
}
END_TEST

START_TEST(test_fixture_fails_a_test_that_leaks_a_descriptor)
{
    ck_assert_int_eq(failures_of(plant_descriptor), 1);
}
END_TEST

START_TEST(test_fixture_fails_a_test_that_leaks_a_loop)
{
    ck_assert_int_eq(failures_of(plant_loop), 1);
}
END_TEST

START_TEST(test_only_the_chosen_allocation_fails)
{
    support_fail_allocation(2);
    void *first = evpt_sys_alloc(1), *second = evpt_sys_zalloc(1);
    void *third = evpt_sys_realloc(NULL, 1);
    ck_assert(first && !second && third);
    ck_assert_int_eq(support_leaked_allocations(), 2);
    evpt_sys_free(first);
    evpt_sys_free(third);
    ck_assert_int_eq(support_leaked_allocations(), 0);
}
END_TEST

START_TEST(test_stopped_clock_moves_only_by_request_and_by_waits)
{
    struct evpt_loop *loop = support_loop();
    support_stop_clock();
    uint64_t start_ns = evpt_sys_now_ns();
    ck_assert_uint_eq(evpt_sys_now_ns(), start_ns);
    support_pass_time(5);
    ck_assert_uint_eq(evpt_sys_now_ns(), start_ns + 5);
    ck_assert_int_eq(evpt_loop_turn(loop, start_ns + 3600 * EVPT_NS_PER_S), 0);
    ck_assert_uint_eq(evpt_sys_now_ns(), start_ns + 3600 * EVPT_NS_PER_S);
    evpt_loop_free(loop);
}
END_TEST

SUPPORT_MAIN("reactor/support", test_fixture_passes_a_clean_test,
             test_fixture_fails_a_test_that_leaks_memory,
             test_fixture_fails_a_test_that_leaks_a_descriptor,
             test_fixture_fails_a_test_that_leaks_a_loop, test_only_the_chosen_allocation_fails,
             test_stopped_clock_moves_only_by_request_and_by_waits)
