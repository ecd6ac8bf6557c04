/* Lua values to bytes and back, against known bytes, against msgpack-c, and against bytes that no
 * encoder made.
 *
 * Every Lua state here counts what it allocates, and can be told to refuse more. Random cases come
 * from one seed, which is printed; EVPT_TEST_SEED sets it.
 */
#include "lua/value.h"

#include "reactor/error.h"
#include "reactor/sys.h"
#include <check.h>
#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef EVPT_HAVE_MSGPACK
#include <msgpack.h>
#endif

#define SIZE_UNLIMITED (1u << 30)
#define NO_LIMIT SIZE_MAX

struct memory {
    size_t used, peak, limit; /* bytes */
};

static struct memory memory;
static lua_State *L;
static struct evpt_message *message;
static char error_text[EVPT_VALUE_ERROR_SIZE];

static void *count_memory(void *user, void *old, size_t old_size, size_t size)
{
    struct memory *m = user;
    if (!old)
        old_size = 0;
    if (size > old_size && m->used - old_size + size > m->limit)
        return NULL;
    if (size == 0) {
        free(old);
        m->used -= old_size;
        return NULL;
    }
    void *moved = realloc(old, size);
    if (moved)
        m->used = m->used - old_size + size;
    if (m->used > m->peak)
        m->peak = m->used;
    return moved;
}

static void setup(void)
{
    memory = (struct memory){.limit = NO_LIMIT};
    L = lua_newstate(count_memory, &memory);
    luaL_openlibs(L);
    message = evpt_message_new(1); /* so that every test makes it grow */
    memset(error_text, 0, sizeof error_text);
}

static void teardown(void)
{
    evpt_message_free(message);
    lua_close(L);
    ck_assert_uint_eq(memory.used, 0);
}

/* ---- helpers ---- */

/* Leaves what the Lua text returns on an otherwise empty stack. */
static int eval(const char *code)
{
    lua_settop(L, 0);
    if (luaL_dostring(L, code))
        ck_abort_msg("%s: %s", code, lua_tostring(L, -1));
    return lua_gettop(L);
}

static int encode(int count, size_t size_max, const char *root)
{
    int top = lua_gettop(L);
    int error = evpt_value_encode(L, 1, count, &message, size_max, root, error_text);
    ck_assert_int_eq(lua_gettop(L), top);
    return error;
}

static int decode(const void *bytes, size_t size, size_t *ret_read)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, bytes, size);
    int top = lua_gettop(L);
    int count = evpt_value_decode(L, &reader);
    ck_assert_int_eq(lua_gettop(L), top + (count > 0 ? count : 0));
    if (count < 0)
        ck_assert_ptr_eq(reader.at, bytes);
    if (ret_read)
        *ret_read = (size_t)(reader.at - (const uint8_t *)bytes);
    return count;
}

static bool same_number(int a, int b)
{
    if (lua_isinteger(L, a) != lua_isinteger(L, b))
        return false;
    if (lua_isinteger(L, a))
        return lua_tointeger(L, a) == lua_tointeger(L, b);
    double x = lua_tonumber(L, a), y = lua_tonumber(L, b);
    return (isnan(x) && isnan(y)) || (x == y && signbit(x) == signbit(y));
}

static bool same(int a, int b);

/* Keys that are tables cannot be looked up in another table; they only count. */
static bool same_table(int a, int b)
{
    luaL_checkstack(L, 8, NULL);
    int pairs = 0, top = lua_gettop(L);
    bool result = true;
    for (lua_pushnil(L); result && lua_next(L, a); lua_pop(L, 1), pairs++) {
        if (lua_istable(L, -2))
            continue;
        lua_pushvalue(L, -2);
        lua_rawget(L, b);
        result = same(lua_gettop(L) - 1, lua_gettop(L));
        lua_pop(L, 1);
    }
    lua_settop(L, top);
    for (lua_pushnil(L); result && lua_next(L, b); lua_pop(L, 1))
        pairs--;
    lua_settop(L, top);
    return result && pairs == 0;
}

/* Deep equality that tells 1 from 1.0 and 0.0 from -0.0, and for which NaN is NaN. */
static bool same(int a, int b)
{
    if (lua_type(L, a) != lua_type(L, b))
        return false;
    if (lua_type(L, a) == LUA_TNUMBER)
        return same_number(a, b);
    return lua_istable(L, a) ? same_table(a, b) : lua_rawequal(L, a, b);
}

static void check_round_trip(const char *code)
{
    int count = eval(code);
    message->size = 0;
    ck_assert_msg(encode(count, SIZE_UNLIMITED, "argument %d") == 0, "%s: %s", code, error_text);
    size_t read;
    ck_assert_int_eq(decode(message->data, message->size, &read), count);
    ck_assert_uint_eq(read, message->size);
    for (int i = 1; i <= count; i++)
        ck_assert_msg(same(i, count + i), "%s: value %d came back as another", code, i);
}

