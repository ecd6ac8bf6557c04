#include "lua/api.h"

#include "reactor/error.h"
#include "services/request.h"

#include <assert.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

/* ---- making a state ---- */

void evpt_push_table(lua_State *L, enum evpt_vm_ref ref)
{
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, ref) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, ref);
}

void evpt_append(lua_State *L, enum evpt_vm_ref ref)
{
    evpt_push_table(L, ref);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
}

/* Protected: libraries and registry. */
static int set_up(lua_State *L)
{
    luaL_openlibs(L);
    for (int ref = EVPT_REF_FIRST; ref < EVPT_REF_END; ref++) {
        lua_pushboolean(L, false);
        lua_rawseti(L, LUA_REGISTRYINDEX, ref);
    }
    lua_pushliteral(L, "out of memory");
    lua_rawseti(L, LUA_REGISTRYINDEX, EVPT_REF_NO_MEMORY);
    lua_pushcfunction(L, evpt_print);
    lua_setglobal(L, "print");
    evpt_set_coroutine(L);
    evpt_set_package(L);
    return 0;
}

static bool make_state(struct evpt_vm *vm)
{
    vm->L = lua_newstate(evpt_vm_memory_alloc, &vm->memory);
    if (!vm->L)
        return false;
    *(struct evpt_vm **)lua_getextraspace(vm->L) = vm; /* every coroutine gets a copy */
    if (vm->node->config->metrics.size)
        evpt_service_set_kind(vm->service,
                              evpt_kinds_get(&vm->node->scheduler.kinds, vm->script));
    lua_pushcfunction(vm->L, set_up);
    if (lua_pcall(vm->L, 0, 0, 0) == LUA_OK)
        return true;
    evpt_logf(&vm->node->log, EVPT_LOG_ERROR, vm->name, "cannot make a Lua state: %s",
              lua_tostring(vm->L, -1));
    lua_settop(vm->L, 0);
    return false;
}

/* ---- requests ---- */

static const char *method_text(const struct evpt_message *message)
{
    return (const char *)message->data + message->method_at;
}

/* Frees the message at hand, answering it with an error. */
static void refuse_current(struct evpt_vm *vm, int code, const char *text)
{
    struct evpt_message *message = vm->current;
    vm->current = NULL;
    evpt_bounce(&vm->node->scheduler, vm->worker, message, code, text);
}

/* Pushes the function that a request asks for on co, or the reason why there is none. */
static bool push_method(struct evpt_vm *vm, lua_State *co, const struct evpt_message *message,
                        int *ret_code)
{
    bool remote = message->flags & EVPT_MESSAGE_REMOTE;
    int kind = lua_rawgeti(co, LUA_REGISTRYINDEX, EVPT_REF_EXPORTS);
    *ret_code = EVPT_CODE_UNKNOWN_METHOD;
    if (kind == LUA_TTABLE) {
        lua_pushlstring(co, method_text(message), message->method_size);
        if (lua_rawget(co, -2) == LUA_TFUNCTION)
            return true;
    } else if (remote) {
        *ret_code = EVPT_CODE_UNKNOWN_SERVICE;
    }
    if (remote)
        return false;
    if (lua_rawgeti(co, LUA_REGISTRYINDEX, EVPT_REF_METHODS) != LUA_TTABLE)
        return false;
    lua_pushlstring(co, method_text(message), message->method_size);
    return lua_rawget(co, -2) == LUA_TFUNCTION;
}

static bool is_life_cycle(const struct evpt_message *message)
{
    return message->method_size && *method_text(message) == '.' &&
           !(message->flags & EVPT_MESSAGE_REMOTE);
}

static bool has_dispatch(lua_State *L)
{
    bool has = lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_DISPATCH) == LUA_TFUNCTION;
    lua_pop(L, 1);
    return has;
}

/* The task's coroutine gets the function and what comes before the arguments; its kind says how it
 * ends. */
static bool begin_task(struct evpt_vm *vm, struct evpt_task *task,
                       const struct evpt_message *message)
{
    lua_State *co = task->co;
    int code = EVPT_CODE_UNKNOWN_METHOD;
    bool found;
    if (is_life_cycle(message)) {
        task->kind = EVPT_TASK_START;
        found = evpt_push_life_cycle(co, method_text(message), message->method_size);
    } else if (has_dispatch(co) && (!(message->flags & EVPT_MESSAGE_REMOTE) || vm->builtin ||
                                    push_method(vm, co, message, &code))) {
        /* from another node only what is exported, here too; builtin: the console, from the admin
         * socket */
        lua_settop(co, 0);
        task->kind = EVPT_TASK_DISPATCH;
        lua_rawgeti(co, LUA_REGISTRYINDEX, EVPT_REF_DISPATCH);
        lua_pushinteger(co, message->source);
        lua_pushinteger(co, message->kind == EVPT_MESSAGE_CALL ? message->session : 0);
        lua_pushlstring(co, method_text(message), message->method_size);
        return true;
    } else {
        found = push_method(vm, co, message, &code);
    }
    if (!found) {
        char text[128];
        snprintf(text, sizeof(text),
                 code == EVPT_CODE_UNKNOWN_SERVICE ? "%s exports nothing" : "%s has no method %.*s",
                 vm->name, message->method_size < 40 ? (int)message->method_size : 40,
                 method_text(message));
        refuse_current(vm, code, text);
        return false;
    }
    /* what led to the function is not needed any more */
    lua_insert(co, 1);
    lua_settop(co, 1);
    return true;
}

