/* `evpt`: the functions written in C. What they do is in docs of SPEC section 4; here is only how.
 */
#include "lua/api.h"

#include "reactor/error.h"
#include "services/request.h"

#include <lauxlib.h>
#include <math.h>
#include <string.h>

/* Room for the arguments of most calls: growing a message costs more than the room. */
#define ARGUMENTS_HINT 128

/* ---- error objects ---- */

static const char *field(lua_State *L, const char *key)
{
    lua_pushstring(L, key);
    lua_rawget(L, 1);
    const char *text = lua_tostring(L, -1);
    return text ? text : "?"; /* stays on the stack, and so alive */
}

/* "battle_1/room.join: timeout: no answer before the deadline (executed: maybe)" */
static int error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkstack(L, 8, NULL);
    lua_pushfstring(L, "%s/%s.%s: %s: %s (executed: %s)", field(L, "node"), field(L, "service"),
                    field(L, "method"), field(L, "name"), field(L, "message"),
                    field(L, "executed"));
    return 1;
}

/* Makes the metatable of error objects, with the first of them. */
static void push_error_meta(lua_State *L)
{
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "evpt.error");
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, EVPT_REF_ERROR_META);
}

static void set_text(lua_State *L, const char *key, const char *text)
{
    if (!text)
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

void evpt_push_error(lua_State *L, int code, enum evpt_executed executed,
                     const struct evpt_error_place *place)
{
    lua_createtable(L, 0, 7);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    lua_pushinteger(L, code);
    lua_setfield(L, -2, "code");
    set_text(L, "name", evpt_code_name(code));
    set_text(L, "executed", evpt_executed_name(executed));
    set_text(L, "node", place->node);
    set_text(L, "service", place->service);
    set_text(L, "method", place->method);
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_ERROR_META) != LUA_TTABLE) {
        lua_pop(L, 1);
        push_error_meta(L);
    }
    lua_setmetatable(L, -2);
}

/* ---- requests ---- */

/* Names of services are looked up under a lock; each VM keeps the answers as long as no name has
 * changed. */
static uint32_t query(lua_State *L, struct evpt_vm *vm, int index)
{
    struct evpt_registry *registry = &vm->node->scheduler.registry;
    uint32_t version = atomic_load_explicit(&registry->version, memory_order_acquire);
    if (version != vm->handles_version) {
        lua_newtable(L);
        lua_rawseti(L, LUA_REGISTRYINDEX, EVPT_REF_HANDLES);
        vm->handles_version = version;
    }
    evpt_push_table(L, EVPT_REF_HANDLES);
    lua_pushvalue(L, index);
    lua_rawget(L, -2);
    uint32_t handle = (uint32_t)lua_tointeger(L, -1);
    if (!handle) {
        size_t size;
        const char *name = lua_tolstring(L, index, &size);
        handle = evpt_registry_query(registry, name, size);
        if (handle) {
            lua_pushvalue(L, index);
            lua_pushinteger(L, handle);
            lua_rawset(L, -4);
        }
    }
    lua_pop(L, 2);
    return handle;
}

uint32_t evpt_check_service(lua_State *L, int index)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    if (lua_type(L, index) == LUA_TSTRING)
        return query(L, vm, index);
    int is_handle;
    lua_Integer handle = lua_tointegerx(L, index, &is_handle);
    if (!is_handle)
        luaL_typeerror(L, index, "name or handle of a service");
    return handle > 0 && handle <= UINT32_MAX ? (uint32_t)handle : 0;
}

uint64_t evpt_deadline_after(lua_Number ms)
{
    /* A century is no deadline, and does not overflow. By the clock: code that has run for a while
     * must not find that its call has timed out before it began. */
    return ms >= 3.2e12 ? EVPT_FOREVER
                        : evpt_sys_now_ns() + (uint64_t)(ms * (lua_Number)EVPT_NS_PER_MS);
}

lua_Number evpt_check_timeout(lua_State *L, int index)
{
    if (lua_isnoneornil(L, index))
        return evpt_vm_of(L)->node->config->cluster.call_timeout_ms;
    lua_Number ms = luaL_checknumber(L, index);
    luaL_argcheck(L, ms >= 0, index, "a timeout in milliseconds expected");
    return ms;
}

void evpt_check_can_wait(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    if (!vm->task || vm->blocked || !lua_isyieldable(L))
        luaL_error(L, "cannot wait here: this code runs inside a C function that cannot be "
                      "suspended (a metamethod, sort, gsub, a finalizer)");
}

