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

static ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
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

static void on_drain(struct evpt_stream *stream, void *user)
{
    struct side *side = user;
    side->drains++;
    if (side->fini_in_drain)
        evpt_stream_fini(stream);
}

static void on_close(struct evpt_stream *stream, int error, void *user)
{
    struct side *side = user;
    side->closes++;
    side->error = error;
    if (side->fini_in_close)
        evpt_stream_fini(stream);
}

static const struct evpt_stream_ops ops = {
    .on_data = on_data, .on_drain = on_drain, .on_close = on_close};

static void open_side(struct side *side, struct evpt_loop *loop)
{
    int fds[2];
    support_socketpair(fds);
    side->loop = loop;
    side->peer = fds[1];
    ck_assert_int_eq(evpt_stream_start(&side->stream, loop, fds[0], &ops, side), 0);
    evpt_stream_check(&side->stream);
}

static struct side *new_side(void)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    ck_assert_ptr_nonnull(side);
    open_side(side, support_loop());
    return side;
}

static void free_side(struct side *side)
{
    evpt_stream_fini(&side->stream);
    evpt_stream_check(&side->stream);
    evpt_stream_fini(&side->stream);
    evpt_sys_close(side->peer);
    evpt_loop_free(side->loop);
    evpt_sys_free(side);
}

static void turn(struct side *side)
{
    ck_assert_int_ge(evpt_loop_turn(side->loop, 0), 0);
    evpt_stream_check(&side->stream);
}

static void peer_sends(struct side *side, const char *text)
{
    ck_assert_int_eq(evpt_sys_write(side->peer, text, strlen(text)), (ssize_t)strlen(text));
}

static void assert_received(struct side *side, const char *text)
{
    ck_assert_uint_eq(side->size, strlen(text));
    ck_assert_mem_eq(side->data, text, side->size);
}

/* What the peer can read now. */
static void assert_peer_gets(struct side *side, const char *text)
{
    char buffer[4096];
    ssize_t got = evpt_sys_read(side->peer, buffer, sizeof(buffer));
    ck_assert_int_eq(got, (ssize_t)strlen(text));
    ck_assert_mem_eq(buffer, text, strlen(text));
}

static void write_text(struct side *side, const char *text)
{
    ck_assert_int_eq(evpt_stream_write(&side->stream, text, strlen(text)), 0);
    evpt_stream_check(&side->stream);
}

/* Queues and writes until the socket takes no more; returns the bytes queued. */
static size_t fill_socket(struct side *side)
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
static size_t empty_socket(struct side *side)
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

/* ---- in ---- */

START_TEST(test_hands_over_what_the_peer_sends)
{
    struct side *side = new_side();
    peer_sends(side, "hello");
    turn(side);
    assert_received(side, "hello");
    ck_assert_uint_eq(side->stream.read_total, 5);
    free_side(side);
}
END_TEST

START_TEST(test_unconsumed_bytes_come_again_in_front_of_the_next)
{
    struct side *side = new_side();
    side->leave = 3;
    peer_sends(side, "abcde");
    turn(side);
    assert_received(side, "ab");
    turn(side);
    ck_assert_uint_eq(side->calls, 1); /* nothing new, no call */
    peer_sends(side, "f");
    turn(side);
    ck_assert_uint_eq(side->last_size, 4);
    assert_received(side, "abc");
    side->leave = 0;
    peer_sends(side, "g");
    turn(side);
    assert_received(side, "abcdefg");
    ck_assert_ptr_null(side->stream.tail); /* an idle connection holds no buffer */
    free_side(side);
}
END_TEST

START_TEST(test_bytes_that_come_one_by_one_are_kept_until_they_suffice)
{
    struct side *side = new_side();
    side->leave = 4096;
    for (int i = 0; i < 200; i++) {
        peer_sends(side, i % 2 ? "x" : "y");
        turn(side);
        ck_assert_uint_eq(side->last_size, (size_t)i + 1);
    }
    side->leave = 0;
    peer_sends(side, "z");
    turn(side);
    ck_assert_uint_eq(side->size, 201);
    for (int i = 0; i < 200; i++)
        ck_assert_int_eq(side->data[i], i % 2 ? 'x' : 'y');
    free_side(side);
}
END_TEST

