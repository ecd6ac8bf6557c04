#include "services/registry.h"

#include "reactor/error.h"
#include "reactor/sys.h"
#include "services/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLOT_MASK (EVPT_SLOTS_MAX - 1)
#define BUCKETS_MIN 64

/* In its bucket's list and in its owner's. */
struct evpt_name {
    struct evpt_name *next_in_bucket, *next_of_slot;
    uint32_t handle, hash, size;
    char text[];
};

void evpt_registry_init(struct evpt_registry *registry)
{
    memset(registry, 0, sizeof(*registry));
    pthread_mutex_init(&registry->lock, NULL);
    atomic_init(&registry->version, 1);
}

void evpt_registry_fini(struct evpt_registry *registry)
{
    for (size_t i = 0; i < EVPT_SLOTS_MAX / EVPT_SLOT_CHUNK; i++)
        evpt_sys_free(atomic_load_explicit(&registry->chunks[i], memory_order_relaxed));
    for (uint32_t i = 0; i < registry->bucket_count; i++) {
        for (struct evpt_name *name = registry->buckets[i], *next; name; name = next) {
            next = name->next_in_bucket;
            evpt_sys_free(name);
        }
    }
    for (uint32_t i = 0; i < registry->slot_count; i++)
        evpt_access_clear(&registry->slots[i].rules);
    evpt_sys_free(registry->buckets);
    evpt_sys_free(registry->slots);
    evpt_sys_free(registry->free_slots);
    pthread_mutex_destroy(&registry->lock);
}

/* ---- names, under the lock ---- */

static struct evpt_name *find_name(const struct evpt_registry *registry, const char *text,
                                   size_t size)
{
    if (registry->name_count == 0)
        return NULL;
    uint32_t hash = evpt_hash(text, size);
    struct evpt_name *name = registry->buckets[hash & (registry->bucket_count - 1)];
    while (name && (name->hash != hash || name->size != size || memcmp(name->text, text, size)))
        name = name->next_in_bucket;
    return name;
}

static void put_into_bucket(struct evpt_registry *registry, struct evpt_name *name)
{
    struct evpt_name **bucket = &registry->buckets[name->hash & (registry->bucket_count - 1)];
    name->next_in_bucket = *bucket;
    *bucket = name;
}

/* Twice the buckets. */
static bool grow_buckets(struct evpt_registry *registry)
{
    uint32_t old_count = registry->bucket_count;
    struct evpt_name **old = registry->buckets;
    uint32_t count = old_count ? old_count * 2 : BUCKETS_MIN;
    struct evpt_name **buckets = evpt_sys_zalloc(count * sizeof(*buckets));
    if (!buckets)
        return false;
    registry->buckets = buckets;
    registry->bucket_count = count;
    for (uint32_t i = 0; i < old_count; i++) {
        for (struct evpt_name *name = old[i], *next; name; name = next) {
            next = name->next_in_bucket;
            put_into_bucket(registry, name);
        }
    }
    evpt_sys_free(old);
    return true;
}

static int add_name(struct evpt_registry *registry, const char *text, size_t size, uint32_t handle)
{
    if (size > UINT32_MAX)
        return -ENOMEM;
    if (registry->name_count == registry->bucket_count && !grow_buckets(registry))
        return -ENOMEM;
    struct evpt_name *name = evpt_sys_alloc(sizeof(*name) + size);
    if (!name)
        return -ENOMEM;
    *name =
        (struct evpt_name){.handle = handle, .hash = evpt_hash(text, size), .size = (uint32_t)size};
    memcpy(name->text, text, size);
    put_into_bucket(registry, name);
    struct evpt_name **last = &registry->slots[handle & SLOT_MASK].names;
    while (*last)
        last = &(*last)->next_of_slot;
    *last = name;
    registry->name_count++;
    return 0;
}

/* All names of a slot go. */
static void drop_names(struct evpt_registry *registry, struct evpt_slot *slot)
{
    for (struct evpt_name *name = slot->names, *next; name; name = next) {
        next = name->next_of_slot;
        struct evpt_name **at = &registry->buckets[name->hash & (registry->bucket_count - 1)];
        while (*at != name)
            at = &(*at)->next_in_bucket;
        *at = name->next_in_bucket;
        evpt_sys_free(name);
        registry->name_count--;
    }
    slot->names = NULL;
}

