#include "services/registry.h"

#include "reactor/error.h"
#include "reactor/sys.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLOT_MASK (EVPT_SLOTS_MAX - 1)

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
    for (size_t i = 0; i < registry->name_count; i++)
        evpt_sys_free(registry->names[i].text);
    evpt_sys_free(registry->names);
    evpt_sys_free(registry->free_slots);
    evpt_sys_free(registry->generations);
    pthread_mutex_destroy(&registry->lock);
}

static struct evpt_service *slot_at(struct evpt_registry *registry, uint32_t slot)
{
    /* acquire: pairs with the release in add_chunk; the slots of the chunk are then initialised */
    struct evpt_service *chunk =
        atomic_load_explicit(&registry->chunks[slot / EVPT_SLOT_CHUNK], memory_order_acquire);
    return chunk ? &chunk[slot % EVPT_SLOT_CHUNK] : NULL;
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
    uint16_t *generations = evpt_sys_realloc(registry->generations, total * sizeof(*generations));
    if (!generations)
        return false;
    registry->generations = generations;
    struct evpt_service *chunk = evpt_sys_zalloc(EVPT_SLOT_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    registry->free_first = 0;
    for (uint32_t i = 0; i < EVPT_SLOT_CHUNK; i++) {
        evpt_mpsc_init(&chunk[i].mailbox, true);
        chunk[i].armed_ns = EVPT_FOREVER;
        registry->generations[registry->slot_count + i] = 0;
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
        uint32_t generation = (registry->generations[slot] + 1u) % EVPT_GENERATION_MAX;
        if (generation == 0)
            generation = 1; /* so that no handle is 0 */
        registry->generations[slot] = (uint16_t)generation;
        service = slot_at(registry, slot);
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
    for (size_t i = 0; i < registry->name_count;) {
        if (registry->names[i].handle != handle) {
            i++;
            continue;
        }
        evpt_sys_free(registry->names[i].text);
        registry->names[i] = registry->names[--registry->name_count];
    }
    uint32_t last = (registry->free_first + registry->free_count) % registry->free_capacity;
    registry->free_slots[last] = handle & SLOT_MASK;
    registry->free_count++;
    atomic_fetch_add_explicit(&registry->version, 1, memory_order_release);
    pthread_mutex_unlock(&registry->lock);
}

struct evpt_service *evpt_registry_slot(struct evpt_registry *registry, uint32_t handle)
{
    return handle ? slot_at(registry, handle & SLOT_MASK) : NULL;
}

struct evpt_service *evpt_registry_find(struct evpt_registry *registry, uint32_t handle)
{
    struct evpt_service *service = evpt_registry_slot(registry, handle);
    if (service && atomic_load_explicit(&service->handle, memory_order_acquire) == handle)
        return service;
    return NULL;
}

static struct evpt_name *find_name(struct evpt_registry *registry, const char *name, size_t size)
{
    for (size_t i = 0; i < registry->name_count; i++) {
        struct evpt_name *each = &registry->names[i];
        if (each->size == size && memcmp(each->text, name, size) == 0)
            return each;
    }
    return NULL;
}

static int add_name(struct evpt_registry *registry, const char *name, size_t size, uint32_t handle)
{
    if (!evpt_registry_find(registry, handle))
        return -EVPT_ENOTFOUND;
    struct evpt_name *old = find_name(registry, name, size);
    if (old)
        return old->handle == handle ? 0 : -EVPT_EEXISTS;
    if (registry->name_count == registry->name_capacity) {
        size_t capacity = registry->name_capacity ? registry->name_capacity * 2 : 64;
        void *grown = evpt_sys_realloc(registry->names, capacity * sizeof(*registry->names));
        if (!grown)
            return -ENOMEM;
        registry->names = grown;
        registry->name_capacity = capacity;
    }
    char *text = evpt_sys_alloc(size + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, name, size);
    text[size] = 0;
    registry->names[registry->name_count++] =
        (struct evpt_name){.text = text, .size = (uint32_t)size, .handle = handle};
    atomic_fetch_add_explicit(&registry->version, 1, memory_order_release);
    return 0;
}

int evpt_registry_name(struct evpt_registry *registry, const char *name, size_t size,
                       uint32_t handle)
{
    pthread_mutex_lock(&registry->lock);
    int error = add_name(registry, name, size, handle);
    pthread_mutex_unlock(&registry->lock);
    return error;
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
    for (size_t i = 0; i < registry->name_count; i++) {
        if (registry->names[i].handle == handle) {
            snprintf(buffer, size, "%s", registry->names[i].text);
            break;
        }
    }
    pthread_mutex_unlock(&registry->lock);
    return buffer;
}

void evpt_registry_each(struct evpt_registry *registry, evpt_registry_each_fn fn, void *user)
{
    for (uint32_t slot = 0; slot < EVPT_SLOTS_MAX; slot++) {
        struct evpt_service *service = slot_at(registry, slot);
        if (!service)
            break;
        uint32_t handle = atomic_load_explicit(&service->handle, memory_order_acquire);
        if (handle)
            fn(service, handle, user);
    }
}
