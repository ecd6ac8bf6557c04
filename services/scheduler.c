#include "services/scheduler.h"
#include "services/service_private.h"

#include "reactor/error.h"
#include "services/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- the holder of the loop ----
 *
 * One word: who holds it, a sequence number, and whether it is inside a service. Only the holder
 * changes it while it polls; while it runs a service the watcher may change it too, to itself, and
 * the holder notices by failing to change it back. */

static uint64_t holder_word(unsigned index, uint64_t sequence, bool running)
{
    return (uint64_t)index << 32 | (sequence & 0x7fffffff) << 1 | running;
}

static unsigned holder_index(uint64_t word)
{
    return (unsigned)(word >> 32);
}

static bool holds_loop(struct evpt_worker *worker)
{
    /* relaxed: a worker that holds the loop wrote the word itself; another sees some other index */
    return holder_index(atomic_load_explicit(&worker->scheduler->holder, memory_order_relaxed)) ==
           worker->index;
}

struct evpt_worker *evpt_scheduler_loop_worker(struct evpt_scheduler *scheduler)
{
    return &scheduler->workers[holder_index(
        atomic_load_explicit(&scheduler->holder, memory_order_relaxed))];
}

/* ---- run queues ---- */

static void queue_push(struct evpt_worker *worker, struct evpt_service *service)
{
    pthread_mutex_lock(&worker->lock);
    evpt_list_push_back(&worker->queue, &service->run_link);
    /* seq_cst: pairs with queue_pop; who pushes then asks whether somebody rests or watches */
    atomic_fetch_add_explicit(&worker->queued, 1, memory_order_seq_cst);
    pthread_mutex_unlock(&worker->lock);
}

enum pop { POP_ANY, POP_SHORT, POP_WAITED, POP_AGED };

/* The longest waiting service; with POP_SHORT only if it is known to be short, with POP_WAITED only
 * if it has waited since `since_ns`, with POP_AGED only if it has, or is not short. */
