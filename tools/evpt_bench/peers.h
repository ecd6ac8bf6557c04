/* The far side of `--local --peers N`: N peers inside evpt-bench, each with an address, a name and
 * sessions of its own. They answer every call with its arguments. To the node that calls them they
 * are N nodes; as N processes they would measure how the kernel switches between so many.
 */
#ifndef EVPT_BENCH_PEERS_H
#define EVPT_BENCH_PEERS_H

#include "reactor/loop.h"
#include "tools/evpt_bench/options.h"

#include <stdio.h>

struct bench_peers;

/* They listen when this returns, on ports of the kernel's choice, and answer while the loop turns.
 * 0 or a negative error. */
int bench_peers_new(struct bench_peers **ret_peers, struct evpt_loop *loop,
                    const struct bench_options *options);
/* Closes everything. NULL is fine. */
void bench_peers_free(struct bench_peers *peers);
/* Their lines of a node list: bench_b_1, bench_b_2, ... NULL has none. */
void bench_peers_print_list(const struct bench_peers *peers, FILE *out);

#endif
