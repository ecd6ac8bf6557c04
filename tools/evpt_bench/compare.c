#include "tools/evpt_bench/compare.h"

#include "reactor/error.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/json.h"

#include <math.h>
#include <string.h>

#define FILE_MAX (1 << 20)
#define LEAVES_MAX 256 /* a report has less than 80 */

struct leaf {
    const char *path, *text;
    double number;
};

struct bench_comparison {
    const char *file;
    char *text;  /* of the file, where the leaves' texts lie */
    char *paths; /* theirs, one after the other */
    size_t paths_used;
    struct leaf leaves[LEAVES_MAX];
    unsigned count;
};

/* ---- reading ---- */

static void on_leaf(const char *path, const char *text, double number, void *user)
{
    struct bench_comparison *comparison = user;
    size_t size = strlen(path) + 1;
    if (comparison->count == LEAVES_MAX || comparison->paths_used + size > FILE_MAX)
        return; /* not a report; nothing will be found in it */
    char *copy = memcpy(comparison->paths + comparison->paths_used, path, size);
    comparison->paths_used += size;
    comparison->leaves[comparison->count++] = (struct leaf){copy, text, number};
}

static const struct leaf *find(const struct bench_comparison *comparison, const char *group,
                               const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s%s%s", group, *group ? "." : "", name);
    for (unsigned i = 0; i < comparison->count; i++) {
        if (strcmp(comparison->leaves[i].path, path) == 0)
            return &comparison->leaves[i];
    }
    return NULL;
}

static bool is_report(const struct bench_comparison *comparison)
{
    const struct leaf *program = find(comparison, "", "program");
    return program && program->text && strcmp(program->text, "evpt-bench") == 0;
}

struct bench_comparison *bench_comparison_read(const char *path)
{
    size_t size;
    struct bench_comparison *comparison = evpt_sys_zalloc(sizeof(*comparison));
    if (comparison)
        comparison->paths = evpt_sys_alloc(FILE_MAX);
    if (!comparison || !comparison->paths) {
        bench_complain("--compare: out of memory");
        bench_comparison_free(comparison);
        return NULL;
    }
    comparison->file = path;
    int error = evpt_sys_file_read(path, FILE_MAX, &comparison->text, &size);
    if (error)
        bench_complain("--compare: %s: %s", path, evpt_strerror(error));
    else if (bench_json_read(comparison->text, on_leaf, comparison) != 0 || !is_report(comparison))
        bench_complain("--compare: %s: expected what evpt-bench --json has written", path);
    else
        return comparison;
    bench_comparison_free(comparison);
    return NULL;
}

void bench_comparison_free(struct bench_comparison *comparison)
{
    if (!comparison)
        return;
    evpt_sys_free(comparison->text);
    evpt_sys_free(comparison->paths);
    evpt_sys_free(comparison);
}

/* ---- printing ---- */

static const char *format_value(char text[BENCH_SHORT_SIZE], const struct bench_figure *figure,
                                double value)
{
    if (isnan(value))
        snprintf(text, BENCH_SHORT_SIZE, "-");
    else if (figure->unit == BENCH_NS)
        bench_format_ns(text, value);
    else if (figure->unit == BENCH_SECONDS)
        snprintf(text, BENCH_SHORT_SIZE, "%.2f s", value);
    else
        bench_format_count(text, value);
    return text;
}

static void print_figure(FILE *out, const struct bench_figure *figure, double before)
{
    char old[BENCH_SHORT_SIZE], now[BENCH_SHORT_SIZE];
    const char *verdict = "";
    double change = (figure->value - before) / before * 100;
    format_value(old, figure, before);
    format_value(now, figure, figure->value);
    if (!isfinite(change)) {
        fprintf(out, "  %-18s %14s %14s\n", figure->name, old, now);
        return;
    }
    /* below that, two runs of the same program differ, too */
    if (fabs(change) >= 2 && figure->better != BENCH_NEUTRAL)
        verdict = (change > 0) == (figure->better == BENCH_MORE_IS_BETTER) ? "  better" : "  worse";
    fprintf(out, "  %-18s %14s %14s %+9.1f %%%s\n", figure->name, old, now, change, verdict);
}

/* What makes two reports something else than before and after. */
static void print_difference(FILE *out, const struct bench_comparison *comparison,
                             const char *group, const char *name, const char *text, double number)
{
    const struct leaf *before = find(comparison, group, name);
    if (!before)
        return;
    if (text && before->text && strcmp(text, before->text) != 0)
        fprintf(out, "  not the same %s: %s before, %s now\n", name, before->text, text);
    else if (!text && !before->text && number != before->number)
        fprintf(out, "  not the same %s: %.15g before, %.15g now\n", name, before->number, number);
}

static void print_differences(FILE *out, const struct bench_comparison *comparison,
                              const struct bench_report *report)
{
    const struct bench_options *options = report->options;
    const struct bench_environment *environment = report->environment;
    print_difference(out, comparison, "environment", "kernel", environment->kernel, 0);
    print_difference(out, comparison, "environment", "cpu", environment->cpu, 0);
    print_difference(out, comparison, "environment", "cpu_count", NULL, environment->cpu_count);
    print_difference(out, comparison, "environment", "build", environment->build, 0);
    print_difference(out, comparison, "workload", "what",
                     options->what == BENCH_SEND ? "send" : "call", 0);
    print_difference(out, comparison, "workload", "loop", options->rate > 0 ? "open" : "closed", 0);
    print_difference(out, comparison, "workload", "in_flight", NULL, (double)options->in_flight);
    print_difference(out, comparison, "workload", "connections", NULL,
                     (double)options->connections);
    print_difference(out, comparison, "workload", "rate", NULL, options->rate);
    print_difference(out, comparison, "workload", "size_min", NULL, (double)options->size_min);
    print_difference(out, comparison, "workload", "size_max", NULL, (double)options->size_max);
    print_difference(out, comparison, "workload", "pinned", options->pin ? options->pin : "", 0);
}

void bench_comparison_print(FILE *out, const struct bench_comparison *comparison,
                            const struct bench_report *report)
{
    struct bench_figure figures[BENCH_FIGURES_MAX];
    unsigned count = bench_report_figures(report, figures);
    const struct leaf *date = find(comparison, "environment", "date");
    fprintf(out, "compared with %s of %s\n", comparison->file,
            date && date->text ? date->text : "an unknown date");
    fprintf(out, "  %-18s %14s %14s %11s\n", "", "before", "now", "change");
    for (unsigned i = 0; i < count; i++) {
        const struct leaf *before = find(comparison, "result", figures[i].name);
        if (figures[i].compared)
            print_figure(out, &figures[i], before && !before->text ? before->number : NAN);
    }
    print_differences(out, comparison, report);
}
