/* A node as tools/evpt.c has it, without threads of its own: its scheduler has no worker but the
 * cluster thread's, which is stepped. */
#include "torture.h"

#include "lua/vm.h"
#include "services/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node nodes[NODES];

static struct {
    struct evpt_addr addr[NODES];
    char path[4096], admin[NODES][128];
} place;

/* ---- where they are ---- */

/* The kernel's choice; nobody else is likely to get it between this and the node's listen. */
static void choose_port(struct evpt_addr *ret_addr)
{
    struct evpt_addr any;
    CHECK(evpt_addr_parse(&any, "127.0.0.1:0") == 0);
    int fd = evpt_sys_listen(&any, 1);
    CHECK(fd >= 0 && evpt_sys_local_addr(fd, ret_addr) == 0);
    evpt_sys_close(fd);
}

void nodes_setup(const char *folder_of_scripts)
{
    char folder[] = "/tmp/evpt-torture-XXXXXX";
    CHECK(mkdtemp(folder));
    CHECK(rmdir(folder) == 0); /* the nodes make it */
    snprintf(place.path, sizeof(place.path), "%s/?.lua", folder_of_scripts);
    for (unsigned i = 0; i < NODES; i++) {
        choose_port(&place.addr[i]);
        snprintf(place.admin[i], sizeof(place.admin[i]), "%s/n%u.sock", folder, i);
    }
}

const struct evpt_addr *node_addr(unsigned node)
{
    return &place.addr[node];
}

/* ---- messages ---- */

static void tell(struct node *node, uint32_t target, enum evpt_message_kind kind, uint32_t session,
                 const char *method, const char *argument, int64_t number)
{
    bool armed = machine_pause();
    struct evpt_message *message =
        evpt_request_new(kind, "", 0, method, strlen(method), strlen(argument) + 64);
    struct evpt_writer writer;
    CHECK(message);
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    CHECK(evpt_write_array(&writer, 2) && evpt_write_str(&writer, argument, strlen(argument)) &&
          evpt_write_int(&writer, number));
    message->size = (uint32_t)(writer.at - message->data);
    CHECK(evpt_request_finish(&message, node->node.main_handle, EVPT_FOREVER) == 0);
    message->target = target;
    message->session = session;
    machine_resume(armed);
    if (evpt_post(&node->node.scheduler, NULL, message) != 0)
        evpt_bounce(&node->node.scheduler, NULL, message, EVPT_CODE_UNKNOWN_SERVICE, "gone");
}

static bool is_method(const struct evpt_message *message, const char *name)
{
    return message->method_size == strlen(name) &&
           memcmp(message->data + message->method_at, name, message->method_size) == 0;
}

/* tools/evpt.c: on_open. */
static void on_open(struct node *node, const struct evpt_message *request)
{
    static const char text[] = "admin: cannot listen";
    int error = evpt_node_open_admin(&node->node, node->console);
    struct evpt_message *reply =
        error ? evpt_reply_error(EVPT_CODE_FAILED, text, sizeof(text) - 1) : evpt_reply_new(1);
    if (!reply) {
        node->state = NOT_STARTED;
        return;
    }
    if (!error) {
        reply->data[reply->size++] = 0x90;
        evpt_reply_finish(reply);
    }
    evpt_post_reply(&node->node.scheduler, NULL, request->source, request->session, reply);
}

static void note_outcome(struct node *node, const struct evpt_message *reply)
{
    CHECK(reply->session && reply->session <= node->calls);
    struct outcome *outcome = &node->outcomes[reply->session];
    struct evpt_reader reader;
    struct evpt_item item;
    uint32_t count;
    CHECK(outcome->answers++ == 0);
    outcome->code = reply->code;
    evpt_reader_init(&reader, reply->data + reply->args_at, reply->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0);
    if (count && evpt_read_item(&reader, &item) == 0 && item.kind == EVPT_ITEM_STR)
        snprintf(outcome->text, sizeof(outcome->text), "%.*s", (int)item.size,
                 (const char *)item.u.bytes);
}

