/* What the three files of a session share. Nobody else includes it.
 *
 *   session.c      life cycle, states, control frames, the one timer
 *   session_in.c   bytes -> frames -> messages; partial messages
 *   session_out.c  messages -> frames -> bytes; lanes of long messages
 *
 *   OPEN --close(flush)--> FLUSHING --lanes empty--> ENDING --stream empty--> SHUT
 *   OPEN --refusal-------------------------------> ENDING
 *   all  --error, close, the peer's end, nothing written for LINGER_MS--> CLOSED
 *
 *   OPEN      messages in both directions
 *   FLUSHING  what waits in lanes and stream still leaves; from here on input is thrown away
 *   ENDING    what waits in the stream still leaves
 *   SHUT      all has left, our half is shut; waits for the peer's end, because a socket that is
 *             closed with unread input resets the connection, and our last words with it
 *   CLOSED    the stream is closed; all that may follow is on_close
 *
 * Callbacks may do anything to the session, freeing it included. So whoever comes in from the loop
 * enters the session, and its memory is given back when the last one leaves.
 */
#ifndef EVPT_CLUSTER_SESSION_PRIVATE_H
#define EVPT_CLUSTER_SESSION_PRIVATE_H

#include "cluster/session.h"

/* Filled up to HIGH by lanes, and again when fallen to LOW: enough for one writev to be worth its
 * system call, and at 1 Gbit/s 1 ms of delay for somebody else's small message. */
#define EVPT_SESSION_HIGH_WATER (128 * 1024)
#define EVPT_SESSION_LOW_WATER (64 * 1024)
/* What the kernel takes before it has sent what it has: without it, its own buffer of megabytes
 * would be the queue in which small messages stand behind large ones. */
#define EVPT_SESSION_NOT_SENT_MAX (128 * 1024)
/* Data up to this are copied into the stream: below, a copy costs less than a block and an iovec of
 * their own. */
#define EVPT_SESSION_COPY_MAX 4096

/* A connection that ends is given up after this long without a byte written. Long enough for the
 * round trip of a peer that reads our last words and closes; short, because a node that stops waits
 * for it. */
#define EVPT_SESSION_LINGER_MS 1000

/* The codes of SPEC section 4 that this floor says by itself. */
enum { EVPT_SESSION_CODE_TOO_LARGE = 9, EVPT_SESSION_CODE_BAD_MESSAGE = 10 };

enum evpt_session_state {
    EVPT_SESSION_OPEN,
    EVPT_SESSION_FLUSHING,
    EVPT_SESSION_ENDING,
    EVPT_SESSION_SHUT,
    EVPT_SESSION_CLOSED,
    EVPT_SESSION_STATES
};

struct evpt_session_lanes;
struct evpt_session_partials;

struct evpt_session {
    struct evpt_stream stream;
    struct evpt_loop *loop;
    const struct evpt_session_config *config;
    const struct evpt_session_ops *ops;
    void *user, *tag;

    uint32_t id;
    uint16_t entered;          /* how many calls from the loop are inside */
    uint8_t state;             /* enum evpt_session_state; written by set_state alone */
    uint8_t role;              /* enum evpt_session_role */
    bool freed;                /* torn down; the memory goes when `entered` is 0 */
    bool said_hello;           /* the peer did, and so did we */
    bool tail;                 /* the bytes read last end inside a frame */
    uint8_t pings;             /* sent since something came in */
    struct evpt_deferred pump; /* lanes have something for the stream, or the end has come nearer */

    struct evpt_timer
        timer;             /* heartbeat, stalls, lingering; runs only where one of them needs it */
    uint64_t timer_due_ns; /* EVPT_FOREVER: not running */
    uint64_t last_in_ns;
    uint64_t ping_ns; /* when the last PING left, which is also what it says */
    uint64_t round_trip_ns;
    uint64_t linger_mark; /* bytes written when the lingering timer was set */

    struct evpt_session_lanes *lanes;       /* NULL: no message waits outside the stream */
    struct evpt_session_partials *partials; /* NULL: none is coming in */
    uint64_t messages_in, messages_out;

    int close_error; /* what on_close will say, once state is not OPEN */
    char close_reason[EVPT_SESSION_REASON_MAX + 1];
    uint64_t peer_incarnation;
    uint32_t peer_message_max; /* UINT32_MAX: not known */
    char peer_name[EVPT_NODE_NAME_MAX + 1];
    char peer_addr[]; /* as long as it is */
};

/* ---- session.c ---- */

static inline void evpt_session_enter(struct evpt_session *session)
{
    session->entered++;
}
/* The session may be gone afterwards. */
void evpt_session_leave(struct evpt_session *session);

/* A refusal: GOAWAY `code` where the peer said HELLO, then the end. Nothing where it is ending
 * already. */
void evpt_session_refuse_with(struct evpt_session *session, int code, const char *reason);
/* The end at once, because of something that happened here. */
void evpt_session_fail(struct evpt_session *session, int error, const char *reason);
/* FLUSHING and all lanes are empty: on to ENDING. */
void evpt_session_lanes_emptied(struct evpt_session *session);
/* A control frame came in. */
void evpt_session_take_control(struct evpt_session *session, const struct evpt_frame *frame);
/* Makes sure that the timer fires at `due_ns` or before. */
void evpt_session_timer_by(struct evpt_session *session, uint64_t due_ns);
/* ENDING: shuts our half of the connection if all is written. */
void evpt_session_try_shut(struct evpt_session *session);

/* ---- session_in.c ---- */

ssize_t evpt_session_on_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                             void *user);
/* When the partial message that has waited longest is refused; EVPT_FOREVER: there is none. */
uint64_t evpt_session_partials_due(const struct evpt_session *session);
void evpt_session_partials_free(struct evpt_session *session);
uint32_t evpt_session_partials_count(const struct evpt_session *session);
void evpt_session_partials_check(const struct evpt_session *session);

/* ---- session_out.c ---- */

/* Before the loop waits: fills the stream from the lanes up to its high water mark, and goes on
 * with an end that waits for bytes to leave. */
void evpt_session_pump_later(struct evpt_session *session);
uint32_t evpt_session_lanes_count(const struct evpt_session *session);
/* Only when the stream has let go of what it was given by reference. */
void evpt_session_lanes_free(struct evpt_session *session);
void evpt_session_lanes_check(const struct evpt_session *session);

#endif
