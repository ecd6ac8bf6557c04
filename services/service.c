#include "services/service.h"

#include "reactor/error.h"
#include "services/request.h"
#include "services/scheduler.h"
#include "services/service_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* What a START message carries. */
struct start {
    const struct evpt_service_ops *ops;
    void *user;
};

/* ---- its clock, and what is counted by it ---- */

static struct evpt_meter *meter_of(struct evpt_service *service)
{
    struct evpt_kind *kind = atomic_load_explicit(&service->kind, memory_order_relaxed);
    return kind && service->worker ? &kind->meters[service->worker->index] : NULL;
}

static void count_handled(struct evpt_service *service, uint64_t now_ns)
{
    struct evpt_worker *worker = service->worker;
    if (!worker || !worker->handled_count)
        return;
    struct evpt_meter *meter = meter_of(service);
    for (unsigned i = 0; i < worker->handled_count; i++)
        evpt_histogram_add(&meter->handler, now_ns - worker->handled_ns[i]);
    worker->handled_count = 0;
}

uint64_t evpt_service_read_clock(struct evpt_service *service)
{
    service->run_now_ns = evpt_sys_now_ns();
    count_handled(service, service->run_now_ns);
    return service->run_now_ns;
}

void evpt_service_handled(struct evpt_service *service, uint64_t began_ns)
{
    struct evpt_worker *worker = service->worker;
    if (!meter_of(service))
        return;
    if (worker->handled_count == EVPT_HANDLED_MAX)
        (void)evpt_service_read_clock(service);
    worker->handled_ns[worker->handled_count++] = began_ns;
}

/* ---- its timers ---- */

/* Makes it runnable, without a message. */
static void wake(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                 struct evpt_service *service)
{
    /* acq_rel: pairs with the clearing in take_tick; where the node is queued already, the run that
     * takes it sees what was written before this */
    if (!atomic_exchange_explicit(&service->tick_queued, true, memory_order_acq_rel) &&
        evpt_mpsc_push(&service->mailbox, &service->tick_node))
        evpt_scheduler_make_runnable(scheduler, self, service);
}

static void arm_timer(struct evpt_timer *timer, void *user)
{
    struct evpt_service *service = user;
    wake(service->scheduler, evpt_scheduler_loop_worker(service->scheduler), service);
}

/* The loop's thread: services want their timers set. */
void evpt_service_on_arm(void *user, struct evpt_mpsc_node *list)
{
    struct evpt_scheduler *scheduler = user;
    while (list) {
        struct evpt_service *service = EVPT_CONTAINER_OF(list, struct evpt_service, arm_node);
        list = list->next;
        /* cleared before the time is read: a later wish queues the node again. acq_rel: pairs with
         * the exchange in evpt_service_wake_at */
        atomic_exchange_explicit(&service->arm_queued, false, memory_order_acq_rel);
        uint64_t at_ns = atomic_load_explicit(&service->arm_ns, memory_order_acquire);
        evpt_timer_start(evpt_loop_wheel(scheduler->loop), &service->timer, at_ns, arm_timer,
                         service);
    }
}

void evpt_service_wake_at(struct evpt_service *service, uint64_t at_ns)
{
    if (at_ns >= service->armed_ns)
        return;
    service->armed_ns = at_ns;
    atomic_store_explicit(&service->arm_ns, at_ns, memory_order_release);
    if (!atomic_exchange_explicit(&service->arm_queued, true, memory_order_acq_rel))
        evpt_pair_write(&service->scheduler->arm_pair, &service->arm_node);
}

static void take_tick(struct evpt_service *service)
{
    atomic_exchange_explicit(&service->tick_queued, false, memory_order_acq_rel);
    service->armed_ns = EVPT_FOREVER;
    /* the run may have begun before the time came: by its clock the tick would be early, and
     * useless */
    (void)evpt_service_read_clock(service);
    if (service->ops && service->ops->tick)
        service->ops->tick(service);
}

/* ---- its mailbox ---- */

/* Installs a new inhabitant of the slot; an earlier one is gone by then. */
void evpt_service_take_start(struct evpt_service *service, struct evpt_message *message)
{
    struct start start;
    memcpy(&start, message->data, sizeof(start));
    assert(!service->ops);
    service->ops = start.ops;
    service->user = start.user;
    service->cost_ns = EVPT_SHORT_NS * 2; /* not known to be short yet */
    service->exiting = false;
    service->armed_ns = EVPT_FOREVER;
}

/* The next entry of the mailbox, or NULL where this run is over or nothing is there. */
struct evpt_mpsc_node *evpt_service_next_node(struct evpt_service *service)
{
    if (!service->backlog)
        service->backlog = evpt_mpsc_take(&service->mailbox);
    struct evpt_mpsc_node *node = service->backlog;
    if (node)
        service->backlog = node->next;
    return node;
}

