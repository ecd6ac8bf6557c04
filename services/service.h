/* An actor: one mailbox, one behaviour, one thread at a time.
 *
 * A service lives in a slot of the registry. The slot outlives it: a message for a service that has
 * gone finds the slot, sees another handle there and is bounced. So posting takes no lock and no
 * reference count.
 *
 *     free --evpt_scheduler_spawn--> starting --START message--> running --exit, kill--> free
 *
 * Whoever pushes on the parked mailbox makes the service runnable; a worker then is its only
 * consumer until it parks the mailbox again. Everything below "consumer" belongs to that worker,
 * and passes from one to the next through the run queue.
 *
 * A pinned service has no worker: its mailbox is a pair, and it runs where the pair's loop is
 * turned.
 */
#ifndef EVPT_SERVICES_SERVICE_H
#define EVPT_SERVICES_SERVICE_H

#include "cluster/message.h"
#include "reactor/pair.h"
#include "reactor/timer.h"

struct evpt_kind;
struct evpt_service;
struct evpt_worker;
struct evpt_scheduler;

struct evpt_service_ops {
    /* Handles messages: calls evpt_service_next until that returns NULL. Owns each message it gets.
     */
    void (*run)(struct evpt_service *service);
    /* The time given to evpt_service_wake_at has come. From inside evpt_service_next. */
    void (*tick)(struct evpt_service *service);
    /* The service ends (evpt_service_exit, evpt_scheduler_kill, end of the scheduler): frees
     * `user`, and answers what it had begun. On the worker that runs it, or after all workers have
     * ended. */
    void (*stop)(struct evpt_service *service);
};

struct evpt_service {
    struct evpt_mpsc mailbox;
    _Atomic uint32_t
        waiting;             /* calls and sends in the mailbox or backlog; bounded by mailbox_max */
    _Atomic uint32_t handle; /* 0: free */
    _Atomic uint32_t kill_requested; /* the handle that is to end */
    _Atomic bool restricted;         /* it has, or had, rules about who may call: see registry.h */
    /* statistics: written by the consumer, read by anyone */
    _Atomic uint64_t messages, run_ns;
    _Atomic uint32_t refused; /* messages refused because the mailbox was full */
    _Atomic(struct evpt_kind *) kind; /* where its kind counts; NULL: it is not measured */
    _Atomic size_t memory;            /* bytes that it has told of, and coroutines */
    _Atomic uint32_t tasks;

    /* run queue: under the lock of the worker whose queue it is in */
    struct evpt_list run_link;
    uint64_t runnable_since_ns;

    /* consumer */
    struct evpt_mpsc_node *backlog; /* taken from the mailbox, oldest first */
    const struct evpt_service_ops *ops;
    void *user;
    struct evpt_scheduler *scheduler;
    struct evpt_worker
        *worker;      /* who runs it now; NULL while nobody does and for pinned services */
    uint64_t cost_ns; /* of one message, averaged; decides where it may run */
    uint64_t run_began_ns, run_now_ns;
    uint32_t run_messages; /* handled in this run */
    bool exiting;

    /* pinned */
    struct evpt_pair *pair;

    /* the wake-up that its timers want: see evpt_service_wake_at */
    struct evpt_mpsc_node arm_node; /* asks the loop's thread to set `timer` */
    _Atomic uint64_t arm_ns;
    _Atomic bool arm_queued, tick_queued;
    uint64_t armed_ns;               /* consumer: what has been asked for; EVPT_FOREVER: nothing */
    struct evpt_timer timer;         /* loop's thread */
    struct evpt_mpsc_node tick_node; /* the wake-up itself, in the mailbox */
};

/* Codes of SYSTEM messages that a service may see; the others are handled before it sees them. */
enum evpt_system_code {
    EVPT_SYSTEM_START, /* carries ops and user */
    EVPT_SYSTEM_KILL,  /* makes the service runnable so that it sees kill_requested */
    EVPT_SYSTEM_USER,  /* from here on: the service's own */
};

/* Consumer: the next message, now the caller's; NULL: this run is over. */
struct evpt_message *evpt_service_next(struct evpt_service *service);
/* Consumer: time of this run, not older than a few messages. */
static inline uint64_t evpt_service_now(const struct evpt_service *service)
{
    return service->run_now_ns;
}
/* Consumer: the same by a new reading of the clock. */
uint64_t evpt_service_read_clock(struct evpt_service *service);
/* Consumer: its messages and handlers are counted there from now on. */
static inline void evpt_service_set_kind(struct evpt_service *service, struct evpt_kind *kind)
{
    /* release: who posts to it may count a refusal there (evpt_post) */
    atomic_store_explicit(&service->kind, kind, memory_order_release);
}
/* Consumer: what began at that time has been handled. Counted where its kind is known, with the
 * next reading of the clock, which whoever handles the next request needs anyway. */
void evpt_service_handled(struct evpt_service *service, uint64_t began_ns);
/* Consumer: asks for a tick at `at_ns` or somewhat earlier. Cheap where one is due earlier anyway.
 */
void evpt_service_wake_at(struct evpt_service *service, uint64_t at_ns);
/* Consumer: the service ends after this run. */
static inline void evpt_service_exit(struct evpt_service *service)
{
    service->exiting = true;
}
static inline uint32_t evpt_service_handle(struct evpt_service *service)
{
    return atomic_load_explicit(&service->handle, memory_order_relaxed);
}

#endif
