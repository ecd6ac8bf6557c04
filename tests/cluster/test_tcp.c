/* TcpServer and TcpClient over loopback, and the dictionary of sessions that they share. */
#include "cluster/tcp_client.h"
#include "cluster/tcp_server.h"

#include "support.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- one server, one client, and what they reported ---- */

struct net {
    struct world world;
    struct evpt_tcp_server server;
    struct evpt_tcp_client client;
    struct evpt_addr addr;
    int opened, sheds, server_messages, server_closes, client_messages, client_closes;
    int connects, connect_error;
    void *connect_tag;
    struct evpt_session *connected; /* of the last on_connect */
    uint32_t last_message, server_id;
    bool in_call, echo;
    void (*on_connect)(struct net *net);
};

static void note_message(struct net *net, struct evpt_message *message)
{
    ck_assert(!net->in_call);
    net->last_message = message->session;
    check_message(message, message->session, 100);
    evpt_message_free(message);
}

static void on_server_message(struct evpt_session *session, struct evpt_message *message,
                              void *user)
{
    struct net *net = user;
    ck_assert_ptr_eq(evpt_tcp_object_find(&net->server.object, message->connection), session);
    net->server_messages++;
    net->server_id = message->connection;
    if (net->echo)
        ck_assert_int_eq(evpt_session_send(session, make_message(message->session, 0, 100), NULL),
                         0);
    note_message(net, message);
}

static void on_server_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct net *net = user;
    ck_assert_ptr_null(evpt_tcp_object_find(&net->server.object, evpt_session_id(session)));
    net->server_closes++;
}

static void on_opened(struct evpt_session *session, void *user)
{
    struct net *net = user;
    ck_assert_int_eq(evpt_session_role(session), EVPT_SESSION_SERVER);
    ck_assert_ptr_eq(evpt_tcp_object_find(&net->server.object, evpt_session_id(session)), session);
    ck_assert_int_eq(strncmp(evpt_session_peer_addr(session), "127.0.0.1:", 10), 0);
    net->opened++;
}

static void on_shed(int error, void *user)
{
    struct net *net = user;
    ck_assert_int_lt(error, 0);
    net->sheds++;
}

static void on_client_message(struct evpt_session *session, struct evpt_message *message,
                              void *user)
{
    struct net *net = user;
    net->client_messages++;
    note_message(net, message);
}

static void on_client_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct net *net = user;
    ck_assert_ptr_null(evpt_tcp_object_find(&net->client.object, evpt_session_id(session)));
    net->client_closes++;
}

static void on_connect(void *tag, struct evpt_session *session, int error, void *user)
{
    struct net *net = user;
    ck_assert(!net->in_call);
    ck_assert_int_eq(session == NULL, error != 0);
    if (session) {
        ck_assert_ptr_eq(evpt_session_tag(session), tag);
        ck_assert_int_eq(evpt_session_role(session), EVPT_SESSION_CLIENT);
    }
    net->connects++;
    net->connect_tag = tag;
    net->connect_error = error;
    net->connected = session;
    if (net->on_connect)
        net->on_connect(net);
}

static const struct evpt_tcp_server_ops server_ops = {
    .session = {.on_message = on_server_message, .on_close = on_server_close},
    .on_opened = on_opened,
    .on_shed = on_shed,
};

static const struct evpt_tcp_client_ops client_ops = {
    .session = {.on_message = on_client_message, .on_close = on_client_close},
    .on_connect = on_connect,
};

