/* A whole session over a socket pair: the input is what the peer writes. The back of the input
 * says how it is cut, and what happens meanwhile.
 *
 * Half of the inputs (`compare`) are read by two sessions, one of which gets them cut as the input
 * says and the other in large pieces: both must report the same events. In the other half the user
 * of the session sends, closes, frees it inside callbacks, the peer stops reading, memory is
 * refused, and time passes.
 *
 * What the session writes is read as a peer would: each frame must be good, each message arrives
 * once and as it was sent, and those of one lane in order.
 */
#include "fuzz.h"

#include "cluster/frame.h"
#include "cluster/session.h"
#include "reactor/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURNS_MAX 20000 /* after which a loop that finds work each time is taken to spin */
#define SENT_MAX 64
#define LANES 4
/* Memory that a session may hold: a multiple of the peer's bytes, what it was given to send, and
 * what a connection takes at all. */
#define MEMORY_MAX(fed, sent) ((1 << 20) + 64 * (fed) + 2 * (sent))

enum callback { ON_MESSAGE, ON_HELLO, ON_GOAWAY, ON_QUEUED, CALLBACKS };

struct sent {
    uint32_t size, arrived;
    uint8_t lane;
    bool accepted, whole;
};

struct end {
    struct evpt_loop *loop;
    struct evpt_session_config config;
    struct evpt_session *session; /* NULL: on_close was called, or it was freed */
    int peer;
    uint64_t events; /* a hash of all that was reported */
    unsigned messages, closes;
    bool closed_here, faulty; /* the user closed it; memory was refused: anything may be missing */
    uint8_t hostile[CALLBACKS];
    struct sent sent[SENT_MAX + 1]; /* by session, from 1 */
    unsigned sent_count;
    uint32_t last_whole[LANES]; /* the session that arrived last */
    uint8_t *out;               /* written by the session and not yet read as frames */
    size_t out_size, fed, sent_bytes, memory_before;
};

/* ---- what the session reports ---- */

static void note(struct end *end, const void *bytes, size_t size)
{
    end->events = fuzz_hash(end->events, bytes, size);
}

static void send_message(struct end *end, uint8_t how)
{
    static const uint32_t sizes[] = {0, 1, 100, 4096, 4097, 32768, 32769, 100000};
    uint32_t size = sizes[how % 8], number = end->sent_count + 1;
    if (number > SENT_MAX || !end->session)
        return;
    struct evpt_message *message = evpt_message_new(size);
    if (!message)
        return;
    struct sent *sent = &end->sent[number];
    *sent = (struct sent){.size = size, .lane = how / 8 % LANES};
    end->sent_count++;
    end->sent_bytes += size;
    message->session = number;
    message->lane = sent->lane;
    message->size = size;
    fuzz_fill(message->data, size, number, 0);
    uint64_t position;
    int error = evpt_session_send(end->session, message, &position);
    FUZZ_CHECK(error == 0 || error == -EVPT_ECLOSED || error == -EVPT_ETOOLARGE ||
               error == -EVPT_ELIMIT || error == -ENOMEM);
    sent->accepted = error == 0;
}

/* A user that does the worst in a callback. */
static void act(struct end *end, enum callback where)
{
    uint8_t how = end->hostile[where];
    evpt_session_check(end->session);
    switch (how % 16) {
    case 1:
        end->closed_here = true;
        evpt_session_free(end->session);
        end->session = NULL;
        return;
    case 2:
    case 3:
        end->closed_here = true;
        evpt_session_close(end->session, how % 2, "as the input says");
        break;
    case 4:
        end->closed_here = true;
        evpt_session_refuse(end->session, "as the input says");
        break;
    case 5:
        evpt_session_goaway(end->session, 11, "as the input says");
        break;
    case 6:
        evpt_session_flush(end->session);
        break;
    case 7:
    case 8:
        send_message(end, how);
        break;
    default:
        break;
    }
    evpt_session_check(end->session);
}

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct end *end = user;
    FUZZ_CHECK(end->session == session);
    FUZZ_CHECK(message->session && message->connection == evpt_session_id(session));
    FUZZ_CHECK(message->size <= end->config.message_max);
    end->messages++;
    note(end, &message->session, sizeof(message->session));
    note(end, message->data, message->size);
    evpt_message_free(message);
    act(end, ON_MESSAGE);
}

