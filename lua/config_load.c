#include "lua/config_load.h"

#include "lua/config_services.h"
#include "lua/load.h"
#include "reactor/error.h"
#include "reactor/sys.h"
#include "services/scheduler.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* One table (`rows`) says of each key where it goes, what may stand there and what stands there by
 * default. A configuration begins with the defaults; the file's globals are then read over it, key
 * by key, and the overrides over that. */

struct config_load {
    struct evpt_load load;
    struct evpt_config config;
    const char *file;   /* evpt.lua; NULL: none */
    size_t folder_size; /* bytes of `file` that are its folder, with the slash behind it */
    const char *node;
    const char *const *overrides;
    size_t override_count;
    const char *admin_source; /* who has set `admin` last */
};

struct row {
    const char *key; /* the part behind the last dot is the name in its section */
    void (*read)(struct config_load *load, lua_State *L, int index, const struct row *row);
    size_t offset, size; /* of the field in struct evpt_config */
    int64_t min, max, fallback;
};

static void *field_of(struct config_load *load, const struct row *row)
{
    return (char *)&load->config + row->offset;
}

/* ---- numbers and names ---- */

static void set_integer(struct config_load *load, const struct row *row, int64_t value)
{
    if (row->size == sizeof(uint32_t))
        *(uint32_t *)field_of(load, row) = (uint32_t)value;
    else
        *(size_t *)field_of(load, row) = (size_t)value;
}

/* True where the value is a number that stands for an integer; 2.0 is one, "2" is not. */
static bool to_integer(lua_State *L, int index, int64_t *ret_value)
{
    int is_integer;
    lua_Integer value = lua_tointegerx(L, index, &is_integer);
    if (!is_integer || lua_type(L, index) != LUA_TNUMBER)
        return false;
    *ret_value = value;
    return true;
}

/* `or_zero`: 0 is good too, whatever the row's minimum is. */
static void read_number(struct config_load *load, lua_State *L, int index, const struct row *row,
                        bool or_zero)
{
    int64_t value;
    if (to_integer(L, index, &value) &&
        ((value >= row->min && value <= row->max) || (or_zero && value == 0))) {
        set_integer(load, row, value);
        return;
    }
    char what[96];
    snprintf(what, sizeof(what), "%san integer from %lld to %lld", or_zero ? "0 or " : "",
             (long long)row->min, (long long)row->max);
    evpt_load_expected(&load->load, L, index, row->key, what);
}

static void read_integer(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    read_number(load, L, index, row, false);
}

static void read_limit(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    read_number(load, L, index, row, true);
}

/* The index of the value in a NULL-terminated list of names, or -1. */
static int find_name(lua_State *L, int index, const char *const *names)
{
    const char *text = evpt_load_text(L, index);
    for (int i = 0; text && names[i]; i++) {
        if (strcmp(text, names[i]) == 0)
            return i;
    }
    return -1;
}

static void read_level(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    static const char *const names[] = {"debug", "info", "warn", "error", NULL};
    int level = find_name(L, index, names); /* in the order of the enum */
    if (level >= 0)
        load->config.log.level = (enum evpt_log_level)level;
    else
        evpt_load_expected(&load->load, L, index, row->key,
                           "\"debug\", \"info\", \"warn\" or \"error\"");
}

static void read_format(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    static const char *const names[] = {"text", "json", NULL};
    int format = find_name(L, index, names);
    if (format >= 0)
        load->config.log.json = format == 1;
    else
        evpt_load_expected(&load->load, L, index, row->key, "\"text\" or \"json\"");
}

/* ---- paths ---- */

/* Puts the folder in front of a path that is neither absolute nor empty; of each path where there
 * are several, with one of `separators` between them. NULL: no memory. */
