/* What a session makes of the messages of this node: frames, lanes, limits, positions. */
#include "cluster/session.h"

#include "cluster/session_private.h"
#include "support.h"
#include <errno.h>
#include <stdlib.h>

/* A raw peer that said HELLO, and whose HELLO was answered. */
static void open_with_hello(struct raw *raw, struct end *end, struct world *world,
                            uint32_t message_max)
{
    raw_open(raw, end, world, EVPT_SESSION_SERVER);
    raw_hello(raw, message_max);
    ck_assert_int_eq(raw_take(raw).flag, EVPT_FRAME_HELLO);
}

/* ---- frames ---- */

START_TEST(test_session_out_cuts_messages_every_32768_bytes)
{
    static const size_t sizes[] = {0,     1,     4096,  4097,  32767,  32768,
                                   32769, 65536, 65537, 98304, 1000000};
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t size = sizes[i], parts = (size + EVPT_FRAME_DATA_MAX - 1) / EVPT_FRAME_DATA_MAX;
        struct evpt_message *expected = make_message(i + 1, 0, size);
        end_send(&end, i + 1, 0, size);
        if (size <= EVPT_FRAME_DATA_MAX)
            parts = 1;
        for (size_t part = 0, at = 0; part < parts; part++) {
            struct evpt_frame frame = raw_take(&raw);
            int flag = parts == 1          ? EVPT_FRAME_WHOLE
                       : part == 0         ? EVPT_FRAME_FIRST
                       : part == parts - 1 ? EVPT_FRAME_LAST
                                           : EVPT_FRAME_MIDDLE;
            ck_assert_int_eq(frame.flag, flag);
            ck_assert_uint_eq(frame.session, i + 1);
            size_t left = size - at;
            ck_assert_uint_eq(frame.size, left < EVPT_FRAME_DATA_MAX ? left : EVPT_FRAME_DATA_MAX);
            ck_assert_mem_eq(frame.data, expected->data + at, frame.size);
            at += frame.size;
        }
        ck_assert(!raw_has_frame(&raw));
        evpt_message_free(expected);
    }
    struct evpt_session_stats stats;
    evpt_session_stats(end.session, &stats);
    ck_assert_uint_eq(stats.messages_out, sizeof sizes / sizeof sizes[0]);
    ck_assert_uint_eq(stats.long_out, 0);
    ck_assert_uint_eq(evpt_session_queued(end.session), 0);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_and_in_are_inverse)
{
    struct world world;
    struct end client, server;
    uint64_t random = test_seed();
    world_init(&world);
    ends_open(&client, &server, &world);
    enum { COUNT = 300 };
    static size_t sizes[COUNT + 1];
    for (uint32_t i = 1; i <= COUNT; i++) {
        uint64_t r = next_random(&random);
        sizes[i] = (r >> 8) % (r % 8 == 0 ? 300000 : r % 8 < 3 ? 40000 : 200);
        end_send(i % 2 ? &client : &server, i, 0, sizes[i]);
    }
    TURN_UNTIL(&world, client.inbox_count + server.inbox_count == COUNT);
    for (size_t i = 0; i < client.inbox_count; i++)
        check_message(client.inbox[i], client.inbox[i]->session, sizes[client.inbox[i]->session]);
    for (size_t i = 0; i < server.inbox_count; i++)
        check_message(server.inbox[i], server.inbox[i]->session, sizes[server.inbox[i]->session]);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_sends_the_largest_message_that_is_allowed)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    end_send(&client, 1, 0, 16 << 20);
    TURN_UNTIL(&world, server.inbox_count == 1);
    check_message(end_last(&server), 1, 16 << 20);
    ck_assert_uint_eq(end_last(&server)->capacity, 16 << 20);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

/* ---- lanes ---- */

