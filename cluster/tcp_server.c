#include "cluster/tcp_server.h"

#include <errno.h>

#define BACKLOG 1024 /* a cluster that comes back all at once; the kernel cuts it to somaxconn */

static void shed(struct evpt_tcp_server *server, int error)
{
    if (server->ops->on_shed)
        server->ops->on_shed(error, server->user);
}

static void open_session(struct evpt_tcp_server *server, int fd, struct evpt_transport *transport)
{
    struct evpt_session *session;
    int error = evpt_tcp_object_create_session(&server->object, fd, transport, EVPT_SESSION_SERVER,
                                               &session);
    if (error)
        shed(server, error);
    else if (server->ops->on_opened)
        server->ops->on_opened(session, server->user);
}

static void on_passed(struct evpt_gate *gate, int fd, struct evpt_transport *transport, void *user)
{
    open_session(user, fd, transport);
}

static void tell_refused(struct evpt_tcp_server *server, const struct evpt_addr *peer, int error,
                         const char *reason)
{
    if (server->ops->on_refused)
        server->ops->on_refused(peer, error, reason, server->user);
}

static void on_refused(struct evpt_gate *gate, const struct evpt_addr *peer, int error,
                       const char *reason, void *user)
{
    tell_refused(user, peer, error, reason);
}

static const struct evpt_gate_ops gate_ops = {
    .on_passed = on_passed,
    .on_refused = on_refused,
};

static void on_accept(struct evpt_listener *listener, int fd, const struct evpt_addr *peer,
                      void *user)
{
    struct evpt_tcp_server *server = user;
    struct evpt_tls *tls = server->object.config->tls;
    if (server->own_user_only && !evpt_sys_peer_is_own_user(fd)) {
        evpt_sys_close(fd);
        tell_refused(server, peer, -EACCES, "it runs as another user");
    } else if (tls) {
        evpt_gate_enter(&server->gate, tls, fd, peer);
    } else {
        open_session(server, fd, NULL);
    }
}

static void on_listener_shed(struct evpt_listener *listener, int error, void *user)
{
    shed(user, error);
}

static const struct evpt_listener_ops listener_ops = {
    .on_accept = on_accept,
    .on_shed = on_listener_shed,
};

void evpt_tcp_server_init(struct evpt_tcp_server *server, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_tcp_server_ops *ops, void *user)
{
    *server = (struct evpt_tcp_server){.ops = ops, .user = user};
    evpt_tcp_object_init(&server->object, loop, config, &ops->session, user);
    evpt_gate_init(&server->gate, loop, config->handshakes_max, config->handshakes_per_address_max,
                   &gate_ops, server);
}

void evpt_tcp_server_fini(struct evpt_tcp_server *server)
{
    if (!server)
        return;
    evpt_listener_stop(&server->listener);
    evpt_gate_fini(&server->gate);
    evpt_tcp_object_fini(&server->object);
}

int evpt_tcp_server_listen(struct evpt_tcp_server *server, const struct evpt_addr *addr)
{
    return evpt_listener_start(&server->listener, server->object.loop, addr, BACKLOG, &listener_ops,
                               server);
}

void evpt_tcp_server_stop_listening(struct evpt_tcp_server *server)
{
    evpt_listener_stop(&server->listener);
}

int evpt_tcp_server_addr(const struct evpt_tcp_server *server, struct evpt_addr *ret_addr)
{
    return evpt_listener_addr(&server->listener, ret_addr);
}
