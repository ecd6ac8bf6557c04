/* Numbers with suffixes, and the command line. */
#include "tools/evpt_bench/options.h"

#include "support.h"
#include "tools/evpt_bench/parse.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

/* ---- numbers ---- */

struct number {
    const char *text;
    uint64_t value;
};

typedef bool (*parse_fn)(const char *text, uint64_t *ret_value);

static void assert_parses(parse_fn parse, const struct number *numbers)
{
    for (; numbers->text; numbers++) {
        uint64_t value = 0;
        ck_assert_msg(parse(numbers->text, &value), "refused: %s", numbers->text);
        ck_assert_msg(value == numbers->value, "%s: got %llu", numbers->text,
                      (unsigned long long)value);
    }
}

static void assert_refuses(parse_fn parse, const char *const *texts)
{
    for (; *texts; texts++) {
        uint64_t value = 42;
        ck_assert_msg(!parse(*texts, &value), "taken: \"%s\"", *texts);
        ck_assert_uint_eq(value, 42);
    }
}

START_TEST(test_parse_takes_counts_with_si_suffixes)
{
    static const struct number good[] = {{"0", 0},       {"64", 64},        {"10k", 10000},
                                         {"10K", 10000}, {"1.5M", 1500000}, {"2G", 2000000000},
                                         {"1.1k", 1100}, {"1e3", 1000},     {"0.001k", 1},
                                         {"007", 7},     {NULL, 0}};
    static const char *const bad[] = {"",    " 1",   "1 ",  "-1",  "+1",    "k",    "1.5", "1kk",
                                      "1ki", "0x10", "inf", "nan", "1e400", "1e30", "0.1", NULL};
    assert_parses(bench_parse_count, good);
    assert_refuses(bench_parse_count, bad);
}
END_TEST

START_TEST(test_parse_takes_sizes_with_decimal_and_binary_suffixes)
{
    static const struct number good[] = {{"64", 64},         {"64B", 64},         {"4k", 4000},
                                         {"4kB", 4000},      {"4Ki", 4096},       {"4KiB", 4096},
                                         {"1M", 1000000},    {"1MiB", 1048576},   {"0.5Ki", 512},
                                         {"1G", 1000000000}, {"1Gi", 1073741824}, {NULL, 0}};
    static const char *const bad[] = {"", "B", "1b", "1ib", "1T", "1.5", "1..2", "4k i", NULL};
    assert_parses(bench_parse_size, good);
    assert_refuses(bench_parse_size, bad);
}
END_TEST

START_TEST(test_parse_takes_times_with_seconds_as_default)
{
    static const struct number good[] = {{"10", 10 * S},     {"10s", 10 * S},  {"2ms", 2 * MS},
                                         {"500us", 500000},  {"7ns", 7},       {"5m", 300 * S},
                                         {"5min", 300 * S},  {"1h", 3600 * S}, {"0.5s", 500 * MS},
                                         {"1.5ms", 1500000}, {"0", 0},         {NULL, 0}};
    static const char *const bad[] = {"", "s", "1 s", "-1s", "1d", "1.5ns", "10S", "1e9h", NULL};
    assert_parses(bench_parse_time, good);
    assert_refuses(bench_parse_time, bad);
}
END_TEST

START_TEST(test_parse_takes_a_size_or_a_range_of_sizes)
{
    static const char *const bad[] = {"",   "..",    "1..",  "..1",    "2..1", "1..2..3",
                                      "1-", "1-2-3", "a..b", "1 .. 2", NULL};
    uint64_t min, max;
    ck_assert(bench_parse_sizes("64", &min, &max));
    ck_assert(min == 64 && max == 64);
    ck_assert(bench_parse_sizes("16..4Ki", &min, &max));
    ck_assert(min == 16 && max == 4096);
    ck_assert(bench_parse_sizes("1k-1M", &min, &max));
    ck_assert(min == 1000 && max == 1000000);
    ck_assert(bench_parse_sizes("0..0", &min, &max));
    ck_assert(min == 0 && max == 0);
    for (const char *const *text = bad; *text; text++)
        ck_assert_msg(!bench_parse_sizes(*text, &min, &max), "taken: \"%s\"", *text);
}
END_TEST

START_TEST(test_parse_takes_rates_above_zero)
{
    double rate = 0;
    ck_assert(bench_parse_rate("0.5", &rate) && rate == 0.5);
    ck_assert(bench_parse_rate("200k", &rate) && rate == 200000);
    ck_assert(!bench_parse_rate("0", &rate));
    ck_assert(!bench_parse_rate("-1", &rate));
    ck_assert(!bench_parse_rate("1ms", &rate));
    ck_assert(rate == 200000);
}
END_TEST

