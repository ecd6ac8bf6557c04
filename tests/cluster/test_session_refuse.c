/* What a session refuses (SPEC section 5): each case ends its connection, says why, and touches no
 * other. */
#include "cluster/session.h"

#include "support.h"
#include <stdio.h>
#include <stdlib.h>

struct refusal {
    const char *name, *reason;
    void (*provoke)(struct raw *raw);
    uint32_t too_large; /* the session that is to get a reply with code 9 */
    int code;           /* of the GOAWAY */
};

static void length_6(struct raw *raw)
{
    raw_write(raw, "\0\x06", 2);
}

static void length_32776(struct raw *raw)
{
    raw_write(raw, "\x80\x08", 2);
}

static void flag_unknown_low(struct raw *raw)
{
    raw_write(raw, "\0\x07\x7f\0\0\0\x01", 7);
}

static void flag_unknown_high(struct raw *raw)
{
    raw_write(raw, "\0\x07\x88\0\0\0\0", 7);
}

static void whole_session_0(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_WHOLE, 0, "x", 1);
}

static void first_session_0(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_FIRST, 0, "x", 1);
}

static void control_with_session(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_PING, 1, "x", 1);
}

static void control_too_long(struct raw *raw)
{
    uint8_t data[EVPT_FRAME_CONTROL_MAX + 1] = {0};
    raw_frame(raw, EVPT_FRAME_PING, 0, data, sizeof data);
}

static void middle_without_first(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_FIRST, 10, "x", 1);
    raw_frame(raw, EVPT_FRAME_MIDDLE, 11, "x", 1);
}

static void last_without_first(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_LAST, 11, "x", 1);
}

static void part_after_last(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_FIRST, 10, "x", 1);
    raw_frame(raw, EVPT_FRAME_LAST, 10, "x", 1);
    raw_frame(raw, EVPT_FRAME_LAST, 10, "x", 1);
}

static void second_first(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_FIRST, 10, "x", 1);
    raw_frame(raw, EVPT_FRAME_FIRST, 10, "x", 1);
}

static void whole_amid_parts(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_FIRST, 10, "x", 1);
    raw_frame(raw, EVPT_FRAME_WHOLE, 10, "x", 1);
}

static void partials_1025(struct raw *raw)
{
    for (uint32_t session = 1; session <= EVPT_SESSION_PARTIALS_MAX + 1; session++)
        raw_frame(raw, EVPT_FRAME_FIRST, session, "x", 1);
}

static const uint8_t zeros[EVPT_FRAME_DATA_MAX];

static void whole_too_large(struct raw *raw)
{
    raw->world->config.message_max = 1000;
    raw_frame(raw, EVPT_FRAME_WHOLE, 20, zeros, 1001);
}

static void first_too_large(struct raw *raw)
{
    raw->world->config.message_max = 1000;
    raw_frame(raw, EVPT_FRAME_FIRST, 21, zeros, 1001);
}

static void parts_too_large(struct raw *raw)
{
    raw->world->config.message_max = 1000;
    raw_frame(raw, EVPT_FRAME_FIRST, 22, zeros, 500);
    raw_frame(raw, EVPT_FRAME_MIDDLE, 22, zeros, 500);
    raw_frame(raw, EVPT_FRAME_LAST, 22, zeros, 1);
    /* and the peer goes on: nobody reads it as anything */
    for (uint32_t i = 0; i < 100; i++)
        raw_frame(raw, EVPT_FRAME_WHOLE, 23 + i, zeros, sizeof zeros);
}

static void hello_not_array(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\xc0", 1);
}

static void hello_empty(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "", 0);
}

static void hello_short(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x93\x01\xa1x\x05", 5);
}

static void hello_truncated(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x94\x01\xa1x\x05\xcd\x01", 7);
}

static void hello_name_long(struct raw *raw)
{
    uint8_t data[100];
    struct evpt_writer writer;
    evpt_writer_init(&writer, data, sizeof data);
    evpt_write_array(&writer, 4);
    evpt_write_int(&writer, 1);
    evpt_write_str(&writer, zeros, EVPT_NODE_NAME_MAX + 1);
    evpt_write_int(&writer, 1);
    evpt_write_int(&writer, 1000);
    raw_frame(raw, EVPT_FRAME_HELLO, 0, data, (size_t)(writer.at - data));
}

