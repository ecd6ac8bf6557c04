/* The scheduler with real threads: who runs what, in which order, and what happens to messages of
 * services that end. Handlers that do not return are in test_scheduler_long.c. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned worker_counts[] = {0, 1, 2, 4};
#define EACH_WORKER_COUNT(count)                                                                   \
    for (size_t i_ = 0; i_ < 4; i_++)                                                              \
        for (unsigned count = worker_counts[i_], once_ = 1; once_; once_ = 0)

/* ---- order ---- */

enum { SENDERS = 4, SENT = 8000 };

struct order {
    struct actor receiver;
    struct rig *rig;
    int64_t last[2 * SENDERS + 1]; /* by source */
};

static void take_in_order(struct actor *actor, struct evpt_message *message)
{
    struct order *order = actor->user;
    int64_t number = support_argument(message);
    CHECK(order->last[message->source] == number - 1);
    order->last[message->source] = number;
    evpt_message_free(message);
}

struct outside {
    struct order *order;
    uint32_t source;
    struct evpt_thread thread;
};

static void send_from_outside(void *user)
{
    struct outside *outside = user;
    struct order *order = outside->order;
    for (int64_t i = 1; i <= SENT; i++)
        CHECK(post_send(&order->rig->scheduler, NULL, order->receiver.handle, outside->source, i) ==
              0);
}

struct inside {
    struct actor actor;
    struct order *order;
    uint32_t source;
    int64_t next;
};

/* Sends as long as there is room, and goes on a little later. */
static void send_from_inside(struct actor *actor)
{
    struct inside *inside = actor->user;
    for (int i = 0; i < 50 && inside->next <= SENT; i++) {
        struct evpt_message *message = support_request(
            EVPT_MESSAGE_SEND, inside->order->receiver.handle, inside->source, 0, inside->next);
        if (evpt_post(actor->scheduler, actor_worker(actor), message) != 0) {
            evpt_message_free(message);
            break;
        }
        inside->next++;
    }
    if (inside->next <= SENT)
        evpt_service_wake_at(actor->service, evpt_sys_now_ns() + EVPT_NS_PER_MS / 4);
}

static void begin_sending(struct actor *actor, struct evpt_message *message)
{
    evpt_message_free(message);
    send_from_inside(actor);
}

START_TEST(test_scheduler_keeps_the_order_of_each_sender)
{
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct order order = {.rig = &rig, .receiver = {.on_message = take_in_order}};
        struct outside outside[SENDERS];
        struct inside insides[SENDERS];
        order.receiver.user = &order;
        rig_init(&rig, workers, 1000);
        actor_spawn(&order.receiver, &rig.scheduler, NULL);
        rig_start(&rig);
        for (uint32_t i = 0; i < SENDERS; i++) {
            insides[i] =
                (struct inside){.actor = {.on_message = begin_sending, .on_tick = send_from_inside},
                                .order = &order,
                                .source = SENDERS + 1 + i,
                                .next = 1};
            insides[i].actor.user = &insides[i];
            actor_spawn(&insides[i].actor, &rig.scheduler, NULL);
            CHECK(post_send(&rig.scheduler, NULL, insides[i].actor.handle, 0, 0) == 0);
            outside[i] = (struct outside){.order = &order, .source = 1 + i};
            CHECK(evpt_thread_start(&outside[i].thread, "sender", send_from_outside, &outside[i]) ==
                  0);
        }
        for (int i = 0; i < SENDERS; i++)
            evpt_thread_join(&outside[i].thread);
        UNTIL(atomic_load(&order.receiver.handled) == 2 * SENDERS * SENT);
        rig_fini(&rig);
        for (int i = 1; i <= 2 * SENDERS; i++)
            ck_assert_int_eq(order.last[i], SENT);
    }
}
END_TEST

/* ---- wake-ups ---- */

/* Everything sleeps, then one message comes from outside, thousands of times. */
START_TEST(test_scheduler_wakes_up_for_a_message_from_outside)
{
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct actor actor = {0};
        rig_init(&rig, workers, 10);
        actor_spawn(&actor, &rig.scheduler, NULL);
        rig_start(&rig);
        for (unsigned long i = 1; i <= 3000; i++) {
            CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 0) == 0);
            uint64_t limit_ns = support_limit_ns();
            while (atomic_load(&actor.handled) < i) /* as short as can be between two of them */
                CHECK(support_real_now_ns() < limit_ns);
        }
        rig_fini(&rig);
    }
}
END_TEST

/* A service and its partner on any workers: each message makes exactly one of them runnable. */
struct player {
    struct actor actor;
    struct player *partner;
    atomic_long left;
};