static void on_hello(struct evpt_session *session, void *user)
{
    struct end *end = user;
    const char *name = evpt_session_peer_name(session);
    FUZZ_CHECK(evpt_session_said_hello(session));
    FUZZ_CHECK(strlen(name) <= EVPT_NODE_NAME_MAX);
    note(end, name, strlen(name));
    act(end, ON_HELLO);
}

static void on_goaway(struct evpt_session *session, int code, const char *text, void *user)
{
    struct end *end = user;
    (void)session;
    FUZZ_CHECK(strlen(text) <= EVPT_FRAME_CONTROL_MAX);
    note(end, &code, sizeof(code));
    note(end, text, strlen(text));
    act(end, ON_GOAWAY);
}

static void on_queued(struct evpt_session *session, uint32_t number, uint64_t position, void *user)
{
    struct end *end = user;
    FUZZ_CHECK(number && number <= end->sent_count && end->sent[number].accepted);
    FUZZ_CHECK(position >= evpt_session_written(session));
    act(end, ON_QUEUED);
}

static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct end *end = user;
    FUZZ_CHECK(end->session == session && end->closes++ == 0);
    note(end, &error, sizeof(error));
    note(end, reason, strlen(reason));
    end->session = NULL;
}

static const struct evpt_session_ops ops = {
    .on_message = on_message,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_close = on_close,
};

/* ---- what it writes ---- */

static void take_data(struct end *end, const struct evpt_frame *frame)
{
    FUZZ_CHECK(frame->session && frame->session <= end->sent_count);
    struct sent *sent = &end->sent[frame->session];
    bool first = frame->flag == EVPT_FRAME_WHOLE || frame->flag == EVPT_FRAME_FIRST;
    bool last = frame->flag == EVPT_FRAME_WHOLE || frame->flag == EVPT_FRAME_LAST;
    FUZZ_CHECK(sent->accepted && !sent->whole);
    FUZZ_CHECK(first == (sent->arrived == 0));
    FUZZ_CHECK(frame->size <= sent->size - sent->arrived);
    FUZZ_CHECK(fuzz_is_filled(frame->data, frame->size, frame->session, sent->arrived));
    sent->arrived += (uint32_t)frame->size;
    FUZZ_CHECK(last == (sent->arrived == sent->size));
    if (!last)
        return;
    sent->whole = true;
    if (sent->lane) /* lane 0: each for itself */
        FUZZ_CHECK(frame->session > end->last_whole[sent->lane]);
    end->last_whole[sent->lane] = frame->session;
}

static void read_frames(struct end *end)
{
    size_t at = 0;
    for (;;) {
        struct evpt_frame frame;
        const char *reason = "";
        ssize_t size = evpt_frame_read(&frame, end->out + at, end->out_size - at, &reason);
        FUZZ_CHECK(size >= 0);
        if (size == 0)
            break;
        if (frame.flag <= EVPT_FRAME_LAST)
            take_data(end, &frame);
        at += (size_t)size;
    }
    end->out_size -= at;
    memmove(end->out, end->out + at, end->out_size);
}

/* True: the session has closed its side. */
static bool read_peer(struct end *end)
{
    ssize_t got;
    do {
        got = evpt_sys_read(end->peer, end->out + end->out_size, EVPT_FRAME_MAX);
        if (got > 0)
            end->out_size += (size_t)got;
        read_frames(end);
    } while (got > 0);
    return got != -EAGAIN;
}

/* ---- what happens ---- */

static void turn(struct end *end)
{
    unsigned turns = 0;
    do {
        FUZZ_CHECK(++turns < TURNS_MAX);
        if (end->session)
            evpt_session_check(end->session);
    } while (evpt_loop_turn(end->loop, 0) > 0 && turns % 64);
    FUZZ_CHECK(fuzz_memory() - end->memory_before < MEMORY_MAX(end->fed, end->sent_bytes));
}

static void feed(struct end *end, const uint8_t *bytes, size_t size)
{
    unsigned turns = 0;
    while (size) {
        FUZZ_CHECK(++turns < TURNS_MAX);
        ssize_t sent = evpt_sys_write(end->peer, bytes, size);
        if (sent == -EAGAIN) {
            turn(end);
            (void)read_peer(end);
            fuzz_pass_ms(10);
            continue;
        }
        if (sent < 0)
            return;
        bytes += sent;
        size -= (size_t)sent;
        end->fed += (size_t)sent;
    }
    turn(end);
}

