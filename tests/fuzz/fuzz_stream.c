/* Streams over socket pairs, as the input says: written, referenced, flushed, paused, closed and
 * finished, outside of callbacks and inside of them, while the other end reads, writes and closes,
 * sockets take little, and memory is refused.
 *
 * Each direction carries bytes that follow from their place, so that whoever reads sees at once
 * when one is lost, doubled or exchanged. References must be released exactly once (fuzz.c counts
 * them), on_close is called once, and nothing after it.
 */
#include "fuzz.h"

#include "reactor/error.h"
#include "reactor/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4
#define OPS_MAX 20000
#define WRITE_MAX 70000

struct side {
    struct evpt_stream stream;
    uint32_t number; /* what its bytes follow from */
    int peer;
    size_t queued, peer_got; /* written by the stream, and read at the other end */
    size_t peer_sent, got;   /* and the other way round */
    bool closed;             /* on_close was called */
    bool closing, peer_closed;
};

static struct {
    struct fuzz_input *in;
    struct evpt_loop *loop;
    struct side *sides[SLOTS];
    uint32_t numbers;
    unsigned ops;
    bool inside, quiet;
} it;

static uint8_t buffer[WRITE_MAX];

static void play(void);

static void enter(void)
{
    if (it.quiet)
        return;
    bool inside = it.inside;
    it.inside = true;
    for (unsigned n = fuzz_byte(it.in) % 4; n; n--)
        play();
    it.inside = inside;
}

/* ---- callbacks ---- */

static bool is_there(const struct side *side)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (it.sides[i] == side)
            return true;
    }
    return false;
}

static ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct side *side = user;
    uint8_t how = it.quiet ? 0 : fuzz_byte(it.in);
    FUZZ_CHECK(is_there(side) && stream == &side->stream && !side->closed && !side->closing);
    FUZZ_CHECK(size && side->got + size <= side->peer_sent);
    FUZZ_CHECK(fuzz_is_filled(bytes, size, side->number, side->got));
    if (how == 255)
        return -EVPT_EPROTOCOL;
    size_t used = how < 128 ? size : size * (how - 128) / 128;
    side->got += used;
    enter();
    return (ssize_t)used;
}

static void on_drain(struct evpt_stream *stream, void *user)
{
    struct side *side = user;
    FUZZ_CHECK(is_there(side) && stream == &side->stream && !side->closed);
    FUZZ_CHECK(evpt_stream_queued(stream) <= stream->low_water);
    enter();
}

static void on_close(struct evpt_stream *stream, int error, void *user)
{
    struct side *side = user;
    FUZZ_CHECK(is_there(side) && stream == &side->stream && !side->closed && error <= 0);
    FUZZ_CHECK(!evpt_stream_is_open(stream));
    side->closed = true;
    enter();
}

static const struct evpt_stream_ops ops = {
    .on_data = on_data, .on_drain = on_drain, .on_close = on_close};

/* ---- operations ---- */

static void start(unsigned slot, uint8_t how)
{
    struct side *side = calloc(1, sizeof(*side));
    int fds[2];
    FUZZ_CHECK(side && evpt_sys_socketpair(fds) == 0);
    side->number = ++it.numbers;
    side->peer = fds[1];
    if (how & 1) {
        side->stream.high_water = 1000;
        side->stream.low_water = 100;
    }
    if (how & 2)
        (void)evpt_sys_set_send_buffer(fds[0], 4096);
    if (evpt_stream_start(&side->stream, it.loop, fds[0], &ops, side) == 0) {
        it.sides[slot] = side;
    } else {
        evpt_sys_close(side->peer);
        free(side);
    }
}

static void finish(unsigned slot)
{
    struct side *side = it.sides[slot];
    it.sides[slot] = NULL;
    evpt_stream_fini(&side->stream);
    evpt_sys_close(side->peer_closed ? -1 : side->peer);
    free(side);
}

static size_t some_size(void)
{
    static const size_t sizes[] = {0, 1, 7, 100, 4000, 20000, 65536, WRITE_MAX};
    uint8_t how = fuzz_byte(it.in);
    return sizes[how % 8] - (sizes[how % 8] ? how / 8 % 2 : 0);
}

static void queue(struct side *side, size_t size, int error)
{
    FUZZ_CHECK(error == 0 || error == -EVPT_ECLOSED || error == -ENOMEM);
    if (error == -EVPT_ECLOSED)
        FUZZ_CHECK(!evpt_stream_is_open(&side->stream));
    side->queued += error ? 0 : size;
}

static void release(void *user)
{
    evpt_sys_free(user);
}

