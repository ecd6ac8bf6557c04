#include "reactor/thread.h"
#include <signal.h>
#include <string.h>

static void *run(void *user)
{
    struct evpt_thread *thread = user;
    thread->fn(thread->user);
    return NULL;
}

int evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn, void *user)
{
    *thread = (struct evpt_thread){.fn = fn, .user = user};
    strncpy(thread->name, name, sizeof(thread->name) - 1);

    /* Blocked around the start, so that the thread is never there with a signal let in. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&thread->thread, NULL, run, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return -error;
    (void)pthread_setname_np(thread->thread, thread->name); /* only for those who look on */
    thread->running = true;
    return 0;
}

void evpt_thread_join(struct evpt_thread *thread)
{
    if (!thread || !thread->running)
        return;
    pthread_join(thread->thread, NULL);
    thread->running = false;
}
