#include "services/clusterserver.h"

#include "reactor/error.h"
#include "services/hash.h"
#include "services/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NO_SLOT UINT32_MAX
#define CAPACITY_MIN 64
#define CAPACITY_MAX (1u << 24)
#define DENIED_LINE_NS EVPT_NS_PER_S

/* A session of this node's has its slot in the low bits, as many as the capacity needs; the others
 * count how often the slot was used. They have to be many: the answer to a request whose connection
 * has gone may come when its slot has been reused for long, and must not be taken for another's. */
struct evpt_served {
    uint32_t connection; /* 0: free */
    uint32_t frame_session;
    uint32_t source;  /* the sender's number at its node, 0: not said */
    uint32_t handle;  /* who was asked */
    uint32_t session; /* this node's, of the request that has the slot, or had it last */
    uint32_t next_free;
};

/* ---- session2context ---- */

static bool grow(struct evpt_clusterserver *server)
{
    uint32_t capacity = server->capacity ? server->capacity * 2 : CAPACITY_MIN;
    if (capacity > CAPACITY_MAX)
        return false;
    struct evpt_served *served = evpt_sys_zalloc(capacity * sizeof(*served));
    if (!served)
        return false;
    for (uint32_t i = 0; i < capacity && !server->capacity; i++)
        served[i].session = i;
    /* Every slot is in use. By one bit more of its session it stays where it is or moves up by the
     * old capacity; the other one of these two places goes on counting from there. */
    for (uint32_t i = 0; i < server->capacity; i++) {
        uint32_t session = server->served[i].session;
        served[session & (capacity - 1)] = server->served[i];
        session += server->capacity;
        served[session & (capacity - 1)].session = session;
    }
    for (uint32_t i = capacity; i-- > 0;) {
        if (served[i].connection)
            continue;
        served[i].next_free = server->first_free;
        server->first_free = i;
    }
    evpt_sys_free(server->served);
    server->served = served;
    server->capacity = capacity;
    return true;
}

/* The session under which the answer will come; 0: no room. */
static uint32_t remember(struct evpt_clusterserver *server, const struct evpt_message *message,
                         uint32_t source)
{
    if (server->first_free == NO_SLOT && !grow(server))
        return 0;
    struct evpt_served *entry = &server->served[server->first_free];
    server->first_free = entry->next_free;
    server->count++;
    entry->session += server->capacity;
    if (entry->session < server->capacity)
        entry->session += server->capacity; /* wrapped: so that no session is 0 */
    entry->connection = message->connection;
    entry->frame_session = message->session;
    entry->source = source;
    entry->handle = message->target;
    return entry->session;
}

static struct evpt_served *recall(struct evpt_clusterserver *server, uint32_t session)
{
    if (!server->capacity)
        return NULL;
    struct evpt_served *entry = &server->served[session & (server->capacity - 1)];
    return entry->connection && entry->session == session ? entry : NULL;
}

static void forget(struct evpt_clusterserver *server, struct evpt_served *entry)
{
    entry->connection = 0;
    entry->next_free = server->first_free;
    server->first_free = (uint32_t)(entry - server->served);
    server->count--;
}

/* Nobody waits any more for what came in on it: the answers, if they ever come, find no entry. */
static void forget_connection(struct evpt_clusterserver *server, uint32_t connection)
{
    for (uint32_t i = 0; server->count && i < server->capacity; i++) {
        if (server->served[i].connection == connection)
            forget(server, &server->served[i]);
    }
}

/* ---- answers ---- */

/* An error that cannot be sent closes the connection: better lost than waiting. `reply` NULL: no
 * memory. */
static void send_error(struct evpt_session *session, uint32_t frame_session,
                       struct evpt_message *reply)
{
    int error = -ENOMEM;
    if (reply) {
        reply->session = frame_session;
        error = evpt_session_send(session, reply, NULL);
    }
    if (error == -EVPT_ELIMIT)
        evpt_session_close(session, false, "send_buffer_max: the peer does not read its replies");
    else if (error == -ENOMEM)
        evpt_session_close(session, false, "out of memory for a reply");
}

static void refuse(struct evpt_clusterserver *server, struct evpt_session *session,
                   struct evpt_message *message, int code, const char *text)
{
    atomic_fetch_add_explicit(&server->refused, 1, memory_order_relaxed);
    uint32_t frame_session = message->session;
    if (message->kind == EVPT_MESSAGE_CALL)
        send_error(session, frame_session, evpt_reply_instead(message, code, text, strlen(text)));
    else
        evpt_message_free(message);
}