static void write_some(struct side *side, uint8_t how)
{
    size_t size = some_size();
    fuzz_fill(buffer, size, ~side->number, side->queued);
    if (how % 4 == 0) {
        uint8_t *copy = evpt_sys_alloc(size + 1);
        if (!copy)
            return;
        memcpy(copy, buffer, size);
        queue(side, size, evpt_stream_write_ref(&side->stream, copy, size, release, copy));
    } else if (how % 4 == 1 && size && size <= EVPT_STREAM_RESERVE_MAX) {
        uint8_t *room = evpt_stream_reserve(&side->stream, size);
        if (room)
            memcpy(room, buffer, size);
        side->queued += room ? size : 0;
    } else {
        queue(side, size, evpt_stream_write(&side->stream, buffer, size));
    }
}

/* False: there was nothing. */
static bool peer_reads(struct side *side, size_t most)
{
    ssize_t got = side->peer_closed ? 0 : evpt_sys_read(side->peer, buffer, most);
    if (got <= 0)
        return false;
    FUZZ_CHECK(side->peer_got + (size_t)got <= side->queued);
    FUZZ_CHECK(fuzz_is_filled(buffer, (size_t)got, ~side->number, side->peer_got));
    side->peer_got += (size_t)got;
    return true;
}

static void peer_writes(struct side *side, size_t size)
{
    if (side->peer_closed)
        return;
    fuzz_fill(buffer, size, side->number, side->peer_sent);
    ssize_t sent = evpt_sys_write(side->peer, buffer, size);
    side->peer_sent += sent > 0 ? (size_t)sent : 0;
}

static void use(unsigned slot, uint8_t what)
{
    struct side *side = it.sides[slot];
    switch (what % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
        write_some(side, what);
        break;
    case 4:
        evpt_stream_flush(&side->stream);
        break;
    case 5:
        evpt_stream_pause(&side->stream, what & 128);
        break;
    case 6:
        side->closing = true;
        evpt_stream_close(&side->stream, what & 128);
        break;
    case 7:
        finish(slot);
        return;
    case 8:
    case 9:
        peer_writes(side, some_size());
        break;
    case 10:
        (void)peer_reads(side, what & 128 ? WRITE_MAX : 100);
        break;
    default:
        if (what & 128) {
            (void)evpt_sys_shutdown_write(side->peer_closed ? -1 : side->peer);
            break;
        }
        evpt_sys_close(side->peer_closed ? -1 : side->peer);
        side->peer_closed = true;
    }
    if (it.sides[slot] == side)
        evpt_stream_check(&side->stream);
}

static void turn(void)
{
    FUZZ_CHECK(evpt_loop_turn(it.loop, 0) >= 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (it.sides[i])
            evpt_stream_check(&it.sides[i]->stream);
    }
}

static void play(void)
{
    uint8_t what = fuzz_byte(it.in), how = fuzz_byte(it.in);
    unsigned slot = what / 4 % SLOTS;
    if (it.ops++ >= OPS_MAX)
        return;
    if (what % 4 == 3 && !it.inside)
        turn();
    else if (what % 4 == 2 && how % 4 == 0)
        (void)fuzz_refuse_allocation(how / 4 % 8);
    else if (what % 4 == 2 && how % 4 == 1)
        fuzz_limit_writes(how / 4 * 50u);
    else if (what % 4 == 2 && how % 4 == 2)
        fuzz_pass_ms(how);
    else if (it.sides[slot])
        use(slot, how);
    else
        start(slot, how);
}

/* What was queued arrives, to the last byte, wherever nobody has closed anything. */
static void settle(void)
{
    it.quiet = true;
    (void)fuzz_refuse_allocation(0);
    fuzz_limit_writes(0);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!it.sides[i])
            continue;
        evpt_stream_pause(&it.sides[i]->stream, true); /* what on_data left comes again */
        evpt_stream_pause(&it.sides[i]->stream, false);
    }
    for (unsigned turns = 0, busy = 2; busy; turns++) {
        FUZZ_CHECK(turns < 10000);
        busy = evpt_loop_turn(it.loop, 0) > 0 ? 2 : busy - 1;
        for (unsigned i = 0; i < SLOTS; i++) {
            if (it.sides[i] && peer_reads(it.sides[i], WRITE_MAX))
                busy = 2;
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        struct side *side = it.sides[i];
        if (!side || side->closing || side->closed || side->peer_closed)
            continue;
        FUZZ_CHECK(evpt_stream_is_open(&side->stream));
        FUZZ_CHECK(side->peer_got == side->queued && evpt_stream_queued(&side->stream) == 0);
        FUZZ_CHECK(side->got == side->peer_sent);
    }
}

void fuzz_one(struct fuzz_input *in)
{
    memset(&it, 0, sizeof(it));
    it.in = in;
    FUZZ_CHECK(evpt_loop_new(&it.loop) == 0);
    while (fuzz_left(in))
        play();
    settle();
    for (unsigned i = 0; i < SLOTS; i++) {
        if (it.sides[i])
            finish(i);
    }
    evpt_loop_free(it.loop);
}
