/* The nodes that `--local` starts: a folder with their configuration, the processes, and their end.
 * With --peers it is one node, and the list has the peers in this process (peers.h) beside it.
 *
 * Each node listens on a port of loopback that the kernel gave us. It is kept from others until the
 * node has it: we hold it bound (SO_REUSEADDR, as the node does), and do not listen.
 *
 * Whatever happens, nothing stays: bench_local_stop ends the processes and removes the folder, and
 * should this process be killed, the kernel ends them (PR_SET_PDEATHSIG). They are in a process
 * group of their own, so that Ctrl-C reaches only evpt-bench, which then stops them in order.
 */
#ifndef EVPT_BENCH_LOCAL_H
#define EVPT_BENCH_LOCAL_H

#include "reactor/sys.h"
#include "tools/evpt_bench/options.h"
#include "tools/evpt_bench/peers.h"

#include <sys/types.h>

#define BENCH_LOCAL_MAX 2

struct bench_node {
    const char *name; /* "bench_a" has the driver, "bench_b" the echo */
    bool drives, echoes;
    struct evpt_addr addr;
    int port_fd; /* -1: not held any more */
    pid_t pid;   /* 0: not running */
};

struct bench_local { /* zeroed: nothing was started */
    char folder[256];
    struct bench_node nodes[BENCH_LOCAL_MAX];
    unsigned count;
};

/* Makes the folder and starts the nodes; does not wait until they are up. 0, or -1 after one line
 * to stderr. Release with bench_local_stop in both cases. `peers` may be NULL. */
int bench_local_start(struct bench_local *local, const struct bench_options *options,
                      const struct bench_peers *peers);
/* The node listens now: the port is its own. */
void bench_local_is_up(struct bench_node *node);
/* True while all run; else one line to stderr with what the node said last. */
bool bench_local_check(struct bench_local *local);
void bench_local_stop(struct bench_local *local);

#endif