static void check_bytes(const char *code, const void *bytes, size_t size)
{
    int count = eval(code);
    message->size = 0;
    ck_assert_int_eq(encode(count, SIZE_UNLIMITED, "argument %d"), 0);
    ck_assert_msg(message->size == size && memcmp(message->data, bytes, size) == 0,
                  "%s: other bytes than expected, %u of them", code, message->size);
}
#define CHECK_BYTES(code, literal) check_bytes(code, literal, sizeof literal - 1)

/* ---- what travels ---- */

START_TEST(test_value_bytes_are_the_shortest_form)
{
    CHECK_BYTES("return", "\x90");
    CHECK_BYTES("return nil, true, false", "\x93\xc0\xc3\xc2");
    CHECK_BYTES("return 0, 127, -1, -32", "\x94\x00\x7f\xff\xe0");
    CHECK_BYTES("return 128, 255, 256", "\x93\xcc\x80\xcc\xff\xcd\x01\x00");
    CHECK_BYTES("return 65535, 65536", "\x92\xcd\xff\xff\xce\x00\x01\x00\x00");
    CHECK_BYTES("return 1 << 32", "\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00");
    CHECK_BYTES("return -33, -129", "\x92\xd0\xdf\xd1\xff\x7f");
    CHECK_BYTES("return math.mininteger", "\x91\xd3\x80\x00\x00\x00\x00\x00\x00\x00");
    CHECK_BYTES("return 1.0", "\x91\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    CHECK_BYTES("return ''", "\x91\xa0");
    CHECK_BYTES("return 'a\\0b'", "\x91\xa3"
                                  "a\0b");
    CHECK_BYTES("return {}", "\x91\x90");
    CHECK_BYTES("return {1, {2}, 'x'}", "\x91\x93\x01\x91\x02\xa1x");
    CHECK_BYTES("return {a = {}}", "\x91\x81\xa1"
                                   "a\x90");
    CHECK_BYTES("return {[2] = 1}", "\x91\x81\x02\x01");
    CHECK_BYTES("return {[true] = 1}", "\x91\x81\xc3\x01");
}
END_TEST

START_TEST(test_value_integers_come_back_at_every_width)
{
    check_round_trip("local r = {} for s = 0, 63 do for d = -2, 2 do "
                     "r[#r + 1] = (1 << s) + d r[#r + 1] = -(1 << s) + d end end "
                     "return table.unpack(r)");
    check_round_trip("return math.maxinteger, math.mininteger, -31, -32, -33, 127, 128");
}
END_TEST

START_TEST(test_value_floats_stay_floats)
{
    check_round_trip("return 0.0, -0.0, 1.0, -1.0, 1e300, 5e-324, 2^53, 2.0^63, -2.0^63");
    check_round_trip("return 1/0, -1/0, 0/0, 0.1, math.pi");
    check_round_trip("return {1, 1.0}, {[1.5] = 1.5}, 3, 3.0");
}
END_TEST

START_TEST(test_value_strings_of_every_header_come_back)
{
    check_round_trip("local r = {} for _, n in ipairs{0, 1, 30, 31, 32, 33, 254, 255, 256, 257, "
                     "65534, 65535, 65536, 65537, 1 << 20} do r[#r + 1] = ('x'):rep(n) end "
                     "return table.unpack(r)");
    check_round_trip("local r = {} for i = 0, 255 do r[#r + 1] = string.char(i) end "
                     "return table.concat(r), table.unpack(r)");
}
END_TEST

START_TEST(test_value_tables_of_every_header_come_back)
{
    check_round_trip(
        "local r = {} for _, n in ipairs{0, 1, 14, 15, 16, 17, 65535, 65536, 65537} do "
        "local t = {} for i = 1, n do t[i] = i end r[#r + 1] = t end "
        "return table.unpack(r)");
    check_round_trip("local r = {} for _, n in ipairs{1, 14, 15, 16, 17, 65535, 65536, 65537} do "
                     "local t = {} for i = 1, n do t['k' .. i] = i end r[#r + 1] = t end "
                     "return table.unpack(r)");
    /* maps in maps, so that a header that grows moves inner ones that had grown before */
    check_round_trip("local function map(depth, n) local t = {} for i = 1, n do "
                     "t['k' .. i] = depth > 0 and i % 7 == 0 and map(depth - 1, n) or i end "
                     "return t end return map(2, 40), map(3, 16)");
}
END_TEST

START_TEST(test_value_keys_of_every_type_come_back)
{
    check_round_trip("return {[true] = 1, [false] = 2, [1.5] = 3, [-1] = 4, [1 << 40] = 5, "
                     "[''] = 6, [('k'):rep(300)] = 7, [math.huge] = 8, ['\\0'] = 9}");
    CHECK_BYTES("return {[{}] = 1}", "\x91\x81\x90\x01"); /* another table over there */
}
END_TEST

START_TEST(test_value_nils_of_arguments_are_kept)
{
    check_round_trip("return nil");
    check_round_trip("return nil, 1, nil, nil");
    check_round_trip("return 1, nil, {}, nil");
}
END_TEST

/* Whatever way a table took to its keys, it is an array if they are 1..n and a map if not. */
START_TEST(test_value_array_is_told_by_its_keys_alone)
{
    CHECK_BYTES("local t = {} for i = 3, 1, -1 do t[i] = i end return t", "\x91\x93\x01\x02\x03");
    CHECK_BYTES("local t = {x = 1} t[1] = 7 t.x = nil return t", "\x91\x91\x07");
    CHECK_BYTES("local t = {1, 2, 3} t[3] = nil return t", "\x91\x92\x01\x02");
    CHECK_BYTES("local t = {1, 2} t[1] = nil return t", "\x91\x81\x02\x02");
    CHECK_BYTES("return setmetatable({1}, {__len = function() error('called') end, "
                "__index = error, __pairs = error})",
                "\x91\x91\x01");
    static const char *const maps[] = {
        "return {1, 2, nil, 4}",
        "return {1, 2, x = 3}",
        "return {[0] = 0, 1, 2}",
        "return {1, [-1] = 2}",
        "local t = {} for i = 1, 100 do t[i] = i end t[50] = nil return t",
        "local t = {} for i = 100, 1, -1 do t[i] = {i} end t.x = {} return t",
        "return {{1}, {2}, [1.5] = {3}}",
        "return {[1] = 1, [2] = 2, [4] = 4, [8] = 8, [16] = 16}",
    };
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        check_round_trip(maps[i]);
        ck_assert_int_ne(message->data[1] & 0xf0, 0x90);
        ck_assert_int_ne(message->data[1], 0xdc);
    }
    static const char *const arrays[] = {
        "local t = {} for i = 100, 1, -1 do t[i] = i end return t",
        "local t = {} for i = 100, 1, -1 do t[i] = {i} end return t",
        ("local t = {} for i = 1, 100 do t[i] = {i} t['x' .. i] = i end "
         "for i = 1, 100 do t['x' .. i] = nil end return t"),
    };
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        check_round_trip(arrays[i]);
        ck_assert_int_eq(message->data[1], 0xdc);
    }
}
END_TEST

