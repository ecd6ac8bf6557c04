#include "support.h"
#include "reactor/error.h"
#include "reactor/thread.h"
#include <errno.h>
#include <string.h>

START_TEST(test_own_errors_have_their_text_and_name)
{
#define X(name, value, text)                                                                       \
    ck_assert_str_eq(evpt_strerror(-name), text);                                                  \
    ck_assert_str_eq(evpt_error_name(-name), #name);
    EVPT_ERRORS(X)
#undef X
}
END_TEST

START_TEST(test_own_errors_are_distinct_and_above_errno)
{
    static const int values[] = {
#define X(name, value, text) name,
        EVPT_ERRORS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        ck_assert_int_gt(values[i], 4095);
        for (size_t j = 0; j < i; j++)
            ck_assert_int_ne(values[i], values[j]);
    }
}
END_TEST

START_TEST(test_system_errors_have_the_systems_text_and_name)
{
    ck_assert_str_eq(evpt_strerror(-ECONNREFUSED), "Connection refused");
    ck_assert_str_eq(evpt_error_name(-ECONNREFUSED), "ECONNREFUSED");
}
END_TEST

START_TEST(test_either_sign_is_understood)
{
    ck_assert_str_eq(evpt_error_name(EVPT_ELIMIT), "EVPT_ELIMIT");
    ck_assert_str_eq(evpt_error_name(EPIPE), "EPIPE");
    ck_assert_str_eq(evpt_strerror(EVPT_ELIMIT), evpt_strerror(-EVPT_ELIMIT));
}
END_TEST

static void describe_another(void *user)
{
    (void)evpt_strerror(-7777);
}

START_TEST(test_unknown_errors_keep_their_number_and_their_thread)
{
    const char *text = evpt_strerror(-9999);
    ck_assert_str_eq(text, "error -9999");
    struct evpt_thread thread = {0};
    ck_assert_int_eq(evpt_thread_start(&thread, "other", describe_another, NULL), 0);
    evpt_thread_join(&thread);
    ck_assert_str_eq(text, "error -9999");
    ck_assert_str_eq(evpt_error_name(-9999), "unknown");
    ck_assert_ptr_nonnull(evpt_strerror(INT32_MIN));
}
END_TEST

SUPPORT_MAIN("reactor/error", test_own_errors_have_their_text_and_name,
             test_own_errors_are_distinct_and_above_errno,
             test_system_errors_have_the_systems_text_and_name, test_either_sign_is_understood,
             test_unknown_errors_keep_their_number_and_their_thread)
