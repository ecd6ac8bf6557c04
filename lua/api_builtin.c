/* `evpt.builtin`: what only the built-in services (lua/service) can do. */
#include "lua/api.h"

#include "lua/config_load.h"
#include "reactor/error.h"

#include <lauxlib.h>
#include <string.h>

/* control() -> handle of the pinned service that drives the cluster (services/control.h) */
static int builtin_control(lua_State *L)
{
    lua_pushinteger(L, evpt_vm_of(L)->node->control);
    return 1;
}

/* main() -> handle of the main thread's pinned service */
static int builtin_main(lua_State *L)
{
    lua_pushinteger(L, evpt_vm_of(L)->node->main_handle);
    return 1;
}

/* config() -> {services = {{script=, name=, args = {...}, n = count}, ...}, file=, clustername=,
 * stop_timeout_ms=, tls=} */
static int builtin_config(lua_State *L)
{
    const struct evpt_config *config = evpt_vm_of(L)->node->config;
    lua_createtable(L, 0, 5);
    lua_pushstring(L, config->file);
    lua_setfield(L, -2, "file");
    lua_pushstring(L, config->clustername);
    lua_setfield(L, -2, "clustername");
    lua_pushinteger(L, config->stop_timeout_ms);
    lua_setfield(L, -2, "stop_timeout_ms");
    lua_pushboolean(L, config->tls.on);
    lua_setfield(L, -2, "tls");
    lua_createtable(L, (int)config->service_count, 0);
    for (size_t i = 0; i < config->service_count; i++) {
        const struct evpt_config_service *service = &config->services[i];
        lua_createtable(L, 0, 3);
        lua_pushstring(L, service->script);
        lua_setfield(L, -2, "script");
        lua_pushstring(L, service->name);
        lua_setfield(L, -2, "name");
        struct evpt_reader reader;
        evpt_reader_init(&reader, service->args, service->args_size);
        int before = lua_gettop(L);
        int count = service->args ? evpt_value_decode(L, &reader) : 0;
        if (count < 0)
            return luaL_error(L, "bad arguments of service %s", service->name);
        lua_createtable(L, count, 1); /* the same as table.pack */
        lua_insert(L, before + 1);
        for (int n = count; n >= 1; n--)
            lua_rawseti(L, before + 1, n);
        lua_pushinteger(L, count);
        lua_setfield(L, -2, "n");
        lua_setfield(L, -2, "args");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "services");
    return 1;
}

/* tell_main(method, ...): a message to the main thread */
static int builtin_tell_main(lua_State *L)
{
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_vm *vm = evpt_vm_of(L);
    lua_pushinteger(L, vm->node->main_handle);
    lua_insert(L, 1);
    struct evpt_outgoing out = {.kind = EVPT_MESSAGE_SEND,
                                .service_at = 1,
                                .method_at = 2,
                                .first = 3,
                                .count = lua_gettop(L) - 2,
                                .root = "argument %d",
                                .handle = vm->node->main_handle,
                                .deadline_ns = EVPT_FOREVER};
    if (evpt_post_outgoing(L, &out, NULL, error))
        return luaL_error(L, "%s", error);
    return 0;
}

struct problems {
    lua_State *L; /* a table of lines is on top of its stack */
    bool lost;
};

/* Runs inside the loader, which holds things: must not raise. A line that does not fit into memory
 * is lost, and that is told. */
static int add_problem(lua_State *L)
{
    lua_pushstring(L, lua_touserdata(L, 2));
    lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
    return 0;
}

static void on_problem(const char *line, void *user)
{
    struct problems *problems = user;
    lua_State *L = problems->L;
    lua_pushcfunction(L, add_problem);
    lua_pushvalue(L, -2);
    lua_pushlightuserdata(L, (void *)line);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
        lua_pop(L, 1);
        problems->lost = true;
    }
}

