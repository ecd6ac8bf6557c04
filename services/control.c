#include "services/control.h"

#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "services/request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- building an answer: grows the message as needed; `error` sticks ---- */

struct answer {
    struct evpt_message *message;
    int error;
};

static struct evpt_writer room(struct answer *answer, size_t bytes)
{
    struct evpt_writer writer = {0};
    struct evpt_message *grown = answer->error ? NULL : evpt_message_grow(answer->message, bytes);
    if (!grown) {
        answer->error = -ENOMEM;
        return writer;
    }
    answer->message = grown;
    evpt_writer_init(&writer, grown->data + grown->size, grown->capacity - grown->size);
    return writer;
}

static void filled(struct answer *answer, const struct evpt_writer *writer)
{
    if (!answer->error)
        answer->message->size = (uint32_t)(writer->at - answer->message->data);
}

static void put_str(struct answer *answer, const char *text)
{
    struct evpt_writer writer = room(answer, strlen(text) + EVPT_ITEM_MAX);
    if (!answer->error)
        evpt_write_str(&writer, text, strlen(text));
    filled(answer, &writer);
}

static void put_int(struct answer *answer, int64_t value)
{
    struct evpt_writer writer = room(answer, EVPT_ITEM_MAX);
    if (!answer->error)
        evpt_write_int(&writer, value);
    filled(answer, &writer);
}

static void put_array(struct answer *answer, uint32_t count)
{
    struct evpt_writer writer = room(answer, EVPT_ITEM_MAX);
    if (!answer->error)
        evpt_write_array(&writer, count);
    filled(answer, &writer);
}

static void put_map(struct answer *answer, uint32_t count)
{
    struct evpt_writer writer = room(answer, EVPT_ITEM_MAX);
    if (!answer->error)
        evpt_write_map(&writer, count);
    filled(answer, &writer);
}

static void put_field(struct answer *answer, const char *name, int64_t value)
{
    put_str(answer, name);
    put_int(answer, value);
}

/* An answer begins as an empty array of `count` results. */
static struct answer begin(uint32_t count)
{
    struct answer answer = {.message = evpt_reply_new(256)};
    if (!answer.message)
        answer.error = -ENOMEM;
    put_array(&answer, count);
    return answer;
}

/* Takes the request over. */
static void fail(struct evpt_node *node, struct evpt_message *request, const char *text)
{
    evpt_bounce(&node->scheduler, evpt_scheduler_loop_worker(&node->scheduler), request,
                EVPT_CODE_FAILED, text);
}

/* Takes both over. */
static void finish(struct evpt_node *node, struct evpt_message *request, struct answer *answer)
{
    if (answer->error) {
        evpt_message_free(answer->message);
        fail(node, request, "out of memory");
        return;
    }
    evpt_reply_finish(answer->message);
    evpt_post_reply(&node->scheduler, evpt_scheduler_loop_worker(&node->scheduler), request->source,
                    request->session, answer->message);
    evpt_message_free(request);
}

/* ---- methods: each takes the request over, and answers it ---- */

typedef void (*method_fn)(struct evpt_node *node, struct evpt_message *request,
                          struct evpt_reader *args);

static void do_listen(struct evpt_node *node, struct evpt_message *request,
                      struct evpt_reader *args)
{
    char addr[EVPT_ADDR_TEXT_SIZE], text[256];
    evpt_addr_format(&node->addr, addr, sizeof(addr));
    int error = evpt_cluster_mgr_listen(&node->mgr, &node->addr);
    if (error) {
        snprintf(text, sizeof(text), "cannot listen on %s: %s", addr, evpt_strerror(error));
        fail(node, request, text);
        return;
    }
    struct answer answer = begin(1);
    put_str(&answer, addr);
    finish(node, request, &answer);
}

