/* clusterclient: the way of a request and of its one answer. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- connecting ---- */

START_TEST(test_clusterclient_first_request_connects_and_is_answered)
{
    struct world *world = world_new();
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_DISCONNECT);
    uint32_t first = call_now(world, "n0", 41, 5000), second = call_now(world, "n0", 42, 5000);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_CONNECTING);
    ck_assert_uint_eq(peer_of(world, "n0")->cached_count, 2);
    await_arrivals(&world->nodes[0], 2);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_CONNECTED);
    ck_assert_uint_eq(evpt_clusterclient_pending(&world->client), 2);
    answer(&world->nodes[0], 1, 0); /* in another order than they were asked */
    answer(&world->nodes[0], 0, 0);
    ck_assert_int_eq(outcome_of(world, first)->result, 41);
    ck_assert_int_eq(outcome_of(world, second)->result, 42);
    check_outcome(world, first, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    ck_assert_int_eq(world->nodes[0].accepted, 1);
    ck_assert_int_eq(world->nodes[1].accepted, 0);
    ck_assert_uint_eq(world->event_count, 2);
    ck_assert_str_eq(world->events[0].status, "connecting");
    ck_assert_str_eq(world->events[1].status, "connected");
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_cached_requests_leave_in_order_and_before_later_ones)
{
    struct world *world = world_new();
    enum { EACH = 200 };
    for (int i = 0; i < EACH; i++) {
        if (i % 3)
            call(world, "n0", i, 0, 5000);
        else
            send_to(world, "n0", i);
    }
    TURN_UNTIL(world, status_of(world, "n0") == EVPT_STATUS_CONNECTED);
    for (int i = EACH; i < 2 * EACH; i++) {
        if (i % 3)
            call(world, "n0", i, 0, 5000);
        else
            send_to(world, "n0", i);
    }
    await_arrivals(&world->nodes[0], 2 * EACH);
    for (int i = 0; i < 2 * EACH; i++) {
        ck_assert_int_eq(world->nodes[0].arrivals[i].argument, i);
        ck_assert_int_eq(world->nodes[0].arrivals[i].is_call, i % 3 != 0);
        answer(&world->nodes[0], (size_t)i, 0);
    }
    for (uint32_t i = 1; i <= world->calls; i++)
        check_outcome(world, i, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_refused_connection_fails_all_that_waits)
{
    struct world *world = world_new();
    evpt_cluster_mgr_stop_listening(&world->nodes[0].mgr);
    for (int i = 0; i < 5; i++)
        call(world, "n0", i, 0, 5000);
    send_to(world, "n0", 0);
    for (uint32_t i = 1; i <= 5; i++)
        check_outcome(world, i, EVPT_CODE_CONNECT_FAILED, EVPT_EXECUTED_NO);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_DISCONNECT);
    ck_assert_uint_eq(world->client.lost_sends, 1);
    ck_assert_uint_eq(peer_of(world, "n0")->failures, 1);
    world_free(world);
}
END_TEST

