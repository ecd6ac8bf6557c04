/* TcpObject: what TcpServer and TcpClient have in common: the dictionary of their sessions.
 *
 * SEED.md: _sessionDict_ (id to session), _totalSessionId_ (makes ids), _base_ (the loop),
 * createSession, removeSession, errorCB. Ids are never 0 and unique within one object; a number
 * that is still in use is skipped after the counter has wrapped. Look-up is O(1).
 */
#ifndef EVPT_CLUSTER_TCP_OBJECT_H
#define EVPT_CLUSTER_TCP_OBJECT_H

#include "cluster/session.h"

struct evpt_tcp_object { /* embedded in tcp_server and tcp_client */
    struct evpt_loop *loop;
    const struct evpt_session_config *config;
    const struct evpt_session_ops *ops; /* of the owner; session events pass through */
    void *user;
    /* private */
    struct evpt_session **session_dict; /* open addressing by id, power of two */
    uint32_t session_capacity, session_count;
    uint32_t total_session_id;
};

void evpt_tcp_object_init(struct evpt_tcp_object *object, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_session_ops *ops, void *user);
/* Frees all sessions without callbacks. */
void evpt_tcp_object_fini(struct evpt_tcp_object *object);
/* createSession: takes over the descriptor and the transport (NULL: none). */
int evpt_tcp_object_create_session(struct evpt_tcp_object *object, int fd,
                                   struct evpt_transport *transport, enum evpt_session_role role,
                                   struct evpt_session **ret_session);
/* NULL where it is gone. */
struct evpt_session *evpt_tcp_object_find(const struct evpt_tcp_object *object, uint32_t id);
uint32_t evpt_tcp_object_count(const struct evpt_tcp_object *object);
/* Calls `fn` for each session; `fn` may close sessions. */
typedef void (*evpt_session_each_fn)(struct evpt_session *session, void *user);
void evpt_tcp_object_each(struct evpt_tcp_object *object, evpt_session_each_fn fn, void *user);

#endif
