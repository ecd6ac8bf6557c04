/* `control`, the pinned service that the built-in services drive the cluster with: methods in any
 * order, with any bytes as their arguments. Each call gets exactly one answer, and a well-formed
 * one. */
#include "fuzz.h"
#include "fuzz_node.h"

#include "cluster/msgpack.h"
#include "services/control.h"
#include "services/request.h"

#include <string.h>

#define CALLS_MAX 200

struct run {
    struct fuzz_node node;
    unsigned calls, answers;
    uint8_t answered[CALLS_MAX + 1];
};

static void on_main(struct evpt_node *node, struct evpt_message *message, void *user)
{
    struct run *run = user;
    unsigned refuse = fuzz_refuse_allocation(0);
    struct evpt_message *copy = evpt_message_new(message->size);
    (void)node;
    FUZZ_CHECK(copy && message->kind == EVPT_MESSAGE_REPLY);
    FUZZ_CHECK(message->session && message->session <= run->calls);
    FUZZ_CHECK(run->answered[message->session]++ == 0);
    run->answers++;
    memcpy(copy->data, message->data, message->size);
    copy->size = message->size;
    FUZZ_CHECK(evpt_reply_parse(copy) == 0);
    FUZZ_CHECK(copy->code == message->code && copy->args_size == message->args_size);
    evpt_message_free(copy);
    (void)fuzz_refuse_allocation(refuse);
}

static void call(struct run *run, struct fuzz_input *in, uint8_t what)
{
    static const char *const methods[] = {"apply", "observe", "nodes",  "stat",
                                          "drain", "refuse",  "listen", "nosuch"};
    size_t size;
    const uint8_t *args = fuzz_take(in, fuzz_byte(in) * (what & 64 ? 16u : 1u), &size);
    if (run->calls == CALLS_MAX)
        return;
    FUZZ_CHECK(fuzz_node_call(&run->node, run->node.node.control, ++run->calls, methods[what % 8],
                              args, size));
}

/* Memory runs short; or a request of another node is in progress, for which `drain` waits, or is
 * answered. */
static void disturb(struct run *run, struct fuzz_input *in, uint8_t what)
{
    fuzz_node_settle(&run->node);
    if (what < 0xf8)
        (void)fuzz_refuse_allocation(fuzz_byte(in) % 32);
    else
        run->node.node.server.count = what & 1;
}

void fuzz_one(struct fuzz_input *in)
{
    static struct run run;
    memset(&run, 0, sizeof(run));
    fuzz_node_init(&run.node, on_main, &run);
    run.node.node.addr.u.v4.sin_port = 0; /* `listen` takes any that is free */
    while (fuzz_left(in)) {
        uint8_t what = fuzz_byte(in);
        if (what >= 0xf0)
            disturb(&run, in, what);
        else
            call(&run, in, what);
        if (what & 128)
            fuzz_node_settle(&run.node);
        evpt_clusterclient_check(&run.node.node.client);
    }
    (void)fuzz_refuse_allocation(0);
    run.node.node.server.count = 0;
    evpt_control_check_drain(&run.node.node);
    fuzz_node_settle(&run.node);
    FUZZ_CHECK(run.answers == run.calls);
    fuzz_node_fini(&run.node);
}
