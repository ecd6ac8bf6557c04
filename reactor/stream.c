#include "reactor/stream.h"
#include "reactor/error.h"
#include "reactor/pool.h"
#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <string.h>

enum {
    HIGH_WATER = 256 * 1024,
    LOW_WATER = 64 * 1024,
    EARLY_FLUSH = 32 * 1024, /* worth a system call of its own, and still in the cache */
    VEC_MAX = 64 /* segments for one writev: 1 KiB of stack, far more than a small queue has */
};

/* ---- states ---- */

enum state {
    IDLE,    /* not started, or finished */
    OPEN,    /* reads and writes */
    CLOSING, /* writes what is queued, reads nothing */
    CLOSED,  /* the descriptor is gone, on_close is to come */
    STATES
};

static void set_state(struct evpt_stream *stream, enum state to)
{
    static const bool allowed[STATES][STATES] = {
        [IDLE] = {[OPEN] = true},
        [OPEN] = {[CLOSING] = true, [CLOSED] = true, [IDLE] = true},
        [CLOSING] = {[CLOSED] = true, [IDLE] = true},
        [CLOSED] = {[IDLE] = true},
    };
    assert(allowed[stream->state][to]);
    stream->state = (uint8_t)to;
}

static bool has_fd(const struct evpt_stream *stream)
{
    return stream->state == OPEN || stream->state == CLOSING;
}

/* Something waits for the socket, our own bytes or the transport's. */
static bool has_output(const struct evpt_stream *stream)
{
    return stream->first || (stream->transport && stream->transport->pending);
}

/* ---- callbacks that may finish the stream ---- */

struct guard {
    bool finished;
    bool *outer;
};

static void guard_enter(struct evpt_stream *stream, struct guard *guard)
{
    guard->finished = false;
    guard->outer = stream->finished;
    stream->finished = &guard->finished;
}

/* False: the stream was finished meanwhile, and its memory may be gone. */
static bool guard_leave(struct evpt_stream *stream, struct guard *guard)
{
    if (guard->finished) {
        if (guard->outer)
            *guard->outer = true;
        return false;
    }
    stream->finished = guard->outer;
    return true;
}

/* ---- the queue ----
 *
 * A list of blocks, each a row of segments. A segment is a header with its bytes right behind it,
 * or a header that refers to bytes elsewhere. Small writes extend the last segment, so that a
 * turn's worth of them leaves as one piece; a header before a large payload costs no block of its
 * own. */

struct segment {
    const uint8_t *data; /* what is still to be written */
    size_t size;
    size_t stored; /* bytes behind the header; 0: a reference */
    evpt_release_fn release;
    void *user;
};

struct evpt_stream_block {
    struct evpt_stream_block *next;
    size_t size; /* as the pool said */
    size_t at;   /* offset of the first segment that is still to be written */
    size_t last; /* offset of the last segment */
    size_t end;  /* offset of the free room */
};

static size_t align(size_t offset)
{
    return (offset + alignof(struct segment) - 1) & ~(alignof(struct segment) - 1);
}

static struct segment *segment_at(const struct evpt_stream_block *block, size_t offset)
{
    return (struct segment *)(void *)((char *)block + offset);
}

static size_t segment_end(size_t offset, const struct segment *segment)
{
    return offset + sizeof(*segment) + segment->stored;
}

/* A block with room for a segment of `size` bytes, at the end of the queue. */
static struct evpt_stream_block *add_block(struct evpt_stream *stream, size_t size)
{
    /* a queue that has outgrown one block is going to be long */
    size_t least = sizeof(struct evpt_stream_block) + sizeof(struct segment) + size;
    if (stream->last && least < EVPT_POOL_LARGE)
        least = EVPT_POOL_LARGE;
    size_t block_size;
    struct evpt_stream_block *block =
        evpt_pool_take(evpt_loop_pool(stream->loop), least, &block_size);
    if (!block)
        return NULL;
    *block = (struct evpt_stream_block){
        .size = block_size, .at = sizeof(*block), .last = sizeof(*block), .end = sizeof(*block)};
    if (stream->last)
        stream->last->next = block;
    else
        stream->first = block;
    stream->last = block;
    return block;
}

