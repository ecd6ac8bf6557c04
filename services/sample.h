/* What the cluster's loop alone knows, copied for the main thread: one entry for each listed node,
 * and a few totals. It travels as the bytes of an answer (probe.h). */
#ifndef EVPT_SERVICES_SAMPLE_H
#define EVPT_SERVICES_SAMPLE_H

#include "services/node.h"

struct evpt_peer_sample {
    char name[EVPT_NODE_NAME_MAX + 1];
    uint64_t connected;          /* 1 or 0 */
    uint64_t in_flight, waiting; /* calls sent; requests that wait for the connection */
    uint64_t queued, round_trip_ns;
    uint64_t connects, disconnects;
    struct evpt_peer_meter meter;
};

struct evpt_sample {
    uint32_t serving, connections_in, connections_out;
    uint32_t peer_count;
    struct evpt_peer_sample peers[];
};

/* A message for the pinned service `node->sampler`; takes it over. The cluster loop's thread. */
void evpt_sample_message(struct evpt_node *node, struct evpt_message *message);
/* The sample in an answer. */
const struct evpt_sample *evpt_sample_of(const struct evpt_message *answer);

#endif
