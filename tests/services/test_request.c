/* The envelope of requests and replies: what is written is read again, and nothing that strangers
 * write is read for more than it is. */
#include "support.h"

#include "cluster/msgpack.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS EVPT_NS_PER_MS

/* A message of exactly these bytes, so that a sanitizer sees each step too far. */
static struct evpt_message *exactly(const void *bytes, size_t size)
{
    struct evpt_message *message = evpt_message_new(size);
    CHECK(message);
    memcpy(message->data, bytes, size);
    message->size = (uint32_t)size;
    return message;
}

static struct evpt_writer writer_of(struct evpt_message *message)
{
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    return writer;
}

static void written(struct evpt_message *message, const struct evpt_writer *writer)
{
    message->size = (uint32_t)(writer->at - message->data);
}

/* Random values of all kinds, nested. */
static void write_value(struct evpt_writer *writer, uint64_t *random, int depth)
{
    uint32_t count = support_random(random) % 4;
    uint8_t bytes[40];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)support_random(random);
    switch (support_random(random) % (depth > 0 ? 7 : 5)) {
    case 0:
        CHECK(evpt_write_nil(writer));
        break;
    case 1:
        CHECK(evpt_write_bool(writer, support_random(random) & 1));
        break;
    case 2:
        CHECK(evpt_write_int(writer,
                             (int64_t)(support_random(random) >> support_random(random) % 64)));
        break;
    case 3:
        CHECK(evpt_write_float(writer, (double)support_random(random)));
        break;
    case 4:
        CHECK(evpt_write_str(writer, bytes, support_random(random) % sizeof(bytes)));
        break;
    case 5:
        CHECK(evpt_write_array(writer, count));
        while (count--)
            write_value(writer, random, depth - 1);
        break;
    case 6:
        CHECK(evpt_write_map(writer, count));
        while (count--) {
            write_value(writer, random, 0);
            write_value(writer, random, depth - 1);
        }
        break;
    }
}

static struct evpt_message *random_request(uint64_t *random, uint64_t deadline_ns, uint32_t source)
{
    char service[EVPT_NAME_MAX], method[EVPT_NAME_MAX];
    memset(service, 's', sizeof(service));
    memset(method, 'm', sizeof(method));
    struct evpt_message *message =
        evpt_request_new(support_random(random) & 1 ? EVPT_MESSAGE_CALL : EVPT_MESSAGE_SEND,
                         service, support_random(random) % (EVPT_NAME_MAX + 1), method,
                         support_random(random) % (EVPT_NAME_MAX + 1), 1 << 16);
    CHECK(message);
    struct evpt_writer writer = writer_of(message);
    uint32_t count = support_random(random) % 5;
    CHECK(evpt_write_array(&writer, count));
    while (count--)
        write_value(&writer, random, 4);
    written(message, &writer);
    CHECK(evpt_request_finish(&message, source, deadline_ns) == 0);
    return message;
}

/* ---- there and back ---- */

START_TEST(test_request_comes_back_as_it_was_written)
{
    uint64_t random = support_seed();
    for (int i = 0; i < 2000; i++) {
        uint32_t source = (uint32_t)support_random(&random);
        uint64_t now_ns = support_random(&random) >> 8;
        uint64_t ms = support_random(&random) % 100000 + 1;
        bool has_deadline = i % 3;
        struct evpt_message *sent =
            random_request(&random, has_deadline ? now_ns + ms * MS : EVPT_FOREVER, source);
        const char *name;
        uint32_t name_size;
        evpt_request_service(sent, &name, &name_size);
        evpt_request_patch_deadline(sent, now_ns);
        bool takeover = i % 5 == 0;
        if (takeover)
            evpt_request_add_takeover(sent);

        struct evpt_message *got = exactly(sent->data, sent->size);
        struct evpt_request_info info;
        CHECK(evpt_request_parse(got, now_ns, &info) == 0);
        CHECK(got->kind == sent->kind);
        CHECK(info.service_size == name_size && memcmp(info.service, name, name_size) == 0);
        CHECK(got->method_at == sent->method_at && got->method_size == sent->method_size);
        CHECK(got->args_at == sent->args_at && got->args_size == sent->args_size);
        CHECK(info.source == source);
        CHECK(info.takeover == takeover);
        CHECK(got->deadline_ns == (has_deadline ? now_ns + ms * MS : EVPT_FOREVER));
        evpt_message_free(sent);
        evpt_message_free(got);
    }
}
END_TEST

