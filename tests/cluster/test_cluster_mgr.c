/* ClusterMgr: two of them on one loop, as two nodes would be. */
#include "cluster/cluster_mgr.h"

#include "support.h"
#include <errno.h>
#include <stdio.h>

struct node {
    struct evpt_cluster_mgr mgr;
    int connects, connect_error, replies, hellos, goaways, goaway_code, queued, disconnects;
    int accepts, requests, closes, sheds;
    struct evpt_session *session; /* of the last on_connect */
    struct evpt_session *peer;    /* of the last on_accepted */
    uint32_t connection;          /* of the last request */
};

static void on_connect(void *user, void *tag, struct evpt_session *session, int error)
{
    struct node *node = user;
    node->connects++;
    node->connect_error = error;
    node->session = session;
    ck_assert_ptr_eq(tag, node);
}

static void on_reply(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct node *node = user;
    node->replies++;
    ck_assert_ptr_eq(session, node->session);
    check_message(message, message->session, message->session == 2 ? 100000 : 10);
    evpt_message_free(message);
}

static void on_hello(void *user, struct evpt_session *session)
{
    struct node *node = user;
    node->hellos++;
}

static void on_goaway(void *user, struct evpt_session *session, int code, const char *text)
{
    struct node *node = user;
    node->goaways++;
    node->goaway_code = code;
    ck_assert_str_eq(text, "stopping");
}

static void on_queued(void *user, struct evpt_session *session, uint32_t frame_session,
                      uint64_t position)
{
    struct node *node = user;
    node->queued++;
    ck_assert_uint_eq(frame_session, 2);
    ck_assert_uint_gt(position, 100000);
}

static void on_disconnect(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct node *node = user;
    node->disconnects++;
    node->session = NULL;
}

static void on_accepted(void *user, struct evpt_session *session)
{
    struct node *node = user;
    node->accepts++;
    node->peer = session;
}

static void on_request(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct node *node = user;
    node->requests++;
    node->connection = message->connection;
    /* the way of a reply: the connection is found again by its id */
    struct evpt_session *back = evpt_cluster_mgr_accepted(&node->mgr, message->connection);
    ck_assert_ptr_eq(back, session);
    struct evpt_message *reply = make_message(message->session, 0, message->size);
    evpt_message_free(message);
    ck_assert_int_eq(evpt_session_send(back, reply, NULL), 0);
}

static void on_closed(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct node *node = user;
    node->closes++;
}

static void on_shed(void *user, int error)
{
    struct node *node = user;
    node->sheds++;
}

static const struct evpt_cluster_sink sink = {
    .on_connect = on_connect,
    .on_reply = on_reply,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_disconnect = on_disconnect,
    .on_accepted = on_accepted,
    .on_request = on_request,
    .on_closed = on_closed,
    .on_shed = on_shed,
};

struct two {
    struct world world;
    struct node a, b;
    struct evpt_addr addr; /* b's */
};

