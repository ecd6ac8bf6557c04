#include "services/request.h"

#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "reactor/sys.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define ENVELOPE_ROOM 32 /* array and string headers, kind, and the meta map with all its keys */
#define DEPTH_MAX 65     /* the arguments array itself and 64 levels of tables in it */
static_assert(EVPT_REPLY_BLOCK_MIN == sizeof(struct evpt_message) + 5, "see ERROR_SIZE_MIN");
#define ERROR_SIZE_MIN 5  /* [3, code, [""]]: as long as the shortest request, [1, "", "", []] */
#define SHORT_TEXT_MAX 31 /* bytes of a text whose header is one byte */

enum { FLAG_EXECUTED_SHIFT = 4, FLAG_EXECUTED_MASK = 3 << FLAG_EXECUTED_SHIFT };

static struct evpt_writer writer_at_end(struct evpt_message *message)
{
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    return writer;
}

struct evpt_message *evpt_request_new(enum evpt_message_kind kind, const char *service,
                                      size_t service_size, const char *method, size_t method_size,
                                      size_t hint)
{
    assert(service_size <= EVPT_NAME_MAX && method_size <= EVPT_NAME_MAX);
    struct evpt_message *message =
        evpt_message_new(ENVELOPE_ROOM + service_size + method_size + hint);
    if (!message)
        return NULL;
    message->kind = (uint8_t)kind;
    struct evpt_writer writer = writer_at_end(message);
    bool fits = evpt_write_array(&writer, 5) &&
                evpt_write_int(&writer, kind == EVPT_MESSAGE_CALL ? 1 : 2) &&
                evpt_write_str(&writer, service, service_size) &&
                evpt_write_str(&writer, method, method_size);
    assert(fits);
    (void)fits; /* the room was reckoned above */
    message->method_at = (uint32_t)(writer.at - message->data - method_size);
    message->method_size = (uint32_t)method_size;
    message->args_at = (uint32_t)(writer.at - message->data);
    message->size = message->args_at;
    return message;
}

int evpt_request_finish(struct evpt_message **message, uint32_t source, uint64_t deadline_ns)
{
    struct evpt_message *grown = evpt_message_grow(*message, ENVELOPE_ROOM);
    if (!grown)
        return -ENOMEM;
    *message = grown;
    grown->args_size = grown->size - grown->args_at;
    grown->source = source;
    grown->deadline_ns = deadline_ns;
    struct evpt_writer writer = writer_at_end(grown);
    bool has_deadline = deadline_ns != EVPT_FOREVER;
    bool fits = evpt_write_map(&writer, has_deadline ? 2 : 1);
    if (has_deadline) {
        fits =
            fits && evpt_write_int(&writer, EVPT_META_DEADLINE) && evpt_write_fixed_u32(&writer, 0);
        grown->deadline_at = (uint32_t)(writer.at - grown->data - 4);
    }
    fits = fits && evpt_write_int(&writer, EVPT_META_SOURCE) && evpt_write_int(&writer, source);
    assert(fits);
    (void)fits;
    grown->size = (uint32_t)(writer.at - grown->data);
    return 0;
}

void evpt_request_patch_deadline(struct evpt_message *message, uint64_t now_ns)
{
    if (!message->deadline_at)
        return;
    uint64_t left_ns = message->deadline_ns > now_ns ? message->deadline_ns - now_ns : 0;
    uint64_t left_ms = (left_ns + EVPT_NS_PER_MS - 1) / EVPT_NS_PER_MS;
    if (left_ms == 0)
        left_ms = 1;
    evpt_patch_u32(message->data + message->deadline_at,
                   left_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)left_ms);
}

void evpt_request_add_takeover(struct evpt_message *message)
{
    struct evpt_writer writer = writer_at_end(message);
    message->data[message->args_at + message->args_size]++; /* the header of a small map */
    bool fits = evpt_write_int(&writer, EVPT_META_TAKEOVER) && evpt_write_int(&writer, 1);
    assert(fits);
    (void)fits; /* evpt_request_finish has made the room */
    message->size = (uint32_t)(writer.at - message->data);
}

