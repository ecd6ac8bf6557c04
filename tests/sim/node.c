/* A node of services/node.h, and services written in C that call each other. */
#include "world.h"

#include "cluster/msgpack.h"
#include "cluster/session_private.h"
#include "reactor/error.h"
#include "services/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum plant planted;

/* ---- messages: [call, payload] ---- */

static const char *const methods[] = {"echo", "later", "fail", "nosuch"};
enum method { ECHO, LATER, FAIL, NO_SUCH, METHODS };

static uint8_t payload_byte(uint32_t call, size_t i)
{
    return (uint8_t)(call * 31 + i * 7);
}

/* Appends the arguments or results. NULL: no memory, and the message is gone. */
static struct evpt_message *append(struct evpt_message *message, uint32_t call, size_t size)
{
    struct evpt_message *grown =
        message ? evpt_message_grow(message, size + 3 * EVPT_ITEM_MAX) : NULL;
    if (!grown) {
        evpt_message_free(message);
        return NULL;
    }
    struct evpt_writer writer;
    evpt_writer_init(&writer, grown->data + grown->size, grown->capacity - grown->size);
    uint8_t *payload = malloc(size + 1);
    assert(payload);
    for (size_t i = 0; i < size; i++)
        payload[i] = payload_byte(call, i);
    bool fits = evpt_write_array(&writer, 2) && evpt_write_int(&writer, call) &&
                evpt_write_str(&writer, payload, size);
    free(payload);
    assert(fits);
    grown->size = (uint32_t)(writer.at - grown->data);
    return grown;
}

/* The call that the bytes are about; they must be as append made them. */
static uint32_t read_call(const struct evpt_message *message, uint32_t *ret_size)
{
    struct evpt_reader reader;
    uint32_t count, size;
    int64_t call;
    const char *payload;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    if (evpt_read_array(&reader, &count) || count != 2 || evpt_read_int(&reader, &call) ||
        evpt_read_str(&reader, &payload, &size))
        sim_fail("a message arrives that nobody sent");
    for (uint32_t i = 0; i < size; i++) {
        if ((uint8_t)payload[i] != payload_byte((uint32_t)call, i))
            sim_fail("call %u arrives with other bytes than it left with", (unsigned)call);
    }
    *ret_size = size;
    return (uint32_t)call;
}

static size_t some_size(void)
{
    if (!sim_chance(world.swarm.large))
        return sim_below(sim_chance(100) ? 6000 : 100);
    sim_counts[SIM_large_messages]++;
    return sim_below(sim_chance(100) ? 300000 : 70000);
}

/* ---- answering ---- */

static struct evpt_scheduler *scheduler_of(struct service *service)
{
    return &service->node->node.scheduler;
}

/* Answers a request, which is gone afterwards. Without memory for the reply it becomes a failure in
 * the request's place, so every call is answered. */
static void reply_with(struct service *service, struct evpt_worker *worker,
                       struct evpt_message *request, struct evpt_message *reply, int code,
                       enum evpt_executed executed)
{
    uint32_t source = request->source, session = request->session;
    if (request->kind != EVPT_MESSAGE_CALL) {
        evpt_message_free(request);
        evpt_message_free(reply);
        return;
    }
    if (reply) {
        evpt_message_free(request);
    } else {
        reply = evpt_reply_instead(request, code, "", 0);
        evpt_reply_set_executed(reply, executed);
    }
    evpt_post_reply(scheduler_of(service), worker, source, session, reply);
}

static void reply_error(struct service *service, struct evpt_worker *worker,
                        struct evpt_message *request, int code)
{
    reply_with(service, worker, request, NULL, code, evpt_code_executed(code));
}

static void reply_result(struct service *service, struct evpt_worker *worker,
                         struct evpt_message *request, uint32_t call)
{
    if (planted == PLANT_MIXED_UP && call % 50 == 0)
        call--;
    struct evpt_message *reply = append(evpt_reply_new(0), call, some_size());
    if (reply)
        evpt_reply_finish(reply);
    reply_with(service, worker, request, reply, EVPT_CODE_FAILED, EVPT_EXECUTED_YES);
}

static void hold(struct service *service, struct evpt_message *request, uint32_t call)
{
    struct held *held = malloc(sizeof(*held));
    assert(held);
    *held = (struct held){
        .due_ns = sim_now() + sim_below(2000) * EVPT_NS_PER_MS, .request = request, .call = call};
    evpt_list_push_back(&service->held, &held->link);
}