/* A table that turns out late to be a map is written twice; its children must not be, or 60 such
 * levels never end. */
START_TEST(test_value_nested_tables_are_written_once)
{
    check_round_trip("local t = {1, x = 1} for i = 1, 60 do t = {t, x = 1} end return t");
    check_round_trip("local t = {1} for i = 1, 60 do local o = {} o[3] = 3 o[2] = 2 o[1] = t "
                     "t = o end return t");
    check_round_trip("local t = {1} for i = 1, 60 do t = {'a', 'b', t, y = 2} end return t");
}
END_TEST

START_TEST(test_value_64_levels_travel_and_65_do_not)
{
    check_round_trip("local t = {1} for i = 2, 64 do t = {t} end return t");
    check_round_trip("local t = {x = 1} for i = 2, 64 do t = {x = t} end return t");
    eval("local t = {1} for i = 2, 65 do t = {t} end return 0, t");
    message->size = 0;
    ck_assert_int_eq(encode(2, SIZE_UNLIMITED, "result %d"), -EVPT_EFORMAT);
    ck_assert_str_eq(error_text, "result 2: deeper than 64 levels");

    uint8_t bytes[300] = {0};
    bytes[0] = 0x91;
    memset(bytes + 1, 0x91, 64);
    bytes[64] = 0x90;
    ck_assert_int_eq(decode(bytes, 65, NULL), 1);
    bytes[64] = 0x91;
    bytes[65] = 0x90;
    ck_assert_int_eq(decode(bytes, 66, NULL), -EVPT_EDEPTH);
    memset(bytes + 1, 0x81, 65); /* maps as keys of maps */
    ck_assert_int_eq(decode(bytes, sizeof bytes, NULL), -EVPT_EDEPTH);
}
END_TEST

START_TEST(test_value_shared_tables_are_no_cycle)
{
    check_round_trip("local s = {1} return s, {s, s}, {a = s, b = {s}}");
}
END_TEST

/* ---- what does not ---- */

struct refusal {
    const char *code, *root, *text;
};

static const struct refusal refusals[] = {
    {"return print", "argument %d", "argument 1: cannot send a function"},
    {"return 1, 2, io.stdout", "argument %d", "argument 3: cannot send a userdata"},
    {"return coroutine.create(print)", "result %d", "result 1: cannot send a coroutine"},
    {"return {list = {1, 2, print}}", "params", "params.list[3]: cannot send a function"},
    {"return {[print] = 1}", "params", "params: cannot send a function as a key"},
    {"return {a = {[{print}] = 1}}", "params", "params.a: cannot send a function as a key"},
    {"return 1, {x = print}", "argument %d", "argument 2.x: cannot send a function"},
    {"local t = {} t.x = t return t", "argument %d", "argument 1.x: cannot send a cycle"},
    {"local t = {} t[1] = {{t}} return t", "params", "params[1][1][1]: cannot send a cycle"},
    {"local t = {} t[t] = 1 return t", "params", "params: cannot send a cycle as a key"},
    {"return {['a b'] = {[true] = print}}", "params",
     "params[\"a b\"][true]: cannot send a function"},
    {"return {['1a'] = {[''] = print}}", "params", "params[\"1a\"][\"\"]: cannot send a function"},
    {"return {['\"\\\\\\n'] = print}", "params",
     "params[\"\\\"\\\\\\010\"]: cannot send a function"},
    {"return {['\xe6\x88\x98'] = print}", "params",
     "params[\"\xe6\x88\x98\"]: cannot send a function"},
    {"return {[1.5] = {[-3] = print}}", "params", "params[1.5][-3]: cannot send a function"},
    {"return {_G_1 = print}", "%d", "1._G_1: cannot send a function"},
    {"local t = {} for i = 3, 1, -1 do t[i] = i == 2 and print or i end return t", "p",
     "p[2]: cannot send a function"},
    {"return {{}, {}, {print}, x = 1}", "p", "p[3][1]: cannot send a function"},
    {"return {1, {}, print}", "p", "p[3]: cannot send a function"},
};