static struct evpt_service *queue_pop(struct evpt_worker *worker, enum pop which, uint64_t since_ns)
{
    /* seq_cst: whoever must not miss an entry looks again after it has said that it rests (rest) */
    if (atomic_load_explicit(&worker->queued, memory_order_seq_cst) == 0)
        return NULL;
    struct evpt_service *found = NULL;
    pthread_mutex_lock(&worker->lock);
    if (!evpt_list_is_empty(&worker->queue)) {
        struct evpt_service *front =
            EVPT_CONTAINER_OF(worker->queue.next, struct evpt_service, run_link);
        bool is_short = evpt_service_is_short(front);
        bool waited = front->runnable_since_ns <= since_ns;
        if (which == POP_ANY || (which == POP_SHORT && is_short) ||
            (which >= POP_WAITED && waited) || (which == POP_AGED && !is_short)) {
            found = front;
            evpt_list_remove(&front->run_link);
            atomic_fetch_sub_explicit(&worker->queued, 1, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&worker->lock);
    return found;
}

/* The first short one that has waited since `since_ns`, also from behind long ones. */
static struct evpt_service *queue_pop_short(struct evpt_worker *worker, uint64_t since_ns)
{
    if (atomic_load_explicit(&worker->queued, memory_order_relaxed) == 0)
        return NULL;
    struct evpt_service *found = NULL;
    int looked_at = 0;
    pthread_mutex_lock(&worker->lock);
    for (struct evpt_list *link = worker->queue.next;
         !found && link != &worker->queue && looked_at++ < EVPT_RESCUE_LOOK; link = link->next) {
        struct evpt_service *service = EVPT_CONTAINER_OF(link, struct evpt_service, run_link);
        if (evpt_service_is_short(service) && service->runnable_since_ns <= since_ns)
            found = service;
    }
    if (found) {
        evpt_list_remove(&found->run_link);
        atomic_fetch_sub_explicit(&worker->queued, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&worker->lock);
    return found;
}

/* From the own queue anything, from the others what has waited since `since_ns` or is long. */
static struct evpt_service *steal(struct evpt_worker *worker, uint64_t since_ns)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    unsigned total = scheduler->worker_count + 1;
    for (unsigned i = 0; i < total; i++) {
        struct evpt_worker *victim = &scheduler->workers[(worker->index + i) % total];
        struct evpt_service *service =
            queue_pop(victim, victim == worker ? POP_ANY : POP_AGED, since_ns);
        if (service)
            return service;
    }
    return NULL;
}

/* Every other time, at the queue of another worker, each of them in turn: a worker whose own queue
 * never empties would not come to look there, and the holder of the loop leaves to us what is long,
 * as a worker that is stuck in a handler leaves everything. */
static struct evpt_service *look_elsewhere(struct evpt_worker *worker)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    unsigned turn = worker->turns++, total = scheduler->worker_count + 1;
    if (turn % 2)
        return NULL;
    unsigned other = (worker->index + 1 + turn / 2 % (total - 1)) % total;
    return queue_pop(&scheduler->workers[other], POP_WAITED, worker->now_ns - EVPT_WATCH_NS);
}

/* ---- waking ---- */

/* Wakes one resting worker, the watcher last. False: none rests. */
static bool wake_one(struct evpt_scheduler *scheduler)
{
    /* seq_cst: pairs with rest(): either we see the bit, or the worker sees what we queued before
     */
    uint64_t idle = atomic_load_explicit(&scheduler->idle, memory_order_seq_cst);
    while (idle) {
        int watcher = atomic_load_explicit(&scheduler->watcher, memory_order_relaxed);
        uint64_t others = watcher >= 0 ? idle & ~(UINT64_C(1) << watcher) : idle;
        uint64_t bit = others ? others & -others : idle & -idle;
        if (atomic_compare_exchange_weak_explicit(&scheduler->idle, &idle, idle & ~bit,
                                                  memory_order_seq_cst, memory_order_seq_cst)) {
            evpt_sys_eventfd_signal(scheduler->workers[__builtin_ctzll(bit)].wake_fd);
            return true;
        }
    }
    return false;
}

/* A watcher that rests is to watch again. */
static void rouse_watcher(struct evpt_scheduler *scheduler)
{
    /* seq_cst: pairs with watch(), which says that it rests and then looks at runs and queues */
    if (atomic_load_explicit(&scheduler->watcher_rests, memory_order_seq_cst) &&
        atomic_exchange_explicit(&scheduler->watcher_rests, false, memory_order_seq_cst)) {
        int watcher = atomic_load_explicit(&scheduler->watcher, memory_order_seq_cst);
        if (watcher >= 0)
            evpt_sys_eventfd_signal(scheduler->workers[watcher].wake_fd);
    }
}

/* Whoever runs a service says so here. */
static void note_activity(struct evpt_worker *worker)
{
    atomic_store_explicit(&worker->runs,
                          atomic_load_explicit(&worker->runs, memory_order_relaxed) + 1,
                          memory_order_seq_cst); /* before watcher_rests is read, see there */
    rouse_watcher(worker->scheduler);
}

void evpt_scheduler_make_runnable(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                                  struct evpt_service *service)
{
    if (self) {
        service->runnable_since_ns = evpt_sys_now_ns();
        queue_push(self, service);
        if (holds_loop(self))
            atomic_store_explicit(&scheduler->fresh, true, memory_order_relaxed);
        rouse_watcher(scheduler); /* the handler that runs on `self` may go on for long */
        return;
    }
    /* From a thread that runs no services: give it to a worker, and see to it that one is awake.
     * Whichever that is may take it at once: it counts as waiting since ever. */
    service->runnable_since_ns = 0;
    queue_push(&scheduler->workers[scheduler->worker_count ? 1 : 0], service);
    if (!scheduler->worker_count)
        evpt_wake_signal(&scheduler->loop_wake);
    else
        (void)wake_one(scheduler); /* all awake: they look at every queue before they rest */
}

/* ---- one worker ---- */

static void run_service(struct evpt_worker *worker, struct evpt_service *service)
{
    note_activity(worker);
    if (!evpt_service_run(service, worker))
        return;
    service->runnable_since_ns = worker->now_ns;
    queue_push(worker, service);
}

/* May the holder of the loop run services? Only while someone could take the loop over. */
static bool may_lend(struct evpt_scheduler *scheduler)
{
    /* seq_cst: pairs with rest(): the worker says that it watches, then looks at the queues */
    return scheduler->worker_count == 0 ||
           atomic_load_explicit(&scheduler->watcher, memory_order_seq_cst) >= 0;
}

/* Is there something at the front that another worker should rather take? */
static void offer(struct evpt_worker *worker)
{
    if (worker->scheduler->worker_count == 0 ||
        atomic_load_explicit(&worker->queued, memory_order_relaxed) == 0)
        return;
    pthread_mutex_lock(&worker->lock);
    bool worth = false;
    if (!evpt_list_is_empty(&worker->queue)) {
        struct evpt_service *front =
            EVPT_CONTAINER_OF(worker->queue.next, struct evpt_service, run_link);
        worth = !evpt_service_is_short(front) ||
                worker->now_ns > front->runnable_since_ns + EVPT_OFFER_NS;
    }
    pthread_mutex_unlock(&worker->lock);
    if (worth)
        (void)wake_one(worker->scheduler); /* all awake: one of them takes it before it rests */
}

/* All workers are busy, and something has waited for long: they are stuck in handlers that compute
 * or block. The holder then runs what is short as a rule, from any queue, though nobody could take
 * the loop over should it be stuck as well; else so many such handlers as there are workers would
 * stop every service of the node. */
static struct evpt_service *rescue(struct evpt_worker *worker)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    uint64_t since_ns = evpt_sys_now_ns() - EVPT_WATCH_NS;
    struct evpt_service *service = NULL;
    for (unsigned i = 0; !service && i <= scheduler->worker_count; i++)
        service = queue_pop_short(&scheduler->workers[i], since_ns);
    return service;
}

