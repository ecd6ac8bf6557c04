#include "cluster/cluster_mgr.h"

#include <string.h>

#define GIVEN_UP "its node has given it up for another connection"

/* ---- client side ---- */

static void on_connect(void *tag, struct evpt_session *session, int error, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_connect(mgr->user, tag, session, error);
}

static void on_reply(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_reply(mgr->user, session, message);
}

static void on_hello(struct evpt_session *session, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_hello(mgr->user, session);
}

static void on_goaway(struct evpt_session *session, int code, const char *text, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_goaway(mgr->user, session, code, text);
}

static void on_queued(struct evpt_session *session, uint32_t frame_session, uint64_t position,
                      void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_queued(mgr->user, session, frame_session, position);
}

static void on_disconnect(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_disconnect(mgr->user, session, error, reason);
}

static const struct evpt_tcp_client_ops client_ops = {
    .session = {.on_message = on_reply,
                .on_hello = on_hello,
                .on_goaway = on_goaway,
                .on_queued = on_queued,
                .on_close = on_disconnect},
    .on_connect = on_connect,
};

/* ---- server side ----
 *
 * Nothing else of a peer that connected concerns the node: its GOAWAY asks for no more requests, of
 * which there are none in this direction, and nobody needs to know where in the stream a reply has
 * got to. */

static void on_request(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_request(mgr->user, session, message);
}

static void give_way(struct evpt_session *session, void *user);

/* Its HELLO may be read after the first request of the connection that takes over from it. */
static void on_peer_hello(struct evpt_session *session, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    if (mgr->took_over)
        evpt_tcp_object_each(&mgr->server.object, give_way, session);
    on_hello(session, user);
}

static void on_accepted(struct evpt_session *session, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_accepted(mgr->user, session);
}

static void on_closed(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_closed(mgr->user, session, error, reason);
}

static void on_shed(int error, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_shed(mgr->user, error);
}

static void on_refused(const struct evpt_addr *peer, int error, const char *reason, void *user)
{
    struct evpt_cluster_mgr *mgr = user;
    mgr->sink->on_refused(mgr->user, peer, error, reason);
}

static const struct evpt_tcp_server_ops server_ops = {
    .session = {.on_message = on_request, .on_hello = on_peer_hello, .on_close = on_closed},
    .on_opened = on_accepted,
    .on_shed = on_shed,
    .on_refused = on_refused,
};

/* ---- the manager ---- */

void evpt_cluster_mgr_init(struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                           const struct evpt_session_config *config,
                           const struct evpt_cluster_sink *sink, void *user)
{
    *mgr = (struct evpt_cluster_mgr){.config = *config, .sink = sink, .user = user};
    evpt_tcp_server_init(&mgr->server, loop, &mgr->config, &server_ops, mgr);
    evpt_tcp_client_init(&mgr->client, loop, &mgr->config, &client_ops, mgr);
}

void evpt_cluster_mgr_fini(struct evpt_cluster_mgr *mgr)
{
    if (!mgr)
        return;
    evpt_tcp_client_fini(&mgr->client);
    evpt_tcp_server_fini(&mgr->server);
}

int evpt_cluster_mgr_listen(struct evpt_cluster_mgr *mgr, const struct evpt_addr *addr)
{
    return evpt_tcp_server_listen(&mgr->server, addr);
}

void evpt_cluster_mgr_stop_listening(struct evpt_cluster_mgr *mgr)
{
    evpt_tcp_server_stop_listening(&mgr->server);
}

int evpt_cluster_mgr_connect(struct evpt_cluster_mgr *mgr, const struct evpt_addr *addr,
                             const char *node, uint64_t timeout_ns, void *tag)
{
    return evpt_tcp_client_try_connect(&mgr->client, addr, node, timeout_ns, tag);
}

const char *evpt_cluster_mgr_connect_reason(const struct evpt_cluster_mgr *mgr, int error)
{
    return evpt_tcp_client_reason(&mgr->client, error);
}

bool evpt_cluster_mgr_cancel(struct evpt_cluster_mgr *mgr, void *tag)
{
    return evpt_tcp_client_cancel(&mgr->client, tag);
}

struct evpt_session *evpt_cluster_mgr_accepted(struct evpt_cluster_mgr *mgr, uint32_t id)
{
    return evpt_tcp_object_find(&mgr->server.object, id);
}

/* Two connections of one node, opened by the same process? */
static bool have_same_peer(const struct evpt_session *a, const struct evpt_session *b)
{
    return evpt_session_said_hello(a) && evpt_session_said_hello(b) &&
           evpt_session_peer_incarnation(a) == evpt_session_peer_incarnation(b) &&
           strcmp(evpt_session_peer_name(a), evpt_session_peer_name(b)) == 0;
}

static bool is_earlier(const struct evpt_session *a, const struct evpt_session *b)
{
    return (int32_t)(evpt_session_id(a) - evpt_session_id(b)) < 0; /* ids wrap */
}

/* The tag of an accepted connection is set where it has taken over. */
static void give_way(struct evpt_session *session, void *user)
{
    struct evpt_session *other = user;
    if (!have_same_peer(session, other))
        return;
    if (evpt_session_tag(other) && is_earlier(session, other))
        evpt_session_close(session, false, GIVEN_UP);
    else if (evpt_session_tag(session) && is_earlier(other, session))
        evpt_session_close(other, false, GIVEN_UP);
}

void evpt_cluster_mgr_take_over(struct evpt_cluster_mgr *mgr, struct evpt_session *session)
{
    if (evpt_session_tag(session))
        return;
    evpt_session_set_tag(session, mgr);
    mgr->took_over = true;
    evpt_tcp_object_each(&mgr->server.object, give_way, session);
}

struct goaway {
    int code;
    const char *text;
};

static void send_goaway(struct evpt_session *session, void *user)
{
    const struct goaway *goaway = user;
    evpt_session_goaway(session, goaway->code, goaway->text);
}

void evpt_cluster_mgr_goaway(struct evpt_cluster_mgr *mgr, int code, const char *text)
{
    struct goaway goaway = {.code = code, .text = text};
    evpt_tcp_object_each(&mgr->server.object, send_goaway, &goaway);
}