/* A new segment at the end of the queue, of a reference or with `stored` bytes behind it. */
static struct segment *add_segment(struct evpt_stream *stream, size_t stored)
{
    struct evpt_stream_block *block = stream->last;
    if (!block || align(block->end) + sizeof(struct segment) + stored > block->size) {
        block = add_block(stream, stored);
        if (!block)
            return NULL;
    }
    block->last = align(block->end);
    struct segment *segment = segment_at(block, block->last);
    *segment =
        (struct segment){.data = (const uint8_t *)(segment + 1), .size = stored, .stored = stored};
    block->end = segment_end(block->last, segment);
    return segment;
}

/* Room for `size` bytes at the end of the queue. */
static uint8_t *add_bytes(struct evpt_stream *stream, size_t size)
{
    struct evpt_stream_block *block = stream->last;
    if (block && size <= block->size - block->end) {
        struct segment *segment = segment_at(block, block->last);
        if (segment->stored) {
            uint8_t *room = (uint8_t *)block + block->end;
            segment->size += size;
            segment->stored += size;
            block->end += size;
            return room;
        }
    }
    struct segment *segment = add_segment(stream, size);
    return segment ? (uint8_t *)(segment + 1) : NULL;
}

/* Takes the first segment out of the queue, and its block if that was the last one in it. */
static void pop_segment(struct evpt_stream *stream, struct segment *ret_segment)
{
    struct evpt_stream_block *block = stream->first;
    *ret_segment = *segment_at(block, block->at);
    if (block->at != block->last) {
        block->at = align(segment_end(block->at, ret_segment));
        return;
    }
    stream->first = block->next;
    if (!stream->first)
        stream->last = NULL;
    evpt_pool_give(evpt_loop_pool(stream->loop), block, block->size);
}

/* Pops the first segment and releases what it refers to. False: the stream was finished by that. */
static bool drop_segment(struct evpt_stream *stream)
{
    struct segment segment;
    struct guard guard;
    pop_segment(stream, &segment);
    if (!segment.release)
        return true;
    guard_enter(stream, &guard);
    segment.release(segment.user);
    return guard_leave(stream, &guard);
}

/* ---- closing ---- */

static void on_work(struct evpt_deferred *deferred, void *user);

static void defer_work(struct evpt_stream *stream)
{
    if (!evpt_list_is_linked(
            &stream->work.link)) /* as a rule it is: one call saved for each write */
        evpt_loop_defer(stream->loop, &stream->work, on_work, stream);
}

static void drop_fd(struct evpt_stream *stream)
{
    if (stream->transport)
        stream->transport->ops->shutdown(stream->transport);
    evpt_watch_stop(&stream->watch);
    evpt_sys_close(stream->fd);
    stream->fd = -1;
}

/* The end, whatever the reason; on_close comes from on_work. */
static void shut(struct evpt_stream *stream, int error)
{
    if (!has_fd(stream))
        return;
    set_state(stream, CLOSED);
    drop_fd(stream);
    stream->error = error;
    defer_work(stream);
}

static void drop_tail(struct evpt_stream *stream)
{
    evpt_pool_give(evpt_loop_pool(stream->loop), stream->tail, stream->tail_room);
    stream->tail = NULL;
    stream->tail_size = stream->tail_room = 0;
}

static void report_close(struct evpt_stream *stream)
{
    drop_tail(stream);
    stream->queued_total = stream->written_total; /* the rest is dropped, and never was written */
    while (stream->first) {
        if (!drop_segment(stream))
            return;
    }
    set_state(stream, IDLE);
    struct evpt_transport *transport = stream->transport; /* has the words for on_close */
    stream->ops->on_close(stream, stream->error, stream->user);
    evpt_transport_free(transport);
}

