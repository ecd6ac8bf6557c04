#include "support.h"
#include "reactor/pool.h"
#include <string.h>

START_TEST(test_gives_at_least_what_was_asked_for)
{
    static const size_t wanted[] = {
        1, EVPT_POOL_SMALL, EVPT_POOL_SMALL + 1, EVPT_POOL_LARGE, EVPT_POOL_LARGE + 1, 1000000};
    static const size_t given[] = {EVPT_POOL_SMALL, EVPT_POOL_SMALL,     EVPT_POOL_LARGE,
                                   EVPT_POOL_LARGE, EVPT_POOL_LARGE + 1, 1000000};
    struct evpt_pool pool;
    evpt_pool_init(&pool);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        size_t size = 0;
        void *block = evpt_pool_take(&pool, wanted[i], &size);
        ck_assert_ptr_nonnull(block);
        ck_assert_uint_eq(size, given[i]);
        memset(block, 1, size);
        evpt_pool_give(&pool, block, size);
    }
    evpt_pool_fini(&pool);
}
END_TEST

START_TEST(test_reuses_the_block_given_back_last)
{
    struct evpt_pool pool;
    size_t size;
    evpt_pool_init(&pool);
    void *first = evpt_pool_take(&pool, 1, &size), *second = evpt_pool_take(&pool, 1, &size);
    evpt_pool_give(&pool, first, size);
    evpt_pool_give(&pool, second, size);
    ck_assert_ptr_eq(evpt_pool_take(&pool, 1, &size), second);
    ck_assert_ptr_eq(evpt_pool_take(&pool, 1, &size), first);
    evpt_pool_give(&pool, first, size);
    evpt_pool_give(&pool, second, size);
    evpt_pool_fini(&pool);
}
END_TEST

static void check_bound(size_t wanted, long bound)
{
    enum { BLOCKS = 400 };
    struct evpt_pool pool;
    void *blocks[BLOCKS];
    size_t size;
    evpt_pool_init(&pool);
    for (int i = 0; i < BLOCKS; i++)
        ck_assert_ptr_nonnull(blocks[i] = evpt_pool_take(&pool, wanted, &size));
    for (int i = 0; i < BLOCKS; i++)
        evpt_pool_give(&pool, blocks[i], size);
    ck_assert_int_eq(support_leaked_allocations(), bound);
    evpt_pool_fini(&pool);
    ck_assert_int_eq(support_leaked_allocations(), 0);
}

START_TEST(test_keeps_no_more_than_its_bounds)
{
    check_bound(1, EVPT_POOL_SMALL_KEPT);
    check_bound(EVPT_POOL_LARGE, EVPT_POOL_LARGE_KEPT);
    check_bound(EVPT_POOL_LARGE + 1, 0);
}
END_TEST

START_TEST(test_out_of_memory_is_null)
{
    struct evpt_pool pool;
    size_t size = 7;
    evpt_pool_init(&pool);
    support_fail_allocation(1);
    ck_assert_ptr_null(evpt_pool_take(&pool, 1, &size));
    ck_assert_uint_eq(size, 7);
    evpt_pool_give(&pool, NULL, 0);
    evpt_pool_fini(&pool);
}
END_TEST

SUPPORT_MAIN("reactor/pool", test_gives_at_least_what_was_asked_for,
             test_reuses_the_block_given_back_last, test_keeps_no_more_than_its_bounds,
             test_out_of_memory_is_null)
