/* Life cycle, states, control frames, and the one timer of a session. See session_private.h for the
 * states. */
#include "cluster/session.h"

#include "cluster/bytes.h"
#include "cluster/msgpack.h"
#include "cluster/session_private.h"
#include "reactor/error.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

/* ---- states ---- */

static const char *const state_names[EVPT_SESSION_STATES] = {
    [EVPT_SESSION_OPEN] = "open",     [EVPT_SESSION_FLUSHING] = "flushing",
    [EVPT_SESSION_ENDING] = "ending", [EVPT_SESSION_SHUT] = "shut",
    [EVPT_SESSION_CLOSED] = "closed",
};

static const bool allowed[EVPT_SESSION_STATES][EVPT_SESSION_STATES] = {
    [EVPT_SESSION_OPEN] = {[EVPT_SESSION_FLUSHING] = true,
                           [EVPT_SESSION_ENDING] = true,
                           [EVPT_SESSION_CLOSED] = true},
    [EVPT_SESSION_FLUSHING] = {[EVPT_SESSION_ENDING] = true, [EVPT_SESSION_CLOSED] = true},
    [EVPT_SESSION_ENDING] = {[EVPT_SESSION_SHUT] = true, [EVPT_SESSION_CLOSED] = true},
    [EVPT_SESSION_SHUT] = {[EVPT_SESSION_CLOSED] = true},
};

static void set_state(struct evpt_session *session, enum evpt_session_state to)
{
    assert(allowed[session->state][to]);
    session->state = (uint8_t)to;
}

const char *evpt_session_state_name(const struct evpt_session *session)
{
    return state_names[session->state];
}

/* ---- the end ---- */

/* What on_close will say. */
static void set_reason(struct evpt_session *session, int error, const char *reason)
{
    session->close_error = error;
    size_t size = strnlen(reason, EVPT_SESSION_REASON_MAX);
    memcpy(session->close_reason, reason, size);
    session->close_reason[size] = 0;
}

/* The timer has nothing else to do from now on. */
static void start_linger(struct evpt_session *session)
{
    session->linger_mark = session->stream.written_total;
    session->timer_due_ns = EVPT_FOREVER;
    evpt_session_timer_by(session,
                          evpt_loop_now(session->loop) + EVPT_SESSION_LINGER_MS * EVPT_NS_PER_MS);
}

/* From here on on_drain says when the last byte has left. */
static void await_empty_stream(struct evpt_session *session)
{
    session->stream.low_water = 0;
    /* Not only after a full queue: a slow peer lets a few bytes wait, too. */
    session->stream.above_high = true;
}

/* From OPEN to FLUSHING or ENDING: nothing is taken in or accepted any more. */
static void begin_end(struct evpt_session *session, enum evpt_session_state state, int error,
                      const char *reason)
{
    set_state(session, state);
    set_reason(session, error, reason);
    evpt_session_partials_free(session);
    if (state == EVPT_SESSION_ENDING)
        await_empty_stream(session);
    start_linger(session);
    evpt_session_pump_later(session);
}

void evpt_session_lanes_emptied(struct evpt_session *session)
{
    set_state(session, EVPT_SESSION_ENDING);
    await_empty_stream(session);
}

void evpt_session_try_shut(struct evpt_session *session)
{
    evpt_stream_flush(&session->stream);
    if (evpt_stream_queued(&session->stream) > 0 || !evpt_stream_is_open(&session->stream))
        return;
    if (session->role == EVPT_SESSION_CLIENT && session->close_error) {
        /* A server broke the protocol. Calls wait for this end: they are not to wait for the server's, too. */
        evpt_session_fail(session, 0, NULL);
        return;
    }
    set_state(session, EVPT_SESSION_SHUT);
    start_linger(session);
    evpt_stream_shutdown(&session->stream);
}

void evpt_session_fail(struct evpt_session *session, int error, const char *reason)
{
    if (session->state == EVPT_SESSION_CLOSED)
        return;
    if (session->state == EVPT_SESSION_OPEN || error)
        set_reason(session, error, reason);
    set_state(session, EVPT_SESSION_CLOSED);
    evpt_session_partials_free(session);
    evpt_stream_close(&session->stream, false);
}

void evpt_session_close(struct evpt_session *session, bool flush, const char *reason)
{
    if (!flush)
        evpt_session_fail(session, 0, reason);
    else if (session->state == EVPT_SESSION_OPEN)
        begin_end(session, EVPT_SESSION_FLUSHING, 0, reason);
}

