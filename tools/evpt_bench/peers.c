#include "tools/evpt_bench/peers.h"

#include "cluster/tcp_server.h"
#include "services/request.h"

#include <errno.h>
#include <string.h>

#define HEARTBEAT_MS 5000
#define SEND_BUFFER_MAX (64 << 20)

struct peer {
    struct evpt_tcp_server tcp;
    struct evpt_session_config config; /* its name is in it */
};

struct bench_peers {
    uint64_t count; /* that listen */
    struct peer *peers;
};

/* The arguments as results. NULL: no memory; the caller's timeout counts it. */
static struct evpt_message *answer(const struct evpt_message *request)
{
    struct evpt_message *reply = evpt_reply_new(request->args_size);
    if (!reply)
        return NULL;
    memcpy(reply->data + reply->size, request->data + request->args_at, request->args_size);
    reply->size += request->args_size;
    evpt_reply_finish(reply);
    reply->session = request->session;
    return reply;
}

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct evpt_request_info info;
    struct evpt_message *reply = NULL;
    if (evpt_request_parse(message, evpt_sys_now_ns(), &info) != 0)
        reply = evpt_reply_error(EVPT_CODE_BAD_MESSAGE, "", 0);
    else if (message->kind == EVPT_MESSAGE_CALL)
        reply = answer(message);
    if (reply) {
        reply->session = message->session;
        (void)evpt_session_send(session, reply, NULL); /* a call that is lost is counted there */
    }
    evpt_message_free(message);
}

/* The node has ended: whoever started it notices. */
static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
}

static int start(struct peer *peer, struct evpt_loop *loop, const struct bench_options *options,
                 uint64_t number)
{
    static const struct evpt_tcp_server_ops ops = {
        .session = {.on_message = on_message, .on_close = on_close}};
    struct evpt_addr addr;
    peer->config = (struct evpt_session_config){.message_max = (uint32_t)options->size_max +
                                                               4096, /* as local.c */
                                                .heartbeat_ms = HEARTBEAT_MS,
                                                .send_buffer_max = SEND_BUFFER_MAX};
    snprintf(peer->config.node, sizeof(peer->config.node), "bench_b_%llu",
             (unsigned long long)number);
    evpt_tcp_server_init(&peer->tcp, loop, &peer->config, &ops, peer);
    int error = evpt_addr_parse(&addr, "127.0.0.1:0");
    return error ? error : evpt_tcp_server_listen(&peer->tcp, &addr);
}

int bench_peers_new(struct bench_peers **ret_peers, struct evpt_loop *loop,
                    const struct bench_options *options)
{
    int error = -ENOMEM;
    struct bench_peers *peers = evpt_sys_zalloc(sizeof(*peers));
    if (!peers)
        return error;
    peers->peers = evpt_sys_zalloc(options->peers * sizeof(*peers->peers));
    if (peers->peers)
        error = 0;
    while (!error && peers->count < options->peers) {
        error = start(&peers->peers[peers->count], loop, options, peers->count + 1);
        peers->count++;
    }
    if (error)
        bench_peers_free(peers);
    else
        *ret_peers = peers;
    return error;
}

void bench_peers_free(struct bench_peers *peers)
{
    if (!peers)
        return;
    for (uint64_t i = 0; i < peers->count; i++)
        evpt_tcp_server_fini(&peers->peers[i].tcp);
    evpt_sys_free(peers->peers);
    evpt_sys_free(peers);
}

void bench_peers_print_list(const struct bench_peers *peers, FILE *out)
{
    char text[EVPT_ADDR_TEXT_SIZE];
    struct evpt_addr addr;
    for (uint64_t i = 0; peers && i < peers->count; i++) {
        const struct peer *peer = &peers->peers[i];
        if (evpt_tcp_server_addr(&peer->tcp, &addr) == 0)
            fprintf(out, "%s = \"%s\"\n", peer->config.node,
                    evpt_addr_format(&addr, text, sizeof(text)));
    }
}