START_TEST(test_value_refusal_names_the_place)
{
    const struct refusal *refusal = &refusals[_i];
    int count = eval(refusal->code);
    message->size = 1;
    message->data[0] = 0x55;
    ck_assert_int_eq(encode(count, SIZE_UNLIMITED, refusal->root), -EVPT_EFORMAT);
    ck_assert_str_eq(error_text, refusal->text);
    ck_assert_uint_eq(message->size, 1);
    ck_assert_uint_eq(message->data[0], 0x55);
}
END_TEST

START_TEST(test_value_long_place_is_cut_and_the_reason_kept)
{
    eval("local t = {last = print} for i = 1, 50 do t = {a_long_name = t} end return t");
    ck_assert_int_eq(encode(1, SIZE_UNLIMITED, "params"), -EVPT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error_text, "...: cannot send a function"));
    ck_assert_uint_gt(strlen(error_text), 200);
    eval("return {[('k'):rep(10000)] = {[{print}] = 1}}");
    ck_assert_int_eq(encode(1, SIZE_UNLIMITED, "params"), -EVPT_EFORMAT);
    ck_assert_ptr_nonnull(strstr(error_text, "kkk...: cannot send a function as a key"));
    eval("return {[('\\n'):rep(10000)] = print}");
    ck_assert_int_eq(encode(1, SIZE_UNLIMITED, "params"), -EVPT_EFORMAT);
    ck_assert_ptr_null(strchr(error_text, '\n'));
}
END_TEST

START_TEST(test_value_limit_is_exact_and_leaves_the_message_alone)
{
    int count = eval("return 1, -40000, 1.5, 'abc', ('x'):rep(40), {1, 2, {a = 'b', c = {}}}, "
                     "nil, true, (function() local t = {} for i = 1, 20 do t['k' .. i] = i end "
                     "return t end)()");
    message = evpt_message_grow(message, 3);
    memcpy(message->data, "abc", 3);
    message->size = 3;
    ck_assert_int_eq(encode(count, SIZE_UNLIMITED, "%d"), 0);
    size_t whole = message->size;
    for (size_t limit = 0; limit <= whole + 10; limit++) {
        evpt_message_free(message);
        message = evpt_message_new(3);
        memcpy(message->data, "abc", 3);
        message->size = 3;
        int error = encode(count, limit, "%d");
        ck_assert_int_eq(error, limit < whole ? -EVPT_ETOOLARGE : 0);
        ck_assert_uint_eq(message->size, limit < whole ? 3 : whole);
        ck_assert_int_eq(memcmp(message->data, "abc", 3), 0);
    }
}
END_TEST

/* ---- bytes that nobody should have sent ---- */

struct bad_bytes {
    const char *bytes;
    size_t size;
    int error;
};
#define BAD(literal, error)                                                                        \
    {                                                                                              \
        literal, sizeof literal - 1, -(error)                                                      \
    }

static const struct bad_bytes bad_bytes[] = {
    BAD("", EVPT_ETRUNCATED),
    BAD("\x91", EVPT_ETRUNCATED),
    BAD("\x01", EVPT_EFORMAT),
    BAD("\x80", EVPT_EFORMAT),
    BAD("\x91\xc1", EVPT_EFORMAT),                                 /* never used */
    BAD("\x91\xd4\x00\x00", EVPT_EFORMAT),                         /* ext */
    BAD("\x91\xcf\x80\x00\x00\x00\x00\x00\x00\x00", EVPT_EFORMAT), /* above int64 */
    BAD("\x91\xa3"
        "ab",
        EVPT_ETRUNCATED),
    BAD("\x91\xd9\x03"
        "ab",
        EVPT_ETRUNCATED),
    BAD("\x91\x81\xc0\x01", EVPT_EFORMAT),                                 /* nil as a key */
    BAD("\x91\x81\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x01", EVPT_EFORMAT), /* NaN */
    BAD("\x91\x81\xca\x7f\xc0\x00\x00\x01", EVPT_EFORMAT),
    BAD("\x91\x81\x01", EVPT_ETRUNCATED),
    BAD("\xdd\xff\xff\xff\xff", EVPT_ETRUNCATED),
    BAD("\x91\xdd\xff\xff\xff\xff", EVPT_ETRUNCATED),
    BAD("\x91\xdf\xff\xff\xff\xff", EVPT_ETRUNCATED),
    BAD("\x92\x92\x01\x02", EVPT_ETRUNCATED),
};