START_TEST(test_session_out_small_message_overtakes_a_large_one_of_another_lane)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    end_send(&client, 1, 7, 8 << 20);
    turn(&world); /* it is on its way */
    end_send(&client, 2, 8, 100);
    end_send(&client, 3, 0, 100);
    end_send(&client, 4, 8, 30000);
    TURN_UNTIL(&world, server.inbox_count == 3);
    struct evpt_session_stats stats;
    evpt_session_stats(client.session, &stats);
    ck_assert_uint_eq(stats.long_out, 1);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_uint_eq(server.inbox[i]->session, i + 2);
    TURN_UNTIL(&world, server.inbox_count == 4);
    check_message(end_last(&server), 1, 8 << 20);
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_small_message_waits_for_the_large_one_of_its_lane)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    ck_assert_uint_eq(end_send(&client, 1, 7, 200000), UINT64_MAX);
    ck_assert_uint_eq(end_send(&client, 2, 7, 10), UINT64_MAX);
    ck_assert_uint_eq(end_send(&client, 3, 7, 20000), UINT64_MAX);
    ck_assert_uint_eq(end_send(&client, 4, 7, 100000), UINT64_MAX);
    ck_assert_uint_eq(end_send(&client, 5, 7, 0), UINT64_MAX);
    ck_assert_uint_ne(end_send(&client, 6, 9, 10), UINT64_MAX);
    TURN_UNTIL(&world, server.inbox_count == 6);
    ck_assert_uint_eq(server.inbox[0]->session, 6);
    for (uint32_t i = 1; i < 6; i++)
        ck_assert_uint_eq(server.inbox[i]->session, i);
    ck_assert_int_eq(client.queued_count, 5);
    ck_assert_ptr_null(client.session->lanes);                  /* an idle session keeps no table */
    ck_assert_uint_ne(end_send(&client, 7, 7, 10), UINT64_MAX); /* the lane is free again */
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_keeps_the_order_of_every_lane)
{
    enum { LANES = 40, COUNT = 2000 };
    static uint64_t lane_of[COUNT + 1];
    static size_t size_of[COUNT + 1];
    uint32_t last[LANES] = {0}, overtakes = 0;
    struct world world;
    struct end client, server;
    uint64_t random = test_seed();
    world_init(&world);
    ends_open(&client, &server, &world);
    for (uint32_t i = 1; i <= COUNT; i++) {
        uint64_t r = next_random(&random);
        /* numbers that differ in their upper bits only */
        lane_of[i] = ((r % LANES) << 40) + 1;
        size_of[i] = (r >> 8) % ((r >> 32) % 8 == 0 ? 200000 : 500);
        end_send(&client, i, lane_of[i], size_of[i]);
        if (r >> 40 & 1)
            turn(&world);
    }
    TURN_UNTIL(&world, server.inbox_count == COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t session = server.inbox[i]->session;
        uint32_t *before = &last[lane_of[session] >> 40];
        ck_assert_msg(session > *before, "%u came after %u in one lane", session, *before);
        *before = session;
        overtakes += i > 0 && session < server.inbox[i - 1]->session;
        check_message(server.inbox[i], session, size_of[session]);
    }
    ck_assert_uint_gt(overtakes, 50); /* and lanes do not wait for each other */
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_lanes_take_turns)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (uint32_t i = 1; i <= 5; i++)
        end_send(&end, i, i < 4 ? i : 0, 4 * EVPT_FRAME_DATA_MAX);
    for (int part = 0; part < 4; part++) {
        for (uint32_t i = 1; i <= 5; i++)
            ck_assert_uint_eq(raw_take(&raw).session, i);
    }
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_has_at_most_256_messages_in_parts)
{
    enum { COUNT = 700 };
    struct world world;
    struct end end;
    struct raw raw;
    int under_way = 0, most = 0, done = 0;
    world_init(&world);
    world.config.send_buffer_max = 1 << 30;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (uint32_t i = 1; i <= COUNT; i++)
        end_send(&end, i, i % 3 ? i : 0, 2 * EVPT_FRAME_DATA_MAX + 1);
    while (done < COUNT) {
        struct evpt_frame frame = raw_take(&raw);
        under_way += frame.flag == EVPT_FRAME_FIRST;
        if (under_way > most)
            most = under_way;
        under_way -= frame.flag == EVPT_FRAME_LAST;
        done += frame.flag == EVPT_FRAME_LAST;
        if (done % 64 == 0)
            evpt_session_check(end.session);
    }
    ck_assert_int_eq(most, EVPT_SESSION_LANES_ACTIVE);
    ck_assert_int_eq(under_way, 0);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_large_message_fills_the_stream_to_its_mark_only)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end_send(&end, 1, 1, 8 << 20);
    for (int i = 0; i < 20; i++) { /* the peer reads nothing */
        turn(&world);
        ck_assert_uint_le(evpt_stream_queued(&end.session->stream),
                          EVPT_SESSION_HIGH_WATER + EVPT_FRAME_MAX);
    }
    ck_assert_uint_gt(evpt_session_queued(end.session), 7 << 20);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* ---- limits ---- */

