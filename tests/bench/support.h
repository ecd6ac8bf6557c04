/* What the tests of evpt-bench share. */
#ifndef EVPT_TESTS_BENCH_SUPPORT_H
#define EVPT_TESTS_BENCH_SUPPORT_H

#include <check.h>
#include <stdint.h>

/* EVPT_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
uint64_t test_seed(void);
uint64_t next_random(uint64_t *state);
/* Runs a suite of one case; what main returns. */
int run_tests(const char *name, TCase *tcase);

#endif
