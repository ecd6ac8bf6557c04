#include "reactor/connector.h"
#include "reactor/error.h"
#include <assert.h>

/* Idle first: the callee may start the connector again, or free it. */
static void done(struct evpt_connector *connector, int result)
{
    evpt_timer_stop(evpt_loop_wheel(connector->loop), &connector->timeout);
    connector->loop = NULL;
    connector->fd = -1;
    connector->fn(connector, result, connector->user);
}

static void on_ready(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct evpt_connector *connector = user;
    int fd = connector->fd;
    int error = evpt_sys_connect_result(fd);
    evpt_watch_stop(&connector->watch);
    if (error)
        evpt_sys_close(fd);
    done(connector, error ? error : fd);
}

static void on_timeout(struct evpt_timer *timer, void *user)
{
    struct evpt_connector *connector = user;
    if (connector->fd >= 0) {
        evpt_watch_stop(&connector->watch);
        evpt_sys_close(connector->fd);
    }
    done(connector, connector->error);
}

void evpt_connector_start(struct evpt_connector *connector, struct evpt_loop *loop,
                          const struct evpt_addr *addr, uint64_t timeout_ns, evpt_connector_fn fn,
                          void *user)
{
    assert(!connector->loop);
    *connector =
        (struct evpt_connector){.fn = fn, .user = user, .loop = loop, .error = -EVPT_ETIMEOUT};
    connector->fd = evpt_sys_connect(addr);
    int error = connector->fd;
    if (connector->fd >= 0) {
        error = evpt_watch_start(loop, &connector->watch, connector->fd, EVPT_WRITE, on_ready,
                                 connector);
        if (error)
            evpt_sys_close(connector->fd);
    }
    if (error < 0) {
        connector->fd = -1;
        connector->error = error;
        timeout_ns = 0;
    }
    evpt_loop_timer(loop, &connector->timeout, timeout_ns, on_timeout, connector);
}

void evpt_connector_stop(struct evpt_connector *connector)
{
    if (!connector || !connector->loop)
        return;
    evpt_timer_stop(evpt_loop_wheel(connector->loop), &connector->timeout);
    if (connector->fd >= 0) {
        evpt_watch_stop(&connector->watch);
        evpt_sys_close(connector->fd);
    }
    connector->loop = NULL;
}
