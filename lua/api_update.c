/* Code update: the chunks that it compares with, and the message that it comes as. The rest is Lua
 * (update/): update.lua says how.
 *
 * A service keeps the functions that its script and its modules are as chunks. They share their
 * inner functions with those that the service runs, so what they cost is the code of the top level:
 * 20 to 40 bytes for each line of it. */
#include "lua/api.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

void evpt_keep_chunk(lua_State *L, const char *module)
{
    evpt_push_table(L, EVPT_REF_CHUNKS);
    if (module)
        lua_pushstring(L, module);
    else
        lua_pushboolean(L, true);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* own_module(name): a new instance of one of evpt's modules; nil: there is none of that name */
static int own_module(lua_State *L)
{
    lua_settop(L, 1);
    if (evpt_search_own(L) != 2)
        return 0;
    lua_pushvalue(L, -2); /* the loader */
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* restrict(methods, options): as evpt.export does, and nothing more: who may call them. Only the
 * keys of `methods` count. Raises where the options are wrong, or for want of memory. */
static int restrict_exports(lua_State *L)
{
    evpt_restrict_exports(L);
    return 0;
}

/* find(unit): the file that it was loaded from; nil: it was not loaded */
static int find(lua_State *L, int unit)
{
    evpt_push_table(L, EVPT_REF_CHUNKS);
    lua_pushvalue(L, unit);
    if (lua_rawget(L, -2) != LUA_TFUNCTION)
        return 0;
    lua_Debug info;
    lua_getinfo(L, ">S", &info);
    lua_pushstring(L, info.source + 1); /* behind the @ */
    return 1;
}

static void push_refs(lua_State *L)
{
    static const struct {
        const char *name;
        enum evpt_vm_ref ref;
    } refs[] = {
        {"exports", EVPT_REF_EXPORTS},       {"methods", EVPT_REF_METHODS},
        {"stop_hooks", EVPT_REF_STOP_HOOKS}, {"status_handlers", EVPT_REF_STATUS_HANDLERS},
        {"chunks", EVPT_REF_CHUNKS},
    };
    lua_newtable(L);
    for (size_t i = 0; i < sizeof(refs) / sizeof(refs[0]); i++) {
        lua_pushinteger(L, refs[i].ref);
        lua_setfield(L, -2, refs[i].name);
    }
}

/* Two worlds and what it took to compare them are garbage now: a megabyte, say. A large service
 * collects it in its time; a small one that idles would hold on to it. */
static void clean_up(struct evpt_vm *vm, lua_State *L, size_t before)
{
    if (vm->memory.used - before < before / 4)
        return;
    lua_gc(L, LUA_GCCOLLECT);
    evpt_vm_memory_trim(&vm->memory);
}

/* .update("find", unit), .update("check" | "apply", unit, path, text): unit is true for the script,
 * or the name of a module. -> what has changed; or nil, one line: then nothing has. */
int evpt_life_update(lua_State *L)
{
    enum { WHAT = 1, UNIT, PATH, TEXT };
    const char *what = luaL_checkstring(L, WHAT);
    lua_settop(L, TEXT);
    if (strcmp(what, "find") == 0)
        return find(L, UNIT);
    struct evpt_vm *vm = evpt_vm_of(L);
    size_t before = vm->memory.used;
    bool dry_run = strcmp(what, "apply") != 0;
    (void)evpt_load_embedded(L, "update.update");
    /* Libraries of its own: what the script has made of `debug` is its own affair, and nothing of
     * this is left within its reach. */
    lua_pushcfunction(L, luaopen_debug);
    lua_call(L, 0, 1);
    lua_pushvalue(L, LUA_REGISTRYINDEX);
    push_refs(L);
    lua_pushcfunction(L, evpt_source);
    lua_pushcfunction(L, own_module);
    lua_pushcfunction(L, evpt_heap_walk);
    lua_pushcfunction(L, restrict_exports);
    for (int i = UNIT; i <= TEXT; i++)
        lua_pushvalue(L, i);
    lua_pushboolean(L, dry_run);
    lua_call(L, 11, 2); /* not lua_callk: nothing in it can wait, so nothing else runs meanwhile */
    if (!dry_run)
        evpt_refresh_dispatch(L);
    clean_up(vm, L, before);
    return 2;
}
