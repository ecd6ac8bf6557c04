/* TcpServer: accepts connections and keeps their sessions. The loop's thread only. */
#ifndef EVPT_CLUSTER_TCP_SERVER_H
#define EVPT_CLUSTER_TCP_SERVER_H

#include "cluster/gate.h"
#include "cluster/tcp_object.h"
#include "reactor/listener.h"

struct evpt_tcp_server_ops {
    struct evpt_session_ops session;
    /* A connection has come in. May be NULL. */
    void (*on_opened)(struct evpt_session *session, void *user);
    /* One was refused because the system is out of descriptors or memory. May be NULL. */
    void (*on_shed)(int error, void *user);
    /* One did not get through the gate (gate.h), or is another user's. May be NULL. */
    void (*on_refused)(const struct evpt_addr *peer, int error, const char *reason, void *user);
};

struct evpt_tcp_server { /* caller's storage, must not move */
    struct evpt_tcp_object object;
    bool own_user_only; /* of a local socket; set before listen */
    /* private */
    struct evpt_listener listener;
    struct evpt_gate gate; /* before a session, where the configuration says TLS */
    const struct evpt_tcp_server_ops *ops;
    void *user;
};

void evpt_tcp_server_init(struct evpt_tcp_server *server, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_tcp_server_ops *ops, void *user);
/* Closes everything without callbacks. NULL and zeroed are fine. */
void evpt_tcp_server_fini(struct evpt_tcp_server *server);
/* initListen + startListen. 0 or -errno. */
int evpt_tcp_server_listen(struct evpt_tcp_server *server, const struct evpt_addr *addr);
/* No new connections; sessions stay. */
void evpt_tcp_server_stop_listening(struct evpt_tcp_server *server);
int evpt_tcp_server_addr(const struct evpt_tcp_server *server, struct evpt_addr *ret_addr);

#endif
