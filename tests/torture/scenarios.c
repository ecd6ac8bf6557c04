#include "torture.h"

#include "services/code.h"

#include <stdio.h>
#include <string.h>

/* ---- node lists ---- */

static char both[512], alone[256];

static void make_lists(void)
{
    char addr[NODES][EVPT_ADDR_TEXT_SIZE];
    for (unsigned i = 0; i < NODES; i++)
        evpt_addr_format(node_addr(i), addr[i], sizeof(addr[i]));
    snprintf(both, sizeof(both), "n0 = \"%s\"\nn1 = \"%s\"\nn2 = false\n", addr[0], addr[1]);
    snprintf(alone, sizeof(alone), "n0 = \"%s\"\n", addr[0]);
}

static void count_listed(const char *name, const struct evpt_addr *addr,
                         enum evpt_connect_status status, void *ret_count)
{
    (void)name, (void)addr, (void)status;
    ++*(unsigned *)ret_count;
}

static unsigned listed(struct node *node)
{
    unsigned count = 0;
    evpt_clusterclient_each(&node->node.client, count_listed, &count);
    return count;
}

/* ---- outcomes ---- */

/* Whatever has failed: one outcome, and what is said to be good is good. */
static void await(const struct outcome *outcome, const char *good)
{
    UNTIL(outcome->answers);
    CHECK(outcome->code >= 0 && outcome->code < EVPT_CODE_COUNT);
    CHECK(outcome->code != EVPT_CODE_OK || strncmp(outcome->text, good, strlen(good)) == 0);
}

/* Nothing fails any more: it must become good again, though connections may have been lost and are
 * tried again only after a while. */
static void must_reach(struct node *node, const char *other)
{
    uint64_t limit_ns = evpt_sys_now_ns() + 60 * EVPT_NS_PER_S;
    for (;;) {
        const struct outcome *outcome = node_call(node, "room", "ask", other, 10);
        await(outcome, "good");
        if (outcome->code == EVPT_CODE_OK)
            return;
        CHECK(evpt_sys_now_ns() < limit_ns);
        uint64_t pause_ns = evpt_sys_now_ns() + 2 * EVPT_NS_PER_S;
        while (evpt_sys_now_ns() < pause_ns)
            nodes_turn();
    }
}

static void start_both(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        node_start(&nodes[i], true);
        CHECK(nodes[i].state == RUNNING);
    }
}

static void connect_both(void)
{
    start_both();
    must_reach(&nodes[0], "n1");
    must_reach(&nodes[1], "n0");
}

static void both_work(void)
{
    must_reach(&nodes[0], "n1");
    must_reach(&nodes[1], "n0");
}

/* ---- scenarios ---- */

static void nothing(void)
{
}

static void start_one(void)
{
    node_start(&nodes[0], true);
}

static void one_works(void)
{
    if (nodes[0].state == RUNNING)
        must_reach(&nodes[0], "n0");
}

static void one_is_started(void)
{
    start_one();
    CHECK(nodes[0].state == RUNNING);
}

/* With a connection in each direction, and a call under way in one. */
static void stop_one(void)
{
    const struct outcome *asked = node_call(&nodes[1], "room", "ask", "n0", 100);
    node_stop(&nodes[0], true);
    await(asked, "good");
}

static void the_one_comes_back(void)
{
    node_start(&nodes[0], true);
    CHECK(nodes[0].state == RUNNING);
    both_work();
}

/* As if it were killed: nothing is said to anybody. Its own calls end with it. */
static void lose_the_other(void)
{
    const struct outcome *asked[] = {node_call(&nodes[0], "room", "ask", "n1", 100),
                                     node_call(&nodes[0], "room", "ask", "n1", 300000),
                                     node_call(&nodes[0], "room", "ask_later", "n1", 0),
                                     node_call(&nodes[0], "room", "send", "n1", 0)};
    for (int i = 0; i < 3; i++)
        nodes_turn();
    node_kill(&nodes[1]);
    await(asked[0], "good");
    await(asked[1], "good");
    await(asked[2], "good");
    await(asked[3], "sent");
}

