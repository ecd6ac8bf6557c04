/* Intrusive doubly linked list. The node lies inside the element; a zeroed node is unlinked.
 *
 *     struct job { struct evpt_list link; ... };
 *     struct evpt_list jobs;
 *     evpt_list_init(&jobs);
 *     evpt_list_push_back(&jobs, &job->link);
 *     struct job *first = EVPT_CONTAINER_OF(evpt_list_pop_front(&jobs), struct job, link);
 *
 * Not thread-safe: a list belongs to the thread of its owner. To call back while iterating, move
 * the list aside first (evpt_list_move) and pop until it is empty: the callback may then unlink any
 * element, itself included.
 */
#ifndef EVPT_REACTOR_LIST_H
#define EVPT_REACTOR_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define EVPT_CONTAINER_OF(pointer, type, member)                                                   \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct evpt_list {
    struct evpt_list *prev, *next;
};

static inline void evpt_list_init(struct evpt_list *head)
{
    head->prev = head->next = head;
}

static inline bool evpt_list_is_empty(const struct evpt_list *head)
{
    return head->next == head;
}

static inline bool evpt_list_is_linked(const struct evpt_list *node)
{
    return node->next != NULL;
}

/* `place`: a node that is linked, or a head. */
static inline void evpt_list_insert_after(struct evpt_list *place, struct evpt_list *node)
{
    node->prev = place;
    node->next = place->next;
    place->next->prev = node;
    place->next = node;
}

static inline void evpt_list_push_back(struct evpt_list *head, struct evpt_list *node)
{
    evpt_list_insert_after(head->prev, node);
}

/* Unlinks a node; one that is not linked stays as it is. */
static inline void evpt_list_remove(struct evpt_list *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

/* First node, unlinked, or NULL. */
static inline struct evpt_list *evpt_list_pop_front(struct evpt_list *head)
{
    struct evpt_list *node = head->next;
    if (node == head)
        return NULL;
    evpt_list_remove(node);
    return node;
}

/* Moves all nodes of `from` to the empty, initialised or uninitialised list `to`. */
static inline void evpt_list_move(struct evpt_list *to, struct evpt_list *from)
{
    evpt_list_init(to);
    if (evpt_list_is_empty(from))
        return;
    to->next = from->next;
    to->prev = from->prev;
    to->next->prev = to;
    to->prev->next = to;
    evpt_list_init(from);
}

#endif
