/* `evpt.cluster`: the functions written in C. */
#include "lua/api.h"

#include "reactor/error.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* ---- nodes ---- */

/* Is the name in the node list, and not down? Answers are kept as long as nothing has changed in
 * the directory. */
static bool is_known(lua_State *L, struct evpt_vm *vm, int index)
{
    struct evpt_clusterclient *client = &vm->node->client;
    uint32_t version = atomic_load_explicit(&client->version, memory_order_acquire);
    if (version != vm->nodes_version) {
        lua_newtable(L);
        lua_rawseti(L, LUA_REGISTRYINDEX, EVPT_REF_NODES);
        vm->nodes_version = version;
    }
    evpt_push_table(L, EVPT_REF_NODES);
    lua_pushvalue(L, index);
    lua_rawget(L, -2);
    bool known = lua_toboolean(L, -1);
    if (!known) {
        size_t size;
        const char *name = lua_tolstring(L, index, &size);
        enum evpt_connect_status status;
        known = evpt_clusterclient_lookup(client, name, size, NULL, &status) &&
                status != EVPT_STATUS_DOWN;
        if (known) {
            lua_pushvalue(L, index);
            lua_pushboolean(L, true);
            lua_rawset(L, -4);
        }
    }
    lua_pop(L, 2);
    return known;
}

/* Fills in where a request for the node at 1 goes: the local path for the node's own name.
 * EVPT_CODE_OK or unknown_node. */
static int set_target(lua_State *L, struct evpt_outgoing *out, char *error)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    out->service_at = 2;
    out->method_at = 3;
    luaL_checktype(L, 1, LUA_TSTRING);
    luaL_checktype(L, 2, LUA_TSTRING);
    luaL_checktype(L, 3, LUA_TSTRING);
    luaL_argcheck(L, *lua_tostring(L, 3) != '.', 3, "names that begin with a dot are evpt's own");
    out->node = lua_tolstring(L, 1, &out->node_size);
    if (strlen(vm->node->name) == out->node_size &&
        memcmp(out->node, vm->node->name, out->node_size) == 0) {
        out->node = NULL;
        out->handle = evpt_check_service(L, 2);
        return EVPT_CODE_OK;
    }
    if (is_known(L, vm, 1))
        return EVPT_CODE_OK;
    enum evpt_connect_status status;
    bool listed =
        evpt_clusterclient_lookup(&vm->node->client, out->node, out->node_size, NULL, &status);
    snprintf(error, EVPT_VALUE_ERROR_SIZE, "%s",
             listed ? "the node list says that the node is down" : "not in the node list");
    return EVPT_CODE_UNKNOWN_NODE;
}

/* ---- calls that wait ---- */

/* (node, service, method, ...) with the timeout given */
static int request(lua_State *L, int flags, lua_Number timeout_ms)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    char error[EVPT_VALUE_ERROR_SIZE];
    lua_KContext context = evpt_call_context(3, flags | EVPT_CALL_REMOTE);
    struct evpt_outgoing out = {
        .kind = EVPT_MESSAGE_CALL, .first = 4, .count = lua_gettop(L) - 3, .root = "argument %d"};
    int code = set_target(L, &out, error);
    evpt_check_can_wait(L);
    if (code)
        return evpt_call_fail(L, code, error, context);
    struct evpt_wait *wait = evpt_wait_new(vm, L, EVPT_WAIT_CALL);
    out.session = wait->session;
    out.deadline_ns = evpt_deadline_after(timeout_ms);
    code = evpt_post_outgoing(L, &out, wait, error);
    if (code)
        return evpt_call_fail(L, code, error, context);
    if (!out.node) /* the deadline of a call to another node is clusterclient's */
        evpt_wait_arm(vm, wait, out.deadline_ns);
    lua_settop(L, 3); /* the arguments are not needed while we wait */
    return evpt_task_yield(L, context, evpt_call_continue);
}

static lua_Number default_timeout(lua_State *L)
{
    return evpt_vm_of(L)->node->config->cluster.call_timeout_ms;
}

static int api_call(lua_State *L)
{
    return request(L, 0, default_timeout(L));
}

static int api_try(lua_State *L)
{
    return request(L, EVPT_CALL_TRY, default_timeout(L));
}

/* call_within(timeout_ms, node, service, method, ...): for proxies with a timeout of their own */
int evpt_call_within(lua_State *L)
{
    lua_Number timeout_ms = evpt_check_timeout(L, 1);
    lua_remove(L, 1);
    return request(L, 0, timeout_ms);
}

/* ---- sends ---- */

static int send_request(lua_State *L, int count, const char *root)
{
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_outgoing out = {.kind = EVPT_MESSAGE_SEND,
                                .first = 4,
                                .count = count,
                                .root = root,
                                .deadline_ns = EVPT_FOREVER};
    int code = set_target(L, &out, error);
    if (!code)
        code = evpt_post_outgoing(L, &out, NULL, error);
    if (!code) {
        lua_pushboolean(L, true);
        return 1;
    }
    struct evpt_error_place place = {
        .node = lua_tostring(L, 1), .service = lua_tostring(L, 2), .method = lua_tostring(L, 3)};
    lua_pushnil(L);
    lua_pushstring(L, error);
    evpt_push_error(L, code, EVPT_EXECUTED_NO, &place);
    return 2;
}

static int api_send(lua_State *L)
{
    return send_request(L, lua_gettop(L) - 3, "argument %d");
}

/* remoteSend(node, service, method, params) */
static int api_remote_send(lua_State *L)
{
    lua_settop(L, 4);
    return send_request(L, 1, "params");
}

