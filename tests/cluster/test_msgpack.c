#include "cluster/msgpack.h"

#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#if HAVE_MSGPACK_C
#include <msgpack.h>
#endif

/* A reader over a copy that ends where the bytes end: a step too far is seen by the sanitizer. */
struct copy {
    uint8_t *bytes;
    struct evpt_reader reader;
};

static struct copy copy_of(const void *bytes, size_t size)
{
    struct copy copy = {.bytes = malloc(size ? size : 1)};
    if (size)
        memcpy(copy.bytes, bytes, size);
    evpt_reader_init(&copy.reader, copy.bytes, size);
    return copy;
}

static int read_one(const void *bytes, size_t size, struct evpt_item *item)
{
    struct copy copy = copy_of(bytes, size);
    int error = evpt_read_item(&copy.reader, item);
    if (error)
        ck_assert_ptr_eq(copy.reader.at, copy.bytes);
    free(copy.bytes);
    return error;
}

/* ---- integers ---- */

struct integer {
    int64_t value;
    uint8_t size;
    uint8_t bytes[9];
};

static const struct integer integers[] = {
    {0, 1, {0x00}},
    {1, 1, {0x01}},
    {127, 1, {0x7f}},
    {128, 2, {0xcc, 0x80}},
    {255, 2, {0xcc, 0xff}},
    {256, 3, {0xcd, 0x01, 0x00}},
    {65535, 3, {0xcd, 0xff, 0xff}},
    {65536, 5, {0xce, 0, 1, 0, 0}},
    {UINT32_MAX, 5, {0xce, 0xff, 0xff, 0xff, 0xff}},
    {INT64_C(1) << 32, 9, {0xcf, 0, 0, 0, 1, 0, 0, 0, 0}},
    {INT64_MAX, 9, {0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
    {-1, 1, {0xff}},
    {-32, 1, {0xe0}},
    {-33, 2, {0xd0, 0xdf}},
    {-128, 2, {0xd0, 0x80}},
    {-129, 3, {0xd1, 0xff, 0x7f}},
    {-32768, 3, {0xd1, 0x80, 0x00}},
    {-32769, 5, {0xd2, 0xff, 0xff, 0x7f, 0xff}},
    {INT32_MIN, 5, {0xd2, 0x80, 0, 0, 0}},
    {INT32_MIN - INT64_C(1), 9, {0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}},
    {INT64_MIN, 9, {0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}},
};

START_TEST(test_msgpack_integer_takes_its_shortest_form_and_comes_back)
{
    const struct integer *integer = &integers[_i];
    uint8_t bytes[9];
    struct evpt_writer writer;
    evpt_writer_init(&writer, bytes, integer->size);
    ck_assert(evpt_write_int(&writer, integer->value));
    ck_assert_ptr_eq(writer.at, writer.end);
    ck_assert_mem_eq(bytes, integer->bytes, integer->size);

    struct copy copy = copy_of(bytes, integer->size);
    int64_t value;
    ck_assert_int_eq(evpt_read_int(&copy.reader, &value), 0);
    ck_assert_int_eq(value, integer->value);
    ck_assert_ptr_eq(copy.reader.at, copy.reader.end);
    free(copy.bytes);
}
END_TEST

START_TEST(test_msgpack_integer_is_read_in_longer_forms_too)
{
    static const struct integer longer[] = {
        {5, 2, {0xcc, 5}},
        {5, 3, {0xcd, 0, 5}},
        {5, 5, {0xce, 0, 0, 0, 5}},
        {5, 9, {0xcf, 0, 0, 0, 0, 0, 0, 0, 5}},
        {5, 2, {0xd0, 5}},
        {5, 3, {0xd1, 0, 5}},
        {5, 5, {0xd2, 0, 0, 0, 5}},
        {5, 9, {0xd3, 0, 0, 0, 0, 0, 0, 0, 5}},
        {-5, 9, {0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb}},
        {200, 2, {0xcc, 200}},
        {INT64_C(0xffffffff), 5, {0xce, 0xff, 0xff, 0xff, 0xff}},
    };
    for (size_t i = 0; i < sizeof longer / sizeof longer[0]; i++) {
        struct evpt_item item;
        ck_assert_int_eq(read_one(longer[i].bytes, longer[i].size, &item), 0);
        ck_assert_int_eq(item.kind, EVPT_ITEM_INT);
        ck_assert_int_eq(item.u.integer, longer[i].value);
    }
}
END_TEST

START_TEST(test_msgpack_unsigned_beyond_int64_is_refused)
{
    struct evpt_item item;
    ck_assert_int_eq(read_one("\xcf\x80\0\0\0\0\0\0\0", 9, &item), -EVPT_EFORMAT);
    ck_assert_int_eq(read_one("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9, &item), -EVPT_EFORMAT);
}
END_TEST

/* ---- floats, nil, booleans ---- */

START_TEST(test_msgpack_float_stays_a_float)
{
    static const double values[] = {0.0, -0.0, 1.0, -2.5, 1e308, 5e-324, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        uint8_t bytes[9];
        struct evpt_writer writer;
        struct evpt_item item;
        evpt_writer_init(&writer, bytes, sizeof bytes);
        ck_assert(evpt_write_float(&writer, values[i]));
        ck_assert_int_eq(read_one(bytes, sizeof bytes, &item), 0);
        ck_assert_int_eq(item.kind, EVPT_ITEM_FLOAT);
        ck_assert_mem_eq(&item.u.real, &values[i], sizeof(double));
    }
    struct evpt_item item;
    ck_assert_int_eq(read_one("\xca\x3f\xc0\0\0", 5, &item), 0); /* float 32 */
    ck_assert_int_eq(item.kind, EVPT_ITEM_FLOAT);
    ck_assert_double_eq(item.u.real, 1.5);
    ck_assert_int_eq(read_one("\xcb\x7f\xf8\0\0\0\0\0\0", 9, &item), 0);
    ck_assert(isnan(item.u.real));
}
END_TEST

START_TEST(test_msgpack_nil_and_booleans)
{
    uint8_t bytes[3];
    struct evpt_writer writer;
    evpt_writer_init(&writer, bytes, sizeof bytes);
    ck_assert(evpt_write_nil(&writer));
    ck_assert(evpt_write_bool(&writer, true));
    ck_assert(evpt_write_bool(&writer, false));
    ck_assert_mem_eq(bytes, "\xc0\xc3\xc2", 3);
    struct evpt_reader reader;
    struct evpt_item item;
    evpt_reader_init(&reader, bytes, sizeof bytes);
    ck_assert(!evpt_read_item(&reader, &item) && item.kind == EVPT_ITEM_NIL);
    ck_assert(!evpt_read_item(&reader, &item) && item.kind == EVPT_ITEM_BOOL && item.u.boolean);
    ck_assert(!evpt_read_item(&reader, &item) && item.kind == EVPT_ITEM_BOOL && !item.u.boolean);
    ck_assert_int_eq(evpt_read_item(&reader, &item), -EVPT_ETRUNCATED);
}
END_TEST

/* ---- strings and containers ---- */

START_TEST(test_msgpack_string_of_every_header_comes_back)
{
    static const struct {
        uint32_t size;
        uint8_t head_size, first;
    } strings[] = {{0, 1, 0xa0},     {1, 1, 0xa1},     {31, 1, 0xbf},
                   {32, 2, 0xd9},    {255, 2, 0xd9},   {256, 3, 0xda},
                   {65535, 3, 0xda}, {65536, 5, 0xdb}, {70000, 5, 0xdb}};
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        uint32_t size = strings[i].size;
        size_t total = size + strings[i].head_size;
        uint8_t *text = malloc(size + 1), *bytes = malloc(total);
        memset(text, (int)(i + 1), size);
        struct evpt_writer writer;
        evpt_writer_init(&writer, bytes, total - 1);
        ck_assert(!evpt_write_str(&writer, text, size));
        ck_assert_ptr_eq(writer.at, bytes);
        evpt_writer_init(&writer, bytes, total);
        ck_assert(evpt_write_str(&writer, text, size));
        ck_assert_ptr_eq(writer.at, writer.end);
        ck_assert_uint_eq(bytes[0], strings[i].first);

        struct copy copy = copy_of(bytes, total);
        const char *back;
        uint32_t back_size;
        ck_assert_int_eq(evpt_read_str(&copy.reader, &back, &back_size), 0);
        ck_assert_uint_eq(back_size, size);
        ck_assert(size == 0 || memcmp(back, text, size) == 0);
        free(copy.bytes);
        struct evpt_item item;
        for (size_t cut = total; cut-- > (total > 600 ? total - 600 : 0);)
            ck_assert_int_eq(read_one(bytes, cut, &item), -EVPT_ETRUNCATED);
        free(text);
        free(bytes);
    }
}
END_TEST

START_TEST(test_msgpack_bin_is_read_as_bytes)
{
    static const char *const bins[] = {"\xc4\x02hi", "\xc5\0\x02hi", "\xc6\0\0\0\x02hi"};
    static const size_t sizes[] = {4, 5, 7};
    for (int i = 0; i < 3; i++) {
        struct evpt_item item;
        ck_assert_int_eq(read_one(bins[i], sizes[i], &item), 0);
        ck_assert_int_eq(item.kind, EVPT_ITEM_STR);
        ck_assert_uint_eq(item.size, 2);
        ck_assert_int_eq(read_one(bins[i], sizes[i] - 1, &item), -EVPT_ETRUNCATED);
    }
}
END_TEST

START_TEST(test_msgpack_container_header_takes_its_shortest_form)
{
    static const struct {
        uint32_t count;
        size_t size;
        const char *array, *map;
    } heads[] = {{0, 1, "\x90", "\x80"},
                 {15, 1, "\x9f", "\x8f"},
                 {16, 3, "\xdc\0\x10", "\xde\0\x10"},
                 {65535, 3, "\xdc\xff\xff", "\xde\xff\xff"},
                 {65536, 5, "\xdd\0\1\0\0", "\xdf\0\1\0\0"},
                 {UINT32_MAX, 5, "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff"}};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        uint8_t bytes[5];
        struct evpt_writer writer;
        evpt_writer_init(&writer, bytes, heads[i].size);
        ck_assert(evpt_write_array(&writer, heads[i].count));
        ck_assert_ptr_eq(writer.at, writer.end);
        ck_assert_mem_eq(bytes, heads[i].array, heads[i].size);
        evpt_writer_init(&writer, bytes, heads[i].size);
        ck_assert(evpt_write_map(&writer, heads[i].count));
        ck_assert_mem_eq(bytes, heads[i].map, heads[i].size);
    }
}
END_TEST

START_TEST(test_msgpack_count_is_believed_only_as_far_as_bytes_are_left)
{
    struct evpt_item item;
    ck_assert_int_eq(read_one("\xdd\xff\xff\xff\xff", 5, &item), -EVPT_ETRUNCATED);
    ck_assert_int_eq(read_one("\xdf\xff\xff\xff\xff", 5, &item), -EVPT_ETRUNCATED);
    ck_assert_int_eq(read_one("\xdb\xff\xff\xff\xff", 5, &item), -EVPT_ETRUNCATED);
    ck_assert_int_eq(read_one("\x93\x01\x02", 3, &item), -EVPT_ETRUNCATED);
    ck_assert_int_eq(read_one("\x93\x01\x02\x03", 4, &item), 0);
    ck_assert_int_eq(read_one("\x82\x01\x02\x03", 4, &item), -EVPT_ETRUNCATED);
    ck_assert_int_eq(read_one("\x82\x01\x02\x03\x04", 5, &item), 0);
    /* 0x80000001 pairs: twice that is 2 in 32 bits */
    ck_assert_int_eq(read_one("\xdf\x80\0\0\x01\x01\x01", 7, &item), -EVPT_ETRUNCATED);
}
END_TEST

START_TEST(test_msgpack_what_lua_has_no_value_for_is_refused)
{
    static const uint8_t firsts[] = {0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8};
    for (size_t i = 0; i < sizeof firsts; i++) {
        uint8_t bytes[20] = {firsts[i], 1, 1};
        struct evpt_item item;
        ck_assert_int_eq(read_one(bytes, sizeof bytes, &item), -EVPT_EFORMAT);
        struct copy copy = copy_of(bytes, sizeof bytes);
        ck_assert_int_eq(evpt_read_skip(&copy.reader, 4), -EVPT_EFORMAT);
        ck_assert_ptr_eq(copy.reader.at, copy.bytes);
        free(copy.bytes);
    }
}
END_TEST

START_TEST(test_msgpack_item_of_another_kind_leaves_reader_and_outputs_alone)
{
    struct copy copy = copy_of("\xa2hi", 3);
    uint32_t count = 77, size = 77;
    int64_t value = 77;
    const char *bytes = NULL;
    ck_assert_int_eq(evpt_read_array(&copy.reader, &count), -EVPT_EFORMAT);
    ck_assert_int_eq(evpt_read_map(&copy.reader, &count), -EVPT_EFORMAT);
    ck_assert_int_eq(evpt_read_int(&copy.reader, &value), -EVPT_EFORMAT);
    ck_assert_uint_eq(count, 77);
    ck_assert_int_eq(value, 77);
    ck_assert_int_eq(evpt_read_str(&copy.reader, &bytes, &size), 0);
    ck_assert_int_eq(evpt_read_str(&copy.reader, &bytes, &size), -EVPT_ETRUNCATED);
    ck_assert_uint_eq(size, 2);
    free(copy.bytes);
}
END_TEST

START_TEST(test_msgpack_writer_that_is_full_writes_nothing)
{
    uint8_t bytes[9];
    struct evpt_writer writer;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        for (size_t room = 0; room < integers[i].size; room++) {
            memset(bytes, 0xee, sizeof bytes);
            evpt_writer_init(&writer, bytes, room);
            ck_assert(!evpt_write_int(&writer, integers[i].value));
            ck_assert_ptr_eq(writer.at, bytes);
            ck_assert_uint_eq(bytes[0], 0xee);
        }
    }
    evpt_writer_init(&writer, bytes, 8);
    ck_assert(!evpt_write_float(&writer, 1.0));
    evpt_writer_init(&writer, bytes, 4);
    ck_assert(!evpt_write_fixed_u32(&writer, 1));
    evpt_writer_init(&writer, bytes, 2);
    ck_assert(!evpt_write_array(&writer, 16));
    ck_assert(!evpt_write_map(&writer, 16));
    evpt_writer_init(&writer, bytes, 0);
    ck_assert(!evpt_write_nil(&writer));
    ck_assert(!evpt_write_bool(&writer, true));
    ck_assert(!evpt_write_str(&writer, NULL, 0));
    ck_assert_ptr_eq(writer.at, bytes);
}
END_TEST

START_TEST(test_msgpack_fixed_u32_is_patched_in_place)
{
    uint8_t bytes[5];
    struct evpt_writer writer;
    struct evpt_item item;
    evpt_writer_init(&writer, bytes, sizeof bytes);
    ck_assert(evpt_write_fixed_u32(&writer, 3));
    ck_assert_mem_eq(bytes, "\xce\0\0\0\x03", 5);
    evpt_patch_u32(bytes + 1, 0xfffefdfc);
    ck_assert_int_eq(read_one(bytes, sizeof bytes, &item), 0);
    ck_assert_int_eq(item.u.integer, INT64_C(0xfffefdfc));
}
END_TEST

/* ---- skipping ---- */

START_TEST(test_msgpack_skip_takes_exactly_one_value)
{
    static const uint8_t bytes[] = {0x93, 0x01, 0x82, 0xa1, 'k', 0x90, 0x02, 0x80, 0xc0, /* next: */
                                    0x2a};
    struct copy copy = copy_of(bytes, sizeof bytes);
    ck_assert_int_eq(evpt_read_skip(&copy.reader, 3), 0);
    int64_t value = 0;
    ck_assert_int_eq(evpt_read_int(&copy.reader, &value), 0);
    ck_assert_int_eq(value, 0x2a);
    ck_assert_int_eq(evpt_read_skip(&copy.reader, 3), -EVPT_ETRUNCATED);
    free(copy.bytes);
}
END_TEST

START_TEST(test_msgpack_skip_counts_levels)
{
    uint8_t bytes[EVPT_SKIP_DEPTH_MAX + 2];
    memset(bytes, 0x91, sizeof bytes);
    bytes[sizeof bytes - 1] = 0x01;
    for (int depth = 0; depth <= EVPT_SKIP_DEPTH_MAX; depth++) {
        struct copy fits = copy_of(bytes + sizeof bytes - 1 - depth, (size_t)depth + 1);
        ck_assert_int_eq(evpt_read_skip(&fits.reader, depth), 0);
        ck_assert_ptr_eq(fits.reader.at, fits.reader.end);
        free(fits.bytes);
        struct copy deeper = copy_of(bytes + sizeof bytes - 2 - depth, (size_t)depth + 2);
        ck_assert_int_eq(evpt_read_skip(&deeper.reader, depth), -EVPT_EDEPTH);
        ck_assert_ptr_eq(deeper.reader.at, deeper.bytes);
        free(deeper.bytes);
    }
}
END_TEST

START_TEST(test_msgpack_skip_of_a_million_levels_does_not_recurse)
{
    size_t size = 1 << 20;
    uint8_t *bytes = malloc(size);
    struct evpt_reader reader;
    for (int map = 0; map < 2; map++) {
        memset(bytes, map ? 0x81 : 0x91, size);
        evpt_reader_init(&reader, bytes, size);
        ck_assert_int_eq(evpt_read_skip(&reader, EVPT_SKIP_DEPTH_MAX), -EVPT_EDEPTH);
    }
    free(bytes);
}
END_TEST

/* ---- against msgpack-c ---- */

#if HAVE_MSGPACK_C

enum { DEPTH_MAX = 6, DEPTH_COMPARED = 24 /* msgpack-c: 32 */ };

/* One random value, written by both. */
static void generate(struct evpt_writer *ours, msgpack_packer *theirs, uint64_t *random, int depth)
{
    static const char text[70000];
    uint64_t r = next_random(random);
    uint32_t count = (uint32_t)(r >> 8) % ((r >> 24) % 16 == 0 ? 40 : 4);
    size_t size = (r >> 8) % ((r >> 32) % 64 == 0 ? sizeof text : (r >> 32) % 8 == 0 ? 300 : 33);
    switch (depth < DEPTH_MAX ? r % 8 : r % 6) {
    case 0:
        ck_assert(evpt_write_nil(ours));
        msgpack_pack_nil(theirs);
        break;
    case 1:
        ck_assert(evpt_write_bool(ours, r & 256));
        (void)(r & 256 ? msgpack_pack_true(theirs) : msgpack_pack_false(theirs));
        break;
    case 2:
    case 3: {
        int64_t value = (int64_t)next_random(random) >> (r >> 40) % 64;
        ck_assert(evpt_write_int(ours, value));
        msgpack_pack_int64(theirs, value);
        break;
    }
    case 4: {
        double value = (double)(int64_t)next_random(random) / 1024;
        ck_assert(evpt_write_float(ours, value));
        msgpack_pack_double(theirs, value);
        break;
    }
    case 5:
        ck_assert(evpt_write_str(ours, text, size));
        msgpack_pack_str(theirs, size);
        msgpack_pack_str_body(theirs, text, size);
        break;
    case 6:
        ck_assert(evpt_write_array(ours, count));
        msgpack_pack_array(theirs, count);
        for (uint32_t i = 0; i < count; i++)
            generate(ours, theirs, random, depth + 1);
        break;
    case 7:
        ck_assert(evpt_write_map(ours, count));
        msgpack_pack_map(theirs, count);
        for (uint32_t i = 0; i < 2 * count; i++)
            generate(ours, theirs, random, depth + 1);
        break;
    }
}

/* Reads the value that they have read. 0, or the error of the first item that is not in our form.
 */
static int compare(struct evpt_reader *reader, const msgpack_object *theirs)
{
    struct evpt_item item;
    int error = evpt_read_item(reader, &item);
    if (theirs->type == MSGPACK_OBJECT_EXT ||
        (theirs->type == MSGPACK_OBJECT_POSITIVE_INTEGER && theirs->via.u64 > INT64_MAX)) {
        ck_assert_int_eq(error, -EVPT_EFORMAT);
        return error;
    }
    ck_assert_int_eq(error, 0);
    switch (theirs->type) {
    case MSGPACK_OBJECT_NIL:
        ck_assert_int_eq(item.kind, EVPT_ITEM_NIL);
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        ck_assert_int_eq(item.kind, EVPT_ITEM_BOOL);
        ck_assert_int_eq(item.u.boolean, theirs->via.boolean);
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        ck_assert_int_eq(item.kind, EVPT_ITEM_INT);
        ck_assert_int_eq(item.u.integer, theirs->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        ck_assert_int_eq(item.kind, EVPT_ITEM_FLOAT);
        ck_assert(item.u.real == theirs->via.f64 || (isnan(item.u.real) && isnan(theirs->via.f64)));
        break;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN: /* bin has the same layout */
        ck_assert_int_eq(item.kind, EVPT_ITEM_STR);
        ck_assert_uint_eq(item.size, theirs->via.str.size);
        ck_assert(item.size == 0 || memcmp(item.u.bytes, theirs->via.str.ptr, item.size) == 0);
        break;
    case MSGPACK_OBJECT_ARRAY:
        ck_assert_int_eq(item.kind, EVPT_ITEM_ARRAY);
        ck_assert_uint_eq(item.size, theirs->via.array.size);
        for (uint32_t i = 0; i < item.size && !error; i++)
            error = compare(reader, &theirs->via.array.ptr[i]);
        break;
    case MSGPACK_OBJECT_MAP:
        ck_assert_int_eq(item.kind, EVPT_ITEM_MAP);
        ck_assert_uint_eq(item.size, theirs->via.map.size);
        for (uint32_t i = 0; i < item.size && !error; i++) {
            error = compare(reader, &theirs->via.map.ptr[i].key);
            if (!error)
                error = compare(reader, &theirs->via.map.ptr[i].val);
        }
        break;
    default:
        ck_abort_msg("msgpack-c read an object of type %d", theirs->type);
    }
    return error;
}

/* msgpack-c allocates from declared counts, before it knows that the bytes are there. */
static bool may_exhaust_msgpack_c(const uint8_t *bytes, size_t size)
{
    return memchr(bytes, 0xdd, size) || memchr(bytes, 0xdf, size);
}

struct tally {
    int accepted, refused, skipped;
};

static void compare_bytes(const uint8_t *bytes, size_t size, struct tally *tally)
{
    struct copy copy = copy_of(bytes, size);
    int verdict = evpt_read_skip(&copy.reader, DEPTH_COMPARED);
    size_t taken = (size_t)(copy.reader.at - copy.bytes);
    if (verdict == -EVPT_EDEPTH || (verdict && may_exhaust_msgpack_c(bytes, size))) {
        tally->skipped++;
        free(copy.bytes);
        return;
    }
    msgpack_unpacked theirs;
    msgpack_unpacked_init(&theirs);
    size_t offset = 0;
    msgpack_unpack_return result =
        msgpack_unpack_next(&theirs, (const char *)copy.bytes, size, &offset);
    if (result == MSGPACK_UNPACK_SUCCESS) {
        struct evpt_reader reader;
        evpt_reader_init(&reader, copy.bytes, size);
        ck_assert_int_eq(compare(&reader, &theirs.data), verdict);
        if (!verdict)
            ck_assert_uint_eq(taken, offset);
    } else {
        ck_assert_int_ne(verdict, 0);
    }
    tally->accepted += !verdict;
    tally->refused += verdict != 0;
    msgpack_unpacked_destroy(&theirs);
    free(copy.bytes);
}

START_TEST(test_msgpack_agrees_with_msgpack_c_on_generated_and_mutated_bytes)
{
    static uint8_t bytes[16 << 20];
    uint64_t random = test_seed();
    struct tally whole = {0}, mutated = {0};
    for (int round = 0; round < 3000; round++) {
        struct evpt_writer writer;
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        evpt_writer_init(&writer, bytes, sizeof bytes);
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        generate(&writer, &packer, &random, round % 4 ? 1 : 0);
        size_t size = (size_t)(writer.at - bytes);
        ck_assert_uint_eq(size, buffer.size);
        ck_assert_mem_eq(bytes, buffer.data, size);
        msgpack_sbuffer_destroy(&buffer);
        compare_bytes(bytes, size, &whole);
        if (size > 4096) /* a copy each: keep it quick */
            continue;
        for (int i = 0; i < 20; i++) {
            uint8_t changed[4096];
            size_t kept = i % 4 ? size : next_random(&random) % (size + 1);
            memcpy(changed, bytes, kept);
            for (uint64_t n = next_random(&random) % 3; n > 0 && kept > 0; n--)
                changed[next_random(&random) % kept] = (uint8_t)next_random(&random);
            compare_bytes(changed, kept, &mutated);
        }
    }
    printf("generated %d; mutated: %d accepted, %d refused, %d not compared\n", whole.accepted,
           mutated.accepted, mutated.refused, mutated.skipped);
    ck_assert_int_eq(whole.refused + whole.skipped, 0);
    ck_assert_int_gt(mutated.accepted, 1000);
    ck_assert_int_gt(mutated.refused, 1000);
}
END_TEST

#endif

int main(void)
{
    TCase *tcase = tcase_create("msgpack");
    tcase_add_loop_test(tcase, test_msgpack_integer_takes_its_shortest_form_and_comes_back, 0,
                        sizeof integers / sizeof integers[0]);
    tcase_add_test(tcase, test_msgpack_integer_is_read_in_longer_forms_too);
    tcase_add_test(tcase, test_msgpack_unsigned_beyond_int64_is_refused);
    tcase_add_test(tcase, test_msgpack_float_stays_a_float);
    tcase_add_test(tcase, test_msgpack_nil_and_booleans);
    tcase_add_test(tcase, test_msgpack_string_of_every_header_comes_back);
    tcase_add_test(tcase, test_msgpack_bin_is_read_as_bytes);
    tcase_add_test(tcase, test_msgpack_container_header_takes_its_shortest_form);
    tcase_add_test(tcase, test_msgpack_count_is_believed_only_as_far_as_bytes_are_left);
    tcase_add_test(tcase, test_msgpack_what_lua_has_no_value_for_is_refused);
    tcase_add_test(tcase, test_msgpack_item_of_another_kind_leaves_reader_and_outputs_alone);
    tcase_add_test(tcase, test_msgpack_writer_that_is_full_writes_nothing);
    tcase_add_test(tcase, test_msgpack_fixed_u32_is_patched_in_place);
    tcase_add_test(tcase, test_msgpack_skip_takes_exactly_one_value);
    tcase_add_test(tcase, test_msgpack_skip_counts_levels);
    tcase_add_test(tcase, test_msgpack_skip_of_a_million_levels_does_not_recurse);
#if HAVE_MSGPACK_C
    tcase_add_test(tcase, test_msgpack_agrees_with_msgpack_c_on_generated_and_mutated_bytes);
#else
    puts("not compared with msgpack-c: package libmsgpack-dev is not installed");
#endif
    return run_tests("msgpack", tcase);
}