static void play(struct actor *actor, struct evpt_message *message)
{
    struct player *player = actor->user;
    evpt_message_free(message);
    if (atomic_fetch_sub(&player->left, 1) > 0)
        CHECK(post_send(actor->scheduler, actor_worker(actor), player->partner->actor.handle, 0,
                        0) == 0);
}

START_TEST(test_scheduler_loses_no_wake_up_in_long_games)
{
    enum { PAIRS = 6, ROUNDS = 8000 };
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct player players[2 * PAIRS];
        memset(players, 0, sizeof(players));
        rig_init(&rig, workers, 10);
        rig_start(&rig);
        for (int i = 0; i < 2 * PAIRS; i++) {
            players[i].actor = (struct actor){.on_message = play, .user = &players[i]};
            players[i].partner = &players[i ^ 1];
            atomic_init(&players[i].left, ROUNDS);
            actor_spawn(&players[i].actor, &rig.scheduler, NULL);
        }
        for (int i = 0; i < PAIRS; i++)
            CHECK(post_send(&rig.scheduler, NULL, players[2 * i].actor.handle, 0, 0) == 0);
        for (int i = 0; i < PAIRS; i++)
            UNTIL(atomic_load(&players[2 * i].left) < 0);
        rig_fini(&rig);
    }
}
END_TEST

/* The loop's own work reaches services, and they reach the loop. */
struct bridge {
    struct evpt_pair pair;
    struct rig *rig;
    struct actor actor;
    uint32_t handle; /* pinned */
    atomic_long left;
};

static void on_bridge(void *user, struct evpt_mpsc_node *list)
{
    struct bridge *bridge = user;
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        evpt_message_free(message);
        if (atomic_fetch_sub(&bridge->left, 1) > 0)
            CHECK(post_send(&bridge->rig->scheduler,
                            evpt_scheduler_loop_worker(&bridge->rig->scheduler),
                            bridge->actor.handle, 0, 0) == 0);
    }
}

static void cross_back(struct actor *actor, struct evpt_message *message)
{
    struct bridge *bridge = actor->user;
    evpt_message_free(message);
    CHECK(post_send(actor->scheduler, actor_worker(actor), bridge->handle, 0, 0) == 0);
}

START_TEST(test_scheduler_loses_no_wake_up_between_loop_and_services)
{
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct bridge bridges[3];
        memset(bridges, 0, sizeof(bridges));
        rig_init(&rig, workers, 10);
        for (int i = 0; i < 3; i++) {
            bridges[i].rig = &rig;
            bridges[i].actor = (struct actor){.on_message = cross_back, .user = &bridges[i]};
            atomic_init(&bridges[i].left, 5000);
            ck_assert_int_eq(evpt_pair_init(&bridges[i].pair, rig.loop, on_bridge, &bridges[i]), 0);
            bridges[i].handle = evpt_scheduler_pin(&rig.scheduler, &bridges[i].pair, NULL);
            actor_spawn(&bridges[i].actor, &rig.scheduler, NULL);
        }
        rig_start(&rig);
        for (int i = 0; i < 3; i++)
            CHECK(post_send(&rig.scheduler, NULL, bridges[i].handle, 0, 0) == 0);
        for (int i = 0; i < 3; i++)
            UNTIL(atomic_load(&bridges[i].left) < 0);
        rig_stop(&rig);
        for (int i = 0; i < 3; i++)
            evpt_pair_fini(&bridges[i].pair);
        rig_fini(&rig);
    }
}
END_TEST

START_TEST(test_scheduler_at_rest_does_nothing)
{
    struct rig rig;
    struct actor actor = {0};
    rig_init(&rig, 2, 10);
    actor_spawn(&actor, &rig.scheduler, NULL);
    rig_start(&rig);
    CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 0) == 0);
    UNTIL(atomic_load(&actor.handled) == 1);
    UNTIL(atomic_load(&rig.scheduler.watcher_rests)); /* after EVPT_WATCH_QUIET ticks */
    unsigned long waits = support_waits();
    uint64_t until_ns = evpt_sys_now_ns() + 100 * EVPT_NS_PER_MS;
    while (evpt_sys_now_ns() < until_ns) /* the length of fifty ticks */
        support_pause();
    ck_assert_uint_le(support_waits() - waits, 1); /* the watcher's own, just now */
    CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 0) == 0);
    UNTIL(atomic_load(&actor.handled) == 2); /* and yet it wakes up */
    rig_fini(&rig);
}
END_TEST

/* ---- the end of services ---- */

/* Collects replies: each session is to be answered once. */
struct collector {
    struct actor actor;
    atomic_int answers[4096];
    atomic_int codes[EVPT_CODE_COUNT];
};

