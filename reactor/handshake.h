/* The handshake of one connection: from a connected socket to a transport whose peer is known.
 *
 *     struct evpt_handshake handshake = {0};
 *     evpt_handshake_start(&handshake, loop, fd, transport, timeout_ns, &pace, on_done, user);
 *     on_done(&handshake, error, user): 0: descriptor and transport are the callee's; else both are
 *                                       still there for the words, and gone when it returns
 *
 *     stepping --the peer is known--> on_done(0)
 *              --failed, timeout----> on_done(error)
 *              --failed, `accepted`--> lingering --the peer's end, timeout--> on_done(error)
 *
 * Who has connected begins. Who has accepted and refuses the other one has said why in an alert;
 * but the other one may be sending already, and then to close would reset the connection, and the
 * alert with it. So its bytes are read and thrown away until it closes, or the time is over.
 *
 * A step may cost a signature, which is a millisecond of work for a few hundred bytes. So the
 * handshakes of a loop keep pace: EVPT_HANDSHAKE_STEPS_MAX steps a turn, all others wait for the
 * next turn, and whoever is connected already is served in between. (The events of those that wait
 * are reported again; epoll takes turns among them.)
 *
 * on_done comes exactly once, from the loop, never from inside start, unless it was stopped before.
 * The loop's thread only.
 */
#ifndef EVPT_REACTOR_HANDSHAKE_H
#define EVPT_REACTOR_HANDSHAKE_H

#include "reactor/loop.h"
#include "reactor/transport.h"

#define EVPT_HANDSHAKE_STEPS_MAX 2 /* a turn, of all handshakes of a loop */

/* Shared by the handshakes of a loop; zeroed at first. */
struct evpt_handshake_pace {
    uint64_t turn;
    unsigned steps; /* in that turn */
};

struct evpt_handshake;
typedef void (*evpt_handshake_fn)(struct evpt_handshake *handshake, int error, void *user);

struct evpt_handshake { /* caller's storage; zeroed: idle */
    bool accepted;      /* set before start: the peer has connected to us */
    /* public in on_done */
    struct evpt_transport *transport;
    int fd;
    /* private */
    struct evpt_watch watch;
    struct evpt_timer timeout;
    struct evpt_handshake_pace *pace;
    evpt_handshake_fn fn;
    void *user;
    struct evpt_loop *loop;
    int error; /* lingering: what it failed with; before that what the timer tells */
    bool lingering;
};

/* Takes over descriptor and transport. */
void evpt_handshake_start(struct evpt_handshake *handshake, struct evpt_loop *loop, int fd,
                          struct evpt_transport *transport, uint64_t timeout_ns,
                          struct evpt_handshake_pace *pace, evpt_handshake_fn fn, void *user);
/* Gives up without on_done. NULL and idle are fine. */
void evpt_handshake_stop(struct evpt_handshake *handshake);

#endif
