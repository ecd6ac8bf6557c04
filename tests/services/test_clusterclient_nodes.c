/* clusterclient: the node list, and everything at once. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "name=address of node" in static storage, a few at a time. */
static const char *entry(struct world *world, const char *name, int node)
{
    static char texts[8][64];
    static unsigned next;
    char addr[EVPT_ADDR_TEXT_SIZE], *text = texts[next++ % 8];
    snprintf(text, sizeof(texts[0]), "%s=%s", name,
             node < 0 ? "" : evpt_addr_format(&world->nodes[node].addr, addr, sizeof(addr)));
    return text;
}

#define APPLY(world, ...)                                                                          \
    apply(world, (const char *[]){__VA_ARGS__},                                                    \
          sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

START_TEST(test_clusterclient_apply_tells_the_difference)
{
    struct world *world = world_new();
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 0), entry(world, "n1", 1),
                           entry(world, "n2", 2), entry(world, "n3", 3)),
                     ""); /* nothing */
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 0), entry(world, "n1", 2),
                           entry(world, "n3", -1), entry(world, "x", 3), entry(world, "y", -1)),
                     "+x +y -n2 ~n1 ~n3");
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_DISCONNECT);
    ck_assert_int_eq(status_of(world, "n2"), EVPT_STATUS_COUNT); /* nobody knows it */
    ck_assert_int_eq(status_of(world, "n3"), EVPT_STATUS_DOWN);
    ck_assert_int_eq(status_of(world, "y"), EVPT_STATUS_DOWN);
    ck_assert_str_eq(
        APPLY(world, entry(world, "n2", 2), entry(world, "y", 3), entry(world, "n3", 0)),
        "+n2 -n0 -n1 -x ~n3 ~y");
    ck_assert_int_eq(status_of(world, "n3"), EVPT_STATUS_DISCONNECT);
    ck_assert_str_eq(apply(world, NULL, 0), "-n2 -n3 -y");
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_removed_node_answers_what_waits_and_works_again_when_it_is_back)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    uint32_t flying = call(world, "n0", 0, 0, 5000);
    await_arrivals(&world->nodes[0], 2);
    uint32_t queued = call_now(world, "n0", 0, 5000); /* not a byte has left yet */
    uint32_t cached = call_now(world, "n1", 0, 5000);
    ck_assert_int_eq(status_of(world, "n1"), EVPT_STATUS_CONNECTING);
    world->event_count = 0;
    ck_assert_str_eq(APPLY(world, entry(world, "n2", 2)), "-n0 -n1 -n3");
    ck_assert_uint_eq(evpt_clusterclient_pending(&world->client), 0); /* at once */
    check_outcome(world, flying, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    check_outcome(world, queued, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_NO);
    check_outcome(world, cached, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_NO);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_UNKNOWN_NODE, EVPT_EXECUTED_NO);
    TURN_UNTIL(world, world->nodes[0].closed == 1);
    ck_assert_uint_eq(world->nodes[0].arrival_count, 2);
    ck_assert_int_eq(world->nodes[1].arrival_count, 0);
    TURN_UNTIL(world, world->event_count == 4);
    ck_assert_str_eq(world->events[0].status, "connecting"); /* n1, before */
    for (int i = 1; i < 4; i++)
        ck_assert_str_eq(world->events[i].status, "down");
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 0), entry(world, "n1", 1)), "+n0 +n1 -n2");
    connect_to(world, "n0");
    connect_to(world, "n1");
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_changed_node_is_another_one_from_then_on)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    uint32_t flying = call(world, "n0", 0, 0, 5000);
    await_arrivals(&world->nodes[0], 2);
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 3)), "-n1 -n2 -n3 ~n0");
    check_outcome(world, flying, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_MAYBE);
    ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_DISCONNECT);
    uint32_t session = call(world, "n0", 9, 0, 5000);
    await_arrivals(&world->nodes[3], 1);
    answer(&world->nodes[3], 0, 0);
    ck_assert_int_eq(outcome_of(world, session)->result, 9);
    TURN_UNTIL(world, world->nodes[0].closed == 1);
    world_free(world);
}
END_TEST

/* While it is being connected to: the attempt belongs to the old address. */
START_TEST(test_clusterclient_changed_node_forgets_the_attempt_under_way)
{
    struct world *world = world_new();
    uint32_t cached = call_now(world, "n0", 0, 5000);
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 3)), "-n1 -n2 -n3 ~n0");
    check_outcome(world, cached, EVPT_CODE_DISCONNECTED, EVPT_EXECUTED_NO);
    uint32_t session = call_now(world, "n0", 9, 5000); /* the same tag again */
    await_arrivals(&world->nodes[3], 1);
    answer(&world->nodes[3], 0, 0);
    ck_assert_int_eq(outcome_of(world, session)->result, 9);
    ck_assert_uint_eq(world->nodes[0].arrival_count, 0);
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_removal_ends_the_back_off)
{
    struct world *world = world_new();
    evpt_cluster_mgr_stop_listening(&world->nodes[0].mgr);
    check_outcome(world, call(world, "n0", 0, 0, 5000), EVPT_CODE_CONNECT_FAILED, EVPT_EXECUTED_NO);
    peer_of(world, "n0")->retry_at_ns = evpt_sys_now_ns() + EVPT_NS_PER_S;
    ck_assert_int_eq(evpt_cluster_mgr_listen(&world->nodes[0].mgr, &world->nodes[0].addr), 0);
    ck_assert_str_eq(APPLY(world, entry(world, "n1", 1)), "-n0 -n2 -n3");
    ck_assert_str_eq(APPLY(world, entry(world, "n0", 0)), "+n0 -n1");
    connect_to(world, "n0");
    world_free(world);
}
END_TEST