static int send_refused(struct end *end, size_t size)
{
    uint64_t position = 77;
    int live = messages_live();
    int error = evpt_session_send(end->session, make_message(9, 0, size), &position);
    ck_assert_int_lt(error, 0);
    ck_assert_uint_eq(position, 77);
    ck_assert_int_eq(messages_live(), live); /* freed all the same */
    return error;
}

START_TEST(test_session_out_refuses_more_than_message_max)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    world.config.message_max = 50000;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end_send(&end, 1, 0, 50000);
    ck_assert_int_eq(send_refused(&end, 50001), -EVPT_ETOOLARGE);
    ck_assert_int_eq(raw_take(&raw).size, EVPT_FRAME_DATA_MAX);
    ck_assert_int_eq(raw_take(&raw).size, 50000 - EVPT_FRAME_DATA_MAX);
    ck_assert(!raw_has_frame(&raw));
    ck_assert(evpt_session_is_open(end.session));
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_refuses_more_than_the_peer_takes)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    open_with_hello(&raw, &end, &world, 1000);
    ck_assert_uint_eq(evpt_session_peer_message_max(end.session), 1000);
    end_send(&end, 1, 0, 1000);
    ck_assert_int_eq(send_refused(&end, 1001), -EVPT_ETOOLARGE);
    ck_assert_int_eq(send_refused(&end, 100000), -EVPT_ETOOLARGE);
    ck_assert_int_eq(raw_take(&raw).size, 1000);
    ck_assert(!raw_has_frame(&raw));
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_refuses_more_than_send_buffer_max)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    world.config.send_buffer_max = 1 << 20;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    uint32_t sent = 0;
    int error = 0;
    while (!error) { /* small, large and long ones */
        size_t size = sent % 3 == 0 ? 100 : sent % 3 == 1 ? 20000 : 70000;
        error = evpt_session_send(end.session, make_message(sent + 1, sent % 5, size), NULL);
        sent += !error;
        ck_assert_uint_le(evpt_session_queued(end.session), (1 << 20) + 3 * EVPT_FRAME_HEADER);
    }
    ck_assert_int_eq(error, -EVPT_ELIMIT);
    ck_assert_uint_gt(evpt_session_queued(end.session), (1 << 20) - 70000);
    uint32_t received = 0;
    while (received < sent) {
        int flag = raw_take(&raw).flag;
        received += flag == EVPT_FRAME_WHOLE || flag == EVPT_FRAME_LAST;
    }
    ck_assert(!raw_has_frame(&raw));
    ck_assert_uint_eq(evpt_session_queued(end.session), 0);
    end_send(&end, 1, 0, 100); /* there is room again */
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_refuses_after_close)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    evpt_session_close(end.session, _i == 1, "test");
    ck_assert(!evpt_session_is_open(end.session));
    ck_assert_int_eq(send_refused(&end, 10), -EVPT_ECLOSED);
    ck_assert_int_eq(send_refused(&end, 100000), -EVPT_ECLOSED);
    raw_expect_end(&raw);
    raw_fini(&raw);
    TURN_UNTIL(&world, end.closes);
    end_fini(&end);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_nothing_of_a_message_leaves_where_memory_is_refused)
{
    int refused = 0;
    for (int skip = 0; skip < 4; skip++) {
        struct world world;
        struct end end;
        struct raw raw;
        world_init(&world);
        raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
        size_t size = _i == 0 ? 10 : _i == 1 ? 20000 : 100000;
        struct evpt_message *message = make_message(5, 3, size);
        refuse_alloc(skip);
        int error = evpt_session_send(end.session, message, NULL);
        bool hit = alloc_was_refused();
        refuse_alloc(-1);
        ck_assert_int_eq(error, hit ? -ENOMEM : 0);
        refused += hit;
        end_send(&end, 6, 3, 10); /* the lane is as it was */
        struct evpt_frame frame = raw_take(&raw);
        ck_assert_uint_eq(frame.session, hit ? 6 : 5);
        while (frame.session != 6)
            frame = raw_take(&raw);
        end_fini(&end);
        raw_fini(&raw);
        world_fini(&world);
    }
    ck_assert_int_ge(refused, 1);
}
END_TEST