static void collect(struct actor *actor, struct evpt_message *message)
{
    struct collector *collector = actor->user;
    if (message->kind == EVPT_MESSAGE_REPLY) {
        CHECK(message->session < 4096);
        CHECK(atomic_fetch_add(&collector->answers[message->session], 1) == 0);
        atomic_fetch_add(&collector->codes[message->code], 1);
    }
    evpt_message_free(message);
}

static void collector_spawn(struct collector *collector, struct rig *rig)
{
    memset(collector, 0, sizeof(*collector));
    collector->actor = (struct actor){.on_message = collect, .user = collector};
    actor_spawn(&collector->actor, &rig->scheduler, NULL);
}

static void check_collected(struct collector *collector, uint32_t count)
{
    UNTIL(atomic_load(&collector->actor.handled) == count);
    for (uint32_t i = 1; i <= count; i++)
        ck_assert_int_eq(atomic_load(&collector->answers[i]), 1);
}

START_TEST(test_scheduler_kill_answers_each_waiting_call_once)
{
    enum { CALLS = 2000 };
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct collector collector;
        struct actor victim = {0};
        rig_init(&rig, workers, 10000);
        collector_spawn(&collector, &rig);
        actor_spawn(&victim, &rig.scheduler, NULL);
        /* all is in the mailbox before any worker runs */
        for (uint32_t i = 1; i <= CALLS; i++)
            ck_assert_int_eq(evpt_post(&rig.scheduler, NULL,
                                       support_request(EVPT_MESSAGE_CALL, victim.handle,
                                                       collector.actor.handle, i, i)),
                             0);
        for (int i = 0; i < 10; i++)
            CHECK(post_send(&rig.scheduler, NULL, victim.handle, 0, 0) == 0);
        ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, victim.handle));
        ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, victim.handle)); /* not gone yet */
        rig_start(&rig);
        check_collected(&collector, CALLS);
        ck_assert_int_eq(collector.codes[EVPT_CODE_UNKNOWN_SERVICE], CALLS);
        UNTIL(atomic_load(&rig.scheduler.bounced) == 10);
        ck_assert_int_eq(victim.stopped, 1);
        ck_assert_uint_eq(victim.consumed, 0); /* it was killed before its first message */
        struct evpt_message *late = support_request(EVPT_MESSAGE_CALL, victim.handle, 0, 1, 1);
        ck_assert_int_eq(evpt_post(&rig.scheduler, NULL, late), -EVPT_ENOTFOUND);
        evpt_message_free(late);
        ck_assert(!evpt_scheduler_kill(&rig.scheduler, NULL, victim.handle));
        rig_fini(&rig);
    }
}
END_TEST

static void exit_at_hundred(struct actor *actor, struct evpt_message *message)
{
    actor_echo(actor, message);
    CHECK(actor->consumed <= 100);
    if (actor->consumed == 100)
        evpt_service_exit(actor->service);
}

START_TEST(test_scheduler_exit_answers_what_was_not_handled)
{
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct collector collector;
        struct actor actor = {.on_message = exit_at_hundred};
        rig_init(&rig, workers, 10000);
        collector_spawn(&collector, &rig);
        actor_spawn(&actor, &rig.scheduler, NULL);
        rig_start(&rig);
        for (uint32_t i = 1; i <= 1000; i++) {
            struct evpt_message *call =
                support_request(EVPT_MESSAGE_CALL, actor.handle, collector.actor.handle, i, i);
            if (evpt_post(&rig.scheduler, NULL, call) != 0)
                evpt_bounce(&rig.scheduler, NULL, call, EVPT_CODE_UNKNOWN_SERVICE, "gone");
        }
        check_collected(&collector, 1000);
        ck_assert_int_eq(collector.codes[EVPT_CODE_OK], 100);
        ck_assert_int_eq(collector.codes[EVPT_CODE_UNKNOWN_SERVICE], 900);
        ck_assert_int_eq(actor.stopped, 1);
        rig_fini(&rig);
    }
}
END_TEST

/* One slot is left and goes from service to service, while messages for all of them come in. */
struct tenant {
    struct actor actor;
    struct collector *collector;
};

enum { TENANTS = 400, CALLS_EACH = 10 };

static void call_tenant(void *user)
{
    struct tenant *tenant = user;
    struct evpt_scheduler *scheduler = tenant->actor.scheduler;
    static atomic_uint session; /* 1 .. TENANTS * CALLS_EACH */
    for (int i = 0; i < CALLS_EACH; i++) {
        struct evpt_message *call =
            support_request(EVPT_MESSAGE_CALL, tenant->actor.handle,
                            tenant->collector->actor.handle, atomic_fetch_add(&session, 1) + 1, 0);
        if (evpt_post(scheduler, NULL, call) != 0)
            evpt_bounce(scheduler, NULL, call, EVPT_CODE_UNKNOWN_SERVICE, "gone");
    }
}