/* The holder's share: short services, for a while. Returns whether any is left that it may run. */
static bool lend(struct evpt_worker *worker)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    bool alone = scheduler->worker_count == 0;
    uint64_t began_ns = 0;
    for (;;) {
        /* relaxed: between two turns nobody but this thread, the holder, sets it */
        atomic_store_explicit(&scheduler->fresh, false, memory_order_relaxed);
        bool watched = may_lend(scheduler);
        struct evpt_service *service =
            watched ? queue_pop(worker, alone ? POP_ANY : POP_SHORT, 0) : rescue(worker);
        if (!service && !watched) {
            offer(worker);
            return false;
        }
        if (!service) {
            worker->now_ns = evpt_loop_now(scheduler->loop);
            offer(worker); /* what is left is long */
            return false;
        }
        uint64_t word = atomic_load_explicit(&scheduler->holder, memory_order_relaxed);
        uint64_t running = word | 1;
        atomic_store_explicit(&scheduler->holder, running, memory_order_seq_cst);
        run_service(worker, service);
        /* release: who takes the loop over later sees all that was done with it */
        if (!atomic_compare_exchange_strong_explicit(
                &scheduler->holder, &running, holder_word(worker->index, (word >> 1) + 1, false),
                memory_order_acq_rel, memory_order_relaxed))
            return true; /* the loop was taken over: on as a plain worker */
        if (!began_ns)
            began_ns = worker->now_ns;
        else if (worker->now_ns - began_ns > EVPT_LEND_NS)
            return true;
        offer(worker);
    }
}

static bool poll_loop(struct evpt_worker *worker, bool may_wait)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    bool more = lend(worker);
    if (!holds_loop(worker))
        return true;
    bool stopping = atomic_load_explicit(&scheduler->stopping, memory_order_acquire);
    uint64_t until_ns = EVPT_FOREVER;
    if (more || stopping || !may_wait)
        until_ns = 0;
    else if (!may_lend(scheduler)) /* nobody watches: see to it that nothing waits for ever */
        until_ns = evpt_sys_now_ns() + EVPT_WATCH_NS;
    int worked = evpt_loop_turn(scheduler->loop, until_ns);
    return more || worked > 0;
}

static uint64_t sum_runs(struct evpt_scheduler *scheduler)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= scheduler->worker_count; i++)
        sum += atomic_load_explicit(&scheduler->workers[i].runs, memory_order_seq_cst);
    return sum;
}

