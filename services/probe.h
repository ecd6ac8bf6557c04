/* Questions of the main thread to the others, with a time limit: what the cluster's loop alone
 * knows, and whether loop and workers still answer.
 *
 * A probe is one or two calls; their answers come back through the main thread's pair. "sample"
 * asks the cluster's loop for its figures (sample.h). "alive" asks it for nothing, and a worker as
 * well: the launcher, a Lua service like any other, has to be taken up, run and answer. A handler
 * that is stuck does not keep either from answering while there is anybody left who can
 * (scheduler.h): that is one service's trouble. Where nobody is left, the node serves no more.
 *
 * Main thread only.
 */
#ifndef EVPT_SERVICES_PROBE_H
#define EVPT_SERVICES_PROBE_H

#include "services/node.h"

enum evpt_probe_kind { EVPT_PROBE_ALIVE, EVPT_PROBE_SAMPLE };

struct evpt_probe;
/* `answer`: the last one that was missing, the caller's; NULL: time is up. May start the probe
 * again. */
typedef void (*evpt_probe_fn)(struct evpt_probe *probe, const struct evpt_message *answer,
                              void *user);

struct evpt_probe { /* caller's storage; zeroed: not running */
    /* private */
    struct evpt_prober *prober;
    struct evpt_list link;
    struct evpt_timer timer;
    evpt_probe_fn fn;
    void *user;
    uint32_t session;
    unsigned missing; /* answers */
};

struct evpt_prober { /* caller's storage, must not move */
    struct evpt_node *node;
    uint32_t handle; /* of the pinned service that the answers come to */
    /* private */
    uint32_t pulse;
    uint32_t last_session;
    struct evpt_list running;
};

/* Before the node's start; has to stay until its end. 0 or -EVPT_ELIMIT. */
int evpt_prober_init(struct evpt_prober *prober, struct evpt_node *node);
/* A message for `handle`; frees nothing. */
void evpt_prober_answer(struct evpt_prober *prober, const struct evpt_message *message);

void evpt_probe_start(struct evpt_probe *probe, struct evpt_prober *prober,
                      enum evpt_probe_kind kind, uint32_t within_ms, evpt_probe_fn fn, void *user);
/* Afterwards it is never called. Nothing where it is not running. */
void evpt_probe_stop(struct evpt_probe *probe);
static inline bool evpt_probe_is_running(const struct evpt_probe *probe)
{
    return probe->prober != NULL;
}

#endif
