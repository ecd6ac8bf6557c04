/* `evpt`: time, and coroutines that wait. */
#include "lua/api.h"

#include <lauxlib.h>
#include <lualib.h>

static int no_results(lua_State *L, int status, lua_KContext context)
{
    return 0;
}

/* ---- time ---- */

/* The time `ms` (at the index) from now. */
static uint64_t check_time(lua_State *L, int index)
{
    lua_Number ms = luaL_checknumber(L, index);
    luaL_argcheck(L, ms == ms, index, "a number of milliseconds expected");
    return evpt_deadline_after(ms < 0 ? 0 : ms);
}

static int api_sleep(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    uint64_t at_ns = check_time(L, 1);
    evpt_check_can_wait(L);
    evpt_wait_arm(vm, evpt_wait_new(vm, L, EVPT_WAIT_SLEEP), at_ns);
    return evpt_task_yield(L, 0, no_results);
}

static int api_timeout(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    uint64_t at_ns = check_time(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    struct evpt_wait *wait = evpt_wait_new(vm, L, EVPT_WAIT_TIMER);
    lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_WAIT_VALUES);
    lua_insert(L, -2);
    lua_rawseti(L, -2, evpt_wait_values(wait));
    evpt_wait_arm(vm, wait, at_ns);
    lua_pushinteger(L, evpt_wait_timer_id(wait));
    return 1;
}

static int api_cancel(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    struct evpt_wait *wait = evpt_wait_find_timer(vm, luaL_checkinteger(L, 1));
    if (wait) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_WAIT_VALUES);
        lua_pushboolean(L, false);
        lua_rawseti(L, -2, evpt_wait_values(wait));
        evpt_wait_free(vm, wait);
    }
    lua_pushboolean(L, wait != NULL);
    return 1;
}

static int api_now(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)(evpt_sys_now_ns() / EVPT_NS_PER_MS));
    return 1;
}

static int api_time(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)evpt_sys_wall_ns() / (lua_Number)EVPT_NS_PER_S);
    return 1;
}

/* ---- tasks of the script's own ---- */

static int api_fork(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    (void)evpt_task_fork(evpt_vm_of(L), L, lua_gettop(L) - 1, EVPT_TASK_FORK, "fork");
    return 0;
}

/* A coroutine that waits in evpt.wait has this and its session at the bottom of its frame: that is
 * where wakeup finds it, and no table is needed. A script cannot make such a value. */
static const char wait_mark;

static int api_wait(lua_State *L)
{
    evpt_check_can_wait(L);
    lua_settop(L, 0);
    lua_pushlightuserdata(L, (void *)&wait_mark);
    lua_pushinteger(L, evpt_wait_new(evpt_vm_of(L), L, EVPT_WAIT_WAKEUP)->session);
    return evpt_task_yield(L, 0, no_results);
}

/* The wait of a coroutine in evpt.wait; NULL: it is not there, or wakes up already. */
static struct evpt_wait *find_wait(struct evpt_vm *vm, lua_State *co)
{
    if (lua_status(co) != LUA_YIELD || lua_gettop(co) < 2 || lua_touserdata(co, 1) != &wait_mark)
        return NULL;
    return evpt_wait_find(vm, (uint32_t)lua_tointeger(co, 2));
}

static int api_wakeup(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    lua_State *co = lua_tothread(L, 1);
    if (!co)
        return luaL_error(L, "evpt.wakeup: expected a coroutine, got a %s", luaL_typename(L, 1));
    struct evpt_wait *wait = find_wait(vm, co);
    lua_pushboolean(L, wait != NULL);
    if (wait) {
        struct evpt_task *task = wait->task;
        evpt_wait_free(vm, wait);
        evpt_task_ready(vm, task, 0);
    }
    return 1;
}

static int api_queue(lua_State *L)
{
    return evpt_call_lua(L, "evpt", "queue");
}

const luaL_Reg evpt_task_functions[] = {
    {"sleep", api_sleep}, {"timeout", api_timeout}, {"cancel", api_cancel},
    {"now", api_now},     {"time", api_time},       {"fork", api_fork},
    {"wait", api_wait},   {"wakeup", api_wakeup},   {"queue", api_queue},
    {NULL, NULL},
};

/* ---- nested coroutines ----
 *
 * A script may run coroutines of its own and wait inside them. evpt's yields bear a token: resume
 * and wrap, in place of Lua's, pass such a yield on to whoever resumed them, up to the scheduler,
 * and what the scheduler answers down again.
 */

enum { RAISED = -1, WAITS = -2 };

/* Resumes co with the `args` values on top of L's stack; in their place come those that it yields
 * or returns. Their number, or RAISED with the error on top, or WAITS: co's yield is to be passed
 * on. */
static int advance(lua_State *L, lua_State *co, int args)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    bool blocked = !lua_isyieldable(L); /* then nothing can wait in co either */
    int results = 0;
    if (evpt_is_waiting(co)) {
        lua_pop(L, args);
        lua_pushliteral(L, "cannot resume a coroutine that waits for evpt");
        return RAISED;
    }
    if (!lua_checkstack(co, args)) {
        lua_pop(L, args);
        lua_pushliteral(L, "too many arguments to resume");
        return RAISED;
    }
    lua_xmove(L, co, args);
    vm->blocked += blocked;
    int status = lua_resume(co, L, args, &results);
    vm->blocked -= blocked;
    if (status == LUA_YIELD && evpt_is_waiting(co))
        return WAITS;
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return RAISED;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return RAISED;
    }
    lua_xmove(co, L, results);
    return results;
}

static int go_on_resume(lua_State *L, int status, lua_KContext context)
{
    lua_State *co = lua_tothread(L, 1);
    if (status == LUA_YIELD)
        evpt_end_waiting(co);
    int results = advance(L, co, lua_gettop(L) - 1);
    if (results == WAITS)
        return evpt_task_yield(L, 0, go_on_resume);
    lua_pushboolean(L, results != RAISED);
    lua_replace(L, 1); /* in place of co: ok, results ... */
    return lua_gettop(L);
}

static int nested_resume(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTHREAD);
    return go_on_resume(L, LUA_OK, 0);
}

/* As Lua's own wrap does: closes what the coroutine left open, and says where it was resumed. */
static int raise_from(lua_State *L, lua_State *co)
{
    if (lua_status(co) > LUA_YIELD) {
        lua_settop(L, 0);
        (void)lua_resetthread(co);
        lua_xmove(co, L, 1);
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int go_on_wrapped(lua_State *L, int status, lua_KContext context)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    if (status == LUA_YIELD)
        evpt_end_waiting(co);
    int results = advance(L, co, lua_gettop(L));
    if (results == WAITS)
        return evpt_task_yield(L, 0, go_on_wrapped);
    return results == RAISED ? raise_from(L, co) : results;
}

static int call_wrapped(lua_State *L)
{
    return go_on_wrapped(L, LUA_OK, 0);
}

static int nested_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, call_wrapped, 1);
    return 1;
}

void evpt_set_coroutine(lua_State *L)
{
    lua_getglobal(L, LUA_COLIBNAME);
    lua_pushcfunction(L, nested_resume);
    lua_setfield(L, -2, "resume");
    lua_pushcfunction(L, nested_wrap);
    lua_setfield(L, -2, "wrap");
    lua_pop(L, 1);
}