static void leave_behind(struct side *side, size_t bytes)
{
    static uint8_t zeros[EVPT_STREAM_TAIL_MAX + 1];
    side->leave = bytes;
    for (size_t sent = 0; sent < bytes;) {
        ssize_t n = evpt_sys_write(side->peer, zeros, bytes - sent);
        ck_assert_int_gt(n, 0);
        sent += (size_t)n;
        turn(side);
    }
}

START_TEST(test_tail_may_be_as_long_as_its_limit)
{
    struct side *side = new_side();
    leave_behind(side, EVPT_STREAM_TAIL_MAX);
    ck_assert(evpt_stream_is_open(&side->stream));
    ck_assert_uint_eq(side->last_size, EVPT_STREAM_TAIL_MAX);
    free_side(side);
}
END_TEST

START_TEST(test_tail_beyond_its_limit_closes_the_stream)
{
    struct side *side = new_side();
    leave_behind(side, EVPT_STREAM_TAIL_MAX + 1);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_ELIMIT);
    free_side(side);
}
END_TEST

START_TEST(test_tail_without_memory_closes_the_stream)
{
    struct side *side = new_side();
    side->leave = 1;
    support_fail_allocation(1);
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -ENOMEM);
    free_side(side);
}
END_TEST

START_TEST(test_error_from_on_data_closes_the_stream_with_it)
{
    struct side *side = new_side();
    side->fail = -EVPT_EPROTOCOL;
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_EPROTOCOL);
    free_side(side);
}
END_TEST

START_TEST(test_short_read_is_not_followed_by_another)
{
    struct side *side = new_side();
    peer_sends(side, "abc");
    support_reset_calls();
    turn(side);
    ck_assert_uint_eq(support_calls.read, 1);
    free_side(side);
}
END_TEST

START_TEST(test_end_of_file_closes_the_stream)
{
    struct side *side = new_side();
    peer_sends(side, "last words");
    evpt_sys_close(side->peer);
    side->peer = -1;
    TURN_UNTIL(side->loop, side->closes);
    assert_received(side, "last words");
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_EEOF);
    ck_assert(!evpt_stream_is_open(&side->stream));
    free_side(side);
}
END_TEST

/* Both events come in one batch: the answer is queued when the end of file is read. */
START_TEST(test_half_closed_peer_still_gets_what_was_queued)
{
    struct side *asking = new_side(), *closing = evpt_sys_zalloc(sizeof(*closing));
    open_side(closing, asking->loop);
    asking->answer = "answer";
    asking->answer_to = &closing->stream;
    peer_sends(asking, "question");
    ck_assert_int_eq(evpt_sys_shutdown_write(closing->peer), 0);
    turn(asking);
    ck_assert_int_eq(closing->closes, 1);
    ck_assert_int_eq(closing->error, -EVPT_EEOF);
    assert_peer_gets(closing, "answer");
    evpt_stream_fini(&closing->stream);
    evpt_sys_close(closing->peer);
    evpt_sys_free(closing);
    free_side(asking);
}
END_TEST

/* ---- pause ---- */

START_TEST(test_paused_stream_reads_nothing_until_resumed)
{
    struct side *side = new_side();
    evpt_stream_pause(&side->stream, true);
    peer_sends(side, "abc");
    turn(side);
    ck_assert_uint_eq(side->calls, 0);
    evpt_stream_pause(&side->stream, false);
    turn(side);
    assert_received(side, "abc");
    free_side(side);
}
END_TEST

START_TEST(test_resumed_stream_offers_its_tail_again_without_new_bytes)
{
    struct side *side = new_side();
    side->leave = 2;
    side->pause_in_data = true;
    peer_sends(side, "abcd");
    turn(side);
    assert_received(side, "ab");
    side->leave = 0;
    side->pause_in_data = false;
    turn(side);
    ck_assert_uint_eq(side->calls, 1);
    evpt_stream_pause(&side->stream, false);
    ck_assert_uint_eq(side->calls, 1); /* from the loop, not from inside pause */
    turn(side);
    assert_received(side, "abcd");
    free_side(side);
}
END_TEST

