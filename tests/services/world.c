#include "world.h"

#include "cluster/msgpack.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the client's side ---- */

static void checked(struct world *world)
{
    evpt_clusterclient_check(&world->client);
}

static void on_connect(void *user, void *tag, struct evpt_session *session, int error)
{
    struct world *world = user;
    evpt_clusterclient_on_connect(&world->client, tag, session, error);
    checked(world);
}

static void on_reply(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct world *world = user;
    evpt_clusterclient_on_reply(&world->client, session, message);
    checked(world);
}

static void on_hello(void *user, struct evpt_session *session)
{
    struct world *world = user;
    evpt_clusterclient_on_hello(&world->client, session);
}

static void on_goaway(void *user, struct evpt_session *session, int code, const char *text)
{
    struct world *world = user;
    evpt_clusterclient_on_goaway(&world->client, session, code, text);
}

static void on_queued(void *user, struct evpt_session *session, uint32_t frame_session,
                      uint64_t position)
{
    struct world *world = user;
    evpt_clusterclient_on_queued(&world->client, frame_session, position);
}

static void on_disconnect(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct world *world = user;
    evpt_clusterclient_on_disconnect(&world->client, session, error, reason);
    checked(world);
}

static const struct evpt_cluster_sink client_sink = {
    .on_connect = on_connect,
    .on_reply = on_reply,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_disconnect = on_disconnect,
};

static void on_requests(void *user, struct evpt_mpsc_node *list)
{
    struct world *world = user;
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        evpt_clusterclient_request(&world->client, message);
        checked(world);
    }
}

/* ---- the nodes ---- */

static void on_accepted(void *user, struct evpt_session *session)
{
    struct node *node = user;
    node->session = session;
    node->accepted++;
}

static void on_request(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct node *node = user;
    struct evpt_request_info info;
    if (node->arrival_count == node->arrival_room) {
        node->arrival_room = node->arrival_room ? node->arrival_room * 2 : 64;
        node->arrivals = realloc(node->arrivals, node->arrival_room * sizeof(*node->arrivals));
    }
    CHECK(evpt_request_parse(message, 0, &info) == 0);
    struct evpt_reader reader;
    uint32_t count;
    int64_t argument;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0 && evpt_read_int(&reader, &argument) == 0);
    node->arrivals[node->arrival_count++] = (struct arrival){
        .session = session,
        .number = message->session,
        .is_call = message->kind == EVPT_MESSAGE_CALL,
        .argument = argument,
        .left_ms =
            message->deadline_ns == EVPT_FOREVER ? 0 : message->deadline_ns / EVPT_NS_PER_MS};
    evpt_message_free(message);
}

static void on_node_hello(void *user, struct evpt_session *session)
{
    struct node *node = user;
    node->hellos++;
}

static void on_closed(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct node *node = user;
    for (size_t i = 0; i < node->arrival_count; i++) {
        if (node->arrivals[i].session == session)
            node->arrivals[i].session = NULL;
    }
    if (node->session == session)
        node->session = NULL;
    node->closed++;
    node->close_error = error;
}

static void on_shed(void *user, int error)
{
}

static const struct evpt_cluster_sink node_sink = {
    .on_shed = on_shed,
    .on_accepted = on_accepted,
    .on_request = on_request,
    .on_hello = on_node_hello,
    .on_closed = on_closed,
};