static char *resolve(const struct config_load *load, const char *paths, const char *separators)
{
    size_t parts = 1;
    for (const char *at = paths; *at; at++)
        parts += strchr(separators, *at) != NULL;
    char *resolved = evpt_sys_alloc(strlen(paths) + parts * load->folder_size + 1), *to = resolved;
    if (!resolved)
        return NULL;
    for (const char *at = paths;;) {
        size_t size = strcspn(at, separators);
        if (size > 0 && *at != '/' && load->folder_size > 0) {
            memcpy(to, load->file, load->folder_size);
            to += load->folder_size;
        }
        memcpy(to, at, size + 1); /* with the separator or the final 0 */
        to += size + 1;
        if (!at[size])
            return resolved;
        at += size + 1;
    }
}

static void set_paths(struct config_load *load, lua_State *L, char **field, const char *paths,
                      const char *separators)
{
    char *resolved = evpt_load_must(L, resolve(load, paths, separators));
    evpt_sys_free(*field);
    *field = resolved;
}

static void clear_path(char **field)
{
    evpt_sys_free(*field);
    *field = NULL;
}

static void read_path(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    if (text && *text)
        set_paths(load, L, field_of(load, row), text, "");
    else
        evpt_load_expected(&load->load, L, index, row->key, "a path");
}

static void read_templates(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    if (text)
        set_paths(load, L, field_of(load, row), text, ";");
    else
        evpt_load_expected(&load->load, L, index, row->key, "path templates");
}

/* nil, which only an override can give, and false */
static bool is_off(lua_State *L, int index)
{
    return lua_isnil(L, index) || (lua_isboolean(L, index) && !lua_toboolean(L, index));
}

static void read_log_file(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    if (is_off(L, index))
        clear_path(&load->config.log.file);
    else if (text && *text)
        set_paths(load, L, &load->config.log.file, text, "");
    else
        evpt_load_expected(&load->load, L, index, row->key, "a path or false");
}

/* A path in which %s may stand for the node's name, once. */
static bool is_named_path(const char *text)
{
    const char *percent = strchr(text, '%');
    return *text && (!percent || (percent[1] == 's' && !strchr(percent + 1, '%')));
}

static void set_named_path(struct config_load *load, lua_State *L, char **field, const char *text)
{
    const char *path = luaL_gsub(L, text, "%s", load->node); /* plain, no pattern */
    set_paths(load, L, field, path, "");
    lua_pop(L, 1);
}

static void set_admin(struct config_load *load, lua_State *L, const char *text)
{
    set_named_path(load, L, &load->config.admin, text);
    load->admin_source = load->load.source;
}

static void read_admin(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    if (is_off(L, index))
        clear_path(&load->config.admin);
    else if (text && is_named_path(text))
        set_admin(load, L, text);
    else
        evpt_load_expected(&load->load, L, index, row->key,
                           "a path with at most one %s and no other %, or false");
}

/* What `admin` finally is, which may be the default in a folder with a long path. */
static void check_admin(struct config_load *load)
{
    struct evpt_addr addr;
    if (!load->config.admin || evpt_addr_local(&addr, load->config.admin) == 0)
        return;
    load->load.source = load->admin_source;
    evpt_load_problem(&load->load, "admin", "expected a path of at most %zu bytes, got \"%s\"",
                      sizeof(addr.u.local.sun_path) - 1, load->config.admin);
}

static void read_metrics(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    if (is_off(L, index))
        load->config.metrics = (struct evpt_addr){0};
    else if (!text || evpt_addr_parse(&load->config.metrics, text) != 0)
        evpt_load_expected(&load->load, L, index, row->key, "\"ip:port\" or false");
}

/* ---- tls ---- */

static void read_tls_path(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    const char *text = evpt_load_text(L, index);
    load->config.tls.on = true;
    if (text && is_named_path(text))
        set_named_path(load, L, field_of(load, row), text);
    else
        evpt_load_expected(&load->load, L, index, row->key,
                           "a path with at most one %s and no other %");
}

static void read_flag(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    if (lua_isboolean(L, index))
        *(bool *)field_of(load, row) = lua_toboolean(L, index);
    else
        evpt_load_expected(&load->load, L, index, row->key, "true or false");
}

