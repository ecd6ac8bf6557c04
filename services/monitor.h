/* The node as others watch it, on the HTTP address of `metrics`: GET
 *
 *     /metrics    figures for Prometheus (metrics.h)
 *     /healthz    200 where the cluster's loop and a worker answer within a second, else 503
 *     /readyz     200 from the end of the start to the beginning of the stop, else 503
 *
 * On the main thread's loop, beside the admin socket: whoever asks, and however slowly, disturbs no
 * call. What the cluster's loop alone knows it is asked for once a page (probe.h).
 */
#ifndef EVPT_SERVICES_MONITOR_H
#define EVPT_SERVICES_MONITOR_H

#include "services/http.h"
#include "services/probe.h"

#define EVPT_MONITOR_PROBE_MS 1000 /* scrapers and health checks give up after some seconds */

enum evpt_monitor_phase { EVPT_MONITOR_STARTING, EVPT_MONITOR_READY, EVPT_MONITOR_DRAINING };

struct evpt_monitor { /* caller's storage, must not move; zeroed: stopped */
    enum evpt_monitor_phase phase;
    /* private */
    struct evpt_node *node;
    struct evpt_prober *prober;
    struct evpt_http http;
    struct evpt_monitor_page { /* asked for, and waits for the other threads */
        struct evpt_monitor *monitor;
        struct evpt_probe probe;
        uint32_t connection;
    } pages[EVPT_HTTP_CONNECTIONS_MAX];
};

/* Listens on the configuration's address, and logs where. 0 or -errno. */
int evpt_monitor_start(struct evpt_monitor *monitor, struct evpt_node *node,
                       struct evpt_prober *prober);
void evpt_monitor_stop(struct evpt_monitor *monitor);

#endif