static void answer_held(struct service *service, struct evpt_worker *worker, uint64_t now_ns)
{
    struct evpt_list *link = service->held.next;
    while (link != &service->held) {
        struct held *held = EVPT_CONTAINER_OF(link, struct held, link);
        link = link->next;
        if (held->due_ns > now_ns)
            continue;
        evpt_list_remove(&held->link);
        reply_result(service, worker, held->request, held->call);
        free(held);
    }
}

static void execute(struct service *service, struct evpt_service *self,
                    struct evpt_message *request, enum method method)
{
    uint32_t size, call = read_call(request, &size);
    calls_executed(call, service);
    if (planted == PLANT_TWICE && call % 100 == 0)
        calls_executed(call, service);
    if (planted == PLANT_SILENT && call % 100 == 0)
        evpt_message_free(request);
    else if (method == LATER && request->kind == EVPT_MESSAGE_CALL)
        hold(service, request, call);
    else if (method == FAIL)
        reply_error(service, self->worker, request, EVPT_CODE_FAILED);
    else if (planted == PLANT_LIE && call % 50 == 0)
        reply_error(service, self->worker, request, EVPT_CODE_OVERLOADED);
    else
        reply_result(service, self->worker, request, call);
}

static void handle_request(struct service *service, struct evpt_service *self,
                           struct evpt_message *request)
{
    enum method method = 0;
    while (method < NO_SUCH &&
           (strlen(methods[method]) != request->method_size ||
            memcmp(methods[method], request->data + request->method_at, request->method_size)))
        method++;
    if (request->deadline_ns <= evpt_sys_now_ns())
        reply_with(service, self->worker, request, NULL, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_NO);
    else if (method == NO_SUCH)
        reply_error(service, self->worker, request, EVPT_CODE_UNKNOWN_METHOD);
    else
        execute(service, self, request, method);
}

/* ---- calling ---- */

static unsigned pick_target(const struct node *node)
{
    unsigned target = (unsigned)sim_below(world.swarm.nodes - 1);
    return target + (target >= node->index);
}

static void issue(struct service *service, struct evpt_service *self)
{
    struct node *node = service->node;
    unsigned target = pick_target(node), target_service = (unsigned)sim_below(world.swarm.services);
    enum method method = sim_chance(world.swarm.slow_answers) ? LATER : ECHO;
    bool is_send = !world.healed && sim_chance(150), strange = false;
    char name[16], node_name[16];
    snprintf(name, sizeof(name), "s%u", target_service);
    snprintf(node_name, sizeof(node_name), "n%u", target);
    if (!world.healed && sim_chance(world.swarm.strange_calls)) {
        strange = true;
        switch (sim_below(4)) {
        case 0:
            snprintf(name, sizeof(name), "nobody");
            break;
        case 1:
            snprintf(node_name, sizeof(node_name), "nowhere");
            break;
        case 2:
            method = NO_SUCH;
            break;
        default:
            method = FAIL;
        }
    }
    uint64_t timeout_ms = sim_chance(200) ? sim_between(1, 50) : sim_between(50, 8000);
    uint64_t deadline_ns = evpt_sys_now_ns() + timeout_ms * EVPT_NS_PER_MS;
    uint32_t seq = ++service->next_seq[target * SERVICES_MAX + target_service];
    struct evpt_message *message =
        evpt_request_new(is_send ? EVPT_MESSAGE_SEND : EVPT_MESSAGE_CALL, name, strlen(name),
                         methods[method], strlen(methods[method]), 0);
    uint32_t call = calls_count() + 1;
    message = append(message, call, some_size());
    if (!message)
        return;
    if (evpt_request_finish(&message, service->handle, deadline_ns) != 0 ||
        evpt_clusterclient_address(&message, node_name, strlen(node_name)) != 0) {
        evpt_message_free(message);
        return;
    }
    if (planted == PLANT_ORDER && call % 100 == 0)
        seq = 0;
    if (calls_issue(service, is_send, target, target_service, deadline_ns, service->instance,
                    seq) != call)
        sim_fail("the calls are counted wrongly");
    sim_trace("%s.s%u: %s %u to %s.%s.%s, %u bytes, %u ms%s", node->name, service->index,
              is_send ? "send" : "call", call, node_name, name, methods[method], message->size,
              (unsigned)timeout_ms, strange ? ", strange" : "");
    message->session = call;
    message->target = node->node.client.handle;
    if (evpt_post(&node->node.scheduler, self->worker, message) != 0)
        sim_fail("clusterclient has gone");
}

