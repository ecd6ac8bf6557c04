#include "cluster/tcp_client.h"

#include <assert.h>
#include <errno.h>

struct attempt {
    struct evpt_list link; /* in client->attempts */
    struct evpt_connector connector;
    struct evpt_tcp_client *client;
    void *tag;
};

static void free_attempt(struct attempt *attempt)
{
    evpt_list_remove(&attempt->link);
    evpt_connector_stop(&attempt->connector);
    evpt_sys_free(attempt);
}

/* SEED.md: onConnectCB. */
static void on_done(struct evpt_connector *connector, int fd, void *user)
{
    struct attempt *attempt = user;
    struct evpt_tcp_client *client = attempt->client;
    void *tag = attempt->tag;
    free_attempt(attempt); /* first: the callee may try again with the same tag */

    struct evpt_session *session = NULL;
    int error = fd;
    if (fd >= 0)
        error = evpt_tcp_object_create_session(&client->object, fd, EVPT_SESSION_CLIENT, &session);
    if (session)
        evpt_session_set_tag(session, tag);
    client->ops->on_connect(tag, session, error, client->user);
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
                                uint64_t timeout_ns, void *tag)
{
    assert(tag && !find_attempt(client, tag));
    struct attempt *attempt = evpt_sys_zalloc(sizeof *attempt);
    if (!attempt)
        return -ENOMEM;
    attempt->client = client;
    attempt->tag = tag;
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
