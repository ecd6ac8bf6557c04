#include "services/clusterclient_private.h"

#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "services/hash.h"
#include "services/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SPARE_MAX 4096 /* contexts kept for reuse: what a busy node has in flight */
#define TABLE_BITS_MIN 6
#define RING_MIN 64 /* a power of two */

struct evpt_context {
    struct evpt_list link; /* in its peer's sent or cached, or in spare */
    struct evpt_timer timer;
    struct evpt_clusterclient *client;
    struct evpt_peer *peer;
    struct evpt_message *message; /* while cached */
    uint64_t position; /* where it ends in the stream; UINT64_MAX while that is not known */
    uint64_t began_ns; /* the turn's time when it came in */
    uint32_t session;  /* on the wire; 0 while cached */
    uint32_t source;   /* the caller, and its own key for the call */
    uint32_t caller_session;
    bool wants_reply;
};

/* ---- status ---- */

static const bool allowed[EVPT_STATUS_COUNT][EVPT_STATUS_COUNT] = {
    [EVPT_STATUS_DISCONNECT] = {[EVPT_STATUS_CONNECTING] = true, [EVPT_STATUS_DOWN] = true},
    [EVPT_STATUS_CONNECTING] = {[EVPT_STATUS_CONNECTED] = true,
                                [EVPT_STATUS_DISCONNECT] = true,
                                [EVPT_STATUS_DOWN] = true},
    [EVPT_STATUS_CONNECTED] = {[EVPT_STATUS_DISCONNECT] = true, [EVPT_STATUS_DOWN] = true},
    [EVPT_STATUS_DOWN] = {[EVPT_STATUS_DISCONNECT] = true},
};

const char *evpt_connect_status_name(enum evpt_connect_status status)
{
    static const char *const names[EVPT_STATUS_COUNT] = {"disconnect", "connecting", "connected",
                                                         "down"};
    return names[status];
}

/* Tells the Lua service: _recv_data_(event, node, status, detail). */
static void tell_observer(struct evpt_clusterclient *client, const struct evpt_peer *peer,
                          const char *detail)
{
    static const char service[] = "clusterclient", method[] = "_recv_data_";
    const char *words[] = {"status", peer->name, evpt_connect_status_name(peer->status), detail};
    if (!client->observer)
        return;
    struct evpt_message *message = evpt_request_new(EVPT_MESSAGE_SEND, service, sizeof(service) - 1,
                                                    method, sizeof(method) - 1, 512);
    if (!message)
        return; /* no memory: the observer misses a change, the tables do not */
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    bool fits = evpt_write_array(&writer, 4);
    for (int i = 0; i < 4; i++)
        fits = fits && evpt_write_str(&writer, words[i], strnlen(words[i], 100));
    assert(fits);
    (void)fits;
    message->size = (uint32_t)(writer.at - message->data);
    message->target = client->observer;
    if (evpt_request_finish(&message, client->handle, EVPT_FOREVER) != 0 ||
        evpt_post(client->scheduler, evpt_scheduler_loop_worker(client->scheduler), message) != 0)
        evpt_message_free(message);
}

void evpt_clusterclient_set_status(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   enum evpt_connect_status status, const char *detail)
{
    assert(allowed[peer->status][status]);
    pthread_mutex_lock(&client->lock);
    peer->status = status;
    pthread_mutex_unlock(&client->lock);
    atomic_fetch_add_explicit(&client->version, 1, memory_order_release);
    tell_observer(client, peer, detail);
}

/* ---- contexts ---- */

static uint32_t capacity_of(const struct evpt_clusterclient *client)
{
    return client->context_bits ? 1u << client->context_bits : 0;
}

/* Fibonacci hashing. Sessions are given out one after the other; by their low bits, a hundred
 * thousand calls that wait for long would lie side by side, and each later one that comes round to
 * them would walk past them all. */
static uint32_t home(const struct evpt_clusterclient *client, uint32_t session)
{
    return session * UINT32_C(2654435769) >> (32 - client->context_bits);
}