/* Half of it is no protection, and must not pass for one. */
static void check_tls(struct config_load *load)
{
    const struct {
        const char *key, *path;
    } paths[] = {{"tls.ca", load->config.tls.ca},
                 {"tls.cert", load->config.tls.cert},
                 {"tls.key", load->config.tls.key}};
    load->load.source = load->file ? load->file : "defaults";
    for (size_t i = 0; load->config.tls.on && i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (!paths[i].path)
            evpt_load_problem(&load->load, paths[i].key, "expected a path, got nothing");
    }
}

/* ---- the table ---- */

static void read_section(struct config_load *load, lua_State *L, int index, const struct row *row);

static void read_tls(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    load->config.tls.on = lua_istable(L, index);
    if (lua_istable(L, index))
        read_section(load, L, index, row);
    else if (!is_off(L, index))
        evpt_load_expected(&load->load, L, index, row->key, "a table or false");
}

static void read_services(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    evpt_config_read_services(&load->load, &load->config, L, index);
}

#define FIELD(name) offsetof(struct evpt_config, name), sizeof(((struct evpt_config *)NULL)->name)
#define MS_MAX 86400000 /* a day */
#define COUNT_MAX 16777216
#define BYTES_MAX (INT64_C(1) << 40)

static const struct row rows[] = {
    {"admin", read_admin, FIELD(admin), 0, 0, 0},
    {"cluster", read_section, 0, 0, 0, 0, 0},
    {"cluster.cache_max", read_integer, FIELD(cluster.cache_max), 1, COUNT_MAX, 100000},
    {"cluster.call_timeout_ms", read_integer, FIELD(cluster.call_timeout_ms), 1, MS_MAX, 5000},
    {"cluster.connect_timeout_ms", read_integer, FIELD(cluster.connect_timeout_ms), 1, MS_MAX,
     3000},
    {"cluster.heartbeat_ms", read_integer, FIELD(cluster.heartbeat_ms), 10, MS_MAX, 5000},
    {"cluster.message_max", read_integer, FIELD(cluster.message_max), 1024, 1 << 30, 16 << 20},
    {"cluster.pending_max", read_integer, FIELD(cluster.pending_max), 1, COUNT_MAX, 1000000},
    {"cluster.send_buffer_max", read_integer, FIELD(cluster.send_buffer_max), 65536, BYTES_MAX,
     64 << 20},
    {"clustername", read_path, FIELD(clustername), 0, 0, 0},
    {"cpath", read_templates, FIELD(cpath), 0, 0, 0},
    {"log", read_section, 0, 0, 0, 0, 0},
    {"log.file", read_log_file, FIELD(log.file), 0, 0, 0},
    {"log.format", read_format, FIELD(log.json), 0, 0, 0},
    {"log.level", read_level, FIELD(log.level), 0, 0, 0},
    {"lua_memory_max", read_limit, FIELD(lua_memory_max), 1 << 20, BYTES_MAX, 0},
    {"mailbox_max", read_integer, FIELD(mailbox_max), 1, COUNT_MAX, 1000000},
    {"metrics", read_metrics, FIELD(metrics), 0, 0, 0},
    {"path", read_templates, FIELD(path), 0, 0, 0},
    {"services", read_services, FIELD(services), 0, 0, 0},
    {"stop_timeout_ms", read_integer, FIELD(stop_timeout_ms), 0, 3600000, 10000},
    {"tls", read_tls, 0, 0, 0, 0, 0},
    {"tls.ca", read_tls_path, FIELD(tls.ca), 0, 0, 0},
    {"tls.cert", read_tls_path, FIELD(tls.cert), 0, 0, 0},
    {"tls.handshakes_max", read_integer, FIELD(tls.handshakes_max), 1, 65536, 64},
    {"tls.handshakes_per_address_max", read_integer, FIELD(tls.handshakes_per_address_max), 1,
     65536, 8},
    {"tls.key", read_tls_path, FIELD(tls.key), 0, 0, 0},
    {"tls.verify_name", read_flag, FIELD(tls.verify_name), 0, 0, 0},
    {"workers", read_integer, FIELD(workers), 0, EVPT_WORKERS_MAX, 0},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static const struct row *find_row(const char *key)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    }
    return NULL;
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* The key that was probably meant: the same name in another section, or one that two slips of the
 * finger away. */