/* When a request begins; asked where that matters, for its deadline or for metrics. By the clock:
 * the request before this one may have taken longer than the whole run should. */
static uint64_t beginning(struct evpt_vm *vm, const struct evpt_message *message)
{
    return message->deadline_ns != EVPT_FOREVER || vm->node->config->metrics.size
               ? evpt_service_read_clock(vm->service)
               : evpt_service_now(vm->service);
}

/* As refuse_current: a timeout of which it is certain that nothing was executed. */
static void refuse_late(struct evpt_vm *vm)
{
    static const char text[] = "the deadline passed before it was executed";
    struct evpt_message *message = vm->current;
    vm->current = NULL;
    if (message->kind != EVPT_MESSAGE_CALL) {
        evpt_message_free(message);
        return;
    }
    uint32_t source = message->source, session = message->session;
    struct evpt_message *reply =
        evpt_reply_instead(message, EVPT_CODE_TIMEOUT, text, sizeof(text) - 1);
    evpt_reply_set_executed(reply, EVPT_EXECUTED_NO);
    evpt_post_reply(&vm->node->scheduler, vm->worker, source, session, reply);
}

static void handle_request(struct evpt_vm *vm, struct evpt_message *message)
{
    uint64_t now_ns = beginning(vm, message);
    if (message->deadline_ns <= now_ns) {
        refuse_late(vm);
        return;
    }
    struct evpt_task *task =
        evpt_task_new(vm, vm->L, EVPT_TASK_REQUEST, method_text(message), message->method_size);
    vm->setup = task;
    if (!begin_task(vm, task, message)) {
        vm->setup = NULL;
        lua_settop(task->co, 0);
        evpt_task_free(vm, task, true);
        return;
    }
    int before = lua_gettop(task->co) - 1;
    struct evpt_reader reader;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    int count = evpt_value_decode(task->co, &reader);
    vm->setup = NULL;
    if (count < 0) {
        refuse_current(vm, EVPT_CODE_BAD_MESSAGE, "the arguments cannot be read");
        lua_settop(task->co, 0);
        evpt_task_free(vm, task, true);
        return;
    }
    task->began_ns = now_ns;
    task->source = message->source;
    task->session = message->kind == EVPT_MESSAGE_CALL ? message->session : 0;
    vm->current = NULL;
    evpt_message_free(message);
    evpt_task_resume(vm, task, before + count);
}

/* ---- running ---- */

/* Protected: what comes out of the mailbox, until this run is over. */
static int run_messages(lua_State *L)
{
    struct evpt_vm *vm = evpt_vm_of(L);
    evpt_vm_run_ready(vm); /* what an error left behind */
    while (!vm->service->exiting) {
        struct evpt_message *message = vm->current = evpt_service_next(vm->service);
        evpt_vm_run_ready(vm);
        if (!message)
            break;
        if (vm->service->exiting) {
            refuse_current(vm, EVPT_CODE_UNKNOWN_SERVICE, "the service has gone");
            break;
        }
        if (message->kind == EVPT_MESSAGE_REPLY)
            evpt_vm_on_reply(vm, message);
        else
            handle_request(vm, message);
        evpt_message_free(vm->current);
        vm->current = NULL;
        evpt_vm_run_ready(vm);
    }
    return 0;
}

/* An error got out of run_messages: there was no memory to prepare something. Whoever waits for it
 * is told. */
static void recover(struct evpt_vm *vm)
{
    assert(!vm->task); /* what a task's code raises ends in its coroutine */
    lua_settop(vm->L, 0);
    vm->blocked = 0;
    if (vm->setup) {
        struct evpt_task *task = vm->setup;
        vm->setup = NULL;
        evpt_task_fail(vm, task, EVPT_CODE_FAILED, "out of memory", 13);
    }
    if (vm->answered) {
        struct evpt_task *task = vm->answered;
        vm->answered = NULL;
        evpt_end_waiting(task->co);
        evpt_task_ready(vm, task, evpt_push_no_memory(task->co));
    }
    if (vm->ending) { /* whoever waits is told when there is memory for that */
        struct evpt_wait *wait = vm->ending;
        vm->ending = NULL;
        evpt_list_remove(&wait->due_link);
        evpt_wait_arm(vm, wait, evpt_sys_now_ns() + EVPT_NO_MEMORY_RETRY_MS * EVPT_NS_PER_MS);
    }
    if (vm->current && vm->current->kind == EVPT_MESSAGE_REPLY) {
        evpt_message_free(vm->current);
        vm->current = NULL;
    } else if (vm->current) {
        refuse_current(vm, EVPT_CODE_OVERLOADED, "lua_memory_max: the service is out of memory");
    }
}