START_TEST(test_session_out_ends_where_memory_is_refused_in_the_middle_of_a_message)
{
    int refused = 0;
    for (int skip = 0; skip < 3; skip++) {
        struct world world;
        struct end end;
        struct raw raw;
        world_init(&world);
        raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
        end_send(&end, 5, 3, 1 << 20);
        end_send(&end, 6, 4, 1 << 20);
        refuse_alloc(skip);
        for (int i = 0; i < 5; i++)
            turn(&world);
        bool hit = alloc_was_refused();
        refuse_alloc(-1);
        refused += hit;
        if (hit) {
            ck_assert_int_eq(end.closes, 1);
            ck_assert_int_eq(end.close_error, -ENOMEM);
        }
        end_fini(&end);
        raw_fini(&raw);
        world_fini(&world);
    }
    ck_assert_int_ge(refused, 1);
}
END_TEST

/* ---- positions ---- */

START_TEST(test_session_out_position_is_where_the_message_ends)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    ck_assert_uint_eq(end_send(&end, 1, 0, 10), 17);
    ck_assert_uint_eq(end_send(&end, 2, 0, 0), 24);
    ck_assert_uint_eq(end_send(&end, 3, 0, 20000), 24 + 20007);
    ck_assert_uint_eq(evpt_session_written(end.session), 0);
    ck_assert_uint_eq(evpt_session_queued(end.session), 24 + 20007);
    evpt_session_flush(end.session);
    ck_assert_uint_eq(evpt_session_written(end.session), 24 + 20007);
    ck_assert_uint_eq(evpt_session_queued(end.session), 0);
    ck_assert_uint_eq(end_send(&end, 4, 0, 98304), UINT64_MAX);
    ck_assert_int_eq(end.queued_count, 0);
    TURN_UNTIL(&world, end.queued_count == 1);
    ck_assert_uint_eq(end.queued_session, 4);
    ck_assert_uint_eq(end.queued_position, 24 + 20007 + 98304 + 3 * 7);
    TURN_UNTIL(&world, evpt_session_written(end.session) >= end.queued_position);
    struct evpt_session_stats stats;
    evpt_session_stats(end.session, &stats);
    ck_assert_uint_eq(stats.bytes_out, end.queued_position);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_written_is_told_truly_when_the_connection_is_lost)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    uint64_t first = end_send(&end, 1, 0, 10), last = 0;
    turn(&world);
    for (uint32_t i = 2; i < 1000; i++) /* far more than the socket takes */
        last = end_send(&end, i, 0, 10000);
    turn(&world);
    uint64_t written = evpt_session_written(end.session);
    ck_assert_uint_ge(written, first);
    ck_assert_uint_lt(written, last);
    if (_i == 0) {
        raw_fini(&raw); /* the peer goes without having read */
    } else {
        evpt_session_close(end.session, false, "test");
    }
    TURN_UNTIL(&world, end.closes);
    ck_assert_uint_eq(end.written_at_close, written);
    end_fini(&end);
    if (_i == 1)
        raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* ---- the end ---- */

