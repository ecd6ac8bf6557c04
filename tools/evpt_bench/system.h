/* The machine that a run takes place on: what belongs into every report, processor time of
 * processes, and who listens on an address. */
#ifndef EVPT_BENCH_SYSTEM_H
#define EVPT_BENCH_SYSTEM_H

#include "reactor/sys.h"

#include <sched.h>
#include <sys/types.h>

struct bench_environment {
    char kernel[208];    /* "Linux 6.1.0 x86_64" */
    char cpu[128];       /* model, as /proc/cpuinfo names it */
    int cpu_count;       /* that this process may use */
    char build[128];     /* "release, gcc 12.2.0" */
    char date[32];       /* UTC */
    const char *command; /* the full command line, quoted for a shell */
};

/* `command` stays the caller's and has to last as long. CPUs are counted now: pin first. */
void bench_environment_read(struct bench_environment *ret_environment, const char *command);
/* The command line as a shell would take it; free() it. NULL: no memory. */
char *bench_quote_command(int argc, char **argv);

/* Processor time that a process and all its threads have used so far; 0: own; 0 ns where it is gone
 * or not ours to see. */
uint64_t bench_cpu_ns(pid_t pid);
/* The most memory that a process ever had resident, in bytes; 0 where it is gone or not ours to
 * see.
 */
uint64_t bench_memory_max(pid_t pid);
/* Which process listens on an address of this machine; 0: none that we may see. */
pid_t bench_owner_of(const struct evpt_addr *addr);

/* Sleeps end when they should and not up to 50 us later, which is the default: an open loop starts
 * its calls on time. For the calling thread; bench_default_timers undoes it in a child. */
void bench_exact_timers(void);
void bench_default_timers(void);

#endif