START_TEST(test_value_bad_bytes_push_nothing)
{
    const struct bad_bytes *bad = &bad_bytes[_i];
    /* a copy of just that size, so that a sanitizer sees a read behind it */
    uint8_t *bytes = malloc(bad->size + !bad->size);
    memcpy(bytes, bad->bytes, bad->size);
    ck_assert_int_eq(decode(bytes, bad->size, NULL), bad->error);
    free(bytes);
}
END_TEST

START_TEST(test_value_decode_stops_behind_its_array)
{
    size_t read;
    ck_assert_int_eq(decode("\x92\x01\xc3\xc1\xc1", 5, &read), 2);
    ck_assert_uint_eq(read, 3);
    struct evpt_reader reader;
    evpt_reader_init(&reader, "\xa1x\x07", 3);
    lua_settop(L, 0);
    ck_assert_int_eq(evpt_value_decode_one(L, &reader), 0);
    ck_assert_str_eq(lua_tostring(L, -1), "x");
    ck_assert_int_eq(evpt_value_decode_one(L, &reader), 0);
    ck_assert_int_eq(lua_tointeger(L, -1), 7);
    ck_assert_int_eq(evpt_value_decode_one(L, &reader), -EVPT_ETRUNCATED);
    ck_assert_int_eq(lua_gettop(L), 2);
}
END_TEST

START_TEST(test_value_foreign_forms_are_understood)
{
    /* what other encoders write: longer forms than needed, float 32, bin, map with the keys 1..n */
    eval("return 1, 1, 1, 'x', 1.5, {10, 20}, 255");
    ck_assert_int_eq(decode("\x97\xcc\x01\xd3\x00\x00\x00\x00\x00\x00\x00\x01\xcf\x00\x00\x00\x00"
                            "\x00\x00\x00\x01\xc4\x01x\xca\x3f\xc0\x00\x00\xdf\x00\x00\x00\x02\x01"
                            "\x0a\x02\x14\xcd\x00\xff",
                            43, NULL),
                     7);
    for (int i = 1; i <= 7; i++)
        ck_assert_msg(same(i, 7 + i), "value %d", i);
}
END_TEST

/* ---- memory ---- */

/* A table takes 56 bytes, an element 16, a pair 24 and up to twice that; the smallest of them comes
 * in one byte. */
#define MEMORY_PER_BYTE 128
#define MEMORY_BESIDES 8192

static int decode_measured(const void *bytes, size_t size)
{
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT);
    memory.peak = memory.used;
    size_t before = memory.used;
    int count = decode(bytes, size, NULL);
    ck_assert_msg(memory.peak - before <= MEMORY_PER_BYTE * size + MEMORY_BESIDES,
                  "%zu bytes made Lua allocate %zu", size, memory.peak - before);
    return count;
}

START_TEST(test_value_declared_counts_allocate_nothing_that_bytes_do_not_back)
{
    enum { SIZE = 1 << 16 };
    uint8_t *bytes = malloc(SIZE);
    /* each level of arrays, or of maps, claims all the bytes that are left */
    for (int kind = 0; kind < 2; kind++) {
        memset(bytes, 0x01, SIZE);
        uint8_t *at = bytes;
        *at++ = 0x91;
        for (int level = 0; level < EVPT_VALUE_DEPTH; level++) {
            uint32_t count = (uint32_t)(bytes + SIZE - at - 5) / (kind ? 2 : 1);
            *at++ = kind ? 0xdf : 0xdd;
            for (int shift = 24; shift >= 0; shift -= 8)
                *at++ = (uint8_t)(count >> shift);
        }
        ck_assert_int_eq(decode_measured(bytes, SIZE), -EVPT_ETRUNCATED);
    }
    /* the most that honest bytes can ask for */
    memset(bytes, 0x90, SIZE);
    memcpy(bytes, "\xdd\x00\x00\xff\xfb", 5);
    ck_assert_int_eq(decode_measured(bytes, SIZE), SIZE - 5);
    memcpy(bytes, "\x91\xdd\x00\x00\xff\xfa", 6);
    ck_assert_int_eq(decode_measured(bytes, SIZE), 1);
    memcpy(bytes, "\x91\xdf\x00\x00\x7f\xfd", 6);
    ck_assert_int_eq(decode_measured(bytes, SIZE), 1);
    free(bytes);
}
END_TEST

START_TEST(test_value_more_values_than_a_stack_holds_are_refused)
{
    size_t size = 1000001 + 5;
    uint8_t *bytes = malloc(size);
    memset(bytes, 0xc0, size);
    memcpy(bytes, "\xdd\x00\x0f\x42\x41", 5);
    ck_assert_int_eq(decode(bytes, size, NULL), -EVPT_ELIMIT);
    free(bytes);
}
END_TEST

static int decode_protected(lua_State *state)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, message->data, message->size);
    int count = evpt_value_decode(state, &reader);
    lua_settop(state, 0);
    lua_pushinteger(state, count);
    return 1;
}