static void hello_name_with_newline(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x94\x01\xa2x\n\x05\x64", 7);
}

static void hello_incarnation_negative(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x94\x01\xa1x\xff\x64", 6);
}

static void hello_message_max_0(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x94\x01\xa1x\x05\x00", 6);
}

static void hello_version_0(struct raw *raw)
{
    raw_frame(raw, EVPT_FRAME_HELLO, 0, "\x94\x00\xa1x\x05\x64", 6);
}

static const struct refusal refusals[] = {
    {"length 6", "frame length out of range", length_6, 0, 10},
    {"length 32776", "frame length out of range", length_32776, 0, 10},
    {"flag 0x7f", "unknown frame flag", flag_unknown_low, 0, 10},
    {"flag 0x88", "unknown frame flag", flag_unknown_high, 0, 10},
    {"whole, session 0", "message with session 0", whole_session_0, 0, 10},
    {"first, session 0", "message with session 0", first_session_0, 0, 10},
    {"control, session 1", "control frame with a session", control_with_session, 0, 10},
    {"control, 1025 bytes", "control frame longer", control_too_long, 0, 10},
    {"middle without first", "without its first one", middle_without_first, 0, 10},
    {"last without first", "without its first one", last_without_first, 0, 10},
    {"part after last", "without its first one", part_after_last, 0, 10},
    {"second first", "second first part", second_first, 0, 10},
    {"whole amid parts", "whole message in the middle", whole_amid_parts, 0, 10},
    {"1025 partials", "more than 1024 partial", partials_1025, 0, 10},
    {"whole too large", "longer than message_max", whole_too_large, 20, 9},
    {"first too large", "longer than message_max", first_too_large, 21, 9},
    {"parts too large", "longer than message_max", parts_too_large, 22, 9},
};

static const struct refusal bad_hellos[] = {
    {"not an array", "HELLO that does not decode", hello_not_array, 0, 0},
    {"empty", "HELLO that does not decode", hello_empty, 0, 0},
    {"three elements", "HELLO that does not decode", hello_short, 0, 0},
    {"truncated", "HELLO that does not decode", hello_truncated, 0, 0},
    {"name of 65 bytes", "HELLO that does not decode", hello_name_long, 0, 0},
    {"name with a newline", "HELLO that does not decode", hello_name_with_newline, 0, 0},
    {"negative incarnation", "HELLO that does not decode", hello_incarnation_negative, 0, 0},
    {"message_max 0", "HELLO that does not decode", hello_message_max_0, 0, 0},
    {"version 0", "HELLO that does not decode", hello_version_0, 0, 0},
};

static void expect_too_large_reply(struct raw *raw, uint32_t session)
{
    struct evpt_frame frame = raw_take(raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_WHOLE);
    ck_assert_uint_eq(frame.session, session);
    struct evpt_reader reader;
    uint32_t count, size;
    int64_t kind, code;
    const char *text;
    evpt_reader_init(&reader, frame.data, frame.size);
    ck_assert(!evpt_read_array(&reader, &count) && count == 3);
    ck_assert(!evpt_read_int(&reader, &kind) && kind == 3);
    ck_assert(!evpt_read_int(&reader, &code) && code == 9);
    ck_assert(!evpt_read_array(&reader, &count) && count == 1);
    ck_assert(!evpt_read_str(&reader, &text, &size) && size > 10);
    ck_assert_ptr_eq(reader.at, reader.end);
}

static void expect_goaway(struct raw *raw, int expected_code, const char *reason)
{
    struct evpt_frame frame = raw_take(raw);
    while (frame.flag == EVPT_FRAME_PING)
        frame = raw_take(raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_GOAWAY);
    struct evpt_reader reader;
    uint32_t count, size;
    int64_t code;
    const char *bytes;
    evpt_reader_init(&reader, frame.data, frame.size);
    ck_assert(!evpt_read_array(&reader, &count) && count == 2);
    ck_assert(!evpt_read_int(&reader, &code));
    ck_assert_int_eq(code, expected_code);
    ck_assert(!evpt_read_str(&reader, &bytes, &size));
    char text[EVPT_FRAME_CONTROL_MAX + 1];
    snprintf(text, sizeof text, "%.*s", (int)size, bytes);
    ck_assert_msg(strstr(text, reason), "GOAWAY says: %s", text);
}