void evpt_session_refuse_with(struct evpt_session *session, int code, const char *reason)
{
    if (session->state != EVPT_SESSION_OPEN)
        return;
    evpt_session_goaway(session, code, reason);
    begin_end(session, EVPT_SESSION_ENDING, -EVPT_EPROTOCOL, reason);
}

void evpt_session_refuse(struct evpt_session *session, const char *reason)
{
    evpt_session_refuse_with(session, EVPT_SESSION_CODE_BAD_MESSAGE, reason);
}

static void on_stream_close(struct evpt_stream *stream, int error, void *user)
{
    struct evpt_session *session = user;
    evpt_session_enter(session);
    if (session->state == EVPT_SESSION_OPEN)
        set_reason(session, error, evpt_stream_reason(stream, error));
    if (session->state != EVPT_SESSION_CLOSED)
        set_state(session, EVPT_SESSION_CLOSED);
    evpt_session_partials_free(session);
    session->ops->on_close(session, session->close_error, session->close_reason, session->user);
    evpt_session_free(session);
    evpt_session_leave(session);
}

/* ---- control frames ---- */

static void write_control(struct evpt_session *session, enum evpt_frame_flag flag,
                          const uint8_t *data, size_t size)
{
    uint8_t *frame = evpt_stream_reserve(&session->stream, EVPT_FRAME_HEADER + size);
    if (!frame) /* no memory: the peer does without it; closed: there is no peer */
        return;
    evpt_frame_write_header(frame, flag, 0, size);
    memcpy(frame + EVPT_FRAME_HEADER, data, size);
}

static void write_hello(struct evpt_session *session)
{
    const struct evpt_session_config *config = session->config;
    uint8_t data[4 * EVPT_ITEM_MAX + EVPT_NODE_NAME_MAX];
    struct evpt_writer writer;
    evpt_writer_init(&writer, data, sizeof data);
    evpt_write_array(&writer, 4);
    evpt_write_int(&writer, EVPT_PROTOCOL_VERSION);
    evpt_write_str(&writer, config->node, strlen(config->node));
    evpt_write_int(&writer, (int64_t)config->incarnation);
    evpt_write_int(&writer, config->message_max);
    write_control(session, EVPT_FRAME_HELLO, data, (size_t)(writer.at - data));
}

/* A name goes into log lines and tables as it is. */
static bool is_name(const char *bytes, uint32_t size)
{
    if (size > EVPT_NODE_NAME_MAX)
        return false;
    for (uint32_t i = 0; i < size; i++) {
        if (bytes[i] <= ' ' || bytes[i] > '~')
            return false;
    }
    return true;
}

/* [version, node name, incarnation, message_max, ...]; what follows is for later versions. */
static bool read_hello(struct evpt_session *session, const struct evpt_frame *frame)
{
    struct evpt_reader reader;
    uint32_t count, name_size;
    int64_t version, incarnation, message_max;
    const char *name;
    evpt_reader_init(&reader, frame->data, frame->size);
    if (evpt_read_array(&reader, &count) || count < 4 || evpt_read_int(&reader, &version) ||
        evpt_read_str(&reader, &name, &name_size) || evpt_read_int(&reader, &incarnation) ||
        evpt_read_int(&reader, &message_max))
        return false;
    if (version < 1 || incarnation < 0 || message_max < 1 || !is_name(name, name_size))
        return false;
    memcpy(session->peer_name, name, name_size);
    session->peer_name[name_size] = 0;
    session->peer_incarnation = (uint64_t)incarnation;
    session->peer_message_max = message_max < UINT32_MAX ? (uint32_t)message_max : UINT32_MAX;
    return true;
}

/* Whoever has to prove its name may say no other. */
static bool says_its_own_name(const struct evpt_session *session)
{
    const struct evpt_transport *transport = session->stream.transport;
    return !transport || !transport->names_proved ||
           transport->ops->speaks_for(transport, session->peer_name);
}

static uint64_t heartbeat_ns(const struct evpt_session *session)
{
    return session->config->heartbeat_ms * EVPT_NS_PER_MS;
}

static void take_hello(struct evpt_session *session, const struct evpt_frame *frame)
{
    if (session->said_hello) {
        evpt_session_refuse(session, "second HELLO");
        return;
    }
    if (!read_hello(session, frame)) {
        evpt_session_refuse(session, "HELLO that does not decode");
        return;
    }
    if (!says_its_own_name(session)) {
        session->peer_name[0] = 0;
        evpt_session_refuse(session, "HELLO with a name that the certificate does not prove");
        return;
    }
    session->said_hello = true;
    if (session->role == EVPT_SESSION_SERVER)
        write_hello(session);
    evpt_session_timer_by(session, session->last_in_ns + heartbeat_ns(session));
    if (session->ops->on_hello)
        session->ops->on_hello(session, session->user);
}