START_TEST(test_value_decode_raises_only_for_want_of_memory)
{
    eval("local t = {} for i = 1, 40 do t[i] = {id = i, name = 'player' .. i, x = i + .5} end "
         "return t, {a = {b = {c = ('x'):rep(1000)}}}");
    ck_assert_int_eq(encode(2, SIZE_UNLIMITED, "%d"), 0);
    int failures = 0, result = 0;
    for (size_t more = 0; result != 2; more += 64) {
        lua_settop(L, 0);
        lua_gc(L, LUA_GCCOLLECT);
        lua_pushcfunction(L, decode_protected);
        memory.limit = memory.used + more;
        int status = lua_pcall(L, 0, 1, 0);
        memory.limit = NO_LIMIT;
        result = (int)lua_tointeger(L, -1);
        if (status == LUA_OK && result == 2)
            break;
        failures++; /* the stack's own growth is reported, not raised */
        ck_assert(status == LUA_ERRMEM || (status == LUA_OK && result == -EVPT_ELIMIT));
    }
    ck_assert_int_gt(failures, 10);
}
END_TEST

/* Outside of any protected call: had it raised, the test would be gone. */
START_TEST(test_value_encode_never_raises)
{
    lua_State *thread = lua_newthread(L); /* its stack is small as yet */
    luaL_loadstring(thread, "local t = {1, x = 2} for i = 1, 60 do t = {t, y = t} if i > 3 then "
                            "t.y = nil end end return t");
    lua_call(thread, 0, 1);
    lua_gc(L, LUA_GCCOLLECT);
    memory.limit = memory.used;
    int error = evpt_value_encode(thread, 1, 1, &message, SIZE_UNLIMITED, "%d", error_text);
    memory.limit = NO_LIMIT;
    ck_assert_int_eq(error, -ENOMEM);
    ck_assert_int_eq(lua_gettop(thread), 1);
    ck_assert_uint_eq(message->size, 0);
    error = evpt_value_encode(thread, 1, 1, &message, SIZE_UNLIMITED, "%d", error_text);
    ck_assert_int_eq(error, 0);
}
END_TEST

/* ---- random values and bytes ---- */

static uint64_t random_state;

static void seed_random(void)
{
    const char *given = getenv("EVPT_TEST_SEED");
    evpt_sys_random(&random_state, sizeof random_state);
    if (given)
        random_state = strtoull(given, NULL, 0);
    random_state |= 1;
    printf("EVPT_TEST_SEED=%llu\n", (unsigned long long)random_state);
    fflush(stdout);
}

/* xorshift64*; 0 .. below - 1 */
static uint32_t pick(uint32_t below)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 32) % below;
}

static void push_random_scalar(bool as_key)
{
    static const size_t sizes[] = {0, 1, 5, 31, 32, 255, 256, 300};
    char bytes[512];
    size_t size;
    uint64_t bits;
    switch (pick(as_key ? 5 : 6)) {
    case 0:
        lua_pushboolean(L, (int)pick(2));
        break;
    case 1:
        bits = (UINT64_C(1) << pick(64)) + pick(3);
        lua_pushinteger(L, (lua_Integer)(pick(2) ? bits : 0 - bits));
        break;
    case 2:
        lua_pushinteger(L, (lua_Integer)pick(40) - 10);
        break;
    case 3:
        lua_pushnumber(L, ((double)pick(1000) - 500) / 8 * (pick(9) ? 1 : 1e200));
        break;
    case 4:
        size = sizes[pick(sizeof sizes / sizeof sizes[0])];
        for (size_t i = 0; i < size; i++)
            bytes[i] = (char)pick(256);
        lua_pushlstring(L, bytes, size);
        break;
    default:
        lua_pushnil(L);
        break;
    }
}

static void push_random(int depth)
{
    luaL_checkstack(L, 8, NULL);
    if (depth == 0 || pick(3)) {
        push_random_scalar(false);
        return;
    }
    int count = (int)pick(pick(10) ? 8 : 40); /* now and then more than a short header counts */
    bool array = pick(2);
    lua_newtable(L);
    for (int i = 1; i <= count; i++) {
        if (array)
            lua_pushinteger(L, i);
        else
            push_random_scalar(true);
        push_random(depth - 1);
        lua_rawset(L, -3);
    }
}

/* Random values as bytes in `message`; returns how many, which lie on an otherwise empty stack. */
static int make_random_message(void)
{
    lua_settop(L, 0);
    int count = (int)pick(5);
    for (int i = 0; i < count; i++)
        push_random(4);
    message->size = 0;
    ck_assert_int_eq(encode(count, SIZE_UNLIMITED, "%d"), 0);
    return count;
}

static void mutate(uint8_t *bytes, size_t *size)
{
    static const uint8_t sharp[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1,
                                    0xc4, 0xc7, 0xca, 0xcb, 0xcf, 0xd3, 0xd4, 0xd9,
                                    0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff, 0x00};
    for (uint32_t i = 1 + pick(4); i > 0 && *size > 0; i--) {
        switch (pick(4)) {
        case 0:
            bytes[pick((uint32_t)*size)] = sharp[pick(sizeof sharp)];
            break;
        case 1:
            bytes[pick((uint32_t)*size)] ^= (uint8_t)(1u << pick(8));
            break;
        case 2:
            bytes[pick((uint32_t)*size)] = (uint8_t)pick(256);
            break;
        default:
            *size = pick((uint32_t)*size + 1);
            break;
        }
    }
}

