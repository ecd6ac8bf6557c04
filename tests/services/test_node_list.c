/* The node list in memory. */
#include "services/node_list.h"

#include "reactor/error.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct evpt_node_list list;
static struct evpt_addr addr;

static void setup(void)
{
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:8001"), 0);
}

static void teardown(void)
{
    evpt_node_list_fini(&list);
    ck_assert_ptr_null(list.entries);
}

START_TEST(test_node_list_finds_what_was_added)
{
    ck_assert_ptr_null(evpt_node_list_find(&list, "a"));
    ck_assert_int_eq(evpt_node_list_add(&list, "b", &addr), 0);
    ck_assert_int_eq(evpt_node_list_add(&list, "a", NULL), 0);
    const struct evpt_node_entry *b = evpt_node_list_find(&list, "b");
    ck_assert_str_eq(b->name, "b");
    ck_assert_uint_eq(evpt_addr_port(&b->addr), 8001);
    ck_assert_uint_eq(evpt_node_list_find(&list, "a")->addr.size, 0);
    ck_assert_ptr_null(evpt_node_list_find(&list, "ab"));
    ck_assert_ptr_null(evpt_node_list_find(&list, ""));
}
END_TEST

START_TEST(test_node_list_refuses_a_name_twice)
{
    ck_assert_int_eq(evpt_node_list_add(&list, "a", &addr), 0);
    ck_assert_int_eq(evpt_node_list_add(&list, "a", NULL), -EVPT_EEXISTS);
    ck_assert_uint_eq(list.count, 1);
    ck_assert_uint_gt(list.entries[0].addr.size, 0);
}
END_TEST

/* Added in a scattered order, in numbers that cross each step of its growth. */
START_TEST(test_node_list_stays_sorted_as_it_grows)
{
    enum { NODES = 1031 }; /* a prime: every step visits all */
    char name[EVPT_NODE_NAME_MAX + 1];
    for (int i = 0; i < NODES; i++) {
        snprintf(name, sizeof name, "n%d", i * 389 % NODES);
        ck_assert_int_eq(evpt_node_list_add(&list, name, i % 2 ? &addr : NULL), 0);
    }
    ck_assert_uint_eq(list.count, NODES);
    for (size_t i = 1; i < NODES; i++)
        ck_assert_int_lt(strcmp(list.entries[i - 1].name, list.entries[i].name), 0);
    for (int i = 0; i < NODES; i++) {
        snprintf(name, sizeof name, "n%d", i * 389 % NODES);
        const struct evpt_node_entry *entry = evpt_node_list_find(&list, name);
        ck_assert_str_eq(entry->name, name);
        ck_assert_int_eq(entry->addr.size > 0, i % 2);
    }
}
END_TEST

START_TEST(test_node_list_fini_accepts_null_and_zeroed)
{
    evpt_node_list_fini(NULL);
    evpt_node_list_fini(&list);
    evpt_node_list_fini(&list);
}
END_TEST

START_TEST(test_node_name_is_valid_by_its_pattern)
{
    static const char *const valid[] = {"a", "_", "Z9", "battle_1", "__", "a0123456789"};
    static const char *const invalid[] = {"",    "1",  "1a", "a-b",      "a.b",
                                          "a b", " a", "a ", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
        ck_assert_msg(evpt_node_name_is_valid(valid[i]), "%s", valid[i]);
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
        ck_assert_msg(!evpt_node_name_is_valid(invalid[i]), "%s", invalid[i]);

    char name[EVPT_NODE_NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    name[EVPT_NODE_NAME_MAX] = 0;
    ck_assert(evpt_node_name_is_valid(name));
    name[EVPT_NODE_NAME_MAX] = 'x';
    name[EVPT_NODE_NAME_MAX + 1] = 0;
    ck_assert(!evpt_node_name_is_valid(name));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node_list");
    TCase *tc = tcase_create("node_list");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_node_list_finds_what_was_added);
    tcase_add_test(tc, test_node_list_refuses_a_name_twice);
    tcase_add_test(tc, test_node_list_stays_sorted_as_it_grows);
    tcase_add_test(tc, test_node_list_fini_accepts_null_and_zeroed);
    tcase_add_test(tc, test_node_name_is_valid_by_its_pattern);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
