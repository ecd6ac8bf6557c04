/* The report as JSON, as CSV, and as percentiles for the HdrHistogram plotter. */
#include "tools/evpt_bench/report.h"

#include "reactor/error.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CSV_MAX (64 << 20)

/* ---- what JSON and CSV have in common: the workload and the environment, as texts ---- */

struct field {
    const char *name;
    const char *text; /* NULL: a number */
    double number;
};
#define FIELDS_MAX 20

static const char *where_name(const struct bench_options *options)
{
    static const char *const names[] = {
        [BENCH_LOCAL_TWO] = "local", [BENCH_LOCAL_ONE] = "local=one"};
    return options->where == BENCH_TARGET ? options->target : names[options->where];
}

static unsigned workload(const struct bench_options *options, struct field fields[FIELDS_MAX])
{
    bool timed = options->duration_ns != UINT64_MAX, counted = options->count != UINT64_MAX;
    const struct field all[] = {
        {"what", options->what == BENCH_SEND ? "send" : "call", 0},
        {"loop", options->rate > 0 ? "open" : "closed", 0},
        {"target", where_name(options), 0},
        {"service", options->service ? options->service : "bench_echo", 0},
        {"method", options->method ? options->method : "echo", 0},
        {"in_flight", NULL, (double)options->in_flight},
        {"connections", NULL, (double)options->connections},
        {"services", NULL, (double)options->services},
        {"peers", NULL, options->peers ? (double)options->peers : NAN},
        {"beside", NULL, options->beside ? (double)options->beside : NAN},
        {"rate", NULL, options->rate > 0 ? options->rate : NAN},
        {"size_min", NULL, (double)options->size_min},
        {"size_max", NULL, (double)options->size_max},
        {"timeout_s", NULL, (double)options->timeout_ns / EVPT_NS_PER_S},
        {"warmup_s", NULL, (double)options->warmup_ns / EVPT_NS_PER_S},
        {"duration_s", NULL, timed ? (double)options->duration_ns / EVPT_NS_PER_S : NAN},
        {"count", NULL, counted ? (double)options->count : NAN},
        {"pinned", options->pin ? options->pin : "", 0},
    };
    memcpy(fields, all, sizeof(all));
    return sizeof(all) / sizeof(all[0]);
}

static unsigned surroundings(const struct bench_report *report, struct field fields[FIELDS_MAX])
{
    const struct bench_environment *environment = report->environment;
    const struct field all[] = {
        {"version", EVPT_VERSION, 0},         {"build", environment->build, 0},
        {"date", environment->date, 0},       {"kernel", environment->kernel, 0},
        {"cpu", environment->cpu, 0},         {"cpu_count", NULL, environment->cpu_count},
        {"command", environment->command, 0},
    };
    memcpy(fields, all, sizeof(all));
    return sizeof(all) / sizeof(all[0]);
}

/* ---- JSON ---- */

static void write_json_fields(FILE *out, const char *name, const struct field *fields,
                              unsigned count)
{
    fprintf(out, "  \"%s\": {", name);
    for (unsigned i = 0; i < count; i++) {
        fprintf(out, "%s\n    \"%s\": ", i ? "," : "", fields[i].name);
        if (fields[i].text)
            bench_json_string(out, fields[i].text);
        else
            bench_json_number(out, fields[i].number);
    }
    fputs("\n  },\n", out);
}

static void write_json_outcomes(FILE *out, const struct bench_tally *tally)
{
    const char *separator = "";
    fputs("  \"errors_by_code\": {", out);
    for (int code = EVPT_CODE_OK + 1; code < BENCH_CODES; code++) {
        if (!tally->outcomes[code])
            continue;
        fprintf(out, "%s\"%s\": %" PRIu64, separator, evpt_code_name(code), tally->outcomes[code]);
        separator = ", ";
    }
    fputs("},\n", out);
}

static void write_json(FILE *out, const struct bench_report *report)
{
    struct field fields[FIELDS_MAX];
    struct bench_figure figures[BENCH_FIGURES_MAX];
    char warnings[BENCH_WARNINGS_MAX][BENCH_WARNING_SIZE];
    fputs("{\n  \"program\": \"evpt-bench\",\n", out);
    write_json_fields(out, "environment", fields, surroundings(report, fields));
    write_json_fields(out, "workload", fields, workload(report->options, fields));
    unsigned count = bench_report_figures(report, figures);
    fputs("  \"result\": {", out);
    for (unsigned i = 0; i < count; i++) {
        fprintf(out, "%s\n    \"%s\": ", i ? "," : "", figures[i].name);
        bench_json_number(out, figures[i].value);
    }
    fputs("\n  },\n", out);
    write_json_outcomes(out, report->tally);
    fprintf(out, "  \"interrupted\": %s,\n  \"warnings\": [",
            report->interrupted ? "true" : "false");
    count = bench_report_warnings(report, warnings);
    for (unsigned i = 0; i < count; i++) {
        fputs(i ? ", " : "", out);
        bench_json_string(out, warnings[i]);
    }
    fputs("]\n}\n", out);
}

/* ---- CSV ---- */

static void write_csv_text(FILE *out, const char *text)
{
    if (!text[strcspn(text, ",\"\n")]) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"%c" : "%c", *text);
    fputc('"', out);
}

