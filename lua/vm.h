/* VM host: a Lua service. One Lua state, run by the scheduler as one actor (services/service.h).
 *
 * Each request runs in a coroutine of its own, a task. A task that waits (for an answer, a timer, a
 * wake-up) has yielded and holds an entry in `waits`, a table of slots; what ends the wait finds
 * the entry by its session, takes it out, and resumes the task. An entry is taken out before
 * anything else happens, so a wait ends exactly once.
 *
 *     new --.start--> script, __main__ --reply--> serving --exit, kill--> stopped
 *
 * Everything here runs on the worker that runs the service. C code that may raise holds no message:
 * the one at hand is in `current`, which the pcall around the whole run answers and frees.
 */
#ifndef EVPT_LUA_VM_H
#define EVPT_LUA_VM_H

#include "lua/value.h"
#include "lua/vm_memory.h"
#include "services/code.h"
#include "services/node.h"
#include <lua.h>

struct evpt_vm;

/* Fixed places in the registry table of each state: integer keys, for lua_rawgeti. `false` where
 * nothing is yet, never nil: luaL_ref, which C modules of scripts use on the same table, takes what
 * is free for its own. (LUA_RIDX_LAST is 2, and 3 is luaL_ref's.) */
enum evpt_vm_ref {
    EVPT_REF_FIRST = 4,
    EVPT_REF_EXPORTS = EVPT_REF_FIRST, /* methods other nodes may call; since evpt.export */
    EVPT_REF_METHODS,                  /* methods of evpt.methods */
    EVPT_REF_DISPATCH,                 /* _msg_dispatch_ */
    EVPT_REF_TASKS,                    /* task number -> coroutine: keeps them alive */
    EVPT_REF_WAIT_VALUES,     /* 2 values for each slot of waits: function, and what it called */
    EVPT_REF_HANDLES,         /* name -> handle, as of registry version */
    EVPT_REF_NODES,           /* node name -> true, as of the directory's version */
    EVPT_REF_ERROR_META,      /* metatable of error objects */
    EVPT_REF_STOP_HOOKS,      /* functions given to evpt.on_stop */
    EVPT_REF_NO_MEMORY,       /* the text for when there is no memory to make one */
    EVPT_REF_STATUS_HANDLERS, /* functions given to cluster.on_change */
    EVPT_REF_LUA_PARTS,       /* source -> its functions (evpt_call_lua) */
    EVPT_REF_CHUNKS,          /* true (the script), or a module's name -> its chunk: api_update.c */
    EVPT_REF_END
};

enum evpt_task_kind {
    EVPT_TASK_REQUEST,  /* a method: its results are the reply */
    EVPT_TASK_DISPATCH, /* _msg_dispatch_: replies by itself */
    EVPT_TASK_START,    /* .start, .after_init, .stop: an error is told with its traceback */
    EVPT_TASK_FORK,     /* fork, timers, callbacks: an error is logged */
};

struct evpt_task {
    struct evpt_list link;       /* in vm->spare, or in vm->running for those that have begun */
    struct evpt_list ready_link; /* in vm->ready */
    lua_State *co;
    uint64_t began_ns;        /* requests: when */
    uint32_t number;          /* in EVPT_REF_TASKS */
    uint32_t source, session; /* who is to get the reply; session 0: nobody */
    int ready_values;         /* values on co's stack to resume with, while in vm->ready */
    uint8_t kind;
    char method[39]; /* for logs; cut. With it the whole fills one of malloc's blocks: 104 bytes */
};

enum evpt_wait_kind {
    EVPT_WAIT_FREE,
    EVPT_WAIT_CALL,     /* task waits for an answer */
    EVPT_WAIT_CALLBACK, /* remoteCall: a function waits for an answer */
    EVPT_WAIT_SLEEP,    /* task waits for a time */
    EVPT_WAIT_TIMER,    /* evpt.timeout: a function waits for a time */
    EVPT_WAIT_WAKEUP,   /* task waits for evpt.wakeup */
    EVPT_WAIT_LATE, /* the call timed out, its answer may still come: the slot is not reused until
                       then */
};

struct evpt_wait {
    struct evpt_timer timer;
    struct evpt_list due_link; /* in vm->due: its time has come */
    struct evpt_task *task;
    uint64_t serial;    /* no two waits of a VM have the same */
    uint32_t session;   /* generation << 20 | slot */
    uint32_t next : 24; /* next free, or next late one */
    uint32_t kind : 7;
    uint32_t answer_lost : 1; /* it came when there was no memory for it */
};                            /* 80 bytes: one for each call in flight */

