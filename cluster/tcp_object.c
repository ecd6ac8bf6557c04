/* The dictionary: open addressing by id, linear probing, at most half full; removal moves back what
 * would no longer be found, so there are no tombstones. */
#include "cluster/tcp_object.h"

#include "reactor/error.h"
#include <assert.h>
#include <errno.h>

#define DICT_CAPACITY_MIN 16
#define DICT_CAPACITY_MAX (UINT32_C(1) << 28) /* far beyond any number of descriptors */

/* Ids are handed out in sequence: their low bits are the best hash there is. */
static uint32_t home_of(const struct evpt_tcp_object *object, uint32_t id)
{
    return id & (object->session_capacity - 1);
}

/* The slot of an id, or the free one where it would go. The dictionary has one, at least. */
static struct evpt_session **probe(const struct evpt_tcp_object *object, uint32_t id)
{
    uint32_t at = home_of(object, id);
    while (object->session_dict[at] && evpt_session_id(object->session_dict[at]) != id)
        at = (at + 1) & (object->session_capacity - 1);
    return &object->session_dict[at];
}

static int dict_reserve(struct evpt_tcp_object *object)
{
    if (object->session_count < object->session_capacity / 2)
        return 0;
    uint32_t old_capacity = object->session_capacity;
    uint32_t capacity = old_capacity ? old_capacity * 2 : DICT_CAPACITY_MIN;
    if (capacity > DICT_CAPACITY_MAX)
        return -EVPT_ELIMIT;
    struct evpt_session **old = object->session_dict;
    struct evpt_session **dict = evpt_sys_zalloc(capacity * sizeof(struct evpt_session *));
    if (!dict)
        return -ENOMEM;
    object->session_dict = dict;
    object->session_capacity = capacity;
    for (uint32_t i = 0; i < old_capacity; i++) {
        if (old[i])
            *probe(object, evpt_session_id(old[i])) = old[i];
    }
    evpt_sys_free(old);
    return 0;
}

/* SEED.md: removeSession. */
static void dict_remove(struct evpt_tcp_object *object, uint32_t id)
{
    struct evpt_session **dict = object->session_dict;
    uint32_t mask = object->session_capacity - 1;
    uint32_t hole = (uint32_t)(probe(object, id) - dict);
    assert(dict[hole]);
    for (uint32_t at = (hole + 1) & mask; dict[at]; at = (at + 1) & mask) {
        uint32_t home = home_of(object, evpt_session_id(dict[at]));
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            dict[hole] = dict[at];
            hole = at;
        }
    }
    dict[hole] = NULL;
    object->session_count--;
}

/* The next number that is not 0 and not in use. There is one: the dictionary cannot hold them all.
 */
static uint32_t next_id(struct evpt_tcp_object *object)
{
    do {
        object->total_session_id++;
    } while (object->total_session_id == 0 || *probe(object, object->total_session_id));
    return object->total_session_id;
}

/* ---- events: passed on to the owner ---- */

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct evpt_tcp_object *object = user;
    object->ops->on_message(session, message, object->user);
}

static void on_hello(struct evpt_session *session, void *user)
{
    struct evpt_tcp_object *object = user;
    if (object->ops->on_hello)
        object->ops->on_hello(session, object->user);
}

static void on_goaway(struct evpt_session *session, int code, const char *text, void *user)
{
    struct evpt_tcp_object *object = user;
    if (object->ops->on_goaway)
        object->ops->on_goaway(session, code, text, object->user);
}

static void on_queued(struct evpt_session *session, uint32_t frame_session, uint64_t position,
                      void *user)
{
    struct evpt_tcp_object *object = user;
    if (object->ops->on_queued)
        object->ops->on_queued(session, frame_session, position, object->user);
}

/* SEED.md: errorCB. Out of the dictionary first: whoever is told does not find it any more. */
static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct evpt_tcp_object *object = user;
    dict_remove(object, evpt_session_id(session));
    object->ops->on_close(session, error, reason, object->user);
}

static const struct evpt_session_ops session_ops = {
    .on_message = on_message,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_close = on_close,
};

/* ---- the object ---- */

void evpt_tcp_object_init(struct evpt_tcp_object *object, struct evpt_loop *loop,
                          const struct evpt_session_config *config,
                          const struct evpt_session_ops *ops, void *user)
{
    *object = (struct evpt_tcp_object){.loop = loop, .config = config, .ops = ops, .user = user};
}

void evpt_tcp_object_fini(struct evpt_tcp_object *object)
{
    if (!object)
        return;
    for (uint32_t i = 0; i < object->session_capacity; i++)
        evpt_session_free(object->session_dict[i]);
    evpt_sys_free(object->session_dict);
    object->session_dict = NULL;
    object->session_capacity = object->session_count = 0;
}

int evpt_tcp_object_create_session(struct evpt_tcp_object *object, int fd,
                                   struct evpt_transport *transport, enum evpt_session_role role,
                                   struct evpt_session **ret_session)
{
    int error = dict_reserve(object);
    if (error) {
        evpt_transport_free(transport);
        evpt_sys_close(fd);
        return error;
    }
    struct evpt_session *session;
    uint32_t id = next_id(object);
    error = evpt_session_new_over(&session, object->loop, fd, transport, role, id, object->config,
                                  &session_ops, object);
    if (error)
        return error;
    *probe(object, id) = session;
    object->session_count++;
    *ret_session = session;
    return 0;
}

struct evpt_session *evpt_tcp_object_find(const struct evpt_tcp_object *object, uint32_t id)
{
    return object->session_count > 0 && id != 0 ? *probe(object, id) : NULL;
}

uint32_t evpt_tcp_object_count(const struct evpt_tcp_object *object)
{
    return object->session_count;
}

void evpt_tcp_object_each(struct evpt_tcp_object *object, evpt_session_each_fn fn, void *user)
{
    /* Closing takes a session out of the dictionary only later, from the loop. */
    for (uint32_t i = 0; i < object->session_capacity; i++) {
        if (object->session_dict[i])
            fn(object->session_dict[i], user);
    }
}
