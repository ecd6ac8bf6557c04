#include "cluster/gate.h"

#include "reactor/error.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct guest {
    struct evpt_list link; /* in gate->guests */
    struct evpt_handshake handshake;
    struct evpt_gate *gate;
    struct evpt_addr addr;
};

static void free_guest(struct guest *guest)
{
    struct evpt_gate *gate = guest->gate;
    evpt_list_remove(&guest->link);
    evpt_handshake_stop(&guest->handshake);
    evpt_sys_free(guest);
    if (--gate->count == 0)
        gate->told = false;
}

/* The same machine, whatever the port. */
static bool same_host(const struct evpt_addr *a, const struct evpt_addr *b)
{
    if (a->u.any.sa_family != b->u.any.sa_family)
        return false;
    if (a->u.any.sa_family == AF_INET6)
        return memcmp(&a->u.v6.sin6_addr, &b->u.v6.sin6_addr, sizeof(a->u.v6.sin6_addr)) == 0;
    return a->u.any.sa_family != AF_INET || a->u.v4.sin_addr.s_addr == b->u.v4.sin_addr.s_addr;
}

static uint32_t count_from(const struct evpt_gate *gate, const struct evpt_addr *addr)
{
    uint32_t count = 0;
    for (const struct evpt_list *link = gate->guests.next; link != &gate->guests; link = link->next)
        count += same_host(&EVPT_CONTAINER_OF(link, struct guest, link)->addr, addr);
    return count;
}

static void on_done(struct evpt_handshake *handshake, int error, void *user)
{
    struct guest *guest = user;
    struct evpt_gate *gate = guest->gate;
    struct evpt_transport *transport = handshake->transport; /* stays until this returns */
    struct evpt_addr addr = guest->addr;
    int fd = handshake->fd;
    free_guest(guest);
    if (!error) {
        gate->ops->on_passed(gate, fd, transport, gate->user);
        return;
    }
    const char *reason = transport->reason[0] ? transport->reason : evpt_strerror(error);
    if (error == -EVPT_ETIMEOUT)
        reason = "it did not say who it is within 2 s";
    atomic_fetch_add_explicit(&gate->refused, 1, memory_order_relaxed); /* statistics only */
    gate->ops->on_refused(gate, &addr, error, reason, gate->user);
}

static void turn_away(struct evpt_gate *gate, int fd, const struct evpt_addr *peer, int error,
                      const char *reason)
{
    evpt_sys_close(fd);
    atomic_fetch_add_explicit(&gate->turned_away, 1, memory_order_relaxed);
    if (gate->told)
        return;
    gate->told = true;
    gate->ops->on_refused(gate, peer, error, reason, gate->user);
}

static int admit(struct evpt_gate *gate, struct evpt_tls *tls, int fd, const struct evpt_addr *peer)
{
    struct evpt_transport *transport;
    struct guest *guest = evpt_sys_zalloc(sizeof(*guest));
    int error = guest ? evpt_tls_accept(tls, fd, &transport) : -ENOMEM;
    if (error) {
        evpt_sys_free(guest);
        return error;
    }
    guest->gate = gate;
    guest->addr = *peer;
    guest->handshake.accepted = true;
    evpt_list_push_back(&gate->guests, &guest->link);
    gate->count++;
    evpt_handshake_start(&guest->handshake, gate->loop, fd, transport,
                         EVPT_GATE_TIMEOUT_MS * EVPT_NS_PER_MS, &gate->pace, on_done, guest);
    return 0;
}

void evpt_gate_enter(struct evpt_gate *gate, struct evpt_tls *tls, int fd,
                     const struct evpt_addr *peer)
{
    if (gate->count >= gate->max) {
        turn_away(gate, fd, peer, -EVPT_ELIMIT,
                  "tls.handshakes_max: too many connections wait to be known");
        return;
    }
    if (count_from(gate, peer) >= gate->per_address_max) {
        turn_away(gate, fd, peer, -EVPT_ELIMIT,
                  "tls.handshakes_per_address_max: too many connections from this address wait to "
                  "be known");
        return;
    }
    int error = admit(gate, tls, fd, peer);
    if (error)
        turn_away(gate, fd, peer, error, evpt_strerror(error));
}

void evpt_gate_init(struct evpt_gate *gate, struct evpt_loop *loop, uint32_t max,
                    uint32_t per_address_max, const struct evpt_gate_ops *ops, void *user)
{
    *gate = (struct evpt_gate){
        .loop = loop, .ops = ops, .user = user, .max = max, .per_address_max = per_address_max};
    evpt_list_init(&gate->guests);
}

void evpt_gate_fini(struct evpt_gate *gate)
{
    if (!gate || !gate->loop)
        return;
    while (!evpt_list_is_empty(&gate->guests))
        free_guest(EVPT_CONTAINER_OF(gate->guests.next, struct guest, link));
    gate->loop = NULL;
}
