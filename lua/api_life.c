/* The life cycle of a service: what the launcher calls. The names begin with a dot, which no
 * service's own methods can. All of it runs in a task of kind EVPT_TASK_START. */
#include "lua/api.h"

#include <lauxlib.h>
#include <string.h>

/* Pushes a global, by raw access: a script may have forbidden undeclared ones. Returns its type. */
static int raw_global(lua_State *L, const char *name)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushstring(L, name);
    int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type;
}

void evpt_refresh_dispatch(lua_State *L)
{
    if (raw_global(L, "_msg_dispatch_") != LUA_TFUNCTION) {
        lua_pop(L, 1);
        lua_pushboolean(L, false);
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, EVPT_REF_DISPATCH);
}

/* ---- .start(script, ...) ---- */

static void load_script(lua_State *L, const char *script)
{
    lua_pushfstring(L, "service.%s", script);
    if (evpt_vm_of(L)->builtin && evpt_load_embedded(L, lua_tostring(L, -1))) {
        lua_remove(L, -2);
        return;
    }
    lua_pop(L, 1);
    if (!evpt_find_in_path(L, script)) {
        const char *tried = luaL_gsub(L, lua_tostring(L, -1), "\n\t", ", ");
        luaL_error(L, "no script '%s': %s", script, tried);
    }
    if (luaL_loadfilex(L, lua_tostring(L, -1), "t") != LUA_OK)
        lua_error(L);
    evpt_keep_chunk(L, NULL);
    lua_remove(L, -2);
}

static int main_done(lua_State *L, int status, lua_KContext context)
{
    evpt_refresh_dispatch(L);
    lua_settop(L, 0);
    /* what compiling has left behind: a third of what a small service holds */
    lua_gc(L, LUA_GCCOLLECT);
    evpt_vm_memory_trim(&evpt_vm_of(L)->memory);
    return 0;
}

static int script_done(lua_State *L, int status, lua_KContext context)
{
    evpt_refresh_dispatch(L);
    if (raw_global(L, "__main__") == LUA_TNIL)
        return main_done(L, LUA_OK, 0);
    lua_replace(L, 1); /* the arguments lie behind it */
    lua_callk(L, lua_gettop(L) - 1, 0, 0, main_done);
    return main_done(L, LUA_OK, 0);
}

static int life_start(lua_State *L)
{
    load_script(L, luaL_checkstring(L, 1));
    lua_callk(L, 0, 0, 0, script_done);
    return script_done(L, LUA_OK, 0);
}

/* ---- .after_init() ---- */

static int after_init_done(lua_State *L, int status, lua_KContext context)
{
    evpt_refresh_dispatch(L);
    return 0;
}

static int life_after_init(lua_State *L)
{
    if (raw_global(L, "doAfterInit") == LUA_TNIL)
        return 0;
    lua_callk(L, 0, 0, 0, after_init_done);
    return after_init_done(L, LUA_OK, 0);
}

/* ---- .stop() ---- */

enum { STOP_HOOKS = 1, STOP_HANDLER };

static int add_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

/* The hooks of on_stop, the last one first; `left` are still to run. All run, also where one
 * fails: that is logged. */
static int run_hooks(lua_State *L, int status, lua_KContext left)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    for (;; left--) {
        if (status != LUA_OK && status != LUA_YIELD)
            evpt_logf(&vm->node->log, EVPT_LOG_ERROR, vm->name, "on_stop: %s", lua_tostring(L, -1));
        lua_settop(L, STOP_HANDLER);
        if (left == 0)
            return 0;
        lua_rawgeti(L, STOP_HOOKS, left);
        status = lua_pcallk(L, 0, 0, STOP_HANDLER, left - 1, run_hooks);
    }
}

static int life_stop(lua_State *L)
{
    lua_settop(L, 0);
    evpt_push_table(L, EVPT_REF_STOP_HOOKS);
    lua_pushcfunction(L, add_traceback);
    return run_hooks(L, LUA_OK, (lua_KContext)lua_rawlen(L, STOP_HOOKS));
}

/* ---- .status(node, status): a node's connection has changed (cluster.on_change) ---- */

static int life_status(lua_State *L)
{
    lua_settop(L, 2);
    evpt_push_table(L, EVPT_REF_STATUS_HANDLERS);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 3);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 3, i);
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        (void)evpt_task_fork(evpt_vm_of(L), L, 2, EVPT_TASK_FORK, "on_change");
    }
    return 0;
}

bool evpt_push_life_cycle(lua_State *L, const char *name, size_t size)
{
    static const struct {
        const char *name;
        lua_CFunction function;
    } functions[] = {
        {".start", life_start},   {".after_init", life_after_init}, {".stop", life_stop},
        {".status", life_status}, {".update", evpt_life_update},
    };
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (strlen(functions[i].name) == size && memcmp(functions[i].name, name, size) == 0) {
            lua_pushcfunction(L, functions[i].function);
            return true;
        }
    }
    return false;
}