START_TEST(test_scheduler_slot_is_reused_while_messages_for_the_old_one_are_queued)
{
    struct rig rig;
    static struct collector collector;
    static struct tenant tenants[TENANTS];
    struct actor dummies[EVPT_SLOT_CHUNK - 2];
    rig_init(&rig, 2, 100000);
    collector_spawn(&collector, &rig);
    memset(dummies, 0, sizeof(dummies));
    for (size_t i = 0; i < EVPT_SLOT_CHUNK - 2; i++)
        actor_spawn(&dummies[i], &rig.scheduler, NULL);
    rig_start(&rig);
    uint32_t slot = 0;
    for (int i = 0; i < TENANTS; i++) {
        struct tenant *tenant = &tenants[i];
        tenant->collector = &collector;
        actor_spawn(&tenant->actor, &rig.scheduler, NULL);
        if (i == 0)
            slot = tenant->actor.handle % EVPT_SLOTS_MAX;
        ck_assert_uint_eq(tenant->actor.handle % EVPT_SLOTS_MAX, slot);
        struct evpt_thread caller = {0};
        ck_assert_int_eq(evpt_thread_start(&caller, "caller", call_tenant, tenant), 0);
        if (i % 3)
            UNTIL(atomic_load(&tenant->actor.handled) > 0 || i % 3 == 2);
        ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, tenant->actor.handle));
        if (i % 2)
            evpt_thread_join(&caller); /* else the calls run on into the next one's time */
        UNTIL(!evpt_registry_find(&rig.scheduler.registry, tenant->actor.handle));
        if (i % 2 == 0)
            evpt_thread_join(&caller);
        ck_assert_int_eq(tenant->actor.stopped, 1);
    }
    check_collected(&collector, TENANTS * CALLS_EACH);
    rig_fini(&rig);
}
END_TEST

/* The moment between the release of a slot and the START of its next inhabitant: what the worker
 * finds in the mailbox then may be that START. */
START_TEST(test_scheduler_start_comes_while_the_old_ones_messages_are_bounced)
{
    struct rig rig;
    struct actor dummies[EVPT_SLOT_CHUNK - 1];
    static struct actor tenants[300];
    rig_init(&rig, 1, 100000);
    memset(dummies, 0, sizeof(dummies));
    for (size_t i = 0; i < EVPT_SLOT_CHUNK - 1; i++)
        actor_spawn(&dummies[i], &rig.scheduler, NULL);
    rig_start(&rig);
    for (int i = 0; i < 300; i++) {
        actor_spawn(&tenants[i], &rig.scheduler, NULL);
        ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, tenants[i].handle));
        for (int k = 0; k < 200; k++)
            (void)post_send(&rig.scheduler, NULL, tenants[i].handle, 0, 0);
        uint64_t limit_ns = support_limit_ns();
        while (evpt_registry_find(&rig.scheduler.registry, tenants[i].handle))
            CHECK(support_real_now_ns() < limit_ns); /* no pause: the next one comes at once */
    }
    struct actor last = {0};
    actor_spawn(&last, &rig.scheduler, NULL);
    CHECK(post_send(&rig.scheduler, NULL, last.handle, 0, 0) == 0);
    UNTIL(atomic_load(&last.handled) == 1);
    for (int i = 0; i < 300; i++)
        ck_assert_int_eq(tenants[i].stopped, 1);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_scheduler_kill_is_not_lost_to_a_late_kill_of_the_earlier_one)
{
    struct rig rig;
    struct actor actor = {0};
    rig_init(&rig, 1, 10);
    actor_spawn(&actor, &rig.scheduler, NULL);
    struct evpt_service *slot = evpt_registry_find(&rig.scheduler.registry, actor.handle);
    ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, actor.handle));
    /* what a thread does that found the inhabitant before this one, and was held up since */
    atomic_store(&slot->kill_requested, actor.handle - EVPT_SLOTS_MAX);
    rig_start(&rig);
    UNTIL(atomic_load(&actor.stopped));
    rig_fini(&rig);
}
END_TEST

START_TEST(test_scheduler_kill_takes_no_memory)
{
    struct rig rig;
    struct actor actor = {0};
    rig_init(&rig, 1, 10);
    actor_spawn(&actor, &rig.scheduler, NULL);
    rig_start(&rig);
    UNTIL(support_waits() > 0); /* idle: it has to be woken */
    support_refuse_memory(true);
    ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, actor.handle));
    support_refuse_memory(false);
    UNTIL(atomic_load(&actor.stopped));
    rig_fini(&rig);
}
END_TEST