#define EVPT_WAIT_CHUNK 16 /* slots made at a time: 1.3 KiB */
#define EVPT_WAIT_SLOT_BITS 20
#define EVPT_WAITS_MAX (1u << EVPT_WAIT_SLOT_BITS)
#define EVPT_WAIT_NONE 0xffffffu /* no slot: in first_free and next */
#define EVPT_WAITS_LATE_MAX                                                                        \
    65536 /* late answers that are waited for at a time: the oldest is then given up */
#define EVPT_TASKS_SPARE_MAX 256 /* coroutines kept for reuse */
#define EVPT_NO_MEMORY_RETRY_MS                                                                    \
    20 /* a timer or callback for which there was no memory: until the next attempt */

struct evpt_vm {
    struct evpt_node *node;
    struct evpt_service *service; /* while it runs */
    struct evpt_worker *worker;   /* who runs it now */
    lua_State *L;
    char *script, *name;
    struct evpt_vm_memory memory;
    _Atomic size_t memory_shown; /* for the console */
    _Atomic uint32_t task_count, wait_count;
    struct evpt_message *current; /* at hand while code runs that may raise */
    struct evpt_task *task;       /* whose coroutine runs now */
    struct evpt_task *answered;   /* waits for the answer that is being decoded */
    struct evpt_wait *ending;     /* its time or its answer has come, and has not been told yet */
    struct evpt_list spare, running, ready, due;
    struct evpt_task *setup; /* a task that is being prepared, while code runs that may raise */
    uint32_t spare_count, next_task;
    struct evpt_wait **chunks;
    uint32_t wait_capacity, first_free, first_late, last_late, late_count;
    uint64_t last_serial;
    struct evpt_timer_wheel *wheel; /* made when first used */
    uint32_t handles_version, nodes_version;
    unsigned blocked; /* coroutines that were resumed by code that cannot be suspended */
    bool builtin; /* launcher, clusterclient, clusterserver, console: may use the core library */
    bool stopping;
    bool exited; /* by evpt.exit, as opposed to killed */
};

/* A new Lua service: its state is made when a worker first runs it. `script` is "launcher" and so
 * on for built-in ones (they come from the program itself), else it is looked up in `path`. Its
 * handle; 0: no memory or too many services. It does nothing until it gets a `.start` call. Any
 * thread (`self` as in evpt_post). */
uint32_t evpt_vm_spawn(struct evpt_node *node, struct evpt_worker *self, const char *script,
                       const char *name, bool builtin);

/* ---- for the API in C (api*.c) ---- */

/* The VM that a state belongs to. */
static inline struct evpt_vm *evpt_vm_of(lua_State *L)
{
    return *(struct evpt_vm **)lua_getextraspace(L);
}
/* The longest message that it may send. What message_max protects, memory and other nodes, is not
 * at stake where the built-in services pass node lists and the console's tables to each other. */
static inline size_t evpt_vm_message_max(const struct evpt_vm *vm)
{
    return vm->builtin ? EVPT_ADMIN_MESSAGE_MAX : vm->node->config->cluster.message_max;
}
/* A free slot in waits; raises where there are too many. For callbacks and timers, the two values
 * of the slot can be set from then on without raising. */
struct evpt_wait *evpt_wait_new(struct evpt_vm *vm, lua_State *L, enum evpt_wait_kind kind);
/* By session; NULL: it has ended. */
struct evpt_wait *evpt_wait_find(struct evpt_vm *vm, uint32_t session);
void evpt_wait_free(struct evpt_vm *vm, struct evpt_wait *wait);
/* What a script knows a timer by. Scripts keep these after the timer has fired, and cancel it all
 * the same: unlike sessions, which come round again, they never mean another one. */
