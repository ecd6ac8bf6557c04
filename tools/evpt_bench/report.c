/* Figures, warnings, and the report as text. The files are in report_files.c. */
#include "tools/evpt_bench/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define LATE_NS EVPT_NS_PER_MS /* an open loop whose starts are later than that says little */
#define BUSY_SHARE 0.95        /* of one core: the client has one thread */

static const double quantiles[] = {0.5, 0.9, 0.99, 0.999, 0.9999};
static const char *const quantile_names[] = {"p50", "p90", "p99", "p99.9", "p99.99"};
enum { QUANTILES = sizeof(quantiles) / sizeof(quantiles[0]) };

/* ---- figures ---- */

double bench_report_seconds(const struct bench_report *report)
{
    const struct bench_run *run = report->run;
    return run->window_end_ns > run->begin_ns
               ? (double)(run->window_end_ns - run->begin_ns) / EVPT_NS_PER_S
               : 0;
}

double bench_report_rate(const struct bench_report *report)
{
    double seconds = bench_report_seconds(report);
    return seconds > 0 ? (double)report->run->window_ended / seconds : 0;
}

static uint64_t ended(const struct bench_report *report)
{
    return bench_tally_ended(report->tally);
}

uint64_t bench_report_errors(const struct bench_report *report)
{
    return ended(report) - report->tally->outcomes[EVPT_CODE_OK];
}

bool bench_report_keeps(const struct bench_report *report, uint64_t max_p99_ns)
{
    uint64_t unanswered = bench_report_errors(report) - report->tally->outcomes[EVPT_CODE_TIMEOUT] +
                          report->run->missed;
    if (report->options->what == BENCH_SEND) /* then one call in so many is measured */
        unanswered /= BENCH_SEND_BURST;
    return bench_histogram_quantile(&report->tally->latency, 0.99, unanswered) <= max_p99_ns;
}

static double cpu_seconds(const struct bench_report *report, const char *name)
{
    for (unsigned i = 0; i < report->cpu_count; i++) {
        if (strcmp(report->cpus[i].name, name) == 0)
            return (double)report->cpus[i].ns / EVPT_NS_PER_S;
    }
    return NAN;
}

/* The most that it had resident. */
static double memory_max(const struct bench_report *report, const char *name)
{
    for (unsigned i = 0; i < report->cpu_count; i++) {
        if (strcmp(report->cpus[i].name, name) == 0 && report->cpus[i].memory_max)
            return (double)report->cpus[i].memory_max;
    }
    return NAN;
}

/* Of the calls that --beside has made. */
static double beside_rate(const struct bench_report *report)
{
    const struct bench_run *run = report->run;
    return run->beside_ns ? (double)run->beside_calls * EVPT_NS_PER_S / (double)run->beside_ns
                          : NAN;
}

/* Arguments and results. */
static double beside_bytes(const struct bench_report *report)
{
    return 2 * (double)report->options->beside * beside_rate(report);
}

/* Of everybody who took part and whom we can see. */
static double cpu_ns_per_call(const struct bench_report *report)
{
    double sum = 0;
    for (unsigned i = 0; i < report->cpu_count; i++)
        sum += (double)report->cpus[i].ns;
    return ended(report) ? sum / (double)ended(report) : NAN;
}

static double quantile(const struct bench_histogram *histogram, double share)
{
    return histogram->count ? (double)bench_histogram_quantile(histogram, share, 0) : NAN;
}

