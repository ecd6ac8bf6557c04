/* What the two programs that test streams share.
 *
 * Each runs twice, over a socket and over TLS (EVPT_TEST_TRANSPORT=tls): the contract is the same,
 * and so are the tests. Where bytes pass by the stream under test, they pass through `line`. */
#ifndef EVPT_TESTS_REACTOR_STREAM_SIDE_H
#define EVPT_TESTS_REACTOR_STREAM_SIDE_H

#include "support.h"
#include "reactor/error.h"
#include "reactor/stream.h"
#include "reactor/tls.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the two ends of a connection ---- */

struct line {
    struct evpt_tls *tls;                 /* NULL: plain */
    int fds[2];                           /* -1: closed */
    struct evpt_transport *transports[2]; /* NULL: plain, or somebody else's */
};

static inline bool over_tls(void)
{
    const char *transport = getenv("EVPT_TEST_TRANSPORT");
    return transport && strcmp(transport, "tls") == 0;
}

/* The certificates of tests/reactor/meson.build. */
static inline struct evpt_tls *new_tls(const char *name)
{
    const char *folder = getenv("EVPT_TEST_CERTS");
    char cert[256], key[256], ca[256], text[EVPT_TLS_TEXT_SIZE];
    ck_assert_ptr_nonnull(folder);
    snprintf(cert, sizeof(cert), "%s/%s.crt", folder, name);
    snprintf(key, sizeof(key), "%s/%s.key", folder, name);
    snprintf(ca, sizeof(ca), "%s/ca.crt", folder);
    struct evpt_tls_files files = {.cert = cert, .key = key, .ca = ca, .name = name};
    struct evpt_tls *tls;
    ck_assert_int_eq(evpt_tls_new(&tls, true, NULL, NULL), 0);
    int error = evpt_tls_load(tls, &files, text);
    ck_assert_msg(error == 0, "%s", text);
    return tls;
}

static inline void shake_hands(struct evpt_transport *const transports[2])
{
    int errors[2] = {-EAGAIN, -EAGAIN};
    for (int i = 0; errors[0] || errors[1]; i++) {
        ck_assert_int_lt(i, 100);
        if (errors[i % 2])
            errors[i % 2] = transports[i % 2]->ops->handshake(transports[i % 2]);
        ck_assert(errors[i % 2] == 0 || errors[i % 2] == -EAGAIN);
    }
}

static inline void open_line(struct line *line)
{
    *line = (struct line){0};
    support_socketpair(line->fds);
    if (!over_tls())
        return;
    line->tls = new_tls("near");
    ck_assert_int_eq(evpt_tls_accept(line->tls, line->fds[0], &line->transports[0]), 0);
    ck_assert_int_eq(evpt_tls_connect(line->tls, line->fds[1], "near", &line->transports[1]), 0);
    shake_hands(line->transports);
}

/* Gives an end to a stream, which then has to be started with the descriptor. */
static inline int give_end(struct line *line, int end, struct evpt_stream *stream)
{
    int fd = line->fds[end];
    stream->transport = line->transports[end];
    line->transports[end] = NULL;
    line->fds[end] = -1;
    return fd;
}

static inline void close_end(struct line *line, int end)
{
    if (line->transports[end])
        line->transports[end]->ops->shutdown(line->transports[end]);
    evpt_transport_free(line->transports[end]);
    line->transports[end] = NULL;
    evpt_sys_close(line->fds[end]);
    line->fds[end] = -1;
}

/* The streams that were given an end have to be finished before. */
static inline void close_line(struct line *line)
{
    close_end(line, 0);
    close_end(line, 1);
    evpt_tls_free(line->tls);
}

static inline ssize_t end_write(struct line *line, int end, const void *bytes, size_t size)
{
    struct evpt_transport *transport = line->transports[end];
    struct iovec vec = {(void *)bytes, size};
    return transport ? transport->ops->write(transport, &vec, 1)
                     : evpt_sys_write(line->fds[end], bytes, size);
}

/* Any size over TLS gets what there is, which has to fit. */
static inline ssize_t end_read(struct line *line, int end, void *buffer, size_t size)
{
    static uint8_t room[EVPT_TRANSPORT_READ_MIN];
    struct evpt_transport *transport = line->transports[end];
    if (!transport)
        return evpt_sys_read(line->fds[end], buffer, size);
    ssize_t got = transport->ops->read(transport, room, sizeof(room));
    ck_assert_int_le(got, (ssize_t)size);
    if (got > 0)
        memcpy(buffer, room, (size_t)got);
    return got;
}

/* ---- a stream on one end; the test is the peer on the other ---- */

struct side {
    struct evpt_stream stream;
    struct evpt_loop *loop;
    struct line line;   /* its end 1 is the peer */
    uint8_t data[4096]; /* what on_data consumed */
    size_t size;
    size_t calls, last_size; /* of on_data */
    size_t leave;            /* bytes that on_data leaves unconsumed */
    ssize_t fail;            /* what on_data returns instead, if not 0 */
    const char *answer;      /* what on_data writes, here or to another stream */
    struct evpt_stream *answer_to;
    struct evpt_stream *flushed; /* on_data finds nothing queued in it */
    int drains, closes, error;
    char reason[EVPT_TRANSPORT_REASON_SIZE];
    bool fini_in_data, fini_in_drain, fini_in_close, pause_in_data, close_in_data;
};