START_TEST(test_request_deadline_is_rounded_up_and_never_nothing)
{
    static const struct {
        uint64_t left_ns;
        uint64_t ms;
    } cases[] = {{0, 1},
                 {1, 1},
                 {MS, 1},
                 {MS + 1, 2},
                 {5000 * MS, 5000},
                 {UINT64_C(4294967295) * MS, UINT32_MAX},
                 {UINT64_C(5000000000) * MS, UINT32_MAX}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct evpt_request_info info;
        struct evpt_message *message = support_request(EVPT_MESSAGE_CALL, 0, 0, 1, 0);
        message->size = message->args_at + message->args_size; /* without its meta */
        ck_assert_int_eq(evpt_request_finish(&message, 7, 1000 + cases[i].left_ns), 0);
        evpt_request_patch_deadline(message, 1000);
        ck_assert_int_eq(evpt_request_parse(message, 1000, &info), 0);
        ck_assert_uint_eq(message->deadline_ns, 1000 + cases[i].ms * MS);
        evpt_message_free(message);
    }
    /* one that has passed */
    struct evpt_request_info info;
    struct evpt_message *message = support_request(EVPT_MESSAGE_CALL, 0, 0, 1, 0);
    message->size = message->args_at + message->args_size;
    ck_assert_int_eq(evpt_request_finish(&message, 7, 1000), 0);
    evpt_request_patch_deadline(message, 2000);
    ck_assert_int_eq(evpt_request_parse(message, 0, &info), 0);
    ck_assert_uint_eq(message->deadline_ns, MS);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_request_without_memory_stays_the_callers)
{
    support_fail_allocation(1);
    ck_assert_ptr_null(evpt_request_new(EVPT_MESSAGE_CALL, "s", 1, "m", 1, 0));
    support_fail_allocation(0);
    struct evpt_message *message = evpt_request_new(EVPT_MESSAGE_CALL, "s", 1, "m", 1, 0);
    message->data[message->size++] = 0x90;
    message->capacity = message->size;
    struct evpt_message *before = message;
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_request_finish(&message, 1, EVPT_FOREVER), -ENOMEM);
    support_fail_allocation(0);
    ck_assert_ptr_eq(message, before);
    ck_assert_int_eq(evpt_request_finish(&message, 1, EVPT_FOREVER), 0);
    evpt_message_free(message);
}
END_TEST

/* ---- what others may write ---- */

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static int parse(const uint8_t *bytes, size_t size, struct evpt_message **ret_message,
                 struct evpt_request_info *ret_info)
{
    struct evpt_message *message = exactly(bytes, size);
    int error = evpt_request_parse(message, 1000 * MS, ret_info);
    if (ret_message && !error)
        *ret_message = message;
    else
        evpt_message_free(message);
    return error;
}