static struct evpt_context **find_cell(struct evpt_clusterclient *client, uint32_t session)
{
    uint32_t i = home(client, session);
    while (client->session2context[i] && client->session2context[i]->session != session)
        i = (i + 1) & (capacity_of(client) - 1);
    return &client->session2context[i];
}

/* Twice the cells. */
static bool grow_table(struct evpt_clusterclient *client)
{
    uint32_t old_capacity = capacity_of(client);
    struct evpt_context **old = client->session2context;
    uint32_t bits = client->context_bits ? client->context_bits + 1 : TABLE_BITS_MIN;
    struct evpt_context **table = evpt_sys_zalloc(sizeof(*table) << bits);
    if (!table)
        return false;
    client->session2context = table;
    client->context_bits = bits;
    for (uint32_t i = 0; i < old_capacity; i++) {
        if (old[i])
            *find_cell(client, old[i]->session) = old[i];
    }
    evpt_sys_free(old);
    return true;
}

/* Closes the gap behind a removed entry: whoever was pushed past it by a collision moves up. */
static void remove_cell(struct evpt_clusterclient *client, struct evpt_context **cell)
{
    uint32_t mask = capacity_of(client) - 1;
    uint32_t gap = (uint32_t)(cell - client->session2context);
    for (uint32_t i = (gap + 1) & mask; client->session2context[i]; i = (i + 1) & mask) {
        uint32_t from = home(client, client->session2context[i]->session);
        if (((i - from) & mask) >= ((i - gap) & mask)) {
            client->session2context[gap] = client->session2context[i];
            gap = i;
        }
    }
    client->session2context[gap] = NULL;
    client->context_count--;
}

static struct evpt_context *new_context(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                        const struct evpt_message *message)
{
    struct evpt_context *context;
    struct evpt_list *node = evpt_list_pop_front(&client->spare);
    if (node) {
        client->spare_count--;
        context = EVPT_CONTAINER_OF(node, struct evpt_context, link);
    } else {
        context = evpt_sys_alloc(sizeof(*context));
    }
    if (!context)
        return NULL;
    *context = (struct evpt_context){.client = client,
                                     .peer = peer,
                                     .position = UINT64_MAX,
                                     .began_ns = evpt_loop_now(client->loop),
                                     .source = message->source,
                                     .caller_session = message->session,
                                     .wants_reply = message->kind == EVPT_MESSAGE_CALL};
    return context;
}

static void free_context(struct evpt_clusterclient *client, struct evpt_context *context)
{
    evpt_timer_stop(evpt_loop_wheel(client->loop), &context->timer);
    evpt_message_free(context->message);
    context->message = NULL;
    if (client->spare_count >= SPARE_MAX) {
        evpt_sys_free(context);
        return;
    }
    client->spare_count++;
    evpt_list_push_back(&client->spare, &context->link);
}

void evpt_clusterclient_drop_context(struct evpt_clusterclient *client, struct evpt_list *node)
{
    struct evpt_context *context = EVPT_CONTAINER_OF(node, struct evpt_context, link);
    evpt_timer_stop(evpt_loop_wheel(client->loop), &context->timer);
    evpt_message_free(context->message);
    evpt_sys_free(context);
}

/* Takes it out of its table and its peer's list: from here on nobody else can answer it. */
static void detach(struct evpt_clusterclient *client, struct evpt_context *context)
{
    evpt_list_remove(&context->link);
    if (context->session) {
        context->peer->sent_count--;
        remove_cell(client, find_cell(client, context->session));
    } else {
        context->peer->cached_count--;
    }
}

/* ---- answers ---- */

static void answer(struct evpt_clusterclient *client, uint32_t source, uint32_t session,
                   struct evpt_message *reply)
{
    evpt_post_reply(client->scheduler, evpt_scheduler_loop_worker(client->scheduler), source,
                    session, reply);
}

static void count_outcome(struct evpt_peer *peer, int code)
{
    peer->meter.outcomes[code < EVPT_CODE_COUNT ? code : EVPT_CODE_COUNT]++;
}

/* The end of a call that had a context. By the turn's time: as a call begins and ends with an event
 * of the loop, that is the time of the event, or little more. */