static bool is_anything_queued(struct evpt_scheduler *scheduler)
{
    for (unsigned i = 0; i <= scheduler->worker_count; i++) {
        if (atomic_load_explicit(&scheduler->workers[i].queued, memory_order_seq_cst))
            return true;
    }
    return false;
}

static bool is_idle(struct evpt_worker *worker)
{
    return atomic_load_explicit(&worker->scheduler->idle, memory_order_seq_cst) >> worker->index &
           1;
}

/* Takes the loop from a holder that has been inside the same service since the last tick. */
static bool take_over(struct evpt_worker *worker, uint64_t *last_seen)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    uint64_t word = atomic_load_explicit(&scheduler->holder, memory_order_acquire);
    bool stuck = (word & 1) && word == *last_seen;
    *last_seen = word;
    if (!stuck || !atomic_compare_exchange_strong_explicit(
                      &scheduler->holder, &word, holder_word(worker->index, (word >> 1) + 1, false),
                      memory_order_acq_rel, memory_order_relaxed))
        return false;
    evpt_loop_adopt(scheduler->loop);
    atomic_fetch_add_explicit(&scheduler->takeovers, 1, memory_order_relaxed);
    return true;
}

/* The watcher's rest: ticks while there is activity. Returns with a service to run, or NULL: woken,
 * or it has taken the loop. */
static struct evpt_service *watch(struct evpt_worker *worker)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    uint64_t last_holder = 0, last_runs = sum_runs(scheduler);
    unsigned quiet = 0;
    while (is_idle(worker) && !atomic_load_explicit(&scheduler->stopping, memory_order_acquire)) {
        uint64_t now_ns = evpt_sys_now_ns();
        uint64_t until_ns = now_ns + EVPT_WATCH_NS;
        if (quiet >= EVPT_WATCH_QUIET) {
            /* seq_cst: say that we rest, then look once more; who runs or queues a service does
             * that first and then asks (rouse_watcher) */
            atomic_store_explicit(&scheduler->watcher_rests, true, memory_order_seq_cst);
            if (sum_runs(scheduler) == last_runs && !is_anything_queued(scheduler))
                until_ns = EVPT_FOREVER;
            quiet = 0;
        }
        evpt_sys_eventfd_wait(worker->wake_fd, until_ns);
        atomic_store_explicit(&scheduler->watcher_rests, false, memory_order_seq_cst);
        if (!is_idle(worker) || take_over(worker, &last_holder))
            return NULL;
        struct evpt_service *service = steal(worker, evpt_sys_now_ns() - EVPT_WATCH_NS);
        if (service)
            return service;
        uint64_t runs = sum_runs(scheduler);
        bool running = atomic_load_explicit(&scheduler->holder, memory_order_relaxed) & 1;
        quiet = runs == last_runs && !running ? quiet + 1 : 0;
        last_runs = runs;
    }
    return NULL;
}

/* Nothing to do: rests until woken. Returns a service that was found on the way. */
static struct evpt_service *rest(struct evpt_worker *worker)
{
    struct evpt_scheduler *scheduler = worker->scheduler;
    uint64_t bit = UINT64_C(1) << worker->index;
    int nobody = -1;
    /* seq_cst: first say that we rest, then look; wake_one and may_lend do it the other way round
     */
    atomic_fetch_or_explicit(&scheduler->idle, bit, memory_order_seq_cst);
    bool watches =
        atomic_compare_exchange_strong_explicit(&scheduler->watcher, &nobody, (int)worker->index,
                                                memory_order_seq_cst, memory_order_seq_cst);
    /* Without a watcher the holder has left its queue to us, however young; else only what has
     * waited. */
    struct evpt_service *service =
        steal(worker, watches ? EVPT_FOREVER : evpt_sys_now_ns() - EVPT_OFFER_NS);
    if (!service && watches)
        service = watch(worker);
    while (!service && !watches && is_idle(worker) &&
           !atomic_load_explicit(&scheduler->stopping, memory_order_acquire))
        evpt_sys_eventfd_wait(worker->wake_fd, EVPT_FOREVER);
    atomic_fetch_and_explicit(&scheduler->idle, ~bit, memory_order_seq_cst);
    if (watches) {
        atomic_store_explicit(&scheduler->watcher, -1, memory_order_seq_cst);
        /* Whoever rests does so because there was a watcher: one of them is to take the place. As a
         * rule nobody does, since the watcher is the last to be woken; then the holder of the loop,
         * which may sleep for the same reason, is to look after what gets stuck (rescue). */
        if (!wake_one(scheduler))
            evpt_wake_signal(&scheduler->loop_wake);
    }
    return service;
}

