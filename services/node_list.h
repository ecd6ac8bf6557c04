/* The node list in memory: clusterName of SEED.md, {nodeName = {ip, port}}.
 *
 * A plain sorted array that is built whole, checked whole, and then only read. Belongs to whoever
 * made it.
 */
#ifndef EVPT_SERVICES_NODE_LIST_H
#define EVPT_SERVICES_NODE_LIST_H

#include "cluster/session.h"
#include "reactor/sys.h"

struct evpt_node_entry {
    char name[EVPT_NODE_NAME_MAX + 1];
    struct evpt_addr addr; /* size 0 where the node is down (`false` in the file) */
};

struct evpt_node_list {
    struct evpt_node_entry *entries; /* sorted by name */
    size_t count;
};

/* Adds an entry; keep them sorted. `addr` NULL: known, and down. 0, -EVPT_EEXISTS, -ENOMEM. */
int evpt_node_list_add(struct evpt_node_list *list, const char *name, const struct evpt_addr *addr);
const struct evpt_node_entry *evpt_node_list_find(const struct evpt_node_list *list,
                                                  const char *name);
/* [%a_][%w_]*, at most EVPT_NODE_NAME_MAX bytes. */
bool evpt_node_name_is_valid(const char *name);
/* NULL and zeroed are fine. */
void evpt_node_list_fini(struct evpt_node_list *list);

#endif