static void take_ping(struct evpt_session *session, const struct evpt_frame *frame)
{
    /* A peer that asks and asks without reading the answers does not fill our memory with them. */
    if (session->said_hello && evpt_session_queued(session) < session->config->send_buffer_max)
        write_control(session, EVPT_FRAME_PONG, frame->data, frame->size);
}

static void write_ping(struct evpt_session *session, uint64_t now_ns)
{
    uint8_t data[8];
    evpt_store_u64(data, now_ns);
    session->ping_ns = now_ns;
    write_control(session, EVPT_FRAME_PING, data, sizeof data);
}

static void take_pong(struct evpt_session *session, const struct evpt_frame *frame)
{
    if (frame->size != 8 || session->ping_ns == 0 || evpt_load_u64(frame->data) != session->ping_ns)
        return; /* not the answer to our last question: says no more than any other byte */
    uint64_t now_ns = evpt_loop_now(session->loop);
    session->round_trip_ns = now_ns > session->ping_ns ? now_ns - session->ping_ns : 1;
    session->ping_ns = 0;
}

/* [code, text, ...]. The flag says what matters; if the data do not decode, only the explanation is
 * lost. */
static void take_goaway(struct evpt_session *session, const struct evpt_frame *frame)
{
    struct evpt_reader reader;
    uint32_t count, size = 0;
    int64_t code = 0;
    const char *bytes = "";
    evpt_reader_init(&reader, frame->data, frame->size);
    if (evpt_read_array(&reader, &count) || count < 2 || evpt_read_int(&reader, &code) ||
        evpt_read_str(&reader, &bytes, &size) || code < 0 || code > UINT16_MAX) {
        code = 0;
        size = 0;
    }
    char text[EVPT_FRAME_CONTROL_MAX + 1]; /* goes into a log line: one line */
    for (uint32_t i = 0; i < size; i++)
        text[i] = bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '?';
    text[size] = 0;
    if (session->ops->on_goaway)
        session->ops->on_goaway(session, (int)code, text, session->user);
}

void evpt_session_take_control(struct evpt_session *session, const struct evpt_frame *frame)
{
    switch (frame->flag) {
    case EVPT_FRAME_HELLO:
        take_hello(session, frame);
        break;
    case EVPT_FRAME_PING:
        take_ping(session, frame);
        break;
    case EVPT_FRAME_PONG:
        take_pong(session, frame);
        break;
    case EVPT_FRAME_GOAWAY:
        take_goaway(session, frame);
        break;
    default:
        assert(!"a control frame");
    }
}

void evpt_session_goaway(struct evpt_session *session, int code, const char *text)
{
    if (session->state != EVPT_SESSION_OPEN || !session->said_hello)
        return;
    uint8_t data[EVPT_FRAME_CONTROL_MAX];
    struct evpt_writer writer;
    evpt_writer_init(&writer, data, sizeof data);
    size_t size_max = sizeof data - 3 * EVPT_ITEM_MAX, size = strlen(text);
    evpt_write_array(&writer, 2);
    evpt_write_int(&writer, code);
    evpt_write_str(&writer, text, size < size_max ? size : size_max);
    write_control(session, EVPT_FRAME_GOAWAY, data, (size_t)(writer.at - data));
}

/* ---- the timer ----
 *
 * Runs until the earliest of what it is for. Messages do not touch it: when it fires, it looks at
 * the times that they left behind and is set again for what is then the earliest. */

static void on_timer(struct evpt_timer *timer, void *user);

void evpt_session_timer_by(struct evpt_session *session, uint64_t due_ns)
{
    if (due_ns >= session->timer_due_ns)
        return;
    session->timer_due_ns = due_ns;
    evpt_timer_start(evpt_loop_wheel(session->loop), &session->timer, due_ns, on_timer, session);
}

/* Says PING after a heartbeat of silence. False: the peer is gone. It had to be asked before, since
 * a machine that slept finds that everybody has been silent. */
