/* Tasks and waits: coroutines that run requests, and what they wait for. */
#include "lua/vm.h"

#include "reactor/error.h"
#include "services/request.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#define RESULTS_HINT 128 /* bytes: growing a message costs more than the room */
#define READY_MAX                                                                                  \
    1024 /* ready tasks that one run resumes: the next message is not to wait for ever */

/* ---- tasks ---- */

static struct evpt_task *make_task(struct evpt_vm *vm, lua_State *L)
{
    evpt_push_table(L, EVPT_REF_TASKS);
    lua_State *co = lua_newthread(L); /* may raise: nothing is held */
    uint32_t number = vm->next_task + 1;
    lua_rawseti(L, -2, number); /* may raise */
    lua_pop(L, 1);
    struct evpt_task *task = evpt_sys_zalloc(sizeof(*task));
    if (!task)
        luaL_error(L,
                   "out of memory"); /* the coroutine is collected when its number is used again */
    vm->next_task = number;
    task->co = co;
    task->number = number;
    return task;
}

struct evpt_task *evpt_task_new(struct evpt_vm *vm, lua_State *L, enum evpt_task_kind kind,
                                const char *method, size_t method_size)
{
    struct evpt_list *node = evpt_list_pop_front(&vm->spare);
    struct evpt_task *task;
    if (node) {
        vm->spare_count--;
        task = EVPT_CONTAINER_OF(node, struct evpt_task, link);
    } else {
        task = make_task(vm, L);
    }
    task->kind = (uint8_t)kind;
    task->source = task->session = 0;
    if (method_size >= sizeof(task->method))
        method_size = sizeof(task->method) - 1;
    memcpy(task->method, method, method_size);
    task->method[method_size] = 0;
    evpt_list_push_back(&vm->running, &task->link);
    atomic_store_explicit(&vm->task_count,
                          atomic_load_explicit(&vm->task_count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    return task;
}

static void remove_task(struct evpt_vm *vm, struct evpt_task *task)
{
    evpt_list_remove(&task->link);
    evpt_list_remove(&task->ready_link);
    atomic_store_explicit(&vm->task_count,
                          atomic_load_explicit(&vm->task_count, memory_order_relaxed) - 1,
                          memory_order_relaxed);
}

static void forget_coroutine(struct evpt_vm *vm, const struct evpt_task *task)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, EVPT_REF_TASKS);
    lua_pushnil(vm->L);
    lua_rawseti(vm->L, -2, task->number); /* the key is there: cannot raise */
    lua_pop(vm->L, 1);
}

void evpt_task_free(struct evpt_vm *vm, struct evpt_task *task, bool reusable)
{
    remove_task(vm, task);
    if (reusable && vm->spare_count < EVPT_TASKS_SPARE_MAX) {
        vm->spare_count++;
        /* at the front: the one used last is still in the processor's cache */
        struct evpt_list *first = vm->spare.next;
        evpt_list_push_back(first, &task->link);
        return;
    }
    forget_coroutine(vm, task);
    evpt_sys_free(task);
}

static const char yield_token; /* its address marks yields that are ours */

int evpt_task_yield(lua_State *L, lua_KContext context, lua_KFunction k)
{
    lua_pushlightuserdata(L, (void *)&yield_token);
    return lua_yieldk(L, 1, context, k);
}

bool evpt_is_waiting(lua_State *co)
{
    return lua_status(co) == LUA_YIELD && lua_gettop(co) > 0 &&
           lua_touserdata(co, -1) == &yield_token;
}

void evpt_end_waiting(lua_State *co)
{
    if (evpt_is_waiting(co)) /* not if a script has closed it meanwhile */
        lua_pop(co, 1);
}

void evpt_task_ready(struct evpt_vm *vm, struct evpt_task *task, int values)
{
    task->ready_values = values;
    evpt_list_push_back(&vm->ready, &task->ready_link);
}

struct evpt_task *evpt_task_fork(struct evpt_vm *vm, lua_State *L, int args,
                                 enum evpt_task_kind kind, const char *method)
{
    struct evpt_task *task = evpt_task_new(vm, L, kind, method, strlen(method));
    if (!lua_checkstack(task->co, args + 8)) {
        evpt_task_free(vm, task, false);
        luaL_error(L, "too many arguments, or out of memory");
    }
    lua_xmove(L, task->co, args + 1);
    evpt_task_ready(vm, task, args);
    return task;
}