static bool work_round(struct evpt_worker *worker, bool may_wait)
{
    if (holds_loop(worker))
        return poll_loop(worker, may_wait);
    struct evpt_service *service = look_elsewhere(worker);
    if (!service)
        service = queue_pop(worker, POP_ANY, 0);
    if (!service)
        service = steal(worker, may_wait ? evpt_sys_now_ns() - EVPT_OFFER_NS : EVPT_FOREVER);
    if (!service && may_wait)
        service = rest(worker);
    if (!service)
        return false;
    run_service(worker, service);
    offer(worker);
    return true;
}

static void worker_main(void *user)
{
    struct evpt_worker *worker = user;
    if (holds_loop(worker))
        evpt_loop_adopt(worker->scheduler->loop);
    while (!atomic_load_explicit(&worker->scheduler->stopping, memory_order_acquire))
        (void)work_round(worker, true);
    /* release: pairs with join_until */
    atomic_fetch_add_explicit(&worker->scheduler->ended, 1, memory_order_release);
    evpt_sys_eventfd_signal(worker->scheduler->ended_fd);
}

bool evpt_scheduler_step(struct evpt_worker *worker)
{
    return work_round(worker, false);
}

/* ---- life cycle ---- */

static int before_wait(struct evpt_loop_hook *hook)
{
    return 0;
}

/* The loop is about to block. Messages that its pairs have handed over just now may have made
 * services runnable in the holder's queue, and nobody else has been woken for them. */
static bool may_block(struct evpt_loop_hook *hook)
{
    struct evpt_scheduler *scheduler = EVPT_CONTAINER_OF(hook, struct evpt_scheduler, rest_hook);
    return !atomic_load_explicit(&scheduler->fresh, memory_order_relaxed);
}

int evpt_scheduler_init(struct evpt_scheduler *scheduler, unsigned workers, uint32_t mailbox_max,
                        struct evpt_loop *loop)
{
    assert(workers <= EVPT_WORKERS_MAX);
    memset(scheduler, 0, sizeof(*scheduler));
    evpt_registry_init(&scheduler->registry);
    evpt_kinds_init(&scheduler->kinds, workers + 1);
    scheduler->worker_count = workers;
    scheduler->mailbox_max = mailbox_max;
    scheduler->loop = loop;
    scheduler->ended_fd = -1;
    atomic_init(&scheduler->watcher, -1);
    scheduler->workers = evpt_sys_zalloc((workers + 1) * sizeof(*scheduler->workers));
    if (!scheduler->workers)
        return -ENOMEM;
    for (unsigned i = 0; i <= workers; i++) {
        struct evpt_worker *worker = &scheduler->workers[i];
        worker->scheduler = scheduler;
        worker->index = i;
        evpt_list_init(&worker->queue);
        pthread_mutex_init(&worker->lock, NULL);
        worker->wake_fd = -1;
    }
    for (unsigned i = 0; i <= workers; i++) {
        scheduler->workers[i].wake_fd = evpt_sys_eventfd();
        if (scheduler->workers[i].wake_fd < 0)
            return scheduler->workers[i].wake_fd;
    }
    scheduler->ended_fd = evpt_sys_eventfd();
    if (scheduler->ended_fd < 0)
        return scheduler->ended_fd;
    int error = evpt_pair_init(&scheduler->arm_pair, loop, evpt_service_on_arm, scheduler);
    if (!error)
        error = evpt_wake_init(&scheduler->loop_wake, loop, NULL, NULL);
    scheduler->rest_hook = (struct evpt_loop_hook){.before = before_wait, .rest = may_block};
    if (!error)
        evpt_loop_add_hook(loop, &scheduler->rest_hook);
    return error;
}

