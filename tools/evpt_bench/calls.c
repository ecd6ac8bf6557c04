#include "tools/evpt_bench/calls.h"

#include "reactor/sys.h"

#define NONE UINT32_MAX
#define SLOT_MASK (BENCH_CALLS_MAX - 1)

static struct bench_call *slot_at(const struct bench_calls *calls, uint32_t slot)
{
    return &calls->chunks[slot / BENCH_CALLS_CHUNK][slot % BENCH_CALLS_CHUNK];
}

void bench_calls_init(struct bench_calls *calls)
{
    *calls = (struct bench_calls){.first_free = NONE};
}

void bench_calls_fini(struct bench_calls *calls)
{
    for (uint32_t i = 0; i < calls->capacity / BENCH_CALLS_CHUNK; i++)
        evpt_sys_free(calls->chunks[i]);
    bench_calls_init(calls);
}

static bool grow(struct bench_calls *calls)
{
    if (calls->capacity == BENCH_CALLS_MAX)
        return false;
    struct bench_call *chunk = evpt_sys_zalloc(BENCH_CALLS_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    calls->chunks[calls->capacity / BENCH_CALLS_CHUNK] = chunk;
    for (uint32_t i = BENCH_CALLS_CHUNK; i-- > 0;) { /* the first one ends up at the head */
        chunk[i].next_free = calls->first_free;
        calls->first_free = calls->capacity + i;
    }
    calls->capacity += BENCH_CALLS_CHUNK;
    return true;
}

struct bench_call *bench_calls_take(struct bench_calls *calls)
{
    if (calls->first_free == NONE && !grow(calls))
        return NULL;
    uint32_t slot = calls->first_free;
    struct bench_call *call = slot_at(calls, slot);
    calls->first_free = call->next_free;
    calls->count++;
    /* a session is never 0, so neither is a generation */
    call->generation = call->generation % (UINT32_MAX >> BENCH_CALLS_SLOT_BITS) + 1;
    call->session = call->generation << BENCH_CALLS_SLOT_BITS | slot;
    return call;
}

struct bench_call *bench_calls_find(const struct bench_calls *calls, uint32_t session)
{
    uint32_t slot = session & SLOT_MASK;
    struct bench_call *call = slot < calls->capacity ? slot_at(calls, slot) : NULL;
    return call && session != 0 && call->session == session ? call : NULL;
}

void bench_calls_give(struct bench_calls *calls, struct bench_call *call)
{
    uint32_t slot = call->session & SLOT_MASK;
    call->session = 0;
    call->next_free = calls->first_free;
    calls->first_free = slot;
    calls->count--;
}

struct bench_call *bench_calls_at(const struct bench_calls *calls, uint32_t slot)
{
    struct bench_call *call = slot_at(calls, slot);
    return call->session ? call : NULL;
}