static void count_call(struct evpt_clusterclient *client, const struct evpt_context *context,
                       int code)
{
    struct evpt_peer *peer = context->peer;
    count_outcome(peer, code);
    evpt_histogram_add(&peer->meter.duration, evpt_loop_now(client->loop) - context->began_ns);
}

static_assert(sizeof(struct evpt_context) >= EVPT_REPLY_BLOCK_MIN,
              "it may become a reply: see fail");

/* Ends a context with an error. */
static void fail(struct evpt_clusterclient *client, struct evpt_context *context, int code,
                 enum evpt_executed executed, const char *text)
{
    detach(client, context);
    if (!context->wants_reply) {
        free_context(client, context);
        atomic_fetch_add_explicit(&client->lost_sends, 1, memory_order_relaxed);
        return;
    }
    count_call(client, context, code);
    uint32_t source = context->source, session = context->caller_session;
    evpt_timer_stop(evpt_loop_wheel(client->loop), &context->timer);
    evpt_message_free(context->message);
    struct evpt_message *reply =
        evpt_reply_from_block(context, sizeof(*context), code, text, strlen(text));
    evpt_reply_set_executed(reply, executed);
    answer(client, source, session, reply);
}

/* Refuses a request that has no context yet. `peer`: NULL where the list does not name it. */
static void refuse(struct evpt_clusterclient *client, struct evpt_peer *peer,
                   struct evpt_message *message, int code, const char *text)
{
    if (message->kind != EVPT_MESSAGE_CALL) {
        atomic_fetch_add_explicit(&client->lost_sends, 1, memory_order_relaxed);
        evpt_message_free(message);
        return;
    }
    if (peer)
        count_outcome(peer, code);
    uint32_t source = message->source, session = message->session;
    struct evpt_message *reply = evpt_reply_instead(message, code, text, strlen(text));
    evpt_reply_set_executed(reply, EVPT_EXECUTED_NO);
    answer(client, source, session, reply);
}

void evpt_clusterclient_fail_cached(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                    int code, const char *text)
{
    struct evpt_list *node;
    while ((node = peer->cached.next) != &peer->cached)
        fail(client, EVPT_CONTAINER_OF(node, struct evpt_context, link), code, EVPT_EXECUTED_NO,
             text);
}

void evpt_clusterclient_fail_sent(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                  int code, uint64_t written, const char *text)
{
    struct evpt_list *node;
    while ((node = peer->sent.next) != &peer->sent) {
        struct evpt_context *context = EVPT_CONTAINER_OF(node, struct evpt_context, link);
        bool handed = context->position <= written;
        fail(client, context, code, handed ? EVPT_EXECUTED_MAYBE : EVPT_EXECUTED_NO, text);
    }
}

static void on_deadline(struct evpt_timer *timer, void *user)
{
    struct evpt_context *context = user;
    struct evpt_clusterclient *client = context->client;
    bool sent = context->session != 0;
    char text[128];
    snprintf(text, sizeof(text), "%s %.64s",
             sent ? "no answer before the deadline from"
                  : "the deadline passed before a connection to",
             context->peer->name);
    if (sent)
        context->peer->late_replies_due++;
    atomic_fetch_add_explicit(&client->timeouts, 1, memory_order_relaxed);
    fail(client, context, EVPT_CODE_TIMEOUT, sent ? EVPT_EXECUTED_MAYBE : EVPT_EXECUTED_NO, text);
}

/* ---- sends that the socket has not taken yet ----
 *
 * A send has no context, since nobody waits for it; but those that a lost connection takes with it
 * are counted. One that is long, or waits behind a long one, has a context until it is known where
 * it ends. */

static void forget_written(struct evpt_peer *peer, uint64_t written)
{
    while (peer->send_count && peer->send_ends[peer->send_first] <= written) {
        peer->send_first = (peer->send_first + 1) & (peer->send_capacity - 1);
        peer->send_count--;
    }
}