static void net_init(struct net *net)
{
    *net = (struct net){0};
    world_init(&net->world);
    evpt_tcp_server_init(&net->server, net->world.loop, &net->world.config, &server_ops, net);
    evpt_tcp_client_init(&net->client, net->world.loop, &net->world.config, &client_ops, net);
    ck_assert_int_eq(evpt_addr_parse(&net->addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_tcp_server_listen(&net->server, &net->addr), 0);
    ck_assert_int_eq(evpt_tcp_server_addr(&net->server, &net->addr), 0);
    ck_assert_uint_ne(evpt_addr_port(&net->addr), 0); /* the kernel's choice */
}

static void net_fini(struct net *net)
{
    evpt_tcp_client_fini(&net->client);
    evpt_tcp_server_fini(&net->server);
    world_fini(&net->world);
}

static void try_connect(struct net *net, const struct evpt_addr *addr, void *tag)
{
    net->in_call = true;
    ck_assert_int_eq(
        evpt_tcp_client_try_connect(&net->client, addr, "here", 5 * EVPT_NS_PER_S, tag), 0);
    net->in_call = false;
}

static struct evpt_session *connect_one(struct net *net, void *tag)
{
    int before = net->connects;
    try_connect(net, &net->addr, tag);
    TURN_UNTIL(&net->world, net->connects == before + 1 && net->opened == before + 1);
    ck_assert_int_eq(net->connect_error, 0);
    ck_assert_ptr_eq(net->connect_tag, tag);
    return net->connected;
}

/* ---- connections ---- */

START_TEST(test_tcp_request_and_reply_over_loopback)
{
    struct net net;
    net_init(&net);
    net.echo = true;
    struct evpt_session *session = connect_one(&net, &net);
    ck_assert_int_eq(evpt_session_send(session, make_message(42, 0, 100), NULL), 0);
    TURN_UNTIL(&net.world, net.client_messages == 1);
    ck_assert_uint_eq(net.last_message, 42);
    TURN_UNTIL(&net.world, evpt_session_said_hello(session));
    ck_assert_str_eq(evpt_session_peer_name(session), "here");
    char text[EVPT_ADDR_TEXT_SIZE];
    ck_assert_str_eq(evpt_session_peer_addr(session),
                     evpt_addr_format(&net.addr, text, sizeof text));
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_refused_connection_is_reported_from_the_loop)
{
    struct net net;
    net_init(&net);
    evpt_tcp_server_stop_listening(&net.server);
    try_connect(&net, &net.addr, &net);
    ck_assert_int_eq(net.connects, 0);
    TURN_UNTIL(&net.world, net.connects == 1);
    ck_assert_int_eq(net.connect_error, -ECONNREFUSED);
    ck_assert_ptr_eq(net.connect_tag, &net);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.client.object), 0);
    net_fini(&net);
}
END_TEST

/* A listening socket whose queue is full and that nobody accepts from lets attempts hang. */
START_TEST(test_tcp_attempt_without_an_answer_times_out)
{
    struct net net;
    struct evpt_addr addr;
    int fillers[64], count = 0;
    net_init(&net);
    ck_assert_int_eq(evpt_addr_parse(&addr, "127.0.0.1:0"), 0);
    int fd = evpt_sys_listen(&addr, 1);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(evpt_sys_local_addr(fd, &addr), 0);
    for (; count < 64; count++)
        fillers[count] = evpt_sys_connect(&addr);
    try_connect(&net, &addr, &net);
    for (int i = 0; i < 20; i++)
        turn(&net.world);
    ck_assert_int_eq(net.connects, 0);
    clock_skip_ms(5100);
    TURN_UNTIL(&net.world, net.connects == 1);
    ck_assert_int_eq(net.connect_error, -EVPT_ETIMEOUT);
    while (count-- > 0)
        evpt_sys_close(fillers[count]);
    evpt_sys_close(fd);
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_cancelled_attempt_is_not_reported)
{
    struct net net;
    int tags[3];
    net_init(&net);
    ck_assert(!evpt_tcp_client_cancel(&net.client, &tags[0]));
    for (int i = 0; i < 3; i++)
        try_connect(&net, &net.addr, &tags[i]);
    ck_assert(evpt_tcp_client_cancel(&net.client, &tags[1]));
    ck_assert(!evpt_tcp_client_cancel(&net.client, &tags[1]));
    TURN_UNTIL(&net.world, net.connects == 2);
    for (int i = 0; i < 10; i++)
        turn(&net.world);
    ck_assert_int_eq(net.connects, 2);
    ck_assert_ptr_eq(net.connect_tag, &tags[2]);
    ck_assert(!evpt_tcp_client_cancel(&net.client, &tags[2])); /* it has ended */
    net_fini(&net);
}
END_TEST

static void try_again(struct net *net)
{
    if (net->connects < 3)
        ck_assert_int_eq(evpt_tcp_client_try_connect(&net->client, &net->addr, "here",
                                                     5 * EVPT_NS_PER_S, net->connect_tag),
                         0);
}

START_TEST(test_tcp_on_connect_may_try_again_with_the_same_tag)
{
    struct net net;
    net_init(&net);
    evpt_tcp_server_stop_listening(&net.server);
    net.on_connect = try_again;
    try_connect(&net, &net.addr, &net);
    TURN_UNTIL(&net.world, net.connects == 3);
    net_fini(&net);
}
END_TEST

static void close_it(struct net *net)
{
    evpt_session_close(net->connected, false, "changed my mind");
}