START_TEST(test_scheduler_pinned_services_cannot_be_killed)
{
    struct rig rig;
    struct bridge bridge = {.rig = &rig};
    rig_init(&rig, 0, 10);
    ck_assert_int_eq(evpt_pair_init(&bridge.pair, rig.loop, on_bridge, &bridge), 0);
    bridge.handle = evpt_scheduler_pin(&rig.scheduler, &bridge.pair, NULL);
    ck_assert(!evpt_scheduler_kill(&rig.scheduler, NULL, bridge.handle));
    evpt_pair_fini(&bridge.pair);
    rig_fini(&rig);
}
END_TEST

/* ---- bounds ---- */

START_TEST(test_scheduler_mailbox_is_bounded_for_requests_only)
{
    struct rig rig;
    struct actor actor = {0};
    rig_init(&rig, 0, 5);
    actor_spawn(&actor, &rig.scheduler, NULL);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(evpt_post(&rig.scheduler, NULL,
                                   support_request(i % 2 ? EVPT_MESSAGE_CALL : EVPT_MESSAGE_SEND,
                                                   actor.handle, 0, 0, 0)),
                         0);
    struct evpt_message *sixth = support_request(EVPT_MESSAGE_CALL, actor.handle, 0, 0, 0);
    ck_assert_int_eq(evpt_post(&rig.scheduler, NULL, sixth), -EVPT_ELIMIT);
    evpt_post_reply(&rig.scheduler, NULL, actor.handle, 1, evpt_reply_error(7, "", 0));
    struct evpt_service *service = evpt_registry_find(&rig.scheduler.registry, actor.handle);
    ck_assert_uint_eq(atomic_load(&service->waiting), 5);
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    ck_assert_uint_eq(actor.consumed, 6);
    ck_assert_uint_eq(atomic_load(&service->refused), 1);
    ck_assert_uint_eq(atomic_load(&service->messages), 6);
    ck_assert_int_eq(evpt_post(&rig.scheduler, NULL, sixth), 0); /* it had stayed ours */
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    ck_assert_uint_eq(actor.consumed, 7);
    rig_fini(&rig);
}
END_TEST

static void look_at_busy(struct actor *actor, struct evpt_message *message)
{
    const struct actor *busy = actor->user;
    CHECK(busy->consumed >= 1 && busy->consumed <= EVPT_RUN_MESSAGES);
    evpt_message_free(message);
}

START_TEST(test_scheduler_one_turn_of_a_service_is_bounded)
{
    struct rig rig;
    struct actor busy = {0}, other = {.on_message = look_at_busy, .user = &busy};
    rig_init(&rig, 0, 10 * EVPT_RUN_MESSAGES);
    actor_spawn(&busy, &rig.scheduler, NULL);
    actor_spawn(&other, &rig.scheduler, NULL);
    for (int i = 0; i < 4 * EVPT_RUN_MESSAGES; i++)
        CHECK(post_send(&rig.scheduler, NULL, busy.handle, 0, 0) == 0);
    CHECK(post_send(&rig.scheduler, NULL, other.handle, 0, 0) == 0);
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    ck_assert_uint_eq(other.consumed, 1);
    ck_assert_uint_eq(busy.consumed, 4 * EVPT_RUN_MESSAGES);
    rig_fini(&rig);
}
END_TEST

/* ---- timers ---- */

struct sleeper {
    struct actor actor;
    uint64_t due_ns, random;
    long early, left;
    atomic_long done;
};

static void sleep_on(struct sleeper *sleeper)
{
    sleeper->due_ns = evpt_sys_now_ns() + support_random(&sleeper->random) % (4 * EVPT_NS_PER_MS);
    evpt_service_wake_at(sleeper->actor.service, sleeper->due_ns);
}

static void wake_up(struct actor *actor)
{
    struct sleeper *sleeper = actor->user;
    if (!sleeper->left)
        return;
    if (evpt_service_now(actor->service) < sleeper->due_ns) {
        sleeper->early++;
        evpt_service_wake_at(actor->service, sleeper->due_ns);
        return;
    }
    CHECK(evpt_sys_now_ns() >= sleeper->due_ns);
    sleeper->left--;
    atomic_fetch_add(&sleeper->done, 1);
    if (sleeper->left)
        sleep_on(sleeper);
}

static void go_to_sleep(struct actor *actor, struct evpt_message *message)
{
    struct sleeper *sleeper = actor->user;
    evpt_message_free(message);
    if (sleeper->due_ns == 0)
        sleep_on(sleeper);
}

