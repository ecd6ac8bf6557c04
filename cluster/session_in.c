/* Bytes in, messages out.
 *
 * Frames are parsed where the stream has them. A whole one costs one allocation and one copy;
 * everything about partial messages lies behind `session->partials`, which is NULL as long as there
 * is none.
 *
 * Partial messages stand in a hash table by session number (open addressing, at most half full),
 * which is made with the first and freed with the last of them. There is no list by age: the timer,
 * which runs once a heartbeat at most, looks at all of them, and parts pay nothing for it.
 */
#include "cluster/session.h"

#include "cluster/msgpack.h"
#include "cluster/session_private.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define PARTIALS_CAPACITY_MIN 8

struct partial {
    struct evpt_message *message; /* NULL: free slot; its `session` is the key */
    uint64_t progress_ns;         /* when data came last */
};

struct evpt_session_partials {
    uint32_t capacity; /* power of two */
    uint32_t count;
    struct partial slots[];
};

/* ---- the table ---- */

/* Fibonacci hashing: sessions are mostly consecutive, and a peer may choose them as it likes. */
static uint32_t home_of(const struct evpt_session_partials *table, uint32_t session)
{
    return (session * UINT32_C(2654435769)) >> 16 & (table->capacity - 1);
}

/* The slot of a session, or the free one where it would go. */
static struct partial *probe(struct evpt_session_partials *table, uint32_t session)
{
    uint32_t at = home_of(table, session);
    while (table->slots[at].message && table->slots[at].message->session != session)
        at = (at + 1) & (table->capacity - 1);
    return &table->slots[at];
}

static struct partial *find_partial(const struct evpt_session *session, uint32_t number)
{
    if (!session->partials)
        return NULL;
    struct partial *slot = probe(session->partials, number);
    return slot->message ? slot : NULL;
}

static struct evpt_session_partials *new_table(uint32_t capacity)
{
    struct evpt_session_partials *table =
        evpt_sys_zalloc(sizeof *table + capacity * sizeof table->slots[0]);
    if (table)
        table->capacity = capacity;
    return table;
}

/* Makes room for one more. */
static bool table_reserve(struct evpt_session *session)
{
    struct evpt_session_partials *old = session->partials;
    if (old && old->count < old->capacity / 2)
        return true;
    struct evpt_session_partials *table =
        new_table(old ? old->capacity * 2 : PARTIALS_CAPACITY_MIN);
    if (!table)
        return false;
    for (uint32_t i = 0; old && i < old->capacity; i++) {
        if (old->slots[i].message)
            *probe(table, old->slots[i].message->session) = old->slots[i];
    }
    table->count = old ? old->count : 0;
    evpt_sys_free(old);
    session->partials = table;
    return true;
}

/* Takes an entry out and moves back those behind it that would no longer be found. */
static void table_remove(struct evpt_session *session, struct partial *slot)
{
    struct evpt_session_partials *table = session->partials;
    if (--table->count == 0) {
        evpt_sys_free(table);
        session->partials = NULL;
        return;
    }
    uint32_t mask = table->capacity - 1;
    uint32_t hole = (uint32_t)(slot - table->slots);
    for (uint32_t at = (hole + 1) & mask; table->slots[at].message; at = (at + 1) & mask) {
        uint32_t home = home_of(table, table->slots[at].message->session);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole].message = NULL;
}

void evpt_session_partials_free(struct evpt_session *session)
{
    struct evpt_session_partials *table = session->partials;
    for (uint32_t i = 0; table && i < table->capacity; i++)
        evpt_message_free(table->slots[i].message);
    evpt_sys_free(table);
    session->partials = NULL;
}

uint64_t evpt_session_partials_due(const struct evpt_session *session)
{
    const struct evpt_session_partials *table = session->partials;
    uint64_t oldest = EVPT_FOREVER;
    for (uint32_t i = 0; table && i < table->capacity; i++) {
        if (table->slots[i].message && table->slots[i].progress_ns < oldest)
            oldest = table->slots[i].progress_ns;
    }
    if (oldest == EVPT_FOREVER)
        return EVPT_FOREVER;
    return oldest + EVPT_SESSION_PARTIAL_STALL_MS * EVPT_NS_PER_MS;
}

