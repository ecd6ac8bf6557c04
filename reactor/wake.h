/* Wakes a loop from any thread: an eventfd on that loop.
 *
 * Signals coalesce: any number of evpt_wake_signal before the loop gets to it make one callback at
 * least. Modules with a queue do not use it directly: see pair.h, which signals only if the loop
 * sleeps.
 */
#ifndef EVPT_REACTOR_WAKE_H
#define EVPT_REACTOR_WAKE_H

#include "reactor/loop.h"

struct evpt_wake;
typedef void (*evpt_wake_fn)(struct evpt_wake *wake, void *user);

struct evpt_wake { /* caller's storage */
    /* private */
    struct evpt_watch watch;
    evpt_wake_fn fn; /* may be NULL: the wake-up is all that is wanted */
    void *user;
    int fd;
};

int evpt_wake_init(struct evpt_wake *wake, struct evpt_loop *loop, evpt_wake_fn fn, void *user);
/* NULL, zeroed and half-initialised are fine. After it no signal may come in. */
void evpt_wake_fini(struct evpt_wake *wake);
/* Any thread, also from a signal handler. */
void evpt_wake_signal(struct evpt_wake *wake);

#endif