START_TEST(test_hangup_of_a_paused_stream_neither_spins_nor_loses_bytes)
{
    struct side *side = new_side();
    evpt_stream_pause(&side->stream, true);
    peer_sends(side, "before the end");
    evpt_sys_close(side->peer);
    side->peer = -1;
    turn(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(evpt_loop_turn(side->loop, 0), 0); /* no event any more */
    ck_assert_int_eq(side->closes, 0);
    evpt_stream_pause(&side->stream, false);
    TURN_UNTIL(side->loop, side->closes);
    assert_received(side, "before the end");
    ck_assert_int_eq(side->error, -EVPT_EEOF);
    free_side(side);
}
END_TEST

START_TEST(test_write_to_a_peer_that_hung_up_during_a_pause_closes)
{
    struct side *side = new_side();
    evpt_stream_pause(&side->stream, true);
    evpt_sys_close(side->peer);
    side->peer = -1;
    turn(side);
    write_text(side, "anybody there?");
    TURN_UNTIL(side->loop, side->closes);
    ck_assert_int_eq(side->error, -EPIPE);
    free_side(side);
}
END_TEST

/* ---- out ---- */

START_TEST(test_writes_of_a_turn_leave_together)
{
    struct side *side = new_side();
    support_reset_calls();
    write_text(side, "one ");
    write_text(side, "two ");
    memcpy(evpt_stream_reserve(&side->stream, 5), "three", 5);
    ck_assert_uint_eq(support_calls.write, 0);
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 13);
    turn(side);
    ck_assert_uint_eq(support_calls.write, 1);
    ck_assert_uint_eq(support_calls.epoll_set, 0); /* no interest in writing */
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 0);
    assert_peer_gets(side, "one two three");
    free_side(side);
}
END_TEST

START_TEST(test_answer_leaves_in_the_turn_of_the_request)
{
    struct side *side = new_side();
    side->answer = "pong";
    peer_sends(side, "ping");
    support_reset_calls();
    turn(side);
    assert_peer_gets(side, "pong");
    ck_assert_uint_eq(support_calls.epoll_wait, 1);
    ck_assert_uint_eq(support_calls.read, 2); /* one of them the peer's */
    ck_assert_uint_eq(support_calls.write, 1);
    free_side(side);
}
END_TEST

START_TEST(test_long_answer_does_not_wait_for_the_end_of_the_turn)
{
    static char text[40001];
    struct side *first = new_side(), *second = evpt_sys_zalloc(sizeof(*second));
    open_side(second, first->loop);
    memset(text, 'x', sizeof(text) - 1);
    first->answer = text;
    second->flushed = &first->stream;
    peer_sends(first, "ping");
    peer_sends(second, "ping");
    turn(first);
    ck_assert_uint_eq(first->calls, 1);
    ck_assert_uint_eq(second->calls, 1);
    evpt_stream_fini(&second->stream);
    evpt_sys_close(second->peer);
    evpt_sys_free(second);
    free_side(first);
}
END_TEST

START_TEST(test_flush_writes_at_once)
{
    struct side *side = new_side();
    write_text(side, "now");
    evpt_stream_flush(&side->stream);
    assert_peer_gets(side, "now");
    evpt_stream_flush(&side->stream);
    evpt_stream_check(&side->stream);
    free_side(side);
}
END_TEST

START_TEST(test_writing_nothing_queues_nothing)
{
    struct side *side = new_side();
    ck_assert_int_eq(evpt_stream_write(&side->stream, "", 0), 0);
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 0);
    free_side(side);
}
END_TEST

START_TEST(test_steady_traffic_allocates_nothing)
{
    struct side *side = new_side();
    for (int i = 0; i < 100; i++) {
        if (i == 10)
            support_fail_allocation(1); /* from here on any allocation would be refused */
        write_text(side, "message");
        ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "payload", 7, NULL, NULL), 0);
        turn(side);
        assert_peer_gets(side, "messagepayload");
    }
    support_fail_allocation(0);
    free_side(side);
}
END_TEST

START_TEST(test_short_write_waits_for_the_socket)
{
    struct side *side = new_side();
    size_t total = fill_socket(side);
    support_reset_calls();
    for (int i = 0; i < 5; i++) {
        write_text(side, "more");
        turn(side);
    }
    ck_assert_uint_eq(support_calls.write, 0); /* no attempt that must fail */
    ck_assert_uint_eq(empty_socket(side), total + 20);
    ck_assert(!side->stream.blocked);
    free_side(side);
}
END_TEST

