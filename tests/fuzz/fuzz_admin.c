/* The admin socket of a node: bytes of a client, cut as the back of the input says, read by a
 * session, by clusterserver and by the console itself, in Lua, with all that its verbs do
 * (`rewrite` replaces a node list, in memory). Each request on a good connection gets one answer.
 *
 * The node is made anew for each input, so that one does not depend on the one before.
 */
#include "fuzz.h"
#include "fuzz_node.h"

#include "cluster/frame.h"
#include "lua/vm.h"
#include "reactor/error.h"
#include "services/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char node_list[] = "n1 = \"127.0.0.1:7001\"\nn2 = \"127.0.0.1:7002\"\nn3 = false\n";

static struct {
    struct fuzz_node node;
    int client;
    unsigned started;
    uint8_t *out;
    size_t out_size;
} it;

/* Answers to .start; and the console's `stop` comes here. */
static void on_main(struct evpt_node *node, struct evpt_message *message, void *user)
{
    (void)node, (void)user;
    if (message->kind != EVPT_MESSAGE_REPLY)
        return;
    FUZZ_CHECK(message->code == EVPT_CODE_OK);
    it.started++;
}

static uint32_t spawn(const char *name)
{
    struct evpt_node *node = &it.node.node;
    uint8_t args[64];
    struct evpt_writer writer;
    evpt_writer_init(&writer, args, sizeof(args));
    FUZZ_CHECK(evpt_write_array(&writer, 1) && evpt_write_str(&writer, name, strlen(name)));
    uint32_t handle = evpt_vm_spawn(node, NULL, name, name, true);
    FUZZ_CHECK(handle &&
               evpt_registry_name(&node->scheduler.registry, name, strlen(name), handle) == 0);
    FUZZ_CHECK(fuzz_node_call(&it.node, handle, 1, ".start", args, (size_t)(writer.at - args)));
    fuzz_node_settle(&it.node);
    return handle;
}

static void open_node(void)
{
    int fds[2];
    struct evpt_session *session;
    memset(&it, 0, sizeof(it));
    fuzz_set_file(node_list, sizeof(node_list) - 1);
    fuzz_node_init(&it.node, on_main, NULL);
    (void)spawn("clusterclient");
    it.node.node.admin.only = spawn("console");
    FUZZ_CHECK(it.started == 2);
    FUZZ_CHECK(evpt_sys_socketpair(fds) == 0);
    FUZZ_CHECK(evpt_tcp_object_create_session(&it.node.node.admin_mgr.server.object, fds[0], NULL,
                                              EVPT_SESSION_SERVER, &session) == 0);
    it.client = fds[1];
    it.out = malloc(1 << 20);
    FUZZ_CHECK(it.out);
}

static void close_node(void)
{
    (void)fuzz_refuse_allocation(0);
    evpt_sys_close(it.client);
    fuzz_node_settle(&it.node);
    FUZZ_CHECK(evpt_clusterserver_pending(&it.node.node.admin) == 0);
    fuzz_node_fini(&it.node);
    free(it.out);
}

/* What the node writes: good frames, and replies in them. */
static void read_answers(void)
{
    for (;;) {
        ssize_t got = evpt_sys_read(it.client, it.out + it.out_size, EVPT_FRAME_MAX);
        if (got <= 0)
            return;
        it.out_size += (size_t)got;
        size_t at = 0;
        for (ssize_t size = 1; size > 0; at += (size_t)size) {
            struct evpt_frame frame;
            const char *reason;
            size = evpt_frame_read(&frame, it.out + at, it.out_size - at, &reason);
            FUZZ_CHECK(size >= 0);
            if (size == 0 || frame.flag != EVPT_FRAME_WHOLE)
                continue;
            unsigned refuse = fuzz_refuse_allocation(0);
            struct evpt_message *reply = evpt_message_new(frame.size);
            FUZZ_CHECK(reply);
            memcpy(reply->data, frame.data, frame.size);
            reply->size = (uint32_t)frame.size;
            FUZZ_CHECK(evpt_reply_parse(reply) == 0);
            evpt_message_free(reply);
            (void)fuzz_refuse_allocation(refuse);
        }
        it.out_size -= at;
        memmove(it.out, it.out + at, it.out_size);
    }
}

static void feed(const uint8_t *bytes, size_t size)
{
    for (unsigned tries = 0; size && tries < 1000; tries++) {
        ssize_t sent = evpt_sys_write(it.client, bytes, size);
        if (sent < 0 && sent != -EAGAIN)
            return;
        bytes += sent > 0 ? sent : 0;
        size -= sent > 0 ? (size_t)sent : 0;
        fuzz_node_settle(&it.node);
        read_answers();
    }
}

void fuzz_one(struct fuzz_input *in)
{
    open_node();
    while (fuzz_left(in)) {
        uint8_t how = fuzz_byte(in);
        size_t size;
        const uint8_t *bytes = fuzz_take(in, how < 240 ? how + 1u : 32768, &size);
        if (how > 250)
            fuzz_pass_ms((how - 250u) * 500u);
        else if (how > 245)
            (void)fuzz_refuse_allocation(1u + fuzz_byte(in) * (how - 245u));
        feed(bytes, size);
    }
    close_node();
}