void evpt_clusterserver_reply(struct evpt_clusterserver *server, struct evpt_message *message)
{
    struct evpt_served *entry =
        message->kind == EVPT_MESSAGE_REPLY ? recall(server, message->session) : NULL;
    struct evpt_session *session =
        entry ? evpt_cluster_mgr_accepted(server->mgr, entry->connection) : NULL;
    if (!session) {
        if (entry)
            forget(server, entry);
        atomic_fetch_add_explicit(&server->dropped_replies, 1, memory_order_relaxed);
        evpt_message_free(message);
        return;
    }
    uint32_t frame_session = entry->frame_session;
    message->session = frame_session;
    /* Replies of one service to one caller stay in order; a caller that does not say who it is gets
     * each as soon as it can be. */
    message->lane = entry->source ? (uint64_t)entry->handle << 32 | entry->source : 0;
    forget(server, entry);
    const char *text = NULL;
    switch (evpt_session_send(session, message, NULL)) {
    case -EVPT_ETOOLARGE:
        text = "the results are longer than message_max";
        break;
    case -EVPT_ELIMIT:
        text = "the results were dropped: send_buffer_max bytes are queued to the caller";
        break;
    case -ENOMEM:
        text = "the results were dropped: out of memory";
        break;
    }
    /* The method has run, so this is no code that says "not executed". */
    if (text)
        send_error(session, frame_session, evpt_reply_error(EVPT_CODE_FAILED, text, strlen(text)));
}

/* ---- requests ---- */

static bool is_builtin(const struct evpt_clusterserver *server, uint32_t handle)
{
    for (unsigned i = 0; i < server->builtin_count; i++) {
        if (server->builtin[i] == handle)
            return true;
    }
    return false;
}

static uint32_t find_service(struct evpt_clusterserver *server, const char *name, uint32_t size)
{
    struct evpt_registry *registry = &server->scheduler->registry;
    uint32_t version = atomic_load_explicit(&registry->version, memory_order_acquire);
    if (version != server->known_version) {
        memset(server->known, 0, sizeof(server->known));
        server->known_version = version;
    }
    struct evpt_known_name *known = &server->known[evpt_hash(name, size) % 64];
    if (known->handle && known->size == size && memcmp(known->name, name, size) == 0)
        return known->handle;
    uint32_t handle = evpt_registry_query(registry, name, size);
    if (is_builtin(server, handle) && handle != server->only)
        return 0;
    if (handle && size <= sizeof(known->name)) {
        known->handle = handle;
        known->size = size;
        memcpy(known->name, name, size);
    }
    return handle;
}

static void deliver(struct evpt_clusterserver *server, struct evpt_session *session,
                    struct evpt_message *message, const struct evpt_request_info *info)
{
    uint32_t frame_session = message->session;
    uint32_t local_session = 0;
    message->flags |= EVPT_MESSAGE_REMOTE;
    message->source = server->handle;
    if (message->kind == EVPT_MESSAGE_CALL) {
        local_session = remember(server, message, info->source);
        if (!local_session) {
            refuse(server, session, message, EVPT_CODE_OVERLOADED, "too many calls in progress");
            return;
        }
    }
    message->session = local_session;
    int error =
        evpt_post(server->scheduler,
                  server->only ? NULL : evpt_scheduler_loop_worker(server->scheduler), message);
    if (!error)
        return;
    if (local_session)
        forget(server, recall(server, local_session));
    message->session = frame_session;
    if (error == -EVPT_ELIMIT)
        refuse(server, session, message, EVPT_CODE_OVERLOADED,
               "mailbox_max: too many messages wait in the service");
    else
        refuse(server, session, message, EVPT_CODE_UNKNOWN_SERVICE, "the service has gone");
}

/* Whoever is denied may go on asking: one line a second. */
static void tell_denied(struct evpt_clusterserver *server, const struct evpt_session *session,
                        const char *text)
{
    uint64_t now_ns = evpt_loop_now(server->loop);
    atomic_fetch_add_explicit(&server->denied, 1, memory_order_relaxed);
    server->denied_untold++;
    if (server->denied_told_ns && now_ns < server->denied_told_ns + DENIED_LINE_NS)
        return;
    char more[64] = "";
    if (server->denied_untold > 1)
        snprintf(more, sizeof(more), "; %llu more since the last such line",
                 (unsigned long long)(server->denied_untold - 1));
    evpt_logf(server->log, EVPT_LOG_WARN, "clusterserver", "denied: %s (%s)%s", text,
              evpt_session_peer_addr(session), more);
    server->denied_told_ns = now_ns;
    server->denied_untold = 0;
}