START_TEST(test_drain_comes_once_after_the_queue_fell_from_high_to_low)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    side->stream.high_water = 100;
    side->stream.low_water = 10;
    open_side(side, support_loop());
    write_text(side, "less than high water");
    turn(side);
    ck_assert_int_eq(side->drains, 0);

    static uint8_t bytes[100];
    evpt_stream_write(&side->stream, bytes, sizeof(bytes));
    support_limit_writes(20);
    turn(side);
    ck_assert_uint_gt(evpt_stream_queued(&side->stream), 10);
    ck_assert_int_eq(side->drains, 0);
    support_limit_writes(0);
    turn(side);
    ck_assert_int_eq(side->drains, 1);
    write_text(side, "little");
    turn(side);
    ck_assert_int_eq(side->drains, 1);

    evpt_stream_write(&side->stream, bytes, sizeof(bytes));
    evpt_stream_flush(&side->stream);
    ck_assert_int_eq(side->drains, 1); /* from the loop, not from inside flush */
    turn(side);
    ck_assert_int_eq(side->drains, 2);
    free_side(side);
}
END_TEST

START_TEST(test_write_without_memory_queues_nothing)
{
    struct side *side = new_side();
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_stream_write(&side->stream, "abc", 3), -ENOMEM);
    support_fail_allocation(1);
    ck_assert_ptr_null(evpt_stream_reserve(&side->stream, 3));
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 0);
    evpt_stream_check(&side->stream);
    write_text(side, "def");
    turn(side);
    assert_peer_gets(side, "def");
    free_side(side);
}
END_TEST

START_TEST(test_writes_after_close_are_refused)
{
    struct side *side = new_side();
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(evpt_stream_write(&side->stream, "abc", 3), -EVPT_ECLOSED);
    ck_assert_ptr_null(evpt_stream_reserve(&side->stream, 3));
    evpt_stream_flush(&side->stream);
    evpt_stream_pause(&side->stream, true);
    free_side(side);
}
END_TEST

/* ---- references ---- */

struct owned {
    int releases;
    struct side *fini; /* finished by the release, if set */
};

static void release(void *user)
{
    struct owned *owned = user;
    owned->releases++;
    if (owned->fini)
        evpt_stream_fini(&owned->fini->stream);
}

START_TEST(test_reference_is_released_once_when_it_is_written)
{
    struct side *side = new_side();
    struct owned owned = {0}, empty = {0};
    write_text(side, "head ");
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "", 0, release, &empty), 0);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned), 0);
    ck_assert_int_eq(owned.releases, 0);
    turn(side);
    ck_assert_int_eq(owned.releases, 1);
    ck_assert_int_eq(empty.releases, 1);
    assert_peer_gets(side, "head body");
    free_side(side);
    ck_assert_int_eq(owned.releases, 1);
    ck_assert_int_eq(empty.releases, 1);
}
END_TEST

START_TEST(test_reference_of_no_bytes_alone_is_released)
{
    struct side *side = new_side();
    struct owned empty = {0};
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "", 0, release, &empty), 0);
    turn(side);
    ck_assert_int_eq(empty.releases, 1);
    ck_assert(evpt_stream_is_open(&side->stream));
    free_side(side);
}
END_TEST

START_TEST(test_reference_is_released_once_when_the_stream_closes_before)
{
    struct side *side = new_side();
    struct owned owned[3] = {0};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(owned[0].releases, 0); /* not from inside close */
    turn(side);
    free_side(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
}
END_TEST

START_TEST(test_reference_is_released_once_when_the_stream_is_finished)
{
    struct side *side = new_side();
    struct owned owned[3] = {0};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    free_side(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
}
END_TEST

START_TEST(test_reference_is_released_once_where_it_is_refused)
{
    struct side *side = new_side();
    struct owned owned[2] = {0};
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[0]), -ENOMEM);
    ck_assert_int_eq(owned[0].releases, 1);
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[1]),
                     -EVPT_ECLOSED);
    ck_assert_int_eq(owned[1].releases, 1);
    free_side(side);
    ck_assert_int_eq(owned[0].releases + owned[1].releases, 2);
}
END_TEST

/* ---- closing ---- */