static void write_csv_fields(FILE *out, const struct field *fields, unsigned count, bool heading)
{
    for (unsigned i = 0; i < count; i++) {
        if (heading)
            fputs(fields[i].name, out);
        else if (fields[i].text)
            write_csv_text(out, fields[i].text);
        else if (isfinite(fields[i].number))
            bench_json_number(out, fields[i].number);
        fputc(',', out);
    }
}

static void write_csv_line(FILE *out, const struct bench_report *report, bool heading)
{
    struct field fields[FIELDS_MAX];
    struct bench_figure figures[BENCH_FIGURES_MAX];
    write_csv_fields(out, fields, workload(report->options, fields), heading);
    write_csv_fields(out, fields, surroundings(report, fields), heading);
    unsigned count = bench_report_figures(report, figures);
    for (unsigned i = 0; i < count; i++) {
        fputs(i ? "," : "", out);
        if (heading)
            fputs(figures[i].name, out);
        else if (isfinite(figures[i].value))
            bench_json_number(out, figures[i].value);
    }
    fputc('\n', out);
}

/* What the file has so far goes before; a heading where that is nothing. */
static void write_csv(FILE *out, const struct bench_report *report)
{
    const char *path = report->options->csv;
    char *old = NULL;
    size_t size = 0;
    if (strcmp(path, "-") != 0 && evpt_sys_file_read(path, CSV_MAX, &old, &size) != 0)
        size = 0; /* it is not there yet, or check_files has refused it */
    if (size == 0)
        write_csv_line(out, report, true);
    fwrite(old ? old : "", 1, size, out);
    if (size > 0 && old[size - 1] != '\n')
        fputc('\n', out);
    write_csv_line(out, report, false);
    evpt_sys_free(old);
}

/* ---- percentiles ---- */

/* One line for each step that the distribution makes, closer together towards its end: as many as
 * HdrHistogram's plotter needs for a curve. */
static void write_hgrm_lines(FILE *out, const struct bench_histogram *histogram)
{
    enum { STEPS_PER_HALF = 5 };
    double share = 0;
    uint64_t value = 0;
    while (histogram->count > 0) {
        value = bench_histogram_quantile(histogram, share, 0);
        double at_most = 0;
        for (uint32_t i = 0; i <= bench_histogram_index(value); i++)
            at_most += (double)histogram->buckets[i];
        double reached = at_most / (double)histogram->count;
        if (reached >= 1 || value >= histogram->max)
            break;
        fprintf(out, "%12.6f %2.12f %10.0f %14.2f\n", (double)value / 1e6, share, at_most,
                1 / (1 - share));
        /* half of what is left, in five steps; and behind what this value has covered already */
        double half = pow(2, floor(log2(1 / (1 - share))) + 1);
        share += 1 / (half * STEPS_PER_HALF);
        if (share < reached)
            share = reached;
    }
    if (histogram->count > 0)
        fprintf(out, "%12.6f %2.12f %10" PRIu64 "\n", (double)histogram->max / 1e6, 1.0,
                histogram->count);
}

static void write_hgrm(FILE *out, const struct bench_report *report)
{
    const struct bench_histogram *histogram = &report->tally->latency;
    fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
            "1/(1-Percentile)");
    write_hgrm_lines(out, histogram);
    fprintf(out, "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n",
            bench_histogram_mean(histogram) / 1e6, bench_histogram_deviation(histogram) / 1e6);
    fprintf(out, "#[Max     = %12.6f, Total count    = %12" PRIu64 "]\n",
            (double)histogram->max / 1e6, histogram->count);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n",
            BENCH_HISTOGRAM_VALUE_BITS - BENCH_HISTOGRAM_HALF_BITS, 2 << BENCH_HISTOGRAM_HALF_BITS);
}

/* ---- files ---- */

typedef void (*write_fn)(FILE *out, const struct bench_report *report);

static int write_file(const char *path, write_fn write, const struct bench_report *report)
{
    char *text = NULL;
    size_t size;
    if (!path)
        return 0;
    FILE *out = open_memstream(&text, &size);
    int error = -ENOMEM;
    if (out) {
        write(out, report);
        if (fclose(out) == 0)
            error = strcmp(path, "-") == 0 ? evpt_sys_file_write_all(STDOUT_FILENO, text, size)
                                           : evpt_sys_file_replace(path, text, size);
    }
    free(text); /* open_memstream's */
    if (error)
        bench_complain("%s: %s", path, evpt_strerror(error));
    return error ? -1 : 0;
}

int bench_report_files(const struct bench_report *report)
{
    const struct bench_options *options = report->options;
    int failed = write_file(options->json, write_json, report);
    failed |= write_file(options->csv, write_csv, report);
    failed |= write_file(options->hgrm, write_hgrm, report);
    return failed;
}

/* A file is replaced by a new one beside it, so it is the folder that counts. */
static int check_file(const char *path)
{
    char folder[4096];
    if (!path || strcmp(path, "-") == 0)
        return 0;
    const char *slash = strrchr(path, '/');
    int size = slash ? (int)(slash - path) : 0;
    snprintf(folder, sizeof(folder), "%.*s", size, path);
    const char *place = slash == path ? "/" : slash ? folder : ".";
    if (access(place, W_OK | X_OK) == 0 && (access(path, F_OK) != 0 || access(path, W_OK) == 0))
        return 0;
    bench_complain("%s: %s", path, strerror(errno));
    return -1;
}

int bench_report_check_files(const struct bench_options *options)
{
    int failed = check_file(options->json);
    failed |= check_file(options->csv);
    failed |= check_file(options->hgrm);
    return failed;
}
