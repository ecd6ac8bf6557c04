/* The small parts: schedule, calls in flight, JSON, formats. */
#include "support.h"

#include "reactor/sys.h"
#include "tools/evpt_bench/calls.h"
#include "tools/evpt_bench/json.h"
#include "tools/evpt_bench/pace.h"
#include "tools/evpt_bench/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- schedule ---- */

START_TEST(test_pace_finds_each_slot_due_at_its_time_and_not_before)
{
    static const double rates[] = {0.3, 1, 7, 999.9, 1000, 123456.789, 1e7};
    uint64_t state = test_seed();
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        struct bench_pace pace = {.begin_ns = next_random(&state) >> 20, .rate = rates[i]};
        ck_assert_uint_eq(bench_pace_due(&pace, pace.begin_ns - 1), 0);
        ck_assert_uint_eq(bench_pace_due(&pace, pace.begin_ns), 1);
        for (int n = 0; n < 1000; n++) {
            uint64_t slot = next_random(&state) % 100000000 + 1;
            uint64_t at_ns = bench_pace_at(&pace, slot);
            ck_assert_uint_ge(bench_pace_due(&pace, at_ns), slot + 1);
            ck_assert_uint_le(bench_pace_due(&pace, at_ns - 1), slot);
            ck_assert_uint_gt(at_ns, bench_pace_at(&pace, slot - 1));
        }
    }
}
END_TEST

START_TEST(test_pace_has_as_many_slots_in_a_second_as_the_rate_says)
{
    struct bench_pace pace = {.begin_ns = 12345, .rate = 12500};
    ck_assert_uint_eq(bench_pace_due(&pace, 12345 + EVPT_NS_PER_S - 1), 12500);
    ck_assert_uint_eq(bench_pace_due(&pace, 12345 + 3600 * EVPT_NS_PER_S - 1), 3600 * 12500);
}
END_TEST

/* ---- calls ---- */

START_TEST(test_calls_are_found_by_their_session_until_they_end)
{
    static struct bench_calls calls;
    enum { COUNT = 3000 };
    static struct bench_call *taken[COUNT];
    bench_calls_init(&calls);
    for (int i = 0; i < COUNT; i++) {
        taken[i] = bench_calls_take(&calls);
        ck_assert_ptr_nonnull(taken[i]);
        ck_assert_uint_ne(taken[i]->session, 0);
    }
    ck_assert_uint_eq(calls.count, COUNT);
    for (int i = 0; i < COUNT; i++)
        ck_assert_ptr_eq(bench_calls_find(&calls, taken[i]->session), taken[i]);
    uint32_t session = taken[7]->session;
    bench_calls_give(&calls, taken[7]);
    ck_assert_ptr_null(bench_calls_find(&calls, session));
    ck_assert_ptr_null(bench_calls_find(&calls, 0));
    ck_assert_ptr_null(bench_calls_find(&calls, UINT32_MAX));
    ck_assert_uint_eq(calls.count, COUNT - 1);
    bench_calls_fini(&calls);
}
END_TEST

START_TEST(test_calls_do_not_take_an_old_answer_for_the_new_call_in_the_slot)
{
    static struct bench_calls calls;
    bench_calls_init(&calls);
    uint32_t first = 0;
    /* as often as a generation can be told from the ones before */
    for (uint32_t i = 0; i < (UINT32_MAX >> BENCH_CALLS_SLOT_BITS); i++) {
        struct bench_call *call = bench_calls_take(&calls);
        ck_assert_uint_ne(call->session, 0);
        ck_assert_uint_ne(call->session, first);
        if (i == 0)
            first = call->session;
        else
            ck_assert_ptr_null(bench_calls_find(&calls, first));
        bench_calls_give(&calls, call);
    }
    bench_calls_fini(&calls);
}
END_TEST

START_TEST(test_calls_are_limited)
{
    static struct bench_calls calls;
    bench_calls_init(&calls);
    for (uint32_t i = 0; i < BENCH_CALLS_MAX; i++)
        ck_assert_ptr_nonnull(bench_calls_take(&calls));
    ck_assert_ptr_null(bench_calls_take(&calls));
    bench_calls_give(&calls, bench_calls_at(&calls, 5));
    ck_assert_ptr_null(bench_calls_at(&calls, 5));
    ck_assert_ptr_nonnull(bench_calls_take(&calls));
    bench_calls_fini(&calls);
}
END_TEST

/* ---- JSON ---- */

static void note_leaf(const char *path, const char *text, double number, void *user)
{
    char *notes = user;
    size_t used = strlen(notes);
    if (text)
        snprintf(notes + used, 1024 - used, "%s='%s';", path, text);
    else
        snprintf(notes + used, 1024 - used, "%s=%g;", path, number);
}

