/* Control frames, heartbeats, and how a session ends. */
#include "cluster/session.h"

#include "cluster/session_private.h"
#include "support.h"
#include <stdio.h>
#include <stdlib.h>

static void open_with_hello(struct raw *raw, struct end *end, struct world *world)
{
    raw_open(raw, end, world, EVPT_SESSION_SERVER);
    raw_hello(raw, 1 << 20);
    ck_assert_int_eq(raw_take(raw).flag, EVPT_FRAME_HELLO);
}

static void turns(struct world *world, int count)
{
    for (int i = 0; i < count; i++)
        turn(world);
}

/* ---- HELLO ---- */

static const uint8_t hello_here[] = {0x94, 0x01, 0xa4, 'h', 'e', 'r', 'e', 0x07, 0xce, 1, 0, 0, 0};

START_TEST(test_session_client_says_hello_first)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_CLIENT);
    struct evpt_frame frame = raw_take(&raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_HELLO);
    ck_assert_uint_eq(frame.size, sizeof hello_here);
    ck_assert_mem_eq(frame.data, hello_here, sizeof hello_here);
    ck_assert(!evpt_session_said_hello(end.session));
    ck_assert_str_eq(evpt_session_peer_name(end.session), "");
    ck_assert_uint_eq(evpt_session_peer_message_max(end.session), 0);
    raw_hello(&raw, 1000);
    TURN_UNTIL(&world, end.hellos == 1);
    ck_assert(!raw_has_frame(&raw)); /* not a second time */
    ck_assert_str_eq(evpt_session_peer_name(end.session), "there");
    ck_assert_uint_eq(evpt_session_peer_incarnation(end.session), 99);
    ck_assert_uint_eq(evpt_session_peer_message_max(end.session), 1000);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_server_answers_hello_with_its_own)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    turns(&world, 3);
    ck_assert(!raw_has_frame(&raw));
    raw_hello(&raw, 1000);
    struct evpt_frame frame = raw_take(&raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_HELLO);
    ck_assert_mem_eq(frame.data, hello_here, sizeof hello_here);
    ck_assert_int_eq(end.hellos, 1);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_hello_of_a_later_version_is_read_as_far_as_it_is_known)
{
    static const uint8_t hello[] = {0x96, 0x02, 0xa1, 'x',  0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff,
                                    0xff, 0xff, 0xff, 0xcf, 0,    0,    0,    1,    0,    0,
                                    0,    0,    0xc0, 0x81, 0xa1, 'k',  0x91, 0x01};
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&raw, EVPT_FRAME_HELLO, 0, hello, sizeof hello));
    TURN_UNTIL(&world, end.hellos == 1);
    ck_assert_str_eq(evpt_session_peer_name(end.session), "x");
    ck_assert_uint_eq(evpt_session_peer_incarnation(end.session), INT64_MAX);
    ck_assert_uint_eq(evpt_session_peer_message_max(end.session), UINT32_MAX);
    end_send(&end, 1, 0, 1000);
    ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_HELLO);
    ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_WHOLE);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_hello_may_come_after_messages)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, "x", 1));
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 2, "x", 1));
    raw_hello(&raw, 1000);
    ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, 2, "x", 1));
    TURN_UNTIL(&world, end.inbox_count == 2 && end.hellos == 1);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_plain_peer_gets_no_control_frame)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&raw, EVPT_FRAME_PING, 0, "abc", 3));
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, "abc", 3));
    ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, "x", 1));
    TURN_UNTIL(&world, end.inbox_count == 1);
    evpt_session_goaway(end.session, 11, "stopping");
    for (int i = 0; i < 10; i++) {
        clock_skip_ms(10000);
        turns(&world, 2);
    }
    ck_assert(!raw_has_frame(&raw));
    ck_assert(!raw.eof);
    end_send(&end, 1, 0, 10); /* and is served all the same */
    ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_WHOLE);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* ---- PING ---- */