/* ---- the end of a task ---- */

static_assert(sizeof(struct evpt_task) >= EVPT_REPLY_BLOCK_MIN, "it may become a reply");

void evpt_task_end_block(struct evpt_vm *vm, struct evpt_task *task, int code, const char *text,
                         size_t size)
{
    if (!task->session) {
        evpt_sys_free(task);
        return;
    }
    uint32_t source = task->source, session = task->session;
    evpt_post_reply(&vm->node->scheduler, vm->worker, source, session,
                    evpt_reply_from_block(task, sizeof(*task), code, text, size));
}

void evpt_task_fail(struct evpt_vm *vm, struct evpt_task *task, int code, const char *text,
                    size_t size)
{
    lua_resetthread(task->co);
    remove_task(vm, task);
    forget_coroutine(vm, task);
    evpt_task_end_block(vm, task, code, text, size);
}

/* True where the results are on their way; else the task has ended with an error. */
static bool reply_results(struct evpt_vm *vm, struct evpt_task *task, int count)
{
    char error[EVPT_VALUE_ERROR_SIZE];
    struct evpt_message *reply = evpt_reply_new(RESULTS_HINT);
    int first = lua_gettop(task->co) - count + 1;
    /* what the life cycle tells goes to the launcher, as do the built-in services' messages */
    size_t max = task->kind == EVPT_TASK_START ? EVPT_ADMIN_MESSAGE_MAX : evpt_vm_message_max(vm);
    int status = reply ? evpt_value_encode(task->co, first, count, &reply, max, "result %d", error)
                       : -EVPT_ELIMIT;
    if (status == 0) {
        evpt_reply_finish(reply);
        evpt_post_reply(&vm->node->scheduler, vm->worker, task->source, task->session, reply);
        return true;
    }
    evpt_message_free(reply);
    /* The method has run: only `failed` says so. */
    if (status == -EVPT_ETOOLARGE)
        snprintf(error, sizeof(error), "the results are longer than message_max");
    else if (status != -EVPT_EFORMAT)
        snprintf(error, sizeof(error), "the results were dropped: out of memory");
    evpt_task_fail(vm, task, EVPT_CODE_FAILED, error, strlen(error));
    return false;
}

/* Protected: turns the value at 1 into a text, through its __tostring too. */
static int describe(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

/* Pushes on vm->L the text of the error on top of co's stack, and behind it that with co's
 * traceback. */
static void push_error_texts(struct evpt_vm *vm, lua_State *co)
{
    lua_State *L = vm->L;
    lua_pushcfunction(L, describe);
    lua_xmove(co, L, 1);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK || !lua_isstring(L, -1)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "(an error whose text cannot be made)");
    }
    luaL_traceback(L, co, lua_tostring(L, -1), 0);
}

static void fail_task(struct evpt_vm *vm, struct evpt_task *task)
{
    lua_State *L = vm->L;
    int top = lua_gettop(L);
    size_t text_size, trace_size;
    vm->setup = task; /* freed should one of the following raise */
    push_error_texts(vm, task->co);
    const char *text = lua_tolstring(L, -2, &text_size);
    const char *trace = lua_tolstring(L, -1, &trace_size);
    vm->setup = NULL;
    if (task->kind == EVPT_TASK_START) {
        evpt_task_fail(vm, task, EVPT_CODE_FAILED, trace, trace_size);
    } else {
        evpt_logf(&vm->node->log, EVPT_LOG_ERROR, vm->name, "%s: %s", task->method, trace);
        evpt_task_fail(vm, task, EVPT_CODE_FAILED, text, text_size);
    }
    lua_settop(L, top);
}

