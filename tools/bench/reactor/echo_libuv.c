/* Echo server on libuv: uv_tcp_t, answers with uv_try_write and the rest with uv_write. See echo.h.
 */
#include "echo.h"
#include <uv.h>

struct run {
    struct echo_server server;
    uv_loop_t loop;
    uv_tcp_t listener;
    uint8_t *scratch, *answers; /* what one read brings, and what is answered to it */
};

struct connection {
    uv_tcp_t tcp;
    struct run *run;
    uint8_t *tail; /* the beginning of a frame */
    size_t tail_size;
};

struct unsent {
    uv_write_t request;
    uint8_t bytes[];
};

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = CONTAINER_OF(handle, struct connection, tcp);
    struct run *run = connection->run;
    free(connection->tail);
    free(connection);
    if (--run->server.connections == 0)
        uv_close((uv_handle_t *)&run->listener, NULL);
}

static void drop(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

static void on_written(uv_write_t *request, int status)
{
    if (status < 0)
        drop(request->handle->data);
    free(CONTAINER_OF(request, struct unsent, request));
}

static void answer(struct connection *connection, const uint8_t *bytes, size_t size)
{
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    uv_buf_t buffer = uv_buf_init((char *)bytes, (unsigned)size);
    int sent = uv_try_write(stream, &buffer, 1);
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent < 0) {
        drop(connection);
    } else if ((size_t)sent < size) {
        size_t rest = size - (size_t)sent;
        struct unsent *unsent = must_alloc(1, sizeof(*unsent) + rest);
        memcpy(unsent->bytes, bytes + sent, rest);
        buffer = uv_buf_init((char *)unsent->bytes, (unsigned)rest);
        MUST(uv_write(&unsent->request, stream, &buffer, 1, on_written) == 0);
    }
}

static void on_room(uv_handle_t *handle, size_t size, uv_buf_t *ret_buffer)
{
    struct connection *connection = handle->data;
    uint8_t *scratch = connection->run->scratch;
    size_t kept = connection->tail_size;
    if (kept)
        memcpy(scratch, connection->tail, kept);
    *ret_buffer = uv_buf_init((char *)scratch + kept, (unsigned)(ECHO_SCRATCH - kept));
}

static void keep_tail(struct connection *connection, const uint8_t *bytes, size_t size)
{
    connection->tail_size = size;
    free(connection->tail);
    connection->tail = NULL;
    if (!size)
        return;
    connection->tail = must_alloc(1, size);
    memcpy(connection->tail, bytes, size);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;
    struct run *run = connection->run;
    if (got < 0)
        drop(connection);
    if (got <= 0)
        return;
    size_t size = connection->tail_size + (size_t)got, at = 0;
    for (size_t frame; (frame = echo_frame_size(run->scratch + at, size - at)); at += frame) {
        memcpy(run->answers + at, run->scratch + at, frame);
        run->server.frames++;
    }
    if (connection->tail || at < size)
        keep_tail(connection, run->scratch + at, size - at);
    if (at)
        answer(connection, run->answers, at);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct run *run = listener->data;
    MUST(status == 0);
    struct connection *connection = must_alloc(1, sizeof(*connection));
    connection->run = run;
    MUST(uv_tcp_init(&run->loop, &connection->tcp) == 0);
    connection->tcp.data = connection;
    MUST(uv_accept(listener, (uv_stream_t *)&connection->tcp) == 0);
    MUST(uv_tcp_nodelay(&connection->tcp, 1) == 0);
    MUST(uv_read_start((uv_stream_t *)&connection->tcp, on_room, on_read) == 0);
    run->server.connections++;
}

int main(void)
{
    struct run run = {.server = {0}};
    struct sockaddr_in address = echo_address(0);
    int size = sizeof(address);
    run.scratch = must_alloc(1, ECHO_SCRATCH);
    run.answers = must_alloc(1, ECHO_SCRATCH);
    MUST(uv_loop_init(&run.loop) == 0);
    MUST(uv_tcp_init(&run.loop, &run.listener) == 0);
    run.listener.data = &run;
    MUST(uv_tcp_bind(&run.listener, (struct sockaddr *)&address, 0) == 0);
    MUST(uv_listen((uv_stream_t *)&run.listener, ECHO_BACKLOG, on_connection) == 0);
    MUST(uv_tcp_getsockname(&run.listener, (struct sockaddr *)&address, &size) == 0);
    echo_print_port(&address);
    uv_run(&run.loop, UV_RUN_DEFAULT);
    MUST(uv_loop_close(&run.loop) == 0);
    free(run.scratch);
    free(run.answers);
    echo_report(&run.server);
    return 0;
}