static void open_end(struct end *end, uint8_t how)
{
    int fds[2];
    enum evpt_session_role role = how & 1 ? EVPT_SESSION_CLIENT : EVPT_SESSION_SERVER;
    *end = (struct end){.config = {.node = "here",
                                   .incarnation = 7,
                                   .message_max = how & 2 ? 1024 : 16 << 20,
                                   .heartbeat_ms = how & 4 ? 0 : 1000,
                                   .send_buffer_max = how & 8 ? 200000 : 64 << 20}};
    end->memory_before = fuzz_memory();
    end->out = malloc(3 * EVPT_FRAME_MAX);
    FUZZ_CHECK(end->out);
    FUZZ_CHECK(evpt_loop_new(&end->loop) == 0);
    FUZZ_CHECK(evpt_sys_socketpair(fds) == 0);
    end->peer = fds[1];
    int error =
        evpt_session_new(&end->session, end->loop, fds[0], role, 1, &end->config, &ops, end);
    FUZZ_CHECK(error == 0);
}

static void close_end(struct end *end)
{
    evpt_session_free(end->session);
    evpt_sys_close(end->peer);
    evpt_loop_free(end->loop);
    free(end->out);
}

/* The peer's end of file: the session must come to its own, and whatever it took must arrive, but
 * where something else ended it. */
static void finish(struct end *end)
{
    bool good = end->session && evpt_session_is_open(end->session) && !end->faulty;
    if (good) { /* until all has left */
        fuzz_limit_writes(0);
        for (unsigned turns = 0; end->session && evpt_session_queued(end->session); turns++) {
            FUZZ_CHECK(turns < TURNS_MAX);
            turn(end);
            (void)read_peer(end);
        }
        (void)read_peer(end);
        for (unsigned i = 1; i <= end->sent_count && end->session && !end->closed_here; i++)
            FUZZ_CHECK(end->sent[i].whole == end->sent[i].accepted);
    }
    (void)evpt_sys_shutdown_write(end->peer);
    for (unsigned turns = 0; end->session; turns++) {
        FUZZ_CHECK(turns < TURNS_MAX);
        turn(end);
        (void)read_peer(end);
        fuzz_pass_ms(20);
    }
    FUZZ_CHECK(end->closes == 1 || end->closed_here);
}

/* ---- the two kinds of run ---- */

static void compare(struct fuzz_input *in, uint8_t how)
{
    struct end cut, whole;
    struct fuzz_input again = *in;
    open_end(&cut, how);
    for (uint8_t size = fuzz_byte(in); fuzz_left(in); size = fuzz_byte(in)) {
        size_t got;
        const uint8_t *bytes = fuzz_take(in, size < 250 ? size + 1u : (size - 249u) * 8192, &got);
        feed(&cut, bytes, got);
    }
    finish(&cut);
    open_end(&whole, how);
    feed(&whole, again.at, (size_t)(in->at - again.at));
    finish(&whole);
    FUZZ_CHECK(cut.messages == whole.messages);
    FUZZ_CHECK(cut.events == whole.events);
    close_end(&cut);
    close_end(&whole);
}

static void step(struct end *end, struct fuzz_input *in)
{
    uint8_t what = fuzz_byte(in);
    size_t size;
    const uint8_t *bytes;
    switch (what % 16) {
    case 0:
        end->hostile[fuzz_byte(in) % CALLBACKS] = fuzz_byte(in);
        break;
    case 1:
        send_message(end, fuzz_byte(in));
        break;
    case 2:
        fuzz_pass_ms(fuzz_byte(in) * 50u);
        turn(end);
        break;
    case 3:
        fuzz_limit_writes(what / 16 * 100u);
        break;
    case 4:
        end->faulty = true;
        (void)fuzz_refuse_allocation(what / 16 + 1u);
        break;
    case 5:
        (void)read_peer(end);
        break;
    case 6:
        if (end->session)
            act(end, (enum callback)(what / 16 % CALLBACKS));
        break;
    default:
        bytes = fuzz_take(in, what % 16 == 7 ? 8192u : what, &size);
        feed(end, bytes, size);
    }
}

static void disturb(struct fuzz_input *in, uint8_t how)
{
    struct end end;
    open_end(&end, how);
    while (fuzz_left(in))
        step(&end, in);
    (void)fuzz_refuse_allocation(0);
    turn(&end);
    finish(&end);
    close_end(&end);
}

void fuzz_one(struct fuzz_input *in)
{
    uint8_t how = fuzz_byte(in);
    if (how & 128)
        disturb(in, how);
    else
        compare(in, how);
}