START_TEST(test_close_with_flush_writes_what_is_queued_first)
{
    struct side *side = new_side();
    size_t total = fill_socket(side);
    write_text(side, "the end");
    evpt_stream_close(&side->stream, true);
    ck_assert_int_eq(evpt_stream_write(&side->stream, "x", 1), -EVPT_ECLOSED);
    peer_sends(side, "not read any more");
    turn(side);
    ck_assert_int_eq(side->closes, 0);
    ck_assert_uint_eq(empty_socket(side), total + 7);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, 0);
    ck_assert_uint_eq(side->calls, 0);
    free_side(side);
}
END_TEST

START_TEST(test_close_with_flush_ends_when_the_peer_is_gone)
{
    struct side *side = new_side();
    fill_socket(side);
    evpt_stream_close(&side->stream, true);
    evpt_sys_close(side->peer);
    side->peer = -1;
    TURN_UNTIL(side->loop, side->closes);
    ck_assert_int_lt(side->error, 0);
    free_side(side);
}
END_TEST

START_TEST(test_close_without_flush_drops_what_is_queued)
{
    struct side *side = new_side();
    write_text(side, "too late");
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(side->closes, 0); /* from the loop, not from inside close */
    ck_assert_int_ge(evpt_loop_turn(side->loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, 0);
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 0);
    char byte;
    ck_assert_int_eq(evpt_sys_read(side->peer, &byte, 1), 0);
    free_side(side);
}
END_TEST

START_TEST(test_first_reason_to_close_is_the_one_reported)
{
    struct side *side = new_side();
    evpt_stream_fail(&side->stream, -EVPT_ETIMEOUT);
    evpt_stream_fail(&side->stream, -EVPT_ELIMIT);
    evpt_stream_close(&side->stream, true);
    for (int i = 0; i < 3; i++)
        turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_ETIMEOUT);
    free_side(side);
}
END_TEST

START_TEST(test_refused_descriptor_is_closed)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    side->loop = support_loop();
    side->peer = -1;
    int fd = evpt_sys_reserve_fd(); /* epoll takes no /dev/null */
    ck_assert_int_eq(evpt_stream_start(&side->stream, side->loop, fd, &ops, side), -EPERM);
    ck_assert(!evpt_stream_is_open(&side->stream));
    free_side(side);
}
END_TEST

/* ---- hostile callbacks ---- */

START_TEST(test_stream_can_be_finished_in_on_data)
{
    struct side *side = new_side();
    side->fini_in_data = true;
    peer_sends(side, "abc");
    turn(side);
    turn(side);
    ck_assert_uint_eq(side->calls, 1);
    ck_assert_int_eq(side->closes, 0);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_closed_in_on_data)
{
    struct side *side = new_side();
    side->close_in_data = true;
    side->leave = 1;
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_on_drain)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    side->stream.high_water = side->stream.low_water = 1;
    open_side(side, support_loop());
    side->fini_in_drain = true;
    write_text(side, "abc");
    turn(side);
    ck_assert_int_eq(side->drains, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_on_close)
{
    struct side *side = new_side();
    side->fini_in_close = true;
    evpt_stream_close(&side->stream, false);
    turn(side);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_a_release)
{
    struct side *side = new_side();
    struct owned owned[3] = {{.fini = NULL}, {.fini = side}, {.fini = NULL}};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    turn(side); /* written, released */
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_a_release_while_it_closes)
{
    struct side *side = new_side();
    struct owned owned[3] = {{.fini = NULL}, {.fini = side}, {.fini = NULL}};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    evpt_stream_close(&side->stream, false);
    turn(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
    ck_assert_int_eq(side->closes, 0); /* finished before it was reported */
    free_side(side);
}
END_TEST

/* on_data flushes, the flush releases, the release finishes: three deep. */
static ssize_t flush_in_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                             void *user)
{
    ck_assert_int_eq(evpt_stream_write_ref(stream, "body", 4, release, user), 0);
    evpt_stream_flush(stream);
    return 0;
}

START_TEST(test_stream_can_be_finished_in_a_release_in_a_flush_in_on_data)
{
    static const struct evpt_stream_ops flush_ops = {.on_data = flush_in_data,
                                                     .on_close = on_close};
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    struct owned owned = {.fini = side};
    int fds[2];
    support_socketpair(fds);
    side->loop = support_loop();
    side->peer = fds[1];
    ck_assert_int_eq(evpt_stream_start(&side->stream, side->loop, fds[0], &flush_ops, &owned), 0);
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(owned.releases, 1);
    free_side(side);
}
END_TEST

