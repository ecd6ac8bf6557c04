/* The unit that travels through the whole tower: one allocation, one owner.
 *
 * A message is allocated once where its bytes come into being (a caller's encoder, or a session
 * that has read it from the socket) and freed once where they are used up (written to the socket,
 * or decoded by the callee). Between the two only the pointer moves, and with it the ownership and
 * the right to touch any field.
 *
 * `data` holds the bytes of the message as they go over the wire (SPEC section 5), without frame
 * headers; 8 bytes of headroom in front of it are for the frame header of a message that fits into
 * one frame. The fields are written by the floor that knows them; cluster/ uses `session`, `lane`
 * and the bytes, and carries the rest along without a meaning.
 */
#ifndef EVPT_CLUSTER_MESSAGE_H
#define EVPT_CLUSTER_MESSAGE_H

#include "reactor/mpsc.h"
#include <stdint.h>

#define EVPT_MESSAGE_HEADROOM 8

enum evpt_message_kind {
    EVPT_MESSAGE_CALL,   /* wants exactly one reply */
    EVPT_MESSAGE_SEND,   /* wants none */
    EVPT_MESSAGE_REPLY,  /* `code`, and results or the text of the error */
    EVPT_MESSAGE_SYSTEM, /* between parts of the node itself; `code` says what */
};

struct evpt_message {
    struct evpt_mpsc_node node; /* must be first: queues hand out the node */
    uint64_t deadline_ns;       /* monotonic; EVPT_FOREVER: none */
    uint64_t lane;              /* messages of one lane arrive in order; 0: a lane of its own */
    uint32_t source;            /* handle of the service that sent it */
    uint32_t target;            /* handle of the service that is to get it */
    uint32_t session;    /* key of the request at its source; on the wire: the frame's session */
    uint32_t connection; /* id of the session (connection) that it came in on; 0: this node */
    uint8_t kind;        /* enum evpt_message_kind */
    uint8_t flags;       /* EVPT_MESSAGE_* below */
    uint16_t code;       /* replies: SPEC section 4, Outcomes */
    uint32_t method_at;  /* offset and size of the method's name in data */
    uint32_t method_size;
    uint32_t args_at; /* offset of the MessagePack array of arguments or results */
    uint32_t args_size;
    uint32_t
        deadline_at; /* offset of the 4 bytes of meta key 1, 0: none (see services/request.h) */
    uint32_t size, capacity; /* bytes used and allocated at data */
    uint8_t headroom[EVPT_MESSAGE_HEADROOM];
    uint8_t data[];
};

enum {
    EVPT_MESSAGE_REMOTE = 1, /* came from another node: only exports may be reached */
};

/* A message with room for `capacity` bytes and all else zero (deadline: EVPT_FOREVER); NULL where
 * memory is refused. Any thread. */
struct evpt_message *evpt_message_new(size_t capacity);
/* NULL is fine. Any thread. */
void evpt_message_free(struct evpt_message *message);
/* Room for `more` bytes behind `size`, growing by doubling. The message may move. NULL where memory
 * is refused: the old one is then still valid and the caller's. */
struct evpt_message *evpt_message_grow(struct evpt_message *message, size_t more);
/* The same with an exact capacity (at least `size`), for who has a bound of his own. */
struct evpt_message *evpt_message_resize(struct evpt_message *message, size_t capacity);

static inline struct evpt_message *evpt_message_from_node(struct evpt_mpsc_node *node)
{
    return (struct evpt_message *)(void *)node;
}

#endif
