/* Kinds of services: what all services of one script have counted, for metrics.
 *
 * Each worker counts for itself, on cache lines of its own: one writer, no lock; whoever reads adds
 * up. A kind stays as long as the scheduler, so its counters never fall when services end. At most
 * EVPT_KINDS_MAX scripts have one of their own, the others share the last, "other".
 *
 *     kind = evpt_kinds_get(&scheduler->kinds, "room");     any thread, seldom
 *     meter = &kind->meters[worker->index];                  that worker alone writes to it
 */
#ifndef EVPT_SERVICES_KIND_H
#define EVPT_SERVICES_KIND_H

#include "reactor/histogram.h"
#include <pthread.h>

#define EVPT_KINDS_MAX 256
#define EVPT_KIND_NAME_MAX 127 /* bytes of a script's name; the rest is cut */

/* One kind, one worker. */
struct evpt_meter {
    struct evpt_histogram handler; /* from a request's start to its end */
    _Atomic uint64_t messages, run_ns;
    char pad[64]; /* the next worker's are on another cache line */
};

struct evpt_kind {
    char name[EVPT_KIND_NAME_MAX + 1]; /* UTF-8 without control characters */
    unsigned index;                    /* in kinds->kinds */
    _Atomic uint64_t refused;          /* mailbox_max; any thread */
    struct evpt_meter *meters;         /* by worker->index */
};

struct evpt_kinds { /* zeroed: nothing to finish */
    _Atomic unsigned count;
    struct evpt_kind *kinds[EVPT_KINDS_MAX]; /* the first `count` stay as they are */
    /* private */
    pthread_mutex_t lock; /* of whoever adds one */
    unsigned workers;     /* the cluster thread included; 0: not initialised */
};

void evpt_kinds_init(struct evpt_kinds *kinds, unsigned workers);
void evpt_kinds_fini(struct evpt_kinds *kinds);
/* The kind of a script; made when first asked for. NULL: no memory. Any thread. */
struct evpt_kind *evpt_kinds_get(struct evpt_kinds *kinds, const char *script);
/* How many there are; kinds[0] and so on can be read. Any thread. */
static inline unsigned evpt_kinds_count(struct evpt_kinds *kinds)
{
    /* acquire: pairs with the release in evpt_kinds_get; the entries below the count are whole */
    return atomic_load_explicit(&kinds->count, memory_order_acquire);
}

#endif