static void node_init(struct node *node, struct world *world, int number)
{
    struct evpt_session_config config = {
        .incarnation = 7, .message_max = 1 << 20, .heartbeat_ms = 0, .send_buffer_max = 64 << 20};
    snprintf(config.node, sizeof(config.node), "n%d", number);
    node->world = world;
    evpt_cluster_mgr_init(&node->mgr, world->rig.loop, &config, &node_sink, node);
    ck_assert_int_eq(evpt_addr_parse(&node->addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_cluster_mgr_listen(&node->mgr, &node->addr), 0);
    ck_assert_int_eq(evpt_tcp_server_addr(&node->mgr.server, &node->addr), 0);
}

void await_arrivals(struct node *node, size_t count)
{
    TURN_UNTIL(node->world, node->arrival_count >= count);
}

void answer(struct node *node, size_t arrival, int code)
{
    CHECK(arrival < node->arrival_count);
    const struct arrival *asked = &node->arrivals[arrival];
    if (!asked->session || !asked->is_call)
        return;
    struct evpt_message *reply =
        code ? evpt_reply_error(code, "scripted", 8) : evpt_reply_new(2 * EVPT_ITEM_MAX);
    CHECK(reply);
    if (!code) {
        struct evpt_writer writer;
        evpt_writer_init(&writer, reply->data + reply->size, reply->capacity - reply->size);
        CHECK(evpt_write_array(&writer, 1) && evpt_write_int(&writer, asked->argument));
        reply->size = (uint32_t)(writer.at - reply->data);
    }
    reply->session = asked->number;
    CHECK(evpt_session_send(asked->session, reply, NULL) == 0);
}

void reply_raw(struct node *node, uint32_t number, const void *bytes, size_t size)
{
    static const uint8_t good[] = {0x93, 3, 0, 0x91, 1};
    if (!bytes) {
        bytes = good;
        size = sizeof(good);
    }
    struct evpt_message *reply = evpt_message_new(size);
    memcpy(reply->data, bytes, size);
    reply->size = (uint32_t)size;
    reply->session = number;
    CHECK(evpt_session_send(node->session, reply, NULL) == 0);
}

/* ---- the callers ---- */

static void on_answer(struct actor *actor, struct evpt_message *message)
{
    struct world *world = actor->user;
    CHECK(message->kind == EVPT_MESSAGE_REPLY);
    CHECK(message->session > 0 && message->session <= world->calls);
    struct outcome *outcome = &world->outcomes[message->session];
    CHECK(outcome->answers++ == 0);
    outcome->code = message->code;
    outcome->executed = evpt_reply_executed(message);
    if (message->code == 0)
        outcome->result = support_argument(message);
    else
        snprintf(outcome->text, sizeof(outcome->text), "%.110s", support_error_text(message));
    evpt_message_free(message);
}

/* _recv_data_("status", node, status, detail) */
static void on_status(struct actor *actor, struct evpt_message *message)
{
    struct world *world = actor->user;
    struct evpt_reader reader;
    uint32_t count, size[4];
    const char *words[4];
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0 && count == 4);
    for (int i = 0; i < 4; i++)
        CHECK(evpt_read_str(&reader, &words[i], &size[i]) == 0);
    struct status_event *event = &world->events[world->event_count++ % 64];
    snprintf(event->node, sizeof(event->node), "%.*s", (int)size[1], words[1]);
    snprintf(event->status, sizeof(event->status), "%.*s", (int)size[2], words[2]);
    evpt_message_free(message);
}

struct evpt_message *make_request(struct world *world, enum evpt_message_kind kind,
                                  const char *node, uint32_t session, int64_t argument,
                                  size_t padding, uint64_t timeout_ms)
{
    struct evpt_message *message =
        evpt_request_new(kind, "room", 4, "join", 4, padding + 4 * EVPT_ITEM_MAX);
    CHECK(message);
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    CHECK(evpt_write_array(&writer, 2) && evpt_write_int(&writer, argument));
    char *bytes = calloc(1, padding + 1);
    CHECK(evpt_write_str(&writer, bytes, padding));
    free(bytes);
    message->size = (uint32_t)(writer.at - message->data);
    uint64_t deadline_ns =
        timeout_ms ? evpt_sys_now_ns() + timeout_ms * EVPT_NS_PER_MS : EVPT_FOREVER;
    CHECK(evpt_request_finish(&message, world->caller.handle, deadline_ns) == 0);
    CHECK(evpt_clusterclient_address(&message, node, strlen(node)) == 0);
    message->session = session;
    message->target = world->client.handle;
    return message;
}

