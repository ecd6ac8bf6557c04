/* What a script can `require`, and the Lua sources that are part of the program.
 *
 * A node may run ten thousand services, each with a Lua state of its own, so a state holds little
 * that it has not asked for. What is written in C costs nothing there but its name. Functions that
 * few services need are written in Lua and compiled with the first call (evpt_call_lua); modules
 * are opened when they are required. With all of it in Lua and loaded, an empty service held 19 KiB
 * more than Lua's own libraries; this way it holds 3.
 */
#include "lua/api.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

/* ---- sources that are part of the program ---- */

static const struct evpt_embedded *find_embedded(const char *name)
{
    for (const struct evpt_embedded *each = evpt_embedded; each->name; each++) {
        if (strcmp(each->name, name) == 0)
            return each;
    }
    return NULL;
}

bool evpt_load_embedded(lua_State *L, const char *name)
{
    const struct evpt_embedded *source = find_embedded(name);
    char chunk_name[64];
    if (!source)
        return false;
    snprintf(chunk_name, sizeof(chunk_name), "=evpt:%s", name);
    if (luaL_loadbufferx(L, source->text, source->size, chunk_name, "t") != LUA_OK)
        lua_error(L);
    return true;
}

int evpt_source(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (!evpt_load_embedded(L, name))
        return luaL_error(L, "no source %s", name);
    return 1;
}

static int return_all(lua_State *L, int status, lua_KContext context)
{
    return lua_gettop(L);
}

int evpt_call_lua(lua_State *L, const char *source, const char *function)
{
    int args = lua_gettop(L);
    luaL_checkstack(L, 8, NULL);
    evpt_push_table(L, EVPT_REF_LUA_PARTS);
    if (lua_getfield(L, -1, source) != LUA_TTABLE) {
        lua_pop(L, 1);
        if (!evpt_load_embedded(L, source))
            return luaL_error(L, "no source %s", source);
        luaL_requiref(L, "evpt", evpt_open, 0);
        (void)evpt_open_core(L);
        lua_call(L, 2, 1);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, source);
    }
    lua_getfield(L, -1, function);
    lua_insert(L, 1);
    lua_pop(L, 2);
    lua_callk(L, args, LUA_MULTRET, 0, return_all);
    return return_all(L, LUA_OK, 0);
}

/* ---- searchers of `require` ---- */

/* evpt's own modules; in front of all others: nothing in `path` can stand in for them. */
int evpt_search_own(lua_State *L)
{
    static const struct {
        const char *name;
        lua_CFunction open;
        bool builtin; /* for built-in services only */
    } modules[] = {
        {"evpt", evpt_open, false},
        {"evpt.cluster", evpt_open_cluster, false},
        {"evpt.core", evpt_open_core, true},
        {"evpt.builtin", evpt_open_builtin, true},
    };
    const char *name = luaL_checkstring(L, 1);
    bool builtin = evpt_vm_of(L)->builtin;
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
        if (strcmp(modules[i].name, name) == 0 && (builtin || !modules[i].builtin)) {
            lua_pushcfunction(L, modules[i].open);
            lua_pushliteral(L, ":evpt:");
            return 2;
        }
    }
    if (strncmp(name, "evpt.", 5) == 0 && evpt_load_embedded(L, name)) {
        lua_pushliteral(L, ":evpt:");
        return 2;
    }
    lua_pushfstring(L, "no module '%s' in evpt itself", name);
    return 1;
}

bool evpt_find_in_path(lua_State *L, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, LUA_LOADLIBNAME);
    lua_getfield(L, -1, "searchpath");
    lua_pushstring(L, name);
    lua_getfield(L, -3, "path");
    lua_call(L, 2, 2); /* path; or nil, and what was tried */
    bool found = !lua_isnil(L, -2);
    lua_pushvalue(L, found ? -2 : -1);
    lua_replace(L, -5);
    lua_pop(L, 3);
    return found;
}

/* In place of Lua's own searcher for `path`, which would load binary chunks too: they can crash the
 * interpreter. */
static int search_text(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (!evpt_find_in_path(L, name))
        return 1;
    const char *path = lua_tostring(L, -1);
    if (luaL_loadfilex(L, path, "t") != LUA_OK)
        return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, path,
                          lua_tostring(L, -1));
    evpt_keep_chunk(L, name);
    lua_insert(L, -2);
    return 2;
}

void evpt_set_package(lua_State *L)
{
    const struct evpt_config *config = evpt_vm_of(L)->node->config;
    lua_getglobal(L, LUA_LOADLIBNAME);
    lua_pushstring(L, config->path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, config->cpath);
    lua_setfield(L, -2, "cpath");
    lua_getfield(L, -1, "searchers"); /* preload, path, cpath, cpath's all-in-one */
    lua_pushcfunction(L, search_text);
    lua_rawseti(L, -2, 2);
    for (lua_Integer i = luaL_len(L, -1); i >= 1; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, evpt_search_own);
    lua_rawseti(L, -2, 1);
    lua_pop(L, 2);
}