uint32_t evpt_session_partials_count(const struct evpt_session *session)
{
    return session->partials ? session->partials->count : 0;
}

void evpt_session_partials_check(const struct evpt_session *session)
{
    const struct evpt_session_partials *table = session->partials;
    if (!table)
        return;
    assert(table->capacity >= PARTIALS_CAPACITY_MIN);
    assert((table->capacity & (table->capacity - 1)) == 0);
    assert(table->count > 0 && table->count <= table->capacity / 2);
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->capacity; i++) {
        const struct evpt_message *message = table->slots[i].message;
        if (!message)
            continue;
        count++;
        assert(message->session != 0);
        assert(message->size <= message->capacity);
        assert(find_partial(session, message->session) == &table->slots[i]);
    }
    assert(count == table->count);
}

/* ---- messages ---- */

static void deliver(struct evpt_session *session, struct evpt_message *message)
{
    session->messages_in++;
    session->ops->on_message(session, message, session->user);
}

static void append(struct evpt_message *message, const struct evpt_frame *frame)
{
    memcpy(message->data + message->size, frame->data, frame->size);
    message->size += (uint32_t)frame->size;
}

/* A message that begins with this frame. NULL: out of memory, and the session has failed. */
static struct evpt_message *begin_message(struct evpt_session *session,
                                          const struct evpt_frame *frame, size_t capacity)
{
    struct evpt_message *message = evpt_message_new(capacity);
    if (!message) {
        evpt_session_fail(session, -ENOMEM, "out of memory for an incoming message");
        return NULL;
    }
    message->session = frame->session;
    message->connection = session->id;
    append(message, frame);
    return message;
}

/* The caller is to learn why its call fails, so it gets a reply before the connection ends. */
static void refuse_too_large(struct evpt_session *session, uint32_t number)
{
    if (session->role == EVPT_SESSION_SERVER) {
        static const char text[] = "the message is longer than message_max";
        uint8_t bytes[EVPT_FRAME_HEADER + sizeof text + 8];
        struct evpt_writer writer;
        evpt_writer_init(&writer, bytes + EVPT_FRAME_HEADER, sizeof bytes - EVPT_FRAME_HEADER);
        evpt_write_array(&writer, 3);
        evpt_write_int(&writer, 3);
        evpt_write_int(&writer, EVPT_SESSION_CODE_TOO_LARGE);
        evpt_write_array(&writer, 1);
        evpt_write_str(&writer, text, sizeof text - 1);
        size_t size = (size_t)(writer.at - bytes);
        evpt_frame_write_header(bytes, EVPT_FRAME_WHOLE, number, size - EVPT_FRAME_HEADER);
        /* Out of memory: the refusal says the same. */
        (void)evpt_stream_write(&session->stream, bytes, size);
    }
    evpt_session_refuse_with(session, EVPT_SESSION_CODE_TOO_LARGE,
                             "message longer than message_max");
}

static void take_whole(struct evpt_session *session, const struct evpt_frame *frame)
{
    if (find_partial(session, frame->session)) {
        evpt_session_refuse(session, "whole message in the middle of the parts of its session");
        return;
    }
    if (frame->size > session->config->message_max) {
        refuse_too_large(session, frame->session);
        return;
    }
    struct evpt_message *message = begin_message(session, frame, frame->size);
    if (message)
        deliver(session, message);
}

