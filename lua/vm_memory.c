#include "lua/vm_memory.h"

#include "reactor/sys.h"

#include <string.h>

/* Sanitizers see each block on its own only where none is kept. */
enum { KEEP_BLOCKS = !EVPT_DEBUG };

static size_t class_of(size_t size)
{
    return (size + EVPT_VM_BLOCK_UNIT - 1 - EVPT_VM_BLOCK_ODD) / EVPT_VM_BLOCK_UNIT;
}

static size_t class_size(size_t class)
{
    return class * EVPT_VM_BLOCK_UNIT + EVPT_VM_BLOCK_ODD;
}

static void *take(struct evpt_vm_memory *memory, size_t size)
{
    if (!KEEP_BLOCKS || size > EVPT_VM_BLOCK_MAX)
        return evpt_sys_alloc(size);
    size_t class = class_of(size);
    void *block = memory->free[class];
    if (!block)
        return evpt_sys_alloc(class_size(class));
    memcpy(&memory->free[class], block,
           sizeof(void *)); /* a free block begins with the next one's address */
    memory->free_count[class]--;
    return block;
}

static void give(struct evpt_vm_memory *memory, void *block, size_t size)
{
    size_t class = class_of(size);
    if (!KEEP_BLOCKS || size > EVPT_VM_BLOCK_MAX ||
        memory->free_count[class] >= EVPT_VM_CACHE_BLOCKS) {
        evpt_sys_free(block);
        return;
    }
    memcpy(block, &memory->free[class], sizeof(void *));
    memory->free[class] = block;
    memory->free_count[class]++;
}

static void *resize(struct evpt_vm_memory *memory, void *old, size_t old_size, size_t new_size)
{
    bool old_small = old_size <= EVPT_VM_BLOCK_MAX, new_small = new_size <= EVPT_VM_BLOCK_MAX;
    if (!KEEP_BLOCKS || (!old_small && !new_small))
        return evpt_sys_realloc(old, new_size);
    if (old_small && new_small && class_of(old_size) == class_of(new_size))
        return old;
    void *block = take(memory, new_size);
    if (!block)
        return NULL;
    memcpy(block, old, old_size < new_size ? old_size : new_size);
    give(memory, old, old_size);
    return block;
}

void *evpt_vm_memory_alloc(void *user, void *old, size_t old_size, size_t new_size)
{
    struct evpt_vm_memory *memory = user;
    if (!old)
        old_size = 0; /* then it is a kind of object, not a size */
    if (new_size == 0) {
        if (old)
            give(memory, old, old_size);
        memory->used -= old_size;
        return NULL;
    }
    if (memory->limit && new_size > old_size &&
        memory->used + (new_size - old_size) > memory->limit)
        return NULL;
    void *block = old ? resize(memory, old, old_size, new_size) : take(memory, new_size);
    if (block)
        memory->used += new_size - old_size;
    return block;
}

void evpt_vm_memory_trim(struct evpt_vm_memory *memory)
{
    for (size_t class = 0; class < EVPT_VM_CLASSES; class ++) {
        while (memory->free[class]) {
            void *block = memory->free[class];
            memcpy(&memory->free[class], block, sizeof(void *));
            evpt_sys_free(block);
        }
        memory->free_count[class] = 0;
    }
}
