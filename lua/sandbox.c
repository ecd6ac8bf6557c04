#include "lua/sandbox.h"

#include "reactor/error.h"
#include "reactor/sys.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* Instructions between two looks at the limits: a look costs a system call, and between two of them
 * single instructions that are slow must not add up to much. */
#define LOOK_EVERY 100

/* Lua cuts long names of chunks; errors are made with this one, and the real name is put in its
 * place at the end. */
#define CHUNK "?"

struct sandbox {
    struct evpt_sandbox_limits limits;
    size_t memory_used;
    bool memory_refused; /* the limit was hit, if only for a moment */
    uint64_t instructions;
    uint64_t cpu_start_ns;
    const char *text;
    size_t size;
    evpt_sandbox_fn read;
    void *user;
};

/* lua_Alloc */
static void *allocate(void *user, void *old, size_t old_size, size_t size)
{
    struct sandbox *box = user;
    if (!old)
        old_size = 0; /* Lua says what it is for, not how large */
    if (size == 0) {
        evpt_sys_free(old);
        box->memory_used -= old_size;
        return NULL;
    }
    if (size > old_size && size - old_size > box->limits.memory - box->memory_used) {
        box->memory_refused = true;
        return NULL;
    }
    void *moved = evpt_sys_realloc(old, size);
    if (!moved)
        return size <= old_size ? old : NULL; /* Lua relies on it that shrinking succeeds */
    box->memory_used = box->memory_used - old_size + size;
    return moved;
}

static struct sandbox *sandbox_of(lua_State *L)
{
    void *user;
    (void)lua_getallocf(
        L, &user); /* the function is known; it is the user pointer that is asked for */
    return user;
}

/* lua_Hook */
static void look_at_limits(lua_State *L, lua_Debug *where)
{
    struct sandbox *box = sandbox_of(L);
    box->instructions += LOOK_EVERY;
    if (box->instructions < box->limits.instructions &&
        evpt_sys_thread_cpu_ns() - box->cpu_start_ns < box->limits.cpu_ns)
        return;
    lua_getinfo(L, "Sl", where);
    lua_pushfstring(L, "%s:%d: stopped, it runs too long (an endless loop?)", where->short_src,
                    where->currentline);
    lua_error(L);
}

/* __newindex of the globals: a global that is set for the first time. */
static int set_global(lua_State *L)
{
    const char *name = sandbox_of(L)->limits.nil_is_false;
    if (lua_isnil(L, 3) && lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), name) == 0) {
        lua_settop(L, 2);
        lua_pushboolean(L, false);
    }
    lua_rawset(L, 1);
    return 0;
}

static void watch_globals(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, set_global);
    lua_setfield(L, -2, "__newindex");
    lua_setmetatable(L, 1);
}

/* The protected part of a run. */
static int run(lua_State *L)
{
    struct sandbox *box = lua_touserdata(L, 1);
    lua_settop(L, 0);
    lua_pushglobaltable(L);
    if (box->limits.nil_is_false)
        watch_globals(L);
    if (box->text) {
        if (luaL_loadbufferx(L, box->text, box->size, "=" CHUNK, "t") != LUA_OK)
            return lua_error(L);
        lua_call(L, 0, 0);
    }
    box->read(L, box->user);
    return 0;
}

static void format_error(const struct sandbox *box, const char *name, const char *message,
                         char error[EVPT_SANDBOX_ERROR_SIZE])
{
    static const char chunk[] = CHUNK ":";
    if (!message || (box->memory_refused && strcmp(message, "not enough memory") == 0))
        snprintf(error, EVPT_SANDBOX_ERROR_SIZE, "%s: needs more than %zu MiB of memory", name,
                 box->limits.memory >> 20);
    else if (strncmp(message, chunk, strlen(chunk)) == 0)
        snprintf(error, EVPT_SANDBOX_ERROR_SIZE, "%s:%s", name, message + strlen(chunk));
    else
        snprintf(error, EVPT_SANDBOX_ERROR_SIZE, "%s: %s", name, message);
}

int evpt_sandbox_run(const char *name, const char *text, size_t size,
                     const struct evpt_sandbox_limits *limits, evpt_sandbox_fn read, void *user,
                     char error[EVPT_SANDBOX_ERROR_SIZE])
{
    static const char mark[] = "\xef\xbb\xbf"; /* Windows editors put it in front of UTF-8 */
    if (text && size >= strlen(mark) && memcmp(text, mark, strlen(mark)) == 0) {
        text += strlen(mark);
        size -= strlen(mark);
    }
    struct sandbox box = {.limits = *limits,
                          .cpu_start_ns = evpt_sys_thread_cpu_ns(),
                          .text = text,
                          .size = size,
                          .read = read,
                          .user = user};
    lua_State *L = lua_newstate(allocate, &box);
    if (!L) {
        snprintf(error, EVPT_SANDBOX_ERROR_SIZE, "%s: not enough memory", name);
        return -EVPT_EFORMAT;
    }
    lua_sethook(L, look_at_limits, LUA_MASKCOUNT, LOOK_EVERY);
    /* Nothing here can raise: a C function without upvalues and a light userdata take no memory. */
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &box);
    int status = lua_pcall(L, 1, 0, 0);
    if (status != LUA_OK)
        format_error(&box, name, lua_tostring(L, -1), error);
    lua_close(L);
    return status == LUA_OK ? 0 : -EVPT_EFORMAT;
}

bool evpt_sandbox_literal(lua_State *L, const char *text)
{
    if (lua_stringtonumber(L, text) == strlen(text) + 1)
        return true;
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        lua_pushboolean(L, text[0] == 't');
        return true;
    }
    if (strcmp(text, "nil") == 0) {
        lua_pushnil(L);
        return true;
    }
    if (text[0] == 0 || !strchr("\"'[{", text[0]))
        return false;
    int top = lua_gettop(L);
    const char *chunk = lua_pushfstring(L, "return %s", text);
    if (luaL_loadbufferx(L, chunk, strlen(chunk), "=" CHUNK, "t") == LUA_OK) {
        lua_newtable(L); /* an environment without what the file has set */
        lua_setupvalue(L, -2, 1);
        if (lua_pcall(L, 0, 1, 0) == LUA_OK) {
            lua_replace(L, top + 1);
            return true;
        }
    }
    lua_settop(L, top);
    return false;
}
