/* Echo server on libev, which has watchers and no streams: reads and writes are the program's own.
 * See echo.h. */
#include "echo.h"
#include <ev.h>

struct run {
    struct echo_server server;
    struct ev_loop *loop;
    ev_io listener;
    uint8_t *scratch, *answers; /* what one read brings, and what is answered to it */
};

struct connection {
    ev_io reader, writer;
    struct run *run;
    uint8_t *tail; /* the beginning of a frame */
    size_t tail_size;
    uint8_t *unsent; /* while the peer does not read; no more is read from it then */
    size_t unsent_at, unsent_size;
};

static void drop(struct connection *connection)
{
    struct run *run = connection->run;
    ev_io_stop(run->loop, &connection->reader);
    ev_io_stop(run->loop, &connection->writer);
    close(connection->reader.fd);
    free(connection->tail);
    free(connection->unsent);
    free(connection);
    if (--run->server.connections == 0)
        ev_break(run->loop, EVBREAK_ALL);
}

static void keep(uint8_t **to, const uint8_t *bytes, size_t size)
{
    free(*to);
    *to = NULL;
    if (!size)
        return;
    *to = must_alloc(1, size);
    memcpy(*to, bytes, size);
}

/* How much of it was sent; negative: the connection failed. */
static ssize_t send_some(int fd, const uint8_t *bytes, size_t size)
{
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void on_writable(struct ev_loop *loop, ev_io *io, int events)
{
    struct connection *connection = io->data;
    ssize_t sent = send_some(io->fd, connection->unsent + connection->unsent_at,
                             connection->unsent_size - connection->unsent_at);
    if (sent < 0) {
        drop(connection);
        return;
    }
    connection->unsent_at += (size_t)sent;
    if (connection->unsent_at < connection->unsent_size)
        return;
    ev_io_stop(loop, &connection->writer);
    ev_io_start(loop, &connection->reader);
}

static void answer(struct connection *connection, const uint8_t *bytes, size_t size)
{
    ssize_t sent = send_some(connection->reader.fd, bytes, size);
    if (sent < 0) {
        drop(connection);
    } else if ((size_t)sent < size) {
        connection->unsent_at = 0;
        connection->unsent_size = size - (size_t)sent;
        keep(&connection->unsent, bytes + sent, connection->unsent_size);
        ev_io_stop(connection->run->loop, &connection->reader);
        ev_io_start(connection->run->loop, &connection->writer);
    }
}

static void on_readable(struct ev_loop *loop, ev_io *io, int events)
{
    struct connection *connection = io->data;
    struct run *run = connection->run;
    size_t kept = connection->tail_size;
    if (kept)
        memcpy(run->scratch, connection->tail, kept);
    ssize_t got = read(io->fd, run->scratch + kept, ECHO_SCRATCH - kept);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(connection);
        return;
    }
    size_t size = kept + (size_t)got, at = 0;
    for (size_t frame; (frame = echo_frame_size(run->scratch + at, size - at)); at += frame) {
        memcpy(run->answers + at, run->scratch + at, frame);
        run->server.frames++;
    }
    connection->tail_size = size - at;
    if (connection->tail || connection->tail_size)
        keep(&connection->tail, run->scratch + at, connection->tail_size);
    if (at)
        answer(connection, run->answers, at);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    struct run *run = io->data;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    echo_no_delay(fd);
    struct connection *connection = must_alloc(1, sizeof(*connection));
    connection->run = run;
    ev_io_init(&connection->reader, on_readable, fd, EV_READ);
    ev_io_init(&connection->writer, on_writable, fd, EV_WRITE);
    connection->reader.data = connection->writer.data = connection;
    ev_io_start(loop, &connection->reader);
    run->server.connections++;
}

int main(void)
{
    struct run run = {.loop = ev_loop_new(EVBACKEND_EPOLL)};
    MUST(run.loop);
    run.scratch = must_alloc(1, ECHO_SCRATCH);
    run.answers = must_alloc(1, ECHO_SCRATCH);
    int fd = echo_listen();
    ev_io_init(&run.listener, on_accept, fd, EV_READ);
    run.listener.data = &run;
    ev_io_start(run.loop, &run.listener);
    echo_print_port_of(fd);
    ev_run(run.loop, 0);
    ev_io_stop(run.loop, &run.listener);
    close(fd);
    ev_loop_destroy(run.loop);
    free(run.scratch);
    free(run.answers);
    echo_report(&run.server);
    return 0;
}