/* False: refused. */
static bool check_caller(struct evpt_clusterserver *server, struct evpt_session *session,
                         struct evpt_message *message, const struct evpt_request_info *info)
{
    const char *method = (const char *)message->data + message->method_at;
    const char *caller = evpt_session_caller(session);
    char text[256];
    if (evpt_registry_allows(&server->scheduler->registry, message->target, method,
                             message->method_size, caller))
        return true;
    snprintf(text, sizeof(text), "%.*s.%.*s is not for %s",
             info->service_size < 64 ? (int)info->service_size : 64, info->service,
             message->method_size < 64 ? (int)message->method_size : 64, method,
             *caller ? caller : "a caller without a name");
    tell_denied(server, session, text);
    refuse(server, session, message, EVPT_CODE_DENIED, text);
    return false;
}

void evpt_clusterserver_on_request(struct evpt_clusterserver *server, struct evpt_session *session,
                                   struct evpt_message *message)
{
    struct evpt_request_info info;
    char text[160];
    atomic_fetch_add_explicit(&server->requests, 1, memory_order_relaxed);
    int error = evpt_request_parse(message, evpt_loop_now(server->loop), &info);
    if (error) {
        snprintf(text, sizeof(text), "not a request: %s", evpt_strerror(error));
        message->kind = EVPT_MESSAGE_CALL; /* whatever it was meant to be, it gets an answer */
        refuse(server, session, message, EVPT_CODE_BAD_MESSAGE, text);
        return;
    }
    if (info.takeover) /* before any of its requests runs, whatever lies in the earlier ones is void
                        */
        evpt_cluster_mgr_take_over(server->mgr, session);
    if (server->draining) {
        refuse(server, session, message, EVPT_CODE_STOPPING, "the node is draining");
        return;
    }
    message->target = find_service(server, info.service, info.service_size);
    if (server->only && message->target != server->only)
        message->target = 0;
    if (!message->target) {
        snprintf(text, sizeof(text), "no service %.*s",
                 info.service_size < 64 ? (int)info.service_size : 64, info.service);
        refuse(server, session, message, EVPT_CODE_UNKNOWN_SERVICE, text);
        return;
    }
    if (check_caller(server, session, message, &info))
        deliver(server, session, message, &info);
}

/* ---- connections ---- */

void evpt_clusterserver_on_accepted(struct evpt_clusterserver *server, struct evpt_session *session)
{
    evpt_logf(server->log, EVPT_LOG_DEBUG, "clusterserver", "%s connected",
              evpt_session_peer_addr(session));
}

void evpt_clusterserver_on_hello(struct evpt_clusterserver *server, struct evpt_session *session)
{
    if (server->client)
        evpt_clusterclient_seen(server->client, evpt_session_peer_name(session));
    if (server->draining)
        evpt_session_goaway(session, EVPT_CODE_STOPPING, "the node is draining");
}

void evpt_clusterserver_on_closed(struct evpt_clusterserver *server, struct evpt_session *session,
                                  int error, const char *reason)
{
    forget_connection(server, evpt_session_id(session));
    bool said_hello = evpt_session_said_hello(session);
    evpt_logf(server->log, error == -EVPT_EPROTOCOL ? EVPT_LOG_WARN : EVPT_LOG_INFO,
              "clusterserver", "connection from %s%s%s closed: %s", evpt_session_peer_addr(session),
              said_hello ? " " : "", evpt_session_peer_name(session), reason);
}

static void close_unlisted(struct evpt_session *session, void *user)
{
    struct evpt_clusterserver *server = user;
    const char *name = evpt_session_caller(session);
    enum evpt_connect_status status;
    if (evpt_session_caller_is_proved(session) &&
        !evpt_clusterclient_lookup(server->client, name, strlen(name), NULL, &status))
        evpt_session_close(session, false, "the node list no longer has it");
}

void evpt_clusterserver_close_unlisted(struct evpt_clusterserver *server)
{
    evpt_tcp_object_each(&server->mgr->server.object, close_unlisted, server);
}

void evpt_clusterserver_drain(struct evpt_clusterserver *server)
{
    if (server->draining)
        return;
    server->draining = true;
    evpt_cluster_mgr_stop_listening(server->mgr);
    evpt_cluster_mgr_goaway(server->mgr, EVPT_CODE_STOPPING, "the node is draining");
}

uint32_t evpt_clusterserver_pending(const struct evpt_clusterserver *server)
{
    return server->count;
}

int evpt_clusterserver_init(struct evpt_clusterserver *server, struct evpt_scheduler *scheduler,
                            struct evpt_cluster_mgr *mgr, struct evpt_loop *loop,
                            struct evpt_log *log, struct evpt_clusterclient *client)
{
    memset(server, 0, sizeof(*server));
    server->scheduler = scheduler;
    server->mgr = mgr;
    server->loop = loop;
    server->log = log;
    server->client = client;
    server->first_free = NO_SLOT;
    return 0;
}

void evpt_clusterserver_fini(struct evpt_clusterserver *server)
{
    evpt_sys_free(server->served);
    memset(server, 0, sizeof(*server));
}