uint32_t call(struct world *world, const char *node, int64_t argument, size_t padding,
              uint64_t timeout_ms)
{
    uint32_t session = ++world->calls;
    CHECK(session < CALLS_MAX);
    struct evpt_message *message =
        make_request(world, EVPT_MESSAGE_CALL, node, session, argument, padding, timeout_ms);
    CHECK(evpt_post(&world->rig.scheduler, NULL, message) == 0);
    return session;
}

uint32_t call_now(struct world *world, const char *node, int64_t argument, uint64_t timeout_ms)
{
    uint32_t session = ++world->calls;
    CHECK(session < CALLS_MAX);
    evpt_clusterclient_request(&world->client, make_request(world, EVPT_MESSAGE_CALL, node, session,
                                                            argument, 0, timeout_ms));
    evpt_clusterclient_check(&world->client);
    return session;
}

void send_to(struct world *world, const char *node, int64_t argument)
{
    struct evpt_message *message = make_request(world, EVPT_MESSAGE_SEND, node, 0, argument, 0, 0);
    CHECK(evpt_post(&world->rig.scheduler, NULL, message) == 0);
}

const struct outcome *outcome_of(struct world *world, uint32_t session)
{
    TURN_UNTIL(world, world->outcomes[session].answers);
    return &world->outcomes[session];
}

void check_outcome(struct world *world, uint32_t session, int code, enum evpt_executed executed)
{
    const struct outcome *outcome = outcome_of(world, session);
    ck_assert_msg(outcome->code == code && outcome->executed == executed,
                  "call %u: %s (%s): %s, where %s (%s) was expected", session,
                  evpt_code_name(outcome->code), evpt_executed_name(outcome->executed),
                  outcome->text, evpt_code_name(code), evpt_executed_name(executed));
}

/* ---- the world ---- */

void world_turn(struct world *world)
{
    evpt_scheduler_step(&world->rig.scheduler.workers[0]);
    evpt_clusterclient_check(&world->client);
}

void world_pass_ms(struct world *world, uint64_t ms)
{
    support_skip_ms(ms);
    world_turn(world);
    world_turn(world);
}

struct evpt_peer *peer_of(struct world *world, const char *node)
{
    for (uint32_t i = 0; i < world->client.peer_count; i++) {
        if (strcmp(world->client.peers[i]->name, node) == 0)
            return world->client.peers[i];
    }
    return NULL;
}

enum evpt_connect_status status_of(struct world *world, const char *node)
{
    enum evpt_connect_status status = EVPT_STATUS_COUNT;
    (void)evpt_clusterclient_lookup(&world->client, node, strlen(node), NULL, &status);
    return status;
}

