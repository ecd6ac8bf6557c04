/* The course of a run: what a seed switches on, the faults, the healing, and the end. */
#include "world.h"

#include "services/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAL_NS (200 * EVPT_NS_PER_S) /* everybody reaches everybody again within that */
#define REST_NS (120 * EVPT_NS_PER_S) /* and after the last call all tables are empty */
#define CALLS_MAX 1500                /* of one run: a seed is to take milliseconds */

struct world world;

/* ---- the swarm ---- */

static unsigned maybe(unsigned of_1000, uint64_t least, uint64_t most)
{
    return sim_chance(of_1000) ? (unsigned)sim_between(least, most) : 0;
}

static void choose_config(struct evpt_config *config)
{
    memset(config, 0, sizeof(*config));
    config->workers = (unsigned)sim_below(3);
    config->log.level = EVPT_LOG_INFO;
    config->cluster.call_timeout_ms = 5000;
    config->cluster.connect_timeout_ms = (uint32_t)sim_between(50, 3000);
    config->cluster.heartbeat_ms = (uint32_t)sim_between(100, 5000);
    config->cluster.message_max = sim_chance(300) ? 65536 : 1 << 20;
    config->cluster.pending_max = maybe(200, 1, 20);
    config->cluster.cache_max = maybe(200, 1, 20);
    if (!config->cluster.pending_max)
        config->cluster.pending_max = 1000000;
    if (!config->cluster.cache_max)
        config->cluster.cache_max = 100000;
    config->cluster.send_buffer_max = sim_chance(200) ? sim_between(10000, 200000) : 64 << 20;
    config->mailbox_max = sim_chance(200) ? (uint32_t)sim_between(1, 10) : 1000000;
    config->stop_timeout_ms = 10000;
}

static void choose_swarm(struct swarm *swarm)
{
    memset(swarm, 0, sizeof(*swarm));
    swarm->nodes = (unsigned)sim_between(2, NODES_MAX);
    swarm->services = (unsigned)sim_between(1, SERVICES_MAX);
    swarm->fault_ns = sim_between(500, 8000) * EVPT_NS_PER_MS;
    swarm->call_every_ns = sim_between(5, 200) * EVPT_NS_PER_MS;
    swarm->large = maybe(300, 10, 100);
    swarm->slow_answers = maybe(600, 10, 700);
    swarm->strange_calls = maybe(500, 10, 200);
    choose_config(&swarm->config);
    swarm->faults = (struct sim_faults){
        .short_read = maybe(500, 10, 900),
        .short_write = maybe(500, 10, 900),
        .eagain = maybe(300, 10, 500),
        .connect_error = maybe(200, 10, 500),
        .accept_error = maybe(200, 10, 500),
        .no_memory = maybe(100, 1, 20),
        .preempt = maybe(500, 1, 300),
        .shuffle = maybe(600, 100, 1000),
        .latency_us = sim_chance(300) ? 200000 : (unsigned)sim_between(1, 5000),
        .switch_us = (unsigned)sim_between(1, 50),
        .slow_link = maybe(250, 50, 500),
        .window = sim_chance(300) ? sim_between(16, 4096) : sim_between(4096, 300000),
    };
    bool *kinds[] = {&swarm->resets,       &swarm->half_closes, &swarm->black_holes,
                     &swarm->one_way,      &swarm->two_way,     &swarm->freezes,
                     &swarm->long_pauses,  &swarm->kills,       &swarm->power,
                     &swarm->stops,        &swarm->lists,       &swarm->wraps,
                     &swarm->kill_services};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        *kinds[i] = sim_chance(300);
}

/* ---- faults ---- */

static struct node *some_node(void)
{
    return &world.nodes[sim_below(world.swarm.nodes)];
}

static void restart(void *user)
{
    struct node *node = user;
    sim_power_on(node->index);
    if (!sim_has_ended(node->process) || world.quiet)
        return;
    sim_counts[SIM_restarts]++;
    sim_trace("%s starts again", node->name);
    node_start(node);
}

static void stop(void *user)
{
    struct node *node = user;
    if (!node->running || node->stopping || world.quiet)
        return;
    sim_trace("%s is asked to stop", node->name);
    node_stop(node);
}

static void kill_node(struct node *node, bool power)
{
    if (sim_has_ended(node->process) || !node->running)
        return;
    sim_trace("%s %s", node->name, power ? "loses power" : "is killed");
    sim_counts[power ? SIM_power_losses : SIM_kills]++;
    node->running = false;
    sim_kill(node->process, power);
    for (unsigned i = 0; i < SERVICES_MAX; i++) {
        if (node->services[i])
            calls_forget(node->services[i]->instance);
    }
    sim_at(sim_now() + sim_below(3000) * EVPT_NS_PER_MS, restart, node);
}

