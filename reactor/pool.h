/* Blocks of memory in two sizes, kept for reuse: what the streams of a loop queue their bytes in.
 *
 * A stream holds blocks only while bytes wait in it, so under load the same few blocks go round and
 * round, and stay in the cache. What is given back beyond the bounds below goes to the system.
 *
 *     struct evpt_pool pool;
 *     evpt_pool_init(&pool);
 *     size_t size;
 *     void *block = evpt_pool_take(&pool, 100, &size);     size: EVPT_POOL_SMALL
 *     evpt_pool_give(&pool, block, size);
 *     evpt_pool_fini(&pool);
 *
 * Belongs to one thread.
 */
#ifndef EVPT_REACTOR_POOL_H
#define EVPT_REACTOR_POOL_H

#include <stddef.h>

#define EVPT_POOL_SMALL 4096          /* a page: the queue of a connection that is kept up with */
#define EVPT_POOL_LARGE (65536 + 256) /* 64 KiB and what a stream notes beside them */
#define EVPT_POOL_SMALL_KEPT 256      /* 1 MiB: a turn's worth, one for each event */
#define EVPT_POOL_LARGE_KEPT 32       /* 2 MiB: as much as a few fast connections have in flight */

struct evpt_pool_free;

struct evpt_pool { /* caller's storage */
    /* private */
    struct evpt_pool_free *free[2];
    unsigned kept[2];
};

void evpt_pool_init(struct evpt_pool *pool);
/* Frees what is kept; blocks that are out may still be freed with evpt_sys_free. Zeroed is fine. */
void evpt_pool_fini(struct evpt_pool *pool);
/* A block of at least `size` bytes, or NULL; *ret_size is what it has. Beyond EVPT_POOL_LARGE it is
 * made for the purpose. */
void *evpt_pool_take(struct evpt_pool *pool, size_t size, size_t *ret_size);
/* `size`: what take said. NULL is fine. */
void evpt_pool_give(struct evpt_pool *pool, void *block, size_t size);

#endif
