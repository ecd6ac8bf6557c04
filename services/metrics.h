/* The figures of a node in Prometheus' text format (version 0.0.4).
 *
 * Names follow Prometheus' rules: `evpt_` in front, seconds and bytes, counters end in _total. What
 * a process of any program has is called process_*, as everywhere. docs/operations.md lists them.
 *
 * Reads what other threads write: each figure is one that was true a moment ago, and those of one
 * page need not be of the same moment.
 */
#ifndef EVPT_SERVICES_METRICS_H
#define EVPT_SERVICES_METRICS_H

#include "services/sample.h"

#define EVPT_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* The page, from evpt_sys_alloc; NULL: no memory. `sample`: NULL where the cluster's loop has not
 * answered; what it alone knows is then left out. The main thread. */
char *evpt_metrics_text(struct evpt_node *node, const struct evpt_sample *sample, bool ready,
                        size_t *ret_size);

#endif