/* ---- writing ---- */

static void on_ready(struct evpt_watch *watch, uint32_t events, void *user);

/* Tells the loop what the stream waits for. */
static void set_interest(struct evpt_stream *stream)
{
    uint32_t events = stream->blocked ? EVPT_WRITE : 0;
    if (stream->state == OPEN && !stream->paused)
        events |= EVPT_READ;
    if (evpt_watch_is_started(&stream->watch)) {
        evpt_watch_set(&stream->watch, events);
    } else if (events) { /* it hung up while paused, see on_ready */
        int error =
            evpt_watch_start(stream->loop, &stream->watch, stream->fd, events, on_ready, stream);
        if (error)
            shut(stream, error);
    }
}

static int gather(const struct evpt_stream *stream, struct iovec *vec, size_t *ret_total)
{
    const struct evpt_stream_block *block = stream->first;
    int count = 0;
    size_t total = 0;
    for (; block && count < VEC_MAX; block = block->next) {
        for (size_t at = block->at; at < block->end && count < VEC_MAX; count++) {
            const struct segment *segment = segment_at(block, at);
            vec[count] = (struct iovec){(void *)segment->data, segment->size};
            total += segment->size;
            at = align(segment_end(at, segment));
        }
    }
    *ret_total = total;
    return count;
}

/* Takes `size` written bytes off the queue. False: a release has finished the stream. */
static bool drop_written(struct evpt_stream *stream, size_t size)
{
    stream->written_total += size;
    while (stream->first) {
        struct segment *segment = segment_at(stream->first, stream->first->at);
        if (size < segment->size) {
            segment->data += size;
            segment->size -= size;
            break;
        }
        size -= segment->size;
        if (!drop_segment(stream))
            return false;
    }
    return true;
}

enum { FINISHED = 1 };

static ssize_t write_vec(struct evpt_stream *stream, const struct iovec *vec, int count)
{
    if (stream->transport)
        return stream->transport->ops->write(stream->transport, vec, count);
    return count == 1 ? evpt_sys_write(stream->fd, vec[0].iov_base, vec[0].iov_len)
                      : evpt_sys_writev(stream->fd, vec, count);
}

/* Writes as much as the socket takes. 0, a negative error, or FINISHED: the stream is gone. */
static int write_out(struct evpt_stream *stream)
{
    bool blocked = false;
    for (int i = 0; has_output(stream) && !blocked && i < EVPT_STREAM_WRITES_MAX; i++) {
        struct iovec vec[VEC_MAX];
        size_t total;
        int count = gather(stream, vec, &total);
        ssize_t sent = write_vec(stream, vec, count);
        if (sent < 0 && sent != -EAGAIN)
            return (int)sent;
        size_t written = sent < 0 ? 0 : (size_t)sent;
        blocked = written < total || sent == -EAGAIN;
        if (!drop_written(stream, written))
            return FINISHED;
        if (!has_fd(stream))
            return 0; /* closed by a release */
    }
    /* also where the budget is used up: the loop comes back to it when others had their turn */
    bool waits = has_output(stream);
    if (waits != stream->blocked) {
        stream->blocked = waits;
        set_interest(stream);
    }
    return 0;
}

/* False: on_drain has finished the stream. */
static bool report_drain(struct evpt_stream *stream)
{
    if (!stream->above_high || evpt_stream_queued(stream) > stream->low_water)
        return true;
    stream->above_high = false;
    if (!stream->ops->on_drain || stream->state != OPEN)
        return true;
    struct guard guard;
    guard_enter(stream, &guard);
    stream->ops->on_drain(stream, stream->user);
    return guard_leave(stream, &guard);
}

/* ---- reading ---- */

/* Keeps the last `size` bytes of a call of on_data. The first `same` of them are the tail already.
 */