static int encode(lua_State *L, struct evpt_message **message, const struct evpt_outgoing *out,
                  char *error)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    int status = evpt_value_encode(L, out->first, out->count, message, evpt_vm_message_max(vm),
                                   out->root, error);
    if (!status)
        status = evpt_request_finish(message, evpt_service_handle(vm->service), out->deadline_ns);
    if (!status && (*message)->size > evpt_vm_message_max(vm))
        status = -EVPT_ETOOLARGE;
    if (!status && out->node)
        status = evpt_clusterclient_address(message, out->node, out->node_size);
    return status;
}

static int code_of(int status, char *error)
{
    static const struct {
        int status, code;
        const char *text;
    } codes[] = {
        {-EVPT_ETOOLARGE, EVPT_CODE_TOO_LARGE, "the arguments are longer than message_max"},
        {-EVPT_ENOTFOUND, EVPT_CODE_UNKNOWN_SERVICE, "no such service"},
        {-EVPT_ELIMIT, EVPT_CODE_OVERLOADED, "mailbox_max: too many messages wait in the service"},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].status == status) {
            strcpy(error, codes[i].text);
            return codes[i].code;
        }
    }
    strcpy(error, "out of memory");
    return EVPT_CODE_OVERLOADED;
}

int evpt_post_outgoing(lua_State *L, const struct evpt_outgoing *out, struct evpt_wait *wait,
                       char error[EVPT_VALUE_ERROR_SIZE])
{
    struct evpt_vm *vm = evpt_vm_of(L);
    size_t service_size = 0, method_size;
    bool by_handle = lua_type(L, out->service_at) == LUA_TNUMBER;
    const char *service = by_handle ? "" : lua_tolstring(L, out->service_at, &service_size);
    const char *method = lua_tolstring(L, out->method_at, &method_size);
    int status = -EVPT_ENOTFOUND;
    struct evpt_message *message = NULL;
    if ((out->node || out->handle) && service_size <= EVPT_NAME_MAX &&
        method_size <= EVPT_NAME_MAX) {
        message =
            evpt_request_new(out->kind, service, service_size, method, method_size, ARGUMENTS_HINT);
        status = message ? encode(L, &message, out, error) : -EVPT_ELIMIT;
    }
    if (!status) {
        message->session = out->session;
        message->target = out->node ? vm->node->client.handle : out->handle;
        status = evpt_post(&vm->node->scheduler, vm->worker, message);
    }
    if (!status)
        return EVPT_CODE_OK;
    evpt_message_free(message);
    if (wait)
        evpt_wait_free(vm, wait);
    if (status == -EVPT_EFORMAT)
        return luaL_error(L, "%s", error);
    return code_of(status, error);
}

/* Is what lies above `base` an outcome? A script can resume any coroutine that it gets hold of,
 * with anything, also one that waits for an answer. */
static bool is_outcome(lua_State *L, int base)
{
    if (!lua_isinteger(L, base + 1))
        return false;
    lua_Integer executed = lua_tointeger(L, base + 3);
    return lua_tointeger(L, base + 1) == EVPT_CODE_OK ||
           (lua_isinteger(L, base + 3) && executed >= EVPT_EXECUTED_NO &&
            executed <= EVPT_EXECUTED_YES);
}

int evpt_call_continue(lua_State *L, int status, lua_KContext context)
{
    int base = (int)(context >> 2);
    if (!is_outcome(L, base))
        return luaL_error(L, "resumed by something else than the answer that it waited for");
    int code = (int)lua_tointeger(L, base + 1);
    bool try = context & EVPT_CALL_TRY;
    if (code == EVPT_CODE_OK)
        return lua_gettop(L) - base - !try;
    int names = context & EVPT_CALL_REMOTE ? 2 : 1; /* index of the service's name */
    struct evpt_error_place place = {
        .node = context & EVPT_CALL_REMOTE ? lua_tostring(L, 1) : evpt_vm_of(L)->node->name,
        .service = luaL_tolstring(L, names, NULL), /* a handle is shown as a number */
        .method = lua_tostring(L, names + 1),
    };
    enum evpt_executed executed = (enum evpt_executed)lua_tointeger(L, base + 3);
    lua_pushvalue(L, base + 2);
    evpt_push_error(L, code, executed, &place);
    if (!try)
        return lua_error(L);
    lua_pushinteger(L, code);
    lua_insert(L, -2);
    return 2;
}

int evpt_call_fail(lua_State *L, int code, const char *text, lua_KContext context)
{
    lua_settop(L, (int)(context >> 2));
    lua_pushinteger(L, code);
    lua_pushstring(L, text);
    lua_pushinteger(L, evpt_code_executed(code));
    return evpt_call_continue(L, LUA_OK, context);
}

