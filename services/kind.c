#include "services/kind.h"

#include "reactor/sys.h"
#include "services/utf8.h"

#include <string.h>

void evpt_kinds_init(struct evpt_kinds *kinds, unsigned workers)
{
    memset(kinds, 0, sizeof(*kinds));
    pthread_mutex_init(&kinds->lock, NULL);
    kinds->workers = workers;
}

static void free_kind(struct evpt_kind *kind)
{
    if (kind)
        evpt_sys_free(kind->meters);
    evpt_sys_free(kind);
}

void evpt_kinds_fini(struct evpt_kinds *kinds)
{
    if (!kinds->workers)
        return;
    for (unsigned i = 0; i < evpt_kinds_count(kinds); i++)
        free_kind(kinds->kinds[i]);
    pthread_mutex_destroy(&kinds->lock);
    memset(kinds, 0, sizeof(*kinds));
}

/* A script's name as it is shown: what is no UTF-8, or a control character, becomes a `_`. */
static void make_name(char name[EVPT_KIND_NAME_MAX + 1], const char *script)
{
    const unsigned char *at = (const unsigned char *)script;
    size_t left = strnlen(script, EVPT_KIND_NAME_MAX), used = 0;
    while (left) {
        size_t size = evpt_utf8_size(at, left);
        if (size == 0 || *at < 0x20 || *at == 0x7f) {
            name[used++] = '_';
            size = 1;
        } else {
            memcpy(name + used, at, size);
            used += size;
        }
        at += size;
        left -= size;
    }
    name[used] = 0;
}

static struct evpt_kind *new_kind(const struct evpt_kinds *kinds, const char *name, unsigned index)
{
    struct evpt_kind *kind = evpt_sys_zalloc(sizeof(*kind));
    if (!kind)
        return NULL;
    memcpy(kind->name, name, sizeof(kind->name));
    kind->index = index;
    kind->meters = evpt_sys_zalloc(kinds->workers * sizeof(*kind->meters));
    if (kind->meters)
        return kind;
    free_kind(kind);
    return NULL;
}

struct evpt_kind *evpt_kinds_get(struct evpt_kinds *kinds, const char *script)
{
    struct evpt_kind *kind = NULL;
    char name[EVPT_KIND_NAME_MAX + 1] = "";
    make_name(name, script);
    pthread_mutex_lock(&kinds->lock);
    unsigned count = evpt_kinds_count(kinds);
    for (unsigned i = 0; !kind && i < count; i++) {
        if (strcmp(kinds->kinds[i]->name, name) == 0)
            kind = kinds->kinds[i];
    }
    if (!kind && count == EVPT_KINDS_MAX) {
        kind = kinds->kinds[count - 1];
    } else if (!kind) {
        if (count == EVPT_KINDS_MAX - 1)
            memcpy(name, "other", sizeof("other"));
        kind = new_kind(kinds, name, count);
        if (kind) {
            kinds->kinds[count] = kind;
            atomic_store_explicit(&kinds->count, count + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&kinds->lock);
    return kind;
}