static bool heartbeat(struct evpt_session *session, uint64_t now_ns)
{
    uint64_t period_ns = heartbeat_ns(session);
    if (!session->said_hello || period_ns == 0)
        return true;
    uint64_t due_ns = session->last_in_ns + (session->pings + 1) * period_ns;
    if (now_ns >= due_ns) {
        if (session->pings + 1 >= EVPT_SESSION_SILENT_HEARTBEATS)
            return false;
        session->pings++;
        write_ping(session, now_ns);
        due_ns = now_ns + period_ns;
    }
    evpt_session_timer_by(session, due_ns);
    return true;
}

static void check_open(struct evpt_session *session, uint64_t now_ns)
{
    if (!heartbeat(session, now_ns)) {
        evpt_session_fail(session, -EVPT_ETIMEOUT, "silent for three heartbeats");
        return;
    }
    uint64_t stall_ns = evpt_session_partials_due(session);
    uint64_t tail_ns = session->last_in_ns + EVPT_SESSION_PARTIAL_STALL_MS * EVPT_NS_PER_MS;
    if (session->tail && tail_ns < stall_ns)
        stall_ns = tail_ns;
    if (now_ns >= stall_ns)
        evpt_session_refuse(session, "partial message without progress for 30 s");
    else
        evpt_session_timer_by(session, stall_ns);
}

static void check_linger(struct evpt_session *session)
{
    if (session->stream.written_total == session->linger_mark)
        evpt_session_fail(session, 0, NULL); /* the reason is known */
    else
        start_linger(session);
}

static void on_timer(struct evpt_timer *timer, void *user)
{
    struct evpt_session *session = user;
    evpt_session_enter(session);
    /* It never fires early, so it is that late at least, whatever the loop's clock says. */
    uint64_t now_ns = evpt_loop_now(session->loop);
    if (now_ns < session->timer_due_ns)
        now_ns = session->timer_due_ns;
    session->timer_due_ns = EVPT_FOREVER;
    if (session->state == EVPT_SESSION_OPEN)
        check_open(session, now_ns);
    else if (session->state != EVPT_SESSION_CLOSED)
        check_linger(session);
    evpt_session_leave(session);
}

/* ---- construction ---- */

static void on_stream_drain(struct evpt_stream *stream, void *user)
{
    evpt_session_pump_later(user);
}

static const struct evpt_stream_ops stream_ops = {
    .on_data = evpt_session_on_data,
    .on_drain = on_stream_drain,
    .on_close = on_stream_close,
};

static void peer_addr_text(int fd, char text[EVPT_ADDR_TEXT_SIZE])
{
    struct evpt_addr addr = {0};
    if (evpt_sys_peer_addr(fd, &addr) < 0)
        strcpy(text, "?");
    else
        evpt_addr_format(&addr, text, EVPT_ADDR_TEXT_SIZE);
}

int evpt_session_new_over(struct evpt_session **ret_session, struct evpt_loop *loop, int fd,
                          struct evpt_transport *transport, enum evpt_session_role role,
                          uint32_t id, const struct evpt_session_config *config,
                          const struct evpt_session_ops *ops, void *user)
{
    char addr[EVPT_ADDR_TEXT_SIZE];
    peer_addr_text(fd, addr);
    size_t addr_size = strlen(addr) + 1;
    struct evpt_session *session = evpt_sys_zalloc(sizeof *session + addr_size);
    if (!session) {
        evpt_transport_free(transport);
        evpt_sys_close(fd);
        return -ENOMEM;
    }
    memcpy(session->peer_addr, addr, addr_size);
    session->loop = loop;
    session->config = config;
    session->ops = ops;
    session->user = user;
    session->id = id;
    session->role = (uint8_t)role;
    session->timer_due_ns = EVPT_FOREVER;
    session->last_in_ns = evpt_loop_now(loop);
    session->peer_message_max = UINT32_MAX;
    session->stream.high_water = EVPT_SESSION_HIGH_WATER;
    session->stream.low_water = EVPT_SESSION_LOW_WATER;
    session->stream.transport = transport;
    /* Local sockets do not know the option and have no such queue either. */
    (void)evpt_sys_set_notsent_lowat(fd, EVPT_SESSION_NOT_SENT_MAX);
    /* Heartbeats begin with the peer's HELLO. A connection that has died before it would take
     * requests for as long as the system repeats itself, all of which would run into their
     * deadlines. Not for those who connect to us: a slow reader may take its time. */
    if (role == EVPT_SESSION_CLIENT && config->heartbeat_ms)
        (void)evpt_sys_set_user_timeout(fd, EVPT_SESSION_SILENT_HEARTBEATS * config->heartbeat_ms);
    /* And nobody asks a peer that never says HELLO whether it is there: one that has vanished without
     * a word, or whose RST was lost, would keep its descriptor for ever. */
    if (config->heartbeat_ms)
        (void)evpt_sys_set_keepalive(fd, config->heartbeat_ms, EVPT_SESSION_SILENT_HEARTBEATS);
    int error = evpt_stream_start(&session->stream, loop, fd, &stream_ops, session);
    if (error) {
        evpt_sys_free(session);
        return error;
    }
    if (role == EVPT_SESSION_CLIENT)
        write_hello(session);
    *ret_session = session;
    return 0;
}