START_TEST(test_request_of_other_writers_is_read)
{
    struct evpt_message *message;
    struct evpt_request_info info;
    /* the shortest one; meta left out */
    ck_assert_int_eq(parse(BYTES(0x94, 1, 0xa0, 0xa0, 0x90), &message, &info), 0);
    ck_assert_int_eq(message->kind, EVPT_MESSAGE_CALL);
    ck_assert_uint_eq(message->args_size, 1);
    ck_assert_uint_eq(message->deadline_ns, EVPT_FOREVER);
    ck_assert_uint_eq(info.source, 0);
    evpt_message_free(message);
    /* long forms of everything: array 32, int 64, str 32, bin 8, array 16, map 16 */
    ck_assert_int_eq(parse(BYTES(0xdd, 0, 0, 0, 5, 0xd3, 0, 0, 0, 0, 0, 0, 0, 2, 0xdb, 0, 0, 0, 1,
                                 's', 0xc4, 1, 'm', 0xdc, 0, 1, 0xc0, 0xde, 0, 1, 1, 0xcd, 1, 0),
                           &message, &info),
                     0);
    ck_assert_int_eq(message->kind, EVPT_MESSAGE_SEND);
    ck_assert_uint_eq(info.service_size, 1);
    ck_assert_uint_eq(message->method_size, 1);
    ck_assert_uint_eq(message->args_size, 4);
    ck_assert_uint_eq(message->deadline_ns, 1000 * MS + 256 * MS);
    evpt_message_free(message);
    /* what it does not know: meta keys of any kind, elements behind the meta */
    ck_assert_int_eq(parse(BYTES(0x97, 1, 0xa0, 0xa0, 0x90,              /**/
                                 0x86, 9, 0xc0, 0xa1, 'k', 0x91, 1,      /* 9: nil, "k": [1] */
                                 0x91, 1, 2, 0x81, 1, 2, 3,              /* [1]: 2, {1: 2}: 3 */
                                 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 7, 3, 42, /* 0.0: 7, 3: 42 */
                                 0xc0, 0x81, 1, 0x90),                   /* nil, {1: []} */
                           &message, &info),
                     0);
    ck_assert_uint_eq(info.source, 42);
    ck_assert_uint_eq(message->deadline_ns, EVPT_FOREVER);
    evpt_message_free(message);
    /* deadlines that have passed, that never come */
    ck_assert_int_eq(parse(BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 1, 0xff), &message, &info), 0);
    ck_assert_uint_eq(message->deadline_ns, 1000 * MS);
    evpt_message_free(message);
    ck_assert_int_eq(parse(BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 1, 0xcf, 0x7f, 0xff, 0xff, 0xff,
                                 0xff, 0xff, 0xff, 0xff),
                           &message, &info),
                     0);
    ck_assert_uint_eq(message->deadline_ns, EVPT_FOREVER);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_request_that_is_none_is_refused)
{
    const struct {
        const uint8_t *bytes;
        size_t size;
        const char *what;
    } cases[] = {
        {BYTES(0x93, 1, 0xa0, 0xa0), "three elements"},
        {BYTES(0x90), "an empty array"},
        {BYTES(0x80), "a map"},
        {BYTES(0xc0), "nil"},
        {BYTES(0xa5, 'h', 'e', 'l', 'l', 'o'), "a string"},
        {BYTES(0x94, 0, 0xa0, 0xa0, 0x90), "kind 0"},
        {BYTES(0x94, 3, 0xa0, 0xa0, 0x90), "a reply"},
        {BYTES(0x94, 0xff, 0xa0, 0xa0, 0x90), "kind -1"},
        {BYTES(0x94, 0xc3, 0xa0, 0xa0, 0x90), "kind true"},
        {BYTES(0x94, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xa0, 0xa0, 0x90), "kind 1.0"},
        {BYTES(0x94, 1, 7, 0xa0, 0x90), "a number as service"},
        {BYTES(0x94, 1, 0xa0, 0xc0, 0x90), "nil as method"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0x80), "a map as arguments"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0xa1, 'x'), "a string as arguments"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0x91), "an argument that is missing"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0x91, 0xc1), "a byte that is never used"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0x91, 0xd4, 1, 2), "an extension"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0xdd, 0xff, 0xff, 0xff, 0xff), "four thousand million"},
        {BYTES(0x94, 1, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x', 0xa0, 0x90),
         "a string that is not there"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0xc0), "nil as meta"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x90), "an array as meta"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 1), "a meta value that is missing"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 1, 0xa1, 'x'), "a deadline that is a string"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 3, 0xc0), "a source that is nil"},
        {BYTES(0x95, 1, 0xa0, 0xa0, 0x90, 0x81, 9, 0xc1), "an unknown key's bad value"},
        {BYTES(0x96, 1, 0xa0, 0xa0, 0x90, 0x80), "an element that is missing"},
        {BYTES(0x94, 1, 0xa0, 0xa0, 0x90, 0xc0), "something behind it"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct evpt_request_info info;
        ck_assert_msg(parse(cases[i].bytes, cases[i].size, NULL, &info) < 0, "taken: %s",
                      cases[i].what);
    }
    struct evpt_request_info info;
    ck_assert_int_lt(parse((const uint8_t *)"", 0, NULL, &info), 0);
}
END_TEST