static const char *suggest(const char *key)
{
    const char *nearest = NULL;
    size_t distance = 3;
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(last_part(rows[i].key), last_part(key)) == 0)
            return rows[i].key;
        size_t d = evpt_load_distance(rows[i].key, key);
        if (d < distance) {
            distance = d;
            nearest = rows[i].key;
        }
    }
    return nearest;
}

static void read_key(struct config_load *load, lua_State *L, int index, const char *key)
{
    const struct row *row = find_row(key);
    if (row)
        row->read(load, L, index, row);
    else
        evpt_load_unknown(&load->load, key, suggest(key));
}

/* Reads every key of a table, in the order of their names. */
static void read_keys(struct config_load *load, lua_State *L, int table, const char *section)
{
    size_t count;
    evpt_load_refuse_odd_keys(&load->load, L, table, 0, section, "unknown key");
    const char **names = evpt_load_keys(L, table, &count);
    for (size_t i = 0; i < count; i++) {
        const char *key = lua_pushfstring(L, *section ? "%s.%s" : "%s%s", section, names[i]);
        lua_pushstring(L, names[i]);
        lua_rawget(L, table);
        if (strchr(names[i], '.')) /* _ENV["log.level"] is not the level in log */
            evpt_load_unknown(&load->load, key, NULL);
        else
            read_key(load, L, lua_gettop(L), key);
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void read_section(struct config_load *load, lua_State *L, int index, const struct row *row)
{
    if (lua_istable(L, index))
        read_keys(load, L, index, row->key);
    else
        evpt_load_expected(&load->load, L, index, row->key, "a table");
}

/* ---- everything ---- */

static void set_defaults(struct config_load *load, lua_State *L)
{
    struct evpt_config *config = &load->config;
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].read == read_integer || rows[i].read == read_limit)
            set_integer(load, &rows[i], rows[i].fallback);
    }
    int cpus = evpt_sys_cpu_count();
    config->workers = cpus < EVPT_WORKERS_MAX ? (unsigned)cpus : EVPT_WORKERS_MAX;
    config->log.level = EVPT_LOG_INFO;
    config->tls.verify_name = true;
    set_paths(load, L, &config->clustername, "clustername.lua", "");
    set_paths(load, L, &config->path, "services/?.lua", ";");
    set_paths(load, L, &config->cpath, "", ";");
    set_admin(load, L, "run/%s.sock");
}

/* "KEY=VALUE" */
static void read_override(struct config_load *load, lua_State *L, const char *override)
{
    const char *equals = strchr(override, '=');
    if (!equals) {
        evpt_load_problem(&load->load, override, "expected KEY=VALUE, got no \"=\"");
        return;
    }
    const char *key = lua_pushlstring(L, override, (size_t)(equals - override));
    if (!evpt_sandbox_literal(L, equals + 1))
        lua_pushstring(L, equals + 1);
    read_key(load, L, lua_gettop(L), key);
    lua_pop(L, 2);
}

/* evpt_sandbox_fn */
static void read_all(lua_State *L, void *user)
{
    struct config_load *load = user;
    if (load->file)
        load->config.file = evpt_load_copy(L, load->file);
    set_defaults(load, L);
    read_keys(load, L, 1, "");
    load->load.source = "--set";
    for (size_t i = 0; i < load->override_count; i++)
        read_override(load, L, load->overrides[i]);
    check_admin(load);
    check_tls(load);
}

int evpt_config_load(struct evpt_config *ret_config, const char *file, const char *const *overrides,
                     size_t override_count, const char *node, evpt_problem_fn problem, void *user)
{
    const char *slash = file ? strrchr(file, '/') : NULL;
    struct config_load load = {
        .load = {.source = file ? file : "defaults", .problem = problem, .user = user},
        .file = file,
        .folder_size = slash ? (size_t)(slash - file) + 1 : 0,
        .node = node,
        .overrides = overrides,
        .override_count = override_count,
    };
    int error = evpt_load_run(&load.load, file, NULL, 0, "admin", read_all, &load);
    *ret_config = load.config;
    return error;
}