/* Frees the memory of the stream too, from each callback. */
static ssize_t free_in_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                            void *user)
{
    evpt_stream_fini(stream);
    evpt_sys_free(stream);
    ++*(int *)user;
    return (ssize_t)size;
}

static void free_in_close(struct evpt_stream *stream, int error, void *user)
{
    evpt_sys_free(stream);
    ++*(int *)user;
}

START_TEST(test_streams_memory_can_be_freed_in_callbacks)
{
    static const struct evpt_stream_ops free_ops = {.on_data = free_in_data,
                                                    .on_close = free_in_close};
    struct evpt_loop *loop = support_loop();
    int freed = 0;
    for (int i = 0; i < 2; i++) {
        int fds[2];
        struct evpt_stream *stream = evpt_sys_zalloc(sizeof(*stream));
        support_socketpair(fds);
        ck_assert_int_eq(evpt_stream_start(stream, loop, fds[0], &free_ops, &freed), 0);
        if (i)
            ck_assert_int_eq(evpt_sys_write(fds[1], "x", 1), 1);
        evpt_sys_close(fds[1]);
    }
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(freed, 2);
    evpt_loop_free(loop);
}
END_TEST

/* ---- everything at once, against a model ---- */

/* Random bytes go out in random pieces by all three ways, through writes that are cut at random;
 * they are echoed by a second stream that leaves random rests, pauses at random, and compared on
 * return. */
enum { TRANSFER = 3 * 1000 * 1000, PIECE_MAX = 100000 };

struct transfer {
    struct support_random random;
    struct evpt_loop *loop;
    struct evpt_stream near, far;
    uint8_t *bytes;
    size_t sent, returned;
    size_t references, releases;
    int closes;
};

static ssize_t on_returned(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                           void *user)
{
    struct transfer *t = user;
    ck_assert_uint_le(t->returned + size, t->sent);
    ck_assert_mem_eq(bytes, t->bytes + t->returned, size);
    size_t rest = support_below(&t->random, 3) ? 0 : support_below(&t->random, 1000);
    size_t used = size > rest ? size - rest : 0;
    t->returned += used;
    return (ssize_t)used;
}

static ssize_t on_echo(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct transfer *t = user;
    size_t rest = support_below(&t->random, 3) ? 0 : support_below(&t->random, 60000);
    size_t used = size > rest ? size - rest : 0;
    ck_assert_int_eq(evpt_stream_write(stream, bytes, used), 0);
    if (!support_below(&t->random, 4))
        evpt_stream_pause(stream, true);
    return (ssize_t)used;
}

static void on_transfer_closed(struct evpt_stream *stream, int error, void *user)
{
    ((struct transfer *)user)->closes++;
}

static void count_release(void *user)
{
    ((struct transfer *)user)->releases++;
}

static void send_piece(struct transfer *t)
{
    size_t size = support_below(&t->random, support_below(&t->random, 2) ? PIECE_MAX : 100) + 1;
    if (size > TRANSFER - t->sent)
        size = TRANSFER - t->sent;
    const uint8_t *piece = t->bytes + t->sent;
    switch (support_below(&t->random, 3)) {
    case 0:
        ck_assert_int_eq(evpt_stream_write(&t->near, piece, size), 0);
        break;
    case 1:
        t->references++;
        ck_assert_int_eq(evpt_stream_write_ref(&t->near, piece, size, count_release, t), 0);
        break;
    default:
        if (size > EVPT_STREAM_RESERVE_MAX)
            size = EVPT_STREAM_RESERVE_MAX;
        memcpy(evpt_stream_reserve(&t->near, size), piece, size);
    }
    t->sent += size;
}

static void transfer_step(struct transfer *t)
{
    for (uint64_t i = support_below(&t->random, 6); i > 0 && t->sent < TRANSFER; i--)
        send_piece(t);
    if (!support_below(&t->random, 5))
        evpt_stream_flush(&t->near);
    support_limit_writes(support_below(&t->random, 3) ? 0 : support_below(&t->random, 50000) + 1);
    if (t->far.paused && support_below(&t->random, 2))
        evpt_stream_pause(&t->far, false);
    if (t->sent == TRANSFER && t->near.tail) { /* the rest that on_returned left comes again so */
        evpt_stream_pause(&t->near, true);
        evpt_stream_pause(&t->near, false);
    }
    if (t->sent == TRANSFER && t->far.tail) {
        evpt_stream_pause(&t->far, true);
        evpt_stream_pause(&t->far, false);
    }
    ck_assert_int_ge(evpt_loop_turn(t->loop, 0), 0);
    evpt_stream_check(&t->near);
    evpt_stream_check(&t->far);
}

