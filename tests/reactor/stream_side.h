/* What the two programs that test streams share. */
#ifndef EVPT_TESTS_REACTOR_STREAM_SIDE_H
#define EVPT_TESTS_REACTOR_STREAM_SIDE_H

#include "support.h"
#include "reactor/error.h"
#include "reactor/stream.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A stream on one side of a socket pair; the test is the peer on the other. */
struct side {
    struct evpt_stream stream;
    struct evpt_loop *loop;
    int peer;
    uint8_t data[4096]; /* what on_data consumed */
    size_t size;
    size_t calls, last_size; /* of on_data */
    size_t leave;            /* bytes that on_data leaves unconsumed */
    ssize_t fail;            /* what on_data returns instead, if not 0 */
    const char *answer;      /* what on_data writes, here or to another stream */
    struct evpt_stream *answer_to;
    struct evpt_stream *flushed; /* on_data finds nothing queued in it */
    int drains, closes, error;
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
    if (side->fini_in_close)
        evpt_stream_fini(stream);
}

static const struct evpt_stream_ops ops = {
    .on_data = on_data, .on_drain = on_drain, .on_close = on_close};

static inline void open_side(struct side *side, struct evpt_loop *loop)
{
    int fds[2];
    support_socketpair(fds);
    side->loop = loop;
    side->peer = fds[1];
    ck_assert_int_eq(evpt_stream_start(&side->stream, loop, fds[0], &ops, side), 0);
    evpt_stream_check(&side->stream);
}

static inline struct side *new_side(void)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    ck_assert_ptr_nonnull(side);
    open_side(side, support_loop());
    return side;
}

static inline void free_side(struct side *side)
{
    evpt_stream_fini(&side->stream);
    evpt_stream_check(&side->stream);
    evpt_stream_fini(&side->stream);
    evpt_sys_close(side->peer);
    evpt_loop_free(side->loop);
    evpt_sys_free(side);
}

static inline void turn(struct side *side)
{
    ck_assert_int_ge(evpt_loop_turn(side->loop, 0), 0);
    evpt_stream_check(&side->stream);
}

static inline void peer_sends(struct side *side, const char *text)
{
    ck_assert_int_eq(evpt_sys_write(side->peer, text, strlen(text)), (ssize_t)strlen(text));
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
    ssize_t got = evpt_sys_read(side->peer, buffer, sizeof(buffer));
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
    static uint8_t buffer[65536];
    size_t total = 0;
    for (ssize_t got = 1; got > 0 || evpt_stream_queued(&side->stream);) {
        got = evpt_sys_read(side->peer, buffer, sizeof(buffer));
        total += got > 0 ? (size_t)got : 0;
        if (got == 0)
            break;
        turn(side);
    }
    return total;
}

#endif