/* The connection has been ended; its session says so once, and why. */
static void expect_refused(struct raw *raw, struct end *end, const char *reason)
{
    raw_expect_end(raw);
    raw_fini(raw);
    TURN_UNTIL(raw->world, end->closes);
    ck_assert_int_eq(end->closes, 1);
    ck_assert_int_eq(end->close_error, -EVPT_EPROTOCOL);
    ck_assert_msg(strstr(end->close_reason, reason), "on_close says: %s", end->close_reason);
    ck_assert_ptr_null(end->session);
}

static void run_refusal(const struct refusal *refusal, bool hello)
{
    struct world world;
    struct bystander bystander;
    struct end end;
    struct raw raw;
    world_init(&world);
    bystander_open(&bystander, &world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    if (hello) {
        raw_hello(&raw, 1 << 20);
        ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_HELLO);
    }
    refusal->provoke(&raw);
    if (refusal->too_large)
        expect_too_large_reply(&raw, refusal->too_large);
    if (hello)
        expect_goaway(&raw, refusal->code, refusal->reason);
    expect_refused(&raw, &end, refusal->reason);
    bystander_fini(&bystander);
    end_fini(&end);
    world_fini(&world);
}

START_TEST(test_session_refuses_a_peer_that_said_hello_with_goaway)
{
    run_refusal(&refusals[_i], true);
}
END_TEST

START_TEST(test_session_refuses_a_plain_peer_without_control_frames)
{
    run_refusal(&refusals[_i], false);
}
END_TEST

START_TEST(test_session_refuses_a_hello_that_does_not_decode)
{
    run_refusal(&bad_hellos[_i], false);
}
END_TEST

static void second_hello(struct raw *raw)
{
    raw_hello(raw, 1000);
}

START_TEST(test_session_refuses_a_second_hello)
{
    run_refusal(&(struct refusal){"second HELLO", "second HELLO", second_hello, 0, 10}, true);
}
END_TEST

