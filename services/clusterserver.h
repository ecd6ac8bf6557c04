/* clusterserver: which service a request from another node is for, and which connection its answer
 * goes to.
 *
 * A request that came in gets an entry in session2context (connection, session on that connection)
 * under a session of this node's, and goes to the mailbox of the service as a message from this
 * pinned service; the answer finds the entry again. An answer whose connection has gone meanwhile
 * is dropped (SEED.md, error handling). The admin socket is a second one of these, on the main
 * thread's loop, that reaches the console and nothing else (`only`). The loop's thread only.
 */
#ifndef EVPT_SERVICES_CLUSTERSERVER_H
#define EVPT_SERVICES_CLUSTERSERVER_H

#include "cluster/cluster_mgr.h"
#include "services/clusterclient.h"
#include "services/log.h"
#include "services/scheduler.h"

struct evpt_served; /* one request in progress */

struct evpt_clusterserver {
    struct evpt_scheduler *scheduler;
    struct evpt_cluster_mgr *mgr;
    struct evpt_loop *loop;
    struct evpt_log *log;
    struct evpt_clusterclient *client; /* is told which nodes have been heard of; may be NULL */
    uint32_t only;                     /* the one service that can be reached; 0: all that export */
    uint32_t handle;                   /* of the pinned service: answers come there */
    _Atomic uint64_t requests, refused, denied, dropped_replies;
    /* private */
    struct evpt_served *served; /* session2context: slots, indexed by the low bits of the session */
    uint32_t capacity, count;
    uint32_t first_free;
    /* The names asked for last, and who had them: names are looked up under a lock, and few are in
     * use. */
    struct evpt_known_name {
        char name[32];
        uint32_t size, handle;
    } known[64];
    uint32_t known_version;
    uint32_t builtin[8]; /* handles that no other node may reach */
    unsigned builtin_count;
    uint64_t denied_untold;  /* since the last line about it */
    uint64_t denied_told_ns; /* when that was */
    bool draining;
};

int evpt_clusterserver_init(struct evpt_clusterserver *server, struct evpt_scheduler *scheduler,
                            struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                            struct evpt_log *log, struct evpt_clusterclient *client);
void evpt_clusterserver_fini(struct evpt_clusterserver *server);

/* A service's answer: a REPLY message with the session that its request bore. Takes it over. */
void evpt_clusterserver_reply(struct evpt_clusterserver *server, struct evpt_message *message);

/* Closes what came in from nodes that have proved names which the node list does not have any more.
 */
void evpt_clusterserver_close_unlisted(struct evpt_clusterserver *server);

/* No new requests: they get `stopping`, peers get GOAWAY; those in progress are still answered. */
void evpt_clusterserver_drain(struct evpt_clusterserver *server);
/* Requests in progress. */
uint32_t evpt_clusterserver_pending(const struct evpt_clusterserver *server);

/* Events of the cluster_mgr's server side. */
void evpt_clusterserver_on_request(struct evpt_clusterserver *server, struct evpt_session *session,
                                   struct evpt_message *message);
void evpt_clusterserver_on_accepted(struct evpt_clusterserver *server,
                                    struct evpt_session *session);
void evpt_clusterserver_on_hello(struct evpt_clusterserver *server, struct evpt_session *session);
void evpt_clusterserver_on_closed(struct evpt_clusterserver *server, struct evpt_session *session,
                                  int error, const char *reason);

#endif
