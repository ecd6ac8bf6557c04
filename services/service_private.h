/* What service.c and scheduler.c share. */
#ifndef EVPT_SERVICES_SERVICE_PRIVATE_H
#define EVPT_SERVICES_SERVICE_PRIVATE_H

#include "services/scheduler.h"

/* Known to be short: the holder of the loop may run it. */
static inline bool evpt_service_is_short(const struct evpt_service *service)
{
    return service->cost_ns <= EVPT_SHORT_NS;
}

/* One run on this worker, which is the service's only consumer. True: there is more, and it must be
 * queued again; false: its mailbox is parked, and it belongs to whoever pushes next. */
bool evpt_service_run(struct evpt_service *service, struct evpt_worker *worker);
/* evpt_pair_fn of scheduler->arm_pair, on the loop's thread: services want their timers set. */
void evpt_service_on_arm(void *user, struct evpt_mpsc_node *list);
/* Consumer: the next entry of the mailbox, whatever it is, or NULL. */
struct evpt_mpsc_node *evpt_service_next_node(struct evpt_service *service);
/* Consumer: installs the new inhabitant that a START message brings. */
void evpt_service_take_start(struct evpt_service *service, struct evpt_message *message);
/* Puts a service whose mailbox was parked into a run queue. `self`: the worker that calls, or NULL.
 */
void evpt_scheduler_make_runnable(struct evpt_scheduler *scheduler, struct evpt_worker *self,
                                  struct evpt_service *service);

#endif