static int keep_tail(struct evpt_stream *stream, const uint8_t *bytes, size_t size, size_t same)
{
    struct evpt_pool *pool = evpt_loop_pool(stream->loop);
    if (!size) {
        if (stream->tail)
            drop_tail(stream);
        return 0;
    }
    if (size > EVPT_STREAM_TAIL_MAX)
        return -EVPT_ELIMIT;
    if (size > stream->tail_room) {
        size_t room;
        uint8_t *tail = evpt_pool_take(pool, size, &room);
        if (!tail)
            return -ENOMEM;
        evpt_pool_give(pool, stream->tail, stream->tail_room);
        stream->tail = tail;
        stream->tail_room = room;
        same = 0;
    }
    memcpy(stream->tail + same, bytes + same, size - same);
    stream->tail_size = size;
    return 0;
}

/* Hands `size` bytes to on_data, of which the tail is the beginning. False: read no more now. */
static bool hand_over(struct evpt_stream *stream, const uint8_t *bytes, size_t size)
{
    struct guard guard;
    guard_enter(stream, &guard);
    ssize_t used = stream->ops->on_data(stream, bytes, size, stream->user);
    if (!guard_leave(stream, &guard) || stream->state != OPEN)
        return false;
    int error = (int)used;
    if (used >= 0) {
        assert((size_t)used <= size);
        error = keep_tail(stream, bytes + used, size - (size_t)used, used ? 0 : stream->tail_size);
    }
    if (error)
        shut(stream, error);
    return !error && !stream->paused;
}

/* What on_data has queued leaves at the end of the turn, with what the rest of the turn adds; but
 * long answers to many connections would by then have pushed each other out of the cache. */
static bool flush_early(struct evpt_stream *stream)
{
    if (stream->blocked || evpt_stream_queued(stream) < EARLY_FLUSH)
        return true;
    int error = write_out(stream);
    if (error == FINISHED)
        return false;
    if (error)
        shut(stream, error);
    return stream->state == OPEN;
}

static void end_of_file(struct evpt_stream *stream)
{
    if (has_output(stream) && !stream->blocked && write_out(stream) == FINISHED)
        return;
    shut(stream, -EVPT_EEOF);
}

static ssize_t read_bytes(struct evpt_stream *stream, uint8_t *room, size_t size)
{
    if (!stream->transport)
        return evpt_sys_read(stream->fd, room, size);
    ssize_t got = stream->transport->ops->read(stream->transport, room, size);
    if (has_output(stream) && !stream->blocked)
        defer_work(stream); /* an answer of the transport's own */
    return got;
}

/* The transport has the end in hand, which no event will announce. */
static bool has_ended(const struct evpt_stream *stream)
{
    return stream->transport && stream->transport->ended;
}

/* Was that all that there is to be read? */
static bool is_last(const struct evpt_stream *stream, size_t got, size_t room)
{
    if (stream->transport)
        return !stream->transport->more && !stream->transport->ended;
    return got < room;
}

static void read_in(struct evpt_stream *stream)
{
    static_assert(EVPT_LOOP_SCRATCH - EVPT_STREAM_TAIL_MAX >= EVPT_TRANSPORT_READ_MIN,
                  "room behind the longest tail");
    uint8_t *scratch = evpt_loop_scratch(stream->loop);
    for (int i = 0; i < EVPT_STREAM_READS_MAX || has_ended(stream); i++) {
        /* The tail is copied in front of the new bytes rather than read behind: it is short as a
         * rule, and the read gets the room of the scratch buffer instead of the tail's. */
        size_t kept = stream->tail_size, room = EVPT_LOOP_SCRATCH - kept;
        if (kept)
            memcpy(scratch, stream->tail, kept);
        ssize_t got = read_bytes(stream, scratch + kept, room);
        if (got == -EAGAIN)
            return;
        if (got == 0)
            end_of_file(stream);
        else if (got < 0)
            shut(stream, (int)got);
        if (got <= 0)
            return;
        stream->read_total += (uint64_t)got;
        if (!hand_over(stream, scratch, kept + (size_t)got) || !flush_early(stream) ||
            is_last(stream, (size_t)got, room))
            return;
    }
}

