/* Everything that a Lua state can reach, from its registry on: where a code update looks for
 * references to the functions that it replaces. In C, because it stands still for everybody else
 * meanwhile: a million tables take 0.3 s here and took 1.1 s in Lua.
 *
 * What is still to be looked into is a list in Lua, what has been seen a set of addresses in a
 * userdata: whatever is allocated is the collector's, so anything may raise. */
#include "lua/api.h"

#include <lauxlib.h>
#include <string.h>

/* Stack of the walk. */
enum { WANTED = 1, SOURCE, RESULT, TODO, SEEN, OBJECT };

#define SEEN_CAPACITY_MIN 4096 /* a power of two: a small service has a thousand objects */

struct walk {
    lua_State *L;
    const char *source;
    lua_Integer results, todo;
    const void **seen; /* the userdata at SEEN: a hash table with open addressing */
    size_t seen_capacity, seen_count;
};

/* ---- what has been seen ---- */

static const void **seen_slot(const void **seen, size_t capacity, const void *address)
{
    size_t slot = (size_t)(((uintptr_t)address >> 3) * 0x9e3779b97f4a7c15u >> 20);
    while (seen[slot & (capacity - 1)] && seen[slot & (capacity - 1)] != address)
        slot++;
    return &seen[slot & (capacity - 1)];
}

static void seen_resize(struct walk *walk, size_t capacity)
{
    const void **seen = lua_newuserdatauv(walk->L, capacity * sizeof(*seen), 0);
    memset(seen, 0, capacity * sizeof(*seen));
    for (size_t i = 0; i < walk->seen_capacity; i++) {
        if (walk->seen[i])
            *seen_slot(seen, capacity, walk->seen[i]) = walk->seen[i];
    }
    lua_replace(walk->L, SEEN);
    walk->seen = seen;
    walk->seen_capacity = capacity;
}

/* True with the first call for this address. */
static bool see(struct walk *walk, const void *address)
{
    const void **slot = seen_slot(walk->seen, walk->seen_capacity, address);
    if (*slot)
        return false;
    *slot = address;
    if (++walk->seen_count * 2 > walk->seen_capacity)
        seen_resize(walk, walk->seen_capacity * 2);
    return true;
}

/* ---- what is found ---- */

static void add_result(struct walk *walk, int index)
{
    lua_pushvalue(walk->L, index);
    lua_rawseti(walk->L, RESULT, ++walk->results);
}

/* The value on top lies in OBJECT, at the key at this index. */
static void look_at_place(struct walk *walk, int key)
{
    lua_State *L = walk->L;
    if (!lua_isfunction(L, -1) || !lua_istable(L, WANTED))
        return;
    int value = lua_gettop(L);
    lua_pushvalue(L, value);
    lua_rawget(L, WANTED);
    bool wanted = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (wanted) {
        add_result(walk, OBJECT);
        add_result(walk, key);
        add_result(walk, value);
    }
}

static void look_at_function(struct walk *walk)
{
    lua_Debug info;
    lua_pushvalue(walk->L, OBJECT);
    lua_getinfo(walk->L, ">S", &info);
    if (strcmp(info.source, walk->source) == 0)
        add_result(walk, OBJECT);
}

/* Takes the value on top of the stack, to be looked into in its turn. */
static void reach(struct walk *walk)
{
    int type = lua_type(walk->L, -1);
    bool leads_on =
        type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TTHREAD || type == LUA_TUSERDATA;
    if (leads_on && see(walk, lua_topointer(walk->L, -1)))
        lua_rawseti(walk->L, TODO, ++walk->todo);
    else
        lua_pop(walk->L, 1);
}

static void reach_metatable(struct walk *walk, int index)
{
    if (lua_getmetatable(walk->L, index))
        reach(walk);
}

/* ---- kinds of objects ---- */

