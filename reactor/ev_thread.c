#include "reactor/ev_thread.h"
#include <assert.h>

int evpt_ev_thread_init(struct evpt_ev_thread *t, evpt_pair_fn on_messages, void *user)
{
    *t = (struct evpt_ev_thread){.loop = NULL};
    atomic_init(&t->stopping, false);
    int error = evpt_loop_new(&t->loop);
    if (error)
        return error;
    error = evpt_pair_init(&t->pair, t->loop, on_messages, user);
    if (error) {
        evpt_loop_free(t->loop);
        t->loop = NULL;
    }
    return error;
}

static void run(void *user)
{
    struct evpt_ev_thread *t = user;
    evpt_loop_adopt(t->loop);
    /* acquire: pairs with the release in stop; who stopped the thread has written before what the
     * owner reads after the join */
    while (!atomic_load_explicit(&t->stopping, memory_order_acquire)) {
        uint64_t deadline_ns = t->between ? t->between(t->user) : EVPT_FOREVER;
        int ran = evpt_loop_turn(t->loop, deadline_ns);
        assert(ran >= 0); /* the wait fails only if somebody closed the loop's descriptor */
        (void)ran;
    }
}

int evpt_ev_thread_start(struct evpt_ev_thread *t, const char *name,
                         evpt_ev_thread_between_fn between, void *user)
{
    t->between = between;
    t->user = user;
    return evpt_thread_start(&t->thread, name, run, t);
}

void evpt_ev_thread_send(struct evpt_ev_thread *t, struct evpt_mpsc_node *node)
{
    evpt_pair_write(&t->pair, node);
}

void evpt_ev_thread_stop(struct evpt_ev_thread *t)
{
    atomic_store_explicit(&t->stopping, true, memory_order_release);
    evpt_wake_signal(&t->pair.wake);
}

void evpt_ev_thread_join(struct evpt_ev_thread *t)
{
    if (!t || !t->thread.running)
        return;
    evpt_thread_join(&t->thread);
    evpt_loop_adopt(t->loop); /* whoever joined takes it apart */
}

void evpt_ev_thread_fini(struct evpt_ev_thread *t)
{
    if (!t || !t->loop)
        return;
    assert(!t->thread.running);
    evpt_pair_fini(&t->pair);
    evpt_loop_free(t->loop);
    t->loop = NULL;
}