START_TEST(test_clusterclient_apply_without_memory_changes_nothing)
{
    struct world *world = world_new();
    connect_to(world, "n0");
    const char *const entries[] = {entry(world, "n0", 1), entry(world, "a", 2),
                                   entry(world, "b", 3)};
    bool failed = true;
    for (long nth = 1; failed; nth++) {
        struct evpt_node_list list = {0};
        struct evpt_node_diff diff;
        for (size_t i = 0; i < 3; i++) {
            struct evpt_addr addr;
            char name[3] = {0};
            memcpy(name, entries[i], (size_t)(strchr(entries[i], '=') - entries[i]));
            ck_assert_int_eq(evpt_addr_parse(&addr, strchr(entries[i], '=') + 1), 0);
            ck_assert_int_eq(evpt_node_list_add(&list, name, &addr), 0);
        }
        uint32_t version = world->client.version;
        world->client.observer = 0; /* its messages may get lost, the list's changes not */
        support_fail_allocation(nth);
        int error = evpt_clusterclient_apply(&world->client, &list, &diff);
        failed = support_allocation_failed();
        support_fail_allocation(0);
        evpt_clusterclient_check(&world->client);
        evpt_node_list_fini(&list);
        ck_assert_int_eq(error != 0, failed);
        if (error) {
            ck_assert_uint_eq(world->client.version, version);
            ck_assert_int_eq(status_of(world, "n0"), EVPT_STATUS_CONNECTED);
            ck_assert_int_eq(status_of(world, "a"), EVPT_STATUS_COUNT);
        } else {
            ck_assert_uint_eq(diff.added_count, 2);
            ck_assert_uint_eq(diff.removed_count, 3);
            ck_assert_uint_eq(diff.changed_count, 1);
            evpt_node_diff_fini(&diff);
        }
    }
    world_free(world);
}
END_TEST

/* More names than any first table has, of which one is a part of another. */
START_TEST(test_clusterclient_finds_each_of_many_nodes)
{
    enum { MANY = 1000 };
    struct world *world = world_new();
    struct evpt_node_list list = {0};
    struct evpt_node_diff diff;
    char name[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        ck_assert_int_eq(evpt_node_list_add(&list, name, i == 77 ? &world->nodes[0].addr : NULL),
                         0);
    }
    ck_assert_int_eq(evpt_clusterclient_apply(&world->client, &list, &diff), 0);
    ck_assert_uint_eq(diff.added_count, MANY);
    evpt_node_diff_fini(&diff);
    evpt_node_list_fini(&list);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        ck_assert_int_eq(status_of(world, name),
                         i == 77 ? EVPT_STATUS_DISCONNECT : EVPT_STATUS_DOWN);
    }
    ck_assert_int_eq(status_of(world, "m"), EVPT_STATUS_COUNT);
    ck_assert_int_eq(status_of(world, "m1000"), EVPT_STATUS_COUNT);
    uint32_t session = call(world, "m77", 5, 0, 5000);
    await_arrivals(&world->nodes[0], 1);
    answer(&world->nodes[0], 0, 0);
    ck_assert_int_eq(outcome_of(world, session)->result, 5);
    world_free(world);
}
END_TEST

/* ---- other threads look ---- */

struct onlooker {
    struct evpt_thread thread;
    struct world *world;
    atomic_bool over;
    int seen;
};

static void see(const char *name, const struct evpt_addr *addr, enum evpt_connect_status status,
                void *user)
{
    struct onlooker *onlooker = user;
    CHECK(name[0] && status < EVPT_STATUS_COUNT);
    CHECK(addr->size == 0 || evpt_addr_port(addr) > 0);
    onlooker->seen++;
}

static void look(void *user)
{
    struct onlooker *onlooker = user;
    struct evpt_clusterclient *client = &onlooker->world->client;
    while (!atomic_load(&onlooker->over)) {
        struct evpt_addr addr;
        enum evpt_connect_status status;
        if (evpt_clusterclient_lookup(client, "n1", 2, &addr, &status))
            CHECK(status < EVPT_STATUS_COUNT);
        CHECK(!evpt_clusterclient_lookup(client, "nobody", 6, &addr, &status));
        evpt_clusterclient_each(client, see, onlooker);
    }
}

