/* What the service manager is told of the node: sd_notify's protocol without its library.
 *
 * A message is a datagram of lines to the socket that $NOTIFY_SOCKET names, a path or "@name" in
 * the abstract namespace. Without that variable nothing is told, and nothing here costs anything.
 *
 *     READY=1                             started, and listening
 *     RELOADING=1, MONOTONIC_USEC=, then READY=1       around a HUP's reload
 *     STOPPING=1                          draining
 *     STATUS=                             with each of these, and why a start has failed
 *     WATCHDOG=1                          twice per $WATCHDOG_USEC, but only after a round trip
 *                                         through the cluster's loop and a service (probe.h)
 *
 * Main thread only.
 */
#ifndef EVPT_TOOLS_SERVICE_MANAGER_H
#define EVPT_TOOLS_SERVICE_MANAGER_H

#include "services/probe.h"

struct service_manager { /* zeroed: there is none */
    struct evpt_node *node;
    struct evpt_prober *prober;
    const char *socket;   /* NULL: nobody wants to know */
    uint64_t watchdog_ns; /* from one sign of life to the next; 0: none is expected */
    struct evpt_timer timer;
    struct evpt_probe probe;
    unsigned reloads; /* in progress */
    bool ready, failed;
};

/* Reads the environment, and takes the variables out of it: what services start is not meant. */
void service_manager_init(struct service_manager *manager, struct evpt_node *node);
static inline bool service_manager_wants_watchdog(const struct service_manager *manager)
{
    return manager->watchdog_ns != 0;
}

/* `prober`: an initialised one where a watchdog is wanted. */
void service_manager_ready(struct service_manager *manager, struct evpt_prober *prober);
void service_manager_reloading(struct service_manager *manager);
/* One reload has ended, well or not: the node goes on with what it has. */
void service_manager_reloaded(struct service_manager *manager);
void service_manager_stopping(struct service_manager *manager);
/* `text`: up to the end of its first line. */
void service_manager_start_failed(struct service_manager *manager, const char *text, size_t size);

#endif