START_TEST(test_session_ping_is_answered_with_the_same_data)
{
    struct world world;
    struct end end;
    struct raw raw;
    uint8_t data[EVPT_FRAME_CONTROL_MAX];
    memset(data, 0x5a, sizeof data);
    world_init(&world);
    open_with_hello(&raw, &end, &world);
    static const size_t sizes[] = {0, 1, 8, sizeof data};
    for (int i = 0; i < 4; i++) {
        ck_assert(raw_frame(&raw, EVPT_FRAME_PING, 0, data, sizes[i]));
        struct evpt_frame frame = raw_take(&raw);
        ck_assert_int_eq(frame.flag, EVPT_FRAME_PONG);
        ck_assert_uint_eq(frame.size, sizes[i]);
        ck_assert_mem_eq(frame.data, data, sizes[i]);
    }
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_pongs_for_a_peer_that_does_not_read_are_bounded)
{
    struct world world;
    struct end end;
    struct raw raw;
    uint8_t data[EVPT_FRAME_CONTROL_MAX] = {0};
    world_init(&world);
    world.config.send_buffer_max = 100000;
    open_with_hello(&raw, &end, &world);
    for (int i = 0; i < 3000; i++)
        ck_assert(raw_frame(&raw, EVPT_FRAME_PING, 0, data, sizeof data));
    turns(&world, 5);
    ck_assert_uint_le(evpt_session_queued(end.session), 100000 + EVPT_FRAME_CONTROL_MAX + 7);
    ck_assert(evpt_session_is_open(end.session));
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_pings_after_a_heartbeat_of_silence)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    open_with_hello(&raw, &end, &world);
    clock_skip_ms(4000);
    turns(&world, 2);
    ck_assert(!raw_has_frame(&raw));
    ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, "x", 1)); /* whatever comes is a sign of life */
    turns(&world, 2);
    clock_skip_ms(4000);
    turns(&world, 2);
    ck_assert(!raw_has_frame(&raw));
    clock_skip_ms(1100);
    struct evpt_frame frame = raw_take(&raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_PING);
    ck_assert_uint_eq(evpt_session_round_trip_ns(end.session), 0);
    clock_skip_ms(20);
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, frame.data, frame.size));
    TURN_UNTIL(&world, evpt_session_round_trip_ns(end.session) > 0);
    ck_assert_uint_ge(evpt_session_round_trip_ns(end.session), 20 * EVPT_NS_PER_MS);
    ck_assert_uint_lt(evpt_session_round_trip_ns(end.session), 5 * EVPT_NS_PER_S);
    ck_assert(!raw_has_frame(&raw));
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_round_trip_is_taken_from_the_answer_to_its_own_ping_only)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    open_with_hello(&raw, &end, &world);
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, "\0\0\0\0\0\0\0\0", 8)); /* unasked */
    turns(&world, 2);
    clock_skip_ms(5100);
    struct evpt_frame frame = raw_take(&raw);
    ck_assert_int_eq(frame.flag, EVPT_FRAME_PING);
    ck_assert_uint_eq(frame.size, 8);
    uint8_t other[16] = {0};
    memcpy(other, frame.data, 8);
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, other, 16));
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, other, 7));
    other[7] ^= 1;
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, other, 8));
    turns(&world, 2);
    ck_assert_uint_eq(evpt_session_round_trip_ns(end.session), 0);
    other[7] ^= 1;
    ck_assert(raw_frame(&raw, EVPT_FRAME_PONG, 0, other, 8));
    TURN_UNTIL(&world, evpt_session_round_trip_ns(end.session) > 0);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_ends_after_three_heartbeats_of_silence)
{
    struct world world;
    struct end end, other;
    struct raw raw, other_raw;
    world_init(&world);
    world.config.heartbeat_ms = 100;
    open_with_hello(&raw, &end, &world);
    open_with_hello(&other_raw, &other, &world);
    for (int i = 0; i < 2; i++) {
        clock_skip_ms(110);
        ck_assert_int_eq(raw_take(&raw).flag, EVPT_FRAME_PING);
        ck_assert_int_eq(raw_take(&other_raw).flag, EVPT_FRAME_PING);
        ck_assert(raw_frame(&other_raw, EVPT_FRAME_PONG, 0, "?", 1)); /* one of them lives */
        turns(&world, 3);
        ck_assert(!raw_has_frame(&raw));
        ck_assert_int_eq(end.closes, 0);
    }
    clock_skip_ms(110);
    TURN_UNTIL(&world, end.closes);
    ck_assert_int_eq(end.close_error, -EVPT_ETIMEOUT);
    ck_assert_str_eq(end.close_reason, "silent for three heartbeats");
    ck_assert_int_eq(other.closes, 0);
    end_fini(&end);
    end_fini(&other);
    raw_fini(&raw);
    raw_fini(&other_raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_asks_before_it_gives_up_after_a_long_sleep)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    for (int i = 0; i < 5; i++) { /* the machine sleeps for an hour, both sides at once */
        clock_skip_ms(3600000);
        turns(&world, 20);
        ck_assert_int_eq(client.closes + server.closes, 0);
    }
    ck_assert_uint_gt(
        evpt_session_round_trip_ns(client.session) + evpt_session_round_trip_ns(server.session), 0);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_messages_do_not_touch_the_timer)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    open_with_hello(&raw, &end, &world);
    uint64_t due = end.session->timer_due_ns;
    ck_assert_uint_ne(due, EVPT_FOREVER);
    for (int i = 0; i < 10; i++) {
        clock_skip_ms(100);
        ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, "x", 1));
        ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 2, "x", 1));
        ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, 2, "x", 1));
        end_send(&end, 1, 0, 10);
        turns(&world, 2);
    }
    ck_assert_uint_eq(end.inbox_count, 20);
    ck_assert_uint_eq(end.session->timer_due_ns, due);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* ---- GOAWAY ---- */

