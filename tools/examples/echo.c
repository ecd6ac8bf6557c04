/* A TCP echo server on the reactor alone: what a program needs of it, in one file.
 *
 *     example-echo 127.0.0.1:7777
 *
 * Each connection has an idle timer; a peer that sends faster than it reads is not read from until
 * it has caught up; a timer prints statistics. SIGINT and SIGTERM let the connections drain and end
 * the program; a second one ends it at once.
 */
#include "reactor/error.h"
#include "reactor/listener.h"
#include "reactor/stream.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_NS (60 * EVPT_NS_PER_S)
#define STATS_NS (10 * EVPT_NS_PER_S)
#define DRAIN_NS (5 * EVPT_NS_PER_S) /* how long a peer may take to read its rest at the end */
#define BACKLOG 1024

static const char USAGE[] = "usage: example-echo [--help] [ADDRESS]\n"
                            "Sends back what it gets. ADDRESS: ip:port or [ipv6]:port, default\n"
                            "127.0.0.1:7777. SIGINT or SIGTERM stops it, a second one at once.\n";

struct server {
    struct evpt_loop *loop;
    struct evpt_listener listener;
    struct evpt_watch signals;
    int signal_fd;
    struct evpt_timer stats, drain;
    struct evpt_list connections;
    unsigned count;
    uint64_t accepted, shed, bytes, bytes_before;
    bool stopping, stop_now;
};

struct connection {
    struct evpt_list link;
    struct server *server;
    struct evpt_stream stream;
    struct evpt_timer idle;
};

/* ---- connections ---- */

static void on_idle(struct evpt_timer *timer, void *user)
{
    struct connection *connection = user;
    evpt_stream_fail(&connection->stream, -EVPT_ETIMEOUT);
}

static ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct connection *connection = user;
    struct server *server = connection->server;
    server->bytes += size;
    evpt_loop_timer(server->loop, &connection->idle, IDLE_NS, on_idle, connection);
    int error = evpt_stream_write(stream, bytes, size);
    if (error)
        return error;
    if (evpt_stream_queued(stream) >= stream->high_water)
        evpt_stream_pause(stream, true);
    return (ssize_t)size;
}

static void on_drain(struct evpt_stream *stream, void *user)
{
    evpt_stream_pause(stream, false);
}

static void drop(struct connection *connection)
{
    struct server *server = connection->server;
    evpt_stream_fini(&connection->stream);
    evpt_timer_stop(evpt_loop_wheel(server->loop), &connection->idle);
    evpt_list_remove(&connection->link);
    evpt_sys_free(connection);
    server->count--;
}

static void on_close(struct evpt_stream *stream, int error, void *user)
{
    struct connection *connection = user;
    if (error && error != -EVPT_EEOF)
        fprintf(stderr, "connection closed: %s\n", evpt_strerror(error));
    drop(connection);
}

static void on_accept(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user)
{
    static const struct evpt_stream_ops ops = {
        .on_data = on_data, .on_drain = on_drain, .on_close = on_close};
    struct server *server = user;
    struct connection *connection = evpt_sys_zalloc(sizeof(*connection));
    if (!connection) {
        evpt_sys_close(fd);
        return;
    }
    connection->server = server;
    evpt_list_push_back(&server->connections, &connection->link);
    server->count++;
    if (evpt_stream_start(&connection->stream, server->loop, fd, &ops, connection)) {
        drop(connection);
        return;
    }
    server->accepted++;
    evpt_loop_timer(server->loop, &connection->idle, IDLE_NS, on_idle, connection);
}

static void on_shed(struct evpt_listener *listener, int error, void *user)
{
    struct server *server = user;
    server->shed++;
    fprintf(stderr, "connection refused: %s\n", evpt_strerror(error));
}

/* ---- statistics, end ---- */

static void on_stats(struct evpt_timer *timer, void *user)
{
    struct server *server = user;
    double rate = (double)(server->bytes - server->bytes_before) * (double)EVPT_NS_PER_S / STATS_NS;
    printf("connections %u, accepted %" PRIu64 ", refused %" PRIu64 ", %.3f MB/s\n", server->count,
           server->accepted, server->shed, rate / 1e6);
    fflush(stdout);
    server->bytes_before = server->bytes;
    evpt_loop_timer(server->loop, timer, STATS_NS, on_stats, server);
}

static void on_drain_timeout(struct evpt_timer *timer, void *user)
{
    ((struct server *)user)->stop_now = true;
}

static void stop(struct server *server)
{
    if (server->stopping)
        server->stop_now = true;
    server->stopping = true;
    evpt_listener_stop(&server->listener);
    evpt_loop_timer(server->loop, &server->drain, DRAIN_NS, on_drain_timeout, server);
    /* close calls nobody back, so the list stays as it is */
    for (struct evpt_list *at = server->connections.next; at != &server->connections; at = at->next)
        evpt_stream_close(&EVPT_CONTAINER_OF(at, struct connection, link)->stream, true);
}

static void on_signal(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct server *server = user;
    while (evpt_sys_signalfd_read(server->signal_fd))
        stop(server);
}

/* ---- main ---- */

static int fail(const char *what, int error)
{
    fprintf(stderr, "example-echo: %s: %s\n", what, evpt_strerror(error));
    return EXIT_FAILURE;
}

static int start(struct server *server, const struct evpt_addr *addr)
{
    static const int signals[] = {SIGINT, SIGTERM, 0};
    static const struct evpt_listener_ops ops = {.on_accept = on_accept, .on_shed = on_shed};
    server->signal_fd = evpt_sys_signalfd(signals);
    if (server->signal_fd < 0)
        return server->signal_fd;
    int error = evpt_watch_start(server->loop, &server->signals, server->signal_fd, EVPT_READ,
                                 on_signal, server);
    if (error)
        return error;
    evpt_loop_timer(server->loop, &server->stats, STATS_NS, on_stats, server);
    return evpt_listener_start(&server->listener, server->loop, addr, BACKLOG, &ops, server);
}

static int run(struct server *server)
{
    while (!server->stop_now && !(server->stopping && !server->count)) {
        int ran = evpt_loop_turn(server->loop, EVPT_FOREVER);
        if (ran < 0)
            return fail("wait", ran);
    }
    return EXIT_SUCCESS;
}

static void finish(struct server *server)
{
    while (!evpt_list_is_empty(&server->connections))
        drop(EVPT_CONTAINER_OF(server->connections.next, struct connection, link));
    evpt_listener_stop(&server->listener);
    evpt_watch_stop(&server->signals);
    evpt_sys_close(server->signal_fd);
    evpt_loop_free(server->loop);
}

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : "127.0.0.1:7777";
    char bound[EVPT_ADDR_TEXT_SIZE];
    struct evpt_addr addr;
    if (argc > 1 && !strcmp(argv[1], "--help")) {
        fputs(USAGE, stdout);
        return EXIT_SUCCESS;
    }
    if (argc > 2 || evpt_addr_parse(&addr, text)) {
        fputs(USAGE, stderr);
        return 2;
    }

    struct server server = {.signal_fd = -1};
    evpt_list_init(&server.connections);
    int error = evpt_loop_new(&server.loop);
    if (error)
        return fail("loop", error);
    int status;
    error = start(&server, &addr);
    if (error) {
        status = fail(text, error);
    } else {
        evpt_listener_addr(&server.listener, &addr);
        printf("listening on %s\n", evpt_addr_format(&addr, bound, sizeof(bound)));
        fflush(stdout);
        status = run(&server);
    }
    finish(&server);
    return status;
}