START_TEST(test_request_cut_short_is_refused_wherever_it_is_cut)
{
    uint64_t random = support_seed();
    for (int i = 0; i < 50; i++) {
        struct evpt_message *message = random_request(&random, 5, 5);
        struct evpt_request_info info;
        for (uint32_t size = 0; size < message->size; size++)
            CHECK(parse(message->data, size, NULL, &info) < 0);
        evpt_message_free(message);
    }
}
END_TEST

/* 64 levels of tables in an argument may travel. */
START_TEST(test_request_depth_is_bounded)
{
    uint8_t bytes[300] = {0x94, 1, 0xa0, 0xa0, 0x91};
    struct evpt_request_info info;
    for (size_t depth = 1; depth <= 200; depth++) {
        memset(bytes + 5, 0x91, depth); /* an array in an array in ... */
        bytes[5 + depth] = 0xc0;
        int error = parse(bytes, 6 + depth, NULL, &info);
        ck_assert_int_eq(error, depth <= 64 ? 0 : -EVPT_EDEPTH);
    }
}
END_TEST

static void check_parsed(const struct evpt_message *message, const struct evpt_request_info *info)
{
    const char *begin = (const char *)message->data, *end = begin + message->size;
    CHECK(info->service >= begin && info->service + info->service_size <= end);
    CHECK(message->method_at <= message->size &&
          message->method_size <= message->size - message->method_at);
    CHECK(message->args_at <= message->size &&
          message->args_size <= message->size - message->args_at);
    struct evpt_reader reader;
    uint32_t count;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0);
    while (count--)
        CHECK(evpt_read_skip(&reader, 64) == 0);
    CHECK(reader.at == reader.end);
    CHECK(message->kind == EVPT_MESSAGE_CALL || message->kind == EVPT_MESSAGE_SEND);
}

/* Bytes changed, put in and taken out. */
static size_t mutate(uint8_t *bytes, size_t size, size_t room, uint64_t *random)
{
    static const uint8_t nasty[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xc0, 0xc1, 0xc4, 0xc6,
                                    0xc7, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xdf, 0xff};
    for (uint64_t times = support_random(random) % 4 + 1; times && size; times--) {
        size_t at = support_random(random) % size;
        uint8_t byte = support_random(random) & 1 ? (uint8_t)support_random(random)
                                                  : nasty[support_random(random) % sizeof(nasty)];
        switch (support_random(random) % 4) {
        case 0:
        case 1:
            bytes[at] = byte;
            break;
        case 2:
            memmove(bytes + at, bytes + at + 1, --size - at);
            break;
        case 3:
            if (size < room) {
                memmove(bytes + at + 1, bytes + at, size++ - at);
                bytes[at] = byte;
            }
            break;
        }
    }
    return size;
}

START_TEST(test_request_mutated_is_read_or_refused_and_nothing_else)
{
    uint64_t random = support_seed();
    int taken = 0, refused = 0;
    uint8_t bytes[4096];
    for (int i = 0; i < 30000; i++) {
        struct evpt_message *message, *original = random_request(&random, 5, 5);
        size_t size = original->size < 2000 ? original->size : 2000;
        memcpy(bytes, original->data, size);
        evpt_message_free(original);
        size = mutate(bytes, size, sizeof(bytes), &random);
        struct evpt_request_info info;
        if (parse(bytes, size, &message, &info) == 0) {
            check_parsed(message, &info);
            evpt_message_free(message);
            taken++;
        } else {
            refused++;
        }
    }
    ck_assert_int_gt(taken, 100); /* or the mutations are too wild to find anything */
    ck_assert_int_gt(refused, 100);
}
END_TEST