static void take_meta(int64_t key, int64_t value, struct evpt_message *message, uint64_t now_ns,
                      struct evpt_request_info *info)
{
    if (key == EVPT_META_SOURCE) {
        info->source = (uint32_t)value;
    } else if (key == EVPT_META_TAKEOVER) {
        info->takeover = value != 0;
    } else {
        /* A negative rest has passed; a rest of more than a century is no deadline. */
        uint64_t ms = value < 0 ? 0 : (uint64_t)value;
        message->deadline_ns = ms > UINT64_C(1) << 42 ? EVPT_FOREVER : now_ns + ms * EVPT_NS_PER_MS;
    }
}

static bool is_known_meta(const struct evpt_item *key)
{
    return key->kind == EVPT_ITEM_INT &&
           (key->u.integer == EVPT_META_DEADLINE || key->u.integer == EVPT_META_SOURCE ||
            key->u.integer == EVPT_META_TAKEOVER);
}

/* Meta: {1: ms left, 3: source, 4: takeover}; what it does not know it steps over. */
static int parse_meta(struct evpt_reader *reader, struct evpt_message *message, uint64_t now_ns,
                      struct evpt_request_info *info)
{
    uint32_t pairs;
    int error = evpt_read_map(reader, &pairs);
    if (error)
        return error;
    for (uint32_t i = 0; i < pairs; i++) {
        struct evpt_item key;
        const uint8_t *key_at = reader->at;
        error = evpt_read_item(reader, &key);
        if (error)
            return error;
        if (is_known_meta(&key)) {
            int64_t value;
            error = evpt_read_int(reader, &value);
            if (error)
                return error;
            take_meta(key.u.integer, value, message, now_ns, info);
            continue;
        }
        reader->at =
            key_at; /* the key may be any value: step over it, then over what it stands for */
        error = evpt_read_skip(reader, DEPTH_MAX);
        if (!error)
            error = evpt_read_skip(reader, DEPTH_MAX);
        if (error)
            return error;
    }
    return 0;
}

int evpt_request_parse(struct evpt_message *message, uint64_t now_ns,
                       struct evpt_request_info *ret_info)
{
    struct evpt_reader reader;
    struct evpt_request_info info = {0};
    uint32_t count;
    int64_t kind;
    const char *method;
    evpt_reader_init(&reader, message->data, message->size);
    int error = evpt_read_array(&reader, &count);
    if (!error)
        error = count < 4 ? -EVPT_EFORMAT : evpt_read_int(&reader, &kind);
    if (!error && kind != 1 && kind != 2)
        error = -EVPT_EFORMAT;
    if (!error)
        error = evpt_read_str(&reader, &info.service, &info.service_size);
    if (!error)
        error = evpt_read_str(&reader, &method, &message->method_size);
    if (error)
        return error;
    message->kind = kind == 1 ? EVPT_MESSAGE_CALL : EVPT_MESSAGE_SEND;
    message->method_at = (uint32_t)((const uint8_t *)method - message->data);
    message->args_at = (uint32_t)(reader.at - message->data);
    struct evpt_reader args = reader;
    uint32_t arg_count;
    error = evpt_read_array(&args, &arg_count); /* peek: it must be an array */
    if (!error)
        error = evpt_read_skip(&reader, DEPTH_MAX);
    if (error)
        return error;
    message->args_size = (uint32_t)(reader.at - message->data) - message->args_at;
    message->deadline_ns = EVPT_FOREVER;
    message->deadline_at = 0;
    if (count >= 5) {
        error = parse_meta(&reader, message, now_ns, &info);
        if (error)
            return error;
    }
    for (uint32_t i = 5; i < count; i++) {
        error = evpt_read_skip(&reader, DEPTH_MAX);
        if (error)
            return error;
    }
    if (reader.at != reader.end)
        return -EVPT_EFORMAT; /* one value, and nothing behind it */
    *ret_info = info;
    return 0;
}

void evpt_request_service(const struct evpt_message *message, const char **ret_name,
                          uint32_t *ret_size)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, message->data + 2, message->size - 2); /* behind array and kind */
    int error = evpt_read_str(&reader, ret_name, ret_size);
    assert(error == 0);
    (void)error;
}

struct evpt_message *evpt_reply_new(size_t hint)
{
    struct evpt_message *message = evpt_message_new(4 + hint);
    if (!message)
        return NULL;
    message->kind = EVPT_MESSAGE_REPLY;
    message->data[0] = 0x93; /* array of 3: kind, code, results */
    message->data[1] = 3;
    message->data[2] = 0;
    message->args_at = message->size = 3;
    return message;
}

