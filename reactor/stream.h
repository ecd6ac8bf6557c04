/* A connected stream socket on a loop: bytes in, bytes out, water marks, one flush per turn.
 *
 * In: reads go into the loop's scratch buffer and are handed to `on_data` in place; what the callee
 * does not consume is kept by the stream and comes again in front of the next bytes. So an idle
 * connection holds no buffer. At most EVPT_STREAM_READS_MAX reads a turn; a read that does not fill
 * the buffer is the last one of the turn (no extra read for EAGAIN).
 *
 * Out: bytes are copied into blocks side by side (evpt_stream_write) or referenced
 * (evpt_stream_write_ref), and leave at the end of the turn, with one writev as a rule. EVPT_WRITE
 * is asked for only after a short write. `on_drain` is called when the queue was at or above
 * `high_water` and has fallen to `low_water` or below.
 *
 *     open --evpt_stream_close, error, end of file--> closed --on_close--> (the owner calls fini)
 *
 * At the end of file one attempt is made to write what is queued: a peer may have shut down its
 * writing side only, and a reply of the same turn still reaches it.
 *
 * on_close is called exactly once for each stream that was started and not finished with
 * evpt_stream_fini before, never from inside write or close: always from the loop. After it, no
 * other callback comes. on_drain too is called from the loop only. All callbacks may call
 * evpt_stream_fini and free the stream's memory.
 *
 *     struct evpt_stream stream = {0};
 *     error = evpt_stream_start(&stream, loop, fd, &ops, user);
 *     evpt_stream_write(&stream, "hello\n", 6);
 *     evpt_stream_close(&stream, true);      on_close follows; there: evpt_stream_fini(&stream)
 *
 * With a transport (transport.h) the same holds for the bytes inside of it. Nothing else changes,
 * and a stream without one pays a test of a pointer for each read and write.
 *
 * Everything here: the loop's thread only.
 */
#ifndef EVPT_REACTOR_STREAM_H
#define EVPT_REACTOR_STREAM_H

#include "reactor/loop.h"
#include "reactor/transport.h"

#define EVPT_STREAM_READS_MAX 4    /* per turn and stream: fairness among connections */
#define EVPT_STREAM_WRITES_MAX 4   /* per flush, for the same reason */
#define EVPT_STREAM_TAIL_MAX 65536 /* bytes that on_data may leave unconsumed, else EVPT_ELIMIT */
#define EVPT_STREAM_RESERVE_MAX 65536

struct evpt_stream;

struct evpt_stream_ops {
    /* `size` bytes at `bytes`, valid during the call. Returns how many were consumed (the rest
     * comes again with more behind it, or by itself after a pause), or a negative error: the stream
     * closes with it. What it returns does not matter once it has closed or finished the stream. */
    ssize_t (*on_data)(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user);
    /* The queue has fallen to low_water. May be NULL. */
    void (*on_drain)(struct evpt_stream *stream, void *user);
    /* Closed. error: 0 by evpt_stream_close, -EVPT_EEOF by the peer, else what failed.
     * evpt_stream_reason has it in words. */
    void (*on_close)(struct evpt_stream *stream, int error, void *user);
};

/* Called when the bytes of a write_ref are not needed any more, written or dropped. */
typedef void (*evpt_release_fn)(void *user);

struct evpt_stream_block;

struct evpt_stream { /* caller's storage; must not move while started */
    /* public, may be set before start */
    size_t high_water, low_water;     /* bytes; defaults 256 KiB and 64 KiB */
    struct evpt_transport *transport; /* past its handshake; NULL: the socket itself */
    /* private */
    const struct evpt_stream_ops *ops;
    void *user;
    struct evpt_loop *loop;
    struct evpt_watch watch;
    struct evpt_deferred work; /* pending while there is something new to write or to report */
    struct evpt_stream_block *first, *last;
    uint64_t queued_total;  /* bytes ever queued, less those that were dropped at the end */
    uint64_t written_total; /* bytes ever handed to the socket */
    uint64_t read_total;
    uint8_t *tail; /* unconsumed bytes, NULL where there are none */
    size_t tail_size, tail_room;
    bool *finished; /* during a callback: says whether the stream is still there after it */
    int fd;
    int error;
    uint8_t state;
    bool above_high;
    bool paused;
    bool resumed; /* the tail is to be offered again */
    bool blocked; /* the socket took less than it was given: waiting for EVPT_WRITE */
};

/* Takes over the descriptor and the transport (they are closed on failure too). 0 or a negative
 * error. */
int evpt_stream_start(struct evpt_stream *stream, struct evpt_loop *loop, int fd,
                      const struct evpt_stream_ops *ops, void *user);
/* Releases everything at once, without on_close. NULL, zeroed and finished are fine. */
void evpt_stream_fini(struct evpt_stream *stream);
/* Closes: with `flush`, after what is queued is written (at most until the peer fails), else
 * at once. on_close follows from the loop. Nothing more is read. */
void evpt_stream_close(struct evpt_stream *stream, bool flush);
/* As evpt_stream_close(stream, false) with a reason for on_close. */
void evpt_stream_fail(struct evpt_stream *stream, int error);

/* Queues a copy. 0, -EVPT_ECLOSED, -ENOMEM; on failure nothing was queued. */
int evpt_stream_write(struct evpt_stream *stream, const void *bytes, size_t size);
/* Room for `size` (at most EVPT_STREAM_RESERVE_MAX) bytes at the end of the queue, to be filled at
 * once by the caller: what evpt_stream_write does without the copy. NULL where closed or out of
 * memory. */
uint8_t *evpt_stream_reserve(struct evpt_stream *stream, size_t size);
/* Queues a reference; the bytes must stay until `release(user)` (may be NULL), which is called
 * exactly once, also where this fails. Never from inside this call but on failure. 0,
 * -EVPT_ECLOSED, -ENOMEM. */
int evpt_stream_write_ref(struct evpt_stream *stream, const void *bytes, size_t size,
                          evpt_release_fn release, void *user);
/* Writes now what is queued instead of at the end of the turn. Calls releases, nothing else. */
void evpt_stream_flush(struct evpt_stream *stream);
/* Tells the peer that nothing more will be written; reading goes on. Call it when nothing is
 * queued. */
void evpt_stream_shutdown(struct evpt_stream *stream);

/* Stops and restarts reading (back-pressure). */
void evpt_stream_pause(struct evpt_stream *stream, bool paused);

static inline size_t evpt_stream_queued(const struct evpt_stream *stream)
{
    return (size_t)(stream->queued_total - stream->written_total);
}
bool evpt_stream_is_open(const struct evpt_stream *stream);
/* The words for an error of on_close, valid until that returns. */
const char *evpt_stream_reason(const struct evpt_stream *stream, int error);
/* Debug: asserts every invariant. */
void evpt_stream_check(const struct evpt_stream *stream);

#endif