static bool grow_ring(struct evpt_peer *peer)
{
    uint32_t capacity = peer->send_capacity ? peer->send_capacity * 2 : RING_MIN;
    uint64_t *ends = evpt_sys_alloc(capacity * sizeof(*ends));
    if (!ends)
        return false;
    for (uint32_t i = 0; i < peer->send_count; i++)
        ends[i] = peer->send_ends[(peer->send_first + i) & (peer->send_capacity - 1)];
    evpt_sys_free(peer->send_ends);
    peer->send_ends = ends;
    peer->send_first = 0;
    peer->send_capacity = capacity;
    return true;
}

static void note_send(struct evpt_peer *peer, uint64_t position)
{
    forget_written(peer, evpt_session_written(peer->session));
    if (peer->send_count == peer->send_capacity && !grow_ring(peer))
        return; /* no memory: should it be lost, the count is one short */
    peer->send_ends[(peer->send_first + peer->send_count) & (peer->send_capacity - 1)] = position;
    peer->send_count++;
}

void evpt_clusterclient_lose_sends(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   uint64_t written)
{
    forget_written(peer, written);
    atomic_fetch_add_explicit(&client->lost_sends, peer->send_count, memory_order_relaxed);
    evpt_sys_free(peer->send_ends);
    peer->send_ends = NULL;
    peer->send_first = peer->send_count = peer->send_capacity = 0;
}

/* ---- sending ---- */

static uint32_t assign_session(struct evpt_clusterclient *client)
{
    do {
        client->next_session++;
    } while (client->next_session == 0 ||
             (client->context_count && *find_cell(client, client->next_session)));
    return client->next_session;
}

/* The order that has to hold is that of one sender and one receiver. */
static uint64_t lane_of(const struct evpt_message *message)
{
    const char *service;
    uint32_t size;
    evpt_request_service(message, &service, &size);
    return (uint64_t)message->source << 32 | evpt_hash(service, size);
}

static void fail_unsent(struct evpt_clusterclient *client, struct evpt_peer *peer, int error,
                        struct evpt_context *context)
{
    char text[160];
    int code = EVPT_CODE_OVERLOADED;
    if (error == -EVPT_ETOOLARGE) {
        code = EVPT_CODE_TOO_LARGE;
        snprintf(text, sizeof(text), "longer than message_max of %s", peer->name);
    } else if (error == -EVPT_ELIMIT) {
        snprintf(text, sizeof(text), "send_buffer_max: too many bytes are queued to %s",
                 peer->name);
    } else if (error == -ENOMEM) {
        snprintf(text, sizeof(text), "out of memory");
    } else {
        code = EVPT_CODE_DISCONNECTED;
        snprintf(text, sizeof(text), "the connection to %s is closing", peer->name);
    }
    if (context)
        fail(client, context, code, EVPT_EXECUTED_NO, text);
    else
        atomic_fetch_add_explicit(&client->lost_sends, 1, memory_order_relaxed);
}

/* Room for one more entry, at most 3 of 4 cells taken. */
static bool reserve_cell(struct evpt_clusterclient *client)
{
    return (client->context_count + 1) * 4 <= capacity_of(client) * 3 || grow_table(client);
}

/* Into session2context, for which there is room. */
static void attach(struct evpt_clusterclient *client, struct evpt_context *context,
                   uint32_t session)
{
    context->session = session;
    *find_cell(client, session) = context;
    client->context_count++;
    context->peer->sent_count++;
    evpt_list_push_back(&context->peer->sent, &context->link);
}

/* A context for a send that waits in its lane. No memory: as in note_send. */
static void await_queued(struct evpt_clusterclient *client, struct evpt_peer *peer,
                         uint32_t session)
{
    static const struct evpt_message send = {.kind = EVPT_MESSAGE_SEND};
    struct evpt_context *context = reserve_cell(client) ? new_context(client, peer, &send) : NULL;
    if (context)
        attach(client, context, session);
}