START_TEST(test_session_goaway_reaches_the_peer_and_the_connection_stays)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    evpt_session_goaway(server.session, 11, "stopping");
    TURN_UNTIL(&world, client.goaways == 1);
    ck_assert_int_eq(client.goaway_code, 11);
    ck_assert_str_eq(client.goaway_text, "stopping");
    end_send(&server, 1, 0, 100);
    TURN_UNTIL(&world, client.inbox_count == 1);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_goaway_that_does_not_decode_still_says_go_away)
{
    static const struct {
        const char *data;
        size_t size;
        int code;
        const char *text;
    } goaways[] = {
        {"", 0, 0, ""},
        {"\xc1", 1, 0, ""},
        {"\x91\x0b", 2, 0, ""},
        {"\x92\xa1x\xa1y", 5, 0, ""},
        {"\x92\x0b\x05", 3, 0, ""},
        {"\x92\xff\xa1x", 4, 0, ""},
        {"\x92\xce\0\1\0\0\xa1x", 8, 0, ""},
        {"\x93\x0b\xa1x\xc0", 5, 11, "x"},
        {"\x92\x0b\xa5"
         "a\nb\0\x80",
         8, 11, "a?b??"}, /* one log line stays one */
    };
    for (size_t i = 0; i < sizeof goaways / sizeof goaways[0]; i++) {
        struct world world;
        struct end end;
        struct raw raw;
        world_init(&world);
        raw_open(&raw, &end, &world, EVPT_SESSION_CLIENT);
        ck_assert(raw_frame(&raw, EVPT_FRAME_GOAWAY, 0, goaways[i].data, goaways[i].size));
        TURN_UNTIL(&world, end.goaways == 1);
        ck_assert_int_eq(end.goaway_code, goaways[i].code);
        ck_assert_str_eq(end.goaway_text, goaways[i].text);
        ck_assert(evpt_session_is_open(end.session));
        end_fini(&end);
        raw_fini(&raw);
        world_fini(&world);
    }
}
END_TEST

START_TEST(test_session_goaway_with_a_long_text_is_cut_to_fit)
{
    char text[3000];
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = 0;
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    evpt_session_goaway(server.session, 65535, text);
    TURN_UNTIL(&world, client.goaways == 1);
    ck_assert_int_eq(client.goaway_code, 65535);
    ck_assert_uint_gt(strlen(client.goaway_text), 900);
    ck_assert_int_eq(strncmp(client.goaway_text, text, strlen(client.goaway_text)), 0);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_of_a_refused_evpt_peer_learns_why)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    end_send(&client, 1, 0, 10);
    evpt_session_refuse(server.session, "too many replies to no request");
    ck_assert(!evpt_session_is_open(server.session));
    TURN_UNTIL(&world, client.closes && server.closes);
    ck_assert_int_eq(client.goaways, 1);
    ck_assert_int_eq(client.goaway_code, 10);
    ck_assert_str_eq(client.goaway_text, "too many replies to no request");
    ck_assert_int_eq(client.close_error, -EVPT_EEOF);
    ck_assert_int_eq(server.close_error, -EVPT_EPROTOCOL);
    ck_assert_str_eq(server.close_reason, "too many replies to no request");
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

