#include "services/access.h"

#include "cluster/session.h"
#include "reactor/sys.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct evpt_access_rule {
    struct evpt_access_rule *next;
    size_t method_size, count;
    char text[]; /* the method, then the patterns with a 0 behind each */
};

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool evpt_access_pattern_is_valid(const char *pattern)
{
    size_t size = 0;
    while (is_name_char(pattern[size]) || pattern[size] == '*')
        size++;
    return pattern[size] == 0 && size > 0 && size <= EVPT_NODE_NAME_MAX;
}

/* After a star every place is tried for what stands behind it; an earlier star need not be tried
 * again once a later one is reached. So the work is at most the product of both lengths. */
bool evpt_access_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;
    if (!*name)
        return false;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

/* Where the pointer to the method's rule is, or to the NULL at the end. */
static struct evpt_access_rule **find(struct evpt_access_rule **rules, const char *method,
                                      size_t method_size)
{
    while (*rules && ((*rules)->method_size != method_size ||
                      memcmp((*rules)->text, method, method_size) != 0))
        rules = &(*rules)->next;
    return rules;
}

static struct evpt_access_rule *new_rule(const char *method, size_t method_size,
                                         const char *const *patterns, size_t count)
{
    size_t size = method_size;
    for (size_t i = 0; i < count; i++)
        size += strlen(patterns[i]) + 1;
    struct evpt_access_rule *rule = evpt_sys_alloc(sizeof(*rule) + size);
    if (!rule)
        return NULL;
    *rule = (struct evpt_access_rule){.method_size = method_size, .count = count};
    char *to = rule->text;
    memcpy(to, method, method_size);
    to += method_size;
    for (size_t i = 0; i < count; i++) {
        size_t pattern_size = strlen(patterns[i]) + 1;
        memcpy(to, patterns[i], pattern_size);
        to += pattern_size;
    }
    return rule;
}

int evpt_access_set(struct evpt_access_rule **rules, const char *method, size_t method_size,
                    const char *const *patterns, size_t count)
{
    struct evpt_access_rule *rule = NULL, **at = find(rules, method, method_size), *old = *at;
    if (count > 0) {
        rule = new_rule(method, method_size, patterns, count);
        if (!rule)
            return -ENOMEM;
        rule->next = old ? old->next : NULL;
        *at = rule;
    } else if (old) {
        *at = old->next;
    }
    evpt_sys_free(old);
    return 0;
}

bool evpt_access_allows(const struct evpt_access_rule *rules, const char *method,
                        size_t method_size, const char *caller)
{
    const struct evpt_access_rule *rule =
        *find((struct evpt_access_rule **)&rules, method, method_size);
    if (!rule)
        return true;
    const char *pattern = rule->text + rule->method_size;
    for (size_t i = 0; i < rule->count; i++, pattern += strlen(pattern) + 1) {
        if (evpt_access_matches(pattern, caller))
            return true;
    }
    return false;
}

void evpt_access_clear(struct evpt_access_rule **rules)
{
    while (*rules) {
        struct evpt_access_rule *rule = *rules;
        *rules = rule->next;
        evpt_sys_free(rule);
    }
}