START_TEST(test_session_out_close_with_flush_sends_everything_first)
{
    struct world world;
    struct end client, server;
    world_init(&world);
    ends_open(&client, &server, &world);
    for (uint32_t i = 1; i <= 10; i++)
        end_send(&client, i, i % 3, i % 2 ? 10 : 2 << 20);
    client.in_call = true;
    evpt_session_close(client.session, true, "done");
    client.in_call = false;
    evpt_session_check(client.session);
    TURN_UNTIL(&world, client.closes && server.closes);
    ck_assert_uint_eq(server.inbox_count, 10);
    for (size_t i = 0; i < 10; i++)
        check_message(server.inbox[i], server.inbox[i]->session,
                      server.inbox[i]->session % 2 ? 10 : 2 << 20);
    ck_assert_int_eq(client.close_error, 0);
    ck_assert_str_eq(client.close_reason, "done");
    ck_assert_int_eq(server.close_error, -EVPT_EEOF);
    ck_assert_int_eq(client.queued_count, 5 + 2); /* and two that waited behind one of their lane */
    end_fini(&client);
    end_fini(&server);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_close_with_flush_ends_as_soon_as_a_slow_peer_has_read)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    while (evpt_session_queued(end.session) == 0) { /* until the socket is full */
        end_send(&end, 1, 0, 1000);
        turn(&world);
    }
    ck_assert_uint_lt(evpt_session_queued(end.session), EVPT_SESSION_LOW_WATER);
    evpt_session_close(end.session, true, "done");
    for (int i = 0; i < 5; i++)
        turn(&world);
    ck_assert_str_eq(evpt_session_state_name(end.session), "ending");
    for (int i = 0; i < 20; i++) { /* no time passes that the session would wait for */
        raw_pull(&raw);
        turn(&world);
    }
    ck_assert_str_eq(evpt_session_state_name(end.session), "shut");
    ck_assert(raw.eof);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_close_with_flush_does_not_wait_for_who_does_not_read)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (uint32_t i = 1; i <= 10; i++)
        end_send(&end, i, 0, _i ? 2 << 20 : 10);
    evpt_session_close(end.session, true, "done");
    for (int i = 0; i < 5; i++)
        turn(&world);
    ck_assert_int_eq(end.closes, 0);
    evpt_session_check(end.session);
    for (int i = 0; i < 3; i++) { /* as long as bytes leave it goes on */
        raw_pull(&raw);
        raw.size = 0;
        turn(&world);
        clock_skip_ms(EVPT_SESSION_LINGER_MS - 100);
        turn(&world);
        ck_assert_int_eq(end.closes, _i == 0 && i > 0);
        if (end.session)
            evpt_session_check(end.session);
    }
    for (int i = 0; i < 3 && !end.closes; i++) {
        clock_skip_ms(EVPT_SESSION_LINGER_MS + 100);
        turn(&world);
    }
    TURN_UNTIL(&world, end.closes);
    ck_assert_int_eq(end.close_error, 0);
    ck_assert_str_eq(end.close_reason, "done");
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_out_frees_messages_whenever_it_ends)
{
    /* after each number of turns of a long exchange: freed, closed, refused, peer gone */
    for (int turns = 0; turns < 12; turns++) {
        for (int how = 0; how < 4; how++) {
            struct world world;
            struct end end;
            struct raw raw;
            world_init(&world);
            raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
            for (uint32_t i = 1; i <= 6; i++)
                end_send(&end, i, i % 4, i % 2 ? 20000 : 300000);
            for (int i = 0; i < turns; i++) {
                uint8_t some[40000];
                (void)evpt_sys_read(raw.fd, some, sizeof some);
                turn(&world);
            }
            if (how == 1)
                evpt_session_close(end.session, false, "test");
            else if (how == 2)
                evpt_session_refuse(end.session, "test");
            if (how == 2) {
                TURN_UNTIL(&world, (raw_pull(&raw), raw.eof));
            }
            raw_fini(&raw);
            if (how > 0) {
                TURN_UNTIL(&world, end.closes);
            }
            end_fini(&end);
            world_fini(&world);
        }
    }
}
END_TEST