/* After a pause: what on_data has left then may be enough for it now, and nothing new need come. */
static void offer_tail(struct evpt_stream *stream)
{
    uint8_t *scratch = evpt_loop_scratch(stream->loop);
    stream->resumed = false;
    if (stream->state != OPEN || stream->paused)
        return;
    if (stream->tail) {
        memcpy(scratch, stream->tail, stream->tail_size);
        if (!hand_over(stream, scratch, stream->tail_size))
            return;
    }
    if (has_ended(stream))
        read_in(stream);
}

/* ---- from the loop ---- */

static void on_ready(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct evpt_stream *stream = user;
    if (events & (EVPT_WRITE | EVPT_HANGUP) && stream->blocked) {
        stream->blocked = false;
        set_interest(stream);
        defer_work(stream); /* with what this turn adds to the queue */
    }
    if (stream->state != OPEN || !(events & (EVPT_READ | EVPT_HANGUP)))
        return;
    if (!stream->paused)
        read_in(stream);
    else
        /* A hang-up is reported until somebody reads, and a paused stream does not: it would spin
         * the loop. Bytes that came before it are still to be read after the pause. */
        evpt_watch_stop(&stream->watch);
}

static void on_work(struct evpt_deferred *deferred, void *user)
{
    struct evpt_stream *stream = user;
    if (stream->state == CLOSED) {
        report_close(stream);
        return;
    }
    int error = stream->blocked ? 0 : write_out(stream);
    if (error == FINISHED)
        return;
    if (error)
        shut(stream, error);
    else if (stream->state == CLOSING && !has_output(stream))
        shut(stream, 0);
    if (!has_fd(stream) || !report_drain(stream))
        return;
    if (stream->resumed)
        offer_tail(stream);
}

/* ---- for the owner ---- */

int evpt_stream_start(struct evpt_stream *stream, struct evpt_loop *loop, int fd,
                      const struct evpt_stream_ops *ops, void *user)
{
    assert(stream->state == IDLE);
    *stream =
        (struct evpt_stream){.high_water = stream->high_water ? stream->high_water : HIGH_WATER,
                             .low_water = stream->low_water ? stream->low_water : LOW_WATER,
                             .transport = stream->transport,
                             .ops = ops,
                             .user = user,
                             .loop = loop,
                             .fd = fd};
    int error = evpt_watch_start(loop, &stream->watch, fd, EVPT_READ, on_ready, stream);
    if (!error) {
        set_state(stream, OPEN);
        return 0;
    }
    evpt_transport_free(stream->transport);
    stream->transport = NULL;
    evpt_sys_close(fd);
    return error;
}

void evpt_stream_fini(struct evpt_stream *stream)
{
    if (!stream || !stream->loop)
        return;
    if (stream->finished)
        *stream->finished = true;
    stream->finished = NULL;
    if (has_fd(stream))
        drop_fd(stream);
    if (stream->state != IDLE) { /* in on_close it is report_close that frees the transport */
        set_state(stream, IDLE);
        evpt_transport_free(stream->transport);
    }
    stream->transport = NULL;
    evpt_deferred_cancel(&stream->work);
    drop_tail(stream);
    stream->queued_total = stream->written_total;
    while (stream->first && drop_segment(stream))
        continue;
    stream->loop = NULL;
}

void evpt_stream_close(struct evpt_stream *stream, bool flush)
{
    if (!flush || !has_output(stream)) {
        shut(stream, 0);
    } else if (stream->state == OPEN) {
        set_state(stream, CLOSING);
        set_interest(stream);
        defer_work(stream);
    }
}

void evpt_stream_fail(struct evpt_stream *stream, int error)
{
    shut(stream, error);
}

/* Bookkeeping after something was queued. */
static void queued(struct evpt_stream *stream, size_t size)
{
    stream->queued_total += size;
    if (evpt_stream_queued(stream) >= stream->high_water)
        stream->above_high = true;
    if (!stream->blocked)
        defer_work(stream);
}

