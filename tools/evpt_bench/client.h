/* The load from this process: requests over connections of the cluster floor, one thread.
 *
 * Closed loop: there are `in_flight` places, spread over the connections; whatever ends in a place,
 * the next call starts in it. Open loop: slots come due on a schedule (pace.h) and take the
 * connections in turn; a slot that finds `in_flight` calls in flight, or no connection, is missed
 * and not made up for.
 *
 * `send` has no answers. So of each BENCH_SEND_BURST messages on a connection the last is a call of
 * the same method: messages of one sender are handled in the order sent, so its answer confirms
 * those before it. A place in flight is then such a burst, and latency is that of the calls.
 *
 * A connection that is lost ends its calls (disconnected) and is opened again, every 100 ms until
 * that succeeds; when there has been none at all for as long as a call may take, the run fails.
 *
 * Cost: with 64 bytes, about 0.5 us of this thread's time for each call, both ways; the report
 * tells when the thread had no time left.
 */
#ifndef EVPT_BENCH_CLIENT_H
#define EVPT_BENCH_CLIENT_H

#include "tools/evpt_bench/engine.h"

/* NULL: no memory. Freed by ops->close. */
struct bench_engine *bench_client_new(struct bench_context *context, const struct evpt_addr *addr);

#endif
