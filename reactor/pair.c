#include "reactor/pair.h"

static struct evpt_pair *pair_of(struct evpt_loop_hook *hook)
{
    return EVPT_CONTAINER_OF(hook, struct evpt_pair, hook);
}

static int before(struct evpt_loop_hook *hook)
{
    return evpt_pair_read(pair_of(hook));
}

static bool rest(struct evpt_loop_hook *hook)
{
    return evpt_mpsc_park(&pair_of(hook)->queue);
}

int evpt_pair_init(struct evpt_pair *pair, struct evpt_loop *loop, evpt_pair_fn fn, void *user)
{
    *pair = (struct evpt_pair){.hook = {.before = before, .rest = rest}, .fn = fn, .user = user};
    evpt_mpsc_init(&pair->queue, false);
    int error = evpt_wake_init(&pair->wake, loop, NULL, NULL);
    if (!error)
        evpt_loop_add_hook(loop, &pair->hook);
    return error;
}

void evpt_pair_fini(struct evpt_pair *pair)
{
    if (!pair || !evpt_watch_is_started(&pair->wake.watch))
        return;
    evpt_loop_remove_hook(&pair->hook);
    evpt_wake_fini(&pair->wake);
    evpt_pair_read(pair);
}

void evpt_pair_write(struct evpt_pair *pair, struct evpt_mpsc_node *node)
{
    if (evpt_mpsc_push(&pair->queue, node))
        evpt_wake_signal(&pair->wake);
}

bool evpt_pair_read(struct evpt_pair *pair)
{
    struct evpt_mpsc_node *list = evpt_mpsc_take(&pair->queue);
    if (!list)
        return false;
    pair->fn(pair->user, list); /* the callee may fini and free the pair: nothing after it */
    return true;
}