static void take_first(struct evpt_session *session, const struct evpt_frame *frame)
{
    if (find_partial(session, frame->session)) {
        evpt_session_refuse(session, "second first part of a message");
        return;
    }
    if (session->partials && session->partials->count == EVPT_SESSION_PARTIALS_MAX) {
        evpt_session_refuse(session, "more than 1024 partial messages at once");
        return;
    }
    uint32_t message_max = session->config->message_max;
    if (frame->size > message_max) {
        refuse_too_large(session, frame->session);
        return;
    }
    if (!table_reserve(session)) {
        evpt_session_fail(session, -ENOMEM, "out of memory for an incoming message");
        return;
    }
    /* As much again as came, and no more: a peer makes us allocate twice what it sends. */
    size_t capacity = frame->size * 2 < message_max ? frame->size * 2 : message_max;
    struct evpt_message *message = begin_message(session, frame, capacity);
    if (!message)
        return;
    struct partial *slot = probe(session->partials, frame->session);
    slot->message = message;
    slot->progress_ns = evpt_loop_now(session->loop);
    session->partials->count++;
    evpt_session_timer_by(session,
                          slot->progress_ns + EVPT_SESSION_PARTIAL_STALL_MS * EVPT_NS_PER_MS);
}

/* Room for the frame in the partial message, doubling up to message_max, which it is known not to
 * exceed. */
static bool partial_reserve(struct partial *slot, size_t more, size_t message_max)
{
    struct evpt_message *message = slot->message;
    if (more <= message->capacity - message->size)
        return true;
    size_t needed = message->size + more, capacity = (size_t)message->capacity * 2;
    if (capacity > message_max)
        capacity = message_max;
    message = evpt_message_resize(message, needed > capacity ? needed : capacity);
    if (message)
        slot->message = message;
    return message != NULL;
}

static void take_next(struct evpt_session *session, const struct evpt_frame *frame)
{
    struct partial *slot = find_partial(session, frame->session);
    if (!slot) {
        evpt_session_refuse(session, "part of a message without its first one");
        return;
    }
    size_t message_max = session->config->message_max;
    if (slot->message->size + frame->size > message_max) {
        refuse_too_large(session, frame->session);
        return;
    }
    if (!partial_reserve(slot, frame->size, message_max)) {
        evpt_session_fail(session, -ENOMEM, "out of memory for an incoming message");
        return;
    }
    append(slot->message, frame);
    if (frame->size > 0) /* empty parts are no progress, or they could go on for ever */
        slot->progress_ns = evpt_loop_now(session->loop);
    if (frame->flag == EVPT_FRAME_LAST) {
        struct evpt_message *message = slot->message;
        table_remove(session, slot);
        deliver(session, message);
    }
}

/* ---- frames ---- */

static void take_frame(struct evpt_session *session, const struct evpt_frame *frame)
{
    switch (frame->flag) {
    case EVPT_FRAME_WHOLE:
        take_whole(session, frame);
        break;
    case EVPT_FRAME_FIRST:
        take_first(session, frame);
        break;
    case EVPT_FRAME_MIDDLE:
    case EVPT_FRAME_LAST:
        take_next(session, frame);
        break;
    case EVPT_FRAME_HELLO:
    case EVPT_FRAME_PING:
    case EVPT_FRAME_PONG:
    case EVPT_FRAME_GOAWAY:
        evpt_session_take_control(session, frame);
        break;
    }
}

ssize_t evpt_session_on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                             void *user)
{
    struct evpt_session *session = user;
    const uint8_t *at = bytes, *end = bytes + size;

    evpt_session_enter(session);
    session->last_in_ns = evpt_loop_now(session->loop);
    session->pings = 0;
    while (session->state == EVPT_SESSION_OPEN) {
        struct evpt_frame frame;
        const char *reason;
        ssize_t taken = evpt_frame_read(&frame, at, (size_t)(end - at), &reason);
        if (taken < 0) {
            evpt_session_refuse(session, reason);
            break;
        }
        if (taken == 0)
            break;
        at += taken;
        take_frame(session, &frame);
    }
    if (session->state != EVPT_SESSION_OPEN)
        at = end; /* what still comes is thrown away */
    session->tail = at < end;
    if (session->tail)
        evpt_session_timer_by(session,
                              session->last_in_ns + EVPT_SESSION_PARTIAL_STALL_MS * EVPT_NS_PER_MS);
    evpt_session_leave(session);
    return at - bytes;
}
