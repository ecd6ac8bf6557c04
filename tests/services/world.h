/* A clusterclient and the nodes that it speaks to, in one thread and on one loop, over real
 * sockets.
 *
 * The nodes are scripted: what comes in is kept until the test has it answered, or does something
 * worse. Callers are one service that writes down each answer. After every event of the connections
 * the invariants are checked (evpt_clusterclient_check).
 */
#ifndef EVPT_TESTS_SERVICES_WORLD_H
#define EVPT_TESTS_SERVICES_WORLD_H

#include "cluster/cluster_mgr.h"
#include "services/clusterclient.h"
#include "support.h"

#define CALLS_MAX 20000
#define NODES_MAX 4

struct outcome {
    int answers; /* is to become 1 */
    int code;
    enum evpt_executed executed;
    int64_t result; /* of code 0 */
    char text[120];
};

/* A request that has reached a node. */
struct arrival {
    struct evpt_session *session; /* NULL: its connection is gone */
    uint32_t number;              /* the frame's session */
    bool is_call;
    int64_t argument;
    uint64_t left_ms; /* of its deadline; 0: none */
};

struct node {
    struct world *world;
    struct evpt_cluster_mgr mgr;
    struct evpt_addr addr;
    struct arrival *arrivals;
    size_t arrival_count, arrival_room;
    struct evpt_session *session; /* the connection that was accepted last; NULL: gone */
    int accepted, closed, hellos;
    int close_error;
};

struct status_event {
    char node[16], status[16];
};

struct world {
    struct rig rig;
    struct evpt_log log;
    struct evpt_config config;
    struct evpt_pair pair; /* of the client's pinned service */
    struct evpt_cluster_mgr mgr;
    struct evpt_clusterclient client;
    struct node nodes[NODES_MAX]; /* "n0" ... */
    struct actor caller, observer;
    struct outcome outcomes[CALLS_MAX]; /* by the caller's session */
    uint32_t calls;                     /* sessions given out */
    struct status_event events[64];
    unsigned event_count;
};

/* Nodes n0 to n3 listen and are in the list. message_max 1 MiB, call timeout 5 s. */
struct world *world_new(void);
/* Asserts that every call was answered once, and nothing is left. */
void world_free(struct world *world);
/* One turn that does not wait. */
void world_turn(struct world *world);
#define TURN_UNTIL(world, condition)                                                               \
    do {                                                                                           \
        uint64_t limit_ns_ = support_limit_ns();                                                   \
        while (!(condition)) {                                                                     \
            if (support_real_now_ns() >= limit_ns_)                                                \
                ck_abort_msg("never came true: %s", #condition);                                   \
            world_turn(world);                                                                     \
        }                                                                                          \
    } while (0)
/* Time passes, for all clocks. */
void world_pass_ms(struct world *world, uint64_t ms);

/* A call of caller's with one integer and `padding` bytes; its session. timeout_ms 0: no deadline.
 */
uint32_t call(struct world *world, const char *node, int64_t argument, size_t padding,
              uint64_t timeout_ms);
/* The same, handed to clusterclient before this returns. */
uint32_t call_now(struct world *world, const char *node, int64_t argument, uint64_t timeout_ms);
void send_to(struct world *world, const char *node, int64_t argument);
/* The request itself, not yet handed in. */
struct evpt_message *make_request(struct world *world, enum evpt_message_kind kind,
                                  const char *node, uint32_t session, int64_t argument,
                                  size_t padding, uint64_t timeout_ms);
/* Turns until the answer is there; then it is that. */
const struct outcome *outcome_of(struct world *world, uint32_t session);
void check_outcome(struct world *world, uint32_t session, int code, enum evpt_executed executed);

/* Turns until so many requests have arrived. */
void await_arrivals(struct node *node, size_t count);
/* Answers one with its argument, or with an error. */
void answer(struct node *node, size_t arrival, int code);
/* A reply to `number`, whoever asked; bytes NULL: a good one. */
void reply_raw(struct node *node, uint32_t number, const void *bytes, size_t size);
struct evpt_peer *peer_of(struct world *world, const char *node);
enum evpt_connect_status status_of(struct world *world, const char *node);
/* Connects to the node by a call that is answered. */
void connect_to(struct world *world, const char *node);
/* Applies a list of "name=address" or "name=" (down); what changed as "+a -b ~c". Static. */
const char *apply(struct world *world, const char *const *entries, size_t count);

#endif