START_TEST(test_clusterclient_may_be_looked_at_from_other_threads)
{
    struct world *world = world_new();
    struct onlooker onlooker = {.world = world};
    ck_assert_int_eq(evpt_thread_start(&onlooker.thread, "onlooker", look, &onlooker), 0);
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof(name), "x%d", i); /* new names: the tables grow */
        APPLY(world, entry(world, "n0", 0), entry(world, name, i % 2 ? 1 : -1));
        connect_to(world, "n0");
        APPLY(world, entry(world, "n1", i % 2 ? -1 : 1), entry(world, "n0", -1));
    }
    atomic_store(&onlooker.over, true);
    evpt_thread_join(&onlooker.thread);
    ck_assert_int_gt(onlooker.seen, 0);
    world_free(world);
}
END_TEST

/* ---- everything at once ---- */

static void random_list(struct world *world, uint64_t *random)
{
    const char *entries[NODES_MAX];
    size_t count = 0;
    for (int i = 0; i < NODES_MAX; i++) {
        uint64_t what = support_random(random) % 8;
        char name[3] = {'n', (char)('0' + i), 0};
        if (what > 0)
            entries[count++] = entry(world, name,
                                     what == 1   ? -1
                                     : what == 2 ? (i + 1) % NODES_MAX
                                                 : i);
    }
    apply(world, entries, count);
}

static void random_step(struct world *world, uint64_t *random)
{
    struct node *node = &world->nodes[support_random(random) % NODES_MAX];
    char name[3] = {'n', (char)('0' + support_random(random) % NODES_MAX), 0};
    uint64_t what = support_random(random) % 100;
    if (what < 40) {
        call(world, name, (int64_t)world->calls, support_random(random) % 10 ? 0 : 40000,
             support_random(random) % 3 ? support_random(random) % 3000 + 1 : 0);
    } else if (what < 45) {
        send_to(world, name, 0);
    } else if (what < 80 && node->arrival_count) {
        size_t which = support_random(random) % node->arrival_count;
        struct evpt_session *session = node->arrivals[which].session;
        if (session && evpt_session_is_open(session))
            answer(node, which, support_random(random) % 4 ? 0 : 7); /* now and then twice */
    } else if (what < 84) {
        world_pass_ms(world, support_random(random) % 500);
    } else if (what < 87 && node->session) {
        evpt_session_close(node->session, support_random(random) & 1, "");
    } else if (what < 89 && node->session && evpt_session_is_open(node->session)) {
        evpt_session_goaway(node->session, 11, "");
    } else if (what < 91) {
        evpt_cluster_mgr_stop_listening(&node->mgr);
    } else if (what < 95) {
        evpt_cluster_mgr_stop_listening(&node->mgr);
        (void)evpt_cluster_mgr_listen(&node->mgr, &node->addr);
    } else if (what < 97) {
        random_list(world, random);
    }
    if (support_random(random) % 3 == 0)
        world_turn(world);
}

/* world_free checks that each call got its one answer, on_answer that none got two, and the
 * invariants are checked after each event. */
START_TEST(test_clusterclient_answers_each_call_once_whatever_happens)
{
    uint64_t random = support_seed();
    struct world *world = world_new();
    world->config.cluster.pending_max = 300;
    world->config.cluster.cache_max = 50;
    world->client.next_session = UINT32_MAX - 1000;
    for (int i = 0; i < 12000; i++)
        random_step(world, &random);
    int codes[EVPT_CODE_COUNT] = {0};
    apply(world, NULL, 0); /* the end of all that still waits */
    TURN_UNTIL(world, evpt_clusterclient_pending(&world->client) == 0);
    for (uint32_t i = 1; i <= world->calls; i++)
        codes[outcome_of(world, i)->code]++;
    static const int seen[] = {EVPT_CODE_OK,      EVPT_CODE_UNKNOWN_NODE, EVPT_CODE_DISCONNECTED,
                               EVPT_CODE_TIMEOUT, EVPT_CODE_FAILED,       EVPT_CODE_CONNECT_FAILED};
    for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
        ck_assert_msg(codes[seen[i]] > 0, "never: %s", evpt_code_name(seen[i]));
    world_free(world);
}
END_TEST

SUPPORT_MAIN("clusterclient_nodes", test_clusterclient_apply_tells_the_difference,
             test_clusterclient_removed_node_answers_what_waits_and_works_again_when_it_is_back,
             test_clusterclient_changed_node_is_another_one_from_then_on,
             test_clusterclient_changed_node_forgets_the_attempt_under_way,
             test_clusterclient_removal_ends_the_back_off,
             test_clusterclient_apply_without_memory_changes_nothing,
             test_clusterclient_finds_each_of_many_nodes,
             test_clusterclient_may_be_looked_at_from_other_threads,
             test_clusterclient_answers_each_call_once_whatever_happens)
