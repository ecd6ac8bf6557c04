/* What api*.c share: finding services, posting requests, raising outcomes. */
#ifndef EVPT_LUA_API_H
#define EVPT_LUA_API_H

#include "lua/vm.h"
#include "services/code.h"
#include <lauxlib.h>

/* One request on its way: stack indexes of what it is made of, and where it goes. */
struct evpt_outgoing {
    enum evpt_message_kind kind;
    int service_at, method_at; /* strings (or, for a service of this node, a handle) */
    int first, count;          /* arguments */
    const char *root;          /* how errors name them: "argument %d", "params" */
    const char *node;          /* NULL: this node */
    size_t node_size;
    uint32_t handle;  /* of the service, where it is one of this node */
    uint32_t session; /* of the wait; 0 for sends */
    uint64_t deadline_ns;
};

/* Posts it. EVPT_CODE_OK, or the code of what went wrong with its text in `error`. Raises where an
 * argument cannot travel, after it has freed `wait` (NULL for sends). */
int evpt_post_outgoing(lua_State *L, const struct evpt_outgoing *out, struct evpt_wait *wait,
                       char error[EVPT_VALUE_ERROR_SIZE]);

/* The handle of the service at the index, a name or a handle; 0: there is none. Raises where it is
 * neither. */
uint32_t evpt_check_service(lua_State *L, int index);
/* A deadline `ms` from now; FOREVER where that is a century or more. */
uint64_t evpt_deadline_after(lua_Number ms);
/* The timeout at the index in milliseconds, or the configuration's where there is none. */
lua_Number evpt_check_timeout(lua_State *L, int index);
/* Raises unless the running code can wait. */
void evpt_check_can_wait(lua_State *L);

/* Continuations of a wait for an answer. The stack up to `base` is as it was at the yield, above it
 * are code and results, or code, text, executed. The names for the error object lie at 1 (node, if
 * `remote`), and the two behind. */
enum { EVPT_CALL_TRY = 1, EVPT_CALL_REMOTE = 2 };
static inline lua_KContext evpt_call_context(int base, int flags)
{
    return (lua_KContext)base << 2 | flags;
}
int evpt_call_continue(lua_State *L, int status, lua_KContext context);
/* The same without having waited. */
int evpt_call_fail(lua_State *L, int code, const char *text, lua_KContext context);
/* call_within(timeout_ms, node, service, method, ...): for proxies with a timeout of their own. */
int evpt_call_within(lua_State *L);
/* on_status(fn): fn(node, status) runs at each `.status`. */
int evpt_on_status(lua_State *L);

/* ---- api_access.c ---- */

/* export({name = function, ...} [, {from = {pattern, ...}}]): from here on other nodes may call these
 * methods only as `from` says, or all of them where it says nothing. Raises where the options are
 * not such; the table at 1 has been looked at. */
void evpt_restrict_exports(lua_State *L);

/* ---- api_task.c ---- */

/* sleep, wait, fork ...: what evpt_open adds. */
extern const luaL_Reg evpt_task_functions[];
/* Puts a resume and a wrap into `coroutine` that let nested coroutines wait. */
void evpt_set_coroutine(lua_State *L);

/* ---- api_log.c ---- */

/* Are the arguments a format, what it takes, and a table behind? That one's entries are fields. */
bool evpt_has_log_fields(lua_State *L);
/* Reads them, sorted by name, into an array of EVPT_LOG_FIELDS_MAX; how many there are. Their texts
 * are strings on the stack, where they stay. Raises where a name or their number is wrong. */
size_t evpt_check_log_fields(lua_State *L, int table, struct evpt_log_field *fields);

/* ---- api_modules.c ---- */

/* Sets up what `require` finds. */
void evpt_set_package(lua_State *L);
/* Pushes the chunk of a source that is part of the program; false: there is none (nothing pushed).
 */
bool evpt_load_embedded(lua_State *L, const char *name);
/* source(name): the same for Lua; raises where there is none. */
int evpt_source(lua_State *L);
/* Looks for a script or module in `path`. Pushes its file, or (false) what was tried. */
bool evpt_find_in_path(lua_State *L, const char *name);
/* Calls a function that is written in Lua, with all that is on the stack; it may wait. `source` is
 * a chunk that is part of the program, gets `evpt` and `evpt.core`, and returns a table of
 * functions. It runs with the first call: who calls none of them holds nothing of it. To be
 * returned. */
int evpt_call_lua(lua_State *L, const char *source, const char *function);

/* A searcher of `require`: evpt's own modules. */
int evpt_search_own(lua_State *L);

/* ---- api_update.c ---- */

/* The chunk on top of the stack is that of the module; NULL: of the service's script. */
void evpt_keep_chunk(lua_State *L, const char *module);
/* .update(what, unit, path, text), a life cycle function. */
int evpt_life_update(lua_State *L);

/* ---- heap.c ---- */

/* walk(wanted, source | nil) -> list: container, key, function, again and again, for every place,
 * wherever the state can reach it, where one of the functions is that are keys of the table
 * `wanted`. The key of a function as the container is the index of its upvalue. With `source`
 * (wanted may be nil): the functions that come from there. */
int evpt_heap_walk(lua_State *L);

/* ---- api_life.c ---- */

/* Looks for _msg_dispatch_, after each part of the start, and after an update. */
void evpt_refresh_dispatch(lua_State *L);

/* Pushes a life cycle function: ".start" and so on. False: there is none of this name. */
bool evpt_push_life_cycle(lua_State *L, const char *name, size_t size);

#endif
