#include "cluster/message.h"

#include "reactor/sys.h"
#include <assert.h>
#include <string.h>

/* The frame header of a message that fits into one frame is written right in front of its data. */
static_assert(offsetof(struct evpt_message, data) ==
                  offsetof(struct evpt_message, headroom) + EVPT_MESSAGE_HEADROOM,
              "nothing lies between headroom and data");

/* Sizes are 32 bits wide; the head is counted in so that no sum below can overflow either. */
#define CAPACITY_MAX (UINT32_MAX - sizeof(struct evpt_message))

struct evpt_message *evpt_message_new(size_t capacity)
{
    if (capacity > CAPACITY_MAX)
        return NULL;
    /* Only the head is zeroed: the data are about to be written anyway. */
    struct evpt_message *message = evpt_sys_alloc(sizeof *message + capacity);
    if (!message)
        return NULL;
    memset(message, 0, sizeof *message);
    message->deadline_ns = EVPT_FOREVER;
    message->capacity = (uint32_t)capacity;
    return message;
}

void evpt_message_free(struct evpt_message *message)
{
    evpt_sys_free(message);
}

struct evpt_message *evpt_message_resize(struct evpt_message *message, size_t capacity)
{
    assert(capacity >= message->size);
    if (capacity > CAPACITY_MAX)
        return NULL;
    struct evpt_message *moved = evpt_sys_realloc(message, sizeof *message + capacity);
    if (moved)
        moved->capacity = (uint32_t)capacity;
    return moved;
}

struct evpt_message *evpt_message_grow(struct evpt_message *message, size_t more)
{
    if (more <= message->capacity - message->size)
        return message;
    if (more > CAPACITY_MAX - message->size)
        return NULL;
    size_t needed = message->size + more, doubled = (size_t)message->capacity * 2;
    if (doubled > CAPACITY_MAX)
        doubled = CAPACITY_MAX;
    return evpt_message_resize(message, needed > doubled ? needed : doubled);
}