#define RANDOM_ROUNDS 3000

START_TEST(test_value_random_values_come_back)
{
    seed_random();
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        int count = make_random_message();
        ck_assert_int_eq(decode(message->data, message->size, NULL), count);
        for (int i = 1; i <= count; i++)
            ck_assert_msg(same(i, count + i), "round %d, value %d", round, i);
    }
}
END_TEST

START_TEST(test_value_mutated_bytes_do_no_harm)
{
    seed_random();
    int refused = 0;
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        make_random_message();
        size_t size = message->size;
        uint8_t *bytes = malloc(size);
        memcpy(bytes, message->data, size);
        mutate(bytes, &size);
        uint8_t *exact = malloc(size + !size);
        memcpy(exact, bytes, size);
        refused += decode_measured(exact, size) < 0;
        free(exact);
        free(bytes);
    }
    ck_assert_int_gt(refused, RANDOM_ROUNDS / 10);
    ck_assert_int_lt(refused, RANDOM_ROUNDS);
}
END_TEST

/* ---- msgpack-c ---- */

#ifdef EVPT_HAVE_MSGPACK

static bool push_object(const msgpack_object *object, int depth);

static bool push_pair(const msgpack_object_kv *pair, int depth)
{
    if (!push_object(&pair->key, depth) || !push_object(&pair->val, depth))
        return false;
    bool is_key =
        !lua_isnil(L, -2) && (lua_type(L, -2) != LUA_TNUMBER || !isnan(lua_tonumber(L, -2)));
    if (is_key)
        lua_rawset(L, -3);
    return is_key;
}

/* Pushes what msgpack-c has read. False, with something or nothing pushed, where it is no value
 * that travels. */
static bool push_object(const msgpack_object *object, int depth)
{
    luaL_checkstack(L, 8, NULL);
    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        lua_pushnil(L);
        return true;
    case MSGPACK_OBJECT_BOOLEAN:
        lua_pushboolean(L, object->via.boolean);
        return true;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        lua_pushinteger(L, (lua_Integer)object->via.u64);
        return object->via.u64 <= INT64_MAX;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        lua_pushinteger(L, object->via.i64);
        return true;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        lua_pushnumber(L, object->via.f64);
        return true;
    case MSGPACK_OBJECT_STR:
        lua_pushlstring(L, object->via.str.ptr, object->via.str.size);
        return true;
    case MSGPACK_OBJECT_BIN:
        lua_pushlstring(L, object->via.bin.ptr, object->via.bin.size);
        return true;
    case MSGPACK_OBJECT_ARRAY:
        lua_newtable(L);
        for (uint32_t i = 0; i < object->via.array.size; i++) {
            if (depth == 0 || !push_object(&object->via.array.ptr[i], depth - 1))
                return false;
            lua_rawseti(L, -2, i + 1);
        }
        return depth > 0;
    case MSGPACK_OBJECT_MAP:
        lua_newtable(L);
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            if (depth == 0 || !push_pair(&object->via.map.ptr[i], depth - 1))
                return false;
        }
        return depth > 0;
    default:
        return false;
    }
}

/* Pushes the elements of the array that msgpack-c reads in the bytes; -1 where it reads none that
 * travels. */
static int decode_by_msgpack_c(const void *bytes, size_t size, size_t *ret_read)
{
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    int top = lua_gettop(L), count = -1;
    *ret_read = 0;
    msgpack_unpack_return status = msgpack_unpack_next(&result, bytes, size, ret_read);
    if ((status == MSGPACK_UNPACK_SUCCESS || status == MSGPACK_UNPACK_EXTRA_BYTES) &&
        result.data.type == MSGPACK_OBJECT_ARRAY) {
        count = (int)result.data.via.array.size;
        for (int i = 0; i < count; i++) {
            if (!push_object(&result.data.via.array.ptr[i], EVPT_VALUE_DEPTH)) {
                count = -1;
                lua_settop(L, top);
            }
        }
    }
    msgpack_unpacked_destroy(&result);
    return count;
}

static void pack_by_msgpack_c(msgpack_packer *packer, int index);

static void pack_table(msgpack_packer *packer, int index)
{
    luaL_checkstack(L, 8, NULL);
    size_t pairs = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        pairs++;
    msgpack_pack_map(packer, pairs); /* always a map: decoding makes the same table of it */
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        pack_by_msgpack_c(packer, lua_gettop(L) - 1);
        pack_by_msgpack_c(packer, lua_gettop(L));
    }
}