void evpt_task_resume(struct evpt_vm *vm, struct evpt_task *task, int values)
{
    int results = 0;
    vm->task = task;
    int status = lua_resume(task->co, vm->L, values, &results);
    vm->task = NULL;
    if (status != LUA_YIELD && task->kind <= EVPT_TASK_DISPATCH)
        evpt_service_handled(vm->service, task->began_ns);
    if (status == LUA_YIELD) {
        if (evpt_is_waiting(task->co))
            return;
        lua_settop(task->co, 0);
        vm->setup = task; /* freed should the following raise */
        lua_pushliteral(task->co, "attempt to yield from outside a coroutine");
        fail_task(vm, task);
    } else if (status == LUA_OK) {
        if (task->session && task->kind != EVPT_TASK_DISPATCH && !reply_results(vm, task, results))
            return;
        lua_settop(task->co, 0);
        evpt_task_free(vm, task, true);
    } else {
        fail_task(vm, task);
    }
}

/* ---- waits ---- */

static struct evpt_wait *wait_at(struct evpt_vm *vm, uint32_t slot)
{
    return &vm->chunks[slot / EVPT_WAIT_CHUNK][slot % EVPT_WAIT_CHUNK];
}

static bool add_chunk(struct evpt_vm *vm)
{
    uint32_t chunk_count = vm->wait_capacity / EVPT_WAIT_CHUNK;
    if (vm->wait_capacity >= EVPT_WAITS_MAX)
        return false;
    struct evpt_wait **chunks =
        evpt_sys_realloc(vm->chunks, (chunk_count + 1) * sizeof(*vm->chunks));
    if (!chunks)
        return false;
    vm->chunks = chunks;
    struct evpt_wait *chunk = evpt_sys_zalloc(EVPT_WAIT_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    vm->chunks[chunk_count] = chunk;
    for (uint32_t i = 0; i < EVPT_WAIT_CHUNK; i++) {
        chunk[i].session = vm->wait_capacity + i;
        chunk[i].next = i + 1 < EVPT_WAIT_CHUNK ? vm->wait_capacity + i + 1 : EVPT_WAIT_NONE;
    }
    vm->first_free = vm->wait_capacity;
    vm->wait_capacity += EVPT_WAIT_CHUNK;
    return true;
}

/* The wheel takes 5 KiB, and many a service never waits for a time. */
static bool make_wheel(struct evpt_vm *vm)
{
    vm->wheel = evpt_sys_alloc(sizeof(*vm->wheel));
    if (vm->wheel)
        evpt_timer_wheel_init(vm->wheel, evpt_service_now(vm->service));
    return vm->wheel != NULL;
}

/* Makes sure that the slot has its two keys in EVPT_REF_WAIT_VALUES. They stay: a slot without
 * values has `false` there, so that setting them cannot raise. */
static void reserve_values(lua_State *L, lua_Integer first)
{
    evpt_push_table(L, EVPT_REF_WAIT_VALUES);
    for (lua_Integer i = first; i < first + 2; i++) {
        if (lua_rawgeti(L, -1, i) == LUA_TNIL) {
            lua_pushboolean(L, false);
            lua_rawseti(L, -3, i);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Whatever may raise does so before the slot is taken. */
struct evpt_wait *evpt_wait_new(struct evpt_vm *vm, lua_State *L, enum evpt_wait_kind kind)
{
    if (vm->first_free == EVPT_WAIT_NONE && !add_chunk(vm))
        luaL_error(L, "too many calls and timers in one service");
    /* here, where raising does no harm yet, and not in evpt_wait_arm, when the request has gone */
    if (!vm->wheel && kind != EVPT_WAIT_WAKEUP && !make_wheel(vm))
        luaL_error(L, "out of memory");
    struct evpt_wait *wait = wait_at(vm, vm->first_free);
    if (kind == EVPT_WAIT_CALLBACK || kind == EVPT_WAIT_TIMER)
        reserve_values(L, evpt_wait_values(wait));
    vm->first_free = wait->next;
    wait->session += EVPT_WAITS_MAX; /* the next generation */
    if (wait->session < EVPT_WAITS_MAX)
        wait->session +=
            EVPT_WAITS_MAX; /* wrapped: generation 0 is not used, so that no session is 0 */
    wait->kind = (uint8_t)kind;
    wait->task = vm->task;
    wait->serial = ++vm->last_serial;
    wait->answer_lost = false;
    atomic_store_explicit(&vm->wait_count,
                          atomic_load_explicit(&vm->wait_count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    return wait;
}

struct evpt_wait *evpt_wait_find(struct evpt_vm *vm, uint32_t session)
{
    uint32_t slot = session & (EVPT_WAITS_MAX - 1);
    if (slot >= vm->wait_capacity)
        return NULL;
    struct evpt_wait *wait = wait_at(vm, slot);
    return wait->session == session && wait->kind != EVPT_WAIT_FREE ? wait : NULL;
}

struct evpt_wait *evpt_wait_find_timer(struct evpt_vm *vm, lua_Integer id)
{
    uint32_t slot = (uint32_t)id & (EVPT_WAITS_MAX - 1);
    if (slot >= vm->wait_capacity)
        return NULL;
    struct evpt_wait *wait = wait_at(vm, slot);
    return wait->kind == EVPT_WAIT_TIMER && evpt_wait_timer_id(wait) == id ? wait : NULL;
}

void evpt_wait_free(struct evpt_vm *vm, struct evpt_wait *wait)
{
    if (vm->wheel)
        evpt_timer_stop(vm->wheel, &wait->timer);
    evpt_list_remove(&wait->due_link);
    wait->kind = EVPT_WAIT_FREE;
    wait->task = NULL;
    wait->next = vm->first_free;
    vm->first_free = wait->session & (EVPT_WAITS_MAX - 1);
    atomic_store_explicit(&vm->wait_count,
                          atomic_load_explicit(&vm->wait_count, memory_order_relaxed) - 1,
                          memory_order_relaxed);
}

/* Takes the slot's function out of EVPT_REF_WAIT_VALUES onto co's stack. */
static void take_function(struct evpt_vm *vm, lua_State *co, const struct evpt_wait *wait)
{
    lua_rawgeti(co, LUA_REGISTRYINDEX, EVPT_REF_WAIT_VALUES);
    lua_rawgeti(co, -1, evpt_wait_values(wait));
    lua_pushboolean(co, false);
    lua_rawseti(co, -3, evpt_wait_values(wait));
    lua_remove(co, -2);
}

/* A call that timed out here: its slot waits for the late answer, lest that be taken for another
 * call's. */
static void keep_late(struct evpt_vm *vm, struct evpt_wait *wait)
{
    wait->kind = EVPT_WAIT_LATE;
    wait->task = NULL;
    wait->next = EVPT_WAIT_NONE;
    uint32_t slot = wait->session & (EVPT_WAITS_MAX - 1);
    if (vm->late_count++)
        wait_at(vm, vm->last_late)->next = slot;
    else
        vm->first_late = slot;
    vm->last_late = slot;
    if (vm->late_count <= EVPT_WAITS_LATE_MAX)
        return;
    /* the oldest: given up, or one whose answer has come */
    struct evpt_wait *oldest = wait_at(vm, vm->first_late);
    vm->first_late = oldest->next;
    vm->late_count--;
    evpt_wait_free(vm, oldest);
}

/* Its answer has come after all. Slots leave the list at its front only, so this frees the settled
 * ones there. */
static void settle_late(struct evpt_vm *vm, struct evpt_wait *wait)
{
    wait->session &= EVPT_WAITS_MAX - 1; /* no session any more: nothing finds it */
    while (vm->late_count) {
        struct evpt_wait *front = wait_at(vm, vm->first_late);
        if (front->session >= EVPT_WAITS_MAX)
            break;
        vm->first_late = front->next;
        vm->late_count--;
        evpt_wait_free(vm, front);
    }
}

static void on_timer(struct evpt_timer *timer, void *user)
{
    struct evpt_vm *vm = user;
    struct evpt_wait *wait = EVPT_CONTAINER_OF(timer, struct evpt_wait, timer);
    evpt_list_push_back(&vm->due, &wait->due_link); /* nothing that may raise in here */
}

void evpt_wait_arm(struct evpt_vm *vm, struct evpt_wait *wait, uint64_t deadline_ns)
{
    if (deadline_ns == EVPT_FOREVER)
        return;
    evpt_timer_start(vm->wheel, &wait->timer, deadline_ns, on_timer, vm);
    evpt_service_wake_at(vm->service, deadline_ns);
}

void evpt_vm_advance(struct evpt_vm *vm)
{
    if (!vm->wheel)
        return;
    evpt_timer_wheel_advance(vm->wheel, evpt_service_now(vm->service));
    evpt_service_wake_at(vm->service, evpt_timer_wheel_next(vm->wheel));
}

/* ---- answers ---- */

/* Pushes code, text and executed of a failed call; always 3 values. */
static void push_failure(lua_State *co, const struct evpt_message *message)
{
    struct evpt_reader reader;
    uint32_t count, size;
    const char *text = evpt_code_text(message->code);
    size = (uint32_t)strlen(text);
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    if (evpt_read_array(&reader, &count) == 0 && count > 0)
        (void)evpt_read_str(&reader, &text,
                            &size); /* where it is no text, that of the code stays */
    lua_pushinteger(co, message->code);
    lua_pushlstring(co, text, size);
    lua_pushinteger(co, evpt_reply_executed(message));
}

/* Pushes the code and what goes with it: the results, or text and executed. Returns how many
 * values. */
static int push_outcome(lua_State *co, const struct evpt_message *message)
{
    static const char unreadable[] = "the results cannot be read";
    if (message->code != EVPT_CODE_OK) {
        push_failure(co, message);
        return 3;
    }
    struct evpt_reader reader;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    lua_pushinteger(co, EVPT_CODE_OK);
    int count = evpt_value_decode(co, &reader);
    if (count >= 0)
        return count + 1;
    lua_pop(co, 1);
    lua_pushinteger(co, EVPT_CODE_BAD_MESSAGE);
    lua_pushlstring(co, unreadable, sizeof(unreadable) - 1);
    lua_pushinteger(co, EVPT_EXECUTED_YES);
    return 3;
}

static int push_timeout(lua_State *co)
{
    lua_pushinteger(co, EVPT_CODE_TIMEOUT);
    lua_pushliteral(co, "no answer before the deadline");
    lua_pushinteger(co, EVPT_EXECUTED_MAYBE);
    return 3;
}

int evpt_push_no_memory(lua_State *co)
{
    lua_pushinteger(co, EVPT_CODE_OVERLOADED);
    lua_rawgeti(co, LUA_REGISTRYINDEX, EVPT_REF_NO_MEMORY);
    lua_pushinteger(co, EVPT_EXECUTED_MAYBE);
    return 3;
}

/* What evpt_push_place has put together. */
static struct evpt_error_place split_place(const char *node)
{
    const char *service = node + strlen(node) + 1;
    const char *method = service + strlen(service) + 1;
    return (struct evpt_error_place){.node = node, .service = service, .method = method};
}

/* Pushes a callback and its arguments (session, code, first result or error object), 4 values.
 * `message` NULL: there is none. */
static void push_callback(struct evpt_vm *vm, const struct evpt_wait *wait,
                          const struct evpt_message *message)
{
    lua_State *L = vm->L;
    luaL_checkstack(L, 16, NULL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, EVPT_REF_WAIT_VALUES);
    int values = lua_gettop(L);
    lua_rawgeti(L, values, evpt_wait_values(wait) + 1);
    struct evpt_error_place place = split_place(lua_tostring(L, -1));
    lua_rawgeti(L, values, evpt_wait_values(wait));
    lua_pushinteger(L, wait->session);
    int code_at = lua_gettop(L) + 1;
    if (message)
        (void)push_outcome(L, message);
    else if (wait->answer_lost)
        (void)evpt_push_no_memory(L);
    else
        (void)push_timeout(L);
    int code = (int)lua_tointeger(L, code_at);
    enum evpt_executed executed = (enum evpt_executed)lua_tointeger(L, code_at + 2);
    lua_settop(L, code_at + 1); /* the first result (or nil), or the text */
    if (code != EVPT_CODE_OK)
        evpt_push_error(L, code, executed, &place);
}

/* The answer, or (`message` NULL) the time of a remoteCall has come. */
static void start_callback(struct evpt_vm *vm, struct evpt_wait *wait,
                           const struct evpt_message *message)
{
    lua_State *L = vm->L;
    int top = lua_gettop(L);
    vm->ending = wait;
    if (message)
        wait->answer_lost = true; /* unless all of this goes well */
    push_callback(vm, wait, message);
    struct evpt_task *task = evpt_task_new(vm, L, EVPT_TASK_FORK, "callback", 8);
    lua_xmove(L, task->co, 4); /* a coroutine begins with more room than that */
    vm->ending = NULL;
    for (int i = 0; i < 2; i++) { /* above `top` still lies the table of the values */
        lua_pushboolean(L, false);
        lua_rawseti(L, top + 1, evpt_wait_values(wait) + i);
    }
    lua_settop(L, top);
    if (wait->answer_lost)
        evpt_wait_free(vm, wait);
    else
        keep_late(vm, wait);
    evpt_task_resume(vm, task, 3);
}

/* ---- what has become due or ready ---- */

static void time_out(struct evpt_vm *vm, struct evpt_wait *wait)
{
    struct evpt_task *task = wait->task;
    int values = push_timeout(vm->L);
    evpt_end_waiting(task->co);
    lua_xmove(vm->L, task->co, values);
    keep_late(vm, wait);
    evpt_task_ready(vm, task, values);
}

/* The time of a wait has come. */
static void end_due(struct evpt_vm *vm, struct evpt_wait *wait)
{
    struct evpt_task *task = wait->task;
    vm->ending = wait;
    switch ((enum evpt_wait_kind)wait->kind) {
    case EVPT_WAIT_CALL:
        time_out(vm, wait);
        break;
    case EVPT_WAIT_SLEEP:
        evpt_wait_free(vm, wait);
        evpt_task_ready(vm, task, 0);
        break;
    case EVPT_WAIT_TIMER:
        task = evpt_task_new(vm, vm->L, EVPT_TASK_FORK, "timeout", 7);
        take_function(vm, task->co, wait);
        evpt_wait_free(vm, wait);
        evpt_task_ready(vm, task, 0);
        break;
    case EVPT_WAIT_CALLBACK:
        start_callback(vm, wait, NULL);
        break;
    case EVPT_WAIT_FREE:
    case EVPT_WAIT_WAKEUP:
    case EVPT_WAIT_LATE:
        assert(!"a wait without a timer");
    }
    vm->ending = NULL;
}

void evpt_vm_run_ready(struct evpt_vm *vm)
{
    struct evpt_list *node;
    for (int i = 0; i < READY_MAX; i++) {
        if ((node = evpt_list_pop_front(&vm->due)) != NULL)
            end_due(vm, EVPT_CONTAINER_OF(node, struct evpt_wait, due_link));
        node = evpt_list_pop_front(&vm->ready);
        if (node) {
            struct evpt_task *task = EVPT_CONTAINER_OF(node, struct evpt_task, ready_link);
            evpt_task_resume(vm, task, task->ready_values);
        } else if (evpt_list_is_empty(&vm->due)) {
            return;
        }
        if (vm->service->exiting)
            return;
    }
    evpt_service_wake_at(vm->service, evpt_service_now(vm->service)); /* more in the next run */
}

void evpt_vm_on_reply(struct evpt_vm *vm, struct evpt_message *message)
{
    struct evpt_wait *wait = evpt_wait_find(vm, message->session);
    if (!wait)
        return;
    if (wait->kind == EVPT_WAIT_LATE) {
        settle_late(vm, wait);
    } else if (wait->kind == EVPT_WAIT_CALLBACK) {
        start_callback(vm, wait, message);
    } else if (wait->kind == EVPT_WAIT_CALL) {
        struct evpt_task *task = wait->task;
        evpt_wait_free(vm, wait);
        vm->answered = task;
        /* On the VM's own state: Lua ends a coroutine in which something raises while it does not
         * run, and nobody would be told. */
        int values = push_outcome(vm->L, message);
        if (!lua_checkstack(task->co, values))
            luaL_error(vm->L, "too many results");
        evpt_end_waiting(task->co);
        lua_xmove(vm->L, task->co, values);
        vm->answered = NULL;
        evpt_task_resume(vm, task, values);
    }
}