START_TEST(test_scheduler_ticks_are_never_early_and_never_lost)
{
    enum { SLEEPERS = 20, ROUNDS = 30 };
    uint64_t seed = support_seed();
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct sleeper sleepers[SLEEPERS];
        memset(sleepers, 0, sizeof(sleepers));
        rig_init(&rig, workers, 100);
        rig_start(&rig);
        for (int i = 0; i < SLEEPERS; i++) {
            sleepers[i].actor =
                (struct actor){.on_message = go_to_sleep, .on_tick = wake_up, .user = &sleepers[i]};
            sleepers[i].left = ROUNDS;
            sleepers[i].random = support_random(&seed);
            actor_spawn(&sleepers[i].actor, &rig.scheduler, NULL);
        }
        /* messages keep half of them busy while they sleep */
        for (int round = 0;; round++) {
            int done = 0;
            for (int i = 0; i < SLEEPERS; i++) {
                if (round == 0 || i % 2)
                    CHECK(post_send(&rig.scheduler, NULL, sleepers[i].actor.handle, 0, 0) == 0);
                done += atomic_load(&sleepers[i].done) == ROUNDS;
            }
            if (done == SLEEPERS)
                break;
            CHECK(round < 400000);
            support_pause();
        }
        rig_fini(&rig);
        for (int i = 0; i < SLEEPERS; i++)
            ck_assert_int_eq(sleepers[i].early, 0);
    }
}
END_TEST

static void wake_twice(struct actor *actor, struct evpt_message *message)
{
    evpt_message_free(message);
    uint64_t *asked = actor->user;
    asked[0] = evpt_service_now(actor->service) + EVPT_NS_PER_S * 3600;
    asked[1] = evpt_service_now(actor->service) + EVPT_NS_PER_MS;
    evpt_service_wake_at(actor->service, asked[0]);
    evpt_service_wake_at(actor->service, asked[1]);
}

static void note_tick(struct actor *actor)
{
    uint64_t *asked = actor->user;
    CHECK(evpt_service_now(actor->service) >= asked[1]);
    evpt_service_exit(actor->service);
}

START_TEST(test_scheduler_an_earlier_wish_brings_the_tick_forward)
{
    struct rig rig;
    uint64_t asked[2];
    struct actor actor = {.on_message = wake_twice, .on_tick = note_tick, .user = asked};
    rig_init(&rig, 1, 10);
    actor_spawn(&actor, &rig.scheduler, NULL);
    rig_start(&rig);
    CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 0) == 0);
    UNTIL(atomic_load(&actor.stopped));
    rig_fini(&rig); /* with a timer set for the slot */
}
END_TEST

/* Its handler is inside until the time has come and the tick is in its mailbox. */
static void wait_for_own_tick(struct actor *actor, struct evpt_message *message)
{
    uint64_t *asked = actor->user, limit_ns = support_limit_ns();
    bool quick = support_argument(message) == 0;
    evpt_message_free(message);
    if (quick)
        return;
    asked[1] = evpt_sys_now_ns() + EVPT_NS_PER_MS;
    evpt_service_wake_at(actor->service, asked[1]);
    while (!atomic_load(&actor->service->tick_queued))
        CHECK(support_real_now_ns() < limit_ns);
}

START_TEST(test_scheduler_a_tick_that_came_during_the_run_is_not_early_by_its_clock)
{
    struct rig rig;
    uint64_t asked[2];
    struct actor actor = {.on_message = wait_for_own_tick, .on_tick = note_tick, .user = asked};
    rig_init(&rig, 1, 1000);
    actor_spawn(&actor, &rig.scheduler, NULL);
    rig_start(&rig);
    for (unsigned long i = 1; i <= 200;
         i++) { /* learns that it is short: the clock is read rarely */
        CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 0) == 0);
        UNTIL(atomic_load(&actor.handled) == i);
    }
    CHECK(post_send(&rig.scheduler, NULL, actor.handle, 0, 1) == 0);
    UNTIL(atomic_load(&actor.stopped));
    rig_fini(&rig);
}
END_TEST

/* ---- start, stop, steps ---- */

static void play_for_ever(struct actor *actor, struct evpt_message *message)
{
    struct player *player = actor->user;
    evpt_message_free(message);
    (void)post_send(actor->scheduler, actor_worker(actor), player->partner->actor.handle, 0, 0);
    evpt_service_wake_at(actor->service, evpt_sys_now_ns() + EVPT_NS_PER_MS);
}