START_TEST(test_parse_takes_processors_as_taskset_writes_them)
{
    static const char *const bad[] = {"",  ",",   "0,",    "-1",      "1-", "3-1",
                                      "a", "0 1", "99999", "0-99999", NULL};
    cpu_set_t cpus;
    ck_assert(bench_parse_cpus("0", &cpus));
    ck_assert_int_eq(CPU_COUNT(&cpus), 1);
    ck_assert(bench_parse_cpus("0,2-4,4,9", &cpus));
    ck_assert_int_eq(CPU_COUNT(&cpus), 5);
    ck_assert(CPU_ISSET(0, &cpus) && CPU_ISSET(2, &cpus) && CPU_ISSET(3, &cpus) &&
              CPU_ISSET(4, &cpus) && CPU_ISSET(9, &cpus));
    for (const char *const *text = bad; *text; text++)
        ck_assert_msg(!bench_parse_cpus(*text, &cpus), "taken: \"%s\"", *text);
}
END_TEST

/* ---- the command line ---- */

/* Splits at blanks, as no argument here has any. */
static int parse_line(struct bench_options *options, const char *line)
{
    static char copy[512]; /* the options point into it */
    static char *argv[32];
    int argc = 0;
    snprintf(copy, sizeof(copy), "evpt-bench %s", line);
    for (char *rest = copy, *word; (word = strsep(&rest, " "));) {
        if (*word)
            argv[argc++] = word;
    }
    argv[argc] = NULL;
    optind = 0; /* getopt starts anew */
    return bench_options_parse(options, argc, argv);
}

START_TEST(test_options_have_defaults_for_a_closed_loop)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "call 127.0.0.1:8001 room join"), -1);
    ck_assert_int_eq(options.what, BENCH_CALL);
    ck_assert_int_eq(options.where, BENCH_TARGET);
    ck_assert_str_eq(options.target, "127.0.0.1:8001");
    ck_assert_str_eq(options.service, "room");
    ck_assert_str_eq(options.method, "join");
    ck_assert_double_eq(options.rate, 0);
    ck_assert_uint_eq(options.in_flight, 64);
    ck_assert_uint_eq(options.connections, 1);
    ck_assert_uint_eq(options.duration_ns, 10 * S);
    ck_assert_uint_eq(options.count, UINT64_MAX);
    ck_assert_uint_eq(options.warmup_ns, S);
    ck_assert_uint_eq(options.size_min, 64);
    ck_assert_uint_eq(options.size_max, 64);
    ck_assert_uint_eq(options.timeout_ns, 5 * S);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_are_taken_before_and_behind_the_arguments)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "-c 1k --connections=4 send [::1]:80 s m -r 2.5k -d 3 "
                                          "-w 0 -s 1..1Ki --timeout 1ms --max-p99 2ms --json a "
                                          "--csv b --hgrm - --compare c --pin 0-1"),
                     -1);
    ck_assert_int_eq(options.what, BENCH_SEND);
    ck_assert_uint_eq(options.in_flight, 1000);
    ck_assert_uint_eq(options.connections, 4);
    ck_assert_double_eq(options.rate, 2500);
    ck_assert_uint_eq(options.duration_ns, 3 * S);
    ck_assert_uint_eq(options.warmup_ns, 0);
    ck_assert_uint_eq(options.size_min, 1);
    ck_assert_uint_eq(options.size_max, 1024);
    ck_assert_uint_eq(options.timeout_ns, MS);
    ck_assert_uint_eq(options.max_p99_ns, 2 * MS);
    ck_assert_str_eq(options.json, "a");
    ck_assert_str_eq(options.csv, "b");
    ck_assert_str_eq(options.hgrm, "-");
    ck_assert_str_eq(options.compare, "c");
    ck_assert_str_eq(options.pin, "0-1");
    ck_assert_int_eq(CPU_COUNT(&options.cpus), 2);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_with_a_count_run_until_it_is_reached)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "-n 10k call 127.0.0.1:1 s m"), -1);
    ck_assert_uint_eq(options.count, 10000);
    ck_assert_uint_eq(options.duration_ns, UINT64_MAX);
    ck_assert_uint_eq(options.warmup_ns, 0);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "-n 10 -d 1 -w 2 call 127.0.0.1:1 s m"), -1);
    ck_assert_uint_eq(options.duration_ns, S);
    ck_assert_uint_eq(options.warmup_ns, 2 * S);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_of_an_open_loop_allow_many_in_flight)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "-r 1k call 127.0.0.1:1 s m"), -1);
    ck_assert_uint_eq(options.in_flight, 10000);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_take_local_with_and_without_what_it_measures)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "--local"), -1);
    ck_assert_int_eq(options.where, BENCH_LOCAL_TWO);
    ck_assert_int_eq(options.what, BENCH_CALL);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "send --local=one --set workers=0 --set a=b"), -1);
    ck_assert_int_eq(options.where, BENCH_LOCAL_ONE);
    ck_assert_int_eq(options.what, BENCH_SEND);
    ck_assert_uint_eq(options.set_count, 2);
    ck_assert_str_eq(options.sets[0], "workers=0");
    ck_assert_str_eq(options.sets[1], "a=b");
    ck_assert_ptr_null(options.tls);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "--local --tls certs"), -1);
    ck_assert_str_eq(options.tls, "certs");
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_spread_the_load_of_local)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "--local"), -1);
    ck_assert_uint_eq(options.services, 1);
    ck_assert_uint_eq(options.peers, 0);
    ck_assert_uint_eq(options.beside, 0);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "--local --services 10k --beside 1MiB"), -1);
    ck_assert_uint_eq(options.services, 10000);
    ck_assert_uint_eq(options.beside, 1 << 20);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "--local --peers 1k -c 1k"), -1);
    ck_assert_uint_eq(options.peers, 1000);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_take_a_node_name_only_with_a_node_list)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "call battle_1 s m -f clustername.lua"), -1);
    ck_assert_str_eq(options.nodes, "clustername.lua");
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "call battle_1 s m"), BENCH_EXIT_USAGE);
    bench_options_fini(&options);
}
END_TEST