START_TEST(test_tcp_on_connect_may_close_what_it_got)
{
    struct net net;
    net_init(&net);
    net.on_connect = close_it;
    try_connect(&net, &net.addr, &net);
    TURN_UNTIL(&net.world, net.client_closes == 1 && net.server_closes == 1);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.client.object), 0);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.server.object), 0);
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_fini_in_the_middle_of_everything_leaves_nothing)
{
    struct net net;
    int tags[8];
    net_init(&net);
    struct evpt_session *session = connect_one(&net, &net);
    ck_assert_int_eq(evpt_session_send(session, make_message(1, 0, 1 << 20), NULL), 0);
    for (int i = 0; i < 8; i++)
        try_connect(&net, &net.addr, &tags[i]);
    evpt_session_close(session, true, "test");
    if (_i)
        turn(&net.world);
    net_fini(&net);
    ck_assert_int_eq(net.client_closes + net.server_closes, 0);
    evpt_tcp_client_fini(&net.client); /* a second time does nothing */
    evpt_tcp_server_fini(&net.server);
    evpt_tcp_client_fini(NULL);
    evpt_tcp_server_fini(NULL);
    struct evpt_tcp_client zeroed_client = {0};
    struct evpt_tcp_server zeroed_server = {0};
    evpt_tcp_client_fini(&zeroed_client);
    evpt_tcp_server_fini(&zeroed_server);
}
END_TEST

START_TEST(test_tcp_listen_on_a_port_in_use_says_so)
{
    struct net net;
    struct evpt_tcp_server second;
    net_init(&net);
    evpt_tcp_server_init(&second, net.world.loop, &net.world.config, &server_ops, &net);
    ck_assert_int_eq(evpt_tcp_server_listen(&second, &net.addr), -EADDRINUSE);
    evpt_tcp_server_fini(&second);
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_sessions_outlive_the_listener)
{
    struct net net;
    net_init(&net);
    struct evpt_session *session = connect_one(&net, &net);
    evpt_tcp_server_stop_listening(&net.server);
    ck_assert_int_eq(evpt_session_send(session, make_message(1, 0, 100), NULL), 0);
    TURN_UNTIL(&net.world, net.server_messages == 1);
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_connection_without_memory_is_shed_and_the_next_one_served)
{
    struct net net;
    net_init(&net);
    struct evpt_session *session = connect_one(&net, &net);
    int fd = evpt_sys_connect(&net.addr);
    ck_assert_int_ge(fd, 0);
    refuse_alloc(0);
    TURN_UNTIL(&net.world, net.sheds == 1);
    refuse_alloc(-1);
    ck_assert_int_eq(net.opened, 1);
    evpt_sys_close(fd);
    ck_assert_ptr_ne(connect_one(&net, &net.world), session);
    net_fini(&net);
}
END_TEST

/* ---- the dictionary ---- */

enum { MANY = 400 };

static void count_one(struct evpt_session *session, void *user)
{
    int *count = user;
    ++*count;
}

static void close_each(struct evpt_session *session, void *user)
{
    evpt_session_close(session, evpt_session_id(session) % 2, "test");
}

START_TEST(test_tcp_many_sessions_are_found_by_their_ids)
{
    static int tags[MANY];
    static struct evpt_session *sessions[MANY];
    static uint32_t ids[MANY];
    struct net net;
    int count = 0;
    uint64_t random = test_seed();
    net_init(&net);
    for (int i = 0; i < MANY; i++) {
        sessions[i] = connect_one(&net, &tags[i]);
        ids[i] = evpt_session_id(sessions[i]);
    }
    ck_assert_uint_eq(evpt_tcp_object_count(&net.server.object), MANY);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.client.object), MANY);
    for (int left = MANY; left > MANY / 2; left--) { /* some go, in any order */
        int at = (int)(next_random(&random) % (uint64_t)left);
        evpt_session_close(sessions[at], false, "test");
        TURN_UNTIL(&net.world, net.client_closes == MANY - left + 1);
        ck_assert_ptr_null(evpt_tcp_object_find(&net.client.object, ids[at]));
        sessions[at] = sessions[left - 1];
        ids[at] = ids[left - 1];
        for (int i = 0; i < left - 1; i += 7)
            ck_assert_ptr_eq(evpt_tcp_object_find(&net.client.object, ids[i]), sessions[i]);
    }
    evpt_tcp_object_each(&net.client.object, count_one, &count);
    ck_assert_int_eq(count, MANY / 2);
    for (int i = 0; i < MANY / 2; i++)
        ck_assert_ptr_eq(evpt_tcp_object_find(&net.client.object, ids[i]), sessions[i]);
    evpt_tcp_object_each(&net.client.object, close_each, NULL);
    TURN_UNTIL(&net.world, net.client_closes == MANY && net.server_closes == MANY);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.client.object), 0);
    ck_assert_uint_eq(evpt_tcp_object_count(&net.server.object), 0);
    ck_assert_ptr_null(evpt_tcp_object_find(&net.server.object, 1));
    net_fini(&net);
}
END_TEST