static void stop_in_order(struct node *node)
{
    uint64_t drain_ns = sim_below(500) * EVPT_NS_PER_MS;
    if (!node->running || node->stopping || node->draining)
        return;
    sim_counts[SIM_orderly_stops]++;
    if (sim_chance(700))
        node_command(node, COMMAND_DRAIN);
    sim_at(sim_now() + drain_ns, stop, node);
    /* where it has not ended by then, at the healing */
    sim_at(sim_now() + drain_ns + sim_between(100, 2000) * EVPT_NS_PER_MS, restart, node);
}

static void partition(bool both_ways)
{
    unsigned from = (unsigned)sim_below(world.swarm.nodes);
    unsigned to = (unsigned)sim_below(world.swarm.nodes);
    sim_counts[both_ways ? SIM_partitions_two_way : SIM_partitions_one_way]++;
    sim_trace("n%u and n%u are parted%s", from, to, both_ways ? "" : ", one way");
    sim_cut(from, to, true);
    if (both_ways)
        sim_cut(to, from, true);
}

static void freeze(struct node *node, bool for_long)
{
    uint64_t ns = (for_long ? 600000 : sim_between(1, 3000)) * EVPT_NS_PER_MS;
    if (sim_has_ended(node->process))
        return;
    sim_trace("%s stands still for %.3f s", node->name, (double)ns / 1e9);
    sim_counts[for_long ? SIM_ten_minute_freezes : SIM_freezes]++;
    sim_freeze(node->process, sim_now() + ns);
}

static void change_list(struct node *node)
{
    unsigned other = (unsigned)sim_below(world.swarm.nodes);
    node->listed[other] = (enum listed)sim_below(4);
    if (node->listed[other] == LISTED_DOWN)
        sim_counts[SIM_nodes_down]++;
    sim_trace("%s: n%u becomes %d in the list", node->name, other, node->listed[other]);
    node_command(node, COMMAND_APPLY);
}

enum { FAULT_KINDS = 15 };

static void one_fault(void)
{
    const struct swarm *swarm = &world.swarm;
    switch (sim_below(FAULT_KINDS)) {
    case 0:
        return swarm->resets ? sim_harm(SIM_RESET) : (void)0;
    case 1:
        return swarm->half_closes ? sim_harm(SIM_HALF_CLOSE) : (void)0;
    case 2:
        return swarm->black_holes ? sim_harm(SIM_BLACK_HOLE) : (void)0;
    case 3:
        return swarm->one_way ? partition(false) : (void)0;
    case 4:
        return swarm->two_way ? partition(true) : (void)0;
    case 5:
        return sim_heal();
    case 6:
        return swarm->freezes ? freeze(some_node(), false) : (void)0;
    case 7:
        if (swarm->long_pauses && sim_chance(100))
            freeze(some_node(), true);
        return;
    case 8:
        if (swarm->long_pauses && sim_chance(100)) {
            sim_trace("the clock jumps");
            sim_counts[SIM_ten_minute_jumps]++;
            sim_jump(600 * EVPT_NS_PER_S);
        }
        return;
    case 9:
        return swarm->kills ? kill_node(some_node(), false) : (void)0;
    case 10:
        return swarm->power ? kill_node(some_node(), true) : (void)0;
    case 11:
        return swarm->stops ? stop_in_order(some_node()) : (void)0;
    case 12:
        return swarm->lists ? change_list(some_node()) : (void)0;
    case 13:
        return swarm->wraps ? node_command(some_node(), COMMAND_WRAP) : (void)0;
    default:
        return swarm->kill_services ? node_command(some_node(), COMMAND_KILL_SERVICE) : (void)0;
    }
}

static void chaos(void *user)
{
    uint64_t *until_ns = user;
    calls_check_overdue();
    if (sim_now() >= *until_ns)
        return;
    one_fault();
    sim_at(sim_now() + sim_below(300) * EVPT_NS_PER_MS, chaos, user);
}

/* ---- the course ---- */

static void look(void *user)
{
    calls_check_overdue();
    if (*(const bool *)user)
        sim_at(sim_now() + EVPT_NS_PER_S, look, user);
}