START_TEST(test_options_refuse_what_makes_no_sense)
{
    static const char *const bad[] = {
        "",
        "call",
        "call 127.0.0.1:1 s",
        "call 127.0.0.1:1 s m more",
        "ask 127.0.0.1:1 s m",
        "call 127.0.0.1 s m",
        "call 127.0.0.1:99999 s m",
        "-c 0 call 127.0.0.1:1 s m",
        "-c 2M call 127.0.0.1:1 s m",
        "-c 4 --connections 5 call 127.0.0.1:1 s m",
        "-n 0 call 127.0.0.1:1 s m",
        "-d 0 call 127.0.0.1:1 s m",
        "-d x call 127.0.0.1:1 s m",
        "-r 0 call 127.0.0.1:1 s m",
        "-r 1G call 127.0.0.1:1 s m",
        "-s 2Gi call 127.0.0.1:1 s m",
        "-s 9..1 call 127.0.0.1:1 s m",
        "-c 1M -s 1M call 127.0.0.1:1 s m",
        "--timeout 0 call 127.0.0.1:1 s m",
        "--timeout 2h call 127.0.0.1:1 s m",
        "--max-p99 0 call 127.0.0.1:1 s m",
        "--pin x call 127.0.0.1:1 s m",
        "--set workers=1 call 127.0.0.1:1 s m",
        "--unknown call 127.0.0.1:1 s m",
        "-c",
        "--local=three",
        "--local call 127.0.0.1:1 s m",
        "--local ask",
        "--local --connections 2",
        "--local -f clustername.lua",
        "--local --set workers",
        "--local --services 0",
        "--local --services 10001",
        "--local send --services 2",
        "--services 2 call 127.0.0.1:1 s m",
        "--local --peers 65",
        "--local --peers 2 --services 2",
        "--local --peers 2 --beside 1k",
        "--local send --peers 2",
        "--local=one --peers 2",
        "--peers 2 call 127.0.0.1:1 s m",
        "--local --beside 0",
        "--local --beside 1..2",
        "--local=one --beside 1k",
        "--beside 1k call 127.0.0.1:1 s m",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct bench_options options;
        int status = parse_line(&options, bad[i]);
        ck_assert_msg(status == BENCH_EXIT_USAGE, "%d: %s", status, bad[i]);
        bench_options_fini(&options);
    }
}
END_TEST

START_TEST(test_options_that_only_tell_something_end_the_program_well)
{
    struct bench_options options;
    ck_assert_int_eq(parse_line(&options, "--help"), BENCH_EXIT_OK);
    bench_options_fini(&options);
    ck_assert_int_eq(parse_line(&options, "--version --local"), BENCH_EXIT_OK);
    bench_options_fini(&options);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("options");
    tcase_add_test(tcase, test_parse_takes_counts_with_si_suffixes);
    tcase_add_test(tcase, test_parse_takes_sizes_with_decimal_and_binary_suffixes);
    tcase_add_test(tcase, test_parse_takes_times_with_seconds_as_default);
    tcase_add_test(tcase, test_parse_takes_a_size_or_a_range_of_sizes);
    tcase_add_test(tcase, test_parse_takes_rates_above_zero);
    tcase_add_test(tcase, test_parse_takes_processors_as_taskset_writes_them);
    tcase_add_test(tcase, test_options_have_defaults_for_a_closed_loop);
    tcase_add_test(tcase, test_options_are_taken_before_and_behind_the_arguments);
    tcase_add_test(tcase, test_options_with_a_count_run_until_it_is_reached);
    tcase_add_test(tcase, test_options_of_an_open_loop_allow_many_in_flight);
    tcase_add_test(tcase, test_options_take_local_with_and_without_what_it_measures);
    tcase_add_test(tcase, test_options_spread_the_load_of_local);
    tcase_add_test(tcase, test_options_take_a_node_name_only_with_a_node_list);
    tcase_add_test(tcase, test_options_refuse_what_makes_no_sense);
    tcase_add_test(tcase, test_options_that_only_tell_something_end_the_program_well);
    return run_tests("bench/options", tcase);
}