/* ---- the end ---- */

START_TEST(test_session_end_of_the_peer_is_reported_once)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 1, "x", 1));
    ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 2, "x", 1));
    raw_fini(&raw);
    TURN_UNTIL(&world, end.closes);
    turns(&world, 3);
    ck_assert_int_eq(end.closes, 1);
    ck_assert_int_eq(end.close_error, -EVPT_EEOF);
    ck_assert_uint_eq(end.inbox_count, 1);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_close_at_once_drops_what_waits)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end_send(&end, 1, 0, 10);
    end.in_call = true;
    char reason[300] = "enough";
    evpt_session_close(end.session, false, reason);
    memset(reason, 'x', sizeof reason - 1); /* it was copied */
    evpt_session_close(end.session, true, "again");
    evpt_session_close(end.session, false, reason);
    evpt_session_refuse(end.session, reason);
    end.in_call = false;
    TURN_UNTIL(&world, end.closes);
    ck_assert_int_eq(end.close_error, 0);
    ck_assert_str_eq(end.close_reason, "enough");
    raw_expect_end(&raw);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_reason_that_is_long_is_cut)
{
    char reason[1000];
    memset(reason, 'r', sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    evpt_session_close(end.session, false, reason);
    TURN_UNTIL(&world, end.closes);
    ck_assert_uint_eq(strlen(end.close_reason), EVPT_SESSION_REASON_MAX);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_that_ends_reads_on_so_that_its_last_words_arrive)
{
    struct world world;
    struct end end;
    struct raw raw;
    static const uint8_t data[EVPT_FRAME_DATA_MAX];
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end_send(&end, 1, 0, 1000);
    evpt_session_close(end.session, true, "done");
    turns(&world, 3);
    ck_assert_str_eq(evpt_session_state_name(end.session), "shut");
    for (int i = 0; i < 100; i++) /* more than any socket buffer: somebody takes it */
        ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, data, sizeof data));
    ck_assert_int_eq(raw_take(&raw).size, 1000);
    raw_expect_end(&raw);
    ck_assert_int_eq(end.closes, 0);
    ck_assert_uint_eq(end.inbox_count, 0);
    raw_fini(&raw);
    TURN_UNTIL(&world, end.closes);
    ck_assert_int_eq(end.close_error, 0);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_that_ends_does_not_wait_for_ever_for_the_peers_end)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    open_with_hello(&raw, &end, &world);
    clock_skip_ms(4900); /* the heartbeat's timer is about to fire: it must not end it early */
    turns(&world, 2);
    evpt_session_close(end.session, true, "done");
    turns(&world, 3);
    clock_skip_ms(EVPT_SESSION_LINGER_MS - 100);
    turns(&world, 3);
    ck_assert_int_eq(end.closes, 0);
    evpt_session_check(end.session);
    clock_skip_ms(200);
    TURN_UNTIL(&world, end.closes);
    ck_assert_int_eq(end.close_error, 0);
    raw_expect_end(&raw);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_freed_at_once_does_not_call_back)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    struct evpt_session *session = end.session;
    evpt_session_free(session); /* at once and without on_close */
    end.session = NULL;
    turns(&world, 2);
    ck_assert_int_eq(end.closes, 0);
    raw_expect_end(&raw);
    evpt_session_free(NULL);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

static void free_in_close(struct end *end)
{
    evpt_session_free(end->session);
}

START_TEST(test_session_freed_inside_its_on_close_is_freed_once)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end.on_close = free_in_close;
    raw_fini(&raw);
    TURN_UNTIL(&world, end.closes);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_closes_its_descriptor_where_memory_is_refused)
{
    for (int skip = 0; skip < 2; skip++) {
        struct world world;
        world_init(&world);
        int fds[2];
        ck_assert_int_eq(evpt_sys_socketpair(fds), 0);
        static const struct evpt_session_ops none;
        struct evpt_session *session = NULL;
        refuse_alloc(skip);
        int error = evpt_session_new(&session, world.loop, fds[0], EVPT_SESSION_SERVER, 1,
                                     &world.config, &none, NULL);
        refuse_alloc(-1);
        ck_assert_int_lt(error, 0);
        ck_assert_ptr_null(session);
        evpt_sys_close(fds[1]);
        world_fini(&world); /* counts descriptors */
    }
}
END_TEST

