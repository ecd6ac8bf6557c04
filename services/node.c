#include "services/node.h"

#include "reactor/error.h"
#include "services/control.h"
#include "services/sample.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- the sink: the cluster's events to the two services ---- */

static void on_connect(void *user, void *tag, struct evpt_session *session, int error)
{
    struct evpt_node *node = user;
    evpt_clusterclient_on_connect(&node->client, tag, session, error);
}

static void on_reply(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct evpt_node *node = user;
    evpt_clusterclient_on_reply(&node->client, session, message);
}

static void on_hello(void *user, struct evpt_session *session)
{
    struct evpt_node *node = user;
    if (evpt_session_role(session) == EVPT_SESSION_CLIENT)
        evpt_clusterclient_on_hello(&node->client, session);
    else
        evpt_clusterserver_on_hello(&node->server, session);
}

static void on_goaway(void *user, struct evpt_session *session, int code, const char *text)
{
    struct evpt_node *node = user;
    if (evpt_session_role(session) == EVPT_SESSION_CLIENT)
        evpt_clusterclient_on_goaway(&node->client, session, code, text);
}

static void on_queued(void *user, struct evpt_session *session, uint32_t frame_session,
                      uint64_t position)
{
    struct evpt_node *node = user;
    if (evpt_session_role(session) == EVPT_SESSION_CLIENT)
        evpt_clusterclient_on_queued(&node->client, frame_session, position);
}

static void on_disconnect(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct evpt_node *node = user;
    evpt_clusterclient_on_disconnect(&node->client, session, error, reason);
}

static void on_accepted(void *user, struct evpt_session *session)
{
    struct evpt_node *node = user;
    evpt_clusterserver_on_accepted(&node->server, session);
}

static void on_request(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct evpt_node *node = user;
    evpt_clusterserver_on_request(&node->server, session, message);
}

static void on_closed(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct evpt_node *node = user;
    evpt_clusterserver_on_closed(&node->server, session, error, reason);
    evpt_control_check_drain(node);
}

static void on_shed(void *user, int error)
{
    struct evpt_node *node = user;
    evpt_logf(&node->log, EVPT_LOG_ERROR, "clusterserver", "a connection was refused: %s",
              evpt_strerror(error));
}

static void on_refused(void *user, const struct evpt_addr *peer, int error, const char *reason)
{
    struct evpt_node *node = user;
    char addr[EVPT_ADDR_TEXT_SIZE];
    /* Who comes and goes without a word may be a monitor that looks whether we are there. */
    bool harmless = error == -EVPT_EEOF;
    evpt_logf(&node->log, harmless ? EVPT_LOG_INFO : EVPT_LOG_WARN, "clusterserver",
              "connection from %s %s: %s", evpt_addr_format(peer, addr, sizeof(addr)),
              harmless ? "closed" : "refused", reason);
}

static const struct evpt_cluster_sink cluster_sink = {
    .on_connect = on_connect,
    .on_reply = on_reply,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_disconnect = on_disconnect,
    .on_accepted = on_accepted,
    .on_request = on_request,
    .on_closed = on_closed,
    .on_shed = on_shed,
    .on_refused = on_refused,
};

/* The admin socket has a server side only, and its connections are not worth a line each. */
static void on_admin_request(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct evpt_node *node = user;
    evpt_clusterserver_on_request(&node->admin, session, message);
}

static void on_admin_closed(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct evpt_node *node = user;
    if (error == -EVPT_EPROTOCOL)
        evpt_logf(&node->log, EVPT_LOG_WARN, "console", "connection to the admin socket closed: %s",
                  reason);
}

static void ignore_session(void *user, struct evpt_session *session)
{
}

static void ignore_shed(void *user, int error)
{
}

static void on_admin_refused(void *user, const struct evpt_addr *peer, int error,
                             const char *reason)
{
    struct evpt_node *node = user;
    evpt_logf(&node->log, EVPT_LOG_WARN, "console", "connection to the admin socket refused: %s",
              reason);
}

static const struct evpt_cluster_sink admin_sink = {
    .on_hello = ignore_session,
    .on_accepted = ignore_session,
    .on_shed = ignore_shed,
    .on_refused = on_admin_refused,
    .on_request = on_admin_request,
    .on_closed = on_admin_closed,
};

/* ---- pinned services: what comes through the two pairs ---- */

/* What is still in a pair at the end: a service that has been stopped may have spoken last of all,
 * and whom it spoke to has gone. */