static void handle_reply(struct service *service, struct evpt_message *message)
{
    uint32_t call = message->session;
    if (message->code == EVPT_CODE_OK) {
        uint32_t size, told = read_call(message, &size);
        if (told != call)
            sim_fail("call %u gets the reply to call %u", call, told);
    }
    calls_answered(call, service, message->code, evpt_reply_executed(message));
    evpt_message_free(message);
}

/* ---- the service ---- */

static void on_time(struct service *service, struct evpt_service *self)
{
    uint64_t now_ns = evpt_sys_now_ns();
    answer_held(service, self->worker, now_ns);
    if (now_ns < service->next_call_ns || world.quiet || service->node->draining)
        return;
    for (uint64_t n = sim_chance(50) ? sim_below(30) : 1; n; n--)
        issue(service, self);
    service->next_call_ns = now_ns + sim_below(2 * world.swarm.call_every_ns);
}

static void arm(struct service *service, struct evpt_service *self)
{
    uint64_t at_ns = world.quiet ? EVPT_FOREVER : service->next_call_ns;
    for (struct evpt_list *link = service->held.next; link != &service->held; link = link->next) {
        const struct held *held = EVPT_CONTAINER_OF(link, struct held, link);
        if (held->due_ns < at_ns)
            at_ns = held->due_ns;
    }
    if (at_ns != EVPT_FOREVER)
        evpt_service_wake_at(self, at_ns);
}

static void service_run(struct evpt_service *self)
{
    struct service *service = self->user;
    struct evpt_message *message;
    while ((message = evpt_service_next(self)) != NULL) {
        if (message->kind == EVPT_MESSAGE_REPLY)
            handle_reply(service, message);
        else
            handle_request(service, self, message);
    }
    arm(service, self);
}

static void service_tick(struct evpt_service *self)
{
    on_time(self->user, self);
    arm(self->user, self);
}

static void free_service(struct service *service)
{
    struct evpt_list *link; /* the requests in it went with the process that was killed */
    while ((link = evpt_list_pop_front(&service->held)) != NULL)
        free(EVPT_CONTAINER_OF(link, struct held, link));
    service->node->services[service->index] = NULL;
    free(service);
}

static void service_stop(struct evpt_service *self)
{
    struct service *service = self->user;
    struct evpt_list *link;
    while ((link = evpt_list_pop_front(&service->held)) != NULL) {
        struct held *held = EVPT_CONTAINER_OF(link, struct held, link);
        reply_error(service, self->worker, held->request, EVPT_CODE_FAILED);
        free(held);
    }
    calls_forget(service->instance);
    free_service(service);
}

static const struct evpt_service_ops service_ops = {
    .run = service_run, .tick = service_tick, .stop = service_stop};

/* False: no memory. */
static bool spawn_service(struct node *node, unsigned index)
{
    struct service *service = calloc(1, sizeof(*service));
    char name[16];
    assert(service);
    service->node = node;
    service->index = index;
    service->next_call_ns = sim_now() + sim_below(100) * EVPT_NS_PER_MS;
    service->instance = calls_new_instance();
    evpt_list_init(&service->held);
    service->handle = evpt_scheduler_spawn(&node->node.scheduler, NULL, &service_ops, service);
    if (!service->handle) {
        free(service);
        return false;
    }
    node->services[index] = service;
    int size = snprintf(name, sizeof(name), "s%u", index);
    int error =
        evpt_registry_name(&node->node.scheduler.registry, name, (size_t)size, service->handle);
    return error == 0;
}

/* ---- what is looked at before each turn of the cluster's loop ---- */