static void on_main(struct evpt_node *it, struct evpt_message *message, void *user)
{
    struct node *node = user;
    (void)it;
    if (message->kind == EVPT_MESSAGE_REPLY && message->session <= CALLS_MAX)
        note_outcome(node, message);
    else if (message->kind == EVPT_MESSAGE_REPLY && message->code && node->state == STARTING)
        node->state = NOT_STARTED;
    else if (message->kind != EVPT_MESSAGE_REPLY && is_method(message, "open"))
        on_open(node, message);
    else if (message->kind != EVPT_MESSAGE_REPLY && is_method(message, "started"))
        node->state = RUNNING;
    else if (message->kind != EVPT_MESSAGE_REPLY && is_method(message, "stopped"))
        node->state = STOPPED;
}

/* ---- life ---- */

static void configure(struct node *node, bool services)
{
    static char list[] = "nodes.lua", none[] = "";
    static char script[] = "room";
    static struct evpt_config_service room = {.script = script, .name = script};
    unsigned i = (unsigned)(node - nodes);
    node->config = (struct evpt_config){
        .clustername = list,
        .path = place.path,
        .cpath = none,
        .admin = place.admin[i],
        .services = &room,
        .service_count = services ? 1 : 0,
        .log = {.level = (enum evpt_log_level)(EVPT_LOG_ERROR + 1)}, /* nothing */
        .cluster = {.call_timeout_ms = 2000,
                    .connect_timeout_ms = 1000,
                    .heartbeat_ms = 1000,
                    .message_max = 1 << 20,
                    .pending_max = 1000,
                    .cache_max = 1000,
                    .send_buffer_max = 64 << 20},
        .mailbox_max = 1000,
        .stop_timeout_ms = 5000,
    };
}

/* tools/evpt.c: spawn_builtin. */
static uint32_t spawn(struct node *node, const char *name)
{
    struct evpt_node *it = &node->node;
    uint32_t handle = evpt_vm_spawn(it, NULL, name, name, true);
    if (!handle || evpt_registry_name(&it->scheduler.registry, name, strlen(name), handle) != 0)
        return 0;
    evpt_node_hide(it, handle);
    return handle;
}

void node_start(struct node *node, bool services)
{
    char name[8];
    unsigned i = (unsigned)(node - nodes);
    memset(node, 0, sizeof(*node));
    snprintf(name, sizeof(name), "n%u", i);
    configure(node, services);
    node->made = true;
    node->state = NOT_STARTED;
    if (evpt_node_init(&node->node, name, &place.addr[i], &node->config, on_main, node) != 0)
        return;
    node->launcher = spawn(node, "launcher");
    node->console = spawn(node, "console");
    if (!node->launcher || !node->console || !spawn(node, "clusterclient") ||
        !spawn(node, "clusterserver"))
        return;
    node->state = STARTING;
    tell(node, node->launcher, EVPT_MESSAGE_CALL, CALLS_MAX + 1, ".start", "launcher", 0);
    UNTIL(node->state != STARTING);
}

void node_kill(struct node *node)
{
    evpt_node_fini(&node->node);
    (void)evpt_sys_file_remove(node->config.admin);
    node->made = false;
}

void node_stop(struct node *node, bool may_time_out)
{
    if (!node->made)
        return;
    if (node->state == RUNNING) {
        uint64_t limit_ns = evpt_sys_now_ns() + node->config.stop_timeout_ms * EVPT_NS_PER_MS;
        tell(node, node->launcher, EVPT_MESSAGE_SEND, 0, "stop", "", 0);
        UNTIL(node->state == STOPPED || (may_time_out && evpt_sys_now_ns() >= limit_ns));
    }
    node_kill(node);
}

void nodes_turn(void)
{
    bool worked = false;
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &nodes[i];
        if (!node->made || !node->node.scheduler.workers)
            continue;
        worked = evpt_scheduler_step(&node->node.scheduler.workers[0]) || worked;
        int ran = evpt_loop_turn(node->node.main.loop, 0);
        CHECK(ran >= 0);
        worked = ran > 0 || worked;
    }
    if (!worked)
        machine_pass_ms(1);
}

struct outcome *node_call(struct node *node, const char *service, const char *method,
                          const char *argument, int64_t number)
{
    uint32_t handle = evpt_registry_query(&node->node.scheduler.registry, service, strlen(service));
    CHECK(node->calls < CALLS_MAX);
    uint32_t session = ++node->calls;
    tell(node, handle, EVPT_MESSAGE_CALL, session, method, argument, number);
    return &node->outcomes[session];
}
