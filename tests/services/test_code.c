/* The outcomes of a call: the table of SPEC section 4, word for word. */
#include "support.h"

#include "services/code.h"
#include <string.h>

START_TEST(test_code_table_is_that_of_the_contract)
{
    static const struct {
        int code;
        const char *name, *executed;
    } table[] = {
        {0, "ok", "yes"},
        {1, "unknown_node", "no"},
        {2, "connect_failed", "no"},
        {3, "disconnected", "maybe"},
        {4, "timeout", "maybe"},
        {5, "unknown_service", "no"},
        {6, "unknown_method", "no"},
        {7, "failed", "yes"},
        {8, "overloaded", "no"},
        {9, "too_large", "no"},
        {10, "bad_message", "no"},
        {11, "stopping", "no"},
        {12, "denied", "no"},
    };
    ck_assert_uint_eq(sizeof(table) / sizeof(table[0]), EVPT_CODE_COUNT);
    for (int i = 0; i < EVPT_CODE_COUNT; i++) {
        ck_assert_int_eq(table[i].code, i);
        ck_assert_str_eq(evpt_code_name(i), table[i].name);
        ck_assert_str_eq(evpt_executed_name(evpt_code_executed(i)), table[i].executed);
        ck_assert_uint_gt(strlen(evpt_code_text(i)), 0);
    }
}
END_TEST

START_TEST(test_code_of_another_version_is_shown_and_promises_nothing)
{
    static const int strange[] = {-1, EVPT_CODE_COUNT, 65535, 1 << 30};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_str_eq(evpt_code_name(strange[i]), "unknown_code");
        ck_assert_uint_gt(strlen(evpt_code_text(strange[i])), 0);
        ck_assert_int_eq(evpt_code_executed(strange[i]), EVPT_EXECUTED_MAYBE);
    }
}
END_TEST

SUPPORT_MAIN("code", test_code_table_is_that_of_the_contract,
             test_code_of_another_version_is_shown_and_promises_nothing)