/* ---- remoteCall(node, service, method, params, callback [, timeout_ms]) -> session ---- */

/* It is certain already that it fails: the callback still runs, once, and not before this function
 * has returned. */
static void fork_failure(lua_State *L, uint32_t session, int code, const char *text)
{
    struct evpt_error_place place = {
        .node = lua_tostring(L, 1), .service = lua_tostring(L, 2), .method = lua_tostring(L, 3)};
    lua_pushvalue(L, 5);
    lua_pushinteger(L, session);
    lua_pushinteger(L, code);
    lua_pushstring(L, text);
    evpt_push_error(L, code, evpt_code_executed(code), &place);
    (void)evpt_task_fork(evpt_vm_of(L), L, 3, EVPT_TASK_FORK, "callback");
}

/* The request has gone: nothing here may raise. The function is at 5, what was called at 7. */
static void await_callback(lua_State *L, struct evpt_vm *vm, struct evpt_wait *wait,
                           uint64_t deadline_ns)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_WAIT_VALUES);
    lua_pushvalue(L, 5);
    lua_rawseti(L, -2, evpt_wait_values(wait));
    lua_pushvalue(L, 7);
    lua_rawseti(L, -2, evpt_wait_values(wait) + 1);
    evpt_wait_arm(vm, wait, deadline_ns);
}

static int api_remote_call(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_outgoing out = {
        .kind = EVPT_MESSAGE_CALL, .first = 4, .count = 1, .root = "params"};
    luaL_checktype(L, 5, LUA_TFUNCTION);
    lua_Number timeout_ms = evpt_check_timeout(L, 6);
    lua_settop(L, 6);
    int code = set_target(L, &out, error);
    evpt_push_place(L, lua_tostring(L, 1), lua_tostring(L, 2), lua_tostring(L, 3)); /* at 7 */
    struct evpt_wait *wait = evpt_wait_new(vm, L, EVPT_WAIT_CALLBACK);
    uint32_t session = out.session = wait->session;
    out.deadline_ns = evpt_deadline_after(timeout_ms);
    if (code)
        evpt_wait_free(vm, wait);
    else
        code = evpt_post_outgoing(L, &out, wait, error);
    if (code)
        fork_failure(L, session, code, error);
    else
        await_callback(L, vm, wait, out.node ? EVPT_FOREVER : out.deadline_ns);
    lua_pushinteger(L, session);
    return 1;
}

/* ---- nodes() ---- */

struct node_copy {
    char name[EVPT_NODE_NAME_MAX + 1];
    struct evpt_addr addr;
    enum evpt_connect_status status;
};

struct copies {
    struct node_copy *nodes;
    size_t count, capacity;
};

/* Under the directory's lock: only copies, nothing that may raise. */
static void copy_node(const char *name, const struct evpt_addr *addr,
                      enum evpt_connect_status status, void *user)
{
    struct copies *copies = user;
    if (copies->count == copies->capacity)
        return;
    struct node_copy *copy = &copies->nodes[copies->count++];
    snprintf(copy->name, sizeof(copy->name), "%s", name);
    copy->addr = *addr;
    copy->status = status;
}

static void count_node(const char *name, const struct evpt_addr *addr,
                       enum evpt_connect_status status, void *user)
{
    ++*(size_t *)user;
}

static void push_node(lua_State *L, const struct node_copy *node)
{
    char text[EVPT_ADDR_TEXT_SIZE];
    lua_createtable(L, 0, 3);
    if (node->addr.size) {
        evpt_addr_format(&node->addr, text, sizeof(text));
        char *colon = strrchr(text, ':');
        if (*text == '[')
            lua_pushlstring(L, text + 1, (size_t)(colon - text) - 2);
        else
            lua_pushlstring(L, text, (size_t)(colon - text));
        lua_setfield(L, -2, "ip");
        lua_pushinteger(L, evpt_addr_port(&node->addr));
        lua_setfield(L, -2, "port");
    }
    lua_pushstring(L, evpt_connect_status_name(node->status));
    lua_setfield(L, -2, "status");
}

static int api_nodes(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    struct copies copies = {0};
    evpt_clusterclient_each(&vm->node->client, count_node, &copies.capacity);
    copies.nodes = lua_newuserdatauv(L, (copies.capacity + 1) * sizeof(*copies.nodes), 0);
    evpt_clusterclient_each(&vm->node->client, copy_node, &copies);
    lua_createtable(L, 0, (int)copies.count);
    for (size_t i = 0; i < copies.count; i++) {
        push_node(L, &copies.nodes[i]);
        lua_setfield(L, -2, copies.nodes[i].name);
    }
    return 1;
}

/* ---- what is written in Lua: evpt/cluster.lua ---- */

int evpt_on_status(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    evpt_append(L, EVPT_REF_STATUS_HANDLERS);
    return 0;
}

static int api_proxy(lua_State *L)
{
    return evpt_call_lua(L, "evpt.cluster", "proxy");
}

static int api_reload(lua_State *L)
{
    return evpt_call_lua(L, "evpt.cluster", "reload");
}

static int api_rewrite(lua_State *L)
{
    return evpt_call_lua(L, "evpt.cluster", "rewrite");
}

static int api_on_change(lua_State *L)
{
    return evpt_call_lua(L, "evpt.cluster", "on_change");
}

int evpt_open_cluster(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"remoteCall", api_remote_call},
        {"remoteSend", api_remote_send},
        {"call", api_call},
        {"try", api_try},
        {"send", api_send},
        {"proxy", api_proxy},
        {"nodes", api_nodes},
        {"reload", api_reload},
        {"rewrite", api_rewrite},
        {"on_change", api_on_change},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