void evpt_session_leave(struct evpt_session *session)
{
    assert(session->entered > 0);
    if (--session->entered == 0 && session->freed)
        evpt_sys_free(session);
}

void evpt_session_free(struct evpt_session *session)
{
    if (!session || session->freed)
        return;
    session->freed = true;
    if (session->state != EVPT_SESSION_CLOSED)
        set_state(session, EVPT_SESSION_CLOSED);
    evpt_timer_stop(evpt_loop_wheel(session->loop), &session->timer);
    evpt_deferred_cancel(&session->pump);
    evpt_stream_fini(&session->stream); /* lets go of the messages' bytes, so before the lanes */
    evpt_session_lanes_free(session);
    evpt_session_partials_free(session);
    if (session->entered == 0)
        evpt_sys_free(session);
}

/* ---- reading it ---- */

uint64_t evpt_session_written(const struct evpt_session *session)
{
    return session->stream.written_total;
}

void evpt_session_flush(struct evpt_session *session)
{
    evpt_stream_flush(&session->stream);
}

uint32_t evpt_session_id(const struct evpt_session *session)
{
    return session->id;
}

enum evpt_session_role evpt_session_role(const struct evpt_session *session)
{
    return (enum evpt_session_role)session->role;
}

bool evpt_session_is_open(const struct evpt_session *session)
{
    return session->state == EVPT_SESSION_OPEN && evpt_stream_is_open(&session->stream);
}

const char *evpt_session_peer_addr(const struct evpt_session *session)
{
    return session->peer_addr;
}

bool evpt_session_said_hello(const struct evpt_session *session)
{
    return session->said_hello;
}

const char *evpt_session_peer_name(const struct evpt_session *session)
{
    return session->peer_name;
}

uint64_t evpt_session_peer_incarnation(const struct evpt_session *session)
{
    return session->peer_incarnation;
}

uint32_t evpt_session_peer_message_max(const struct evpt_session *session)
{
    return session->said_hello ? session->peer_message_max : 0;
}

const char *evpt_session_caller(const struct evpt_session *session)
{
    if (session->said_hello || !session->stream.transport)
        return session->peer_name;
    return session->stream.transport->peer;
}

bool evpt_session_caller_is_proved(const struct evpt_session *session)
{
    return session->stream.transport && session->stream.transport->names_proved;
}

uint64_t evpt_session_round_trip_ns(const struct evpt_session *session)
{
    return session->round_trip_ns;
}

void evpt_session_set_tag(struct evpt_session *session, void *tag)
{
    session->tag = tag;
}

void *evpt_session_tag(const struct evpt_session *session)
{
    return session->tag;
}

void evpt_session_stats(const struct evpt_session *session, struct evpt_session_stats *ret_stats)
{
    *ret_stats = (struct evpt_session_stats){
        .messages_in = session->messages_in,
        .messages_out = session->messages_out,
        .bytes_in = session->stream.read_total,
        .bytes_out = session->stream.written_total,
        .partials_in = evpt_session_partials_count(session),
        .long_out = evpt_session_lanes_count(session),
    };
}

void evpt_session_check(const struct evpt_session *session)
{
    assert(session->state < EVPT_SESSION_STATES);
    assert(session->id != 0);
    assert(!session->freed);
    assert((session->timer_due_ns != EVPT_FOREVER) == evpt_timer_is_running(&session->timer));
    if (session->state == EVPT_SESSION_OPEN) {
        /* whoever waits for something has a timer that ends the wait */
        assert(evpt_session_partials_due(session) >= session->timer_due_ns);
        assert(!session->tail || session->timer_due_ns != EVPT_FOREVER);
    } else {
        assert(!session->partials);
        assert(session->state == EVPT_SESSION_CLOSED || session->timer_due_ns != EVPT_FOREVER);
    }
    evpt_session_partials_check(session);
    evpt_session_lanes_check(session);
}
