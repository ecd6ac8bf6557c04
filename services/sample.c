#include "services/sample.h"

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The bytes of a message begin on a boundary of 8, and so does all that is in a sample. */
static_assert(offsetof(struct evpt_message, data) % alignof(struct evpt_sample) == 0, "aligned");

static void copy_peer(struct evpt_peer_sample *sample, const struct evpt_peer *peer)
{
    const struct evpt_session *session = peer->session;
    snprintf(sample->name, sizeof(sample->name), "%s", peer->name);
    sample->connected = peer->status == EVPT_STATUS_CONNECTED;
    sample->in_flight = peer->sent_count;
    sample->waiting = peer->cached_count;
    sample->queued = session ? evpt_session_queued(session) : 0;
    sample->round_trip_ns = session ? evpt_session_round_trip_ns(session) : 0;
    sample->connects = peer->connects;
    sample->disconnects = peer->disconnects;
    memcpy(&sample->meter, &peer->meter, sizeof(sample->meter));
}

static struct evpt_message *take_sample(struct evpt_node *node)
{
    struct evpt_clusterclient *client = &node->client;
    size_t size = sizeof(struct evpt_sample) + client->peer_count * sizeof(struct evpt_peer_sample);
    struct evpt_message *reply = evpt_message_new(size);
    if (!reply)
        return NULL;
    struct evpt_sample *sample = (struct evpt_sample *)(void *)reply->data;
    *sample = (struct evpt_sample){
        .serving = evpt_clusterserver_pending(&node->server),
        .connections_in = evpt_tcp_object_count(&node->mgr.server.object),
        .connections_out = evpt_tcp_object_count(&node->mgr.client.object),
    };
    for (uint32_t i = 0; i < client->peer_count; i++) {
        if (client->peers[i]->listed)
            copy_peer(&sample->peers[sample->peer_count++], client->peers[i]);
    }
    reply->size = (uint32_t)size;
    return reply;
}

static bool asks_for_sample(const struct evpt_message *message)
{
    static const char method[] = "sample";
    return message->method_size == sizeof(method) - 1 &&
           memcmp(message->data + message->method_at, method, message->method_size) == 0;
}

void evpt_sample_message(struct evpt_node *node, struct evpt_message *message)
{
    struct evpt_message *reply = asks_for_sample(message) ? take_sample(node) : evpt_message_new(0);
    if (reply) {
        reply->kind = EVPT_MESSAGE_REPLY;
        evpt_post_reply(&node->scheduler, evpt_scheduler_loop_worker(&node->scheduler),
                        message->source, message->session, reply);
    }
    evpt_message_free(message);
}

const struct evpt_sample *evpt_sample_of(const struct evpt_message *answer)
{
    return (const struct evpt_sample *)(const void *)answer->data;
}