/* Sends a message over the peer's connection. `context`: detached, NULL for a send. */
static void transmit(struct evpt_clusterclient *client, struct evpt_peer *peer,
                     struct evpt_message *message, struct evpt_context *context)
{
    uint64_t position;
    uint32_t session = message->session = assign_session(client);
    message->lane = lane_of(message);
    /* by the clock: from the time at which this turn began there may be more left than the caller
     * gave */
    evpt_request_patch_deadline(message, evpt_sys_now_ns());
    /* What we have given up with an earlier connection may not have been read there yet: it must
     * not run after this one. Said until an answer shows that it was heard. */
    if (peer->takes_over && message->size + 2 <= client->config->cluster.message_max)
        evpt_request_add_takeover(message);
    if (context)
        attach(client, context, session);
    int error = evpt_session_send(peer->session, message, &position);
    if (error)
        fail_unsent(client, peer, error, context);
    else if (context)
        context->position = position;
    else if (position == UINT64_MAX)
        await_queued(client, peer, session);
    else
        note_send(peer, position);
}

static void send_now(struct evpt_clusterclient *client, struct evpt_peer *peer,
                     struct evpt_message *message)
{
    struct evpt_context *context = NULL;
    if (message->kind == EVPT_MESSAGE_CALL) {
        if (!reserve_cell(client) || !(context = new_context(client, peer, message))) {
            refuse(client, peer, message, EVPT_CODE_OVERLOADED, "out of memory");
            return;
        }
        evpt_timer_start(evpt_loop_wheel(client->loop), &context->timer, message->deadline_ns,
                         on_deadline, context);
    }
    transmit(client, peer, message, context);
}

static void cache(struct evpt_clusterclient *client, struct evpt_peer *peer,
                  struct evpt_message *message)
{
    struct evpt_context *context = new_context(client, peer, message);
    if (!context) {
        refuse(client, peer, message, EVPT_CODE_OVERLOADED, "out of memory");
        return;
    }
    context->message = message;
    evpt_list_push_back(&peer->cached, &context->link);
    peer->cached_count++;
    if (message->deadline_ns != EVPT_FOREVER)
        evpt_timer_start(evpt_loop_wheel(client->loop), &context->timer, message->deadline_ns,
                         on_deadline, context);
}

/* Connected: what waited goes out, in order, and moves to session2context. */
static void send_cached(struct evpt_clusterclient *client, struct evpt_peer *peer)
{
    struct evpt_list waiting, *node;
    evpt_list_move(&waiting, &peer->cached);
    while ((node = evpt_list_pop_front(&waiting)) != NULL) {
        struct evpt_context *context = EVPT_CONTAINER_OF(node, struct evpt_context, link);
        struct evpt_message *message = context->message;
        context->message = NULL;
        peer->cached_count--;
        if (!context->wants_reply) {
            free_context(client, context);
            transmit(client, peer, message, NULL);
        } else if (message->deadline_ns <= evpt_loop_now(client->loop)) {
            /* its timer would say so at the end of this turn, but then it had been sent */
            free_context(client, context);
            atomic_fetch_add_explicit(&client->timeouts, 1, memory_order_relaxed);
            refuse(client, peer, message, EVPT_CODE_TIMEOUT,
                   "the deadline passed before there was a connection");
        } else if (!reserve_cell(client)) {
            peer->cached_count++;
            evpt_list_push_back(&peer->cached, &context->link);
            evpt_message_free(message);
            fail(client, context, EVPT_CODE_OVERLOADED, EVPT_EXECUTED_NO, "out of memory");
        } else {
            transmit(client, peer, message, context);
        }
    }
}

/* ---- connecting ---- */

static uint64_t backoff_ns(unsigned failures)
{
    uint64_t ms = EVPT_BACKOFF_MIN_MS;
    for (unsigned i = 1; i < failures && ms < EVPT_BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > EVPT_BACKOFF_MAX_MS)
        ms = EVPT_BACKOFF_MAX_MS;
    uint64_t random;
    evpt_sys_random(&random, sizeof(random));
    return random % (ms * EVPT_NS_PER_MS); /* full jitter */
}

static void note_failure(struct evpt_clusterclient *client, struct evpt_peer *peer)
{
    peer->failures++;
    peer->retry_at_ns = evpt_loop_now(client->loop) + backoff_ns(peer->failures);
}

