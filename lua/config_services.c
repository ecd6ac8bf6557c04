#include "lua/config_services.h"

#include "lua/value.h"
#include "reactor/error.h"
#include "reactor/sys.h"
#include "services/request.h"
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#define ENTRY_KEY_SIZE 48              /* "services[18446744073709551615]" */
#define KEY_SIZE (ENTRY_KEY_SIZE + 16) /* and ".name" behind it */

/* The entry that is being read. */
struct entry {
    struct evpt_load *load;
    struct evpt_config_service *service;
    char key[ENTRY_KEY_SIZE]; /* "services[2]" */
};

static void problem_key(const struct entry *entry, const char *part, char key[KEY_SIZE])
{
    snprintf(key, KEY_SIZE, "%s%s", entry->key, part);
}

/* ---- script and name ---- */

static bool is_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Goes into a path template in place of `?`: relative, and never up. */
static bool is_script(const char *text)
{
    if (*text == 0 || *text == '/' || strstr(text, ".."))
        return false;
    for (const char *at = text; *at; at++) {
        if (!is_alphanumeric(*at) && !strchr("./-", *at))
            return false;
    }
    return true;
}

/* [%a_][%w_]*, as names of nodes. */
static bool is_name(const char *text)
{
    if (*text >= '0' && *text <= '9')
        return false;
    size_t size = 0;
    while (is_alphanumeric(text[size]))
        size++;
    return text[size] == 0 && size > 0 && size <= EVPT_NAME_MAX;
}

static bool is_built_in(const char *name)
{
    static const char *const names[] = {"launcher", "clusterclient", "clusterserver", "console"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

static void read_script(struct entry *entry, lua_State *L, int index, const char *part)
{
    const char *text = evpt_load_text(L, index);
    if (text && is_script(text)) {
        entry->service->script = evpt_load_copy(L, text);
        return;
    }
    char key[KEY_SIZE];
    problem_key(entry, part, key);
    evpt_load_expected(entry->load, L, index, key,
                       "a script (letters, digits, _ - . /, without \"..\")");
}

static void read_name(struct entry *entry, lua_State *L, int index)
{
    const char *text = evpt_load_text(L, index), *what;
    if (!text || !is_name(text))
        what = "a name ([%a_][%w_]*)";
    else if (is_built_in(text))
        what = "a name that no built-in service has";
    else {
        entry->service->name = evpt_load_copy(L, text);
        return;
    }
    char key[KEY_SIZE];
    problem_key(entry, ".name", key);
    evpt_load_expected(entry->load, L, index, key, what);
}

/* ---- arguments ---- */

/* The largest key of a table whose keys are all positive integers up to EVPT_SERVICE_ARGS_MAX, or
 * -1. Keys that are left out are nils. */
static int count_arguments(lua_State *L, int table)
{
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key < 1 || key > EVPT_SERVICE_ARGS_MAX) {
            lua_pop(L, 2);
            return -1;
        }
        if (key > count)
            count = key;
    }
    return (int)count;
}

/* Stores the values first..first+count-1 as one MessagePack array. */
static void store_arguments(struct entry *entry, lua_State *L, int first, int count,
                            const char *key)
{
    char root[KEY_SIZE + 8], error_text[EVPT_VALUE_ERROR_SIZE];
    snprintf(root, sizeof(root), "%s[%%d]", key);
    struct evpt_message *message = evpt_load_must(L, evpt_message_new(64));
    int error = evpt_value_encode(L, first, count, &message, EVPT_LOAD_FILE_MAX, root, error_text);
    if (!error) {
        entry->service->args = evpt_sys_alloc(message->size);
        if (entry->service->args) {
            memcpy(entry->service->args, message->data, message->size);
            entry->service->args_size = message->size;
        } else {
            error = -ENOMEM;
        }
    }
    evpt_message_free(message);
    if (error == -EVPT_EFORMAT)
        evpt_load_problem(entry->load, NULL, "%s", error_text); /* begins with the place */
    else if (error == -EVPT_ETOOLARGE)
        evpt_load_problem(entry->load, key, "expected at most %d bytes, got more",
                          EVPT_LOAD_FILE_MAX);
    else if (error)
        (void)evpt_load_must(L, NULL);
}