void evpt_reply_finish(struct evpt_message *message)
{
    message->args_size = message->size - message->args_at;
}

/* Turns an empty message with enough room into an error reply. */
static void write_error(struct evpt_message *message, int code, const char *text, size_t text_size)
{
    struct evpt_writer writer = writer_at_end(message);
    bool fits =
        evpt_write_array(&writer, 3) && evpt_write_int(&writer, 3) && evpt_write_int(&writer, code);
    message->args_at = (uint32_t)(writer.at - message->data);
    fits = fits && evpt_write_array(&writer, 1) && evpt_write_str(&writer, text, text_size);
    assert(fits);
    (void)fits;
    message->kind = EVPT_MESSAGE_REPLY;
    message->code = (uint16_t)code;
    message->size = (uint32_t)(writer.at - message->data);
    evpt_reply_finish(message);
}

struct evpt_message *evpt_reply_error(int code, const char *text, size_t text_size)
{
    struct evpt_message *message = evpt_message_new(4 * EVPT_ITEM_MAX + text_size);
    if (message)
        write_error(message, code, text, text_size);
    return message;
}

struct evpt_message *evpt_reply_from_block(void *block, size_t size, int code, const char *text,
                                           size_t text_size)
{
    struct evpt_message *reply = evpt_reply_error(code, text, text_size);
    if (reply) {
        evpt_sys_free(block);
        return reply;
    }
    assert(code < EVPT_CODE_COUNT && size >= EVPT_REPLY_BLOCK_MIN);
    reply = block;
    memset(reply, 0, sizeof(*reply));
    reply->deadline_ns = EVPT_FOREVER;
    reply->capacity = (uint32_t)(size - sizeof(*reply));
    size_t room = reply->capacity - ERROR_SIZE_MIN;
    if (room > SHORT_TEXT_MAX)
        room = SHORT_TEXT_MAX;
    write_error(reply, code, text, text_size < room ? text_size : room);
    return reply;
}

struct evpt_message *evpt_reply_instead(struct evpt_message *request, int code, const char *text,
                                        size_t text_size)
{
    return evpt_reply_from_block(request, sizeof(*request) + request->capacity, code, text,
                                 text_size);
}

int evpt_reply_parse(struct evpt_message *message)
{
    struct evpt_reader reader;
    uint32_t count, result_count;
    int64_t kind, code;
    evpt_reader_init(&reader, message->data, message->size);
    int error = evpt_read_array(&reader, &count);
    if (!error)
        error = count < 3 ? -EVPT_EFORMAT : evpt_read_int(&reader, &kind);
    if (!error)
        error = kind != 3 ? -EVPT_EFORMAT : evpt_read_int(&reader, &code);
    if (error)
        return error;
    if (code < 0 || code > UINT16_MAX)
        return -EVPT_EFORMAT;
    message->args_at = (uint32_t)(reader.at - message->data);
    struct evpt_reader results = reader;
    error = evpt_read_array(&results, &result_count);
    if (!error)
        error = evpt_read_skip(&reader, DEPTH_MAX);
    message->args_size = (uint32_t)(reader.at - message->data) - message->args_at;
    for (uint32_t i = 3; !error && i < count; i++)
        error = evpt_read_skip(&reader, DEPTH_MAX);
    if (error)
        return error;
    if (reader.at != reader.end)
        return -EVPT_EFORMAT;
    message->kind = EVPT_MESSAGE_REPLY;
    message->code = (uint16_t)code;
    return 0;
}

void evpt_reply_set_executed(struct evpt_message *message, enum evpt_executed executed)
{
    /* stored plus one: 0 is "as the code says" */
    message->flags = (uint8_t)((message->flags & ~FLAG_EXECUTED_MASK) |
                               (((unsigned)executed + 1) << FLAG_EXECUTED_SHIFT));
}

enum evpt_executed evpt_reply_executed(const struct evpt_message *message)
{
    unsigned stored = (message->flags & FLAG_EXECUTED_MASK) >> FLAG_EXECUTED_SHIFT;
    return stored ? (enum evpt_executed)(stored - 1) : evpt_code_executed(message->code);
}