static bool start_connect(struct evpt_clusterclient *client, struct evpt_peer *peer)
{
    uint64_t timeout_ns = client->config->cluster.connect_timeout_ms * EVPT_NS_PER_MS;
    if (evpt_cluster_mgr_connect(client->mgr, &peer->addr, peer->name, timeout_ns, peer) != 0)
        return false;
    evpt_clusterclient_set_status(client, peer, EVPT_STATUS_CONNECTING, "");
    return true;
}

struct evpt_peer *evpt_clusterclient_find_peer(const struct evpt_clusterclient *client,
                                               const char *name, size_t size)
{
    if (size > EVPT_NODE_NAME_MAX || client->peer_count == 0)
        return NULL;
    struct evpt_peer *peer;
    uint32_t mask = client->table_capacity - 1;
    for (uint32_t i = evpt_hash(name, size) & mask; (peer = client->peer_table[i]) != NULL;
         i = (i + 1) & mask) {
        if (strlen(peer->name) == size && memcmp(peer->name, name, size) == 0)
            break;
    }
    return peer;
}

int evpt_clusterclient_address(struct evpt_message **message, const char *node, size_t size)
{
    assert(size <= EVPT_NODE_NAME_MAX);
    struct evpt_message *grown = evpt_message_grow(*message, size);
    if (!grown)
        return -ENOMEM;
    *message = grown;
    memcpy(grown->data + grown->size, node, size);
    grown->code = (uint16_t)size;
    return 0;
}

/* The limits of one node. */
static const char *over_limit(const struct evpt_clusterclient *client, const struct evpt_peer *peer)
{
    if (peer->sent_count + peer->cached_count >= client->config->cluster.pending_max)
        return "pending_max: too many calls in flight to the node";
    if (peer->status != EVPT_STATUS_CONNECTED &&
        peer->cached_count >= client->config->cluster.cache_max)
        return "cache_max: too many requests wait for the connection to the node";
    return NULL;
}

void evpt_clusterclient_request(struct evpt_clusterclient *client, struct evpt_message *message)
{
    if (message->kind > EVPT_MESSAGE_SEND) { /* a service's answer to nothing */
        evpt_message_free(message);
        return;
    }
    struct evpt_peer *peer = evpt_clusterclient_find_peer(
        client, (const char *)message->data + message->size, message->code);
    bool is_call = message->kind == EVPT_MESSAGE_CALL;
    atomic_fetch_add_explicit(is_call ? &client->calls : &client->sends, 1, memory_order_relaxed);
    message->code = 0;
    const char *limit = peer ? over_limit(client, peer) : NULL;
    if (!peer || peer->status == EVPT_STATUS_DOWN) {
        refuse(client, peer, message, EVPT_CODE_UNKNOWN_NODE,
               peer && peer->listed ? "the node list says that the node is down"
                                    : "not in the node list");
    } else if (client->stopping) {
        refuse(client, peer, message, EVPT_CODE_STOPPING, "this node is draining");
    } else if (limit) {
        refuse(client, peer, message, EVPT_CODE_OVERLOADED, limit);
    } else if (message->deadline_ns <= evpt_loop_now(client->loop)) {
        refuse(client, peer, message, EVPT_CODE_TIMEOUT, "the deadline passed before it was sent");
    } else if (peer->status == EVPT_STATUS_CONNECTED) {
        if (peer->going_away)
            refuse(client, peer, message, EVPT_CODE_STOPPING, "the node is draining");
        else
            send_now(client, peer, message);
    } else if (peer->status == EVPT_STATUS_DISCONNECT &&
               evpt_loop_now(client->loop) < peer->retry_at_ns) {
        refuse(client, peer, message, EVPT_CODE_CONNECT_FAILED,
               "the last attempt to connect failed just now");
    } else if (peer->status == EVPT_STATUS_DISCONNECT && !start_connect(client, peer)) {
        refuse(client, peer, message, EVPT_CODE_OVERLOADED, "out of memory");
    } else {
        cache(client, peer, message);
    }
}

/* ---- events ---- */

static void on_no_hello(struct evpt_timer *timer, void *user)
{
    struct evpt_peer *peer = user;
    evpt_session_close(peer->session, false, "no HELLO within three heartbeats");
}

