/* One run: nodes on simulated hosts, services that call each other, faults, and what must hold.
 *
 *   node.c    a node as services/node.h has it, with services written in C
 *   calls.c   what each call promises: the oracles
 *   world.c   the faults of one seed, and the course of a run
 */
#ifndef EVPT_TESTS_SIM_WORLD_H
#define EVPT_TESTS_SIM_WORLD_H

#include "machine.h"
#include "services/code.h"
#include "services/node.h"

#define NODES_MAX 4
#define SERVICES_MAX 3
#define TARGETS (NODES_MAX * SERVICES_MAX)

/* ---- what differs from seed to seed ---- */

struct swarm {
    unsigned nodes, services, workers;
    uint64_t fault_ns;                           /* how long the faults last */
    uint64_t call_every_ns;                      /* of one service, on average */
    unsigned large, slow_answers, strange_calls; /* chances out of 1000 */
    struct evpt_config config;
    struct sim_faults faults;
    bool resets, half_closes, black_holes, one_way, two_way, freezes, long_pauses, kills, power,
        stops, lists, wraps, kill_services;
};

/* ---- nodes ---- */

enum listed { LISTED, LISTED_DOWN, LISTED_ELSEWHERE, NOT_LISTED };

struct held {
    struct evpt_list link;
    uint64_t due_ns;
    struct evpt_message *request;
    uint32_t call;
};

struct node;

struct service {
    struct node *node;
    unsigned index;
    uint32_t handle, instance;
    uint32_t next_seq[TARGETS];
    uint64_t next_call_ns;
    struct evpt_list held; /* begun and not answered */
};

enum { COMMAND_APPLY = 1, COMMAND_DRAIN = 2, COMMAND_WRAP = 4, COMMAND_KILL_SERVICE = 8 };

struct node {
    struct evpt_node node;
    char name[16];
    unsigned index, generation;
    struct sim_process *process;
    bool running, draining, stopping, wrapped;
    unsigned commands;
    struct evpt_wake wake, main_wake;
    struct evpt_loop_hook check_hook;
    enum evpt_connect_status status[NODES_MAX + 1];
    enum listed listed[NODES_MAX]; /* what its next node list says */
    struct service *services[SERVICES_MAX];
};

struct world {
    struct swarm swarm;
    struct node nodes[NODES_MAX];
    bool healed, quiet;
    bool reached[NODES_MAX][NODES_MAX]; /* a call went through since the healing */
};
extern struct world world;

void node_start(struct node *node);
void node_command(struct node *node, unsigned commands);
void node_stop(struct node *node);

/* ---- calls ---- */

void calls_init(void);
void calls_fini(void);
/* A service that numbers its messages from 1 for each target. */
uint32_t calls_new_instance(void);
/* Returns the number of the new call, never 0. */
uint32_t calls_issue(const struct service *service, bool is_send, unsigned target_node,
                     unsigned target_service, uint64_t deadline_ns, uint32_t instance,
                     uint32_t seq);
void calls_executed(uint32_t call, const struct service *by);
/* What the caller was told. */
void calls_answered(uint32_t call, const struct service *service, int code,
                    enum evpt_executed executed);
/* Nobody waits for the answers of this service any more. */
void calls_forget(uint32_t instance);
bool calls_all_resolved(void);
/* Fails where a call is overdue. */
void calls_check_overdue(void);
/* At the end, when nothing more can be executed. */
void calls_check_all(void);
uint32_t calls_count(void);

/* ---- a run ---- */

enum plant {
    PLANT_NOTHING,
    PLANT_TWICE,
    PLANT_SILENT,
    PLANT_MIXED_UP,
    PLANT_ORDER,
    PLANT_LEAK,
    PLANT_LIE,
    PLANTS
};
extern enum plant planted; /* a bug in the services, for the test of the oracles */

/* Runs one seed; returns its hash. */
uint64_t world_run(uint64_t seed);

#endif
