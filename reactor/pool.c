#include "reactor/pool.h"
#include "reactor/sys.h"

struct evpt_pool_free {
    struct evpt_pool_free *next;
};

static const struct {
    size_t size;
    unsigned kept_max;
} classes[] = {{EVPT_POOL_SMALL, EVPT_POOL_SMALL_KEPT}, {EVPT_POOL_LARGE, EVPT_POOL_LARGE_KEPT}};

enum { CLASSES = sizeof(classes) / sizeof(classes[0]) };

void evpt_pool_init(struct evpt_pool *pool)
{
    *pool = (struct evpt_pool){0};
}

void evpt_pool_fini(struct evpt_pool *pool)
{
    for (unsigned i = 0; i < CLASSES; i++) {
        while (pool->free[i]) {
            struct evpt_pool_free *block = pool->free[i];
            pool->free[i] = block->next;
            evpt_sys_free(block);
        }
        pool->kept[i] = 0;
    }
}

void *evpt_pool_take(struct evpt_pool *pool, size_t size, size_t *ret_size)
{
    for (unsigned i = 0; i < CLASSES; i++) {
        if (size > classes[i].size)
            continue;
        size = classes[i].size;
        struct evpt_pool_free *block = pool->free[i];
        if (!block)
            break;
        pool->free[i] = block->next;
        pool->kept[i]--;
        *ret_size = size;
        return block;
    }
    void *block = evpt_sys_alloc(size);
    if (block)
        *ret_size = size;
    return block;
}

void evpt_pool_give(struct evpt_pool *pool, void *block, size_t size)
{
    for (unsigned i = 0; block && i < CLASSES; i++) {
        if (size != classes[i].size || pool->kept[i] == classes[i].kept_max)
            continue;
        struct evpt_pool_free *kept = block;
        kept->next = pool->free[i];
        pool->free[i] = kept;
        pool->kept[i]++;
        return;
    }
    evpt_sys_free(block);
}