START_TEST(test_any_mix_of_pieces_arrives_unchanged)
{
    static const struct evpt_stream_ops near_ops = {.on_data = on_returned,
                                                    .on_close = on_transfer_closed};
    static const struct evpt_stream_ops far_ops = {.on_data = on_echo,
                                                   .on_close = on_transfer_closed};
    struct transfer t = {.random = support_seed(), .loop = support_loop()};
    int fds[2];
    support_socketpair(fds);
    t.bytes = evpt_sys_alloc(TRANSFER);
    for (size_t i = 0; i < TRANSFER; i++)
        t.bytes[i] = (uint8_t)support_random(&t.random);
    ck_assert_int_eq(evpt_stream_start(&t.near, t.loop, fds[0], &near_ops, &t), 0);
    ck_assert_int_eq(evpt_stream_start(&t.far, t.loop, fds[1], &far_ops, &t), 0);
    for (int i = 0; t.returned < TRANSFER; i++) {
        ck_assert_int_lt(i, 100000);
        transfer_step(&t);
    }
    ck_assert_uint_eq(t.releases, t.references);
    ck_assert_int_eq(t.closes, 0);
    evpt_stream_fini(&t.near);
    evpt_stream_fini(&t.far);
    evpt_loop_free(t.loop);
    evpt_sys_free(t.bytes);
}
END_TEST

SUPPORT_MAIN("reactor/stream", test_hands_over_what_the_peer_sends,
             test_unconsumed_bytes_come_again_in_front_of_the_next,
             test_bytes_that_come_one_by_one_are_kept_until_they_suffice,
             test_tail_may_be_as_long_as_its_limit, test_tail_beyond_its_limit_closes_the_stream,
             test_tail_without_memory_closes_the_stream,
             test_error_from_on_data_closes_the_stream_with_it,
             test_short_read_is_not_followed_by_another, test_end_of_file_closes_the_stream,
             test_half_closed_peer_still_gets_what_was_queued,
             test_paused_stream_reads_nothing_until_resumed,
             test_resumed_stream_offers_its_tail_again_without_new_bytes,
             test_hangup_of_a_paused_stream_neither_spins_nor_loses_bytes,
             test_write_to_a_peer_that_hung_up_during_a_pause_closes,
             test_writes_of_a_turn_leave_together, test_answer_leaves_in_the_turn_of_the_request,
             test_long_answer_does_not_wait_for_the_end_of_the_turn, test_flush_writes_at_once,
             test_writing_nothing_queues_nothing, test_steady_traffic_allocates_nothing,
             test_short_write_waits_for_the_socket,
             test_drain_comes_once_after_the_queue_fell_from_high_to_low,
             test_write_without_memory_queues_nothing, test_writes_after_close_are_refused,
             test_reference_is_released_once_when_it_is_written,
             test_reference_of_no_bytes_alone_is_released,
             test_reference_is_released_once_when_the_stream_closes_before,
             test_reference_is_released_once_when_the_stream_is_finished,
             test_reference_is_released_once_where_it_is_refused,
             test_close_with_flush_writes_what_is_queued_first,
             test_close_with_flush_ends_when_the_peer_is_gone,
             test_close_without_flush_drops_what_is_queued,
             test_first_reason_to_close_is_the_one_reported, test_refused_descriptor_is_closed,
             test_stream_can_be_finished_in_on_data, test_stream_can_be_closed_in_on_data,
             test_stream_can_be_finished_in_on_drain, test_stream_can_be_finished_in_on_close,
             test_stream_can_be_finished_in_a_release,
             test_stream_can_be_finished_in_a_release_while_it_closes,
             test_stream_can_be_finished_in_a_release_in_a_flush_in_on_data,
             test_streams_memory_can_be_freed_in_callbacks,
             test_any_mix_of_pieces_arrives_unchanged)
