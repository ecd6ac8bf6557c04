#include "reactor/listener.h"
#include <errno.h>

static void on_backoff(struct evpt_timer *timer, void *user)
{
    struct evpt_listener *listener = user;
    if (listener->reserve_fd < 0)
        listener->reserve_fd = evpt_sys_reserve_fd(); /* may fail again: shed() copes */
    evpt_watch_set(&listener->watch, EVPT_READ);
}

static void pause_accepting(struct evpt_listener *listener)
{
    evpt_watch_set(&listener->watch, 0);
    evpt_loop_timer(listener->loop, &listener->backoff, EVPT_LISTENER_BACKOFF_MS * EVPT_NS_PER_MS,
                    on_backoff, listener);
}

/* Without a free descriptor a connection can be neither accepted nor refused: it would wait in the
 * backlog, keep the listening socket readable and the loop spinning. */
static void shed(struct evpt_listener *listener, int error)
{
    struct evpt_addr peer;
    evpt_sys_close(listener->reserve_fd);
    int fd = evpt_sys_accept(listener->fd, &peer);
    evpt_sys_close(fd);
    listener->reserve_fd = evpt_sys_reserve_fd();
    pause_accepting(listener);
    if (fd < 0)
        return; /* another thread was faster, or the peer is gone; the pause comes all the same */
    listener->shed++;
    if (listener->ops->on_shed)
        listener->ops->on_shed(listener, error, listener->user); /* may stop and free: last */
}

/* False: no more in this turn. */
static bool accept_one(struct evpt_listener *listener)
{
    struct evpt_addr peer;
    int fd = evpt_sys_accept(listener->fd, &peer);
    switch (fd) {
    case -EAGAIN:
        return false;
    case -EMFILE:
    case -ENFILE:
        shed(listener, fd);
        return false;
    case -ENOMEM:
    case -ENOBUFS:
        pause_accepting(listener); /* the system's shortage: nothing of ours to give up */
        return false;
    }
    if (fd < 0)
        return true; /* Linux reports network errors of the connection here: on to the next */
    bool stopped = false;
    listener->stopped = &stopped;
    listener->ops->on_accept(listener, fd, &peer, listener->user);
    if (stopped)
        return false;
    listener->stopped = NULL;
    return true;
}

static void on_readable(struct evpt_watch *watch, uint32_t events, void *user)
{
    for (int i = 0; i < EVPT_LISTENER_ACCEPTS_MAX; i++) {
        if (!accept_one(user))
            return;
    }
}

int evpt_listener_start(struct evpt_listener *listener, struct evpt_loop *loop,
                        const struct evpt_addr *addr, int backlog,
                        const struct evpt_listener_ops *ops, void *user)
{
    if (listener->loop)
        return -EALREADY;
    *listener = (struct evpt_listener){.ops = ops, .user = user};
    int fd = evpt_sys_listen(addr, backlog);
    if (fd < 0)
        return fd;
    int reserve_fd = evpt_sys_reserve_fd();
    int error = reserve_fd < 0 ? reserve_fd
                               : evpt_watch_start(loop, &listener->watch, fd, EVPT_READ,
                                                  on_readable, listener);
    if (error) {
        evpt_sys_close(reserve_fd);
        evpt_sys_close(fd);
        return error;
    }
    listener->fd = fd;
    listener->reserve_fd = reserve_fd;
    listener->loop = loop;
    return 0;
}

void evpt_listener_stop(struct evpt_listener *listener)
{
    if (!listener || !listener->loop)
        return;
    if (listener->stopped)
        *listener->stopped = true;
    evpt_timer_stop(evpt_loop_wheel(listener->loop), &listener->backoff);
    evpt_watch_stop(&listener->watch);
    evpt_sys_close(listener->fd);
    evpt_sys_close(listener->reserve_fd);
    listener->loop = NULL;
}

int evpt_listener_addr(const struct evpt_listener *listener, struct evpt_addr *ret_addr)
{
    return evpt_sys_local_addr(listener->fd, ret_addr);
}
