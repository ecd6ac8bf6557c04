/* The oracles of a call: one outcome, in time; executed at most once, and not at all where the
 * caller was told so; in order between two services. */
#include "world.h"

#include <stdlib.h>
#include <string.h>

/* A deadline passes unnoticed while nobody runs, and a wheel tick and the switches of a busy
 * machine come on top. */
#define LATE_NS (500 * EVPT_NS_PER_MS)

enum state { PENDING, ANSWERED, VOID, SENT };

struct call {
    uint64_t deadline_ns;
    uint32_t instance, seq, executions;
    uint8_t node, target_node, target_service;
    uint8_t state, code, executed;
};

static struct {
    struct call *all;
    uint32_t count, room;
    uint32_t instances;
    uint32_t (*last)[TARGETS]; /* call of each instance that was executed last */
    uint32_t first_pending;    /* those before it are not pending */
} calls;

void calls_init(void)
{
    memset(&calls, 0, sizeof(calls));
}

void calls_fini(void)
{
    free(calls.all);
    free(calls.last);
    memset(&calls, 0, sizeof(calls));
}

uint32_t calls_count(void)
{
    return calls.count;
}

uint32_t calls_new_instance(void)
{
    calls.last = realloc(calls.last, (calls.instances + 1) * sizeof(*calls.last));
    if (!calls.last)
        abort();
    memset(calls.last[calls.instances], 0, sizeof(*calls.last));
    return calls.instances++;
}

static struct call *find(uint32_t call)
{
    if (call == 0 || call > calls.count)
        sim_fail("call %u does not exist", call);
    return &calls.all[call - 1];
}

uint32_t calls_issue(const struct service *service, bool is_send, unsigned target_node,
                     unsigned target_service, uint64_t deadline_ns, uint32_t instance, uint32_t seq)
{
    if (calls.count == calls.room) {
        calls.room = calls.room ? calls.room * 2 : 1024;
        calls.all = realloc(calls.all, calls.room * sizeof(*calls.all));
        if (!calls.all)
            abort();
    }
    calls.all[calls.count++] = (struct call){.deadline_ns = deadline_ns,
                                             .instance = instance,
                                             .seq = seq,
                                             .node = (uint8_t)service->node->index,
                                             .target_node = (uint8_t)target_node,
                                             .target_service = (uint8_t)target_service,
                                             .state = is_send ? SENT : PENDING};
    sim_counts[is_send ? SIM_sends : SIM_calls]++;
    return calls.count;
}

/* Also where what the caller has given up on with its connection is still on its way while the next
 * connection carries what it sent later: then the earlier is not executed at all. */
static void check_order(uint32_t number, uint32_t *last)
{
    const struct call *call = find(number);
    if (*last && call->seq <= find(*last)->seq) {
        sim_fail("out of order: call %u, number %u of its sender, is executed after call %u, "
                 "number %u",
                 number, call->seq, *last, find(*last)->seq);
    }
    *last = number;
}

void calls_executed(uint32_t number, const struct service *by)
{
    struct call *call = find(number);
    sim_counts[SIM_executed]++;
    sim_note(number, 1);
    if (call->target_node != by->node->index || call->target_service != by->index)
        sim_fail("call %u to n%u.s%u is executed by %s.s%u", number, call->target_node,
                 call->target_service, by->node->name, by->index);
    if (++call->executions > 1)
        sim_fail("call %u is executed twice", number);
    check_order(number, &calls.last[call->instance][by->node->index * SERVICES_MAX + by->index]);
}

static uint64_t latest_ns(const struct call *call)
{
    uint64_t thawed_ns = sim_thawed_at(world.nodes[call->node].process);
    uint64_t at_ns = call->deadline_ns;
    if (thawed_ns > at_ns)
        at_ns = thawed_ns;
    if (sim_jumped_at() > at_ns)
        at_ns = sim_jumped_at();
    return at_ns + LATE_NS;
}

void calls_answered(uint32_t number, const struct service *service, int code,
                    enum evpt_executed executed)
{
    struct call *call = find(number);
    sim_note(number, (uint64_t)code);
    sim_trace("%s.s%u: call %u to n%u.s%u: %s, executed %s", service->node->name, service->index,
              number, call->target_node, call->target_service, evpt_code_name(code),
              evpt_executed_name(executed));
    if (call->instance != service->instance)
        sim_fail("call %u is answered to another service", number);
    if (call->state != PENDING)
        sim_fail("call %u is answered twice: %s, then %s", number, evpt_code_name(call->code),
                 evpt_code_name(code));
    if (sim_now() > latest_ns(call))
        sim_fail("call %u is answered %.3f s after its deadline", number,
                 (double)(sim_now() - call->deadline_ns) / 1e9);
    if (code < 0 || code >= EVPT_CODE_COUNT)
        sim_fail("call %u ends with code %d", number, code);
    bool ran = code == EVPT_CODE_OK || code == EVPT_CODE_FAILED;
    if (ran != (executed == EVPT_EXECUTED_YES))
        sim_fail("call %u: %s, executed %s", number, evpt_code_name(code),
                 evpt_executed_name(executed));
    if (ran && call->executions != 1)
        sim_fail("call %u: %s, and nobody executed it", number, evpt_code_name(code));
    if (code == EVPT_CODE_OK && world.healed)
        world.reached[call->node][call->target_node] = true;
    call->state = ANSWERED;
    call->code = (uint8_t)code;
    call->executed = (uint8_t)executed;
    sim_counts[SIM_ok + code]++;
    sim_counts[SIM_executed_no + executed]++;
}

void calls_forget(uint32_t instance)
{
    for (uint32_t i = calls.first_pending; i < calls.count; i++) {
        if (calls.all[i].instance == instance && calls.all[i].state == PENDING) {
            calls.all[i].state = VOID;
            sim_counts[SIM_void_calls]++;
        }
    }
}

bool calls_all_resolved(void)
{
    while (calls.first_pending < calls.count && calls.all[calls.first_pending].state != PENDING)
        calls.first_pending++;
    return calls.first_pending == calls.count;
}

void calls_check_overdue(void)
{
    (void)calls_all_resolved();
    for (uint32_t i = calls.first_pending; i < calls.count; i++) {
        const struct call *call = &calls.all[i];
        if (call->state == PENDING && sim_now() > latest_ns(call) + EVPT_NS_PER_S)
            sim_fail("call %u from n%u to n%u.s%u has no outcome %.3f s after its deadline", i + 1,
                     call->node, call->target_node, call->target_service,
                     (double)(sim_now() - call->deadline_ns) / 1e9);
    }
}

void calls_check_all(void)
{
    for (uint32_t i = 0; i < calls.count; i++) {
        const struct call *call = &calls.all[i];
        if (call->state == PENDING)
            sim_fail("call %u never had an outcome", i + 1);
        if (call->state != ANSWERED)
            continue;
        if (call->executed == EVPT_EXECUTED_NO && call->executions)
            sim_fail("call %u: %s, executed no, but it was executed", i + 1,
                     evpt_code_name(call->code));
        if (call->executed == EVPT_EXECUTED_MAYBE)
            sim_counts[call->executions ? SIM_maybe_and_executed : SIM_maybe_and_not]++;
    }
}