static void enter_table(struct walk *walk)
{
    lua_State *L = walk->L;
    for (lua_pushnil(L); lua_next(L, OBJECT);) {
        look_at_place(walk, lua_gettop(L) - 1);
        reach(walk);
        lua_pushvalue(L, -1);
        reach(walk);
    }
}

static void enter_function(struct walk *walk)
{
    lua_State *L = walk->L;
    if (walk->source)
        look_at_function(walk);
    for (int i = 1; lua_getupvalue(L, OBJECT, i); i++) {
        lua_pushinteger(L, i);
        lua_insert(L, -2);
        look_at_place(walk, lua_gettop(L) - 1);
        reach(walk);
        lua_pop(L, 1);
    }
}

/* Takes what is on top of the other's stack. */
static void reach_across(struct walk *walk, lua_State *other)
{
    lua_xmove(other, walk->L, 1);
    reach(walk);
}

/* What the stack of a coroutine holds leads on, but is no place: it belongs to calls that are under
 * way. */
static void enter_thread(struct walk *walk)
{
    lua_State *other = lua_tothread(walk->L, OBJECT);
    lua_Debug frame;
    if (other == walk->L)
        return; /* this is the update itself */
    if (!lua_checkstack(other, 2))
        luaL_error(walk->L, "not enough memory");
    int level = 0;
    for (; lua_getstack(other, level, &frame); level++) {
        lua_getinfo(other, "f", &frame);
        reach_across(walk, other);
        for (int step = 1; step >= -1; step -= 2) { /* locals, then what came in as `...` */
            for (int i = step; lua_getlocal(other, &frame, i); i += step)
                reach_across(walk, other);
        }
    }
    for (int i = level ? 0 : lua_gettop(other); i > 0; i--) { /* has not begun yet */
        lua_pushvalue(other, i);
        reach_across(walk, other);
    }
}

static void enter_userdata(struct walk *walk)
{
    int i = 1;
    for (; lua_getiuservalue(walk->L, OBJECT, i) != LUA_TNONE; i++)
        reach(walk);
    lua_pop(walk->L, 1); /* in place of none there is a nil */
}

static void enter(struct walk *walk)
{
    switch (lua_type(walk->L, OBJECT)) {
    case LUA_TTABLE:
        enter_table(walk);
        reach_metatable(walk, OBJECT);
        break;
    case LUA_TFUNCTION:
        enter_function(walk);
        break;
    case LUA_TTHREAD:
        enter_thread(walk);
        break;
    default:
        enter_userdata(walk);
        reach_metatable(walk, OBJECT);
    }
}

/* Whole types have metatables that are in no table. */
static void reach_metatables_of_types(struct walk *walk)
{
    lua_State *L = walk->L;
    int top = lua_gettop(L);
    lua_pushnil(L);
    lua_pushboolean(L, false);
    lua_pushinteger(L, 0);
    lua_pushliteral(L, "");
    lua_pushlightuserdata(L, NULL);
    lua_pushcfunction(L, evpt_heap_walk);
    lua_pushthread(L);
    for (int i = lua_gettop(L); i > top; i--) {
        reach_metatable(walk, i);
        lua_pop(L, 1);
    }
}

int evpt_heap_walk(lua_State *L)
{
    struct walk walk = {.L = L, .source = luaL_optstring(L, SOURCE, NULL)};
    lua_settop(L, SOURCE);
    lua_newtable(L); /* RESULT */
    lua_newtable(L); /* TODO */
    lua_pushnil(L);  /* SEEN */
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    seen_resize(&walk, SEEN_CAPACITY_MIN);
    lua_pushvalue(L, LUA_REGISTRYINDEX);
    reach(&walk);
    reach_metatables_of_types(&walk);
    while (walk.todo) {
        lua_rawgeti(L, TODO, walk.todo--);
        enter(&walk);
        lua_settop(L, SEEN);
    }
    lua_settop(L, RESULT);
    return 1;
}
