/* What the workloads of the reactor bench share.
 *
 * A workload (pipes.c, timers.c, messages.c) is written once, against the few names below, and is
 * compiled once for each library, with that library's with_*.h as ADAPTER. All of it is static and
 * in one translation unit, so that the adapter costs nothing: what is left is the call that the
 * program would have made itself. The echo servers (echo_*.c) differ in shape, as the libraries'
 * ways to read and write a socket do, and are programs of their own.
 *
 * An adapter defines
 *
 *     lib_version             the library's name and version
 *     lib_use_threads         once, before the first loop, where threads are going to wake loops
 *     struct lib_loop         lib_loop_init, lib_loop_fini, lib_run (until lib_break), lib_break,
 *                             lib_loop_adopt (the calling thread runs it from now on)
 *     struct lib_io           lib_io_start (readability, until stopped), lib_io_stop
 *     struct lib_timer        lib_timer_init, lib_timer_start (once, in so many ms),
 *                             lib_timer_stop, lib_timer_fini (one that is not running)
 *     struct lib_message      lib_next: the one behind it in a list
 *     struct lib_channel      lib_channel_init, lib_channel_fini (the loop's thread),
 *                             lib_send (any thread)
 *
 * and three macros that begin a callback in the form that the library calls:
 *
 *     LIB_ON_IO(name, io) { ... }                  struct lib_io *io
 *     LIB_ON_TIMER(name, timer) { ... }            struct lib_timer *timer
 *     LIB_ON_MESSAGES(name, channel, list) { ... } list: all there are, oldest first
 */
#ifndef EVPT_BENCH_REACTOR_H
#define EVPT_BENCH_REACTOR_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* CPU time of the calling thread. For workloads of one thread that never wait it is the elapsed
 * time of a machine that does nothing else, and other programs lengthen it less. */
static inline uint64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* What must not fail: a bench that goes on would measure something else. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            perror(#condition);                                                                    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline void *must_alloc(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    MUST(memory);
    return memory;
}

/* Argument `index` as a number of at least 1; ends the program with its usage where it is none. */
static inline long argument(int argc, char **argv, int index, const char *usage)
{
    char *end = NULL;
    long value = index < argc ? strtol(argv[index], &end, 10) : 0;
    if (value < 1 || *end) {
        fprintf(stderr, "usage: %s %s\n", argv[0], usage);
        exit(2);
    }
    return value;
}

/* The one form of output: a line for each figure. */
static inline void report(const char *what, double value)
{
    printf("%s %.3f\n", what, value);
}

static inline void report_library(const char *version)
{
    printf("library %s\n", version);
}

#endif
