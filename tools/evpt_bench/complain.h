/* One line to stderr, with the program's name in front. */
#ifndef EVPT_BENCH_COMPLAIN_H
#define EVPT_BENCH_COMPLAIN_H

__attribute__((format(printf, 1, 2))) void bench_complain(const char *format, ...);

#endif