START_TEST(test_scheduler_stops_with_work_queued)
{
    EACH_WORKER_COUNT(workers)
    {
        struct rig rig;
        struct player players[8];
        memset(players, 0, sizeof(players));
        rig_init(&rig, workers, 1000);
        for (int i = 0; i < 8; i++) {
            players[i].actor = (struct actor){.on_message = play_for_ever, .user = &players[i]};
            players[i].partner = &players[i ^ 1];
            actor_spawn(&players[i].actor, &rig.scheduler, NULL);
            CHECK(post_send(&rig.scheduler, NULL, players[i].actor.handle, 0, 0) == 0);
        }
        rig_start(&rig);
        UNTIL(atomic_load(&players[7].actor.handled) > 100);
        rig_stop(&rig);
        struct actor unborn = {0}; /* nobody runs its START any more */
        actor_spawn(&unborn, &rig.scheduler, NULL);
        CHECK(post_send(&rig.scheduler, NULL, unborn.handle, 0, 0) == 0);
        rig_fini(&rig);
        for (int i = 0; i < 8; i++)
            ck_assert_int_eq(players[i].actor.stopped, 1);
        ck_assert_int_eq(unborn.stopped, 1);
    }
}
END_TEST

static void just_take(struct evpt_service *service)
{
    struct evpt_message *message;
    while ((message = evpt_service_next(service)) != NULL)
        evpt_message_free(message);
}

/* So long that the holder of the loop does nothing else in this step. */
static void stop_slowly(struct evpt_service *service)
{
    struct actor *actor = service->user;
    uint64_t until_ns = evpt_sys_now_ns() + 2 * EVPT_LEND_NS;
    while (evpt_sys_now_ns() < until_ns)
        continue;
    atomic_fetch_add(&actor->stopped, 1);
}

/* A service whose slot is free has messages left when the scheduler stops. */
START_TEST(test_scheduler_fini_frees_what_is_left_for_services_that_have_ended)
{
    static const struct evpt_service_ops ops = {.run = just_take, .stop = stop_slowly};
    struct rig rig;
    struct actor actors[2];
    memset(actors, 0, sizeof(actors));
    rig_init(&rig, 0, 10 * EVPT_RUN_MESSAGES);
    for (int i = 0; i < 2; i++) { /* after the first one a step may go on, after the second not */
        actors[i].handle = evpt_scheduler_spawn(&rig.scheduler, NULL, &ops, &actors[i]);
        for (int k = 0; k < 10; k++)
            CHECK(post_send(&rig.scheduler, NULL, actors[i].handle, 0, 0) == 0);
        ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, actors[i].handle));
    }
    evpt_scheduler_step(&rig.scheduler.workers[0]);
    ck_assert_int_eq(actors[1].stopped, 1);
    ck_assert_ptr_null(evpt_registry_find(&rig.scheduler.registry, actors[1].handle));
    ck_assert_uint_lt(atomic_load(&rig.scheduler.bounced), 20);
    rig_fini(&rig);
}
END_TEST

static void say_goodbye(struct evpt_service *service)
{
    struct actor *actor = service->user;
    struct player *player = actor->user;
    atomic_fetch_add(&actor->stopped, 1);
    (void)post_send(actor->scheduler, NULL, player->partner->actor.handle, 0, 0);
    evpt_service_wake_at(service, evpt_sys_now_ns());
}

START_TEST(test_scheduler_services_may_speak_while_they_are_stopped)
{
    static const struct evpt_service_ops ops = {.run = just_take, .stop = say_goodbye};
    struct rig rig;
    struct player players[2];
    memset(players, 0, sizeof(players));
    rig_init(&rig, 1, 10);
    for (int i = 0; i < 2; i++) {
        players[i].actor = (struct actor){.scheduler = &rig.scheduler, .user = &players[i]};
        players[i].partner = &players[i ^ 1];
        players[i].actor.handle =
            evpt_scheduler_spawn(&rig.scheduler, NULL, &ops, &players[i].actor);
        ck_assert_uint_ne(players[i].actor.handle, 0);
    }
    rig_start(&rig);
    rig_fini(&rig);
    ck_assert_int_eq(players[0].actor.stopped, 1);
    ck_assert_int_eq(players[1].actor.stopped, 1);
}
END_TEST

START_TEST(test_scheduler_start_that_fails_leaves_no_thread_behind)
{
    for (int nth = 1; nth <= 3; nth++) {
        struct rig rig;
        struct actor actor = {0};
        rig_init(&rig, 2, 10);
        actor_spawn(&actor, &rig.scheduler, NULL);
        support_fail_thread(nth);
        ck_assert_int_lt(evpt_scheduler_start(&rig.scheduler), 0);
        ck_assert(evpt_loop_is_mine(rig.loop));
        rig_fini(&rig);
        ck_assert_int_eq(actor.stopped, 1);
    }
}
END_TEST

START_TEST(test_scheduler_join_until_gives_up_at_the_deadline)
{
    struct rig rig;
    rig_init(&rig, 1, 10);
    rig_start(&rig);
    ck_assert(!evpt_scheduler_join_until(&rig.scheduler, evpt_sys_now_ns() + EVPT_NS_PER_MS));
    rig_fini(&rig);
}
END_TEST

