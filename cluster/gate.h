/* The gate: connections that were accepted over TLS and whose peer is not known yet.
 *
 * Strangers are held here, away from everything that they want: a guest has a descriptor, a TLS
 * object and a timer, no session and nothing of a service. It has EVPT_GATE_TIMEOUT_MS to show who
 * it is, may send EVPT_TRANSPORT_HANDSHAKE_MAX bytes for it, and its steps are counted
 * (handshake.h). At most handshakes_max guests are inside, handshakes_per_address_max of them from
 * one address; whoever comes then is turned away at once, and has cost an accept and a close.
 *
 * The loop's thread only; callbacks come from the loop, and from inside evpt_gate_enter where a
 * guest is turned away.
 */
#ifndef EVPT_CLUSTER_GATE_H
#define EVPT_CLUSTER_GATE_H

#include "reactor/handshake.h"
#include "reactor/list.h"
#include "reactor/tls.h"
#include <stdatomic.h>

#define EVPT_GATE_TIMEOUT_MS 2000

struct evpt_gate;

struct evpt_gate_ops {
    /* It is known: descriptor and transport are the callee's. */
    void (*on_passed)(struct evpt_gate *gate, int fd, struct evpt_transport *transport, void *user);
    /* It is not, and has gone. Of those that are turned away because the gate is full, only the
     * first one is told until all is quiet again: they may be many. */
    void (*on_refused)(struct evpt_gate *gate, const struct evpt_addr *peer, int error,
                       const char *reason, void *user);
};

struct evpt_gate {  /* caller's storage, must not move; zeroed: nobody may enter */
    uint32_t count; /* guests inside */
    /* so far, for what they did or failed to do; because there were too many. Any thread may read.
     */
    _Atomic uint64_t refused, turned_away;
    /* private */
    struct evpt_list guests;
    struct evpt_handshake_pace pace;
    struct evpt_loop *loop;
    const struct evpt_gate_ops *ops;
    void *user;
    uint32_t max, per_address_max;
    bool told; /* that there are too many */
};

void evpt_gate_init(struct evpt_gate *gate, struct evpt_loop *loop, uint32_t max,
                    uint32_t per_address_max, const struct evpt_gate_ops *ops, void *user);
/* Everybody goes, without callbacks. NULL and zeroed are fine. */
void evpt_gate_fini(struct evpt_gate *gate);
/* Takes over the descriptor. */
void evpt_gate_enter(struct evpt_gate *gate, struct evpt_tls *tls, int fd,
                     const struct evpt_addr *peer);

#endif
