#include "reactor/wake.h"

static void on_signal(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct evpt_wake *wake = user;
    if (wake->fn)
        wake->fn(wake, wake->user);
}

/* Edge-triggered, so that the eventfd need not be read: each signal is an event, also one that
 * comes during the callback, and the counter has room for 2^64 of them. Of the system calls that
 * wake a sleeping loop there remain two, the signal and the wait. */
int evpt_wake_init(struct evpt_wake *wake, struct evpt_loop *loop, evpt_wake_fn fn, void *user)
{
    *wake = (struct evpt_wake){.fn = fn, .user = user};
    int fd = evpt_sys_eventfd();
    if (fd < 0)
        return fd;
    int error = evpt_watch_start(loop, &wake->watch, fd, EVPT_READ | EVPT_EDGE, on_signal, wake);
    if (error)
        evpt_sys_close(fd);
    else
        wake->fd = fd;
    return error;
}

void evpt_wake_fini(struct evpt_wake *wake)
{
    if (!wake || !evpt_watch_is_started(&wake->watch))
        return;
    evpt_watch_stop(&wake->watch);
    evpt_sys_close(wake->fd);
}

void evpt_wake_signal(struct evpt_wake *wake)
{
    evpt_sys_eventfd_signal(wake->fd);
}
