/* MessagePack to Lua and back: strangers' bytes are decoded, what came out is encoded, and that
 * must decode to the same again. At the back of the input: which allocation is refused, and how
 * long the encoded message may become. */
#include "fuzz.h"

#include "lua/value.h"
#include "reactor/error.h"

#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <string.h>

#define SIZE_MAX_DEFAULT (1 << 20)

/* Held outside of Lua: what raises for want of memory must not lose it. */
struct run {
    const uint8_t *bytes;
    size_t size, size_max;
    struct evpt_message *message;
};

static void *allocate(void *user, void *old, size_t old_size, size_t size)
{
    (void)user, (void)old_size;
    if (size == 0) {
        evpt_sys_free(old);
        return NULL;
    }
    void *moved = evpt_sys_realloc(old, size);
    return moved || size > old_size ? moved : old; /* shrinking does not fail */
}

/* ---- equality ---- */

static bool same(lua_State *L, int a, int b);

static bool same_number(lua_State *L, int a, int b)
{
    if (lua_isinteger(L, a) != lua_isinteger(L, b))
        return false;
    if (lua_isinteger(L, a))
        return lua_tointeger(L, a) == lua_tointeger(L, b);
    double x = lua_tonumber(L, a), y = lua_tonumber(L, b);
    return (isnan(x) && isnan(y)) || (x == y && signbit(x) == signbit(y));
}

static bool same_string(lua_State *L, int a, int b)
{
    size_t x_size, y_size;
    const char *x = lua_tolstring(L, a, &x_size), *y = lua_tolstring(L, b, &y_size);
    return x_size == y_size && memcmp(x, y, x_size) == 0;
}

static int count_pairs(lua_State *L, int table)
{
    int count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
        count++;
    return count;
}

static bool same_table(lua_State *L, int a, int b)
{
    luaL_checkstack(L, 8, NULL);
    if (count_pairs(L, a) != count_pairs(L, b))
        return false;
    int top = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, a); lua_settop(L, top + 1)) {
        if (lua_istable(L, top + 1))
            continue; /* as a key it is found nowhere else: it only counts */
        lua_pushvalue(L, top + 1);
        lua_rawget(L, b);
        if (!same(L, top + 2, top + 3))
            return false;
    }
    return true;
}

static bool same(lua_State *L, int a, int b)
{
    if (lua_type(L, a) != lua_type(L, b))
        return false;
    switch (lua_type(L, a)) {
    case LUA_TNUMBER:
        return same_number(L, a, b);
    case LUA_TSTRING:
        return same_string(L, a, b);
    case LUA_TTABLE:
        return same_table(L, a, b);
    default:
        return lua_rawequal(L, a, b);
    }
}

/* ---- the run ---- */

/* -1: no array. */
static int decode(lua_State *L, const void *bytes, size_t size, size_t *ret_read)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, bytes, size);
    int top = lua_gettop(L), count = evpt_value_decode(L, &reader);
    FUZZ_CHECK(lua_gettop(L) == top + (count > 0 ? count : 0));
    *ret_read = (size_t)(reader.at - (const uint8_t *)bytes);
    if (count < 0)
        FUZZ_CHECK(*ret_read == 0);
    return count;
}

/* Whoever only steps over a value must agree with who decodes it. */
static void check_skip(const struct run *run, int count, size_t read)
{
    struct evpt_reader reader;
    evpt_reader_init(&reader, run->bytes, run->size);
    int error = evpt_read_skip(&reader, EVPT_VALUE_DEPTH + 1);
    size_t skipped = (size_t)(reader.at - run->bytes);
    if (count >= 0)
        FUZZ_CHECK(!error && skipped == read);
    else if (!error)
        FUZZ_CHECK(count == -EVPT_EFORMAT || count == -EVPT_ELIMIT || count == -EVPT_EDEPTH);
}

static bool encode(lua_State *L, struct run *run, int count)
{
    char error_text[EVPT_VALUE_ERROR_SIZE];
    size_t before = run->message->size;
    int error =
        evpt_value_encode(L, 1, count, &run->message, run->size_max, "argument %d", error_text);
    FUZZ_CHECK(error == 0 || error == -EVPT_ETOOLARGE || error == -ENOMEM);
    FUZZ_CHECK(error == 0 || run->message->size == before);
    FUZZ_CHECK(run->message->size <= run->size_max || run->message->size == before);
    return error == 0;
}

static int round_trip(lua_State *L)
{
    struct run *run = lua_touserdata(L, 1);
    size_t read, read_again;
    lua_settop(L, 0);
    int count = decode(L, run->bytes, run->size, &read);
    check_skip(run, count, read);
    run->message = count >= 0 ? evpt_message_new(1) : NULL;
    if (!run->message || !encode(L, run, count))
        return 0;
    int again = decode(L, run->message->data, run->message->size, &read_again);
    FUZZ_CHECK(again == count && read_again == run->message->size);
    for (int i = 1; i <= count; i++)
        FUZZ_CHECK(same(L, i, count + i));
    return 0;
}

void fuzz_one(struct fuzz_input *in)
{
    struct run run = {.size_max = SIZE_MAX_DEFAULT};
    unsigned refuse = fuzz_byte(in), size_max = fuzz_byte(in);
    if (size_max % 8 == 7)
        run.size_max = size_max;
    run.bytes = fuzz_take(in, fuzz_left(in), &run.size);
    lua_State *L = lua_newstate(allocate, NULL);
    FUZZ_CHECK(L);
    lua_pushcfunction(L, round_trip);
    lua_pushlightuserdata(L, &run);
    if (refuse >= 128)
        (void)fuzz_refuse_allocation(refuse - 127);
    int status = lua_pcall(L, 1, 0, 0);
    FUZZ_CHECK(status == LUA_OK || status == LUA_ERRMEM);
    FUZZ_CHECK(status == LUA_OK || refuse >= 128);
    (void)fuzz_refuse_allocation(0);
    lua_close(L);
    evpt_message_free(run.message);
}
