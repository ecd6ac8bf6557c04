#include "services/node_list.h"

#include "reactor/error.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define ENTRIES_MIN 8 /* allocated at first */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool evpt_node_name_is_valid(const char *name)
{
    if (!is_letter(name[0]))
        return false;
    size_t size = 1;
    while (is_letter(name[size]) || (name[size] >= '0' && name[size] <= '9'))
        size++;
    return name[size] == 0 && size <= EVPT_NODE_NAME_MAX;
}

/* The first entry whose name is not below `name`. */
static size_t lower_bound(const struct evpt_node_list *list, const char *name)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(list->entries[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct evpt_node_list *list, size_t index, const char *name)
{
    return index < list->count && strcmp(list->entries[index].name, name) == 0;
}

/* What is allocated follows from the count, so it need not be kept: ENTRIES_MIN, doubled each time
 * that it is full. */
static int make_room(struct evpt_node_list *list)
{
    size_t count = list->count;
    bool full = count == 0 || (count >= ENTRIES_MIN && (count & (count - 1)) == 0);
    if (!full)
        return 0;
    size_t room = count == 0 ? ENTRIES_MIN : count * 2;
    void *moved = evpt_sys_realloc(list->entries, room * sizeof(*list->entries));
    if (!moved)
        return -ENOMEM;
    list->entries = moved;
    return 0;
}

int evpt_node_list_add(struct evpt_node_list *list, const char *name, const struct evpt_addr *addr)
{
    assert(evpt_node_name_is_valid(name));
    size_t index = lower_bound(list, name);
    if (is_at(list, index, name))
        return -EVPT_EEXISTS;
    int error = make_room(list);
    if (error)
        return error;
    struct evpt_node_entry *entry = &list->entries[index];
    memmove(entry + 1, entry, (list->count - index) * sizeof(*entry));
    memset(entry, 0, sizeof(*entry));
    memcpy(entry->name, name, strlen(name));
    if (addr)
        entry->addr = *addr;
    list->count++;
    return 0;
}

const struct evpt_node_entry *evpt_node_list_find(const struct evpt_node_list *list,
                                                  const char *name)
{
    size_t index = lower_bound(list, name);
    return is_at(list, index, name) ? &list->entries[index] : NULL;
}

void evpt_node_list_fini(struct evpt_node_list *list)
{
    if (!list)
        return;
    evpt_sys_free(list->entries);
    memset(list, 0, sizeof(*list));
}
