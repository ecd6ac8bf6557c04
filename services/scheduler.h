/* The scheduler: services onto threads.
 *
 * There are N workers and one cluster thread, all alike: each has a run queue of its own and runs
 * services from it. One of them, at first the cluster thread, holds the loop: between two polls it
 * runs services too, so that a lone request is read, executed and answered on one thread. `workers
 * = 0` is this alone: the whole node on one thread.
 *
 * Waking another core costs more than the whole rest of a call, so it is done only where it pays:
 *   - who makes a service runnable puts it into its own queue and wakes nobody;
 *   - between two services a thread looks at the front of its queue: what has waited for
 * EVPT_OFFER_NS, or is known to run long, is offered: one resting worker is woken, which takes it
 * over;
 *   - a thread that would rest first takes what has waited that long elsewhere; one that does not
 * come to rest looks there every other time.
 *
 * A handler that runs long must not hold up the loop or the queue behind it. So one resting worker
 * is the watcher: while there is activity it looks every EVPT_WATCH_NS, takes over what waits
 * behind a long handler, and where the holder of the loop itself is stuck in one, takes the loop
 * over; the old holder goes on as a plain worker when its handler returns. The holder runs services
 * only while there is a watcher: with all workers busy it polls, every EVPT_WATCH_NS at least, and
 * runs of what is short only what has waited that long: then the workers are stuck, and nobody else
 * will. When nothing has happened for a while the watcher rests like the others, without a tick.
 *
 *     evpt_scheduler_init; evpt_scheduler_start; ... evpt_scheduler_stop; evpt_scheduler_join;
 * evpt_scheduler_fini
 */
#ifndef EVPT_SERVICES_SCHEDULER_H
#define EVPT_SERVICES_SCHEDULER_H

#include "reactor/ev_thread.h"
#include "services/kind.h"
#include "services/registry.h"

#define EVPT_WORKERS_MAX 63
/* Waiting longer than this is worth a wake-up (30 us on a virtual machine, a few on a real one). */
#define EVPT_OFFER_NS UINT64_C(60000)
/* A service whose messages take longer than this each is not run by the holder of the loop. */
#define EVPT_SHORT_NS UINT64_C(50000)
#define EVPT_WATCH_NS (2 * EVPT_NS_PER_MS)
#define EVPT_RESCUE_LOOK 64 /* services of a queue among which the holder looks for a short one */
#define EVPT_WATCH_QUIET 50 /* ticks without activity after which the watcher rests */
/* One service's turn on a worker: so many messages, or so long. */
#define EVPT_RUN_MESSAGES 256
#define EVPT_RUN_NS UINT64_C(500000)
/* Requests that have been handled and wait for the clock, to be counted (evpt_service_handled). */
#define EVPT_HANDLED_MAX 16
/* The holder polls at least this often while services keep it busy. */
#define EVPT_LEND_NS UINT64_C(200000)

struct evpt_worker {
    struct evpt_scheduler *scheduler;
    unsigned index; /* 0: the cluster thread */
    /* private */
    struct evpt_thread thread;
    int wake_fd;
    uint64_t now_ns;                       /* the clock after the last service */
    uint64_t handled_ns[EVPT_HANDLED_MAX]; /* when they began */
    unsigned handled_count;
    unsigned turns;
    _Atomic uint64_t runs;
    pthread_mutex_t lock;    /* of queue */
    struct evpt_list queue;  /* runnable services, longest waiting first */
    _Atomic uint32_t queued; /* its length, readable without the lock */
    char pad[64];            /* the next worker's hot fields are on another cache line */
};

struct evpt_scheduler {
    struct evpt_registry registry;
    struct evpt_kinds kinds;
    struct evpt_worker *workers; /* worker_count + 1 */
    unsigned worker_count;       /* without the cluster thread */
    uint32_t mailbox_max;
    struct evpt_loop *loop;
    /* private */
    struct evpt_wake loop_wake;
    struct evpt_loop_hook rest_hook; /* keeps the loop awake while `fresh` */
    _Atomic bool fresh; /* services have become runnable there since the holder last looked */
    struct evpt_pair arm_pair; /* services that want a timer set */
    _Atomic uint64_t holder;   /* index << 32 | sequence << 1 | running a service */
    _Atomic uint64_t idle;     /* bit i: worker i rests */
    _Atomic int watcher;       /* index, or -1 */
    _Atomic bool watcher_rests;
    _Atomic bool stopping;
    _Atomic unsigned ended; /* threads that have left worker_main */
    int ended_fd;
    _Atomic uint64_t bounced;   /* sends that found nobody */
    _Atomic uint64_t takeovers; /* of the loop */
};

/* `loop`: the cluster loop, which belongs to the scheduler's threads from start to join. */
int evpt_scheduler_init(struct evpt_scheduler *scheduler, unsigned workers, uint32_t mailbox_max,
                        struct evpt_loop *loop);
/* Starts the threads; where one cannot be started, those that were are joined again. 0 or -errno.
 */
int evpt_scheduler_start(struct evpt_scheduler *scheduler);
/* Asks all threads to end after what they run now. Any thread. */
void evpt_scheduler_stop(struct evpt_scheduler *scheduler);
void evpt_scheduler_join(struct evpt_scheduler *scheduler);
/* The same, but gives up at the deadline (false): a handler does not return. The process can then
 * only be ended. */
bool evpt_scheduler_join_until(struct evpt_scheduler *scheduler, uint64_t deadline_ns);
/* Stops all services that are left, frees their messages. After join, before the loop is freed.
 * Zeroed is fine. */
void evpt_scheduler_fini(struct evpt_scheduler *scheduler);

/* One round of one worker without blocking, for programs that step the node themselves. True: it
 * did something. */
bool evpt_scheduler_step(struct evpt_worker *worker);

/* A new service: its `ops` and `user` belong to it from now on, also where no worker has seen it
 * yet; on failure they stay the caller's. Its handle, or 0: too many services or no memory. `self`:
 * the worker that calls, NULL for other threads. */
uint32_t evpt_scheduler_spawn(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                              const struct evpt_service_ops *ops, void *user);
/* A pinned one: messages for it go to `pair`. Before start. */
uint32_t evpt_scheduler_pin(struct evpt_scheduler *scheduler, struct evpt_pair *pair, void *user);
/* Ends a service as soon as its worker gets to it, before further messages; its names are free at
 * once. False: no such service. Pinned ones cannot be killed. */
bool evpt_scheduler_kill(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                         uint32_t handle);

/* Posts a message to its `target`. 0: it belongs to the receiver. -EVPT_ENOTFOUND (no such
 * service), -EVPT_ELIMIT (its mailbox is full; calls and sends only): it stays the caller's.
 * `self`: the worker that calls (its queue gets the receiver), NULL for other threads. */
int evpt_post(struct evpt_scheduler *scheduler, struct evpt_worker *self,
              struct evpt_message *message);
/* Answers the call of `source` that it knows by `session` with `reply`, which is taken over.
 * Whoever has no memory for one: see evpt_reply_instead in services/request.h. */
void evpt_post_reply(struct evpt_scheduler *scheduler, struct evpt_worker *self, uint32_t source,
                     uint32_t session, struct evpt_message *reply);
/* Answers a call with an error, or counts a send as lost, and frees it. */
void evpt_bounce(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                 struct evpt_message *request, int code, const char *text);

/* The worker that holds the loop: `self` for callbacks of the loop. */
struct evpt_worker *evpt_scheduler_loop_worker(struct evpt_scheduler *scheduler);

#endif
