/* --compare: an earlier report beside this one. */
#ifndef EVPT_BENCH_COMPARE_H
#define EVPT_BENCH_COMPARE_H

#include "tools/evpt_bench/report.h"

struct bench_comparison;

/* Reads the JSON of the earlier run, before anything is measured (and perhaps written to the same
 * file). NULL after one line to stderr. */
struct bench_comparison *bench_comparison_read(const char *path);
void bench_comparison_print(FILE *out, const struct bench_comparison *comparison,
                            const struct bench_report *report);
/* NULL is fine. */
void bench_comparison_free(struct bench_comparison *comparison);

#endif
