#include "services/probe.h"

#include "cluster/msgpack.h"
#include "reactor/error.h"
#include "services/request.h"

#include <string.h>

/* ---- .pulse ---- */

static void run_pulse(struct evpt_service *service)
{
    struct evpt_message *message;
    while ((message = evpt_service_next(service)) != NULL) {
        if (message->kind == EVPT_MESSAGE_CALL) {
            struct evpt_message *reply = evpt_reply_new(EVPT_ITEM_MAX);
            if (reply) {
                reply->data[reply->size++] = 0x90; /* no results */
                evpt_reply_finish(reply);
            }
            evpt_post_reply(service->scheduler, service->worker, message->source, message->session,
                            reply);
        }
        evpt_message_free(message);
    }
    /* known to be short from its first run on: it is to be run when only short ones are */
    service->cost_ns = 0;
}

static void stop_pulse(struct evpt_service *service)
{
}

static const struct evpt_service_ops pulse_ops = {.run = run_pulse, .stop = stop_pulse};

int evpt_prober_init(struct evpt_prober *prober, struct evpt_node *node)
{
    static const char name[] = ".pulse"; /* with a dot: scripts cannot take it */
    *prober = (struct evpt_prober){.node = node};
    evpt_list_init(&prober->running);
    prober->handle = evpt_scheduler_pin(&node->scheduler, &node->main.pair, node);
    prober->pulse = evpt_scheduler_spawn(&node->scheduler, NULL, &pulse_ops, prober);
    if (!prober->handle || !prober->pulse ||
        evpt_registry_name(&node->scheduler.registry, name, sizeof(name) - 1, prober->pulse) != 0)
        return -EVPT_ELIMIT;
    evpt_node_hide(node, prober->pulse);
    return 0;
}

/* ---- asking ---- */

/* One call without arguments. What cannot be asked is not answered either: the time will tell. */
static void ask(struct evpt_probe *probe, uint32_t target, const char *method)
{
    struct evpt_prober *prober = probe->prober;
    struct evpt_message *message =
        evpt_request_new(EVPT_MESSAGE_CALL, "", 0, method, strlen(method), EVPT_ITEM_MAX);
    probe->missing++;
    if (!message)
        return;
    message->data[message->size++] = 0x90; /* no arguments */
    message->target = target;
    message->session = probe->session;
    if (evpt_request_finish(&message, prober->handle, EVPT_FOREVER) != 0 ||
        evpt_post(&prober->node->scheduler, NULL, message) != 0)
        evpt_message_free(message);
}

static void on_time(struct evpt_timer *timer, void *user)
{
    struct evpt_probe *probe = user;
    evpt_probe_stop(probe);
    probe->fn(probe, NULL, probe->user);
}

void evpt_probe_start(struct evpt_probe *probe, struct evpt_prober *prober,
                      enum evpt_probe_kind kind, uint32_t within_ms, evpt_probe_fn fn, void *user)
{
    struct evpt_node *node = prober->node;
    *probe = (struct evpt_probe){.prober = prober, .fn = fn, .user = user};
    while (!probe->session) /* wrapped: 0 wants no answer */
        probe->session = ++prober->last_session;
    evpt_list_push_back(&prober->running, &probe->link);
    evpt_loop_update_now(node->main.loop); /* a callback before this one may have taken long */
    evpt_loop_timer(node->main.loop, &probe->timer, within_ms * EVPT_NS_PER_MS, on_time, probe);
    ask(probe, node->sampler, kind == EVPT_PROBE_SAMPLE ? "sample" : "ping");
    if (kind == EVPT_PROBE_ALIVE)
        ask(probe, prober->pulse, "ping");
}

void evpt_probe_stop(struct evpt_probe *probe)
{
    if (!probe->prober)
        return;
    evpt_timer_stop(evpt_loop_wheel(probe->prober->node->main.loop), &probe->timer);
    evpt_list_remove(&probe->link);
    probe->prober = NULL;
}

void evpt_prober_answer(struct evpt_prober *prober, const struct evpt_message *message)
{
    if (message->kind != EVPT_MESSAGE_REPLY || message->code != EVPT_CODE_OK)
        return;
    for (struct evpt_list *link = prober->running.next; link != &prober->running;
         link = link->next) {
        struct evpt_probe *probe = EVPT_CONTAINER_OF(link, struct evpt_probe, link);
        if (probe->session != message->session)
            continue;
        if (--probe->missing == 0) {
            evpt_probe_stop(probe);
            probe->fn(probe, message, probe->user);
        }
        return; /* fn may have changed the list */
    }
}
