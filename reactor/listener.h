/* A listening socket on a loop.
 *
 * When descriptors run out (EMFILE, ENFILE), the listener closes its reserve descriptor, accepts
 * one connection and closes it (the peer learns at once that it is not served), takes the reserve
 * again, and pauses for EVPT_LISTENER_BACKOFF_MS; `on_shed` is told. At most
 * EVPT_LISTENER_ACCEPTS_MAX connections are accepted a turn. Both callbacks may stop and free the
 * listener.
 *
 *     struct evpt_listener listener = {0};
 *     error = evpt_listener_start(&listener, loop, &addr, 1024, &ops, user);
 *     ...
 *     evpt_listener_stop(&listener);
 *
 * The loop's thread only.
 */
#ifndef EVPT_REACTOR_LISTENER_H
#define EVPT_REACTOR_LISTENER_H

#include "reactor/loop.h"

#define EVPT_LISTENER_ACCEPTS_MAX 64
#define EVPT_LISTENER_BACKOFF_MS 100

struct evpt_listener;

struct evpt_listener_ops {
    /* A connection; the descriptor is the callee's. */
    void (*on_accept)(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user);
    /* A connection was refused because of `error` (-EMFILE ...). May be NULL. */
    void (*on_shed)(struct evpt_listener *listener, int error, void *user);
};

struct evpt_listener { /* caller's storage; zeroed: closed */
    /* private */
    struct evpt_watch watch;
    struct evpt_timer backoff;
    const struct evpt_listener_ops *ops;
    void *user;
    struct evpt_loop *loop;
    int fd, reserve_fd;
    bool *stopped; /* during on_accept: says whether the listener is still there after it */
    uint64_t shed; /* connections refused */
};

/* `addr` is copied, `ops` is not. 0 or -errno (-EADDRINUSE ...; -EALREADY
 * where it listens already, which goes on). */
int evpt_listener_start(struct evpt_listener *listener, struct evpt_loop *loop,
                        const struct evpt_addr *addr, int backlog,
                        const struct evpt_listener_ops *ops, void *user);
/* Connections in the backlog are reset by the system. A local socket's file stays, for the caller
 * to remove. NULL and zeroed are fine. */
void evpt_listener_stop(struct evpt_listener *listener);
/* The bound address (the kernel's port where 0 was asked for). */
int evpt_listener_addr(const struct evpt_listener *listener, struct evpt_addr *ret_addr);

#endif