/* (table, list): fills the table. Protected, so that the list is freed where it raises. */
static int put_node_list(lua_State *L)
{
    const struct evpt_node_list *list = lua_touserdata(L, 2);
    for (size_t i = 0; i < list->count; i++) {
        char addr[EVPT_ADDR_TEXT_SIZE];
        if (list->entries[i].addr.size)
            lua_pushstring(L, evpt_addr_format(&list->entries[i].addr, addr, sizeof(addr)));
        else
            lua_pushboolean(L, false);
        lua_setfield(L, 1, list->entries[i].name);
    }
    return 0;
}

/* load_node_list(text | nil) -> {name = "ip:port" | false}, or nil, {problem, ...}. Without text
 * the file is read. */
static int builtin_load_node_list(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    size_t size = 0;
    const char *text = luaL_optlstring(L, 1, NULL, &size);
    struct evpt_node_list list = {0};
    luaL_checkstack(L, 10, NULL);
    lua_newtable(L); /* result or problems */
    struct problems problems = {.L = L};
    if (evpt_node_list_load(&list, vm->node->config->clustername, text, size, vm->node->name,
                            on_problem, &problems) != 0) {
        if (problems.lost)
            return luaL_error(L, "out of memory for what is wrong in the node list");
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushcfunction(L, put_node_list);
    lua_pushvalue(L, -2);
    lua_pushlightuserdata(L, &list);
    int status = lua_pcall(L, 2, 0, 0);
    evpt_node_list_fini(&list);
    return status == LUA_OK ? 1 : lua_error(L);
}

/* own_address() -> "ip:port" */
static int builtin_own_address(lua_State *L)
{
    char addr[EVPT_ADDR_TEXT_SIZE];
    lua_pushstring(L, evpt_addr_format(&evpt_vm_of(L)->node->addr, addr, sizeof(addr)));
    return 1;
}

/* replace_node_list(text): atomically, on disk. Raises where that fails. */
static int builtin_replace_node_list(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    const char *path = evpt_vm_of(L)->node->config->clustername;
    int error = evpt_sys_file_replace(path, text, size);
    if (error)
        return luaL_error(L, "%s: cannot write: %s", path, evpt_strerror(error));
    return 0;
}

/* count_reload(applied): of the node list, for metrics */
static int builtin_count_reload(lua_State *L)
{
    struct evpt_node *node = evpt_vm_of(L)->node;
    evpt_count_up(lua_toboolean(L, 1) ? &node->reloads : &node->reloads_refused, 1);
    return 0;
}

static void push_service(struct evpt_service *service, uint32_t handle, void *user)
{
    lua_State *L = user;
    char name[EVPT_NODE_NAME_MAX + 1];
    struct evpt_registry *registry = &evpt_vm_of(L)->node->scheduler.registry;
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, handle);
    lua_setfield(L, -2, "handle");
    lua_pushstring(L, evpt_registry_name_of(registry, handle, name, sizeof(name)));
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, service->pair != NULL);
    lua_setfield(L, -2, "pinned");
    lua_pushinteger(L, atomic_load_explicit(&service->waiting, memory_order_relaxed));
    lua_setfield(L, -2, "mailbox");
    lua_pushinteger(L, (lua_Integer)atomic_load_explicit(&service->messages, memory_order_relaxed));
    lua_setfield(L, -2, "messages");
    lua_pushinteger(
        L, (lua_Integer)(atomic_load_explicit(&service->run_ns, memory_order_relaxed) / 1000));
    lua_setfield(L, -2, "run_us");
    lua_pushinteger(L, atomic_load_explicit(&service->refused, memory_order_relaxed));
    lua_setfield(L, -2, "refused");
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

/* services() -> {{handle=, name=, pinned=, mailbox=, messages=, run_us=, refused=}, ...} */
static int builtin_services(lua_State *L)
{
    lua_newtable(L);
    evpt_registry_each(&evpt_vm_of(L)->node->scheduler.registry, push_service, L);
    return 1;
}

int evpt_open_builtin(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"control", builtin_control},
        {"main", builtin_main},
        {"config", builtin_config},
        {"tell_main", builtin_tell_main},
        {"load_node_list", builtin_load_node_list},
        {"replace_node_list", builtin_replace_node_list},
        {"own_address", builtin_own_address},
        {"count_reload", builtin_count_reload},
        {"services", builtin_services},
        {"source", evpt_source},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
