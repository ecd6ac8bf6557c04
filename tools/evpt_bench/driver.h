/* The load of --local: nodes of our own (local.h), and in one of them the service bench_driver that
 * calls bench_echo in the other, or in the same. This is the far end of that service: it talks to
 * it as any peer would, over one connection, and is idle while the load runs.
 *
 * Only an open loop is paced from here, by a message for each slot (or for many that are due
 * together), since a service can sleep for no less than a millisecond. How late the calls are
 * started because of that is measured and reported.
 */
#ifndef EVPT_BENCH_DRIVER_H
#define EVPT_BENCH_DRIVER_H

#include "tools/evpt_bench/engine.h"

/* NULL: no memory. Freed by ops->close, which stops the nodes too. */
struct bench_engine *bench_driver_new(struct bench_context *context);

#endif