/* ---- hostile callbacks ---- */

static void free_it(struct end *end)
{
    evpt_session_free(end->session);
    end->session = NULL;
}

static void close_at_once(struct end *end)
{
    evpt_session_close(end->session, false, "had enough");
}

static void close_with_flush(struct end *end)
{
    evpt_session_close(end->session, true, "had enough");
}

static void refuse_it(struct end *end)
{
    evpt_session_refuse(end->session, "had enough");
}

static void send_more(struct end *end)
{
    if (end->queued_count < 20)
        (void)evpt_session_send(end->session,
                                make_message(77, (uint64_t)(end->queued_count % 3), 60000), NULL);
}

START_TEST(test_session_out_on_queued_may_do_anything_to_its_session)
{
    static const end_fn hooks[] = {free_it, close_at_once, close_with_flush, refuse_it, send_more};
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end.on_queued = hooks[_i];
    for (uint32_t i = 1; i <= 6; i++)
        end_send(&end, i, i % 4, 40000 * i);
    if (hooks[_i] == send_more) {
        for (int last = 0; last < 6 + 19;)
            last += raw_take(&raw).flag == EVPT_FRAME_LAST;
        ck_assert_int_eq(end.queued_count, 6 + 19);
        ck_assert_int_eq(end.closes, 0);
    } else {
        TURN_UNTIL(&world, (raw_pull(&raw), raw.eof));
        ck_assert_int_eq(end.queued_count, hooks[_i] == close_with_flush ? 6 : 1);
        raw_fini(&raw);
        TURN_UNTIL(&world, !end.session);
        ck_assert_int_eq(end.closes, hooks[_i] != free_it);
    }
    end_fini(&end);
    if (raw.fd >= 0)
        raw_fini(&raw);
    world_fini(&world);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("session_out");
    tcase_add_test(tcase, test_session_out_cuts_messages_every_32768_bytes);
    tcase_add_test(tcase, test_session_out_and_in_are_inverse);
    tcase_add_test(tcase, test_session_out_sends_the_largest_message_that_is_allowed);
    tcase_add_test(tcase, test_session_out_small_message_overtakes_a_large_one_of_another_lane);
    tcase_add_test(tcase, test_session_out_small_message_waits_for_the_large_one_of_its_lane);
    tcase_add_test(tcase, test_session_out_keeps_the_order_of_every_lane);
    tcase_add_test(tcase, test_session_out_lanes_take_turns);
    tcase_add_test(tcase, test_session_out_has_at_most_256_messages_in_parts);
    tcase_add_test(tcase, test_session_out_large_message_fills_the_stream_to_its_mark_only);
    tcase_add_test(tcase, test_session_out_refuses_more_than_message_max);
    tcase_add_test(tcase, test_session_out_refuses_more_than_the_peer_takes);
    tcase_add_test(tcase, test_session_out_refuses_more_than_send_buffer_max);
    tcase_add_loop_test(tcase, test_session_out_refuses_after_close, 0, 2);
    tcase_add_loop_test(tcase, test_session_out_nothing_of_a_message_leaves_where_memory_is_refused,
                        0, 3);
    tcase_add_test(tcase, test_session_out_ends_where_memory_is_refused_in_the_middle_of_a_message);
    tcase_add_test(tcase, test_session_out_position_is_where_the_message_ends);
    tcase_add_loop_test(tcase, test_session_out_written_is_told_truly_when_the_connection_is_lost,
                        0, 2);
    tcase_add_test(tcase, test_session_out_close_with_flush_sends_everything_first);
    tcase_add_test(tcase, test_session_out_close_with_flush_ends_as_soon_as_a_slow_peer_has_read);
    tcase_add_loop_test(
        tcase, test_session_out_close_with_flush_does_not_wait_for_who_does_not_read, 0, 2);
    tcase_add_test(tcase, test_session_out_frees_messages_whenever_it_ends);
    tcase_add_loop_test(tcase, test_session_out_on_queued_may_do_anything_to_its_session, 0, 5);
    return run_tests("session_out", tcase);
}
