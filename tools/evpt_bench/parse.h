/* Numbers as people write them on a command line. Each function returns false, and leaves its
 * output alone, where the text is not exactly such a value. */
#ifndef EVPT_BENCH_PARSE_H
#define EVPT_BENCH_PARSE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* Whole numbers with SI suffixes: 64, 10k, 1.5M, 2G. */
bool bench_parse_count(const char *text, uint64_t *ret_count);
/* The same without having to be whole, and above 0: 0.5, 200k. */
bool bench_parse_rate(const char *text, double *ret_rate);
/* Bytes: 64, 4k and 4kB (4000), 4Ki and 4KiB (4096), up to G and Gi. */
bool bench_parse_size(const char *text, uint64_t *ret_bytes);
/* One size, or a range: 16..4Ki, 16-4Ki. */
bool bench_parse_sizes(const char *text, uint64_t *ret_min, uint64_t *ret_max);
/* Nanoseconds: 10 and 10s, 2ms, 500us, 100ns, 5m, 1h. */
bool bench_parse_time(const char *text, uint64_t *ret_ns);
/* Processors as taskset writes them: 0, 0-3, 0,2,4-7. */
bool bench_parse_cpus(const char *text, cpu_set_t *ret_cpus);

#endif
