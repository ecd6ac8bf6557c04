#include "lab.h"

#include "cluster/msgpack.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_main(struct evpt_node *node, struct evpt_message *message, void *user)
{
    struct lab *lab = user;
    struct evpt_reader reader;
    struct evpt_item item;
    uint32_t count;
    if (message->kind != EVPT_MESSAGE_REPLY)
        return;
    CHECK(message->session > 0 && message->session <= lab->calls);
    struct lab_outcome *outcome = &lab->outcomes[message->session];
    CHECK(outcome->answers++ == 0);
    outcome->code = message->code;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0);
    if (count && evpt_read_item(&reader, &item) == 0 && item.kind == EVPT_ITEM_STR)
        snprintf(outcome->text, sizeof(outcome->text), "%.*s", (int)item.size,
                 (const char *)item.u.bytes);
}

struct lab *lab_new(size_t memory_max)
{
    static char path[64], no_cpath[1];
    struct lab *lab = calloc(1, sizeof(*lab));
    struct evpt_addr addr;
    strcpy(lab->folder, "/tmp/evpt-test-vm-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(lab->folder));
    snprintf(path, sizeof(path), "%s/?.lua", lab->folder);
    lab->config = (struct evpt_config){
        .path = path,
        .cpath = no_cpath,
        .log = {.level = (enum evpt_log_level)(EVPT_LOG_ERROR + 1)}, /* nothing */
        .cluster = {.call_timeout_ms = 20,
                    .connect_timeout_ms = 1000,
                    .message_max = 16 << 20,
                    .pending_max = 1000000,
                    .cache_max = 100000,
                    .send_buffer_max = 64 << 20},
        .mailbox_max = 1000000,
        .lua_memory_max = memory_max,
    };
    support_stop_clock(); /* how fast this machine is decides nothing */
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_node_init(&lab->node, "lab_1", &addr, &lab->config, on_main, lab), 0);
    return lab;
}

void lab_free(struct lab *lab)
{
    char command[64];
    evpt_node_fini(&lab->node);
    snprintf(command, sizeof(command), "rm -r %s", lab->folder);
    ck_assert_int_eq(system(command), 0);
    free(lab);
}

void lab_turn(struct lab *lab)
{
    evpt_scheduler_step(&lab->node.scheduler.workers[0]);
    ck_assert_int_ge(evpt_loop_turn(lab->node.main.loop, 0), 0);
}

void lab_pass(struct lab *lab, int ms)
{
    while (ms-- > 0) {
        support_skip_ms(1);
        lab_turn(lab);
    }
}

uint32_t lab_spawn(struct lab *lab, const char *name, const char *script)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/%s.lua", lab->folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(script, file);
    fclose(file);
    uint32_t handle = evpt_vm_spawn(&lab->node, NULL, name, name, false);
    if (handle) {
        long paused = support_pause_failures();
        CHECK(evpt_registry_name(&lab->node.scheduler.registry, name, strlen(name), handle) == 0);
        support_resume_failures(paused);
    }
    return handle;
}

uint32_t lab_start(struct lab *lab, const char *name, const char *script)
{
    uint32_t handle = lab_spawn(lab, name, script);
    CHECK(handle);
    const struct lab_outcome *outcome = lab_await(lab, lab_call(lab, handle, ".start", name));
    ck_assert_msg(outcome->code == 0, "%s: %s", name, outcome->text);
    return handle;
}

uint32_t lab_call(struct lab *lab, uint32_t handle, const char *method, const char *argument)
{
    size_t room = strlen(argument) + 16;
    uint8_t *arguments = malloc(room);
    struct evpt_writer writer;
    CHECK(arguments);
    evpt_writer_init(&writer, arguments, room);
    CHECK(evpt_write_array(&writer, 1) && evpt_write_str(&writer, argument, strlen(argument)));
    uint32_t session =
        lab_call_packed(lab, handle, method, arguments, (size_t)(writer.at - arguments));
    free(arguments);
    return session;
}

uint32_t lab_call_packed(struct lab *lab, uint32_t handle, const char *method,
                         const void *arguments, size_t size)
{
    long paused = support_pause_failures();
    uint32_t session = ++lab->calls;
    CHECK(session < LAB_CALLS_MAX);
    struct evpt_message *message =
        evpt_request_new(EVPT_MESSAGE_CALL, "", 0, method, strlen(method), size + 16);
    CHECK(message);
    memcpy(message->data + message->size, arguments, size);
    message->size += (uint32_t)size;
    CHECK(evpt_request_finish(&message, lab->node.main_handle, EVPT_FOREVER) == 0);
    message->target = handle;
    message->session = session;
    if (evpt_post(&lab->node.scheduler, NULL, message) != 0)
        evpt_bounce(&lab->node.scheduler, NULL, message, EVPT_CODE_UNKNOWN_SERVICE, "gone");
    support_resume_failures(paused);
    return session;
}

const struct lab_outcome *lab_await(struct lab *lab, uint32_t session)
{
    LAB_UNTIL(lab, lab->outcomes[session].answers);
    return &lab->outcomes[session];
}

void lab_kill(struct lab *lab, uint32_t handle)
{
    long paused = support_pause_failures();
    CHECK(evpt_scheduler_kill(&lab->node.scheduler, NULL, handle));
    LAB_UNTIL(lab, !evpt_registry_find(&lab->node.scheduler.registry, handle));
    support_resume_failures(paused);
}

const char *lab_run(struct lab *lab, uint32_t handle, const char *code)
{
    const struct lab_outcome *outcome = lab_await(lab, lab_call(lab, handle, "run", code));
    ck_assert_msg(outcome->code == 0, "%s\n%s", outcome->text, code);
    return outcome->text;
}

struct evpt_vm *lab_vm(struct lab *lab, uint32_t handle)
{
    return evpt_registry_find(&lab->node.scheduler.registry, handle)->user;
}
