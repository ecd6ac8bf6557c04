/* JSON, as much of it as a report needs: texts written, and a reader that hands out the leaves. */
#ifndef EVPT_BENCH_JSON_H
#define EVPT_BENCH_JSON_H

#include <stdio.h>

/* "text", with everything escaped that has to be. */
void bench_json_string(FILE *out, const char *text);
/* A number with all its digits; null where it is not finite. */
void bench_json_number(FILE *out, double number);

/* `path`: keys and positions from the outside in, joined by dots ("result.p50_ns", "warnings.0").
 * `text` is NULL for numbers; true, false and null come as texts. */
typedef void (*bench_json_fn)(const char *path, const char *text, double number, void *user);

/* Calls `fn` for each leaf of the zero-terminated text, which is taken apart in the course. 0, or
 * -1 where it is not JSON (or nested deeper than 16 levels). */
int bench_json_read(char *text, bench_json_fn fn, void *user);

#endif