/* ---- replies ---- */

START_TEST(test_reply_comes_back_as_it_was_written)
{
    uint64_t random = support_seed();
    for (int i = 0; i < 1000; i++) {
        struct evpt_message *sent = evpt_reply_new(1 << 16);
        struct evpt_writer writer = writer_of(sent);
        uint32_t count = support_random(&random) % 5;
        CHECK(evpt_write_array(&writer, count));
        while (count--)
            write_value(&writer, &random, 4);
        written(sent, &writer);
        evpt_reply_finish(sent);
        struct evpt_message *got = exactly(sent->data, sent->size);
        CHECK(evpt_reply_parse(got) == 0);
        CHECK(got->kind == EVPT_MESSAGE_REPLY && got->code == 0);
        CHECK(got->args_at == sent->args_at && got->args_size == sent->args_size);
        evpt_message_free(sent);
        evpt_message_free(got);
    }
}
END_TEST

START_TEST(test_reply_error_comes_back_with_code_and_text)
{
    static const int codes[] = {1, 11, 12, 127, 128, 255, 256, 65535};
    char text[1000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        for (size_t size = 0; size < 300; size += 37) {
            struct evpt_message *sent = evpt_reply_error(codes[i], text, size);
            struct evpt_message *got = exactly(sent->data, sent->size);
            ck_assert_int_eq(evpt_reply_parse(got), 0);
            ck_assert_int_eq(got->code, codes[i]);
            ck_assert_int_eq(sent->code, codes[i]);
            ck_assert_uint_eq(strlen(support_error_text(got)), size < 255 ? size : 255);
            ck_assert_uint_eq(got->args_at, sent->args_at);
            ck_assert_uint_eq(got->args_size, sent->args_size);
            evpt_message_free(sent);
            evpt_message_free(got);
        }
    }
}
END_TEST