static void call_both_ways(void)
{
    const struct outcome *asked[] = {node_call(&nodes[0], "room", "ask", "n1", 100),
                                     node_call(&nodes[1], "room", "ask", "n0", 100)};
    const struct outcome *failure = node_call(&nodes[0], "room", "ask_for_failure", "n1", 0);
    const struct outcome *later = node_call(&nodes[1], "room", "ask_later", "n0", 0);
    const struct outcome *sent = node_call(&nodes[0], "room", "send", "n1", 0);
    await(asked[0], "good");
    await(asked[1], "good");
    await(failure, "");
    await(later, "good");
    await(sent, "sent");
}

static void send_in_parts(void)
{
    const struct outcome *asked[] = {node_call(&nodes[0], "room", "ask", "n1", 300000),
                                     node_call(&nodes[0], "room", "ask", "n1", 50000),
                                     node_call(&nodes[1], "room", "ask", "n0", 200000)};
    for (unsigned i = 0; i < 3; i++)
        await(asked[i], "good");
}

static void call_nobody(void)
{
    const struct outcome *asked[] = {node_call(&nodes[0], "room", "ask", "n1", 100),
                                     node_call(&nodes[0], "room", "ask_later", "n1", 0),
                                     node_call(&nodes[0], "room", "ask", "n2", 100)};
    for (unsigned i = 0; i < 3; i++) {
        UNTIL(asked[i]->answers);
        CHECK(asked[i]->code != EVPT_CODE_OK || i == 1);
    }
    await(asked[1], "good");
}

static void the_other_comes(void)
{
    node_start(&nodes[1], true);
    CHECK(nodes[1].state == RUNNING);
    both_work();
}

/* n1 and n2 leave the list of n0 and come back, with a call under way. */
static void reload(void)
{
    const struct outcome *asked = node_call(&nodes[0], "room", "ask", "n1", 100), *done;
    machine_set_list(alone);
    done = node_call(&nodes[0], "room", "reload", "", 0);
    await(done, "+0 -2 ~0");
    await(asked, "good");
    CHECK(listed(&nodes[0]) == 1 || (listed(&nodes[0]) == 3 && done->code != EVPT_CODE_OK));
    machine_set_list(both);
    done = node_call(&nodes[0], "room", "reload", "", 0);
    await(done, "+");
    CHECK(listed(&nodes[0]) == 3 || (listed(&nodes[0]) == 1 && done->code != EVPT_CODE_OK));
}

static void reload_again(void)
{
    const struct outcome *done = node_call(&nodes[0], "room", "reload", "", 0);
    UNTIL(done->answers);
    CHECK(done->code == EVPT_CODE_OK && listed(&nodes[0]) == 3);
    both_work();
}

static void live(void)
{
    await(node_call(&nodes[0], "room", "life", "", 0), "dead");
}

static void live_again(void)
{
    const struct outcome *outcome = node_call(&nodes[0], "room", "life", "", 0);
    UNTIL(outcome->answers);
    CHECK(outcome->code == EVPT_CODE_OK);
    must_reach(&nodes[0], "n0");
}

/* The one with threads: they come and go, and nothing runs on them. */
static void ignore(struct evpt_node *node, struct evpt_message *message, void *user)
{
    (void)node, (void)message, (void)user;
}

static void start_threads(void)
{
    static struct evpt_node node;
    struct evpt_config config = {
        .workers = 2, .mailbox_max = 10, .log.level = (enum evpt_log_level)(EVPT_LOG_ERROR + 1)};
    struct evpt_addr addr = {0};
    int error = evpt_node_init(&node, "n0", &addr, &config, ignore, NULL);
    if (!error && evpt_node_start(&node) == 0) {
        evpt_node_stop(&node);
        CHECK(evpt_node_join_until(&node, EVPT_FOREVER));
    }
    evpt_node_fini(&node);
}

const struct scenario scenarios[] = {
    {"start", nothing, start_one, one_works},
    {"stop", connect_both, stop_one, the_one_comes_back},
    {"threads", nothing, start_threads, nothing},
    {"first_call", start_both, call_both_ways, both_work},
    {"call", connect_both, call_both_ways, both_work},
    {"parts", connect_both, send_in_parts, both_work},
    {"refused", one_is_started, call_nobody, the_other_comes},
    {"lost", connect_both, lose_the_other, the_other_comes},
    {"reload", connect_both, reload, reload_again},
    {"service", one_is_started, live, live_again},
};
const unsigned scenario_count = sizeof(scenarios) / sizeof(scenarios[0]);

void scenarios_setup(void)
{
    make_lists();
    machine_set_list(both);
}