/* A node that stands still takes connections all the same, for its system does that; but no
 * heartbeat begins before its HELLO. One that has said HELLO before is no plain peer, so it has to
 * say it again. */
static void await_hello(struct evpt_clusterclient *client, struct evpt_peer *peer)
{
    uint64_t heartbeat_ns = client->config->cluster.heartbeat_ms * EVPT_NS_PER_MS;
    if (peer->message_max && heartbeat_ns)
        evpt_loop_timer(client->loop, &peer->hello_timer,
                        EVPT_SESSION_SILENT_HEARTBEATS * heartbeat_ns, on_no_hello, peer);
}

void evpt_clusterclient_on_connect(struct evpt_clusterclient *client, struct evpt_peer *peer,
                                   struct evpt_session *session, int error)
{
    assert(peer->status == EVPT_STATUS_CONNECTING);
    if (session) {
        peer->session = session;
        peer->going_away = false;
        peer->connects++;
        peer->stray_replies = peer->late_replies_due = 0;
        await_hello(client, peer);
        evpt_clusterclient_set_status(client, peer, EVPT_STATUS_CONNECTED, "");
        send_cached(client, peer);
        return;
    }
    char text[256], addr[EVPT_ADDR_TEXT_SIZE];
    snprintf(text, sizeof(text), "cannot connect to %s (%s): %s", peer->name,
             evpt_addr_format(&peer->addr, addr, sizeof(addr)),
             evpt_cluster_mgr_connect_reason(client->mgr, error));
    if (peer->failures == 0)
        evpt_logf(client->log, EVPT_LOG_WARN, "clusterclient", "%s", text);
    note_failure(client, peer);
    peer->meter.connect_failures++;
    evpt_clusterclient_set_status(client, peer, EVPT_STATUS_DISCONNECT, text);
    evpt_clusterclient_fail_cached(client, peer, EVPT_CODE_CONNECT_FAILED, text);
}

static void count_stray(struct evpt_clusterclient *client, struct evpt_session *session)
{
    struct evpt_peer *peer = evpt_session_tag(session);
    if (peer->late_replies_due) {
        peer->late_replies_due--; /* the answer to a call that has timed out */
    } else if (++peer->stray_replies > EVPT_STRAY_REPLIES_MAX) {
        evpt_session_refuse(session, "more than a thousand replies to no request");
    }
}

void evpt_clusterclient_on_reply(struct evpt_clusterclient *client, struct evpt_session *session,
                                 struct evpt_message *message)
{
    struct evpt_peer *peer = evpt_session_tag(session);
    struct evpt_context *context =
        client->context_count ? *find_cell(client, message->session) : NULL;
    if (!peer || !context || context->peer != peer || !context->wants_reply) {
        evpt_message_free(message);
        if (peer)
            count_stray(client, session);
        return;
    }
    if (evpt_reply_parse(message) != 0) {
        evpt_message_free(message);
        fail(client, context, EVPT_CODE_BAD_MESSAGE, EVPT_EXECUTED_MAYBE,
             "the reply cannot be read");
        return;
    }
    peer->failures = 0;
    peer->takes_over = false;
    detach(client, context);
    count_call(client, context, message->code);
    answer(client, context->source, context->caller_session, message);
    free_context(client, context);
}

void evpt_clusterclient_on_hello(struct evpt_clusterclient *client, struct evpt_session *session)
{
    struct evpt_peer *peer = evpt_session_tag(session);
    if (!peer)
        return;
    peer->message_max = evpt_session_peer_message_max(session);
    evpt_timer_stop(evpt_loop_wheel(client->loop), &peer->hello_timer);
    if (strcmp(evpt_session_peer_name(session), peer->name) != 0)
        evpt_logf(client->log, EVPT_LOG_WARN, "clusterclient",
                  "%s: the node list calls this address %s, the node there calls itself %s",
                  evpt_session_peer_addr(session), peer->name, evpt_session_peer_name(session));
}

