/* A node in the test's own process and thread: no worker, no built-in service, and Lua services
 * that the test starts, calls and looks into. Time passes when the test says so. */
#ifndef EVPT_TESTS_LUA_LAB_H
#define EVPT_TESTS_LUA_LAB_H

#include "../services/support.h"
#include "lua/vm.h"
#include "services/node.h"

#define LAB_CALLS_MAX 4096

struct lab_outcome {
    int answers, code;
    char text[400]; /* the first result, or the text of the error */
};

struct lab {
    char folder[32];
    struct evpt_config config;
    struct evpt_node node;
    struct lab_outcome outcomes[LAB_CALLS_MAX]; /* by session */
    uint32_t calls;
};

/* memory_max: lua_memory_max of the services. */
struct lab *lab_new(size_t memory_max);
void lab_free(struct lab *lab);
/* One turn of everything. */
void lab_turn(struct lab *lab);
/* Turns until the condition holds, a millisecond of the clock for each turn. */
#define LAB_UNTIL(lab, condition)                                                                  \
    do {                                                                                           \
        uint64_t limit_ns_ = support_limit_ns();                                                   \
        while (!(condition)) {                                                                     \
            if (support_real_now_ns() >= limit_ns_)                                                \
                ck_abort_msg("never came true: %s", #condition);                                   \
            support_skip_ms(1);                                                                    \
            lab_turn(lab);                                                                         \
        }                                                                                          \
    } while (0)
/* So many milliseconds, a turn for each. */
void lab_pass(struct lab *lab, int ms);

/* Makes a service with this script, registered under the name; its handle. It has not begun. */
uint32_t lab_spawn(struct lab *lab, const char *name, const char *script);
/* The same, and it has begun. */
uint32_t lab_start(struct lab *lab, const char *name, const char *script);
/* A call with one string; its session. */
uint32_t lab_call(struct lab *lab, uint32_t handle, const char *method, const char *argument);
/* A call with arguments as MessagePack. */
uint32_t lab_call_packed(struct lab *lab, uint32_t handle, const char *method,
                         const void *arguments, size_t size);
/* Turns until it is answered. */
const struct lab_outcome *lab_await(struct lab *lab, uint32_t session);
/* Kills it, and turns until it has gone. */
void lab_kill(struct lab *lab, uint32_t handle);
/* For services whose script ends with LAB_RUN: the text that the code returns; fails the test where
 * it raises. */
#define LAB_RUN                                                                                    \
    "require 'evpt'.methods { run = function(code) return tostring((assert(load(code))())) end "   \
    "}\n"
const char *lab_run(struct lab *lab, uint32_t handle, const char *code);
/* Its VM; valid until the service ends. */
struct evpt_vm *lab_vm(struct lab *lab, uint32_t handle);

#endif