void connect_to(struct world *world, const char *node)
{
    struct node *at = &world->nodes[node[1] - '0'];
    size_t before = at->arrival_count;
    uint32_t session = call(world, node, 1, 0, 0);
    await_arrivals(at, before + 1);
    answer(at, before, 0);
    check_outcome(world, session, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    TURN_UNTIL(world, evpt_session_said_hello(peer_of(world, node)->session));
    ck_assert_int_eq(status_of(world, node), EVPT_STATUS_CONNECTED);
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static void add_names(char *text, size_t size, char sign, const char **names, size_t count)
{
    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%c%s", used ? " " : "", sign, names[i]);
    }
}

const char *apply(struct world *world, const char *const *entries, size_t count)
{
    static char text[256];
    struct evpt_node_list list = {0};
    struct evpt_node_diff diff;
    for (size_t i = 0; i < count; i++) {
        char name[32];
        const char *equals = strchr(entries[i], '=');
        struct evpt_addr addr;
        snprintf(name, sizeof(name), "%.*s", (int)(equals - entries[i]), entries[i]);
        if (equals[1])
            ck_assert_int_eq(evpt_addr_parse(&addr, equals + 1), 0);
        ck_assert_int_eq(evpt_node_list_add(&list, name, equals[1] ? &addr : NULL), 0);
    }
    int error = evpt_clusterclient_apply(&world->client, &list, &diff);
    evpt_node_list_fini(&list);
    evpt_clusterclient_check(&world->client);
    text[0] = 0;
    if (error) {
        snprintf(text, sizeof(text), "%s", evpt_error_name(error));
        return text;
    }
    add_names(text, sizeof(text), '+', diff.added, diff.added_count);
    add_names(text, sizeof(text), '-', diff.removed, diff.removed_count);
    add_names(text, sizeof(text), '~', diff.changed, diff.changed_count);
    evpt_node_diff_fini(&diff);
    return text;
}

static void apply_all_nodes(struct world *world)
{
    char texts[NODES_MAX][EVPT_ADDR_TEXT_SIZE + 8];
    const char *entries[NODES_MAX];
    for (int i = 0; i < NODES_MAX; i++) {
        char addr[EVPT_ADDR_TEXT_SIZE];
        snprintf(texts[i], sizeof(texts[i]), "n%d=%s", i,
                 evpt_addr_format(&world->nodes[i].addr, addr, sizeof(addr)));
        entries[i] = texts[i];
    }
    ck_assert_str_eq(apply(world, entries, NODES_MAX), "+n0 +n1 +n2 +n3");
}

struct world *world_new(void)
{
    struct world *world = calloc(1, sizeof(*world));
    struct evpt_session_config session_config = {
        .node = "here", .incarnation = 1, .message_max = 1 << 20, .send_buffer_max = 64 << 20};
    world->config.cluster.connect_timeout_ms = 3000;
    world->config.cluster.pending_max = 1000000;
    world->config.cluster.cache_max = 100000;
    rig_init(&world->rig, 0, 100000);
    /* a level above all others: nothing is logged */
    ck_assert_int_eq(evpt_log_init(&world->log, "here", "/dev/null", false,
                                   (enum evpt_log_level)(EVPT_LOG_ERROR + 1)),
                     0);
    ck_assert_int_eq(evpt_pair_init(&world->pair, world->rig.loop, on_requests, world), 0);
    evpt_cluster_mgr_init(&world->mgr, world->rig.loop, &session_config, &client_sink, world);
    ck_assert_int_eq(evpt_clusterclient_init(&world->client, &world->rig.scheduler, &world->mgr,
                                             world->rig.loop, &world->log, &world->config),
                     0);
    world->client.handle = evpt_scheduler_pin(&world->rig.scheduler, &world->pair, NULL);
    world->caller = (struct actor){.on_message = on_answer, .user = world};
    world->observer = (struct actor){.on_message = on_status, .user = world};
    actor_spawn(&world->caller, &world->rig.scheduler, NULL);
    actor_spawn(&world->observer, &world->rig.scheduler, NULL);
    for (int i = 0; i < NODES_MAX; i++)
        node_init(&world->nodes[i], world, i);
    apply_all_nodes(world);
    world->client.observer = world->observer.handle;
    return world;
}

void world_free(struct world *world)
{
    for (int i = 0; i < 3; i++)
        world_turn(world);
    for (uint32_t i = 1; i <= world->calls; i++)
        ck_assert_msg(world->outcomes[i].answers == 1, "call %u has no answer", i);
    ck_assert_uint_eq(evpt_clusterclient_pending(&world->client), 0);
    for (int i = 0; i < NODES_MAX; i++) {
        evpt_cluster_mgr_fini(&world->nodes[i].mgr);
        free(world->nodes[i].arrivals);
    }
    evpt_cluster_mgr_fini(&world->mgr);
    evpt_clusterclient_fini(&world->client);
    evpt_pair_fini(&world->pair);
    evpt_log_fini(&world->log);
    rig_fini(&world->rig);
    free(world);
}