START_TEST(test_reply_that_is_none_is_refused)
{
    const struct {
        const uint8_t *bytes;
        size_t size;
        const char *what;
    } cases[] = {
        {BYTES(0x92, 3, 0), "two elements"},
        {BYTES(0x93, 1, 0, 0x90), "a call"},
        {BYTES(0x93, 3, 0xff, 0x90), "code -1"},
        {BYTES(0x93, 3, 0xce, 0, 1, 0, 0, 0x90), "code 65536"},
        {BYTES(0x93, 3, 0xc0, 0x90), "code nil"},
        {BYTES(0x93, 3, 0, 0xc0), "nil as results"},
        {BYTES(0x93, 3, 0, 0x80), "a map as results"},
        {BYTES(0x93, 3, 7, 0xa1, 'x'), "a bare text"},
        {BYTES(0x93, 3, 0, 0x91), "a result that is missing"},
        {BYTES(0x94, 3, 0, 0x90), "an element that is missing"},
        {BYTES(0x93, 3, 0, 0x90, 0), "something behind it"},
        {BYTES(0x83, 3, 0, 1, 0, 2, 0), "a map"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct evpt_message *message = exactly(cases[i].bytes, cases[i].size);
        ck_assert_msg(evpt_reply_parse(message) < 0, "taken: %s", cases[i].what);
        evpt_message_free(message);
    }
    struct evpt_message *longer = exactly(BYTES(0x95, 3, 0, 0x90, 0xc0, 0x81, 1, 2));
    ck_assert_int_eq(evpt_reply_parse(longer), 0); /* elements of a later version */
    evpt_message_free(longer);
}
END_TEST

START_TEST(test_reply_mutated_is_read_or_refused_and_nothing_else)
{
    uint64_t random = support_seed();
    int taken = 0;
    for (int i = 0; i < 30000; i++) {
        uint8_t bytes[512];
        struct evpt_message *original = evpt_reply_new(4096);
        struct evpt_writer writer = writer_of(original);
        CHECK(evpt_write_array(&writer, 1));
        write_value(&writer, &random, 3);
        written(original, &writer);
        size_t size = original->size < 400 ? original->size : 400;
        memcpy(bytes, original->data, size);
        evpt_message_free(original);
        size = mutate(bytes, size, sizeof(bytes), &random);
        struct evpt_message *message = exactly(bytes, size);
        if (evpt_reply_parse(message) == 0) {
            taken++;
            CHECK(message->args_at <= message->size &&
                  message->args_size <= message->size - message->args_at);
            struct evpt_reader reader;
            evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
            CHECK(evpt_read_skip(&reader, 65) == 0 && reader.at == reader.end);
        }
        evpt_message_free(message);
    }
    ck_assert_int_gt(taken, 100);
}
END_TEST

START_TEST(test_reply_executed_is_what_was_set_or_what_the_code_says)
{
    for (int code = 0; code < EVPT_CODE_COUNT; code++) {
        struct evpt_message *reply = evpt_reply_error(code, "", 0);
        ck_assert_int_eq(evpt_reply_executed(reply), evpt_code_executed(code));
        reply->flags |= EVPT_MESSAGE_REMOTE;
        for (int executed = EVPT_EXECUTED_YES; executed >= EVPT_EXECUTED_NO; executed--) {
            evpt_reply_set_executed(reply, (enum evpt_executed)executed);
            ck_assert_int_eq(evpt_reply_executed(reply), executed);
            ck_assert(reply->flags & EVPT_MESSAGE_REMOTE);
        }
        evpt_message_free(reply);
    }
}
END_TEST

START_TEST(test_reply_instead_takes_the_requests_memory_where_there_is_no_other)
{
    static const char text[] = "a text that is longer than what fits into a short string's header";
    for (int refused = 0; refused <= 1; refused++) {
        struct evpt_message *request = support_request(EVPT_MESSAGE_CALL, 1, 2, 3, 4);
        request->flags = EVPT_MESSAGE_REMOTE;
        support_fail_allocation(refused);
        struct evpt_message *reply = evpt_reply_instead(request, 5, text, strlen(text));
        support_fail_allocation(0);
        struct evpt_message *got = exactly(reply->data, reply->size);
        ck_assert_int_eq(evpt_reply_parse(got), 0);
        ck_assert_int_eq(got->code, 5);
        ck_assert_int_eq(reply->kind, EVPT_MESSAGE_REPLY);
        ck_assert_int_eq(evpt_reply_executed(reply), EVPT_EXECUTED_NO);
        ck_assert_int_eq(strncmp(support_error_text(got), text, strlen(support_error_text(got))),
                         0);
        ck_assert_uint_ge(strlen(support_error_text(got)), refused ? 10 : strlen(text));
        ck_assert_uint_eq(reply->args_at, got->args_at);
        evpt_message_free(reply);
        evpt_message_free(got);
    }
    /* the shortest request there is */
    struct evpt_message *request = exactly(BYTES(0x94, 1, 0xa0, 0xa0, 0x90));
    support_fail_allocation(1);
    struct evpt_message *reply = evpt_reply_instead(request, 11, text, strlen(text));
    support_fail_allocation(0);
    ck_assert_ptr_eq(reply, request);
    ck_assert_int_eq(evpt_reply_parse(reply), 0);
    ck_assert_str_eq(support_error_text(reply), "");
    evpt_message_free(reply);
}
END_TEST

SUPPORT_MAIN("request", test_request_comes_back_as_it_was_written,
             test_request_deadline_is_rounded_up_and_never_nothing,
             test_request_without_memory_stays_the_callers, test_request_of_other_writers_is_read,
             test_request_that_is_none_is_refused,
             test_request_cut_short_is_refused_wherever_it_is_cut, test_request_depth_is_bounded,
             test_request_mutated_is_read_or_refused_and_nothing_else,
             test_reply_comes_back_as_it_was_written,
             test_reply_error_comes_back_with_code_and_text, test_reply_that_is_none_is_refused,
             test_reply_mutated_is_read_or_refused_and_nothing_else,
             test_reply_executed_is_what_was_set_or_what_the_code_says,
             test_reply_instead_takes_the_requests_memory_where_there_is_no_other)
