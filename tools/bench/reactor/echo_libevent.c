/* Echo server on libevent: evconnlistener and bufferevent. See echo.h. */
#include "echo.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

struct run {
    struct echo_server server;
    struct event_base *base;
};

static void on_read(struct bufferevent *bufferevent, void *user)
{
    struct run *run = user;
    struct evbuffer *in = bufferevent_get_input(bufferevent);
    size_t size = evbuffer_get_length(in), at = 0;
    const uint8_t *bytes = evbuffer_pullup(in, -1);
    for (size_t frame; (frame = echo_frame_size(bytes + at, size - at)); at += frame) {
        MUST(bufferevent_write(bufferevent, bytes + at, frame) == 0);
        run->server.frames++;
    }
    evbuffer_drain(in, at);
}

static void on_event(struct bufferevent *bufferevent, short events, void *user)
{
    struct run *run = user;
    if (!(events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
        return;
    bufferevent_free(bufferevent);
    if (--run->server.connections == 0)
        event_base_loopbreak(run->base);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer,
                      int size, void *user)
{
    struct run *run = user;
    struct bufferevent *bufferevent = bufferevent_socket_new(run->base, fd, BEV_OPT_CLOSE_ON_FREE);
    MUST(bufferevent);
    echo_no_delay(fd);
    run->server.connections++;
    bufferevent_setcb(bufferevent, on_read, NULL, on_event, run);
    bufferevent_enable(bufferevent, EV_READ | EV_WRITE);
}

int main(void)
{
    struct run run = {.base = event_base_new()};
    MUST(run.base);
    int fd = echo_listen();
    struct evconnlistener *listener =
        evconnlistener_new(run.base, on_accept, &run, LEV_OPT_CLOSE_ON_FREE, 0, fd);
    MUST(listener);
    echo_print_port_of(fd);
    event_base_dispatch(run.base);
    evconnlistener_free(listener);
    event_base_free(run.base);
    echo_report(&run.server);
    return 0;
}
