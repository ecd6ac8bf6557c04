/* The memory of one Lua state: counted, bounded by lua_memory_max, and quick for small blocks.
 *
 * A service handles messages in batches, so that Lua takes dozens of small blocks before it gives
 * any back; malloc's own cache keeps seven of a size, and the rest goes the long way. So a state
 * keeps up to EVPT_VM_CACHE_BLOCKS free blocks of each small size to itself: a call inside one node
 * costs 12 % less. What is above goes back to malloc, so a state that has grown and shrunk holds at
 * most EVPT_VM_CACHE_BYTES that it does not use. Belongs to the thread that runs the state.
 */
#ifndef EVPT_LUA_VM_MEMORY_H
#define EVPT_LUA_VM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Blocks are made in sizes of 8, 24, 40, 56 ... bytes, those that malloc has (it keeps 8 of each 16
 * to itself). With sizes of 16, 32, 48 ... a small service took 1.1 KiB more. */
#define EVPT_VM_BLOCK_UNIT 16
#define EVPT_VM_BLOCK_ODD 8
#define EVPT_VM_BLOCK_MAX (16 * EVPT_VM_BLOCK_UNIT + EVPT_VM_BLOCK_ODD) /* larger are not kept */
#define EVPT_VM_CACHE_BLOCKS 64
#define EVPT_VM_CLASSES (EVPT_VM_BLOCK_MAX / EVPT_VM_BLOCK_UNIT + 1)
#define EVPT_VM_CACHE_BYTES                                                                        \
    (EVPT_VM_CACHE_BLOCKS * EVPT_VM_BLOCK_UNIT * EVPT_VM_CLASSES * (EVPT_VM_CLASSES - 1) / 2)

struct evpt_vm_memory { /* zeroed: empty, no limit */
    size_t used;        /* bytes that the state has */
    size_t limit;       /* bytes that it may have; 0: no limit */
    /* private */
    void *free[EVPT_VM_CLASSES];
    unsigned char free_count[EVPT_VM_CLASSES];
};

/* lua_Alloc; `user` is the struct evpt_vm_memory. */
void *evpt_vm_memory_alloc(void *user, void *old, size_t old_size, size_t new_size);
/* Gives the kept blocks back: when much has been freed that is not needed again, and after
 * lua_close. */
void evpt_vm_memory_trim(struct evpt_vm_memory *memory);

#endif
