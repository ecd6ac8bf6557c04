/* The options of evpt.export: who may call. */
#include "lua/api.h"

#include "services/access.h"

#include <string.h>

/* Raises unless the table at the index has nothing but `from`. Pushes that. */
static void push_from(lua_State *L, int options)
{
    lua_pushnil(L);
    while (lua_next(L, options)) {
        if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "from") != 0)
            luaL_error(L, "evpt.export: %s: unknown option", luaL_tolstring(L, -2, NULL));
        lua_pop(L, 1);
    }
    lua_pushliteral(L, "from");
    lua_rawget(L, options);
    if (!lua_istable(L, -1))
        luaL_error(L, "evpt.export: from: expected a list of patterns, got a %s",
                   luaL_typename(L, -1));
}

/* The patterns of the list on top of the stack, which keeps them alive. Pushes their array. */
static const char *const *push_patterns(lua_State *L, size_t *ret_count)
{
    int list = lua_gettop(L);
    size_t count = lua_rawlen(L, list);
    if (count == 0 || count > EVPT_ACCESS_PATTERNS_MAX)
        luaL_error(L, "evpt.export: from: expected 1 to %d patterns, got %d",
                   EVPT_ACCESS_PATTERNS_MAX, (int)count);
    const char **patterns = lua_newuserdatauv(L, count * sizeof(*patterns), 0);
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        bool is_text = lua_rawgeti(L, list, (lua_Integer)i + 1) == LUA_TSTRING;
        patterns[i] = is_text ? lua_tolstring(L, -1, &size) : "";
        if (strlen(patterns[i]) != size || !evpt_access_pattern_is_valid(patterns[i]))
            luaL_error(L,
                       "evpt.export: from[%d]: expected a node's name, in which * stands for any "
                       "characters, got %s",
                       (int)i + 1, luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    *ret_count = count;
    return patterns;
}

void evpt_restrict_exports(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    struct evpt_registry *registry = &vm->node->scheduler.registry;
    uint32_t handle = evpt_service_handle(vm->service);
    const char *const *patterns = NULL;
    size_t count = 0, size;
    int top = lua_gettop(L);
    luaL_checkstack(L, 8, NULL);
    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        push_from(L, 2);
        patterns = push_patterns(L, &count);
    }
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        const char *method = lua_tolstring(L, -2, &size);
        if (evpt_registry_restrict(registry, handle, method, size, patterns, count) != 0)
            luaL_error(L, "out of memory");
        lua_pop(L, 1);
    }
    lua_settop(L, top);
}
