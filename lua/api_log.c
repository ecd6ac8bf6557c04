/* Fields of log lines: evpt.log.info("player joined", {player = 17}). */
#include "lua/api.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How many arguments a format takes. */
static int count_directives(const char *format)
{
    int count = 0;
    for (const char *at = format; (at = strchr(at, '%')) != NULL; at += 2) {
        if (!at[1])
            break; /* string.format says what is wrong */
        count += at[1] != '%';
    }
    return count;
}

bool evpt_has_log_fields(lua_State *L)
{
    int count = lua_gettop(L);
    return count >= 2 && lua_istable(L, count) && lua_type(L, 1) == LUA_TSTRING &&
           count_directives(lua_tostring(L, 1)) == count - 2;
}

static bool is_name(const char *name, size_t size)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char others[] = "0123456789.-";
    if (size == 0 || strlen(name) != size || !strchr(letters, *name))
        return false;
    for (size_t i = 1; i < size; i++) {
        if (!strchr(letters, name[i]) && !strchr(others, name[i]))
            return false;
    }
    return true;
}

/* The value on top as a field; it becomes a string there, which the field points into. */
static void read_value(lua_State *L, struct evpt_log_field *field)
{
    int type = lua_type(L, -1);
    bool finite = type == LUA_TNUMBER && isfinite(lua_tonumber(L, -1)); /* JSON knows no inf */
    field->is_literal = finite || type == LUA_TBOOLEAN;
    field->value = luaL_tolstring(L, -1, &field->size);
    lua_remove(L, -2);
}

static int by_name(const void *a, const void *b)
{
    const struct evpt_log_field *first = a, *second = b;
    return strcmp(first->name, second->name);
}

size_t evpt_check_log_fields(lua_State *L, int table, struct evpt_log_field *fields)
{
    size_t count = 0;
    luaL_checkstack(L, 2 * EVPT_LOG_FIELDS_MAX + 4, NULL);
    lua_pushnil(L);
    while (lua_next(L, table)) {
        size_t size;
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &size) : NULL;
        if (!name || !is_name(name, size))
            luaL_error(L, "log: a field's name has letters, digits and _ . -, and no digit first");
        if (count == EVPT_LOG_FIELDS_MAX)
            luaL_error(L, "log: more than %d fields", EVPT_LOG_FIELDS_MAX);
        fields[count].name = name; /* the table keeps it */
        read_value(L, &fields[count++]);
        lua_insert(L, -2); /* the value's text stays below the key, for lua_next */
    }
    qsort(fields, count, sizeof(*fields), by_name); /* the order of a table is none */
    return count;
}
