/* Who is there: slots by handle, handles by name.
 *
 * A handle is 14 bits of generation and 18 bits of slot; 0 is no handle. Slots are made in chunks,
 * are reused first in first out, and never move or go while the registry lives, so a look-up by
 * handle takes no lock. Names are in a hash table under a mutex; `version` changes with every
 * change of names, so whoever keeps answers can tell when they are old. Any thread, unless said
 * otherwise.
 */
#ifndef EVPT_SERVICES_REGISTRY_H
#define EVPT_SERVICES_REGISTRY_H

#include "services/access.h"
#include "services/service.h"
#include <pthread.h>

#define EVPT_SLOT_BITS 18
#define EVPT_SLOTS_MAX (1u << EVPT_SLOT_BITS) /* services in one node */
#define EVPT_SLOT_CHUNK 256
#define EVPT_GENERATION_MAX (1u << (32 - EVPT_SLOT_BITS))

struct evpt_name;

/* What the registry keeps of a slot beside the service itself; under the lock. */
struct evpt_slot {
    struct evpt_name *names; /* of who lives there, the first one first */
    struct evpt_access_rule *rules; /* who may call it from other nodes */
    uint16_t generation;
};

struct evpt_registry {
    _Atomic uint32_t version;
    /* private */
    pthread_mutex_t lock;
    _Atomic(struct evpt_service *) chunks[EVPT_SLOTS_MAX / EVPT_SLOT_CHUNK];
    uint32_t slot_count;
    struct evpt_slot *slots;
    uint32_t *free_slots; /* ring of slot numbers, EVPT_SLOTS_MAX long at most */
    uint32_t free_first, free_count, free_capacity;
    struct evpt_name **buckets; /* of the names' hash table; a power of two, or none yet */
    uint32_t bucket_count, name_count;
};

void evpt_registry_init(struct evpt_registry *registry);
void evpt_registry_fini(struct evpt_registry *registry);

/* A free slot with a new handle; NULL: EVPT_SLOTS_MAX are in use, or no memory. */
struct evpt_service *evpt_registry_claim(struct evpt_registry *registry);
/* Gives it back: its handle stops being valid, its names go. By its consumer. */
void evpt_registry_release(struct evpt_registry *registry, struct evpt_service *service);

/* A slot by its number, whoever lives there now, if anybody; NULL: there are not so many. */
struct evpt_service *evpt_registry_slot(struct evpt_registry *registry, uint32_t number);
/* The service with this handle, or NULL. It may go at any time: only what says "any thread" may be
 * touched. */
struct evpt_service *evpt_registry_find(struct evpt_registry *registry, uint32_t handle);

/* 0, -EVPT_EEXISTS (the name is another's), -EVPT_ENOTFOUND (no such handle), -ENOMEM. A service
 * may have several names. */
int evpt_registry_name(struct evpt_registry *registry, const char *name, size_t size,
                       uint32_t handle);
/* The names of a handle go, and are free for others; the service itself stays. */
void evpt_registry_unname(struct evpt_registry *registry, uint32_t handle);
/* The handle of a name, or 0. */
uint32_t evpt_registry_query(struct evpt_registry *registry, const char *name, size_t size);
/* The first name of a handle into `buffer`; "" where it has none. Returns buffer. */
const char *evpt_registry_name_of(struct evpt_registry *registry, uint32_t handle, char *buffer,
                                  size_t size);
/* Other nodes may call the method only where one of the patterns matches their name (access.h);
 * `count` 0: all may. 0, -EVPT_ENOTFOUND, -ENOMEM. */
int evpt_registry_restrict(struct evpt_registry *registry, uint32_t handle, const char *method,
                           size_t method_size, const char *const *patterns, size_t count);
/* May the node `caller` call it? Takes the lock only where the service has such rules. */
bool evpt_registry_allows(struct evpt_registry *registry, uint32_t handle, const char *method,
                          size_t method_size, const char *caller);
/* Calls `fn` for each service, in order of slots; services may come and go meanwhile. */
typedef void (*evpt_registry_each_fn)(struct evpt_service *service, uint32_t handle, void *user);
void evpt_registry_each(struct evpt_registry *registry, evpt_registry_each_fn fn, void *user);
/* The same for every slot there is, free ones too (handle 0): for the end, when nothing runs any
 * more. */
void evpt_registry_each_slot(struct evpt_registry *registry, evpt_registry_each_fn fn, void *user);

#endif