static int read_list(struct evpt_reader *args, struct evpt_node_list *list)
{
    uint32_t count;
    int error = evpt_read_map(args, &count);
    for (uint32_t i = 0; !error && i < count; i++) {
        const char *name;
        char name_text[EVPT_NODE_NAME_MAX + 1], addr_text[EVPT_ADDR_TEXT_SIZE];
        uint32_t size;
        struct evpt_item value;
        struct evpt_addr addr;
        error = evpt_read_str(args, &name, &size);
        if (!error)
            error = evpt_read_item(args, &value);
        if (error)
            break;
        snprintf(name_text, sizeof(name_text), "%.*s", (int)size, name);
        if (size > EVPT_NODE_NAME_MAX || !evpt_node_name_is_valid(name_text))
            error = -EVPT_EFORMAT;
        else if (value.kind == EVPT_ITEM_BOOL && !value.u.boolean) {
            error = evpt_node_list_add(list, name_text, NULL);
        } else if (value.kind == EVPT_ITEM_STR) {
            snprintf(addr_text, sizeof(addr_text), "%.*s", (int)value.size,
                     (const char *)value.u.bytes);
            error = evpt_addr_parse(&addr, addr_text);
            if (!error)
                error = evpt_node_list_add(list, name_text, &addr);
        } else {
            error = -EVPT_EFORMAT;
        }
    }
    return error;
}

