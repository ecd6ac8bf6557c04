/* A node: everything below Lua, put together.
 *
 * The cluster thread is the scheduler's worker 0, which turns `cluster.loop`
 * (services/scheduler.h); cluster_mgr, clusterclient, clusterserver and `control` live on that
 * loop. The main thread has a loop of its own, with the admin socket and the pinned service `main`,
 * through which the launcher tells it how the start and the stop went.
 *
 *     evpt_node_init; (spawn the first service); evpt_node_start; ... evpt_node_stop;
 * evpt_node_fini
 */
#ifndef EVPT_SERVICES_NODE_H
#define EVPT_SERVICES_NODE_H

#include "reactor/ev_thread.h"
#include "services/clusterclient.h"
#include "services/clusterserver.h"
#include "services/config.h"
#include "services/give_back.h"
#include "services/log.h"
#include "services/scheduler.h"

/* Bytes of a message on the admin socket and among the built-in services, whatever message_max is:
 * tables of a hundred thousand services or nodes. */
#define EVPT_ADMIN_MESSAGE_MAX ((size_t)64 << 20)

struct evpt_node;

/* A SEND that came to `main`: the method is in the message. Owned by the caller. Main thread. */
typedef void (*evpt_node_main_fn)(struct evpt_node *node, struct evpt_message *message, void *user);

struct evpt_node {
    char name[EVPT_NODE_NAME_MAX + 1];
    const struct evpt_config *config;
    struct evpt_addr addr; /* where it listens */
    struct evpt_log log;
    struct evpt_scheduler scheduler;
    struct evpt_ev_thread cluster; /* loop and pair; its thread is the scheduler's */
    struct evpt_tls *tls;          /* of the cluster's connections; NULL: none */
    struct evpt_cluster_mgr mgr;
    struct evpt_clusterclient client;
    struct evpt_clusterserver server;
    uint32_t
        control; /* handle of the pinned service that the Lua services drive the cluster with */
    uint32_t sampler; /* the one that tells the main thread what the loop knows (sample.h) */

    struct evpt_ev_thread main; /* loop and pair of the main thread */
    struct evpt_cluster_mgr admin_mgr;
    struct evpt_clusterserver admin;
    uint32_t main_handle;
    evpt_node_main_fn on_main;
    void *user;

    struct evpt_give_back give_back;
    uint64_t started_ns;
    bool ended; /* nothing runs any more: what still comes through the pairs is freed */
    struct evpt_message *drain_waiter; /* the call `drain`, until nothing is in progress */
    /* where config->metrics is set: how long the two loops are away from their wait */
    struct evpt_histogram cluster_away, main_away;
    _Atomic uint64_t reloads, reloads_refused; /* of the node list */
};

/* Main thread. `config` must outlive the node. 0 or a negative error (then fini it). */
int evpt_node_init(struct evpt_node *node, const char *name, const struct evpt_addr *addr,
                   const struct evpt_config *config, evpt_node_main_fn on_main, void *user);
/* Starts the threads. */
int evpt_node_start(struct evpt_node *node);
/* Opens the admin socket of the configuration; only `console` can be reached through it. 0 or
 * -errno. */
int evpt_node_open_admin(struct evpt_node *node, uint32_t console);
/* Asks the threads to end. */
void evpt_node_stop(struct evpt_node *node);
/* Waits for that. False: a handler has not returned by the deadline, and the process can only be
 * ended. */
bool evpt_node_join_until(struct evpt_node *node, uint64_t deadline_ns);
/* NULL and zeroed are fine. */
void evpt_node_fini(struct evpt_node *node);

/* Reads certificates and key (again), for connections that come later. On an error `text` says what
 * is wrong, and those before stay. The loop's thread, or before start. */
int evpt_node_load_tls(struct evpt_node *node, char text[EVPT_TLS_TEXT_SIZE]);
/* The same, to look at the files only: for `evpt --check`. 0 where the configuration has no TLS. */
int evpt_node_check_tls(const struct evpt_config *config, const char *name,
                        char text[EVPT_TLS_TEXT_SIZE]);

/* No other node, and not the admin socket, reaches this service. Before start. */
void evpt_node_hide(struct evpt_node *node, uint32_t handle);

#endif