unsigned bench_report_figures(const struct bench_report *report,
                              struct bench_figure figures[BENCH_FIGURES_MAX])
{
    const struct bench_run *run = report->run;
    const struct bench_tally *tally = report->tally;
    const struct bench_histogram *latency = &tally->latency, *lag = &tally->lag;
    double latency_max = latency->count ? (double)latency->max : NAN;
    double lag_max = lag->count ? (double)lag->max : NAN;
    const struct bench_figure all[] = {
        {"calls_per_second", bench_report_rate(report), BENCH_PLAIN, BENCH_MORE_IS_BETTER, true},
        {"seconds", bench_report_seconds(report), BENCH_SECONDS, BENCH_NEUTRAL, false},
        {"calls", (double)ended(report), BENCH_PLAIN, BENCH_NEUTRAL, false},
        {"ok", (double)tally->outcomes[EVPT_CODE_OK], BENCH_PLAIN, BENCH_NEUTRAL, false},
        {"errors", (double)bench_report_errors(report), BENCH_PLAIN, BENCH_LESS_IS_BETTER, true},
        {"timeouts", (double)tally->outcomes[EVPT_CODE_TIMEOUT], BENCH_PLAIN, BENCH_LESS_IS_BETTER,
         true},
        {"missed", (double)run->missed, BENCH_PLAIN, BENCH_LESS_IS_BETTER, true},
        {"late_answers", (double)run->late_answers, BENCH_PLAIN, BENCH_LESS_IS_BETTER, false},
        {"reconnects", (double)run->reconnects, BENCH_PLAIN, BENCH_LESS_IS_BETTER, false},
        {"bytes_out", (double)run->bytes_out, BENCH_PLAIN, BENCH_NEUTRAL, false},
        {"bytes_in", (double)run->bytes_in, BENCH_PLAIN, BENCH_NEUTRAL, false},
        {"mean_ns", latency->count ? bench_histogram_mean(latency) : NAN, BENCH_NS,
         BENCH_LESS_IS_BETTER, true},
        {"p50_ns", quantile(latency, 0.5), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"p90_ns", quantile(latency, 0.9), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"p99_ns", quantile(latency, 0.99), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"p99_9_ns", quantile(latency, 0.999), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"p99_99_ns", quantile(latency, 0.9999), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"max_ns", latency_max, BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"lag_p50_ns", quantile(lag, 0.5), BENCH_NS, BENCH_NEUTRAL, false},
        {"lag_p99_ns", quantile(lag, 0.99), BENCH_NS, BENCH_NEUTRAL, false},
        {"lag_max_ns", lag_max, BENCH_NS, BENCH_NEUTRAL, false},
        {"cpu_ns_per_call", cpu_ns_per_call(report), BENCH_NS, BENCH_LESS_IS_BETTER, true},
        {"cpu_evpt_bench_s", cpu_seconds(report, "evpt-bench"), BENCH_SECONDS, BENCH_LESS_IS_BETTER,
         false},
        {"cpu_target_s", cpu_seconds(report, "target"), BENCH_SECONDS, BENCH_LESS_IS_BETTER, false},
        {"cpu_bench_a_s", cpu_seconds(report, "bench_a"), BENCH_SECONDS, BENCH_LESS_IS_BETTER,
         false},
        {"cpu_bench_b_s", cpu_seconds(report, "bench_b"), BENCH_SECONDS, BENCH_LESS_IS_BETTER,
         false},
        {"memory_target_bytes", memory_max(report, "target"), BENCH_PLAIN, BENCH_LESS_IS_BETTER,
         false},
        {"memory_bench_a_bytes", memory_max(report, "bench_a"), BENCH_PLAIN, BENCH_LESS_IS_BETTER,
         false},
        {"memory_bench_b_bytes", memory_max(report, "bench_b"), BENCH_PLAIN, BENCH_LESS_IS_BETTER,
         false},
        {"beside_calls_per_second", beside_rate(report), BENCH_PLAIN, BENCH_MORE_IS_BETTER, false},
        {"beside_bytes_per_second", beside_bytes(report), BENCH_PLAIN, BENCH_MORE_IS_BETTER, false},
    };
    enum { COUNT = sizeof(all) / sizeof(all[0]) };
    _Static_assert(COUNT <= BENCH_FIGURES_MAX, "more figures than there is room for");
    memcpy(figures, all, sizeof(all));
    return COUNT;
}

/* ---- warnings ---- */

struct warnings {
    char (*texts)[BENCH_WARNING_SIZE];
    unsigned count;
};

__attribute__((format(printf, 2, 3))) static void warn(struct warnings *warnings,
                                                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(warnings->texts[warnings->count++], BENCH_WARNING_SIZE, format, args);
    va_end(args);
}

/* The share of the lag's records above LATE_NS is not asked for exactly: p99 tells. */
static bool starts_late(const struct bench_report *report)
{
    return report->tally->lag.count > 0 &&
           bench_histogram_quantile(&report->tally->lag, 0.99, 0) > LATE_NS;
}

static double own_share(const struct bench_report *report)
{
    double seconds = bench_report_seconds(report);
    return seconds > 0 ? (double)report->cpus[0].ns / EVPT_NS_PER_S / seconds : 0;
}