static void put_names(struct answer *answer, const char *key, const char **names, size_t count)
{
    put_str(answer, key);
    put_array(answer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        put_str(answer, names[i]);
}

static void do_apply(struct evpt_node *node, struct evpt_message *request, struct evpt_reader *args)
{
    struct evpt_node_list list = {0};
    struct evpt_node_diff diff = {0};
    int error = read_list(args, &list);
    if (!error)
        error = evpt_clusterclient_apply(&node->client, &list, &diff);
    evpt_node_list_fini(&list);
    if (error) {
        fail(node, request, evpt_strerror(error));
        return;
    }
    evpt_clusterserver_close_unlisted(&node->server);
    struct answer answer = begin(1);
    put_map(&answer, 3);
    put_names(&answer, "added", diff.added, diff.added_count);
    put_names(&answer, "removed", diff.removed, diff.removed_count);
    put_names(&answer, "changed", diff.changed, diff.changed_count);
    evpt_node_diff_fini(&diff);
    finish(node, request, &answer);
}

static void do_load_tls(struct evpt_node *node, struct evpt_message *request,
                        struct evpt_reader *args)
{
    char text[EVPT_TLS_TEXT_SIZE];
    if (evpt_node_load_tls(node, text) != 0) {
        fail(node, request, text);
        return;
    }
    struct answer answer = begin(0);
    finish(node, request, &answer);
}

static void do_observe(struct evpt_node *node, struct evpt_message *request,
                       struct evpt_reader *args)
{
    int64_t handle;
    if (evpt_read_int(args, &handle) != 0) {
        fail(node, request, "observe: expected a handle");
        return;
    }
    node->client.observer = (uint32_t)handle;
    struct answer answer = begin(0);
    finish(node, request, &answer);
}

static void put_peer(struct answer *answer, const struct evpt_peer *peer)
{
    const struct evpt_session *session = peer->session;
    char addr[EVPT_ADDR_TEXT_SIZE];
    put_str(answer, peer->name);
    put_map(answer, 9);
    put_str(answer, "address");
    put_str(answer, evpt_addr_format(&peer->addr, addr, sizeof(addr)));
    put_str(answer, "status");
    put_str(answer, evpt_connect_status_name(peer->status));
    put_field(answer, "session2context", peer->sent_count);
    put_field(answer, "requestCache", peer->cached_count);
    put_field(answer, "queued", session ? (int64_t)evpt_session_queued(session) : 0);
    put_field(answer, "round_trip_us",
              session ? (int64_t)(evpt_session_round_trip_ns(session) / 1000) : 0);
    put_field(answer, "connects", (int64_t)peer->connects);
    put_field(answer, "disconnects", (int64_t)peer->disconnects);
    put_field(answer, "failures", peer->failures);
}

static void do_nodes(struct evpt_node *node, struct evpt_message *request, struct evpt_reader *args)
{
    uint32_t listed = 0;
    for (uint32_t i = 0; i < node->client.peer_count; i++)
        listed += node->client.peers[i]->listed;
    struct answer answer = begin(1);
    put_map(&answer, listed);
    for (uint32_t i = 0; i < node->client.peer_count; i++) {
        if (node->client.peers[i]->listed)
            put_peer(&answer, node->client.peers[i]);
    }
    finish(node, request, &answer);
}

static int64_t load(_Atomic uint64_t *counter)
{
    return (int64_t)atomic_load_explicit(counter, memory_order_relaxed);
}

static void do_stat(struct evpt_node *node, struct evpt_message *request, struct evpt_reader *args)
{
    const struct {
        const char *name;
        int64_t value;
    } stats[] = {
        {"calls", load(&node->client.calls)},
        {"sends", load(&node->client.sends)},
        {"lost_sends", load(&node->client.lost_sends)},
        {"timeouts", load(&node->client.timeouts)},
        {"pending", evpt_clusterclient_pending(&node->client)},
        {"requests", load(&node->server.requests)},
        {"refused_requests", load(&node->server.refused)},
        {"denied_requests", load(&node->server.denied)},
        {"dropped_replies", load(&node->server.dropped_replies)},
        {"serving", evpt_clusterserver_pending(&node->server)},
        {"connections_in", evpt_tcp_object_count(&node->mgr.server.object)},
        {"connections_out", evpt_tcp_object_count(&node->mgr.client.object)},
        {"handshakes", node->mgr.server.gate.count},
        {"handshakes_refused", load(&node->mgr.server.gate.refused)},
        {"handshakes_turned_away", load(&node->mgr.server.gate.turned_away)},
        {"bounced_sends", load(&node->scheduler.bounced)},
        {"loop_takeovers", load(&node->scheduler.takeovers)},
        {"loop_turns", (int64_t)evpt_loop_turns(node->cluster.loop)},
        {"log_lines", load(&node->log.lines)},
        {"log_lines_dropped", load(&node->log.dropped)},
        {"uptime_ms", (int64_t)((evpt_sys_now_ns() - node->started_ns) / EVPT_NS_PER_MS)},
    };
    uint32_t count = sizeof(stats) / sizeof(stats[0]);
    struct answer answer = begin(1);
    put_map(&answer, count);
    for (uint32_t i = 0; i < count; i++)
        put_field(&answer, stats[i].name, stats[i].value);
    finish(node, request, &answer);
}

void evpt_control_check_drain(struct evpt_node *node)
{
    if (!node->drain_waiter || evpt_clusterserver_pending(&node->server))
        return;
    struct evpt_message *waiter = node->drain_waiter;
    node->drain_waiter = NULL;
    struct answer answer = begin(0);
    finish(node, waiter, &answer);
}

static void do_drain(struct evpt_node *node, struct evpt_message *request, struct evpt_reader *args)
{
    evpt_clusterserver_drain(&node->server);
    if (node->drain_waiter) /* asked again: the earlier one is given up */
        fail(node, node->drain_waiter, "superseded");
    node->drain_waiter = request;
    evpt_control_check_drain(node);
}

static void do_refuse(struct evpt_node *node, struct evpt_message *request,
                      struct evpt_reader *args)
{
    evpt_clusterclient_drain(&node->client);
    struct answer answer = begin(0);
    finish(node, request, &answer);
}

static const struct {
    const char *name;
    method_fn fn;
} methods[] = {
    {"listen", do_listen}, {"apply", do_apply}, {"load_tls", do_load_tls}, {"observe", do_observe},
    {"nodes", do_nodes},   {"stat", do_stat},   {"drain", do_drain},       {"refuse", do_refuse},
};

void evpt_control_message(struct evpt_node *node, struct evpt_message *message)
{
    const char *name = (const char *)message->data + message->method_at;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (message->kind != EVPT_MESSAGE_CALL || strlen(methods[i].name) != message->method_size ||
            memcmp(methods[i].name, name, message->method_size) != 0)
            continue;
        struct evpt_reader args;
        uint32_t count;
        evpt_reader_init(&args, message->data + message->args_at, message->args_size);
        if (evpt_read_array(&args, &count) == 0)
            methods[i].fn(node, message, &args);
        else
            fail(node, message, "arguments expected");
        return;
    }
    evpt_bounce(&node->scheduler, evpt_scheduler_loop_worker(&node->scheduler), message,
                EVPT_CODE_UNKNOWN_METHOD, "control has no such method");
}
