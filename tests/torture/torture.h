/* What a trial is made of: a machine in which one thing fails, nodes on it, scenarios.
 *
 *   machine.c    allocations and system calls, counted, the nth of which fails
 *   node.c       whole nodes in this process and thread: launcher, built-in services, a Lua service
 *   scenarios.c  what the nodes do, and what must hold whatever fails
 *   main.c       every n of every scenario, each in a child that may crash
 */
#ifndef EVPT_TESTS_TORTURE_H
#define EVPT_TESTS_TORTURE_H

#include "services/node.h"

#define NODES 2
#define CALLS_MAX 64

/* Fails the trial: says where, and ends the process. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail(__FILE__, __LINE__, #condition);                                                  \
    } while (0)
void fail(const char *file, int line, const char *what) __attribute__((noreturn));

/* ---- the machine ---- */

enum failing { FAIL_ALLOCATION, FAIL_SYSTEM_CALL, FAIL_KINDS };

/* From now on the nth of this kind fails, and `burst` in all. nth 0: none, they are only counted.
 */
void machine_arm(enum failing kind, unsigned nth, unsigned burst);
void machine_disarm(void);
/* Between the two nothing is counted and nothing fails: what the trial itself needs. */
bool machine_pause(void);
void machine_resume(bool was_armed);
/* How many of the armed kind there were between the two. */
unsigned machine_counted(void);
/* What failed, for the report: "alloc", "accept" ... */
const char *machine_failed(void);
long machine_live(void);
void machine_pass_ms(uint64_t ms);
/* What the file `nodes.lua` holds; copied. */
void machine_set_list(const char *text);

/* ---- nodes ---- */

enum node_state { STARTING, RUNNING, NOT_STARTED, STOPPED };

struct outcome {
    int answers; /* is to become 1 */
    int code;
    char text[200]; /* the first result, or the text of the error */
};

struct node {
    struct evpt_node node;
    struct evpt_config config;
    uint32_t launcher, console;
    enum node_state state;
    uint32_t calls;
    struct outcome outcomes[CALLS_MAX + 1]; /* by session */
    bool made;                              /* evpt_node_init has succeeded */
};
extern struct node nodes[NODES];

/* Once: free ports for the nodes, a folder for their admin sockets. */
void nodes_setup(const char *folder_of_scripts);
const struct evpt_addr *node_addr(unsigned node);
/* One thing after the other until the launcher runs or has failed; NOT_STARTED where memory for
 * that was refused. `services`: whether "room" runs there. */
void node_start(struct node *node, bool services);
/* Asks the launcher to stop, waits for it, and takes the node apart. Where something fails
 * meanwhile, the launcher may not get to its end: then evpt ends after stop_timeout_ms. */
void node_stop(struct node *node, bool may_time_out);
/* Takes the node apart without asking anybody. */
void node_kill(struct node *node);
/* One turn of all nodes; where nothing happens, a millisecond passes. */
void nodes_turn(void);
/* Turns until the condition holds; fails after two minutes of the nodes' time. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        uint64_t limit_ns_ = evpt_sys_now_ns() + 120 * EVPT_NS_PER_S;                              \
        while (!(condition)) {                                                                     \
            CHECK(evpt_sys_now_ns() < limit_ns_);                                                  \
            nodes_turn();                                                                          \
        }                                                                                          \
    } while (0)

/* A call from the main thread to a service of the node, with a node's name and a number; its
 * outcome, which will have one answer. */
struct outcome *node_call(struct node *node, const char *service, const char *method,
                          const char *argument, int64_t number);

/* ---- scenarios ---- */

struct scenario {
    const char *name;
    /* What must be there before anything fails, what may fail, and what must hold afterwards. */
    void (*before)(void), (*act)(void), (*after)(void);
};
extern const struct scenario scenarios[];
extern const unsigned scenario_count;
/* Once, behind nodes_setup. */
void scenarios_setup(void);

#endif