static void count_step(enum evpt_connect_status from, enum evpt_connect_status to)
{
    static const int counts[EVPT_STATUS_COUNT][EVPT_STATUS_COUNT] = {
        [EVPT_STATUS_DISCONNECT] = {[EVPT_STATUS_CONNECTING] = SIM_disconnect_to_connecting,
                                    [EVPT_STATUS_DOWN] = SIM_disconnect_to_down},
        [EVPT_STATUS_CONNECTING] = {[EVPT_STATUS_CONNECTED] = SIM_connecting_to_connected,
                                    [EVPT_STATUS_DISCONNECT] = SIM_connecting_to_disconnect,
                                    [EVPT_STATUS_DOWN] = SIM_connecting_to_down},
        [EVPT_STATUS_CONNECTED] = {[EVPT_STATUS_DISCONNECT] = SIM_connected_to_disconnect,
                                   [EVPT_STATUS_DOWN] = SIM_connected_to_down},
        [EVPT_STATUS_DOWN] = {[EVPT_STATUS_DISCONNECT] = SIM_down_to_disconnect},
    };
    if (counts[from][to]) /* else two steps or more were made in one turn */
        sim_counts[counts[from][to]]++;
}

static void check_session(struct evpt_session *session, void *user)
{
    evpt_session_check(session);
    evpt_stream_check(&session->stream);
}

/* Between two turns: everything must be whole. */
static int check_node(struct evpt_loop_hook *hook)
{
    struct node *node = EVPT_CONTAINER_OF(hook, struct node, check_hook);
    struct evpt_clusterclient *client = &node->node.client;
    for (uint32_t i = 0; i < client->peer_count && i <= NODES_MAX; i++) {
        enum evpt_connect_status status = client->peers[i]->status;
        if (status != node->status[i])
            count_step(node->status[i], status);
        node->status[i] = status;
    }
    if (!sim_chance(20))
        return 0;
    sim_counts[SIM_checks]++;
    evpt_clusterclient_check(client);
    evpt_tcp_object_each(&node->node.mgr.client.object, check_session, NULL);
    evpt_tcp_object_each(&node->node.mgr.server.object, check_session, NULL);
    if (sim_chance(100))
        evpt_timer_wheel_check(evpt_loop_wheel(node->node.cluster.loop));
    return 0;
}

static bool may_rest(struct evpt_loop_hook *hook)
{
    return true;
}

/* ---- commands from outside, on the cluster's loop ---- */

