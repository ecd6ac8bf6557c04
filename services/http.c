#include "services/http.h"

#include "reactor/error.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BACKLOG = 64, FIELDS_MAX = 320 };
#define PLAIN "text/plain; charset=utf-8"

/* ---- states ---- */

enum state {
    FREE,
    READING,   /* waits for a request, or for the rest of one */
    ASKED,     /* waits for the answer from inside */
    WRITING,   /* waits for the client to take it */
    LINGERING, /* all is said: waits for the client to close */
    STATES
};

static void set_state(struct evpt_http_connection *connection, enum state to)
{
    static const bool allowed[STATES][STATES] = {
        [FREE] = {[READING] = true},
        [READING] = {[ASKED] = true, [WRITING] = true, [FREE] = true},
        [ASKED] = {[WRITING] = true, [FREE] = true},
        [WRITING] = {[READING] = true, [LINGERING] = true, [FREE] = true},
        [LINGERING] = {[FREE] = true},
    };
    assert(allowed[connection->state][to]);
    connection->state = (uint8_t)to;
    connection->since = ++connection->http->events;
}

/* ---- the end of a connection ---- */

/* At once. */
static void drop(struct evpt_http_connection *connection)
{
    struct evpt_http *http = connection->http;
    set_state(connection, FREE);
    evpt_timer_stop(evpt_loop_wheel(http->loop), &connection->timer);
    evpt_stream_fini(&connection->stream);
    connection->http = NULL;
}

static void on_time(struct evpt_timer *timer, void *user);

static void give_time(struct evpt_http_connection *connection, uint32_t ms)
{
    evpt_loop_timer(connection->http->loop, &connection->timer, ms * EVPT_NS_PER_MS, on_time,
                    connection);
}

/* A socket that is closed with bytes in it that nobody has read resets the connection, and the
 * reset may overtake the answer. So only the sending half is shut, and what still comes is read. */
static void linger(struct evpt_http_connection *connection)
{
    set_state(connection, LINGERING);
    (void)evpt_sys_shutdown_write(
        connection->stream.fd); /* it is closed already: the read says so */
    evpt_stream_pause(&connection->stream, false);
    give_time(connection, EVPT_HTTP_LINGER_MS);
}

/* ---- answers ---- */

/* evpt_release_fn: the answer has been taken, or dropped with its connection. */
static void on_written(void *user)
{
    struct evpt_http_connection *connection = user;
    evpt_sys_free(connection->answering);
    connection->answering = NULL;
    if (connection->state != WRITING || !evpt_stream_is_open(&connection->stream))
        return;
    if (connection->last) {
        linger(connection);
    } else {
        set_state(connection, READING);
        give_time(connection, EVPT_HTTP_REST_MS);
        evpt_stream_pause(&connection->stream, false);
    }
}

static size_t format_head(char *text, size_t size, const struct evpt_http_connection *connection,
                          int status, const char *type, size_t length)
{
    char date[64];
    time_t seconds = (time_t)(evpt_sys_wall_ns() / (int64_t)EVPT_NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    int used = snprintf(text, size,
                        "HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Cache-Control: no-store\r\n%s%s\r\n",
                        evpt_http_status_text(status), date, type, length,
                        status == 405 ? "Allow: GET, HEAD\r\n" : "",
                        connection->last ? "Connection: close\r\n" : "");
    assert(used > 0 && (size_t)used < size);
    return (size_t)used;
}

static void answer(struct evpt_http_connection *connection, int status, const char *type,
                   const char *text, size_t size)
{
    char head[FIELDS_MAX];
    size_t head_size = format_head(head, sizeof(head), connection, status, type, size);
    size_t body_size = connection->head ? 0 : size;
    char *all = evpt_sys_alloc(head_size + body_size);
    if (!all) {
        drop(connection);
        return;
    }
    memcpy(all, head, head_size);
    if (body_size)
        memcpy(all + head_size, text, body_size);
    connection->answering = all;
    if (evpt_stream_write_ref(&connection->stream, all, head_size + body_size, on_written,
                              connection) != 0) {
        drop(connection);
        return;
    }
    set_state(connection, WRITING);
    give_time(connection, EVPT_HTTP_WRITE_MS);
}

/* One line of text, and the end. */
static void refuse(struct evpt_http_connection *connection, int status)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "%s\n", evpt_http_status_text(status));
    connection->head = false;
    connection->last = true;
    evpt_stream_pause(&connection->stream, true);
    answer(connection, status, PLAIN, text, (size_t)size);
}