static int read_json(const char *json, char notes[1024])
{
    char copy[1024];
    snprintf(copy, sizeof(copy), "%s", json);
    notes[0] = 0;
    return bench_json_read(copy, note_leaf, notes);
}

START_TEST(test_json_hands_out_the_leaves_with_their_paths)
{
    char notes[1024];
    ck_assert_int_eq(
        read_json(" { \"a\" : { \"b\": 1.5, \"c\": \"x\\\"y\\u00e9\\n\" }, \"d\": [ 1, "
                  "true, [null] ], \"e\": {}, \"f\": [] } ",
                  notes),
        0);
    ck_assert_str_eq(notes, "a.b=1.5;a.c='x\"y\u00e9\n';d.0=1;d.1='true';d.2.0='null';");
}
END_TEST

START_TEST(test_json_refuses_what_is_none)
{
    static const char *const bad[] = {
        "",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "nul",
        "{a:1}",
        "\"open",
        "\"bad \\x\"",
        "\"\\u12",
        "\"\\u12g4\"",
        "1 2",
        "--1",
        "{\"a\":1}}",
        "\"\\",
        "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]",
    };
    char notes[1024];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(read_json(bad[i], notes) == -1, "taken: %s", bad[i]);
}
END_TEST

START_TEST(test_json_reads_what_it_has_written)
{
    static const char text[] = "quote \" backslash \\ newline \n bell \a \u00b5s";
    char *json = NULL, notes[1024];
    size_t size;
    FILE *out = open_memstream(&json, &size);
    fputs("[", out);
    bench_json_string(out, text);
    fputs(",", out);
    bench_json_number(out, 123456789012345);
    fputs(",", out);
    bench_json_number(out, NAN);
    fputs("]", out);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_int_eq(read_json(json, notes), 0);
    char want[1024];
    snprintf(want, sizeof(want), "0='%s';1=1.23457e+14;2='null';", text);
    ck_assert_str_eq(notes, want);
    ck_assert_ptr_nonnull(strstr(json, "123456789012345")); /* all digits */
    free(json);
}
END_TEST

/* ---- formats ---- */

START_TEST(test_format_gives_three_digits_and_a_unit)
{
    static const struct {
        double ns;
        const char *text;
    } cases[] = {
        {0, "0 ns"},          {999, "999 ns"},   {1000, "1.00 us"},  {1234, "1.23 us"},
        {9996, "10.0 us"},    {99960, "100 us"}, {123456, "123 us"}, {999600, "1.00 ms"},
        {2345678, "2.35 ms"}, {1.5e9, "1.50 s"}, {61e9, "61.0 s"},   {NAN, "-"},
    };
    char text[BENCH_SHORT_SIZE];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_str_eq(bench_format_ns(text, cases[i].ns), cases[i].text);
    ck_assert_str_eq(bench_format_bytes(text, 64), "64 B");
    ck_assert_str_eq(bench_format_bytes(text, 12345), "12.3 kB");
    ck_assert_str_eq(bench_format_count(text, 0), "0");
    ck_assert_str_eq(bench_format_count(text, 999), "999");
    ck_assert_str_eq(bench_format_count(text, 1234567), "1,234,567");
}
END_TEST

START_TEST(test_command_line_is_quoted_for_a_shell)
{
    const char *argv[] = {"evpt-bench", "-c", "64", "a b", "it's", "", "--set=x=\"y\""};
    char *command = bench_quote_command(7, (char **)argv);
    ck_assert_str_eq(command, "evpt-bench -c 64 'a b' 'it'\\''s' '' '--set=x=\"y\"'");
    free(command);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("parts");
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, test_pace_finds_each_slot_due_at_its_time_and_not_before);
    tcase_add_test(tcase, test_pace_has_as_many_slots_in_a_second_as_the_rate_says);
    tcase_add_test(tcase, test_calls_are_found_by_their_session_until_they_end);
    tcase_add_test(tcase, test_calls_do_not_take_an_old_answer_for_the_new_call_in_the_slot);
    tcase_add_test(tcase, test_calls_are_limited);
    tcase_add_test(tcase, test_json_hands_out_the_leaves_with_their_paths);
    tcase_add_test(tcase, test_json_refuses_what_is_none);
    tcase_add_test(tcase, test_json_reads_what_it_has_written);
    tcase_add_test(tcase, test_format_gives_three_digits_and_a_unit);
    tcase_add_test(tcase, test_command_line_is_quoted_for_a_shell);
    return run_tests("bench/parts", tcase);
}