/* ---- cost ---- */

START_TEST(test_session_that_is_idle_costs_less_than_a_kilobyte)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    uint64_t before = bytes_allocated();
    struct end more;
    struct raw raw;
    raw_open(&raw, &more, &world, EVPT_SESSION_SERVER);
    ck_assert_uint_le(bytes_allocated() - before, 1024);
    printf("a session: %zu bytes\n", (size_t)(bytes_allocated() - before));
    end_fini(&more);
    raw_fini(&raw);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_small_message_out_allocates_nothing_but_itself)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    end_send(&client, 1, 1, 100);
    TURN_UNTIL(&world, server.inbox_count == 1); /* pools are warm */
    struct evpt_message *message[50];
    for (uint32_t i = 0; i < 50; i++)
        message[i] = make_message(i + 1, 1, 50);
    uint64_t before = bytes_allocated();
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(evpt_session_send(client.session, message[i], NULL), 0);
    ck_assert_uint_eq(bytes_allocated(), before);
    TURN_UNTIL(&world, server.inbox_count == 51);
    /* and one for each that came in */
    ck_assert_uint_eq(bytes_allocated() - before, 50 * (sizeof(struct evpt_message) + 50));
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_keeps_its_users_tag)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert_ptr_null(evpt_session_tag(end.session));
    evpt_session_set_tag(end.session, &world);
    ck_assert_ptr_eq(evpt_session_tag(end.session), &world);
    ck_assert_uint_eq(evpt_session_id(end.session), 3);
    ck_assert_int_eq(evpt_session_role(end.session), EVPT_SESSION_SERVER);
    ck_assert_str_eq(evpt_session_state_name(end.session), "open");
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("session");
    tcase_add_test(tcase, test_session_client_says_hello_first);
    tcase_add_test(tcase, test_session_server_answers_hello_with_its_own);
    tcase_add_test(tcase, test_session_hello_of_a_later_version_is_read_as_far_as_it_is_known);
    tcase_add_test(tcase, test_session_hello_may_come_after_messages);
    tcase_add_test(tcase, test_session_plain_peer_gets_no_control_frame);
    tcase_add_test(tcase, test_session_ping_is_answered_with_the_same_data);
    tcase_add_test(tcase, test_session_pongs_for_a_peer_that_does_not_read_are_bounded);
    tcase_add_test(tcase, test_session_pings_after_a_heartbeat_of_silence);
    tcase_add_test(tcase, test_session_round_trip_is_taken_from_the_answer_to_its_own_ping_only);
    tcase_add_test(tcase, test_session_ends_after_three_heartbeats_of_silence);
    tcase_add_test(tcase, test_session_asks_before_it_gives_up_after_a_long_sleep);
    tcase_add_test(tcase, test_session_messages_do_not_touch_the_timer);
    tcase_add_test(tcase, test_session_goaway_reaches_the_peer_and_the_connection_stays);
    tcase_add_test(tcase, test_session_goaway_that_does_not_decode_still_says_go_away);
    tcase_add_test(tcase, test_session_goaway_with_a_long_text_is_cut_to_fit);
    tcase_add_test(tcase, test_session_of_a_refused_evpt_peer_learns_why);
    tcase_add_test(tcase, test_session_end_of_the_peer_is_reported_once);
    tcase_add_test(tcase, test_session_close_at_once_drops_what_waits);
    tcase_add_test(tcase, test_session_reason_that_is_long_is_cut);
    tcase_add_test(tcase, test_session_that_ends_reads_on_so_that_its_last_words_arrive);
    tcase_add_test(tcase, test_session_that_ends_does_not_wait_for_ever_for_the_peers_end);
    tcase_add_test(tcase, test_session_freed_at_once_does_not_call_back);
    tcase_add_test(tcase, test_session_freed_inside_its_on_close_is_freed_once);
    tcase_add_test(tcase, test_session_closes_its_descriptor_where_memory_is_refused);
    tcase_add_test(tcase, test_session_that_is_idle_costs_less_than_a_kilobyte);
    tcase_add_test(tcase, test_session_small_message_out_allocates_nothing_but_itself);
    tcase_add_test(tcase, test_session_keeps_its_users_tag);
    return run_tests("session", tcase);
}