START_TEST(test_scheduler_can_be_stepped_by_one_thread)
{
    static const unsigned counts[] = {0, 1, 3};
    for (size_t c = 0; c < 3; c++) {
        struct rig rig;
        struct player players[2];
        memset(players, 0, sizeof(players));
        rig_init(&rig, counts[c], 10);
        for (int i = 0; i < 2; i++) {
            players[i].actor = (struct actor){.on_message = play, .user = &players[i]};
            players[i].partner = &players[i ^ 1];
            atomic_init(&players[i].left, 100);
            actor_spawn(&players[i].actor, &rig.scheduler, NULL);
        }
        CHECK(post_send(&rig.scheduler, NULL, players[0].actor.handle, 0, 0) == 0);
        for (int idle = 0; idle < 2;) {
            bool any = false;
            for (unsigned i = 0; i <= counts[c]; i++)
                any = evpt_scheduler_step(&rig.scheduler.workers[i]) || any;
            idle = any ? 0 : idle + 1;
        }
        ck_assert_int_lt(atomic_load(&players[0].left), 0);
        rig_fini(&rig);
    }
}
END_TEST

START_TEST(test_scheduler_init_without_memory_leaves_nothing)
{
    long nth = 0;
    do {
        struct evpt_loop *loop;
        struct evpt_scheduler scheduler;
        ck_assert_int_eq(evpt_loop_new(&loop), 0);
        support_fail_allocation(++nth);
        int error = evpt_scheduler_init(&scheduler, 2, 10, loop);
        ck_assert_int_eq(error != 0, support_allocation_failed());
        support_fail_allocation(support_allocation_failed() ? 0 : nth);
        evpt_scheduler_fini(&scheduler);
        evpt_loop_free(loop);
        support_fail_allocation(0);
        if (!error)
            break;
    } while (nth < 100);
    ck_assert_int_lt(nth, 100);
}
END_TEST

START_TEST(test_scheduler_spawn_without_memory_leaves_user_with_the_caller)
{
    struct rig rig;
    struct actor actor = {0};
    static const struct evpt_service_ops ops = {.run = just_take, .stop = say_goodbye};
    rig_init(&rig, 0, 10);
    for (long nth = 1;; nth++) {
        support_fail_allocation(nth);
        bool needed = evpt_scheduler_spawn(&rig.scheduler, NULL, &ops, &actor) == 0;
        ck_assert_int_eq(needed, support_allocation_failed());
        support_fail_allocation(0);
        ck_assert_int_eq(actor.stopped, 0);
        if (!needed)
            break;
    }
    struct player player = {.actor = actor, .partner = &player};
    actor.user = &player; /* for its goodbye */
    actor.scheduler = &rig.scheduler;
    rig_fini(&rig);
    ck_assert_int_eq(actor.stopped, 1);
}
END_TEST

SUPPORT_MAIN("scheduler", test_scheduler_keeps_the_order_of_each_sender,
             test_scheduler_wakes_up_for_a_message_from_outside,
             test_scheduler_loses_no_wake_up_in_long_games,
             test_scheduler_loses_no_wake_up_between_loop_and_services,
             test_scheduler_at_rest_does_nothing,
             test_scheduler_kill_answers_each_waiting_call_once,
             test_scheduler_exit_answers_what_was_not_handled,
             test_scheduler_slot_is_reused_while_messages_for_the_old_one_are_queued,
             test_scheduler_start_comes_while_the_old_ones_messages_are_bounced,
             test_scheduler_kill_is_not_lost_to_a_late_kill_of_the_earlier_one,
             test_scheduler_kill_takes_no_memory, test_scheduler_pinned_services_cannot_be_killed,
             test_scheduler_mailbox_is_bounded_for_requests_only,
             test_scheduler_one_turn_of_a_service_is_bounded,
             test_scheduler_ticks_are_never_early_and_never_lost,
             test_scheduler_an_earlier_wish_brings_the_tick_forward,
             test_scheduler_a_tick_that_came_during_the_run_is_not_early_by_its_clock,
             test_scheduler_stops_with_work_queued,
             test_scheduler_fini_frees_what_is_left_for_services_that_have_ended,
             test_scheduler_services_may_speak_while_they_are_stopped,
             test_scheduler_start_that_fails_leaves_no_thread_behind,
             test_scheduler_join_until_gives_up_at_the_deadline,
             test_scheduler_can_be_stepped_by_one_thread,
             test_scheduler_init_without_memory_leaves_nothing,
             test_scheduler_spawn_without_memory_leaves_user_with_the_caller)