void evpt_http_respond(struct evpt_http *http, uint32_t id, int status, const char *type,
                       const char *text, size_t size)
{
    struct evpt_http_connection *connection = &http->connections[id % EVPT_HTTP_CONNECTIONS_MAX];
    if (connection->http && connection->id == id && connection->state == ASKED)
        answer(connection, status, type, text, size);
}

/* ---- requests ---- */

static void on_time(struct evpt_timer *timer, void *user)
{
    struct evpt_http_connection *connection = user;
    if (connection->state == READING && connection->begun)
        refuse(connection, 408);
    else
        drop(connection);
}

static ssize_t on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct evpt_http_connection *connection = user;
    struct evpt_http *http = connection->http;
    struct evpt_http_request request;
    if (connection->state == LINGERING)
        return (ssize_t)size; /* nobody is interested any more */
    int used = evpt_http_request_read(&request, bytes, size);
    if (used == 0 && !connection->begun) {
        connection->begun = true;
        give_time(connection, EVPT_HTTP_REQUEST_MS); /* for all of it, however it comes */
    }
    if (used == 0)
        return 0;
    if (used < 0) {
        refuse(connection, -used);
        return (ssize_t)size;
    }
    set_state(connection, ASKED);
    connection->begun = false;
    connection->head = request.head;
    connection->last = request.close;
    evpt_timer_stop(evpt_loop_wheel(http->loop), &connection->timer);
    evpt_stream_pause(stream, true); /* the next request is for later */
    http->ops->on_request(http, connection->id, request.path, request.path_size, http->user);
    return used;
}

static void on_close(struct evpt_stream *stream, int error, void *user)
{
    drop(user);
}

/* ---- connections ---- */

static const struct evpt_stream_ops stream_ops = {.on_data = on_data, .on_close = on_close};

/* A free place, or that of the connection that has rested the longest; NULL: all are busy. */
static struct evpt_http_connection *find_place(struct evpt_http *http)
{
    struct evpt_http_connection *resting = NULL;
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) {
        struct evpt_http_connection *connection = &http->connections[i];
        if (!connection->http)
            return connection;
        if (connection->state == READING && !connection->begun &&
            (!resting || connection->since < resting->since))
            resting = connection;
    }
    if (resting)
        drop(resting);
    return resting;
}

static void turn_away(int fd)
{
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                               "Connection: close\r\n\r\n";
    (void)evpt_sys_write(fd, text, sizeof(text) - 1); /* it does not wait: what fits at once */
    evpt_sys_close(fd);
}

static void on_accept(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user)
{
    struct evpt_http *http = user;
    struct evpt_http_connection *connection = find_place(http);
    if (!connection) {
        turn_away(fd);
        return;
    }
    uint32_t place = (uint32_t)(connection - http->connections);
    *connection = (struct evpt_http_connection){
        .http = http, .id = ++http->accepted * EVPT_HTTP_CONNECTIONS_MAX + place};
    if (evpt_stream_start(&connection->stream, http->loop, fd, &stream_ops, connection) != 0) {
        connection->http = NULL; /* no memory: the descriptor is closed */
        return;
    }
    set_state(connection, READING);
    give_time(connection, EVPT_HTTP_REQUEST_MS);
}

static const struct evpt_listener_ops listener_ops = {.on_accept = on_accept};

int evpt_http_start(struct evpt_http *http, struct evpt_loop *loop, const struct evpt_addr *addr,
                    const struct evpt_http_ops *ops, void *user)
{
    *http = (struct evpt_http){.loop = loop, .ops = ops, .user = user};
    return evpt_listener_start(&http->listener, loop, addr, BACKLOG, &listener_ops, http);
}

void evpt_http_stop(struct evpt_http *http)
{
    if (!http || !http->loop)
        return;
    evpt_listener_stop(&http->listener);
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++) {
        if (http->connections[i].http)
            drop(&http->connections[i]);
    }
    http->loop = NULL;
}

int evpt_http_addr(const struct evpt_http *http, struct evpt_addr *ret_addr)
{
    return evpt_listener_addr(&http->listener, ret_addr);
}