static void free_messages(struct evpt_mpsc_node *list)
{
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        evpt_message_free(message);
    }
}

static bool has_ended(const struct evpt_node *node)
{
    return !node->scheduler.workers;
}

static void on_cluster_messages(void *user, struct evpt_mpsc_node *list)
{
    struct evpt_node *node = user;
    if (has_ended(node)) {
        free_messages(list);
        return;
    }
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        if (node->ended)
            evpt_message_free(message);
        else if (message->target == node->client.handle)
            evpt_clusterclient_request(&node->client, message);
        else if (message->target == node->server.handle)
            evpt_clusterserver_reply(&node->server, message);
        else if (message->target == node->sampler)
            evpt_sample_message(node, message);
        else
            evpt_control_message(node, message);
    }
    if (node->drain_waiter)
        evpt_control_check_drain(node);
}

static void on_main_messages(void *user, struct evpt_mpsc_node *list)
{
    struct evpt_node *node = user;
    if (has_ended(node)) {
        free_messages(list);
        return;
    }
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        if (node->ended) {
            evpt_message_free(message);
        } else if (message->target == node->admin.handle) {
            evpt_clusterserver_reply(&node->admin, message);
        } else {
            node->on_main(node, message, node->user);
            evpt_message_free(message);
        }
    }
}

/* ---- TLS ---- */

static bool is_listed(const char *name, size_t size, void *user)
{
    struct evpt_node *node = user;
    enum evpt_connect_status status;
    return evpt_clusterclient_lookup(&node->client, name, size, NULL, &status);
}

static int load_tls(struct evpt_tls *tls, const struct evpt_config *config, const char *name,
                    char text[EVPT_TLS_TEXT_SIZE])
{
    struct evpt_tls_files files = {.cert = config->tls.cert,
                                   .key = config->tls.key,
                                   .ca = config->tls.ca,
                                   .name = config->tls.verify_name ? name : NULL};
    return evpt_tls_load(tls, &files, text);
}

int evpt_node_load_tls(struct evpt_node *node, char text[EVPT_TLS_TEXT_SIZE])
{
    return node->tls ? load_tls(node->tls, node->config, node->name, text) : 0;
}

int evpt_node_check_tls(const struct evpt_config *config, const char *name,
                        char text[EVPT_TLS_TEXT_SIZE])
{
    struct evpt_tls *tls = NULL;
    if (!config->tls.on)
        return 0;
    int error = evpt_tls_new(&tls, config->tls.verify_name, NULL, NULL);
    if (!error || error == -ENOTSUP) /* which load has words for */
        error = load_tls(tls, config, name, text);
    else
        snprintf(text, EVPT_TLS_TEXT_SIZE, "%s", evpt_strerror(error));
    evpt_tls_free(tls);
    return error;
}

static int init_tls(struct evpt_node *node)
{
    char text[EVPT_TLS_TEXT_SIZE]; /* whoever starts a node has checked before, and said it */
    if (!node->config->tls.on)
        return 0;
    int error = evpt_tls_new(&node->tls, node->config->tls.verify_name, is_listed, node);
    return error ? error : evpt_node_load_tls(node, text);
}

/* ---- life cycle ---- */

static void fill_session_config(struct evpt_session_config *ret, const struct evpt_node *node)
{
    const struct evpt_config *config = node->config;
    memset(ret, 0, sizeof(*ret));
    snprintf(ret->node, sizeof(ret->node), "%s", node->name);
    evpt_sys_random(&ret->incarnation, sizeof(ret->incarnation));
    ret->incarnation >>= 1;
    ret->message_max = config->cluster.message_max;
    ret->heartbeat_ms = config->cluster.heartbeat_ms;
    ret->send_buffer_max = config->cluster.send_buffer_max;
    ret->tls = node->tls;
    ret->handshakes_max = config->tls.handshakes_max;
    ret->handshakes_per_address_max = config->tls.handshakes_per_address_max;
}

