/* What a run has come to, and the forms in which it is told: text, JSON, CSV, the percentiles for
 * the HdrHistogram plotter, and the comparison with an earlier report.
 *
 * All of them are made of the same figures, a table of names and numbers; JSON has them under
 * "result", CSV in one line, and what compares reads them back by their names.
 */
#ifndef EVPT_BENCH_REPORT_H
#define EVPT_BENCH_REPORT_H

#include "tools/evpt_bench/engine.h"
#include "tools/evpt_bench/system.h"

#include <stdio.h>

struct bench_cpu {
    const char *name;
    pid_t pid;
    uint64_t ns;         /* during the run */
    uint64_t memory_max; /* bytes, of its whole life; 0: not known */
};
#define BENCH_CPU_MAX (1 + BENCH_PEERS_MAX) /* evpt-bench itself, then its peers */

struct bench_report {
    const struct bench_options *options;
    const struct bench_environment *environment;
    const struct bench_run *run;
    const struct bench_tally *tally; /* of the whole run */
    struct bench_cpu cpus[BENCH_CPU_MAX];
    unsigned cpu_count;
    bool interrupted, warmup_only;
};

/* ---- figures ---- */

enum bench_better { BENCH_MORE_IS_BETTER, BENCH_LESS_IS_BETTER, BENCH_NEUTRAL };
enum bench_unit { BENCH_PLAIN, BENCH_NS, BENCH_SECONDS };

struct bench_figure {
    const char *name;
    double value; /* NAN: not known, or not of this kind of run */
    enum bench_unit unit;
    enum bench_better better;
    bool compared; /* shown by --compare */
};
#define BENCH_FIGURES_MAX 40

/* Fills in the figures; how many there are, always the same ones in the same order. */
unsigned bench_report_figures(const struct bench_report *report,
                              struct bench_figure figures[BENCH_FIGURES_MAX]);

double bench_report_seconds(const struct bench_report *report);
double bench_report_rate(const struct bench_report *report);
uint64_t bench_report_errors(const struct bench_report *report);
/* Did 99 % of the calls get an answer within the limit? Failed calls and missed slots did not. */
bool bench_report_keeps(const struct bench_report *report, uint64_t max_p99_ns);

/* What the reader has to know before believing the figures, one text after the other; returns how
 * many. Each is one line. */
#define BENCH_WARNINGS_MAX 6
#define BENCH_WARNING_SIZE 200
unsigned bench_report_warnings(const struct bench_report *report,
                               char warnings[BENCH_WARNINGS_MAX][BENCH_WARNING_SIZE]);

/* ---- forms ---- */

void bench_report_text(FILE *out, const struct bench_report *report);
/* The files that the options name. 0, or -1 after a line to stderr for each that failed. */
int bench_report_files(const struct bench_report *report);
/* Looks, before anything is measured, whether those files can be written; 0, or -1 after a line. */
int bench_report_check_files(const struct bench_options *options);

/* "1.23 ms": three significant digits and a unit. Returns `text`. */
#define BENCH_SHORT_SIZE 32
const char *bench_format_ns(char text[BENCH_SHORT_SIZE], double ns);
/* "12.3 MB" */
const char *bench_format_bytes(char text[BENCH_SHORT_SIZE], double bytes);
/* "1,234,567" */
const char *bench_format_count(char text[BENCH_SHORT_SIZE], double count);

#endif