int evpt_scheduler_start(struct evpt_scheduler *scheduler)
{
    for (unsigned i = 0; i <= scheduler->worker_count; i++) {
        char name[16];
        if (i)
            snprintf(name, sizeof(name), "worker-%u", i % 100);
        else
            snprintf(name, sizeof(name), "cluster");
        int error = evpt_thread_start(&scheduler->workers[i].thread, name, worker_main,
                                      &scheduler->workers[i]);
        if (error) {
            evpt_scheduler_stop(scheduler);
            evpt_scheduler_join(scheduler);
            return error;
        }
    }
    return 0;
}

void evpt_scheduler_stop(struct evpt_scheduler *scheduler)
{
    atomic_store_explicit(&scheduler->stopping, true, memory_order_release);
    evpt_wake_signal(&scheduler->loop_wake);
    for (unsigned i = 0; i <= scheduler->worker_count; i++) /* the loop may be with any of them */
        evpt_sys_eventfd_signal(scheduler->workers[i].wake_fd);
}

void evpt_scheduler_join(struct evpt_scheduler *scheduler)
{
    for (unsigned i = 0; i <= scheduler->worker_count; i++)
        evpt_thread_join(&scheduler->workers[i].thread);
    evpt_loop_adopt(scheduler->loop);
}

bool evpt_scheduler_join_until(struct evpt_scheduler *scheduler, uint64_t deadline_ns)
{
    while (atomic_load_explicit(&scheduler->ended, memory_order_acquire) <=
           scheduler->worker_count) {
        if (!evpt_sys_eventfd_wait(scheduler->ended_fd, deadline_ns))
            return false;
    }
    evpt_scheduler_join(scheduler);
    return true;
}

static void free_nodes(struct evpt_service *service, struct evpt_mpsc_node *node)
{
    while (node) {
        struct evpt_mpsc_node *next = node->next;
        if (node != &service->tick_node)
            evpt_message_free(evpt_message_from_node(node));
        node = next;
    }
}

/* A service that no worker has met yet has its ops and user in a START message. */
static void stop_leftover(struct evpt_service *service, uint32_t handle, void *user)
{
    service->scheduler = user;
    while (!service->ops && !service->pair) {
        struct evpt_mpsc_node *node = evpt_service_next_node(service);
        if (!node)
            break;
        if (node == &service->tick_node)
            continue;
        struct evpt_message *message = evpt_message_from_node(node);
        if (message->kind == EVPT_MESSAGE_SYSTEM && message->code == EVPT_SYSTEM_START &&
            message->target == handle)
            evpt_service_take_start(service, message);
        evpt_message_free(message);
    }
    if (service->ops)
        service->ops->stop(service);
    service->ops = NULL;
}

static void free_leftover(struct evpt_service *service, uint32_t handle, void *user)
{
    struct evpt_scheduler *scheduler = user;
    evpt_timer_stop(evpt_loop_wheel(scheduler->loop), &service->timer);
    free_nodes(service, service->backlog);
    service->backlog = NULL;
    free_nodes(service, evpt_mpsc_take(&service->mailbox));
}

void evpt_scheduler_fini(struct evpt_scheduler *scheduler)
{
    if (!scheduler->workers)
        return;
    /* in two passes: a service that stops may still answer another one */
    evpt_registry_each(&scheduler->registry, stop_leftover, scheduler);
    evpt_pair_fini(&scheduler->arm_pair); /* sets the timers that are still asked for ... */
    evpt_registry_each_slot(&scheduler->registry, free_leftover, scheduler); /* ... and stops all */
    evpt_loop_remove_hook(&scheduler->rest_hook);
    evpt_wake_fini(&scheduler->loop_wake);
    for (unsigned i = 0; i <= scheduler->worker_count; i++) {
        evpt_sys_close(scheduler->workers[i].wake_fd);
        pthread_mutex_destroy(&scheduler->workers[i].lock);
    }
    evpt_sys_close(scheduler->ended_fd);
    evpt_sys_free(scheduler->workers);
    evpt_kinds_fini(&scheduler->kinds);
    evpt_registry_fini(&scheduler->registry);
    memset(scheduler, 0, sizeof(*scheduler));
}