/* Each failure makes the next wait longer, up to a bound; before it is over nothing is tried. */
START_TEST(test_clusterclient_backs_off_after_failures)
{
    struct world *world = world_new();
    struct evpt_peer *peer = peer_of(world, "n0");
    evpt_cluster_mgr_stop_listening(&world->nodes[0].mgr);
    uint64_t longest_ns = 0, shortest_ns = EVPT_FOREVER; /* of the waits up to the bound */
    for (unsigned failures = 1; failures <= 40; failures++) {
        check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_CONNECT_FAILED,
                      EVPT_EXECUTED_NO);
        ck_assert_uint_eq(peer->failures, failures);
        uint64_t wait_ns = peer->retry_at_ns - evpt_loop_now(world->rig.loop);
        if (peer->retry_at_ns <= evpt_loop_now(world->rig.loop))
            wait_ns = 0;
        uint64_t bound_ms =
            failures <= 6 ? EVPT_BACKOFF_MIN_MS << (failures - 1) : EVPT_BACKOFF_MAX_MS;
        ck_assert_uint_lt(wait_ns, bound_ms * EVPT_NS_PER_MS);
        longest_ns = wait_ns > longest_ns ? wait_ns : longest_ns;
        if (bound_ms == EVPT_BACKOFF_MAX_MS && wait_ns < shortest_ns)
            shortest_ns = wait_ns;
        if (wait_ns > 20 * EVPT_NS_PER_MS) { /* long enough for another request to come before */
            uint64_t attempts = peer->failures;
            check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_CONNECT_FAILED,
                          EVPT_EXECUTED_NO);
            ck_assert_uint_eq(peer->failures, attempts);
        }
        world_pass_ms(world, wait_ns / EVPT_NS_PER_MS + 1);
    }
    ck_assert_uint_gt(longest_ns, 1000 * EVPT_NS_PER_MS); /* of 34 in [0, 2 s) */
    ck_assert_uint_lt(shortest_ns, 1000 * EVPT_NS_PER_MS);
    /* the node is back: the first request after the wait gets through, the first reply forgets */
    ck_assert_int_eq(evpt_cluster_mgr_listen(&world->nodes[0].mgr, &world->nodes[0].addr), 0);
    connect_to(world, "n0");
    ck_assert_uint_eq(peer->failures, 0);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_a_node_that_was_heard_of_is_tried_at_once)
{
    struct world *world = world_new();
    struct evpt_peer *peer = peer_of(world, "n0");
    evpt_cluster_mgr_stop_listening(&world->nodes[0].mgr);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_CONNECT_FAILED, EVPT_EXECUTED_NO);
    peer->retry_at_ns = evpt_sys_now_ns() + EVPT_NS_PER_S;
    ck_assert_int_eq(evpt_cluster_mgr_listen(&world->nodes[0].mgr, &world->nodes[0].addr), 0);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_CONNECT_FAILED, EVPT_EXECUTED_NO);
    evpt_clusterclient_seen(&world->client, "n0");
    evpt_clusterclient_seen(&world->client, "nobody");
    connect_to(world, "n0");
    world_free(world);
}
END_TEST

/* A listener whose backlog is full does not answer at all. */
START_TEST(test_clusterclient_connect_timeout_fails_all_that_waits)
{
    struct world *world = world_new();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fillers[8];
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(addr);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, size), 0);
    ck_assert_int_eq(listen(listener, 0), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &size), 0);
    for (int i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&addr, size);
    }
    char entry[32];
    snprintf(entry, sizeof(entry), "slow=127.0.0.1:%u", ntohs(addr.sin_port));
    ck_assert_str_eq(apply(world, (const char *[]){entry}, 1), "+slow -n0 -n1 -n2 -n3");
    uint32_t early = call(world, "slow", 0, 0, 2000), late = call(world, "slow", 0, 0, 60000);
    TURN_UNTIL(world, status_of(world, "slow") == EVPT_STATUS_CONNECTING);
    world_pass_ms(world, 2500);
    check_outcome(world, early, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_NO);
    ck_assert_int_eq(status_of(world, "slow"), EVPT_STATUS_CONNECTING);
    world_pass_ms(world, 600);
    check_outcome(world, late, EVPT_CODE_CONNECT_FAILED, EVPT_EXECUTED_NO);
    ck_assert_int_eq(status_of(world, "slow"), EVPT_STATUS_DISCONNECT);
    for (int i = 0; i < 8; i++)
        close(fillers[i]);
    close(listener);
    world_free(world);
}
END_TEST

/* ---- refusals without a connection ---- */

