/* ClusterMgr: every cluster socket of the node, on one loop. One TcpServer, one TcpClient, and the
 * sink through which they report upwards.
 *
 * SEED.md's ClusterMgr is also a thread (ClusterMgr -> EvThread -> ThreadBase); here it is what
 * runs on that thread's loop, and services/node.h joins the two. It knows no service and no Lua:
 * bytes in, messages out. The loop's thread only; callbacks come from the loop, never from inside a
 * call.
 */
#ifndef EVPT_CLUSTER_CLUSTER_MGR_H
#define EVPT_CLUSTER_CLUSTER_MGR_H

#include "cluster/tcp_client.h"
#include "cluster/tcp_server.h"

/* The sink: who gets what. `user` is the one given to init. All functions are needed,
 * on_refused with TLS only. */
struct evpt_cluster_sink {
    /* client side: connections that this node opened */
    void (*on_connect)(void *user, void *tag, struct evpt_session *session, int error);
    void (*on_reply)(void *user, struct evpt_session *session, struct evpt_message *message);
    void (*on_hello)(void *user, struct evpt_session *session); /* both sides */
    void (*on_goaway)(void *user, struct evpt_session *session, int code, const char *text);
    void (*on_queued)(void *user, struct evpt_session *session, uint32_t frame_session,
                      uint64_t position);
    void (*on_disconnect)(void *user, struct evpt_session *session, int error, const char *reason);
    /* server side: connections that this node accepted */
    void (*on_accepted)(void *user, struct evpt_session *session);
    void (*on_request)(void *user, struct evpt_session *session, struct evpt_message *message);
    void (*on_closed)(void *user, struct evpt_session *session, int error, const char *reason);
    void (*on_shed)(void *user, int error);
    /* with TLS: somebody did not get in */
    void (*on_refused)(void *user, const struct evpt_addr *peer, int error, const char *reason);
};

struct evpt_cluster_mgr { /* caller's storage, must not move */
    struct evpt_tcp_server server;
    struct evpt_tcp_client client;
    struct evpt_session_config config;
    /* private */
    const struct evpt_cluster_sink *sink;
    void *user;
    bool took_over; /* some connection has, ever */
};

/* `config` is copied. */
void evpt_cluster_mgr_init(struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                           const struct evpt_session_config *config,
                           const struct evpt_cluster_sink *sink, void *user);
/* Closes everything at once, without callbacks. NULL and zeroed are fine. */
void evpt_cluster_mgr_fini(struct evpt_cluster_mgr *mgr);

int evpt_cluster_mgr_listen(struct evpt_cluster_mgr *mgr, const struct evpt_addr *addr);
void evpt_cluster_mgr_stop_listening(struct evpt_cluster_mgr *mgr);
/* `node`: who has to be there, as far as TLS can tell. */
int evpt_cluster_mgr_connect(struct evpt_cluster_mgr *mgr, const struct evpt_addr *addr,
                             const char *node, uint64_t timeout_ns, void *tag);
/* In on_connect: the words for its error. */
const char *evpt_cluster_mgr_connect_reason(const struct evpt_cluster_mgr *mgr, int error);
bool evpt_cluster_mgr_cancel(struct evpt_cluster_mgr *mgr, void *tag);
/* Accepted session by id, or NULL. */
struct evpt_session *evpt_cluster_mgr_accepted(struct evpt_cluster_mgr *mgr, uint32_t id);
/* The peer of this accepted connection has given up those that it opened before it (as its HELLO
 * says, the same name and incarnation): closes them, so that nothing that lies unread in them runs
 * any more. Nothing for a peer that says no HELLO. */
void evpt_cluster_mgr_take_over(struct evpt_cluster_mgr *mgr, struct evpt_session *session);
/* GOAWAY to every peer that connected to this node (drain). */
void evpt_cluster_mgr_goaway(struct evpt_cluster_mgr *mgr, int code, const char *text);

#endif