static void read_arguments(struct entry *entry, lua_State *L, int index)
{
    char key[KEY_SIZE];
    problem_key(entry, ".args", key);
    int count = lua_isnil(L, index) ? 0 : lua_istable(L, index) ? count_arguments(L, index) : -1;
    if (count < 0) {
        char what[64];
        snprintf(what, sizeof(what), "a list of at most %d values", EVPT_SERVICE_ARGS_MAX);
        evpt_load_expected(entry->load, L, index, key, what);
        return;
    }
    luaL_checkstack(L, count, NULL);
    int first = lua_gettop(L) + 1;
    for (int i = 1; i <= count; i++)
        lua_rawgeti(L, index, i);
    store_arguments(entry, L, first, count, key);
    lua_settop(L, first - 1);
}

/* ---- the list ---- */

static void refuse_unknown_keys(struct entry *entry, lua_State *L, int index)
{
    static const char *const known[] = {"args", "name"};
    evpt_load_refuse_odd_keys(entry->load, L, index, 1, entry->key, "unknown key");
    size_t count;
    const char **names = evpt_load_keys(L, index, &count);
    for (size_t i = 0; i < count; i++) {
        const char *suggestion = NULL;
        bool is_known = false;
        for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++) {
            size_t distance = evpt_load_distance(known[k], names[i]);
            is_known = is_known || distance == 0;
            if (distance <= 2)
                suggestion = known[k];
        }
        if (!is_known) {
            const char *key = lua_pushfstring(L, "%s.%s", entry->key, names[i]);
            evpt_load_unknown(entry->load, key, suggestion);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

/* A field of the table at a stack index. */
static void push_field(lua_State *L, int table, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, table);
}

/* "echo", or { "room", name = "room_1", args = { 1, "pvp" } } */
static void read_entry(struct entry *entry, lua_State *L, int index)
{
    int top = lua_gettop(L);
    if (lua_type(L, index) == LUA_TSTRING) {
        read_script(entry, L, index, "");
        if (entry->service->script)
            read_name(entry, L, index);
        store_arguments(entry, L, top + 1, 0, entry->key);
        return;
    }
    if (!lua_istable(L, index)) {
        evpt_load_expected(entry->load, L, index, entry->key, "a script's name or a table");
        return;
    }
    refuse_unknown_keys(entry, L, index);
    lua_rawgeti(L, index, 1);
    read_script(entry, L, top + 1, "[1]");
    push_field(L, index, "args");
    read_arguments(entry, L, top + 2);
    push_field(L, index, "name");
    if (!lua_isnil(L, -1))
        read_name(entry, L, top + 3);
    else if (entry->service->script)
        read_name(entry, L, top + 1); /* the script's */
    lua_settop(L, top);
}

/* Names stay with the service that comes first. */
static void refuse_taken_name(struct evpt_load *load, const struct evpt_config *config,
                              size_t index)
{
    const char *name = config->services[index].name;
    for (size_t i = 0; i < index && name; i++) {
        if (!config->services[i].name || strcmp(config->services[i].name, name) != 0)
            continue;
        char key[KEY_SIZE];
        snprintf(key, sizeof(key), "services[%zu].name", index + 1);
        evpt_load_problem(load, key,
                          "expected a name of its own, got \"%.*s\", which services[%zu] has",
                          EVPT_LOAD_SHOWN_SIZE, name, i + 1);
        return;
    }
}

/* The length of a table whose keys are exactly 1..n, or -1. */
static lua_Integer list_length(lua_State *L, int table)
{
    lua_Integer count = 0, largest = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key < 1) {
            lua_pop(L, 2);
            return -1;
        }
        if (key > largest)
            largest = key;
        count++;
    }
    return largest == count ? count : -1;
}

static void drop_services(struct evpt_config *config)
{
    struct evpt_config dropped = {.services = config->services,
                                  .service_count = config->service_count};
    config->services = NULL;
    config->service_count = 0;
    evpt_config_fini(&dropped);
}

void evpt_config_read_services(struct evpt_load *load, struct evpt_config *config, lua_State *L,
                               int index)
{
    luaL_checkstack(L, 16, NULL);
    lua_Integer count = lua_istable(L, index) ? list_length(L, index) : -1;
    if (count < 0) {
        evpt_load_expected(load, L, index, "services", "a list without holes");
        return;
    }
    drop_services(config);
    if (count == 0)
        return;
    config->services =
        evpt_load_must(L, evpt_sys_zalloc((size_t)count * sizeof(*config->services)));
    config->service_count = (size_t)count;
    for (size_t i = 0; i < config->service_count; i++) {
        struct entry entry = {.load = load, .service = &config->services[i]};
        snprintf(entry.key, sizeof(entry.key), "services[%zu]", i + 1);
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        read_entry(&entry, L, lua_gettop(L));
        lua_pop(L, 1);
        refuse_taken_name(load, config, i);
    }
}
