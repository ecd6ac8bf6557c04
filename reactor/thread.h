/* ThreadBase: a named thread. */
#ifndef EVPT_REACTOR_THREAD_H
#define EVPT_REACTOR_THREAD_H

#include <pthread.h>
#include <stdbool.h>

typedef void (*evpt_thread_fn)(void *user);

struct evpt_thread { /* caller's storage; zeroed: not running */
    /* private */
    pthread_t thread;
    evpt_thread_fn fn;
    void *user;
    char name[16];
    bool running;
};

/* Starts `fn(user)` in a new thread with all signals blocked. `name`: at most 15 bytes are shown by
 * the system. 0 or -errno. */
int evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn, void *user);
/* Waits until `fn` has returned. NULL and not running are fine. */
void evpt_thread_join(struct evpt_thread *thread);

#endif
