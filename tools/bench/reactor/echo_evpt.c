/* Echo server on the reactor of this project: listener and stream. See echo.h. */
#include "echo.h"
#include "reactor/listener.h"
#include "reactor/stream.h"

struct run {
    struct echo_server server;
    struct evpt_loop *loop;
    struct evpt_listener listener;
    bool done;
};

struct connection {
    struct evpt_stream stream;
    struct run *run;
};

static ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct connection *connection = user;
    size_t at = 0;
    for (size_t frame; (frame = echo_frame_size(bytes + at, size - at)); at += frame) {
        MUST(evpt_stream_write(stream, bytes + at, frame) == 0);
        connection->run->server.frames++;
    }
    return (ssize_t)at;
}

static void on_close(struct evpt_stream *stream, int error, void *user)
{
    struct connection *connection = user;
    struct run *run = connection->run;
    evpt_stream_fini(stream);
    free(connection);
    run->done = --run->server.connections == 0;
}

static void on_accept(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user)
{
    static const struct evpt_stream_ops ops = {.on_data = on_data, .on_close = on_close};
    struct run *run = user;
    struct connection *connection = must_alloc(1, sizeof(*connection));
    connection->run = run;
    run->server.connections++;
    MUST(evpt_stream_start(&connection->stream, run->loop, fd, &ops, connection) == 0);
}

int main(void)
{
    static const struct evpt_listener_ops ops = {.on_accept = on_accept};
    struct run run = {.done = false};
    struct evpt_addr address;
    MUST(evpt_loop_new(&run.loop) == 0);
    MUST(evpt_addr_parse(&address, "127.0.0.1:0") == 0);
    MUST(evpt_listener_start(&run.listener, run.loop, &address, ECHO_BACKLOG, &ops, &run) == 0);
    MUST(evpt_listener_addr(&run.listener, &address) == 0);
    echo_print_port(&address.u.v4);
    while (!run.done)
        MUST(evpt_loop_turn(run.loop, EVPT_FOREVER) >= 0);
    evpt_listener_stop(&run.listener);
    evpt_loop_free(run.loop);
    echo_report(&run.server);
    return 0;
}
