/* One attempt to connect, with a timeout.
 *
 *     evpt_connector_start(&c, loop, &addr, timeout_ns, on_done, user);
 *     on_done(c, fd, user): fd >= 0, the callee's; or -ECONNREFUSED, -EVPT_ETIMEOUT ...
 *
 * on_done is called exactly once, from the loop, never from inside start, unless the attempt was
 * stopped before.
 */
#ifndef EVPT_REACTOR_CONNECTOR_H
#define EVPT_REACTOR_CONNECTOR_H

#include "reactor/loop.h"

struct evpt_connector;
typedef void (*evpt_connector_fn)(struct evpt_connector *connector, int fd, void *user);

struct evpt_connector { /* caller's storage; zeroed: idle */
    /* private */
    struct evpt_watch watch;
    struct evpt_timer timeout; /* also carries an attempt that failed at once, with deadline now */
    evpt_connector_fn fn;
    void *user;
    struct evpt_loop *loop;
    int fd;
    int error;
};

void evpt_connector_start(struct evpt_connector *connector, struct evpt_loop *loop,
                          const struct evpt_addr *addr, uint64_t timeout_ns, evpt_connector_fn fn,
                          void *user);
/* Gives up without on_done. NULL and idle are fine. */
void evpt_connector_stop(struct evpt_connector *connector);

#endif