static void heal(void)
{
    sim_trace("healed");
    sim_faults = (struct sim_faults){.latency_us = 500, .switch_us = 3, .window = 65536};
    sim_heal();
    sim_widen();
    world.healed = true;
    world.swarm.call_every_ns = 200 * EVPT_NS_PER_MS;
    world.swarm.large = 0;
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        struct node *node = &world.nodes[i];
        sim_allow_memory_faults(node->process, false);
        for (unsigned k = 0; k < NODES_MAX; k++)
            node->listed[k] = LISTED;
        if (node->draining)
            node_stop(node);
    }
}

/* Everybody runs, with the whole node list. */
static void repair(void)
{
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        struct node *node = &world.nodes[i];
        if (sim_has_ended(node->process))
            restart(node);
        else if (node->stopping || node->draining)
            node_stop(node);
        else
            node_command(node, COMMAND_APPLY);
    }
}

static bool all_reached(void)
{
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        for (unsigned k = 0; k < world.swarm.nodes; k++) {
            if (i != k && !world.reached[i][k])
                return false;
        }
    }
    return true;
}

static void has_queued(struct evpt_session *session, void *ret_any)
{
    if (evpt_session_queued(session))
        *(bool *)ret_any = true;
}

/* Nor does any request come any more: a caller that has given up does not take back what it sent.
 */
static bool tables_empty(void)
{
    bool any = false;
    for (unsigned i = 0; i < world.swarm.nodes && !any; i++) {
        struct evpt_node *node = &world.nodes[i].node;
        any =
            evpt_clusterclient_pending(&node->client) || evpt_clusterserver_pending(&node->server);
        evpt_tcp_object_each(&node->mgr.client.object, has_queued, &any);
        evpt_tcp_object_each(&node->mgr.server.object, has_queued, &any);
    }
    return !any && calls_all_resolved() && sim_net_is_idle();
}

static bool all_ended(void)
{
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        if (!sim_has_ended(world.nodes[i].process))
            return false;
    }
    return true;
}

/* Steps until the time has come or `done` says so, which is asked now and then. */
static bool run_until(uint64_t until_ns, bool (*done)(void))
{
    for (unsigned step = 0; sim_now() < until_ns; step++) {
        if (done && step % 64 == 0 && done())
            return true;
        if (!sim_step())
            return done && done();
    }
    return done && done();
}

static bool enough_calls(void)
{
    return calls_count() >= CALLS_MAX;
}

static void fault_phase(void)
{
    uint64_t until_ns = sim_now() + world.swarm.fault_ns;
    sim_faults = world.swarm.faults;
    sim_at(sim_now() + sim_below(300) * EVPT_NS_PER_MS, chaos, &until_ns);
    run_until(until_ns, enough_calls);
    until_ns = 0; /* ends the chaos: its event is still to come */
    run_until(sim_now() + 300 * EVPT_NS_PER_MS, NULL);
}

static void explain_unreached(void)
{
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        for (unsigned k = 0; k < world.swarm.nodes; k++) {
            if (i != k && !world.reached[i][k])
                sim_fail("n%u has not reached n%u since the healing", i, k);
        }
    }
}

static void recovery_phase(void)
{
    uint64_t until_ns = sim_now() + HEAL_NS;
    heal();
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        uint64_t thawed_ns = sim_thawed_at(world.nodes[i].process);
        if (thawed_ns + HEAL_NS > until_ns)
            until_ns = thawed_ns + HEAL_NS;
    }
    while (sim_now() < until_ns && !all_reached()) {
        repair();
        run_until(sim_now() + 2 * EVPT_NS_PER_S, all_reached);
    }
    explain_unreached();
}

static void end_phase(void)
{
    world.quiet = true;
    if (!run_until(sim_now() + REST_NS, tables_empty))
        sim_fail("the tables are not empty %d s after the last call",
                 (int)(REST_NS / EVPT_NS_PER_S));
    for (unsigned i = 0; i < world.swarm.nodes; i++)
        node_stop(&world.nodes[i]);
    if (!run_until(sim_now() + REST_NS, all_ended))
        sim_fail("a node does not end");
    calls_check_all();
}

uint64_t world_run(uint64_t seed)
{
    bool looking = true;
    memset(&world, 0, sizeof(world));
    sim_init(seed);
    calls_init();
    choose_swarm(&world.swarm);
    for (unsigned i = 0; i < world.swarm.nodes; i++) {
        struct node *node = &world.nodes[i];
        node->index = i;
        snprintf(node->name, sizeof(node->name), "n%u", i);
        node_start(node);
    }
    run_until(sim_now() + sim_below(50) * EVPT_NS_PER_MS, NULL);
    sim_at(sim_now(), look, &looking);
    fault_phase();
    recovery_phase();
    end_phase();
    looking = false;
    uint64_t hash = sim_hash();
    sim_fini();
    calls_fini();
    return hash;
}