START_TEST(test_session_client_refuses_a_reply_too_large_without_replying)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_CLIENT);
    ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_HELLO);
    whole_too_large(&raw);
    expect_refused(&raw, &end, "longer than message_max");
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_takes_what_is_just_within_the_limits)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    world.config.message_max = 40000;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 1, zeros, 32768));
    ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, 1, zeros, 40000 - 32768));
    for (uint32_t session = 1; session <= EVPT_SESSION_PARTIALS_MAX; session++)
        ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, session, "x", 1));
    for (uint32_t session = 1; session <= EVPT_SESSION_PARTIALS_MAX; session++)
        ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, session, "y", 1));
    TURN_UNTIL(&world, end.inbox_count == 1 + EVPT_SESSION_PARTIALS_MAX);
    ck_assert_uint_eq(end.inbox[0]->size, 40000);
    ck_assert_int_eq(end.closes, 0);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_frames_behind_a_refused_one_are_not_delivered)
{
    struct world world;
    struct end end;
    struct raw raw;
    uint8_t bytes[32];
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    evpt_frame_write_header(bytes, EVPT_FRAME_WHOLE, 1, 0);
    evpt_frame_write_header(bytes + 7, EVPT_FRAME_WHOLE, 0, 0);
    evpt_frame_write_header(bytes + 14, EVPT_FRAME_WHOLE, 2, 0);
    ck_assert(raw_write(&raw, bytes, 21));
    expect_refused(&raw, &end, "session 0");
    ck_assert_uint_eq(end.inbox_count, 1);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

/* ---- stalls ---- */

START_TEST(test_session_partial_message_stalls_after_30_s_without_data)
{
    bool hello = _i == 1;
    struct world world;
    struct end end, other;
    struct raw raw, other_raw;
    world_init(&world);
    world.config.heartbeat_ms = 1000000;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    raw_open(&other_raw, &other, &world, EVPT_SESSION_SERVER);
    if (hello) {
        raw_hello(&raw, 1 << 20);
        ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_HELLO);
    }
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 1, "x", 1));
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 2, "x", 1));
    ck_assert(raw_frame(&other_raw, EVPT_FRAME_FIRST, 1, "x", 1));
    for (int i = 0; i < 3; i++) { /* data every 29 s: goes on for ever */
        turn(&world);
        clock_skip_ms(29000);
        ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 1, "x", 1));
        ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 2, "x", 1));
        ck_assert(raw_frame(&other_raw, EVPT_FRAME_MIDDLE, 1, "x", 1));
    }
    turn(&world);
    turn(&world);
    ck_assert_int_eq(end.closes, 0);
    /* then the second one stalls, though the first does not, and empty parts come */
    clock_skip_ms(15000);
    ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 1, "x", 1));
    ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 2, "", 0));
    ck_assert(raw_frame(&other_raw, EVPT_FRAME_MIDDLE, 1, "x", 1));
    turn(&world);
    clock_skip_ms(14000);
    turn(&world);
    ck_assert_int_eq(end.closes, 0);
    ck_assert(evpt_session_is_open(end.session));
    clock_skip_ms(1100);
    if (hello)
        expect_goaway(&raw, 10, "without progress for 30 s");
    expect_refused(&raw, &end, "without progress for 30 s");
    ck_assert_int_eq(other.closes, 0);
    ck_assert(raw_frame(&other_raw, EVPT_FRAME_LAST, 1, "x", 1));
    TURN_UNTIL(&world, other.inbox_count == 1);
    end_fini(&end);
    end_fini(&other);
    raw_fini(&other_raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_half_a_frame_stalls_after_30_s)
{
    struct world world;
    struct end end;
    struct raw raw;
    struct bystander bystander;
    world_init(&world);
    bystander_open(&bystander, &world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_write(&raw, "\0\x20\x80\0\0", 5));
    turn(&world);
    clock_skip_ms(20000);
    ck_assert(raw_write(&raw, "\0\x01hello", 7)); /* still not all of it */
    ck_assert(raw_frame(&bystander.raw, EVPT_FRAME_MIDDLE, 1, "", 0));
    turn(&world);
    clock_skip_ms(9000);
    turn(&world);
    turn(&world);
    ck_assert(evpt_session_is_open(end.session));
    ck_assert(raw_frame(&bystander.raw, EVPT_FRAME_LAST, 1, "", 0));
    TURN_UNTIL(&world, bystander.end.inbox_count == 1);
    clock_skip_ms(21500);
    expect_refused(&raw, &end, "without progress for 30 s");
    ck_assert_int_eq(bystander.end.closes, 0);
    end_fini(&bystander.end);
    raw_fini(&bystander.raw);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_silence_between_messages_is_no_stall)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_write(&raw, "\0\x08\x80\0", 4));
    turn(&world);
    ck_assert(raw_write(&raw, "\0\0\x01x", 4));
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 2, "x", 1));
    turn(&world);
    ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, 2, "x", 1));
    TURN_UNTIL(&world, end.inbox_count == 2);
    for (int i = 0; i < 5; i++) {
        clock_skip_ms(100000);
        turn(&world);
        turn(&world);
    }
    ck_assert(evpt_session_is_open(end.session));
    ck_assert(!raw_has_frame(&raw)); /* a plain peer is not asked whether it lives */
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

int main(void)
{
    enum { REFUSALS = sizeof refusals / sizeof refusals[0] };
    TCase *tcase = tcase_create("session_refuse");
    tcase_add_loop_test(tcase, test_session_refuses_a_peer_that_said_hello_with_goaway, 0,
                        REFUSALS);
    tcase_add_loop_test(tcase, test_session_refuses_a_plain_peer_without_control_frames, 0,
                        REFUSALS);
    tcase_add_loop_test(tcase, test_session_refuses_a_hello_that_does_not_decode, 0,
                        sizeof bad_hellos / sizeof bad_hellos[0]);
    tcase_add_test(tcase, test_session_refuses_a_second_hello);
    tcase_add_test(tcase, test_session_client_refuses_a_reply_too_large_without_replying);
    tcase_add_test(tcase, test_session_takes_what_is_just_within_the_limits);
    tcase_add_test(tcase, test_session_frames_behind_a_refused_one_are_not_delivered);
    tcase_add_loop_test(tcase, test_session_partial_message_stalls_after_30_s_without_data, 0, 2);
    tcase_add_test(tcase, test_session_half_a_frame_stalls_after_30_s);
    tcase_add_test(tcase, test_session_silence_between_messages_is_no_stall);
    return run_tests("session_refuse", tcase);
}