START_TEST(test_clusterclient_unknown_nodes_are_refused)
{
    struct world *world = world_new();
    char addr[EVPT_ADDR_TEXT_SIZE], entry[EVPT_ADDR_TEXT_SIZE + 8];
    snprintf(entry, sizeof(entry), "n0=%s",
             evpt_addr_format(&world->nodes[0].addr, addr, sizeof(addr)));
    ck_assert_str_eq(apply(world, (const char *[]){entry, "off="}, 2), "+off -n1 -n2 -n3");
    check_outcome(world, call(world, "nobody", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE,
                  EVPT_EXECUTED_NO);
    check_outcome(world, call(world, "off", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE, EVPT_EXECUTED_NO);
    ck_assert_ptr_nonnull(strstr(world->outcomes[2].text, "down"));
    check_outcome(world, call(world, "n1", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE, EVPT_EXECUTED_NO);
    check_outcome(world, call(world, "", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE, EVPT_EXECUTED_NO);
    send_to(world, "nobody", 0);
    TURN_UNTIL(world, world->client.lost_sends == 1);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_request_whose_deadline_has_passed_is_not_sent)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    uint32_t late = call(world, "n0", 0, 0, 10);
    support_skip_ms(11);
    evpt_loop_update_now(world->rig.loop);
    check_outcome(world, late, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_NO);
    ck_assert_uint_eq(world->nodes[0].arrival_count, 1);
    world_free(world);
}
END_TEST

/* The connection comes about in the same turn in which the deadline has passed. */
START_TEST(test_clusterclient_cached_request_whose_deadline_has_passed_is_not_sent)
{
    struct world *world = world_new();
    uint32_t late = call_now(world, "n0", 0, 100), good = call_now(world, "n0", 1, 5000);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_CONNECTING);
    support_skip_ms(150); /* before the loop sees that it is connected */
    check_outcome(world, late, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_NO);
    await_arrivals(&world->nodes[0], 1);
    answer(&world->nodes[0], 0, 0);
    ck_assert_int_eq(outcome_of(world, good)->result, 1);
    ck_assert_uint_eq(world->nodes[0].arrival_count, 1);
    ck_assert_uint_eq(world->client.timeouts, 1);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_drain_refuses_new_requests_and_finishes_old_ones)
{
    struct world *world = world_new();
    uint32_t old = call(world, "n0", 5, 0, 5000);
    await_arrivals(&world->nodes[0], 1);
    evpt_clusterclient_drain(&world->client);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_STOPPING, EVPT_EXECUTED_NO);
    check_outcome(world, call(world, "n1", 0, 0, 5000), EVPT_CODE_STOPPING, EVPT_EXECUTED_NO);
    answer(&world->nodes[0], 0, 0);
    check_outcome(world, old, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_goaway_refuses_new_requests_and_finishes_old_ones)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    uint32_t old = call(world, "n0", 5, 0, 5000);
    await_arrivals(&world->nodes[0], 2);
    evpt_session_goaway(world->nodes[0].session, EVPT_CODE_STOPPING, "leaving");
    TURN_UNTIL(world, peer_of(world, "n0")->going_away);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_STOPPING, EVPT_EXECUTED_NO);
    answer(&world->nodes[0], 1, 0);
    check_outcome(world, old, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    evpt_session_close(world->nodes[0].session, true, "left");
    TURN_UNTIL(world, status_of(world, "n0") == EVPT_STATUS_DISCONNECT);
    connect_to(world, "n0"); /* it is back, on another connection */
    ck_assert(!peer_of(world, "n0")->going_away);
    world_free(world);
}
END_TEST

/* ---- limits ---- */

START_TEST(test_clusterclient_pending_max_is_kept)
{
    struct world *world = world_new();
    world->config.cluster.pending_max = 10;
    connect_to(world, "n0");
    for (int i = 0; i < 10; i++)
        call(world, "n0", i, 0, 5000);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_OVERLOADED, EVPT_EXECUTED_NO);
    ck_assert_ptr_nonnull(strstr(world->outcomes[world->calls].text, "pending_max"));
    check_outcome(world, call(world, "nobody", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE,
                  EVPT_EXECUTED_NO);
    await_arrivals(&world->nodes[0], 11);
    answer(&world->nodes[0], 1, 0);
    check_outcome(world, 2, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    call(world, "n0", 10, 0, 5000); /* there is room for one again */
    await_arrivals(&world->nodes[0], 12);
    for (size_t i = 2; i < 12; i++)
        answer(&world->nodes[0], i, 0);
    world_pass_ms(world, 1);
    TURN_UNTIL(world, evpt_clusterclient_pending(&world->client) == 0);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_cache_max_is_kept)
{
    struct world *world = world_new();
    world->config.cluster.cache_max = 10;
    for (int i = 0; i < 9; i++)
        call(world, "n0", i, 0, 5000);
    send_to(world, "n0", 9); /* takes room like the others */
    check_outcome(world, call(world, "n0", 10, 0, 5000), EVPT_CODE_OVERLOADED, EVPT_EXECUTED_NO);
    ck_assert_ptr_nonnull(strstr(world->outcomes[10].text, "cache_max"));
    await_arrivals(&world->nodes[0], 10);
    for (size_t i = 0; i < 10; i++)
        answer(&world->nodes[0], i, 0);
    TURN_UNTIL(world, evpt_clusterclient_pending(&world->client) == 0);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_send_buffer_max_is_kept)
{
    struct world *world = world_new();
    world->mgr.config.send_buffer_max = 100000;
    connect_to(world, "n0");
    uint32_t first = call(world, "n0", 0, 60000, 5000), second = call(world, "n0", 0, 60000, 5000);
    check_outcome(world, second, EVPT_CODE_OVERLOADED, EVPT_EXECUTED_NO);
    ck_assert_ptr_nonnull(strstr(world->outcomes[second].text, "send_buffer_max"));
    await_arrivals(&world->nodes[0], 2);
    answer(&world->nodes[0], 1, 0);
    check_outcome(world, first, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_message_max_of_the_peer_is_kept)
{
    struct world *world = world_new();
    world->nodes[0].mgr.config.message_max = 50000;
    connect_to(world, "n0");
    ck_assert_uint_eq(peer_of(world, "n0")->message_max, 50000);
    check_outcome(world, call(world, "n0", 0, 50000, 5000), EVPT_CODE_TOO_LARGE, EVPT_EXECUTED_NO);
    connect_to(world, "n0"); /* the connection has not noticed */
    ck_assert_int_eq(world->nodes[0].accepted, 1);
    world_free(world);
}
END_TEST

/* ---- answers ---- */

START_TEST(test_clusterclient_passes_on_each_code_with_what_it_says_about_execution)
{
    static const int codes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 4711, 65535};
    struct world *world = world_new();
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        uint32_t session = call(world, "n0", 0, 0, 5000);
        await_arrivals(&world->nodes[0], i + 1);
        answer(&world->nodes[0], i, codes[i]);
        check_outcome(world, session, codes[i], evpt_code_executed(codes[i]));
    }
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_reply_that_cannot_be_read_is_an_outcome)
{
    struct world *world = world_new();
    uint32_t session = call(world, "n0", 0, 0, 5000);
    await_arrivals(&world->nodes[0], 1);
    reply_raw(&world->nodes[0], world->nodes[0].arrivals[0].number, "\x93\x03\x00\xc0", 4);
    check_outcome(world, session, EVPT_CODE_BAD_MESSAGE, EVPT_EXECUTED_MAYBE);
    connect_to(world, "n0");
    ck_assert_int_eq(world->nodes[0].accepted, 1);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_deadline_in_flight_and_the_late_reply)
{
    struct world *world = world_new();
    uint32_t session = call(world, "n0", 0, 0, 1000);
    await_arrivals(&world->nodes[0], 1);
    ck_assert_uint_ge(world->nodes[0].arrivals[0].left_ms, 900);
    ck_assert_uint_le(world->nodes[0].arrivals[0].left_ms, 1000);
    world_pass_ms(world, 1002);
    check_outcome(world, session, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_MAYBE);
    ck_assert_uint_eq(world->client.timeouts, 1);
    struct evpt_peer *peer = peer_of(world, "n0");
    ck_assert_uint_eq(peer->late_replies_due, 1);
    answer(&world->nodes[0], 0, 0);
    TURN_UNTIL(world, peer->late_replies_due == 0);
    ck_assert_uint_eq(peer->stray_replies, 0); /* nobody's fault */
    connect_to(world, "n0");
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_no_deadline_is_no_deadline)
{
    struct world *world = world_new();
    uint32_t session = call(world, "n0", 7, 0, 0);
    await_arrivals(&world->nodes[0], 1);
    ck_assert_uint_eq(world->nodes[0].arrivals[0].left_ms, 0);
    world_pass_ms(world, 100u * 24 * 3600 * 1000);
    answer(&world->nodes[0], 0, 0);
    ck_assert_int_eq(outcome_of(world, session)->result, 7);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_a_thousand_stray_replies_are_borne_and_no_more)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    struct evpt_peer *peer = peer_of(world, "n0");
    uint32_t pending = call(world, "n0", 0, 0, 5000);
    await_arrivals(&world->nodes[0], 2);
    for (uint32_t i = 0; i < EVPT_STRAY_REPLIES_MAX; i++)
        reply_raw(&world->nodes[0], 1 + i, NULL, 0); /* sessions begin at a random number */
    TURN_UNTIL(world, peer->stray_replies == EVPT_STRAY_REPLIES_MAX);
    ck_assert_int_eq(peer->status, EVPT_STATUS_CONNECTED);
    reply_raw(&world->nodes[0], 5000, NULL, 0);
    check_outcome(world, pending, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    ck_assert_int_eq(peer->status, EVPT_STATUS_DISCONNECT);
    TURN_UNTIL(world, world->nodes[0].closed == 1);
    connect_to(world, "n0"); /* counted anew */
    ck_assert_uint_eq(peer->stray_replies, 0);
    world_free(world);
}
END_TEST

/* An answer counts only from the node that was asked. */
START_TEST(test_clusterclient_another_nodes_reply_is_a_stray_one)
{
    struct world *world = world_new();
    connect_to(world, "n1");
    uint32_t session = call(world, "n0", 3, 0, 5000);
    await_arrivals(&world->nodes[0], 1);
    reply_raw(&world->nodes[1], world->nodes[0].arrivals[0].number, NULL, 0);
    TURN_UNTIL(world, peer_of(world, "n1")->stray_replies == 1);
    ck_assert_int_eq(world->outcomes[session].answers, 0);
    answer(&world->nodes[0], 0, 0);
    ck_assert_int_eq(outcome_of(world, session)->result, 3);
    answer(&world->nodes[0], 0, 0); /* and only once */
    TURN_UNTIL(world, peer_of(world, "n0")->stray_replies == 1);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_answers_of_services_are_no_requests)
{
    struct world *world = world_new();
    evpt_post_reply(&world->rig.scheduler, NULL, world->client.handle, 1,
                    evpt_reply_error(200, "x", 1));
    world_turn(world);
    ck_assert_uint_eq(world->client.sends, 0);
    world_free(world);
}
END_TEST

/* ---- sessions ---- */

START_TEST(test_clusterclient_sessions_wrap_and_skip_those_in_use)
{
    struct world *world = world_new();
    struct node *node = &world->nodes[0];
    world->client.next_session = UINT32_MAX - 5;
    enum { FIRST = 10 };
    for (int i = 0; i < FIRST; i++)
        call(world, "n0", i, 0, 5000);
    await_arrivals(node, FIRST);
    for (int i = 0; i < FIRST; i++) {
        uint32_t expected = UINT32_MAX - 4 + (uint32_t)i;
        ck_assert_uint_eq(node->arrivals[i].number, i < 5 ? expected : expected + 1); /* no 0 */
    }
    world->client.next_session = UINT32_MAX - 5; /* once around, and all are still pending */
    uint32_t next = call(world, "n0", 99, 0, 5000);
    await_arrivals(node, FIRST + 1);
    ck_assert_uint_eq(node->arrivals[FIRST].number, node->arrivals[FIRST - 1].number + 1);
    for (size_t i = 0; i <= FIRST; i++)
        answer(node, i, 0);
    ck_assert_int_eq(outcome_of(world, next)->result, 99);
    for (uint32_t i = 1; i <= FIRST; i++)
        ck_assert_int_eq(outcome_of(world, i)->result, i - 1);
    world_free(world);
}
END_TEST

/* Many that wait for long, and many short ones beside them: the table grows, entries come and go.
 */
START_TEST(test_clusterclient_finds_each_of_many_contexts)
{
    enum { LONG = 3000, SHORT = 6000 };
    struct world *world = world_new();
    struct node *node = &world->nodes[0];
    uint64_t random = support_seed();
    for (int i = 0; i < LONG; i++)
        call(world, "n0", i, 0, 0);
    await_arrivals(node, LONG);
    for (int i = 0; i < SHORT; i++) {
        uint32_t session = call(world, "n0", LONG + i, 0, 0);
        await_arrivals(node, LONG + (size_t)i + 1);
        answer(node, LONG + (size_t)i, 0);
        ck_assert_int_eq(outcome_of(world, session)->result, LONG + i);
    }
    for (size_t i = LONG - 1; i > 0; i--) { /* in a random order */
        size_t other = support_random(&random) % (i + 1);
        struct arrival kept = node->arrivals[i];
        node->arrivals[i] = node->arrivals[other];
        node->arrivals[other] = kept;
    }
    for (size_t i = 0; i < LONG; i++)
        answer(node, i, 0);
    for (uint32_t i = 1; i <= LONG; i++)
        ck_assert_int_eq(outcome_of(world, i)->result, i - 1);
    world_free(world);
}
END_TEST

/* ---- the connection is lost ---- */

START_TEST(test_clusterclient_lost_connection_answers_all_and_the_next_request_connects_again)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    for (int i = 0; i < 5; i++)
        call(world, "n0", i, 0, 5000);
    await_arrivals(&world->nodes[0], 6);
    evpt_session_close(world->nodes[0].session, false, "gone");
    for (uint32_t i = 2; i <= 6; i++)
        check_outcome(world, i, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_DISCONNECT);
    connect_to(world, "n0"); /* at once: the last connection had been of use */
    ck_assert_int_eq(world->nodes[0].accepted, 2);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_connection_of_no_use_counts_as_a_failure)
{
    struct world *world = world_new();
    uint32_t session = call(world, "n0", 0, 0, 5000);
    await_arrivals(&world->nodes[0], 1);
    evpt_session_close(world->nodes[0].session, false, "gone");
    check_outcome(world, session, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    ck_assert_uint_eq(peer_of(world, "n0")->failures, 1);
    world_free(world);
}
END_TEST

/* A peer that does not read: what had left may have been executed, what had not has not. */
static void lose_unsent(size_t padding, bool removed)
{
    enum { SENT = 400 };
    struct world *world = world_new();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(addr);
    int small = 4096;
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, size), 0);
    ck_assert_int_eq(listen(listener, 5), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &size), 0);
    char entry[32];
    snprintf(entry, sizeof(entry), "deaf=127.0.0.1:%u", ntohs(addr.sin_port));
    apply(world, (const char *[]){entry}, 1);
    uint32_t first = call(world, "deaf", 0, 0, 60000);
    TURN_UNTIL(world, status_of(world, "deaf") == EVPT_STATUS_CONNECTED);
    int fd = accept(listener, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    for (int i = 1; i < SENT; i++)
        call(world, "deaf", i, padding, 60000);
    struct evpt_session *session = peer_of(world, "deaf")->session;
    uint64_t written = 0;
    for (int quiet = 0; quiet < 200; quiet++) { /* until the sockets are full */
        world_turn(world);
        if (evpt_session_written(session) != written)
            quiet = 0;
        written = evpt_session_written(session);
    }
    ck_assert_uint_gt(evpt_session_queued(session), 0);
    ck_assert_uint_eq(peer_of(world, "deaf")->sent_count, SENT);
    if (removed)
        ck_assert_str_eq(apply(world, NULL, 0), "-deaf");
    close(fd); /* with unread bytes: a reset */
    int maybe = 0, no = 0;
    for (uint32_t i = first; i <= SENT; i++) {
        const struct outcome *outcome = outcome_of(world, i);
        ck_assert_int_eq(outcome->code, EVPT_CODE_DISCONNECTED);
        if (outcome->executed == EVPT_EXECUTED_MAYBE)
            maybe++;
        else
            no++;
        /* in the order of sending: first those that had left */
        ck_assert_int_eq(outcome->executed, no ? EVPT_EXECUTED_NO : EVPT_EXECUTED_MAYBE);
    }
    ck_assert_int_gt(maybe, 0);
    ck_assert_int_gt(no, 0);
    /* not one more than fit into the bytes that were written */
    ck_assert_uint_le((uint64_t)(maybe - 1) * padding, written);
    ck_assert_uint_ge((uint64_t)(maybe + 1) * (padding + 100), written);
    close(listener);
    world_free(world);
}

