/* A node without threads, for targets that need a whole one: a turn runs everything once. */
#ifndef EVPT_TESTS_FUZZ_NODE_H
#define EVPT_TESTS_FUZZ_NODE_H

#include "fuzz.h"
#include "services/node.h"

struct fuzz_node {
    struct evpt_node node;
    struct evpt_config config;
};

/* "n1", listening nowhere. `on_main` as in services/node.h. */
void fuzz_node_init(struct fuzz_node *it, evpt_node_main_fn on_main, void *user);
void fuzz_node_fini(struct fuzz_node *it);
/* Until nothing happens any more. */
void fuzz_node_settle(struct fuzz_node *it);
/* A call from `main` to the target, whose arguments are these bytes. False: it was refused, and
 * there will be no answer. */
bool fuzz_node_call(struct fuzz_node *it, uint32_t target, uint32_t session, const char *method,
                    const void *args, size_t args_size);

#endif
