/* Session: one connection between two nodes. Frames and messages on top of a stream.
 *
 *   open --close, refusal, error--> ending --everything written or dropped--> closed
 *
 * on_close follows, and then the session is gone. session_private.h has the whole chart.
 *
 * In: frames are parsed in place; a whole frame becomes a message at once, parts are put together
 * (at most EVPT_SESSION_PARTIALS_MAX at a time; memory grows with the bytes that came, never with
 * what was announced). Whatever SPEC section 5 refuses closes this connection, with a GOAWAY that
 * says why where the peer said HELLO, and reports one reason; no other connection notices. Whoever
 * sent a call that is longer than message_max gets a too_large reply first.
 *
 * Out: a message of at most one frame is copied (large ones referenced) into the stream at once. A
 * longer one waits in its lane: lanes take turns, a part each, and are asked for more only when the
 * stream's queue has fallen to its low water mark. So a long message delays another lane's short
 * one by that mark at most, while within a lane (message.h) everything stays in order. At most
 * EVPT_SESSION_LANES_ACTIVE long messages are in parts at the same time (the peer refuses more than
 * 1024), others wait.
 *
 * Control frames: the side that connected says HELLO first, the other answers with its own when it
 * gets one; a peer that never says HELLO is a plain peer and gets no control frame (a PING from it
 * is ignored). Two peers that said HELLO ping each other when nothing came in for heartbeat_ms;
 * three of them in silence is the end (-EVPT_ETIMEOUT).
 *
 * Positions: `evpt_session_send` tells at which byte of the stream the message ends; it has been
 * handed to the socket whole when evpt_session_written() >= that. A message that had not been
 * cannot have been executed.
 *
 * The loop's thread only. Callbacks come from the loop, never from inside a call, and may do
 * anything to any session, freeing their own included.
 */
#ifndef EVPT_CLUSTER_SESSION_H
#define EVPT_CLUSTER_SESSION_H

#include "cluster/frame.h"
#include "cluster/message.h"
#include "reactor/stream.h"

#define EVPT_PROTOCOL_VERSION 1
#define EVPT_SESSION_PARTIALS_MAX 1024      /* SPEC: more than that is refused */
#define EVPT_SESSION_PARTIAL_STALL_MS 30000 /* SPEC: a partial message without progress */
#define EVPT_SESSION_LANES_ACTIVE 256 /* long messages in parts at once; a peer refuses 1025 */
#define EVPT_SESSION_SILENT_HEARTBEATS 3
#define EVPT_SESSION_REASON_MAX 119 /* bytes of a reason that on_close tells */
#define EVPT_NODE_NAME_MAX 64       /* bytes; names match [%a_][%w_]* */

/* The part of the configuration that connections need; shared, must outlive them, may change
 * between turns. */
struct evpt_session_config {
    char node[EVPT_NODE_NAME_MAX + 1]; /* own name, for HELLO */
    uint64_t incarnation;              /* random at the node's start; below 2^63 */
    uint32_t message_max;
    uint32_t heartbeat_ms; /* 0: none */
    size_t send_buffer_max;
    struct evpt_tls *tls; /* NULL: none. Else nothing is accepted or opened without it */
    uint32_t handshakes_max, handshakes_per_address_max; /* with TLS: see gate.h */
};

enum evpt_session_role { EVPT_SESSION_CLIENT /* connected */, EVPT_SESSION_SERVER /* accepted */ };

struct evpt_session;

struct evpt_session_ops {
    /* A whole message; `message->session` is the frame's, `connection` the session's id. Owned by
     * the callee. */
    void (*on_message)(struct evpt_session *session, struct evpt_message *message, void *user);
    /* The peer's HELLO has come: evpt_session_peer_* are known. May be NULL. */
    void (*on_hello)(struct evpt_session *session, void *user);
    /* The peer asks for no new requests. May be NULL. */
    void (*on_goaway)(struct evpt_session *session, int code, const char *text, void *user);
    /* The message `frame_session`, for which send could not tell a position, has been queued whole;
     * it ends at `position`. May be NULL. */
    void (*on_queued)(struct evpt_session *session, uint32_t frame_session, uint64_t position,
                      void *user);
    /* Closed, exactly once. error as in stream.h, or -EVPT_EPROTOCOL; `reason` in words. The
     * session is freed after this returns. */
    void (*on_close)(struct evpt_session *session, int error, const char *reason, void *user);
};