/* To request: wait for the answer however late it is. The deadline then only decides whether it is
 * executed, and the answer says whether it was. */
#define PATIENT 4

/* call and try: (service, method, ...) */
static int request(lua_State *L, int flags, lua_Number timeout_ms)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_outgoing out = {.kind = EVPT_MESSAGE_CALL,
                                .service_at = 1,
                                .method_at = 2,
                                .first = 3,
                                .count = lua_gettop(L) - 2,
                                .root = "argument %d"};
    out.handle = evpt_check_service(L, 1);
    luaL_checktype(L, 2, LUA_TSTRING);
    evpt_check_can_wait(L);
    struct evpt_wait *wait = evpt_wait_new(vm, L, EVPT_WAIT_CALL);
    out.session = wait->session;
    out.deadline_ns = evpt_deadline_after(timeout_ms);
    int code = evpt_post_outgoing(L, &out, wait, error);
    lua_KContext context = evpt_call_context(2, flags & ~PATIENT);
    if (code)
        return evpt_call_fail(L, code, error, context);
    if (!(flags & PATIENT))
        evpt_wait_arm(vm, wait, out.deadline_ns);
    lua_settop(L, 2); /* the arguments are not needed while we wait */
    return evpt_task_yield(L, context, evpt_call_continue);
}

static void check_public_method(lua_State *L, int index)
{
    const char *method = luaL_checkstring(L, index);
    luaL_argcheck(L, *method != '.' || evpt_vm_of(L)->builtin, index,
                  "names that begin with a dot are evpt's own");
}

/* What the built-in services ask of each other is answered always, and a short call_timeout_ms must
 * not keep a node from starting. */
static lua_Number default_timeout(const struct evpt_vm *vm)
{
    return vm->builtin ? HUGE_VAL : vm->node->config->cluster.call_timeout_ms;
}

static int api_call(lua_State *L)
{
    check_public_method(L, 2);
    return request(L, 0, default_timeout(evpt_vm_of(L)));
}

static int api_try(lua_State *L)
{
    check_public_method(L, 2);
    return request(L, EVPT_CALL_TRY, default_timeout(evpt_vm_of(L)));
}

/* request(service, method, ...): a call without a deadline, also of life cycle methods. */
static int api_request(lua_State *L)
{
    return request(L, EVPT_CALL_TRY, HUGE_VAL);
}

/* request_within(timeout_ms, service, method, ...): the same with a deadline. */
static int api_request_within(lua_State *L)
{
    lua_Number timeout_ms = evpt_check_timeout(L, 1);
    lua_remove(L, 1);
    return request(L, EVPT_CALL_TRY, timeout_ms);
}

/* request_begun_within(timeout_ms, service, method, ...): with a deadline until which its execution
 * must have begun; never `maybe`. */
static int api_request_begun_within(lua_State *L)
{
    lua_Number timeout_ms = evpt_check_timeout(L, 1);
    lua_remove(L, 1);
    return request(L, EVPT_CALL_TRY | PATIENT, timeout_ms);
}

static int api_send(lua_State *L)
{
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_outgoing out = {.kind = EVPT_MESSAGE_SEND,
                                .service_at = 1,
                                .method_at = 2,
                                .first = 3,
                                .count = lua_gettop(L) - 2,
                                .root = "argument %d",
                                .deadline_ns = EVPT_FOREVER};
    out.handle = evpt_check_service(L, 1);
    check_public_method(L, 2);
    int code = evpt_post_outgoing(L, &out, NULL, error);
    if (!code) {
        lua_pushboolean(L, true);
        return 1;
    }
    struct evpt_error_place place = {.node = evpt_vm_of(L)->node->name,
                                     .service = luaL_tolstring(L, 1, NULL),
                                     .method = lua_tostring(L, 2)};
    lua_pushnil(L);
    lua_pushstring(L, error);
    evpt_push_error(L, code, EVPT_EXECUTED_NO, &place);
    return 2;
}