void evpt_clusterclient_on_goaway(struct evpt_clusterclient *client, struct evpt_session *session,
                                  int code, const char *text)
{
    struct evpt_peer *peer = evpt_session_tag(session);
    if (!peer)
        return;
    peer->going_away = true;
    evpt_logf(client->log, EVPT_LOG_INFO, "clusterclient", "%s asks for no new requests: %s (%d)",
              peer->name, text, code);
}

void evpt_clusterclient_on_queued(struct evpt_clusterclient *client, uint32_t frame_session,
                                  uint64_t position)
{
    struct evpt_context *context = client->context_count ? *find_cell(client, frame_session) : NULL;
    if (!context)
        return; /* a call whose deadline has passed meanwhile */
    context->position = position;
    if (context->wants_reply)
        return;
    detach(client, context);
    note_send(context->peer, position);
    free_context(client, context);
}

void evpt_clusterclient_on_disconnect(struct evpt_clusterclient *client,
                                      struct evpt_session *session, int error, const char *reason)
{
    struct evpt_peer *peer = evpt_session_tag(session);
    if (!peer)
        return; /* the peer was removed or changed: its requests have been answered then */
    assert(peer->session == session && peer->status == EVPT_STATUS_CONNECTED);
    /* Who does not accept our certificate has not looked at what was sent behind it. */
    bool denied = error == -EVPT_EDENIED;
    uint64_t written = denied ? 0 : evpt_session_written(session);
    peer->session = NULL;
    peer->takes_over = true;
    peer->disconnects++;
    evpt_timer_stop(evpt_loop_wheel(client->loop), &peer->hello_timer);
    struct evpt_session_stats stats;
    evpt_session_stats(session, &stats);
    if (stats.messages_in == 0)
        note_failure(client, peer); /* nothing ever came of this connection */
    char text[256];
    snprintf(text, sizeof(text), "the connection to %s was lost: %s", peer->name, reason);
    evpt_logf(client->log, error == -EVPT_EPROTOCOL ? EVPT_LOG_ERROR : EVPT_LOG_WARN,
              "clusterclient", "%s (%s)", text, evpt_session_peer_addr(session));
    evpt_clusterclient_set_status(client, peer, EVPT_STATUS_DISCONNECT, text);
    evpt_clusterclient_lose_sends(client, peer, written);
    evpt_clusterclient_fail_sent(
        client, peer, denied ? EVPT_CODE_CONNECT_FAILED : EVPT_CODE_DISCONNECTED, written, text);
}

void evpt_clusterclient_seen(struct evpt_clusterclient *client, const char *name)
{
    struct evpt_peer *peer = evpt_clusterclient_find_peer(client, name, strlen(name));
    if (!peer)
        return;
    peer->failures = 0;
    peer->retry_at_ns = 0;
}

void evpt_clusterclient_drain(struct evpt_clusterclient *client)
{
    client->stopping = true;
}

uint32_t evpt_clusterclient_pending(const struct evpt_clusterclient *client)
{
    uint32_t total = client->context_count;
    for (uint32_t i = 0; i < client->peer_count; i++)
        total += client->peers[i]->cached_count;
    return total;
}

void evpt_clusterclient_check(const struct evpt_clusterclient *client)
{
    uint32_t sent = 0, in_table = 0;
    for (uint32_t i = 0; i < client->peer_count; i++) {
        const struct evpt_peer *peer = client->peers[i];
        uint32_t sent_here = 0, cached_here = 0;
        for (const struct evpt_list *n = peer->sent.next; n != &peer->sent; n = n->next)
            sent_here++;
        for (const struct evpt_list *n = peer->cached.next; n != &peer->cached; n = n->next)
            cached_here++;
        assert(sent_here == peer->sent_count && cached_here == peer->cached_count);
        assert((peer->session != NULL) == (peer->status == EVPT_STATUS_CONNECTED));
        assert(peer->session || sent_here == 0);
        assert(cached_here == 0 || peer->status == EVPT_STATUS_CONNECTING);
        sent += sent_here;
    }
    for (uint32_t i = 0; i < capacity_of(client); i++)
        in_table += client->session2context[i] != NULL;
    assert(sent == client->context_count && in_table == client->context_count);
    (void)sent;
    (void)in_table;
}
