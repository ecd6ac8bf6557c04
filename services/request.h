/* The envelope of requests and replies (SPEC section 5, Data), written and read in place in a
 * message.
 *
 *     request  [1 | 2, service, method, args, {1: ms left, 3: sending service, 4: takeover}]
 *     reply    [3, code, results]
 *
 * A request to a service of this node has the same bytes as one to another node: a message is
 * encoded once, by its sender, and decoded once, by its receiver, and nothing in between depends on
 * the way it takes.
 *
 *     m = evpt_request_new(EVPT_MESSAGE_CALL, "room", 4, "join", 4, hint);
 *     append one MessagePack array of arguments to m (evpt_value_encode)
 *     evpt_request_finish(&m, source, deadline_ns);
 */
#ifndef EVPT_SERVICES_REQUEST_H
#define EVPT_SERVICES_REQUEST_H

#include "cluster/message.h"
#include "services/code.h"

enum {
    EVPT_META_DEADLINE = 1,
    EVPT_META_TRACE = 2,
    EVPT_META_SOURCE = 3,
    EVPT_META_TAKEOVER = 4, /* its node has given up its earlier connections to this one */
};

#define EVPT_NAME_MAX                                                                              \
    255 /* bytes of a service's or method's name that travel; longer ones do not exist */

/* Kind is CALL or SEND. `hint`: bytes of arguments to make room for. NULL: no memory. */
struct evpt_message *evpt_request_new(enum evpt_message_kind kind, const char *service,
                                      size_t service_size, const char *method, size_t method_size,
                                      size_t hint);
/* Everything behind what evpt_request_new wrote is the arguments; appends the meta map and sets
 * source and deadline. 0 or -ENOMEM; the message stays the caller's. */
int evpt_request_finish(struct evpt_message **message, uint32_t source, uint64_t deadline_ns);
/* Writes the milliseconds that are left (rounded up, at least 1) where the deadline stands in the
 * bytes. */
void evpt_request_patch_deadline(struct evpt_message *message, uint64_t now_ns);

/* Adds meta key 4 to a finished request. Cannot fail. */
void evpt_request_add_takeover(struct evpt_message *message);

struct evpt_request_info {
    const char *service; /* in the message's data, not terminated */
    uint32_t service_size;
    uint32_t
        source; /* meta key 3: who sends it, as its node numbers its services; 0: it did not say */
    bool takeover; /* meta key 4 */
};
/* Reads the envelope of bytes that a peer sent, and sets kind, method_at, args_at (with sizes) and
 * deadline_ns. The arguments are stepped over, so they are well-formed afterwards. 0 or a negative
 * error. */
int evpt_request_parse(struct evpt_message *message, uint64_t now_ns,
                       struct evpt_request_info *ret_info);
/* The service's name in a message made by evpt_request_new. */
void evpt_request_service(const struct evpt_message *message, const char **ret_name,
                          uint32_t *ret_size);

/* A reply with code 0 whose results array is to be appended, then evpt_reply_finish. */
struct evpt_message *evpt_reply_new(size_t hint);
void evpt_reply_finish(struct evpt_message *message);
/* A reply with another code and one text. */
struct evpt_message *evpt_reply_error(int code, const char *text, size_t text_size);
/* The same for whoever must not fail: takes over a block of memory of evpt_sys_alloc, of `size`
 * bytes and at least EVPT_REPLY_BLOCK_MIN. Never NULL: where there is no other memory, the block
 * becomes the reply, with as much of the text as fits. */
struct evpt_message *evpt_reply_from_block(void *block, size_t size, int code, const char *text,
                                           size_t text_size);
#define EVPT_REPLY_BLOCK_MIN (sizeof(struct evpt_message) + 5)
/* With the request as the block. */
struct evpt_message *evpt_reply_instead(struct evpt_message *request, int code, const char *text,
                                        size_t text_size);
/* Reads the envelope of a reply: sets kind, code, args_at. 0 or a negative error. */
int evpt_reply_parse(struct evpt_message *message);

/* What a reply says about execution where it knows more than its code: kept in message->flags. */
void evpt_reply_set_executed(struct evpt_message *message, enum evpt_executed executed);
enum evpt_executed evpt_reply_executed(const struct evpt_message *message);

#endif