/* reply(source, session, code, ...) */
static int api_reply(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    char error[EVPT_VALUE_ERROR_SIZE];
    uint32_t source = (uint32_t)luaL_checkinteger(L, 1);
    uint32_t session = (uint32_t)luaL_checkinteger(L, 2);
    lua_Integer code = luaL_checkinteger(L, 3);
    struct evpt_message *reply;
    luaL_argcheck(L, code >= 0 && code <= UINT16_MAX, 3, "a code from 0 to 65535 expected");
    if (session == 0)
        return 0; /* nobody waits for it */
    if (code != EVPT_CODE_OK) {
        size_t size;
        const char *text = luaL_optlstring(L, 4, evpt_code_text((int)code), &size);
        reply = evpt_reply_error((int)code, text, size);
        if (!reply)
            return luaL_error(L, "out of memory");
    } else {
        reply = evpt_reply_new(64);
        int status = reply ? evpt_value_encode(L, 4, lua_gettop(L) - 3, &reply,
                                               evpt_vm_message_max(vm), "result %d", error)
                           : -EVPT_ELIMIT;
        if (status) {
            evpt_message_free(reply);
            if (status == -EVPT_EFORMAT)
                return luaL_error(L, "%s", error);
            return luaL_error(L, status == -EVPT_ETOOLARGE
                                     ? "the results are longer than message_max"
                                     : "out of memory");
        }
        evpt_reply_finish(reply);
    }
    evpt_post_reply(&vm->node->scheduler, vm->worker, source, session, reply);
    return 0;
}

/* ---- what can be reached ---- */

/* Before anything is added, so that nothing is where one is wrong. */
static int check_methods(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || !lua_isfunction(L, -1)) {
            const char *kind = luaL_typename(L, -1);
            return luaL_error(L, "expected a table of functions by name, got [%s] = %s",
                              luaL_tolstring(L, -2, NULL), kind);
        }
        if (*lua_tostring(L, -2) == '.')
            return luaL_error(L, "names that begin with a dot are evpt's own: %s",
                              lua_tostring(L, -2));
        lua_pop(L, 1);
    }
    return 0;
}

/* Adds the functions of the table at 1 to the one in the registry. */
static int add_methods(lua_State *L, enum evpt_vm_ref ref)
{
    evpt_push_table(L, ref);
    int into = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, into);
    }
    return 0;
}

static int api_export(lua_State *L)
{
    check_methods(L);
    evpt_restrict_exports(L); /* first: no call comes in between */
    return add_methods(L, EVPT_REF_EXPORTS);
}

static int api_methods(lua_State *L)
{
    check_methods(L);
    return add_methods(L, EVPT_REF_METHODS);
}

/* ---- services ---- */

static int api_self(lua_State *L)
{
    lua_pushinteger(L, evpt_service_handle(evpt_vm_of(L)->service));
    return 1;
}

static int api_name(lua_State *L)
{
    lua_pushstring(L, evpt_vm_of(L)->name);
    return 1;
}

static int api_node(lua_State *L)
{
    lua_pushstring(L, evpt_vm_of(L)->node->name);
    return 1;
}

static int api_query(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    uint32_t handle = query(L, evpt_vm_of(L), 1);
    if (handle)
        lua_pushinteger(L, handle);
    else
        lua_pushnil(L);
    return 1;
}

static int api_register(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    size_t size;
    const char *name = luaL_checklstring(L, 1, &size);
    luaL_argcheck(L, evpt_node_name_is_valid(name) && strlen(name) == size, 1,
                  "a name of letters, digits and _ expected, at most 64, no digit first");
    int error = evpt_registry_name(&vm->node->scheduler.registry, name, size,
                                   evpt_service_handle(vm->service));
    if (error == -EVPT_EEXISTS)
        return luaL_error(L, "the name %s is taken", name);
    if (error)
        return luaL_error(L, "cannot register %s: %s", name, evpt_strerror(error));
    return 0;
}

static int api_exit(lua_State *L)
{
    evpt_vm_of(L)->exited = true;
    evpt_service_exit(evpt_vm_of(L)->service);
    if (evpt_vm_of(L)->task && lua_isyieldable(L))
        return evpt_task_yield(L, 0, NULL); /* never resumed */
    return 0;
}

static int api_kill(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    uint32_t handle = evpt_check_service(L, 1);
    for (unsigned i = 0; i < vm->node->server.builtin_count; i++) {
        if (handle && vm->node->server.builtin[i] == handle)
            return luaL_error(L, "built-in services cannot be killed");
    }
    lua_pushboolean(L, handle && evpt_scheduler_kill(&vm->node->scheduler, vm->worker, handle));
    return 1;
}

/* ---- log ---- */

/* The text on top of the stack; `fields`: index of the table of them, 0: none. */
static void write_log(lua_State *L, enum evpt_log_level level, int fields_at)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    struct evpt_log_field fields[EVPT_LOG_FIELDS_MAX];
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    size_t count = fields_at ? evpt_check_log_fields(L, fields_at, fields) : 0;
    evpt_log_write_fields(&vm->node->log, level, vm->name, text, size, fields, count);
}

