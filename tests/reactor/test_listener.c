#include "support.h"
#include "reactor/listener.h"
#include <errno.h>
#include <sys/resource.h>

enum { CLIENTS_MAX = 200 };

struct server {
    struct evpt_loop *loop;
    struct evpt_listener *listener; /* from the heap, for those who free it in a callback */
    struct evpt_addr addr;
    int clients[CLIENTS_MAX], client_count;
    int accepted, shed, shed_error;
    bool stop_in_accept, free_in_accept, stop_in_shed;
};

static void drop_listener(struct server *server)
{
    evpt_listener_stop(server->listener);
    evpt_sys_free(server->listener);
    server->listener = NULL;
}

static void on_accept(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user)
{
    struct server *server = user;
    server->accepted++;
    ck_assert(evpt_addr_is_loopback(peer));
    evpt_sys_close(fd);
    if (server->stop_in_accept)
        evpt_listener_stop(listener);
    if (server->free_in_accept)
        drop_listener(server);
}

static void on_shed(struct evpt_listener *listener, int error, void *user)
{
    struct server *server = user;
    server->shed++;
    server->shed_error = error;
    if (server->stop_in_shed)
        evpt_listener_stop(listener);
}

static void open_server(struct server *server)
{
    static const struct evpt_listener_ops ops = {.on_accept = on_accept, .on_shed = on_shed};
    *server = (struct server){.loop = support_loop()};
    server->listener = evpt_sys_zalloc(sizeof(*server->listener));
    ck_assert_int_eq(evpt_addr_parse(&server->addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(
        evpt_listener_start(server->listener, server->loop, &server->addr, 1024, &ops, server), 0);
    ck_assert_int_eq(evpt_listener_addr(server->listener, &server->addr), 0);
}

static void close_server(struct server *server)
{
    for (int i = 0; i < server->client_count; i++)
        evpt_sys_close(server->clients[i]);
    if (server->listener)
        drop_listener(server);
    evpt_loop_free(server->loop);
}

static void connect_clients(struct server *server, int count)
{
    for (int i = 0; i < count; i++) {
        int fd = evpt_sys_connect(&server->addr);
        ck_assert_int_ge(fd, 0);
        server->clients[server->client_count++] = fd;
    }
}

static void turn(struct server *server)
{
    ck_assert_int_ge(evpt_loop_turn(server->loop, 0), 0);
}

START_TEST(test_accepts_what_connects)
{
    struct server server;
    open_server(&server);
    ck_assert_uint_ne(evpt_addr_port(&server.addr), 0);
    connect_clients(&server, 3);
    TURN_UNTIL(server.loop, server.accepted == 3);
    turn(&server);
    ck_assert_int_eq(server.accepted, 3);
    close_server(&server);
}
END_TEST

START_TEST(test_turn_accepts_a_bounded_number)
{
    struct server server;
    open_server(&server);
    connect_clients(&server, EVPT_LISTENER_ACCEPTS_MAX + 10);
    turn(&server);
    ck_assert_int_eq(server.accepted, EVPT_LISTENER_ACCEPTS_MAX);
    TURN_UNTIL(server.loop, server.accepted == EVPT_LISTENER_ACCEPTS_MAX + 10);
    close_server(&server);
}
END_TEST

START_TEST(test_occupied_address_leaves_the_listener_closed)
{
    struct server server;
    struct evpt_listener other = {0};
    open_server(&server);
    ck_assert_int_eq(
        evpt_listener_start(&other, server.loop, &server.addr, 8, server.listener->ops, &server),
        -EADDRINUSE);
    evpt_listener_stop(&other);
    evpt_listener_stop(NULL);
    close_server(&server);
}
END_TEST

/* As a second `listen` of control asks for. */
START_TEST(test_started_listener_stays_as_it_is)
{
    static const struct evpt_listener_ops other = {.on_accept = NULL};
    struct server server;
    open_server(&server);
    ck_assert_int_eq(
        evpt_listener_start(server.listener, server.loop, &server.addr, 1024, &other, NULL),
        -EALREADY);
    connect_clients(&server, 1);
    turn(&server);
    ck_assert_int_eq(server.accepted, 1);
    close_server(&server);
}
END_TEST

START_TEST(test_stopped_listener_refuses_and_can_start_again)
{
    struct server server;
    open_server(&server);
    const struct evpt_listener_ops *ops = server.listener->ops;
    evpt_listener_stop(server.listener);
    evpt_listener_stop(server.listener);
    int fd = evpt_sys_connect(&server.addr);
    ck_assert(fd == -ECONNREFUSED || evpt_sys_connect_result(fd) == -ECONNREFUSED);
    evpt_sys_close(fd);
    ck_assert_int_eq(
        evpt_listener_start(server.listener, server.loop, &server.addr, 8, ops, &server), 0);
    connect_clients(&server, 1);
    TURN_UNTIL(server.loop, server.accepted == 1);
    close_server(&server);
}
END_TEST

START_TEST(test_listener_can_be_stopped_in_on_accept)
{
    struct server server;
    open_server(&server);
    server.stop_in_accept = true;
    connect_clients(&server, 3);
    turn(&server);
    turn(&server);
    ck_assert_int_eq(server.accepted, 1);
    close_server(&server);
}
END_TEST

START_TEST(test_listener_can_be_freed_in_on_accept)
{
    struct server server;
    open_server(&server);
    server.free_in_accept = true;
    connect_clients(&server, 3);
    turn(&server);
    turn(&server);
    ck_assert_int_eq(server.accepted, 1);
    close_server(&server);
}
END_TEST

/* ---- out of descriptors ---- */

/* Lowers the limit so that no descriptor can be had; returns the old limit. */
static struct rlimit take_all_descriptors(void)
{
    struct rlimit old;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    int lowest = evpt_sys_reserve_fd(); /* below it all are taken */
    evpt_sys_close(lowest);
    struct rlimit none = {.rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ck_assert_int_eq(evpt_sys_reserve_fd(), -EMFILE);
    return old;
}

START_TEST(test_without_descriptors_a_connection_is_refused_at_once)
{
    struct server server;
    char byte;
    open_server(&server);
    connect_clients(&server, 2);
    struct rlimit old = take_all_descriptors();
    support_stop_clock();
    evpt_loop_update_now(server.loop);

    turn(&server);
    ck_assert_int_eq(server.accepted, 0);
    ck_assert_int_eq(server.shed, 1);
    ck_assert_int_eq(server.shed_error, -EMFILE);
    ck_assert_uint_eq(server.listener->shed, 1);
    ck_assert_int_eq(evpt_sys_reserve_fd(), -EMFILE); /* the reserve is back */
    ssize_t got = evpt_sys_read(server.clients[0], &byte, 1);
    ck_assert_msg(got == 0 || got == -ECONNRESET, "the peer reads %zd", got);

    for (int i = 0; i < 3; i++) /* no spinning: the listener pauses */
        ck_assert_int_eq(evpt_loop_turn(server.loop, 0), 0);
    uint64_t paused_ns = evpt_sys_now_ns();
    while (server.shed == 1)
        ck_assert_int_ge(evpt_loop_turn(server.loop, EVPT_FOREVER), 0);
    ck_assert_uint_ge(evpt_sys_now_ns() - paused_ns, EVPT_LISTENER_BACKOFF_MS * EVPT_NS_PER_MS);

    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    connect_clients(&server, 2);
    while (server.accepted < 2) /* and recovers by itself */
        ck_assert_int_ge(evpt_loop_turn(server.loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(server.shed, 2);
    close_server(&server);
}
END_TEST

START_TEST(test_listener_can_be_stopped_in_on_shed)
{
    struct server server;
    open_server(&server);
    server.stop_in_shed = true;
    connect_clients(&server, 2);
    struct rlimit old = take_all_descriptors();
    turn(&server);
    turn(&server);
    ck_assert_int_eq(server.shed, 1);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    close_server(&server);
}
END_TEST

START_TEST(test_no_memory_in_the_system_pauses_without_shedding)
{
    struct server server;
    open_server(&server);
    connect_clients(&server, 1);
    support_stop_clock();
    evpt_loop_update_now(server.loop);
    support_fail_accept(-ENOBUFS);
    turn(&server);
    ck_assert_int_eq(server.accepted, 0);
    ck_assert_int_eq(evpt_loop_turn(server.loop, 0), 0);
    while (!server.accepted)
        ck_assert_int_ge(evpt_loop_turn(server.loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(server.shed, 0);
    close_server(&server);
}
END_TEST

START_TEST(test_error_of_one_connection_does_not_stop_the_next)
{
    struct server server;
    open_server(&server);
    connect_clients(&server, 1);
    support_fail_accept(-EPROTO);
    turn(&server);
    ck_assert_int_eq(server.accepted, 1);
    close_server(&server);
}
END_TEST

SUPPORT_MAIN("reactor/listener", test_accepts_what_connects, test_turn_accepts_a_bounded_number,
             test_occupied_address_leaves_the_listener_closed, test_started_listener_stays_as_it_is,
             test_stopped_listener_refuses_and_can_start_again,
             test_listener_can_be_stopped_in_on_accept, test_listener_can_be_freed_in_on_accept,
             test_without_descriptors_a_connection_is_refused_at_once,
             test_listener_can_be_stopped_in_on_shed,
             test_no_memory_in_the_system_pauses_without_shedding,
             test_error_of_one_connection_does_not_stop_the_next)