/* ---- slots ---- */

struct evpt_service *evpt_registry_slot(struct evpt_registry *registry, uint32_t number)
{
    if (number >= EVPT_SLOTS_MAX)
        return NULL;
    /* acquire: pairs with the release in add_chunk; the slots of the chunk are then initialised */
    struct evpt_service *chunk =
        atomic_load_explicit(&registry->chunks[number / EVPT_SLOT_CHUNK], memory_order_acquire);
    return chunk ? &chunk[number % EVPT_SLOT_CHUNK] : NULL;
}

/* Under the lock: EVPT_SLOT_CHUNK more slots, all free. */
static bool add_chunk(struct evpt_registry *registry)
{
    uint32_t total = registry->slot_count + EVPT_SLOT_CHUNK;
    if (total > EVPT_SLOTS_MAX)
        return false;
    assert(registry->free_count == 0);
    uint32_t *ring = evpt_sys_realloc(registry->free_slots, total * sizeof(*ring));
    if (!ring)
        return false;
    registry->free_slots = ring;
    registry->free_capacity = total;
    struct evpt_slot *slots = evpt_sys_realloc(registry->slots, total * sizeof(*slots));
    if (!slots)
        return false;
    registry->slots = slots;
    struct evpt_service *chunk = evpt_sys_zalloc(EVPT_SLOT_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    registry->free_first = 0;
    for (uint32_t i = 0; i < EVPT_SLOT_CHUNK; i++) {
        evpt_mpsc_init(&chunk[i].mailbox, true);
        chunk[i].armed_ns = EVPT_FOREVER;
        registry->slots[registry->slot_count + i] = (struct evpt_slot){0};
        registry->free_slots[i] = registry->slot_count + i;
    }
    registry->free_count = EVPT_SLOT_CHUNK;
    atomic_store_explicit(&registry->chunks[registry->slot_count / EVPT_SLOT_CHUNK], chunk,
                          memory_order_release);
    registry->slot_count = total;
    return true;
}

struct evpt_service *evpt_registry_claim(struct evpt_registry *registry)
{
    struct evpt_service *service = NULL;
    pthread_mutex_lock(&registry->lock);
    if (registry->free_count || add_chunk(registry)) {
        uint32_t slot = registry->free_slots[registry->free_first];
        registry->free_first = (registry->free_first + 1) % registry->free_capacity;
        registry->free_count--;
        uint32_t generation = (registry->slots[slot].generation + 1u) % EVPT_GENERATION_MAX;
        if (generation == 0)
            generation = 1; /* so that no handle is 0 */
        registry->slots[slot].generation = (uint16_t)generation;
        service = evpt_registry_slot(registry, slot);
        atomic_store_explicit(&service->handle, generation << EVPT_SLOT_BITS | slot,
                              memory_order_release);
    }
    pthread_mutex_unlock(&registry->lock);
    return service;
}

void evpt_registry_release(struct evpt_registry *registry, struct evpt_service *service)
{
    pthread_mutex_lock(&registry->lock);
    uint32_t handle = atomic_load_explicit(&service->handle, memory_order_relaxed);
    atomic_store_explicit(&service->handle, 0, memory_order_release);
    struct evpt_slot *slot = &registry->slots[handle & SLOT_MASK];
    if (slot->names) {
        drop_names(registry, slot);
        atomic_fetch_add_explicit(&registry->version, 1, memory_order_release);
    }
    evpt_access_clear(&slot->rules);
    atomic_store_explicit(&service->restricted, false, memory_order_relaxed); /* under the lock */
    uint32_t last = (registry->free_first + registry->free_count) % registry->free_capacity;
    registry->free_slots[last] = handle & SLOT_MASK;
    registry->free_count++;
    pthread_mutex_unlock(&registry->lock);
}

struct evpt_service *evpt_registry_find(struct evpt_registry *registry, uint32_t handle)
{
    struct evpt_service *service = evpt_registry_slot(registry, handle & SLOT_MASK);
    if (handle && service && atomic_load_explicit(&service->handle, memory_order_acquire) == handle)
        return service;
    return NULL;
}

void evpt_registry_each(struct evpt_registry *registry, evpt_registry_each_fn fn, void *user)
{
    struct evpt_service *service;
    for (uint32_t slot = 0; (service = evpt_registry_slot(registry, slot)) != NULL; slot++) {
        uint32_t handle = atomic_load_explicit(&service->handle, memory_order_acquire);
        if (handle)
            fn(service, handle, user);
    }
}

void evpt_registry_each_slot(struct evpt_registry *registry, evpt_registry_each_fn fn, void *user)
{
    struct evpt_service *service;
    for (uint32_t slot = 0; (service = evpt_registry_slot(registry, slot)) != NULL; slot++)
        fn(service, atomic_load_explicit(&service->handle, memory_order_acquire), user);
}

/* ---- names ---- */

int evpt_registry_name(struct evpt_registry *registry, const char *name, size_t size,
                       uint32_t handle)
{
    pthread_mutex_lock(&registry->lock);
    int error = 0;
    const struct evpt_name *old = find_name(registry, name, size);
    if (!evpt_registry_find(registry, handle)) /* under the lock: it cannot go before it is named */
        error = -EVPT_ENOTFOUND;
    else if (old)
        error = old->handle == handle ? 0 : -EVPT_EEXISTS;
    else
        error = add_name(registry, name, size, handle);
    if (!error && !old)
        atomic_fetch_add_explicit(&registry->version, 1, memory_order_release);
    pthread_mutex_unlock(&registry->lock);
    return error;
}

void evpt_registry_unname(struct evpt_registry *registry, uint32_t handle)
{
    pthread_mutex_lock(&registry->lock);
    struct evpt_slot *slot =
        evpt_registry_find(registry, handle) ? &registry->slots[handle & SLOT_MASK] : NULL;
    if (slot && slot->names) {
        drop_names(registry, slot);
        atomic_fetch_add_explicit(&registry->version, 1, memory_order_release);
    }
    pthread_mutex_unlock(&registry->lock);
}

uint32_t evpt_registry_query(struct evpt_registry *registry, const char *name, size_t size)
{
    pthread_mutex_lock(&registry->lock);
    const struct evpt_name *found = find_name(registry, name, size);
    uint32_t handle = found ? found->handle : 0;
    pthread_mutex_unlock(&registry->lock);
    return handle;
}

const char *evpt_registry_name_of(struct evpt_registry *registry, uint32_t handle, char *buffer,
                                  size_t size)
{
    buffer[0] = 0;
    pthread_mutex_lock(&registry->lock);
    const struct evpt_name *name = NULL;
    if (evpt_registry_find(registry, handle))
        name = registry->slots[handle & SLOT_MASK].names;
    if (name)
        snprintf(buffer, size, "%.*s", (int)name->size, name->text);
    pthread_mutex_unlock(&registry->lock);
    return buffer;
}

/* ---- who may call ---- */

int evpt_registry_restrict(struct evpt_registry *registry, uint32_t handle, const char *method,
                           size_t method_size, const char *const *patterns, size_t count)
{
    pthread_mutex_lock(&registry->lock);
    int error = -EVPT_ENOTFOUND;
    struct evpt_service *service = evpt_registry_find(registry, handle);
    if (service)
        error = evpt_access_set(&registry->slots[handle & SLOT_MASK].rules, method, method_size,
                                patterns, count);
    /* release: pairs with evpt_registry_allows. It stays when the last rule goes: rare, and then it
     * costs a lock. */
    if (!error && count > 0)
        atomic_store_explicit(&service->restricted, true, memory_order_release);
    pthread_mutex_unlock(&registry->lock);
    return error;
}

bool evpt_registry_allows(struct evpt_registry *registry, uint32_t handle, const char *method,
                          size_t method_size, const char *caller)
{
    const struct evpt_service *service = evpt_registry_find(registry, handle);
    /* acquire: whoever learns of a method after it was exported sees that it is restricted */
    if (!service || !atomic_load_explicit(&service->restricted, memory_order_acquire))
        return true;
    pthread_mutex_lock(&registry->lock);
    bool allowed =
        evpt_registry_find(registry, handle) != service ||
        evpt_access_allows(registry->slots[handle & SLOT_MASK].rules, method, method_size, caller);
    pthread_mutex_unlock(&registry->lock);
    return allowed;
}
