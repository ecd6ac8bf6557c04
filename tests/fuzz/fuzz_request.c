/* The envelopes: bytes of a peer read as a request and as a reply. What was understood, written
 * anew, must be understood the same again. */
#include "fuzz.h"

#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "services/request.h"

#include <string.h>

#define NOW_NS (1000 * EVPT_NS_PER_S)

static struct evpt_message *message_of(const uint8_t *bytes, size_t size)
{
    struct evpt_message *message = evpt_message_new(size);
    FUZZ_CHECK(message);
    memcpy(message->data, bytes, size);
    message->size = (uint32_t)size;
    return message;
}

/* One value, and nothing behind it. */
static void check_whole(const struct evpt_message *message)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, message->data, message->size);
    FUZZ_CHECK(evpt_read_skip(&reader, 67) == 0 && reader.at == reader.end);
}

/* The part of a message that is to be one array, and well-formed. */
static void check_array(const struct evpt_message *message, uint32_t at, uint32_t size)
{
    struct evpt_reader reader;
    uint32_t count;
    FUZZ_CHECK(at <= message->size && size <= message->size - at);
    evpt_reader_init(&reader, message->data + at, size);
    FUZZ_CHECK(evpt_read_array(&reader, &count) == 0);
    FUZZ_CHECK(count <= size);
    evpt_reader_init(&reader, message->data + at, size);
    FUZZ_CHECK(evpt_read_skip(&reader, 65) == 0);
    FUZZ_CHECK(reader.at == reader.end);
}

static void check_same(const struct evpt_message *a, const struct evpt_request_info *a_info,
                       const struct evpt_message *b, const struct evpt_request_info *b_info)
{
    FUZZ_CHECK(a->kind == b->kind);
    FUZZ_CHECK(a_info->source == b_info->source);
    FUZZ_CHECK(a_info->service_size == b_info->service_size);
    FUZZ_CHECK(memcmp(a_info->service, b_info->service, a_info->service_size) == 0);
    FUZZ_CHECK(a->method_size == b->method_size);
    FUZZ_CHECK(memcmp(a->data + a->method_at, b->data + b->method_at, a->method_size) == 0);
    FUZZ_CHECK(a->args_size == b->args_size);
    FUZZ_CHECK(memcmp(a->data + a->args_at, b->data + b->args_at, a->args_size) == 0);
}

/* What evpt itself would have sent. */
static void write_anew(const struct evpt_message *message, const struct evpt_request_info *info)
{
    struct evpt_request_info again_info;
    const char *service;
    uint32_t service_size;
    struct evpt_message *again = evpt_request_new(message->kind, info->service, info->service_size,
                                                  (const char *)message->data + message->method_at,
                                                  message->method_size, message->args_size);
    FUZZ_CHECK(again);
    again = evpt_message_grow(again, message->args_size);
    FUZZ_CHECK(again);
    memcpy(again->data + again->size, message->data + message->args_at, message->args_size);
    again->size += message->args_size;
    FUZZ_CHECK(evpt_request_finish(&again, info->source, message->deadline_ns) == 0);
    evpt_request_patch_deadline(again, NOW_NS);
    evpt_request_service(again, &service, &service_size);
    FUZZ_CHECK(service_size == info->service_size &&
               memcmp(service, info->service, service_size) == 0);

    struct evpt_message *read = message_of(again->data, again->size);
    FUZZ_CHECK(evpt_request_parse(read, NOW_NS, &again_info) == 0);
    check_same(message, info, read, &again_info);
    if (message->deadline_ns == EVPT_FOREVER)
        FUZZ_CHECK(read->deadline_ns == EVPT_FOREVER);
    else if (message->deadline_ns <= NOW_NS) /* what has passed has one millisecond left */
        FUZZ_CHECK(read->deadline_ns == NOW_NS + EVPT_NS_PER_MS);
    else if (message->deadline_ns - NOW_NS <= UINT32_MAX * EVPT_NS_PER_MS)
        FUZZ_CHECK(read->deadline_ns == message->deadline_ns);
    evpt_message_free(read);
    evpt_message_free(again);
}

static void read_request(const uint8_t *bytes, size_t size)
{
    struct evpt_message *message = message_of(bytes, size);
    struct evpt_request_info info;
    if (evpt_request_parse(message, NOW_NS, &info) == 0) {
        const uint8_t *service = (const uint8_t *)info.service;
        FUZZ_CHECK(message->kind == EVPT_MESSAGE_CALL || message->kind == EVPT_MESSAGE_SEND);
        FUZZ_CHECK(service >= message->data && service + info.service_size <= message->data + size);
        FUZZ_CHECK((size_t)message->method_at + message->method_size <= size);
        FUZZ_CHECK(message->deadline_ns >= NOW_NS);
        check_whole(message);
        check_array(message, message->args_at, message->args_size);
        if (info.service_size <= EVPT_NAME_MAX && message->method_size <= EVPT_NAME_MAX)
            write_anew(message, &info);
    }
    evpt_message_free(message);
}

static void read_reply(const uint8_t *bytes, size_t size)
{
    struct evpt_message *message = message_of(bytes, size);
    if (evpt_reply_parse(message) == 0) {
        FUZZ_CHECK(message->kind == EVPT_MESSAGE_REPLY);
        check_whole(message);
        check_array(message, message->args_at, message->args_size);
        FUZZ_CHECK(evpt_reply_executed(message) <= EVPT_EXECUTED_YES);
    }
    evpt_message_free(message);
}

/* An error in the place of the request that it answers, also without memory. */
static void answer_instead(const uint8_t *bytes, size_t size, uint8_t how)
{
    char text[64];
    size_t text_size = how % sizeof(text);
    struct evpt_message *request = message_of(bytes, size), *reply;
    fuzz_fill(text, text_size, how, 0);
    (void)fuzz_refuse_allocation(how & 64 ? 1 : 0);
    reply = evpt_reply_instead(request, how % EVPT_CODE_COUNT, text, text_size);
    (void)fuzz_refuse_allocation(0);
    reply->code = 0xffff;
    FUZZ_CHECK(evpt_reply_parse(reply) == 0);
    FUZZ_CHECK(reply->code == how % EVPT_CODE_COUNT);
    check_array(reply, reply->args_at, reply->args_size);
    evpt_message_free(reply);
}

void fuzz_one(struct fuzz_input *in)
{
    size_t size;
    uint8_t how = fuzz_byte(in);
    const uint8_t *bytes = fuzz_take(in, fuzz_left(in), &size);
    read_request(bytes, size);
    read_reply(bytes, size);
    if (size >= 5)
        answer_instead(bytes, size, how);
}