START_TEST(test_clusterclient_unsent_requests_are_told_from_sent_ones)
{
    lose_unsent(20000, false);
}
END_TEST

START_TEST(test_clusterclient_unsent_long_requests_are_told_from_sent_ones)
{
    lose_unsent(40000, false); /* in parts, in a lane */
}
END_TEST

START_TEST(test_clusterclient_unsent_requests_to_a_removed_node_are_told_from_sent_ones)
{
    lose_unsent(20000, true);
    lose_unsent(40000, true);
}
END_TEST

START_TEST(test_clusterclient_want_of_memory_answers_each_call_once)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    size_t arrivals = 1;
    for (int connected = 1; connected >= 0; connected--) {
        const char *node = connected ? "n0" : "n1";
        bool failed = true;
        for (long nth = 1; failed; nth++) {
            uint32_t session = ++world->calls;
            struct evpt_message *message =
                make_request(world, EVPT_MESSAGE_CALL, node, session, 0, 0, 5000);
            support_fail_allocation(nth);
            evpt_clusterclient_request(&world->client, message);
            failed = support_allocation_failed();
            support_fail_allocation(0);
            evpt_clusterclient_check(&world->client);
            struct node *at = &world->nodes[connected ? 0 : 1];
            if (!connected && !failed)
                arrivals = at->arrival_count;
            TURN_UNTIL(world, world->outcomes[session].answers || at->arrival_count > arrivals);
            if (!world->outcomes[session].answers) {
                answer(at, at->arrival_count - 1, 0);
                check_outcome(world, session, EVPT_CODE_OK, EVPT_EXECUTED_YES);
            } else {
                ck_assert_int_eq(world->outcomes[session].executed, EVPT_EXECUTED_NO);
            }
            arrivals = at->arrival_count;
            if (!connected) { /* the next attempt begins without a connection, too */
                world_pass_ms(world, 3000);
                if (at->session)
                    evpt_session_close(at->session, false, "");
                TURN_UNTIL(world, status_of(world, node) == EVPT_STATUS_DISCONNECT);
                world_pass_ms(world, 3000);
            }
        }
        arrivals = world->nodes[1].arrival_count;
    }
    world_free(world);
}
END_TEST