/* What anybody can see of the node list, as a number. */
static void add_to_hash(const char *name, const struct evpt_addr *addr,
                        enum evpt_connect_status status, void *ret_hash)
{
    uint64_t *hash = ret_hash;
    char text[EVPT_ADDR_TEXT_SIZE];
    for (; *name; name++)
        *hash = (*hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    for (const char *at = evpt_addr_format(addr, text, sizeof(text)); *at; at++)
        *hash = (*hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
    *hash = (*hash ^ status) * UINT64_C(0x100000001b3);
}

static uint64_t hash_list(struct node *node)
{
    uint64_t hash = 1;
    evpt_clusterclient_each(&node->node.client, add_to_hash, &hash);
    return hash;
}

static void apply_list(struct node *node)
{
    struct evpt_node_list list = {0};
    uint64_t before = hash_list(node);
    struct evpt_node_diff diff;
    int error = 0;
    for (unsigned i = 0; !error && i < world.swarm.nodes; i++) {
        struct evpt_addr addr;
        char name[16];
        if (node->listed[i] == NOT_LISTED)
            continue;
        snprintf(name, sizeof(name), "n%u", i);
        sim_address(node->listed[i] == LISTED ? i : NODES_MAX + i, &addr);
        error = evpt_node_list_add(&list, name, node->listed[i] == LISTED_DOWN ? NULL : &addr);
    }
    if (!error)
        error = evpt_clusterclient_apply(&node->node.client, &list, &diff);
    evpt_node_list_fini(&list);
    if (error == -ENOMEM) {
        sim_counts[SIM_list_refused]++;
        if (hash_list(node) != before)
            sim_fail("%s: a node list that could not be applied was applied in part", node->name);
        node_command(node, COMMAND_APPLY); /* again */
        return;
    }
    if (error)
        sim_fail("%s: the node list cannot be applied: %s", node->name, evpt_strerror(error));
    sim_counts[SIM_list_applied]++;
    sim_counts[SIM_nodes_removed] += diff.removed_count;
    sim_counts[SIM_nodes_changed] += diff.changed_count;
    evpt_node_diff_fini(&diff);
}

static void kill_service(struct node *node)
{
    unsigned index = (unsigned)sim_below(world.swarm.services);
    struct service *service = node->services[index];
    if (service && evpt_scheduler_kill(&node->node.scheduler, NULL, service->handle))
        sim_counts[SIM_services_killed]++;
}

static void revive_services(struct node *node)
{
    for (unsigned i = 0; i < world.swarm.services; i++) {
        if (!node->services[i])
            (void)spawn_service(node, i); /* without memory, the next command does it */
    }
}

static void on_command(struct evpt_wake *wake, void *user)
{
    struct node *node = user;
    unsigned commands = node->commands;
    node->commands = 0;
    if (commands & COMMAND_WRAP &&
        !node->wrapped) { /* a second time would give out the same again */
        node->wrapped = true;
        sim_counts[SIM_sessions_wrapped]++;
        node->node.client.next_session = (uint32_t) - (int)sim_below(50);
    }
    if (commands & COMMAND_APPLY)
        apply_list(node);
    if (!node->draining)
        revive_services(node);
    if (commands & COMMAND_KILL_SERVICE)
        kill_service(node);
    if (commands & COMMAND_DRAIN) {
        sim_counts[SIM_drains]++;
        node->draining = true;
        evpt_clusterclient_drain(&node->node.client);
        evpt_clusterserver_drain(&node->node.server);
    }
}

static void signal_wake(void *user)
{
    evpt_wake_signal(user);
}

void node_command(struct node *node, unsigned commands)
{
    if (!node->running)
        return;
    node->commands |= commands;
    sim_signal(node->process, signal_wake, &node->wake);
}

void node_stop(struct node *node)
{
    if (!node->running)
        return;
    node->stopping = true;
    sim_signal(node->process, signal_wake, &node->main_wake);
}

/* ---- the process ---- */

static void on_main(struct evpt_node *node, struct evpt_message *message, void *user)
{
}

static void must(struct node *node, const char *what, int error)
{
    if (error)
        sim_fail("%s cannot start: %s: %s", node->name, what, evpt_strerror(error));
}

static void check_tables(struct node *node)
{
    const struct evpt_clusterclient *client = &node->node.client;
    if (!world.quiet)
        return;
    if (evpt_clusterclient_pending(client) || client->context_count)
        sim_fail("%s: contexts are left in session2context or requestCache", node->name);
    if (evpt_clusterserver_pending(&node->node.server))
        sim_fail("%s: requests are left in clusterserver's session2context", node->name);
}

static void node_main(void *user)
{
    struct node *node = user;
    struct evpt_node *it = &node->node;
    struct evpt_addr addr;
    sim_address(node->index, &addr);
    must(node, "init", evpt_node_init(it, node->name, &addr, &world.swarm.config, on_main, node));
    must(node, "wake", evpt_wake_init(&node->wake, it->cluster.loop, on_command, node));
    must(node, "wake", evpt_wake_init(&node->main_wake, it->main.loop, NULL, NULL));
    node->check_hook = (struct evpt_loop_hook){.before = check_node, .rest = may_rest};
    evpt_loop_add_hook(it->cluster.loop, &node->check_hook);
    node->running = true;
    apply_list(node);
    for (uint32_t i = 0; i < it->client.peer_count && i <= NODES_MAX; i++)
        node->status[i] = it->client.peers[i]->status;
    revive_services(node);
    must(node, "listen", evpt_cluster_mgr_listen(&it->mgr, &addr));
    must(node, "start", evpt_node_start(it));
    sim_allow_memory_faults(node->process, true);
    while (!node->stopping)
        evpt_loop_turn(it->main.loop, EVPT_FOREVER);
    evpt_node_stop(it);
    if (!evpt_node_join_until(it, EVPT_FOREVER))
        sim_fail("%s does not end", node->name);
    check_tables(node);
    node->running = false;
    if (planted == PLANT_LEAK)
        (void)evpt_sys_alloc(1);
    evpt_loop_remove_hook(&node->check_hook);
    evpt_wake_fini(&node->wake);
    evpt_wake_fini(&node->main_wake);
    evpt_node_fini(it);
}

void node_start(struct node *node)
{
    /* what a killed process had in mind */
    for (unsigned i = 0; i < SERVICES_MAX; i++) {
        if (node->services[i]) {
            calls_forget(node->services[i]->instance);
            free_service(node->services[i]);
        }
    }
    node->draining = node->stopping = node->running = node->wrapped = false;
    node->commands = 0;
    node->generation++;
    memset(&node->node, 0, sizeof(node->node));
    memset(&node->wake, 0, sizeof(node->wake));
    memset(&node->main_wake, 0, sizeof(node->main_wake));
    node->process = sim_spawn(node->index, node->name, node_main, node);
}