/* log.debug(format, ... [, fields]) and so on. Formats nothing that is not wanted. */
static int log_formatted(lua_State *L, enum evpt_log_level level)
{
    luaL_checkany(L, 1);
    if (!evpt_log_wants(&evpt_vm_of(L)->node->log, level))
        return 0;
    int fields_at = evpt_has_log_fields(L);
    if (fields_at) /* out of the way of the format */
        lua_insert(L, 1);
    int format_at = fields_at + 1;
    if (lua_gettop(L) == format_at) {
        luaL_tolstring(L, format_at, NULL);
    } else {
        luaL_checktype(L, format_at, LUA_TSTRING);
        lua_getfield(L, format_at, "format"); /* a string's fields are the functions of `string` */
        lua_insert(L, format_at);
        lua_call(L, lua_gettop(L) - format_at, 1);
    }
    write_log(L, level, fields_at);
    return 0;
}

static int log_debug(lua_State *L)
{
    return log_formatted(L, EVPT_LOG_DEBUG);
}

static int log_info(lua_State *L)
{
    return log_formatted(L, EVPT_LOG_INFO);
}

static int log_warn(lua_State *L)
{
    return log_formatted(L, EVPT_LOG_WARN);
}

static int log_error(lua_State *L)
{
    return log_formatted(L, EVPT_LOG_ERROR);
}

int evpt_print(lua_State *L)
{
    int count = lua_gettop(L);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (int i = 1; i <= count; i++) {
        if (i > 1)
            luaL_addchar(&buffer, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&buffer);
    }
    luaL_pushresult(&buffer);
    write_log(L, EVPT_LOG_INFO, 0);
    return 0;
}

/* ---- start and stop ---- */

static int api_on_stop(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    evpt_append(L, EVPT_REF_STOP_HOOKS);
    return 0;
}

static int api_start(lua_State *L)
{
    return evpt_call_lua(L, "evpt", "start");
}

static int api_update(lua_State *L)
{
    return evpt_call_lua(L, "evpt", "update");
}

/* spawn(script, name | nil) -> handle; it waits for its .start */
static int api_spawn(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    const char *script = luaL_checkstring(L, 1);
    size_t size = 0;
    const char *name = luaL_optlstring(L, 2, NULL, &size);
    if (name && (!evpt_node_name_is_valid(name) || strlen(name) != size))
        return luaL_error(L,
                          "bad service name '%s': letters, digits and _ expected, at most 64, no "
                          "digit first",
                          name);
    struct evpt_registry *registry = &vm->node->scheduler.registry;
    if (name && evpt_registry_query(registry, name, size))
        return luaL_error(L, "the name %s is taken", name);
    uint32_t handle = evpt_vm_spawn(vm->node, vm->worker, script, name ? name : script, false);
    if (!handle)
        return luaL_error(L, "too many services, or out of memory");
    int error = name ? evpt_registry_name(registry, name, size, handle) : 0;
    if (error) {
        (void)evpt_scheduler_kill(&vm->node->scheduler, vm->worker, handle);
        return luaL_error(L, "cannot register %s: %s", name, evpt_strerror(error));
    }
    lua_pushinteger(L, handle);
    return 1;
}

/* What evpt's own Lua sources build on, and scripts do not see. */
int evpt_open_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"request", api_request},
        {"request_within", api_request_within},
        {"request_begun_within", api_request_begun_within},
        {"spawn", api_spawn},
        {"call_within", evpt_call_within},
        {"on_status", evpt_on_status},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}

int evpt_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"call", api_call},
        {"try", api_try},
        {"send", api_send},
        {"reply", api_reply},
        {"export", api_export},
        {"methods", api_methods},
        {"self", api_self},
        {"name", api_name},
        {"node", api_node},
        {"query", api_query},
        {"register", api_register},
        {"start", api_start},
        {"exit", api_exit},
        {"kill", api_kill},
        {"on_stop", api_on_stop},
        {"update", api_update},
        {NULL, NULL},
    };
    static const luaL_Reg log[] = {
        {"debug", log_debug}, {"info", log_info}, {"warn", log_warn},
        {"error", log_error}, {NULL, NULL},
    };
    lua_createtable(L, 0, 32);
    luaL_setfuncs(L, functions, 0);
    luaL_setfuncs(L, evpt_task_functions, 0);
    luaL_newlib(L, log);
    lua_setfield(L, -2, "log");
    return 1;
}