static int init_cluster(struct evpt_node *node)
{
    struct evpt_session_config session_config;
    fill_session_config(&session_config, node);
    evpt_cluster_mgr_init(&node->mgr, node->cluster.loop, &session_config, &cluster_sink, node);
    session_config.message_max = EVPT_ADMIN_MESSAGE_MAX;
    session_config.send_buffer_max = 2 * EVPT_ADMIN_MESSAGE_MAX;
    session_config.tls = NULL; /* a file's rights are enough for who is on this machine */
    evpt_cluster_mgr_init(&node->admin_mgr, node->main.loop, &session_config, &admin_sink, node);
    int error = evpt_clusterclient_init(&node->client, &node->scheduler, &node->mgr,
                                        node->cluster.loop, &node->log, node->config);
    if (!error)
        error = evpt_clusterserver_init(&node->server, &node->scheduler, &node->mgr,
                                        node->cluster.loop, &node->log, &node->client);
    if (!error)
        error = evpt_clusterserver_init(&node->admin, &node->scheduler, &node->admin_mgr,
                                        node->main.loop, &node->log, NULL);
    if (error)
        return error;
    node->client.handle = evpt_scheduler_pin(&node->scheduler, &node->cluster.pair, node);
    node->server.handle = evpt_scheduler_pin(&node->scheduler, &node->cluster.pair, node);
    node->control = evpt_scheduler_pin(&node->scheduler, &node->cluster.pair, node);
    node->sampler = evpt_scheduler_pin(&node->scheduler, &node->cluster.pair, node);
    node->main_handle = evpt_scheduler_pin(&node->scheduler, &node->main.pair, node);
    node->admin.handle = evpt_scheduler_pin(&node->scheduler, &node->main.pair, node);
    return node->admin.handle ? 0 : -EVPT_ELIMIT;
}

int evpt_node_init(struct evpt_node *node, const char *name, const struct evpt_addr *addr,
                   const struct evpt_config *config, evpt_node_main_fn on_main, void *user)
{
    memset(node, 0, sizeof(*node));
    snprintf(node->name, sizeof(node->name), "%s", name);
    node->addr = *addr;
    node->config = config;
    node->on_main = on_main;
    node->user = user;
    node->started_ns = evpt_sys_now_ns();
    int error =
        evpt_log_init(&node->log, name, config->log.file, config->log.json, config->log.level);
    if (!error)
        error = evpt_ev_thread_init(&node->cluster, on_cluster_messages, node);
    if (!error)
        error = evpt_ev_thread_init(&node->main, on_main_messages, node);
    if (!error)
        error = evpt_scheduler_init(&node->scheduler, config->workers, config->mailbox_max,
                                    node->cluster.loop);
    if (!error && config->metrics.size) {
        evpt_loop_measure(node->cluster.loop, &node->cluster_away);
        evpt_loop_measure(node->main.loop, &node->main_away);
    }
    if (!error)
        error = init_tls(node);
    return error ? error : init_cluster(node);
}

int evpt_node_start(struct evpt_node *node)
{
    int error = evpt_log_start(&node->log);
    if (!error)
        error = evpt_scheduler_start(&node->scheduler);
    if (!error)
        evpt_give_back_start(&node->give_back, node->main.loop);
    return error;
}

int evpt_node_open_admin(struct evpt_node *node, uint32_t console)
{
    struct evpt_addr addr;
    node->admin.only = console;
    node->admin_mgr.server.own_user_only = true; /* whatever has become of the file's mode */
    int error = evpt_addr_local(&addr, node->config->admin);
    if (!error)
        error = evpt_sys_make_parent(node->config->admin);
    return error ? error : evpt_cluster_mgr_listen(&node->admin_mgr, &addr);
}

void evpt_node_hide(struct evpt_node *node, uint32_t handle)
{
    assert(node->server.builtin_count < sizeof(node->server.builtin) / sizeof(uint32_t));
    node->server.builtin[node->server.builtin_count++] = handle;
}

void evpt_node_stop(struct evpt_node *node)
{
    evpt_scheduler_stop(&node->scheduler);
}

bool evpt_node_join_until(struct evpt_node *node, uint64_t deadline_ns)
{
    return evpt_scheduler_join_until(&node->scheduler, deadline_ns);
}

void evpt_node_fini(struct evpt_node *node)
{
    if (!node || !node->name[0])
        return;
    node->ended = true;
    evpt_give_back_stop(&node->give_back);
    evpt_cluster_mgr_fini(&node->admin_mgr);
    evpt_cluster_mgr_fini(&node->mgr);
    evpt_message_free(node->drain_waiter);
    node->drain_waiter = NULL;
    evpt_scheduler_fini(
        &node->scheduler); /* services still answer: the pairs take it, and free it at the end */
    evpt_clusterclient_fini(&node->client);
    evpt_clusterserver_fini(&node->server);
    evpt_clusterserver_fini(&node->admin);
    evpt_tls_free(node->tls);
    evpt_ev_thread_fini(&node->cluster);
    evpt_ev_thread_fini(&node->main);
    evpt_log_fini(&node->log);
    memset(node, 0, sizeof(*node));
}
