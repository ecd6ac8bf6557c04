/* bench_meter: the Lua module that evpt-bench's driver service measures with; a C module like any
 * other that a service script may `require` over `cpath`.
 *
 *     local meter = require "bench_meter".new()
 *     local since = meter:clock()                            nanoseconds, monotonic
 *     since = meter:lap(1, since, cluster.try(...))          counts a call by its code and the time
 *                                                            since `since`; the clock again
 *     meter:lag(intended)                                    how late a call was started
 *     local outcomes, latency, lag = meter:take()            everything since the last take
 *
 * The end of one call is the start of the next, so a call costs one clock and one C function, about
 * 60 ns together.
 */
#include "tools/evpt_bench/tally.h"

#include <lauxlib.h>
#include <lua.h>
#include <time.h>

#define METER "bench_meter"

static uint64_t now_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time); /* fails only for a clock that does not exist */
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The argument is a meter: its own functions are all that anybody can call on one, and the check of
 * luaL_checkudata costs as much as the rest of a lap. */
static struct bench_tally *tally_at(lua_State *L, int index)
{
    void *tally = lua_touserdata(L, index);
    luaL_argcheck(L, tally != NULL, index, "a meter expected");
    return tally;
}

static int meter_clock(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)now_ns());
    return 1;
}

/* lap(meter, covers, since, code, ...) -> now; what follows the code is ignored */
static int meter_lap(lua_State *L)
{
    struct bench_tally *tally = tally_at(L, 1);
    uint64_t now = now_ns(), since = (uint64_t)luaL_checkinteger(L, 3);
    bench_tally_end(tally, (unsigned)luaL_checkinteger(L, 4), (uint64_t)luaL_checkinteger(L, 2),
                    now > since ? now - since : 0);
    lua_pushinteger(L, (lua_Integer)now);
    return 1;
}

/* lag(meter, intended) */
static int meter_lag(lua_State *L)
{
    struct bench_tally *tally = tally_at(L, 1);
    uint64_t now = now_ns(), intended = (uint64_t)luaL_checkinteger(L, 2);
    bench_histogram_record(&tally->lag, now > intended ? now - intended : 0);
    return 0;
}

/* { max, sum, sum of squares, overflows, index, count, index, count, ... } */
static void push_histogram(lua_State *L, const struct bench_histogram *histogram)
{
    lua_Integer at = 0;
    lua_newtable(L);
    lua_pushinteger(L, (lua_Integer)histogram->max);
    lua_rawseti(L, -2, ++at);
    lua_pushnumber(L, histogram->sum);
    lua_rawseti(L, -2, ++at);
    lua_pushnumber(L, histogram->square_sum);
    lua_rawseti(L, -2, ++at);
    lua_pushinteger(L, (lua_Integer)histogram->overflows);
    lua_rawseti(L, -2, ++at);
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        if (!histogram->buckets[i])
            continue;
        lua_pushinteger(L, i);
        lua_rawseti(L, -2, ++at);
        lua_pushinteger(L, (lua_Integer)histogram->buckets[i]);
        lua_rawseti(L, -2, ++at);
    }
}

/* take(meter) -> outcomes by code (from 0), latency, lag */
static int meter_take(lua_State *L)
{
    struct bench_tally *tally = luaL_checkudata(L, 1, METER);
    lua_createtable(L, BENCH_CODES, 0);
    for (int i = 0; i < BENCH_CODES; i++) {
        lua_pushinteger(L, (lua_Integer)tally->outcomes[i]);
        lua_rawseti(L, -2, i + 1);
    }
    push_histogram(L, &tally->latency);
    push_histogram(L, &tally->lag);
    bench_tally_clear(tally);
    return 3;
}

/* ended(meter) -> messages that had an outcome since the last take */
static int meter_ended(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)bench_tally_ended(tally_at(L, 1)));
    return 1;
}

static int meter_new(lua_State *L)
{
    bench_tally_clear(lua_newuserdatauv(L, sizeof(struct bench_tally), 0));
    luaL_setmetatable(L, METER);
    return 1;
}

int luaopen_bench_meter(lua_State *L); /* called by Lua's loader, by this name */

int luaopen_bench_meter(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"clock", meter_clock}, {"lap", meter_lap},     {"lag", meter_lag},
        {"take", meter_take},   {"ended", meter_ended}, {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"new", meter_new}, {NULL, NULL}};
    luaL_newmetatable(L, METER);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, functions);
    return 1;
}
