/* A module in C for service scripts, as somebody else would write one: functions, and references in
 * the registry. */
#include <lauxlib.h>
#include <lua.h>

static int sum(lua_State *L)
{
    lua_Integer total = 0;
    for (int i = 1; i <= lua_gettop(L); i++)
        total += luaL_checkinteger(L, i);
    lua_pushinteger(L, total);
    return 1;
}

/* keep(value) -> reference */
static int keep(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    lua_pushinteger(L, luaL_ref(L, LUA_REGISTRYINDEX));
    return 1;
}

/* give(reference) -> value */
static int give(lua_State *L)
{
    int reference = (int)luaL_checkinteger(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, reference);
    luaL_unref(L, LUA_REGISTRYINDEX, reference);
    return 1;
}

static int fail(lua_State *L)
{
    return luaL_error(L, "stone %d is cracked", 7);
}

int luaopen_stones(lua_State *L);
int luaopen_stones(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"sum", sum}, {"keep", keep}, {"give", give}, {"fail", fail}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