/* What has been asked already is answered also where there is no memory at all. */
START_TEST(test_clusterclient_calls_in_flight_are_answered_without_any_memory)
{
    struct world *world = world_new();
    world->client.observer = 0;
    connect_to(world, "n0");
    connect_to(world, "n1");
    uint32_t late = call(world, "n0", 0, 0, 1000), lost = call(world, "n1", 0, 0, 0);
    await_arrivals(&world->nodes[0], 2);
    await_arrivals(&world->nodes[1], 2);
    uint32_t cached = call_now(world, "n2", 0, 1000);
    struct evpt_message *refused =
        make_request(world, EVPT_MESSAGE_CALL, "n3", ++world->calls, 0, 0, 0);
    support_refuse_memory(true);
    evpt_clusterclient_request(&world->client, refused);
    check_outcome(world, world->calls, EVPT_CODE_OVERLOADED, EVPT_EXECUTED_NO);
    world_pass_ms(world, 1002);
    check_outcome(world, late, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_MAYBE);
    (void)outcome_of(world, cached); /* of its deadline, or because there is no connection */
    ck_assert_int_eq(world->outcomes[cached].executed, EVPT_EXECUTED_NO);
    evpt_session_close(world->nodes[1].session, false, "gone");
    check_outcome(world, lost, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    support_refuse_memory(false);
    connect_to(world, "n0");
    world_free(world);
}
END_TEST

/* Every call is counted under its outcome, once; and how long it took, unless it was refused. */
START_TEST(test_clusterclient_counts_outcomes_and_durations)
{
    struct world *world = world_new();
    struct evpt_peer_meter *meter = &peer_of(world, "n0")->meter;
    struct evpt_histogram *duration = &meter->duration;
    connect_to(world, "n0");
    uint32_t slow = call(world, "n0", 1, 0, 60000), failed = call(world, "n0", 2, 0, 60000);
    uint32_t strange = call(world, "n0", 3, 0, 60000), late = call(world, "n0", 4, 0, 700);
    await_arrivals(&world->nodes[0], 5);
    world_pass_ms(world, 701);
    check_outcome(world, late, EVPT_CODE_TIMEOUT, EVPT_EXECUTED_MAYBE);
    answer(&world->nodes[0], 1, EVPT_CODE_OK);
    answer(&world->nodes[0], 2, EVPT_CODE_FAILED);
    answer(&world->nodes[0], 3, 999);
    (void)outcome_of(world, strange);
    check_outcome(world, failed, EVPT_CODE_FAILED, EVPT_EXECUTED_YES);
    check_outcome(world, slow, EVPT_CODE_OK, EVPT_EXECUTED_YES);
    evpt_clusterclient_drain(&world->client);
    check_outcome(world, call(world, "n0", 5, 0, 5000), EVPT_CODE_STOPPING, EVPT_EXECUTED_NO);
    send_to(world, "n0", 6); /* counted elsewhere */
    uint64_t total = 0, counted = 0;
    for (int code = 0; code <= EVPT_CODE_COUNT; code++)
        total += meter->outcomes[code];
    ck_assert_uint_eq(total, 6);
    ck_assert_uint_eq(meter->outcomes[EVPT_CODE_OK], 2);
    ck_assert_uint_eq(meter->outcomes[EVPT_CODE_TIMEOUT], 1);
    ck_assert_uint_eq(meter->outcomes[EVPT_CODE_FAILED], 1);
    ck_assert_uint_eq(meter->outcomes[EVPT_CODE_STOPPING], 1);
    ck_assert_uint_eq(meter->outcomes[EVPT_CODE_COUNT], 1);
    for (unsigned i = 0; i <= EVPT_HISTOGRAM_BOUNDS; i++)
        counted += atomic_load(&duration->counts[i]);
    ck_assert_uint_eq(counted, 5);
    ck_assert_uint_ge(atomic_load(&duration->sum_ns), 4 * 700 * EVPT_NS_PER_MS);
    ck_assert_uint_lt(atomic_load(&duration->sum_ns), 60 * EVPT_NS_PER_S);
    world_free(world);
}
END_TEST

SUPPORT_MAIN("clusterclient", test_clusterclient_first_request_connects_and_is_answered,
             test_clusterclient_cached_requests_leave_in_order_and_before_later_ones,
             test_clusterclient_refused_connection_fails_all_that_waits,
             test_clusterclient_backs_off_after_failures,
             test_clusterclient_a_node_that_was_heard_of_is_tried_at_once,
             test_clusterclient_connect_timeout_fails_all_that_waits,
             test_clusterclient_unknown_nodes_are_refused,
             test_clusterclient_request_whose_deadline_has_passed_is_not_sent,
             test_clusterclient_cached_request_whose_deadline_has_passed_is_not_sent,
             test_clusterclient_drain_refuses_new_requests_and_finishes_old_ones,
             test_clusterclient_goaway_refuses_new_requests_and_finishes_old_ones,
             test_clusterclient_pending_max_is_kept, test_clusterclient_cache_max_is_kept,
             test_clusterclient_send_buffer_max_is_kept,
             test_clusterclient_message_max_of_the_peer_is_kept,
             test_clusterclient_passes_on_each_code_with_what_it_says_about_execution,
             test_clusterclient_reply_that_cannot_be_read_is_an_outcome,
             test_clusterclient_deadline_in_flight_and_the_late_reply,
             test_clusterclient_no_deadline_is_no_deadline,
             test_clusterclient_a_thousand_stray_replies_are_borne_and_no_more,
             test_clusterclient_another_nodes_reply_is_a_stray_one,
             test_clusterclient_answers_of_services_are_no_requests,
             test_clusterclient_sessions_wrap_and_skip_those_in_use,
             test_clusterclient_finds_each_of_many_contexts,
             test_clusterclient_lost_connection_answers_all_and_the_next_request_connects_again,
             test_clusterclient_connection_of_no_use_counts_as_a_failure,
             test_clusterclient_unsent_requests_are_told_from_sent_ones,
             test_clusterclient_unsent_long_requests_are_told_from_sent_ones,
             test_clusterclient_unsent_requests_to_a_removed_node_are_told_from_sent_ones,
             test_clusterclient_want_of_memory_answers_each_call_once,
             test_clusterclient_calls_in_flight_are_answered_without_any_memory,
             test_clusterclient_counts_outcomes_and_durations)
