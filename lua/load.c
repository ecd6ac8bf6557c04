#include "lua/load.h"

#include "reactor/error.h"
#include "reactor/sys.h"
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 5120      /* a path of 4096 bytes, a key, and what is wrong with it */
#define SHOWN_STRING_MAX 64 /* bytes of a string that a problem shows */

void evpt_load_problem_line(struct evpt_load *load, const char *text)
{
    char line[LINE_SIZE];
    snprintf(line, sizeof(line), "%s", text);
    for (char *at = line; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?'; /* out of a file's strings and keys */
    }
    load->problem_count++;
    load->problem(line, load->user);
}

void evpt_load_problem(struct evpt_load *load, const char *key, const char *format, ...)
{
    char text[LINE_SIZE], line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    size_t at = (size_t)snprintf(line, sizeof(line), "%s: %s%s", load->source, key ? key : "",
                                 key ? ": " : "");
    if (at < sizeof(line))
        snprintf(line + at, sizeof(line) - at, "%s", text);
    evpt_load_problem_line(load, line);
}

const char *evpt_load_show(lua_State *L, int index, char shown[EVPT_LOAD_SHOWN_SIZE])
{
    size_t size;
    const char *bytes;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        return "nothing";
    case LUA_TBOOLEAN:
        return lua_toboolean(L, index) ? "true" : "false";
    case LUA_TNUMBER: /* a copy, for lua_tostring would turn the value itself into a string */
        lua_pushvalue(L, index);
        snprintf(shown, EVPT_LOAD_SHOWN_SIZE, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
        return shown;
    case LUA_TSTRING:
        bytes = lua_tolstring(L, index, &size);
        snprintf(shown, EVPT_LOAD_SHOWN_SIZE, "\"%.*s%s\"", SHOWN_STRING_MAX, bytes,
                 strlen(bytes) > SHOWN_STRING_MAX ? "..."
                 : strlen(bytes) < size           ? "\\0..."
                                                  : "");
        return shown;
    case LUA_TTABLE:
        return "a table";
    case LUA_TFUNCTION:
        return "a function";
    default:
        return lua_typename(L, lua_type(L, index));
    }
}

void evpt_load_expected(struct evpt_load *load, lua_State *L, int index, const char *key,
                        const char *what)
{
    char shown[EVPT_LOAD_SHOWN_SIZE];
    evpt_load_problem(load, key, "expected %s, got %s", what, evpt_load_show(L, index, shown));
}

const char *evpt_load_text(lua_State *L, int index)
{
    if (lua_type(L, index) != LUA_TSTRING)
        return NULL;
    size_t size;
    const char *text = lua_tolstring(L, index, &size);
    return strlen(text) == size ? text : NULL;
}

static int compare_keys(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

const char **evpt_load_keys(lua_State *L, int table, size_t *ret_count)
{
    size_t count = 0;
    luaL_checkstack(L, 4, NULL);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
        count += evpt_load_text(L, -2) != NULL;
    const char **keys = lua_newuserdatauv(L, (count + 1) * sizeof(*keys), 0);
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        const char *key = evpt_load_text(L, -2);
        if (key)
            keys[i++] = key;
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    *ret_count = count;
    return keys;
}

void evpt_load_refuse_odd_keys(struct evpt_load *load, lua_State *L, int table,
                               lua_Integer sequence, const char *prefix, const char *problem)
{
    luaL_checkstack(L, 4, NULL);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (evpt_load_text(L, -2))
            continue;
        if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= sequence)
            continue;
        char shown[EVPT_LOAD_SHOWN_SIZE], key[EVPT_LOAD_SHOWN_SIZE + 256];
        snprintf(key, sizeof(key), "%s[%s]", prefix, evpt_load_show(L, -2, shown));
        evpt_load_problem(load, key, "%s", problem);
    }
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

size_t evpt_load_distance(const char *left, const char *right)
{
    enum { LONGEST = 40 }; /* no key is so long */
    size_t rows = strlen(left), columns = strlen(right);
    if (rows > LONGEST || columns > LONGEST)
        return SIZE_MAX;
    size_t cost[LONGEST + 1][LONGEST + 1]; /* [i][j]: from the first i bytes to the first j */
    for (size_t i = 0; i <= rows; i++) {
        for (size_t j = 0; j <= columns; j++) {
            if (i == 0 || j == 0) {
                cost[i][j] = i + j;
                continue;
            }
            bool same = left[i - 1] == right[j - 1];
            cost[i][j] =
                smallest(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + !same);
            bool swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if (swapped && cost[i - 2][j - 2] + 1 < cost[i][j])
                cost[i][j] = cost[i - 2][j - 2] + 1;
        }
    }
    return cost[rows][columns];
}

void evpt_load_unknown(struct evpt_load *load, const char *key, const char *suggestion)
{
    if (suggestion)
        evpt_load_problem(load, key, "unknown key, did you mean \"%s\"?", suggestion);
    else
        evpt_load_problem(load, key, "unknown key");
}

void *evpt_load_must(lua_State *L, void *memory)
{
    if (!memory)
        (void)luaL_error(L, "not enough memory"); /* does not return */
    return memory;
}

char *evpt_load_copy(lua_State *L, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = evpt_load_must(L, evpt_sys_alloc(size));
    memcpy(copy, text, size);
    return copy;
}

int evpt_load_run(struct evpt_load *load, const char *file, const char *text, size_t text_size,
                  const char *nil_is_false, evpt_sandbox_fn read, void *user)
{
    const struct evpt_sandbox_limits limits = {.memory = EVPT_LOAD_MEMORY,
                                               .instructions = EVPT_LOAD_INSTRUCTIONS,
                                               .cpu_ns = EVPT_LOAD_CPU_NS,
                                               .nil_is_false = nil_is_false};
    char *bytes = NULL;
    char error_line[EVPT_SANDBOX_ERROR_SIZE];
    if (file && !text) {
        int error = evpt_sys_file_read(file, EVPT_LOAD_FILE_MAX, &bytes, &text_size);
        if (error) {
            snprintf(error_line, sizeof(error_line), "%s: cannot read: %s", file,
                     evpt_strerror(error));
            evpt_load_problem_line(load, error_line);
            return -EVPT_EFORMAT;
        }
        text = bytes;
    }
    int error = evpt_sandbox_run(load->source, text, text_size, &limits, read, user, error_line);
    if (error)
        evpt_load_problem_line(load, error_line);
    evpt_sys_free(bytes);
    return load->problem_count > 0 ? -EVPT_EFORMAT : 0;
}