unsigned bench_report_warnings(const struct bench_report *report,
                               char texts[BENCH_WARNINGS_MAX][BENCH_WARNING_SIZE])
{
    struct warnings warnings = {.texts = texts};
    char text[BENCH_SHORT_SIZE];
    bool from_here = report->options->where == BENCH_TARGET || report->options->peers;
    if (report->warmup_only)
        warn(&warnings, "interrupted during the warm-up: these are its figures");
    if (strncmp(report->environment->build, "release", 7) != 0)
        warn(&warnings, "this is not a release build: the figures are for debugging only");
    if (from_here && own_share(report) >= BUSY_SHARE)
        warn(&warnings,
             "evpt-bench itself is saturated (%.0f %% of a core): the target may be faster than "
             "this",
             own_share(report) * 100);
    else if (starts_late(report))
        warn(&warnings,
             "the generator is saturated: 1 %% of the calls were started %s late or more, which "
             "their latency includes",
             bench_format_ns(text, quantile(&report->tally->lag, 0.99)));
    if (report->run->missed)
        warn(&warnings,
             "%" PRIu64 " slots were missed: -c calls were in flight, or no connection was there; "
             "the latencies do not show it",
             report->run->missed);
    if (report->run->reconnects)
        warn(&warnings, "connections were lost and opened again %" PRIu64 " times",
             report->run->reconnects);
    return warnings.count;
}

/* ---- formats ---- */

/* Three significant digits. */
static void format_scaled(char text[BENCH_SHORT_SIZE], double value, const char *unit)
{
    int digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    snprintf(text, BENCH_SHORT_SIZE, "%.*f %s", digits, value, unit);
}

const char *bench_format_ns(char text[BENCH_SHORT_SIZE], double ns)
{
    if (isnan(ns))
        snprintf(text, BENCH_SHORT_SIZE, "-");
    else if (ns < 999.5)
        snprintf(text, BENCH_SHORT_SIZE, "%.0f ns", ns);
    else if (ns < 999.5e3)
        format_scaled(text, ns / 1e3, "us");
    else if (ns < 999.5e6)
        format_scaled(text, ns / 1e6, "ms");
    else
        format_scaled(text, ns / 1e9, "s");
    return text;
}