/* Takes over the descriptor and the transport (NULL: the socket as it is). A client says HELLO at
 * once. 0 or a negative error; then both are closed. */
int evpt_session_new_over(struct evpt_session **ret_session, struct evpt_loop *loop, int fd,
                          struct evpt_transport *transport, enum evpt_session_role role,
                          uint32_t id, const struct evpt_session_config *config,
                          const struct evpt_session_ops *ops, void *user);
static inline int evpt_session_new(struct evpt_session **ret_session, struct evpt_loop *loop,
                                   int fd, enum evpt_session_role role, uint32_t id,
                                   const struct evpt_session_config *config,
                                   const struct evpt_session_ops *ops, void *user)
{
    return evpt_session_new_over(ret_session, loop, fd, NULL, role, id, config, ops, user);
}
/* At once and without on_close (tear-down). NULL is fine. */
void evpt_session_free(struct evpt_session *session);

/* Sends a message under its `session` (not 0) in its `lane`. Takes the message over in every case.
 * *ret_position (may be NULL): where it ends; UINT64_MAX for a long one, and for one that waits
 * behind a long one of its lane: on_queued tells. 0; -EVPT_ECLOSED; -EVPT_ETOOLARGE (more than
 * message_max here or, where known, at the peer); -EVPT_ELIMIT (more than send_buffer_max queued);
 * -ENOMEM. After a failure not one byte of it leaves. */
int evpt_session_send(struct evpt_session *session, struct evpt_message *message,
                      uint64_t *ret_position);
/* Bytes handed to the socket so far. */
uint64_t evpt_session_written(const struct evpt_session *session);
/* Bytes that wait: in the stream and in lanes. */
size_t evpt_session_queued(const struct evpt_session *session);
/* Writes now what is queued. */
void evpt_session_flush(struct evpt_session *session);

/* GOAWAY to a peer that said HELLO; nothing to a plain one. The connection stays. */
void evpt_session_goaway(struct evpt_session *session, int code, const char *text);
/* Closes after what is queued has been written (`flush`; a peer that takes nothing for a second is
 * not waited for) or at once. on_close(error 0) follows from the loop. `reason` is copied. */
void evpt_session_close(struct evpt_session *session, bool flush, const char *reason);
/* The peer broke the protocol: GOAWAY with the reason where it said HELLO, then close with
 * -EVPT_EPROTOCOL. */
void evpt_session_refuse(struct evpt_session *session, const char *reason);

/* "open", or a state on the way to "closed" (session_private.h). */
const char *evpt_session_state_name(const struct evpt_session *session);
uint32_t evpt_session_id(const struct evpt_session *session);
enum evpt_session_role evpt_session_role(const struct evpt_session *session);
bool evpt_session_is_open(const struct evpt_session *session);
/* "ip:port" of the peer. */
const char *evpt_session_peer_addr(const struct evpt_session *session);
/* From HELLO; "" and 0 for a plain peer or before it. */
bool evpt_session_said_hello(const struct evpt_session *session);
const char *evpt_session_peer_name(const struct evpt_session *session);
uint64_t evpt_session_peer_incarnation(const struct evpt_session *session);
uint32_t evpt_session_peer_message_max(const struct evpt_session *session);
/* Who the peer is as far as rights go: the name in its HELLO, which has to be one that its
 * certificate proves where names are proved at all; before it, and for a plain peer, the name that
 * the certificate proves. "": nobody knows. */
const char *evpt_session_caller(const struct evpt_session *session);
/* Has a certificate proved that name? */
bool evpt_session_caller_is_proved(const struct evpt_session *session);
/* Last round trip of a PING, nanoseconds; 0: none yet. */
uint64_t evpt_session_round_trip_ns(const struct evpt_session *session);
/* A value of the user's own, 0 at first. */
void evpt_session_set_tag(struct evpt_session *session, void *tag);
void *evpt_session_tag(const struct evpt_session *session);

struct evpt_session_stats {
    uint64_t messages_in, messages_out, bytes_in, bytes_out;
    uint32_t partials_in; /* messages of which parts have come */
    uint32_t long_out;    /* lanes in which messages wait */
};
void evpt_session_stats(const struct evpt_session *session, struct evpt_session_stats *ret_stats);
/* Debug: asserts every invariant. */
void evpt_session_check(const struct evpt_session *session);

#endif