static inline ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                              void *user)
{
    struct side *side = user;
    ck_assert_ptr_eq(stream, &side->stream);
    side->calls++;
    side->last_size = size;
    if (side->flushed)
        ck_assert_uint_eq(evpt_stream_queued(side->flushed), 0);
    if (side->fail)
        return side->fail;
    if (side->fini_in_data)
        evpt_stream_fini(stream);
    if (side->pause_in_data)
        evpt_stream_pause(stream, true);
    if (side->answer)
        ck_assert_int_eq(evpt_stream_write(side->answer_to ? side->answer_to : stream, side->answer,
                                           strlen(side->answer)),
                         0);
    if (side->close_in_data)
        evpt_stream_close(stream, true);
    size_t used = size > side->leave ? size - side->leave : 0;
    ck_assert_uint_le(side->size + used, sizeof(side->data));
    memcpy(side->data + side->size, bytes, used);
    side->size += used;
    return (ssize_t)used;
}

static inline void on_drain(struct evpt_stream *stream, void *user)
{
    struct side *side = user;
    side->drains++;
    if (side->fini_in_drain)
        evpt_stream_fini(stream);
}

static inline void on_close(struct evpt_stream *stream, int error, void *user)
{
    struct side *side = user;
    side->closes++;
    side->error = error;
    snprintf(side->reason, sizeof(side->reason), "%s", evpt_stream_reason(stream, error));
    if (side->fini_in_close)
        evpt_stream_fini(stream);
}

static const struct evpt_stream_ops ops = {
    .on_data = on_data, .on_drain = on_drain, .on_close = on_close};

static inline void open_side(struct side *side, struct evpt_loop *loop)
{
    open_line(&side->line);
    side->loop = loop;
    int fd = give_end(&side->line, 0, &side->stream);
    ck_assert_int_eq(evpt_stream_start(&side->stream, loop, fd, &ops, side), 0);
    evpt_stream_check(&side->stream);
}

static inline struct side *new_side(void)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    ck_assert_ptr_nonnull(side);
    open_side(side, support_loop());
    return side;
}

/* All but the loop. */
static inline void end_side(struct side *side)
{
    evpt_stream_fini(&side->stream);
    evpt_stream_check(&side->stream);
    evpt_stream_fini(&side->stream);
    close_line(&side->line);
    evpt_sys_free(side);
}

static inline void free_side(struct side *side)
{
    struct evpt_loop *loop = side->loop;
    end_side(side);
    evpt_loop_free(loop);
}

static inline void peer_closes(struct side *side)
{
    close_end(&side->line, 1);
}

static inline void turn(struct side *side)
{
    ck_assert_int_ge(evpt_loop_turn(side->loop, 0), 0);
    evpt_stream_check(&side->stream);
}

static inline void peer_sends(struct side *side, const char *text)
{
    ck_assert_int_eq(end_write(&side->line, 1, text, strlen(text)), (ssize_t)strlen(text));
}

static inline void assert_received(struct side *side, const char *text)
{
    ck_assert_uint_eq(side->size, strlen(text));
    ck_assert_mem_eq(side->data, text, side->size);
}

/* What the peer can read now. */
static inline void assert_peer_gets(struct side *side, const char *text)
{
    char buffer[4096];
    ssize_t got = end_read(&side->line, 1, buffer, sizeof(buffer));
    ck_assert_int_eq(got, (ssize_t)strlen(text));
    ck_assert_mem_eq(buffer, text, strlen(text));
}

static inline void write_text(struct side *side, const char *text)
{
    ck_assert_int_eq(evpt_stream_write(&side->stream, text, strlen(text)), 0);
    evpt_stream_check(&side->stream);
}

/* Queues and writes until the socket takes no more; returns the bytes queued. */
static inline size_t fill_socket(struct side *side)
{
    static const uint8_t chunk[32768];
    size_t total = 0;
    while (!side->stream.blocked) {
        ck_assert_int_eq(evpt_stream_write(&side->stream, chunk, sizeof(chunk)), 0);
        total += sizeof(chunk);
        turn(side);
    }
    return total;
}

/* Reads at the peer what there is, and lets the stream go on, until its queue is empty. */
static inline size_t empty_socket(struct side *side)
{
    static uint8_t buffer[EVPT_TRANSPORT_READ_MIN];
    size_t total = 0;
    for (ssize_t got = 1; got > 0 || evpt_stream_queued(&side->stream);) {
        got = end_read(&side->line, 1, buffer, sizeof(buffer));
        total += got > 0 ? (size_t)got : 0;
        if (got == 0)
            break;
        turn(side);
    }
    return total;
}

#endif
