#include "fuzz_node.h"

#include "services/request.h"

#include <stdlib.h>
#include <string.h>

#define TURNS_MAX 20000 /* after which a node that always finds work is taken to spin */

void fuzz_node_init(struct fuzz_node *it, evpt_node_main_fn on_main, void *user)
{
    static char list[] = "nodes.lua", nothing[] = "";
    struct evpt_addr addr;
    *it = (struct fuzz_node){
        .config = {
            .clustername = list,
            .path = nothing,
            .cpath = nothing,
            .log = {.level = (enum evpt_log_level)(EVPT_LOG_ERROR + 1)}, /* nothing */
            .cluster = {.call_timeout_ms = 1000,
                        .connect_timeout_ms = 1000,
                        .message_max = 1 << 20,
                        .pending_max = 1000,
                        .cache_max = 1000,
                        .send_buffer_max = 64 << 20},
            .mailbox_max = 100,
            .stop_timeout_ms = 1000,
        }};
    FUZZ_CHECK(evpt_addr_parse(&addr, "127.0.0.1:7001") == 0);
    FUZZ_CHECK(evpt_node_init(&it->node, "n1", &addr, &it->config, on_main, user) == 0);
}

void fuzz_node_fini(struct fuzz_node *it)
{
    evpt_node_fini(&it->node);
}

void fuzz_node_settle(struct fuzz_node *it)
{
    unsigned turns = 0;
    for (int idle = 0; idle < 2;) {
        FUZZ_CHECK(++turns < TURNS_MAX);
        bool worked = evpt_scheduler_step(&it->node.scheduler.workers[0]);
        int ran = evpt_loop_turn(it->node.main.loop, 0);
        FUZZ_CHECK(ran >= 0);
        idle = worked || ran ? 0 : idle + 1;
    }
}

bool fuzz_node_call(struct fuzz_node *it, uint32_t target, uint32_t session, const char *method,
                    const void *args, size_t args_size)
{
    unsigned refuse = fuzz_refuse_allocation(0);
    struct evpt_message *message =
        evpt_request_new(EVPT_MESSAGE_CALL, "", 0, method, strlen(method), args_size);
    message = message ? evpt_message_grow(message, args_size) : NULL;
    FUZZ_CHECK(message);
    if (args_size)
        memcpy(message->data + message->size, args, args_size);
    message->size += (uint32_t)args_size;
    FUZZ_CHECK(evpt_request_finish(&message, it->node.main_handle, EVPT_FOREVER) == 0);
    message->target = target;
    message->session = session;
    (void)fuzz_refuse_allocation(refuse);
    if (evpt_post(&it->node.scheduler, NULL, message) == 0)
        return true;
    evpt_message_free(message);
    return false;
}