static bool is_ending(struct evpt_service *service)
{
    return service->ops && (service->exiting ||
                            atomic_load_explicit(&service->kill_requested, memory_order_relaxed) ==
                                atomic_load_explicit(&service->handle, memory_order_relaxed));
}

static bool run_is_over(struct evpt_service *service)
{
    if (is_ending(service))
        return true;
    if (service->run_messages >= EVPT_RUN_MESSAGES)
        return true;
    /* The clock is read for each message of a service that is slow, for one in 16 of one that is
     * not: 25 ns each. */
    if (service->run_messages &&
        (!evpt_service_is_short(service) || service->run_messages % 16 == 0))
        return evpt_service_read_clock(service) - service->run_began_ns >= EVPT_RUN_NS;
    return false;
}

struct evpt_message *evpt_service_next(struct evpt_service *service)
{
    while (!run_is_over(service)) {
        struct evpt_mpsc_node *node = evpt_service_next_node(service);
        if (!node)
            return NULL;
        service->run_messages++;
        if (node == &service->tick_node) {
            take_tick(service);
            continue;
        }
        struct evpt_message *message = evpt_message_from_node(node);
        if (message->kind <= EVPT_MESSAGE_SEND)
            atomic_fetch_sub_explicit(&service->waiting, 1, memory_order_relaxed);
        if (message->target != atomic_load_explicit(&service->handle, memory_order_relaxed)) {
            evpt_bounce(service->scheduler, service->worker, message, EVPT_CODE_UNKNOWN_SERVICE,
                        "the service has gone");
            continue;
        }
        if (message->kind == EVPT_MESSAGE_SYSTEM && message->code < EVPT_SYSTEM_USER) {
            /* KILL: as a rule kill_requested has said it before; but a late kill of an earlier
             * inhabitant may have overwritten that */
            evpt_message_free(message);
            service->exiting = true;
            continue;
        }
        return message;
    }
    return NULL;
}

/* ---- one run ---- */

/* The inhabitant goes: its state, its handle and names, then everything that is still addressed to
 * it. */
static void end_service(struct evpt_service *service)
{
    struct evpt_scheduler *scheduler = service->scheduler;
    service->ops->stop(service);
    service->ops = NULL;
    service->user = NULL;
    service->exiting = false;
    atomic_store_explicit(&service->messages, 0, memory_order_relaxed);
    atomic_store_explicit(&service->run_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&service->refused, 0, memory_order_relaxed);
    atomic_store_explicit(&service->kind, NULL, memory_order_relaxed);
    atomic_store_explicit(&service->memory, 0, memory_order_relaxed);
    atomic_store_explicit(&service->tasks, 0, memory_order_relaxed);
    /* Who claims the slot from now on sends its START into this very mailbox, where it waits for
     * its turn. */
    evpt_registry_release(&scheduler->registry, service);
}

/* What is in the mailbox while nobody lives in the slot: bounced, until a START comes. */
static void run_empty(struct evpt_service *service)
{
    struct evpt_mpsc_node *node;
    while (!service->ops && (node = evpt_service_next_node(service)) != NULL) {
        if (node == &service->tick_node) {
            take_tick(service);
            continue;
        }
        struct evpt_message *message = evpt_message_from_node(node);
        if (message->kind <= EVPT_MESSAGE_SEND)
            atomic_fetch_sub_explicit(&service->waiting, 1, memory_order_relaxed);
        /* A START is always for who has the slot now: it was claimed for it, and stays so. */
        if (message->kind == EVPT_MESSAGE_SYSTEM && message->code == EVPT_SYSTEM_START) {
            assert(message->target == evpt_service_handle(service));
            evpt_service_take_start(service, message);
            evpt_message_free(message);
        } else {
            evpt_bounce(service->scheduler, service->worker, message, EVPT_CODE_UNKNOWN_SERVICE,
                        "the service has gone");
        }
    }
}

static void measure(struct evpt_service *service, uint64_t end_ns)
{
    if (!service->run_messages)
        return;
    uint64_t spent = end_ns - service->run_began_ns;
    uint64_t each = spent / service->run_messages;
    /* Clamped, so that one run in which the system took the processor away does not make a short
     * service a long one, and two really long ones do. */
    if (each > 6 * EVPT_SHORT_NS)
        each = 6 * EVPT_SHORT_NS;
    service->cost_ns += each / 8 - service->cost_ns / 8;
    evpt_count_up(&service->messages, service->run_messages);
    evpt_count_up(&service->run_ns, spent);
    struct evpt_meter *meter = meter_of(service);
    if (!meter)
        return;
    evpt_count_up(&meter->messages, service->run_messages);
    evpt_count_up(&meter->run_ns, spent);
}

