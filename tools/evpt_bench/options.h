/* The command line of evpt-bench. */
#ifndef EVPT_BENCH_OPTIONS_H
#define EVPT_BENCH_OPTIONS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_EXIT_OK = 0, BENCH_EXIT_FAILED = 1, BENCH_EXIT_USAGE = 2, BENCH_EXIT_TOO_SLOW = 3 };

enum bench_what { BENCH_CALL, BENCH_SEND };
enum bench_where {
    BENCH_TARGET,    /* from this process to a running node */
    BENCH_LOCAL_TWO, /* service to service between two nodes of our own */
    BENCH_LOCAL_ONE, /* service to service inside one node of our own */
};

/* The last of so many messages of one connection is a call: `send`, see client.h. */
#define BENCH_SEND_BURST 16

struct bench_options {
    enum bench_what what;
    enum bench_where where;
    const char *target, *service, *method;
    const char *nodes; /* node list to look the target up in; NULL: it is an address */
    double rate;       /* open loop; 0: closed */
    uint64_t in_flight;
    uint64_t connections;
    uint64_t duration_ns; /* UINT64_MAX: until `count` have ended */
    uint64_t count;       /* UINT64_MAX: until the duration is over */
    uint64_t warmup_ns;
    uint64_t size_min, size_max;
    uint64_t timeout_ns;
    uint64_t services; /* --local: the calls go to each of so many in turn */
    uint64_t peers;    /* --local: instead of the second node; 0: there is one */
    uint64_t beside; /* --local: bytes of the calls that another service makes meanwhile; 0: none */
    const char **sets; /* KEY=VALUE for the nodes of --local */
    size_t set_count;
    const char *tls; /* folder with certificates, as evpt-certs makes it; NULL: no TLS */
    const char *pin; /* as given; NULL: not pinned */
    cpu_set_t cpus;
    const char *json, *csv, *hgrm; /* files; "-": stdout; NULL: none */
    const char *compare;
    uint64_t max_p99_ns; /* 0: no limit */
};

/* Reads the command line; texts stay in argv. -1: go on; else the exit status, and everything has
 * been said. Release with bench_options_fini in every case. */
int bench_options_parse(struct bench_options *ret_options, int argc, char **argv);
void bench_options_fini(struct bench_options *options);

#endif