int evpt_stream_write(struct evpt_stream *stream, const void *bytes, size_t size)
{
    if (stream->state != OPEN)
        return -EVPT_ECLOSED;
    if (!size)
        return 0;
    uint8_t *room = add_bytes(stream, size);
    if (!room)
        return -ENOMEM;
    memcpy(room, bytes, size);
    queued(stream, size);
    return 0;
}

uint8_t *evpt_stream_reserve(struct evpt_stream *stream, size_t size)
{
    assert(size > 0 && size <= EVPT_STREAM_RESERVE_MAX);
    uint8_t *room = stream->state == OPEN ? add_bytes(stream, size) : NULL;
    if (room)
        queued(stream, size);
    return room;
}

int evpt_stream_write_ref(struct evpt_stream *stream, const void *bytes, size_t size,
                          evpt_release_fn release, void *user)
{
    struct segment *segment = stream->state == OPEN ? add_segment(stream, 0) : NULL;
    if (!segment) {
        int error = stream->state == OPEN ? -ENOMEM : -EVPT_ECLOSED;
        if (release)
            release(user);
        return error;
    }
    *segment = (struct segment){.data = bytes, .size = size, .release = release, .user = user};
    queued(stream, size);
    return 0;
}

void evpt_stream_flush(struct evpt_stream *stream)
{
    if (!has_fd(stream) || stream->blocked || !has_output(stream))
        return;
    int error = write_out(stream);
    if (error == FINISHED)
        return;
    if (error)
        shut(stream, error);
    else if (stream->state == CLOSING || stream->above_high)
        defer_work(stream); /* on_close and on_drain come from the loop */
}

void evpt_stream_shutdown(struct evpt_stream *stream)
{
    if (stream->state != OPEN)
        return;
    if (stream->transport)
        stream->transport->ops->shutdown(stream->transport);
    if (!has_output(stream))
        /* A failure means that the connection is gone already; reading will tell. */
        (void)evpt_sys_shutdown_write(stream->fd);
    else if (!stream->blocked)
        defer_work(stream); /* the transport's last word says it, too */
}

void evpt_stream_pause(struct evpt_stream *stream, bool paused)
{
    if (stream->state != OPEN || stream->paused == paused)
        return;
    stream->paused = paused;
    set_interest(stream);
    if (!paused && (stream->tail || has_ended(stream)) && has_fd(stream)) {
        stream->resumed = true;
        defer_work(stream);
    }
}

bool evpt_stream_is_open(const struct evpt_stream *stream)
{
    return stream->state == OPEN;
}

const char *evpt_stream_reason(const struct evpt_stream *stream, int error)
{
    bool known = error < 0 && stream->transport && stream->transport->reason[0];
    return known ? stream->transport->reason : evpt_strerror(error);
}

void evpt_stream_check(const struct evpt_stream *stream)
{
    size_t total = 0;
    assert(!stream->first == !stream->last);
    for (const struct evpt_stream_block *block = stream->first; block; block = block->next) {
        assert(block->next || block == stream->last);
        assert(block->at <= block->last && block->last < block->end && block->end <= block->size);
        for (size_t at = block->at; at < block->end;) {
            const struct segment *segment = segment_at(block, at);
            assert(segment->size <= segment->stored || !segment->stored);
            total += segment->size;
            at = align(segment_end(at, segment));
        }
    }
    if (stream->state != CLOSED)
        assert(total == evpt_stream_queued(stream));
    assert(stream->tail_size <= stream->tail_room && stream->tail_size <= EVPT_STREAM_TAIL_MAX);
    assert(!stream->tail == !stream->tail_size);
    if (stream->state == IDLE)
        assert(!stream->first && !stream->tail && !evpt_list_is_linked(&stream->work.link));
    if (has_fd(stream) && stream->first && !stream->blocked)
        assert(evpt_list_is_linked(&stream->work.link));
}