/* Ids whose slots are the same, or neighbours across the end of the table. */
START_TEST(test_tcp_ids_that_collide_are_found_after_any_removal)
{
    enum { IDS = 8 };
    static const uint32_t ids[IDS] = {15, 31, 47, 63, 16, 14, 30, 1};
    struct net net;
    uint64_t random = test_seed();
    struct evpt_session *sessions[IDS] = {0};
    int fds[IDS][2];
    net_init(&net);
    for (int step = 0; step < 3000; step++) {
        int at = (int)(next_random(&random) % IDS);
        struct evpt_tcp_object *object = &net.client.object;
        if (!sessions[at] && object->session_count < IDS - 1) { /* more would double the table */
            object->total_session_id = ids[at] - 1;
            ck_assert_int_eq(evpt_sys_socketpair(fds[at]), 0);
            ck_assert_int_eq(evpt_tcp_object_create_session(object, fds[at][0], NULL,
                                                            EVPT_SESSION_CLIENT, &sessions[at]),
                             0);
            ck_assert_uint_eq(evpt_session_id(sessions[at]), ids[at]);
        } else if (sessions[at]) {
            int closes = net.client_closes;
            evpt_session_close(sessions[at], false, "test");
            TURN_UNTIL(&net.world, net.client_closes == closes + 1);
            evpt_sys_close(fds[at][1]);
            sessions[at] = NULL;
        }
        ck_assert_uint_eq(object->session_capacity, 16);
        for (int i = 0; i < IDS; i++)
            ck_assert_ptr_eq(evpt_tcp_object_find(object, ids[i]), sessions[i]);
    }
    for (int i = 0; i < IDS; i++) {
        if (sessions[i])
            evpt_sys_close(fds[i][1]);
    }
    net_fini(&net);
}
END_TEST

START_TEST(test_tcp_ids_wrap_around_what_is_still_in_use)
{
    static int tags[8];
    static const uint32_t expected[] = {1, 2, UINT32_MAX - 1, UINT32_MAX, 3, 4};
    struct net net;
    net_init(&net);
    for (int i = 0; i < 6; i++) {
        if (i == 2)
            net.client.object.total_session_id = UINT32_MAX - 2;
        ck_assert_uint_eq(evpt_session_id(connect_one(&net, &tags[i])), expected[i]);
    }
    for (int i = 0; i < 6; i++)
        ck_assert_ptr_nonnull(evpt_tcp_object_find(&net.client.object, expected[i]));
    ck_assert_ptr_null(evpt_tcp_object_find(&net.client.object, 0));
    ck_assert_ptr_null(evpt_tcp_object_find(&net.client.object, 5));
    net_fini(&net);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("tcp");
    tcase_add_test(tcase, test_tcp_request_and_reply_over_loopback);
    tcase_add_test(tcase, test_tcp_refused_connection_is_reported_from_the_loop);
    tcase_add_test(tcase, test_tcp_attempt_without_an_answer_times_out);
    tcase_add_test(tcase, test_tcp_cancelled_attempt_is_not_reported);
    tcase_add_test(tcase, test_tcp_on_connect_may_try_again_with_the_same_tag);
    tcase_add_test(tcase, test_tcp_on_connect_may_close_what_it_got);
    tcase_add_loop_test(tcase, test_tcp_fini_in_the_middle_of_everything_leaves_nothing, 0, 2);
    tcase_add_test(tcase, test_tcp_listen_on_a_port_in_use_says_so);
    tcase_add_test(tcase, test_tcp_sessions_outlive_the_listener);
    tcase_add_test(tcase, test_tcp_connection_without_memory_is_shed_and_the_next_one_served);
    tcase_add_test(tcase, test_tcp_many_sessions_are_found_by_their_ids);
    tcase_add_test(tcase, test_tcp_ids_that_collide_are_found_after_any_removal);
    tcase_add_test(tcase, test_tcp_ids_wrap_around_what_is_still_in_use);
    return run_tests("tcp", tcase);
}