bool evpt_service_run(struct evpt_service *service, struct evpt_worker *worker)
{
    service->worker = worker;
    service->scheduler = worker->scheduler;
    service->run_messages = 0;
    service->run_began_ns = service->run_now_ns = worker->now_ns = evpt_sys_now_ns();
    run_empty(service);
    if (service->ops && !run_is_over(service))
        service->ops->run(service);
    worker->now_ns = evpt_sys_now_ns();
    count_handled(service, worker->now_ns);
    measure(service, worker->now_ns);
    if (is_ending(service))
        end_service(service);
    service->worker = NULL;
    return service->backlog || !evpt_mpsc_park(&service->mailbox);
}

/* ---- coming, going, being addressed ---- */

uint32_t evpt_scheduler_spawn(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                              const struct evpt_service_ops *ops, void *user)
{
    struct start start = {.ops = ops, .user = user};
    struct evpt_message *message = evpt_message_new(sizeof(start));
    struct evpt_service *service = message ? evpt_registry_claim(&scheduler->registry) : NULL;
    if (!service) {
        evpt_message_free(message);
        return 0;
    }
    uint32_t handle = evpt_service_handle(service);
    memcpy(message->data, &start, sizeof(start));
    message->size = sizeof(start);
    message->kind = EVPT_MESSAGE_SYSTEM;
    message->code = EVPT_SYSTEM_START;
    message->target = handle;
    if (evpt_mpsc_push(&service->mailbox, &message->node))
        evpt_scheduler_make_runnable(scheduler, self, service);
    return handle;
}

uint32_t evpt_scheduler_pin(struct evpt_scheduler *scheduler, struct evpt_pair *pair, void *user)
{
    struct evpt_service *service = evpt_registry_claim(&scheduler->registry);
    if (!service)
        return 0;
    service->scheduler = scheduler;
    service->pair = pair;
    service->user = user;
    return evpt_service_handle(service);
}

bool evpt_scheduler_kill(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                         uint32_t handle)
{
    struct evpt_service *service = evpt_registry_find(&scheduler->registry, handle);
    if (!service || service->pair)
        return false;
    /* the handle, not a flag: should the service end meanwhile, its successor in the slot is not
     * meant */
    atomic_store_explicit(&service->kill_requested, handle, memory_order_relaxed);
    evpt_registry_unname(&scheduler->registry, handle);
    struct evpt_message *message = evpt_message_new(0);
    if (!message) {
        wake(scheduler, self, service);
        return true;
    }
    message->kind = EVPT_MESSAGE_SYSTEM;
    message->code = EVPT_SYSTEM_KILL;
    message->target = handle;
    if (evpt_mpsc_push(&service->mailbox, &message->node))
        evpt_scheduler_make_runnable(scheduler, self, service);
    return true;
}

static void count_refused(struct evpt_service *service)
{
    atomic_fetch_add_explicit(&service->refused, 1, memory_order_relaxed);
    /* acquire: pairs with the release of evpt_service_set_kind */
    struct evpt_kind *kind = atomic_load_explicit(&service->kind, memory_order_acquire);
    if (kind)
        atomic_fetch_add_explicit(&kind->refused, 1, memory_order_relaxed);
}

int evpt_post(struct evpt_scheduler *scheduler, struct evpt_worker *self,
              struct evpt_message *message)
{
    struct evpt_service *service = evpt_registry_find(&scheduler->registry, message->target);
    if (!service)
        return -EVPT_ENOTFOUND;
    if (service->pair) {
        evpt_pair_write(service->pair, &message->node);
        return 0;
    }
    if (message->kind <= EVPT_MESSAGE_SEND &&
        atomic_fetch_add_explicit(&service->waiting, 1, memory_order_relaxed) >=
            scheduler->mailbox_max) {
        atomic_fetch_sub_explicit(&service->waiting, 1, memory_order_relaxed);
        count_refused(service);
        return -EVPT_ELIMIT;
    }
    if (evpt_mpsc_push(&service->mailbox, &message->node))
        evpt_scheduler_make_runnable(scheduler, self, service);
    return 0;
}

void evpt_post_reply(struct evpt_scheduler *scheduler, struct evpt_worker *self, uint32_t source,
                     uint32_t session, struct evpt_message *reply)
{
    reply->target = source;
    reply->session = session;
    if (evpt_post(scheduler, self, reply) != 0)
        evpt_message_free(reply); /* the caller has gone: nobody waits for it */
}

void evpt_bounce(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                 struct evpt_message *request, int code, const char *text)
{
    if (request->kind == EVPT_MESSAGE_CALL) {
        uint32_t source = request->source, session = request->session;
        evpt_post_reply(scheduler, self, source, session,
                        evpt_reply_instead(request, code, text, strlen(text)));
        return;
    }
    if (request->kind == EVPT_MESSAGE_SEND)
        atomic_fetch_add_explicit(&scheduler->bounced, 1, memory_order_relaxed);
    evpt_message_free(request);
}