static void two_init(struct two *two)
{
    *two = (struct two){0};
    world_init(&two->world);
    strcpy(two->world.config.node, "a");
    evpt_cluster_mgr_init(&two->a.mgr, two->world.loop, &two->world.config, &sink, &two->a);
    strcpy(two->world.config.node, "b");
    evpt_cluster_mgr_init(&two->b.mgr, two->world.loop, &two->world.config, &sink, &two->b);
    strcpy(two->world.config.node, "nobody"); /* the manager has a copy */
    ck_assert_int_eq(evpt_addr_parse(&two->addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_cluster_mgr_listen(&two->b.mgr, &two->addr), 0);
    ck_assert_int_eq(evpt_tcp_server_addr(&two->b.mgr.server, &two->addr), 0);
}

static void two_connect(struct two *two)
{
    ck_assert_int_eq(
        evpt_cluster_mgr_connect(&two->a.mgr, &two->addr, "here", 5 * EVPT_NS_PER_S, &two->a), 0);
    TURN_UNTIL(&two->world, two->a.connects == 1 && two->b.accepts == 1 && two->a.hellos == 1 &&
                                two->b.hellos == 1);
    ck_assert_int_eq(two->a.connect_error, 0);
    ck_assert_str_eq(evpt_session_peer_name(two->a.session), "b");
    ck_assert_str_eq(evpt_session_peer_name(two->b.peer), "a");
}

static void two_fini(struct two *two)
{
    evpt_cluster_mgr_fini(&two->a.mgr);
    evpt_cluster_mgr_fini(&two->b.mgr);
    world_fini(&two->world);
}

START_TEST(test_cluster_mgr_requests_go_there_and_replies_come_back)
{
    struct two two;
    two_init(&two);
    two_connect(&two);
    ck_assert_int_eq(evpt_session_send(two.a.session, make_message(1, 0, 10), NULL), 0);
    ck_assert_int_eq(evpt_session_send(two.a.session, make_message(2, 0, 100000), NULL), 0);
    TURN_UNTIL(&two.world, two.a.replies == 2);
    ck_assert_int_eq(two.b.requests, 2);
    ck_assert_int_eq(two.a.queued, 1); /* the long request */
    ck_assert_int_eq(two.b.queued, 0); /* the long reply: nobody needs to know */
    ck_assert_int_eq(two.a.requests + two.a.accepts + two.b.connects + two.b.replies, 0);
    two_fini(&two);
}
END_TEST

/* One more connection of a's, whatever has become of the others; its session at b. */
static struct evpt_session *connect_again(struct two *two)
{
    int hellos = two->b.hellos;
    ck_assert_int_eq(
        evpt_cluster_mgr_connect(&two->a.mgr, &two->addr, "b", 5 * EVPT_NS_PER_S, &two->a), 0);
    TURN_UNTIL(&two->world, two->b.hellos == hellos + 1);
    return two->b.peer;
}

START_TEST(test_cluster_mgr_connection_that_takes_over_ends_the_earlier_ones_of_its_process)
{
    struct two two;
    two_init(&two);
    two_connect(&two);
    two.a.mgr.config.incarnation++; /* as if a had been started anew */
    connect_again(&two);
    connect_again(&two);
    struct evpt_session *third = connect_again(&two);
    struct evpt_session *fourth = connect_again(&two);
    ck_assert_int_eq(two.b.closes, 0); /* one of them may have as many as it likes */
    evpt_cluster_mgr_take_over(&two.b.mgr, third);
    evpt_cluster_mgr_take_over(&two.b.mgr, third);
    TURN_UNTIL(&two.world, two.a.disconnects == 2);
    ck_assert_int_eq(two.b.closes, 2); /* not that of the other incarnation, not the later one */
    ck_assert_uint_eq(evpt_tcp_object_count(&two.b.mgr.server.object), 3);
    evpt_cluster_mgr_take_over(&two.b.mgr, fourth);
    TURN_UNTIL(&two.world, two.a.disconnects == 3);
    ck_assert_int_eq(two.b.closes, 3);
    two_fini(&two);
}
END_TEST

START_TEST(test_cluster_mgr_goaway_reaches_those_who_connected)
{
    struct two two;
    two_init(&two);
    two_connect(&two);
    evpt_cluster_mgr_goaway(&two.a.mgr, 11, "stopping"); /* nobody connected to a */
    evpt_cluster_mgr_goaway(&two.b.mgr, 11, "stopping");
    TURN_UNTIL(&two.world, two.a.goaways == 1);
    ck_assert_int_eq(two.a.goaway_code, 11);
    ck_assert_int_eq(two.b.goaways, 0);
    two_fini(&two);
}
END_TEST

START_TEST(test_cluster_mgr_reply_to_a_caller_that_is_gone_finds_nobody)
{
    struct two two;
    two_init(&two);
    two_connect(&two);
    ck_assert_int_eq(evpt_session_send(two.a.session, make_message(1, 0, 10), NULL), 0);
    TURN_UNTIL(&two.world, two.a.replies == 1);
    evpt_session_close(two.a.session, false, "test");
    TURN_UNTIL(&two.world, two.a.disconnects == 1 && two.b.closes == 1);
    ck_assert_ptr_null(evpt_cluster_mgr_accepted(&two.b.mgr, two.b.connection));
    two_fini(&two);
}
END_TEST

START_TEST(test_cluster_mgr_reports_failed_and_cancelled_attempts)
{
    struct two two;
    two_init(&two);
    evpt_cluster_mgr_stop_listening(&two.b.mgr);
    ck_assert_int_eq(
        evpt_cluster_mgr_connect(&two.a.mgr, &two.addr, "here", 5 * EVPT_NS_PER_S, &two.a), 0);
    TURN_UNTIL(&two.world, two.a.connects == 1);
    ck_assert_int_eq(two.a.connect_error, -ECONNREFUSED);
    ck_assert_int_eq(
        evpt_cluster_mgr_connect(&two.a.mgr, &two.addr, "here", 5 * EVPT_NS_PER_S, &two.a), 0);
    ck_assert(evpt_cluster_mgr_cancel(&two.a.mgr, &two.a));
    ck_assert(!evpt_cluster_mgr_cancel(&two.a.mgr, &two.a));
    for (int i = 0; i < 10; i++)
        turn(&two.world);
    ck_assert_int_eq(two.a.connects, 1);
    two_fini(&two);
}
END_TEST

START_TEST(test_cluster_mgr_reports_what_it_cannot_accept)
{
    struct two two;
    two_init(&two);
    int fd = evpt_sys_connect(&two.addr);
    ck_assert_int_ge(fd, 0);
    refuse_alloc(0);
    TURN_UNTIL(&two.world, two.b.sheds == 1);
    refuse_alloc(-1);
    ck_assert_int_eq(two.b.accepts, 0);
    evpt_sys_close(fd);
    two_fini(&two);
}
END_TEST

START_TEST(test_cluster_mgr_fini_closes_everything_without_callbacks)
{
    struct two two;
    two_init(&two);
    two_connect(&two);
    ck_assert_int_eq(evpt_session_send(two.a.session, make_message(2, 0, 100000), NULL), 0);
    two_fini(&two);
    ck_assert_int_eq(two.a.disconnects + two.b.closes, 0);
    evpt_cluster_mgr_fini(&two.a.mgr);
    evpt_cluster_mgr_fini(NULL);
    struct evpt_cluster_mgr zeroed = {0};
    evpt_cluster_mgr_fini(&zeroed);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("cluster_mgr");
    tcase_add_test(tcase, test_cluster_mgr_requests_go_there_and_replies_come_back);
    tcase_add_test(
        tcase, test_cluster_mgr_connection_that_takes_over_ends_the_earlier_ones_of_its_process);
    tcase_add_test(tcase, test_cluster_mgr_goaway_reaches_those_who_connected);
    tcase_add_test(tcase, test_cluster_mgr_reply_to_a_caller_that_is_gone_finds_nobody);
    tcase_add_test(tcase, test_cluster_mgr_reports_failed_and_cancelled_attempts);
    tcase_add_test(tcase, test_cluster_mgr_reports_what_it_cannot_accept);
    tcase_add_test(tcase, test_cluster_mgr_fini_closes_everything_without_callbacks);
    return run_tests("cluster_mgr", tcase);
}
