/* Who may call what: the rules that `evpt.export({...}, { from = {...} })` makes.
 *
 * A rule is for one method of one service: patterns, of which one has to match the name of the node
 * that calls. In a pattern `*` stands for any characters; everything else stands for itself. A
 * method without a rule may be called by all. Rules hold for other nodes only.
 *
 * Plain data, kept by the registry under its lock (evpt_registry_restrict, evpt_registry_allows).
 */
#ifndef EVPT_SERVICES_ACCESS_H
#define EVPT_SERVICES_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#define EVPT_ACCESS_PATTERNS_MAX 256 /* of one rule: each call may try them all */

struct evpt_access_rule; /* a list: the next one is in it */

/* Letters, digits, _ and *, 1 to EVPT_NODE_NAME_MAX of them. */
bool evpt_access_pattern_is_valid(const char *pattern);
bool evpt_access_matches(const char *pattern, const char *name);

/* Puts a rule in place of the one that the method has; `count` 0: it has none any more. 0 or
 * -ENOMEM: then the old one stays. */
int evpt_access_set(struct evpt_access_rule **rules, const char *method, size_t method_size,
                    const char *const *patterns, size_t count);
/* `caller`: a node's name; "" matches nothing. */
bool evpt_access_allows(const struct evpt_access_rule *rules, const char *method,
                        size_t method_size, const char *caller);
/* All rules go. */
void evpt_access_clear(struct evpt_access_rule **rules);

#endif