static void refuse_all(struct evpt_vm *vm, const char *text)
{
    struct evpt_message *message;
    while ((message = evpt_service_next(vm->service)) != NULL)
        evpt_bounce(&vm->node->scheduler, vm->worker, message, EVPT_CODE_OVERLOADED, text);
    evpt_service_exit(vm->service);
}

static void vm_run(struct evpt_service *service)
{
    struct evpt_vm *vm = service->user;
    vm->service = service;
    vm->worker = service->worker;
    if (!vm->L && !make_state(vm)) {
        refuse_all(vm, "out of memory: no Lua state for the service");
        return;
    }
    for (;;) {
        lua_pushcfunction(vm->L, run_messages);
        if (lua_pcall(vm->L, 0, 0, 0) == LUA_OK)
            break;
        evpt_logf(&vm->node->log, EVPT_LOG_ERROR, vm->name, "%s", lua_tostring(vm->L, -1));
        recover(vm);
    }
    atomic_store_explicit(&vm->memory_shown, vm->memory.used, memory_order_relaxed);
    atomic_store_explicit(&service->memory, vm->memory.used, memory_order_relaxed);
    atomic_store_explicit(&service->tasks, vm->task_count, memory_order_relaxed);
}

static void vm_tick(struct evpt_service *service)
{
    evpt_vm_advance(service->user);
}

/* ---- the end ---- */

/* A service that exits in its __main__, doAfterInit or on_stop has done there what it was for. */
static void end_life_cycle(struct evpt_vm *vm, struct evpt_task *task)
{
    struct evpt_message *reply = evpt_reply_new(EVPT_ITEM_MAX);
    if (!reply) {
        evpt_task_end_block(vm, task, EVPT_CODE_FAILED, "out of memory", 13);
        return;
    }
    reply->data[reply->size++] = 0x90; /* no results */
    evpt_reply_finish(reply);
    evpt_post_reply(&vm->node->scheduler, vm->worker, task->source, task->session, reply);
    evpt_sys_free(task);
}

static void end_tasks(struct evpt_vm *vm)
{
    static const char text[] = "the service exited before it answered";
    struct evpt_list *node;
    while ((node = evpt_list_pop_front(&vm->running)) != NULL) {
        struct evpt_task *task = EVPT_CONTAINER_OF(node, struct evpt_task, link);
        if (task->kind == EVPT_TASK_START && task->session && vm->exited)
            end_life_cycle(vm, task);
        else
            evpt_task_end_block(vm, task, EVPT_CODE_FAILED, text, sizeof(text) - 1);
    }
    while ((node = evpt_list_pop_front(&vm->spare)) != NULL)
        evpt_sys_free(EVPT_CONTAINER_OF(node, struct evpt_task, link));
}

static void free_vm(struct evpt_vm *vm)
{
    for (uint32_t i = 0; i < vm->wait_capacity / EVPT_WAIT_CHUNK; i++)
        evpt_sys_free(vm->chunks[i]);
    evpt_sys_free(vm->chunks);
    evpt_vm_memory_trim(&vm->memory);
    evpt_sys_free(vm->wheel);
    evpt_sys_free(vm->script);
    evpt_sys_free(vm->name);
    evpt_sys_free(vm);
}

static void vm_stop(struct evpt_service *service)
{
    struct evpt_vm *vm = service->user;
    vm->service = service;
    vm->worker = service->worker;
    vm->stopping = true;
    evpt_message_free(vm->current);
    if (vm->L)
        lua_close(vm->L); /* runs __gc and __close of scripts */
    assert(vm->memory.used == 0);
    end_tasks(vm);
    free_vm(vm);
}

static const struct evpt_service_ops vm_ops = {.run = vm_run, .tick = vm_tick, .stop = vm_stop};

/* ---- spawning ---- */

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = evpt_sys_alloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

uint32_t evpt_vm_spawn(struct evpt_node *node, struct evpt_worker *self, const char *script,
                       const char *name, bool builtin)
{
    struct evpt_vm *vm = evpt_sys_zalloc(sizeof(*vm));
    if (!vm)
        return 0;
    vm->node = node;
    vm->builtin = builtin;
    vm->memory.limit = builtin ? 0 : node->config->lua_memory_max;
    vm->first_free = EVPT_WAIT_NONE;
    evpt_list_init(&vm->spare);
    evpt_list_init(&vm->running);
    evpt_list_init(&vm->ready);
    evpt_list_init(&vm->due);
    vm->script = copy_text(script);
    vm->name = copy_text(name);
    uint32_t handle = 0;
    if (vm->script && vm->name)
        handle = evpt_scheduler_spawn(&node->scheduler, self, &vm_ops, vm);
    if (!handle)
        free_vm(vm);
    return handle;
}