const char *bench_format_bytes(char text[BENCH_SHORT_SIZE], double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    unsigned unit = 0;
    while (bytes >= 999.5 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    if (unit == 0)
        snprintf(text, BENCH_SHORT_SIZE, "%.0f B", bytes);
    else
        format_scaled(text, bytes, units[unit]);
    return text;
}

const char *bench_format_count(char text[BENCH_SHORT_SIZE], double count)
{
    char digits[BENCH_SHORT_SIZE];
    int length = snprintf(digits, sizeof(digits), "%.0f", count);
    char *to = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
    return text;
}

/* ---- text ---- */

static void print_workload(FILE *out, const struct bench_report *report)
{
    const struct bench_options *options = report->options;
    char text[BENCH_SHORT_SIZE];
    if (options->where == BENCH_TARGET)
        fprintf(out, "%s %s.%s at %s", options->what == BENCH_SEND ? "send" : "call",
                options->service, options->method, options->target);
    else
        fprintf(out, "%s from %s", options->what == BENCH_SEND ? "send" : "call",
                options->peers ? "a service to peers on loopback"
                : options->where == BENCH_LOCAL_TWO
                    ? "service to service between two nodes on loopback"
                    : "service to service inside one node");
    if (options->size_min == options->size_max)
        fprintf(out, ", %s\n", bench_format_bytes(text, (double)options->size_max));
    else
        fprintf(out, ", %" PRIu64 " to %" PRIu64 " B\n", options->size_min, options->size_max);
    if (options->rate > 0)
        fprintf(out, "open loop: %s a second, at most ", bench_format_count(text, options->rate));
    else
        fputs("closed loop: ", out);
    fprintf(out, "%s in flight", bench_format_count(text, (double)options->in_flight));
    if (options->what == BENCH_SEND)
        fprintf(out, ", bursts of %d", BENCH_SEND_BURST);
    if (options->where == BENCH_TARGET)
        fprintf(out, " on %" PRIu64 " connection%s", options->connections,
                options->connections == 1 ? "" : "s");
    if (options->services > 1)
        fprintf(out, ", to %s services in turn",
                bench_format_count(text, (double)options->services));
    if (options->peers)
        fprintf(out, ", to %s peer%s", bench_format_count(text, (double)options->peers),
                options->peers == 1 ? "" : "s");
    fputs(options->rate > 0 ? "; latency counts from the intended start\n" : "\n", out);
}

static void print_outcomes(FILE *out, const struct bench_report *report)
{
    const struct bench_tally *tally = report->tally;
    char text[BENCH_SHORT_SIZE];
    bool sends = report->options->what == BENCH_SEND;
    fprintf(out, "  %-9s %s in %.2f s: ", sends ? "sends" : "calls",
            bench_format_count(text, (double)ended(report)), bench_report_seconds(report));
    fprintf(out, "%s/s\n", bench_format_count(text, bench_report_rate(report)));
    fprintf(out, "  %-9s", "outcomes");
    const char *separator = " ";
    for (int code = 0; code < BENCH_CODES; code++) {
        if (!tally->outcomes[code] && code != EVPT_CODE_OK)
            continue;
        fprintf(out, "%s%s %s", separator, evpt_code_name(code),
                bench_format_count(text, (double)tally->outcomes[code]));
        separator = ", ";
    }
    if (report->run->missed)
        fprintf(out, ", missed slots %s", bench_format_count(text, (double)report->run->missed));
    if (report->run->late_answers)
        fprintf(out, ", answers after the timeout %s",
                bench_format_count(text, (double)report->run->late_answers));
    uint64_t started = report->run->started;
    if (started > ended(report))
        fprintf(out, ", not waited for %s",
                bench_format_count(text, (double)(started - ended(report))));
    fputc('\n', out);
}

static void print_quantiles(FILE *out, const char *name, const struct bench_histogram *histogram)
{
    char text[BENCH_SHORT_SIZE];
    fprintf(out, "  %-9s", name);
    for (int i = 0; i < QUANTILES; i++)
        fprintf(out, " %s %s ", quantile_names[i],
                bench_format_ns(text, quantile(histogram, quantiles[i])));
    fprintf(out, " max %s\n",
            bench_format_ns(text, histogram->count ? (double)histogram->max : NAN));
}

static void print_cpu(FILE *out, const struct bench_report *report)
{
    double seconds = bench_report_seconds(report);
    fprintf(out, "  %-9s", "cpu");
    for (unsigned i = 0; i < report->cpu_count; i++) {
        double used = (double)report->cpus[i].ns / EVPT_NS_PER_S;
        fprintf(out, "%s%s %.2f s (%.0f %% of a core)", i ? ", " : " ", report->cpus[i].name, used,
                seconds > 0 ? used / seconds * 100 : 0);
    }
    fputc('\n', out);
}

static void print_memory(FILE *out, const struct bench_report *report)
{
    char text[BENCH_SHORT_SIZE];
    const char *separator = "  memory    ";
    for (unsigned i = 0; i < report->cpu_count; i++) {
        const struct bench_cpu *cpu = &report->cpus[i];
        if (!cpu->memory_max)
            continue;
        fprintf(out, "%s%s %s", separator, cpu->name,
                bench_format_bytes(text, (double)cpu->memory_max));
        separator = ", ";
    }
    if (separator[0] == ',')
        fputs(" at most\n", out);
}

void bench_report_text(FILE *out, const struct bench_report *report)
{
    const struct bench_environment *environment = report->environment;
    char text[BENCH_SHORT_SIZE], warnings[BENCH_WARNINGS_MAX][BENCH_WARNING_SIZE];
    double seconds = bench_report_seconds(report);
    double per_second = seconds > 0 ? 1 / seconds : 0;
    print_workload(out, report);
    print_outcomes(out, report);
    print_quantiles(out, "latency", &report->tally->latency);
    if (report->tally->lag.count)
        print_quantiles(out, "started", &report->tally->lag);
    fprintf(out, "  %-9s out %s/s", report->options->where == BENCH_TARGET ? "bytes" : "payload",
            bench_format_bytes(text, (double)report->run->bytes_out * per_second));
    fprintf(out, ", in %s/s\n",
            bench_format_bytes(text, (double)report->run->bytes_in * per_second));
    if (report->run->beside_ns) {
        fprintf(out, "  %-9s %s calls/s", "beside", bench_format_count(text, beside_rate(report)));
        fprintf(out, " of %s", bench_format_bytes(text, (double)report->options->beside));
        fprintf(out, ", to and fro %s/s\n", bench_format_bytes(text, beside_bytes(report)));
    }
    print_cpu(out, report);
    print_memory(out, report);
    fprintf(out, "  %-9s %s, %s, %d CPU%s%s%s\n", "machine", environment->kernel, environment->cpu,
            environment->cpu_count, environment->cpu_count == 1 ? "" : "s",
            report->options->pin ? ", pinned to " : "",
            report->options->pin ? report->options->pin : "");
    fprintf(out, "  %-9s evpt-bench %s (%s), %s%s\n", "run", EVPT_VERSION, environment->build,
            environment->date, report->interrupted ? ", interrupted" : "");
    fprintf(out, "  %-9s %s\n", "command", environment->command);
    unsigned count = bench_report_warnings(report, warnings);
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "  warning: %s\n", warnings[i]);
}