static inline lua_Integer evpt_wait_timer_id(const struct evpt_wait *wait)
{
    return (lua_Integer)(wait->serial << EVPT_WAIT_SLOT_BITS |
                         (wait->session & (EVPT_WAITS_MAX - 1)));
}
/* NULL: it has fired, was cancelled, or never was. */
struct evpt_wait *evpt_wait_find_timer(struct evpt_vm *vm, lua_Integer id);
/* Index in EVPT_REF_WAIT_VALUES of the first of its 2 values. */
static inline lua_Integer evpt_wait_values(const struct evpt_wait *wait)
{
    return (lua_Integer)(wait->session & (EVPT_WAITS_MAX - 1)) * 2 + 1;
}
/* Pushes as one string what is called, for the error object that a callback may get. */
static inline void evpt_push_place(lua_State *L, const char *node, const char *service,
                                   const char *method)
{
    lua_pushfstring(L, "%s%c%s%c%s", node, 0, service, 0, method);
}
void evpt_wait_arm(struct evpt_vm *vm, struct evpt_wait *wait, uint64_t deadline_ns);
/* Yields the running task; `k` gets what it is resumed with on top of the stack. To be returned. */
int evpt_task_yield(lua_State *L, lua_KContext context, lua_KFunction k);
/* A new task that runs the function and `args` values on top of L's stack (they are popped) as soon
 * as the running one yields or ends. */
struct evpt_task *evpt_task_fork(struct evpt_vm *vm, lua_State *L, int args,
                                 enum evpt_task_kind kind, const char *method);
/* A task without anything on its coroutine's stack; raises in L, the state that runs, where memory
 * is refused. */
struct evpt_task *evpt_task_new(struct evpt_vm *vm, lua_State *L, enum evpt_task_kind kind,
                                const char *method, size_t method_size);
void evpt_task_free(struct evpt_vm *vm, struct evpt_task *task, bool reusable);
/* Starts or continues a task with the `values` on top of its coroutine's stack (for a new one, the
 * function below them). */
void evpt_task_resume(struct evpt_vm *vm, struct evpt_task *task, int values);
/* Due timers and ready tasks, until there are none, or as many as are good for one run. */
void evpt_vm_run_ready(struct evpt_vm *vm);
/* Advances the VM's timers: what is due moves to vm->due. */
void evpt_vm_advance(struct evpt_vm *vm);
/* An answer has come; frees nothing of the message. */
void evpt_vm_on_reply(struct evpt_vm *vm, struct evpt_message *message);
/* Pushes what a caller gets whose answer did not fit into memory: code, text, executed. Cannot
 * raise where 3 slots are free. */
int evpt_push_no_memory(lua_State *co);
/* Ends a task that does not run, answering its request with an error: where there is no memory for
 * that, the task's own is used, so that nobody waits in vain. */
void evpt_task_fail(struct evpt_vm *vm, struct evpt_task *task, int code, const char *text,
                    size_t size);
/* The last step of it, for a task that is in no list any more and whose coroutine has gone. */
void evpt_task_end_block(struct evpt_vm *vm, struct evpt_task *task, int code, const char *text,
                         size_t size);
/* Is the coroutine suspended by evpt_task_yield? Its yield is then to be passed on to the
 * scheduler, and nobody else may resume it. */
bool evpt_is_waiting(lua_State *co);
/* Makes such a coroutine ready for the values that it is resumed with. */
void evpt_end_waiting(lua_State *co);
/* A task that waited goes on, with `values` values on its coroutine's stack, as soon as the running
 * one yields or ends. */
void evpt_task_ready(struct evpt_vm *vm, struct evpt_task *task, int values);

/* Pushes an error object. `message` is on top of the stack and is replaced by it. */
struct evpt_error_place {
    const char *node, *service, *method; /* NULL: left out */
};
void evpt_push_error(lua_State *L, int code, enum evpt_executed executed,
                     const struct evpt_error_place *place);

/* Pushes the table at this place of the registry; it is made when first used. */
void evpt_push_table(lua_State *L, enum evpt_vm_ref ref);
/* Appends the function at 1 to it. */
void evpt_append(lua_State *L, enum evpt_vm_ref ref);

/* The libraries. */
int evpt_open(lua_State *L);         /* `evpt` */
int evpt_open_cluster(lua_State *L); /* `evpt.cluster` */
int evpt_open_core(lua_State *L);    /* what evpt's own Lua sources need */
int evpt_open_builtin(lua_State *L); /* what built-in services need */
int evpt_print(lua_State *L);        /* `print`, to the log */

/* Lua sources that are part of the program: "evpt", "service.launcher" ... (generated). */
struct evpt_embedded {
    const char *name, *text;
    size_t size;
};
extern const struct evpt_embedded evpt_embedded[];

#endif
