/* Streams: bytes in, bytes out. The end of a stream is in test_stream_close.c. */
#include "stream_side.h"

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
        ssize_t n = end_write(&side->line, 1, zeros, bytes - sent);
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
    peer_closes(side);
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
    if (over_tls())
        closing->line.transports[1]->ops->shutdown(closing->line.transports[1]);
    ck_assert_int_eq(evpt_sys_shutdown_write(closing->line.fds[1]), 0);
    turn(asking);
    ck_assert_int_eq(closing->closes, 1);
    ck_assert_int_eq(closing->error, -EVPT_EEOF);
    assert_peer_gets(closing, "answer");
    end_side(closing);
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
    peer_closes(side);
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
    peer_closes(side);
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
    end_side(second);
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
             test_write_without_memory_queues_nothing, test_writes_after_close_are_refused)
