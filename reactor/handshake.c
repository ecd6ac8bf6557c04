#include "reactor/handshake.h"
#include "reactor/error.h"
#include <assert.h>
#include <errno.h>

static void let_go(struct evpt_transport *transport, int fd)
{
    evpt_transport_free(transport);
    evpt_sys_close(fd);
}

/* Idle first: the callee may start the handshake again, or free it. */
static void done(struct evpt_handshake *handshake, int error)
{
    struct evpt_transport *transport = handshake->transport;
    int fd = handshake->fd;
    evpt_watch_stop(&handshake->watch);
    evpt_timer_stop(evpt_loop_wheel(handshake->loop), &handshake->timeout);
    handshake->loop = NULL;
    handshake->fn(handshake, error, handshake->user);
    if (error)
        let_go(transport, fd);
}

static bool keeps_pace(struct evpt_handshake *handshake)
{
    struct evpt_handshake_pace *pace = handshake->pace;
    uint64_t turn = evpt_loop_turns(handshake->loop);
    if (pace->turn != turn)
        *pace = (struct evpt_handshake_pace){.turn = turn};
    return pace->steps++ < EVPT_HANDSHAKE_STEPS_MAX;
}

static void wait_for_socket(struct evpt_handshake *handshake)
{
    bool pending = handshake->transport->pending && !handshake->lingering;
    evpt_watch_set(&handshake->watch, pending ? EVPT_READ | EVPT_WRITE : EVPT_READ);
}

static void failed(struct evpt_handshake *handshake, int error)
{
    if (!handshake->accepted || evpt_sys_shutdown_write(handshake->fd) != 0) {
        done(handshake, error);
        return;
    }
    handshake->lingering = true;
    handshake->error = error;
    wait_for_socket(handshake);
}

static void linger(struct evpt_handshake *handshake)
{
    ssize_t got = evpt_sys_read(handshake->fd, evpt_loop_scratch(handshake->loop),
                                EVPT_TRANSPORT_HANDSHAKE_MAX);
    if (got <= 0 && got != -EAGAIN)
        done(handshake, handshake->error);
}

static void step(struct evpt_handshake *handshake)
{
    int error = handshake->transport->ops->handshake(handshake->transport);
    if (error == -EAGAIN)
        wait_for_socket(handshake);
    else if (error)
        failed(handshake, error);
    else
        done(handshake, 0);
}

static void on_ready(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct evpt_handshake *handshake = user;
    if (handshake->lingering)
        linger(handshake);
    else if (keeps_pace(handshake))
        step(handshake);
}

static void on_timeout(struct evpt_timer *timer, void *user)
{
    struct evpt_handshake *handshake = user;
    done(handshake, handshake->error);
}

void evpt_handshake_start(struct evpt_handshake *handshake, struct evpt_loop *loop, int fd,
                          struct evpt_transport *transport, uint64_t timeout_ns,
                          struct evpt_handshake_pace *pace, evpt_handshake_fn fn, void *user)
{
    assert(!handshake->loop);
    *handshake = (struct evpt_handshake){.accepted = handshake->accepted,
                                         .transport = transport,
                                         .fd = fd,
                                         .pace = pace,
                                         .fn = fn,
                                         .user = user,
                                         .loop = loop,
                                         .error = -EVPT_ETIMEOUT};
    uint32_t events = handshake->accepted ? EVPT_READ : EVPT_READ | EVPT_WRITE;
    int error = evpt_watch_start(loop, &handshake->watch, fd, events, on_ready, handshake);
    if (error) { /* told from the loop */
        handshake->error = error;
        timeout_ns = 0;
    }
    evpt_loop_timer(loop, &handshake->timeout, timeout_ns, on_timeout, handshake);
}

void evpt_handshake_stop(struct evpt_handshake *handshake)
{
    if (!handshake || !handshake->loop)
        return;
    evpt_watch_stop(&handshake->watch);
    evpt_timer_stop(evpt_loop_wheel(handshake->loop), &handshake->timeout);
    handshake->loop = NULL;
    let_go(handshake->transport, handshake->fd);
}
