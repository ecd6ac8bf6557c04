/* TcpClient: opens connections and keeps their sessions. The loop's thread only. */
#ifndef EVPT_CLUSTER_TCP_CLIENT_H
#define EVPT_CLUSTER_TCP_CLIENT_H

#include "cluster/tcp_object.h"
#include "reactor/connector.h"
#include "reactor/handshake.h"
#include "reactor/tls.h"

struct evpt_tcp_client_ops {
    struct evpt_session_ops session;
    /* onConnectCB: the attempt that was started with `tag` has ended: a session (its tag is set),
     * or NULL and the error, which evpt_tcp_client_reason has in words. Exactly once an attempt,
     * unless it was cancelled; never from inside try_connect. */
    void (*on_connect)(void *tag, struct evpt_session *session, int error, void *user);
};

struct evpt_tcp_client { /* caller's storage, must not move */
    struct evpt_tcp_object object;
    /* private */
    struct evpt_list attempts;
    struct evpt_handshake_pace pace;
    char reason[EVPT_TRANSPORT_REASON_SIZE]; /* of the last attempt, where TLS has words for it */
    const struct evpt_tcp_client_ops *ops;
    void *user;
};

void evpt_tcp_client_init(struct evpt_tcp_client *client, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_tcp_client_ops *ops, void *user);
/* Closes everything without callbacks. NULL and zeroed are fine. */
void evpt_tcp_client_fini(struct evpt_tcp_client *client);
/* tryConnect. 0 or -ENOMEM. `node`: who has to be there, as far as TLS can tell; copied. `tag`: not
 * NULL, unique among the attempts under way. */
int evpt_tcp_client_try_connect(struct evpt_tcp_client *client, const struct evpt_addr *addr,
                                const char *node, uint64_t timeout_ns, void *tag);
/* Gives up the attempt with this tag, without on_connect. False: there is none. */
bool evpt_tcp_client_cancel(struct evpt_tcp_client *client, void *tag);
/* In on_connect: the words for its error. */
const char *evpt_tcp_client_reason(const struct evpt_tcp_client *client, int error);

#endif
