#include "cluster/tcp_client.h"

#include "reactor/error.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct attempt {
    struct evpt_list link; /* in client->attempts */
    struct evpt_connector connector;
    struct evpt_handshake handshake; /* with TLS, when there is a connection */
    struct evpt_tcp_client *client;
    uint64_t deadline_ns;
    void *tag;
    char node[EVPT_NODE_NAME_MAX + 1];
};

static void free_attempt(struct attempt *attempt)
{
    evpt_list_remove(&attempt->link);
    evpt_connector_stop(&attempt->connector);
    evpt_handshake_stop(&attempt->handshake);
    evpt_sys_free(attempt);
}

/* SEED.md: onConnectCB. A connection, or an error. */
static void finish(struct attempt *attempt, int fd, struct evpt_transport *transport, int error)
{
    struct evpt_tcp_client *client = attempt->client;
    void *tag = attempt->tag;
    free_attempt(attempt); /* first: the callee may try again with the same tag */

    struct evpt_session *session = NULL;
    if (!error)
        error = evpt_tcp_object_create_session(&client->object, fd, transport, EVPT_SESSION_CLIENT,
                                               &session);
    if (session)
        evpt_session_set_tag(session, tag);
    client->ops->on_connect(tag, session, error, client->user);
}

static void on_handshake(struct evpt_handshake *handshake, int error, void *user)
{
    struct attempt *attempt = user;
    memcpy(attempt->client->reason, handshake->transport->reason, EVPT_TRANSPORT_REASON_SIZE);
    finish(attempt, handshake->fd, handshake->transport, error);
}

static int start_handshake(struct attempt *attempt, struct evpt_tls *tls, int fd)
{
    struct evpt_loop *loop = attempt->client->object.loop;
    uint64_t now_ns = evpt_loop_now(loop);
    struct evpt_transport *transport;
    int error = evpt_tls_connect(tls, fd, attempt->node, &transport);
    if (!error)
        evpt_handshake_start(&attempt->handshake, loop, fd, transport,
                             attempt->deadline_ns > now_ns ? attempt->deadline_ns - now_ns : 0,
                             &attempt->client->pace, on_handshake, attempt);
    return error;
}

static void on_done(struct evpt_connector *connector, int fd, void *user)
{
    struct attempt *attempt = user;
    struct evpt_tls *tls = attempt->client->object.config->tls;
    int error = fd < 0 ? fd : tls ? start_handshake(attempt, tls, fd) : 0;
    if (fd >= 0 && error)
        evpt_sys_close(fd);
    if (!error && tls)
        return; /* on_handshake goes on */
    attempt->client->reason[0] = 0;
    finish(attempt, fd, NULL, error);
}

static struct attempt *find_attempt(struct evpt_tcp_client *client, const void *tag)
{
    /* A walk, since there are as many attempts as nodes that are being connected to. */
    for (struct evpt_list *link = client->attempts.next; link != &client->attempts;
         link = link->next) {
        struct attempt *attempt = EVPT_CONTAINER_OF(link, struct attempt, link);
        if (attempt->tag == tag)
            return attempt;
    }
    return NULL;
}

void evpt_tcp_client_init(struct evpt_tcp_client *client, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_tcp_client_ops *ops, void *user)
{
    *client = (struct evpt_tcp_client){.ops = ops, .user = user};
    evpt_list_init(&client->attempts);
    evpt_tcp_object_init(&client->object, loop, config, &ops->session, user);
}

void evpt_tcp_client_fini(struct evpt_tcp_client *client)
{
    if (!client)
        return;
    while (client->attempts.next && !evpt_list_is_empty(&client->attempts))
        free_attempt(EVPT_CONTAINER_OF(client->attempts.next, struct attempt, link));
    evpt_tcp_object_fini(&client->object);
}

int evpt_tcp_client_try_connect(struct evpt_tcp_client *client, const struct evpt_addr *addr,
                                const char *node, uint64_t timeout_ns, void *tag)
{
    assert(tag && !find_attempt(client, tag));
    struct attempt *attempt = evpt_sys_zalloc(sizeof *attempt);
    if (!attempt)
        return -ENOMEM;
    attempt->client = client;
    attempt->tag = tag;
    attempt->deadline_ns = evpt_loop_now(client->object.loop) + timeout_ns;
    snprintf(attempt->node, sizeof(attempt->node), "%s", node);
    evpt_list_push_back(&client->attempts, &attempt->link);
    evpt_connector_start(&attempt->connector, client->object.loop, addr, timeout_ns, on_done,
                         attempt);
    return 0;
}

bool evpt_tcp_client_cancel(struct evpt_tcp_client *client, void *tag)
{
    struct attempt *attempt = find_attempt(client, tag);
    if (attempt)
        free_attempt(attempt);
    return attempt != NULL;
}

const char *evpt_tcp_client_reason(const struct evpt_tcp_client *client, int error)
{
    return client->reason[0] ? client->reason : evpt_strerror(error);
}