static void pack_by_msgpack_c(msgpack_packer *packer, int index)
{
    size_t size;
    const char *bytes;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        msgpack_pack_nil(packer);
        break;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, index))
            msgpack_pack_true(packer);
        else
            msgpack_pack_false(packer);
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            msgpack_pack_int64(packer, lua_tointeger(L, index));
        else
            msgpack_pack_double(packer, lua_tonumber(L, index));
        break;
    case LUA_TSTRING:
        bytes = lua_tolstring(L, index, &size);
        msgpack_pack_str(packer, size);
        msgpack_pack_str_body(packer, bytes, size);
        break;
    default:
        pack_table(packer, index);
        break;
    }
}

START_TEST(test_value_msgpack_c_reads_what_is_written)
{
    seed_random();
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        int count = make_random_message();
        size_t read;
        ck_assert_int_eq(decode_by_msgpack_c(message->data, message->size, &read), count);
        ck_assert_uint_eq(read, message->size);
        for (int i = 1; i <= count; i++)
            ck_assert_msg(same(i, count + i), "round %d, value %d", round, i);
    }
}
END_TEST

START_TEST(test_value_reads_what_msgpack_c_writes)
{
    seed_random();
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        int count = make_random_message();
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        msgpack_pack_array(&packer, (size_t)count);
        for (int i = 1; i <= count; i++)
            pack_by_msgpack_c(&packer, i);
        ck_assert_int_eq(decode(buffer.data, buffer.size, NULL), count);
        for (int i = 1; i <= count; i++)
            ck_assert_msg(same(i, count + i), "round %d, value %d", round, i);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

/* msgpack-c allocates what a 32-bit count declares; such bytes are kept from it. */
static bool has_wide_count(const uint8_t *bytes, size_t size)
{
    return memchr(bytes, 0xdd, size) || memchr(bytes, 0xdf, size);
}

START_TEST(test_value_agrees_with_msgpack_c_about_mutated_bytes)
{
    seed_random();
    int accepted = 0, compared = 0;
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        make_random_message();
        size_t size = message->size, read_here, read_there;
        mutate(message->data, &size);
        if (size == 0 || has_wide_count(message->data, size))
            continue;
        compared++;
        lua_settop(L, 0);
        int there = decode_by_msgpack_c(message->data, size, &read_there);
        int here = decode(message->data, size, &read_here);
        ck_assert_int_eq(here < 0 ? -1 : here, there);
        if (here < 0)
            continue;
        accepted++;
        ck_assert_uint_eq(read_here, read_there);
        for (int i = 1; i <= here; i++)
            ck_assert_msg(same(i, here + i), "round %d, value %d", round, i);
    }
    ck_assert_int_gt(compared, RANDOM_ROUNDS / 4);
    ck_assert_int_gt(accepted, RANDOM_ROUNDS / 20);
}
END_TEST

static void add_comparisons(TCase *tc)
{
    tcase_add_test(tc, test_value_msgpack_c_reads_what_is_written);
    tcase_add_test(tc, test_value_reads_what_msgpack_c_writes);
    tcase_add_test(tc, test_value_agrees_with_msgpack_c_about_mutated_bytes);
}

#else

static void add_comparisons(TCase *tc)
{
    (void)tc;
    puts("libmsgpack-dev is absent: the comparison with msgpack-c was left out");
}

#endif

int main(void)
{
    Suite *suite = suite_create("value");
    TCase *tc = tcase_create("value");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_value_bytes_are_the_shortest_form);
    tcase_add_test(tc, test_value_integers_come_back_at_every_width);
    tcase_add_test(tc, test_value_floats_stay_floats);
    tcase_add_test(tc, test_value_strings_of_every_header_come_back);
    tcase_add_test(tc, test_value_tables_of_every_header_come_back);
    tcase_add_test(tc, test_value_keys_of_every_type_come_back);
    tcase_add_test(tc, test_value_nils_of_arguments_are_kept);
    tcase_add_test(tc, test_value_array_is_told_by_its_keys_alone);
    tcase_add_test(tc, test_value_nested_tables_are_written_once);
    tcase_add_test(tc, test_value_64_levels_travel_and_65_do_not);
    tcase_add_test(tc, test_value_shared_tables_are_no_cycle);
    tcase_add_loop_test(tc, test_value_refusal_names_the_place, 0,
                        sizeof refusals / sizeof refusals[0]);
    tcase_add_test(tc, test_value_long_place_is_cut_and_the_reason_kept);
    tcase_add_test(tc, test_value_limit_is_exact_and_leaves_the_message_alone);
    tcase_add_loop_test(tc, test_value_bad_bytes_push_nothing, 0,
                        sizeof bad_bytes / sizeof bad_bytes[0]);
    tcase_add_test(tc, test_value_decode_stops_behind_its_array);
    tcase_add_test(tc, test_value_foreign_forms_are_understood);
    tcase_add_test(tc, test_value_declared_counts_allocate_nothing_that_bytes_do_not_back);
    tcase_add_test(tc, test_value_more_values_than_a_stack_holds_are_refused);
    tcase_add_test(tc, test_value_decode_raises_only_for_want_of_memory);
    tcase_add_test(tc, test_value_encode_never_raises);
    tcase_add_test(tc, test_value_random_values_come_back);
    tcase_add_test(tc, test_value_mutated_bytes_do_no_harm);
    add_comparisons(tc);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
