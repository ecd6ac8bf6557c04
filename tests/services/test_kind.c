/* Kinds: their names, and what services count under them, on one worker and on several. */
#include "services/kind.h"
#include "support.h"
#include <stdio.h>
#include <string.h>

START_TEST(test_kind_is_the_same_for_the_same_script)
{
    struct evpt_kinds kinds;
    evpt_kinds_init(&kinds, 3);
    struct evpt_kind *room = evpt_kinds_get(&kinds, "room"), *hall = evpt_kinds_get(&kinds, "hall");
    ck_assert_ptr_nonnull(room);
    ck_assert_ptr_ne(room, hall);
    ck_assert_ptr_eq(evpt_kinds_get(&kinds, "room"), room);
    ck_assert_uint_eq(evpt_kinds_count(&kinds), 2);
    ck_assert_ptr_eq(kinds.kinds[hall->index], hall);
    evpt_kinds_fini(&kinds);
    evpt_kinds_fini(&kinds);
}
END_TEST

START_TEST(test_kind_names_can_be_shown)
{
    static const struct {
        const char *script, *name;
    } cases[] = {
        {"game/room", "game/room"},
        {"\xe6\x88\xbf\xe9\x97\xb4", "\xe6\x88\xbf\xe9\x97\xb4"},
        {"a\nb\x7f", "a_b_"},
        {"\xff\xe6\x88", "___"},
    };
    struct evpt_kinds kinds;
    evpt_kinds_init(&kinds, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_str_eq(evpt_kinds_get(&kinds, cases[i].script)->name, cases[i].name);
    char longest[300];
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    struct evpt_kind *kind = evpt_kinds_get(&kinds, longest);
    ck_assert_uint_eq(strlen(kind->name), EVPT_KIND_NAME_MAX);
    longest[EVPT_KIND_NAME_MAX] = 0;
    ck_assert_ptr_eq(evpt_kinds_get(&kinds, longest), kind);
    evpt_kinds_fini(&kinds);
}
END_TEST

START_TEST(test_kinds_beyond_the_limit_share_one)
{
    struct evpt_kinds kinds;
    evpt_kinds_init(&kinds, 1);
    struct evpt_kind *last = NULL;
    for (int i = 0; i < EVPT_KINDS_MAX + 10; i++) {
        char name[16];
        snprintf(name, sizeof(name), "k%d", i);
        struct evpt_kind *kind = evpt_kinds_get(&kinds, name);
        ck_assert_str_eq(kind->name, i < EVPT_KINDS_MAX - 1 ? name : "other");
        ck_assert(i < EVPT_KINDS_MAX || kind == last);
        last = kind;
    }
    ck_assert_uint_eq(evpt_kinds_count(&kinds), EVPT_KINDS_MAX);
    ck_assert_str_eq(evpt_kinds_get(&kinds, "k0")->name, "k0");
    evpt_kinds_fini(&kinds);
}
END_TEST

START_TEST(test_kind_without_memory_is_none_and_may_come_later)
{
    struct evpt_kinds kinds;
    evpt_kinds_init(&kinds, 1);
    for (long nth = 1; nth <= 2; nth++) {
        support_fail_allocation(nth);
        ck_assert_ptr_null(evpt_kinds_get(&kinds, "room"));
        ck_assert(support_allocation_failed());
    }
    support_fail_allocation(0);
    ck_assert_ptr_nonnull(evpt_kinds_get(&kinds, "room"));
    evpt_kinds_fini(&kinds);
}
END_TEST

/* ---- what services count ---- */

static uint64_t handled(const struct evpt_meter *meter, uint64_t at_most_ns)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < EVPT_HISTOGRAM_BOUNDS && evpt_histogram_bounds_ns[i] <= at_most_ns;
         i++)
        sum += atomic_load(&meter->handler.counts[i]);
    return sum;
}

static uint64_t sum_messages(struct rig *rig, struct evpt_kind *kind)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= rig->scheduler.worker_count; i++)
        sum += atomic_load(&kind->meters[i].messages);
    return sum;
}

/* Handles a message as a Lua service does: the clock at its start, then `argument` milliseconds. */
static void handle_for_a_while(struct actor *actor, struct evpt_message *message)
{
    struct rig *rig = actor->user;
    evpt_service_set_kind(actor->service, evpt_kinds_get(&rig->scheduler.kinds, "slow"));
    uint64_t began_ns = evpt_service_read_clock(actor->service);
    support_skip_ms((uint64_t)support_argument(message));
    evpt_service_handled(actor->service, began_ns);
    evpt_message_free(message);
}

START_TEST(test_kind_counts_how_long_each_handler_took)
{
    struct rig rig;
    struct actor actor = {.on_message = handle_for_a_while, .user = &rig};
    rig_init(&rig, 0, 1000);
    actor_spawn(&actor, &rig.scheduler, NULL);
    for (int i = 0; i < 3; i++) /* short ones around a long one: in one run, and none is mixed up */
        ck_assert_int_eq(post_send(&rig.scheduler, NULL, actor.handle, 0, i == 1 ? 700 : 0), 0);
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    struct evpt_kind *kind = evpt_kinds_get(&rig.scheduler.kinds, "slow");
    struct evpt_meter *meter = &kind->meters[0];
    ck_assert_uint_eq(handled(meter, 500 * EVPT_NS_PER_MS), 2);
    ck_assert_uint_eq(handled(meter, EVPT_NS_PER_S), 3);
    ck_assert_uint_ge(atomic_load(&meter->run_ns), 700 * EVPT_NS_PER_MS);
    ck_assert_uint_eq(atomic_load(&meter->messages), 3);
    rig_fini(&rig);
}
END_TEST

static void handle_many_at_once(struct actor *actor, struct evpt_message *message)
{
    struct rig *rig = actor->user;
    evpt_service_set_kind(actor->service, evpt_kinds_get(&rig->scheduler.kinds, "many"));
    for (int i = 0; i < 3 * EVPT_HANDLED_MAX + 1; i++)
        evpt_service_handled(actor->service, evpt_service_now(actor->service));
    evpt_message_free(message);
}

START_TEST(test_kind_loses_no_handler_where_many_end_at_once)
{
    struct rig rig;
    struct actor actor = {.on_message = handle_many_at_once, .user = &rig};
    rig_init(&rig, 0, 1000);
    actor_spawn(&actor, &rig.scheduler, NULL);
    ck_assert_int_eq(post_send(&rig.scheduler, NULL, actor.handle, 0, 0), 0);
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    struct evpt_kind *kind = evpt_kinds_get(&rig.scheduler.kinds, "many");
    ck_assert_uint_eq(handled(&kind->meters[0], UINT64_MAX), 3 * EVPT_HANDLED_MAX + 1);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_kind_counts_refused_messages_and_outlives_its_services)
{
    struct rig rig;
    struct actor actor = {.on_message = handle_for_a_while, .user = &rig};
    rig_init(&rig, 0, 2);
    actor_spawn(&actor, &rig.scheduler, NULL);
    ck_assert_int_eq(post_send(&rig.scheduler, NULL, actor.handle, 0, 0), 0);
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    for (int i = 0; i < 3; i++) {
        struct evpt_message *message = support_request(EVPT_MESSAGE_SEND, actor.handle, 0, 0, 0);
        int error = evpt_post(&rig.scheduler, NULL, message);
        ck_assert_int_eq(error, i < 2 ? 0 : -EVPT_ELIMIT);
        if (error)
            evpt_message_free(message);
    }
    ck_assert(evpt_scheduler_kill(&rig.scheduler, NULL, actor.handle));
    while (evpt_scheduler_step(&rig.scheduler.workers[0]))
        continue;
    ck_assert_int_eq(atomic_load(&actor.stopped), 1);
    struct evpt_kind *kind = evpt_kinds_get(&rig.scheduler.kinds, "slow");
    ck_assert_uint_eq(atomic_load(&kind->refused), 1);
    ck_assert_uint_ge(sum_messages(&rig, kind), 1);
    rig_fini(&rig);
}
END_TEST

enum { SERVICES = 8, EACH = 2000 };

static void count_as_crowd(struct actor *actor, struct evpt_message *message)
{
    struct rig *rig = actor->user;
    evpt_service_set_kind(actor->service, evpt_kinds_get(&rig->scheduler.kinds, "crowd"));
    evpt_service_handled(actor->service, evpt_service_read_clock(actor->service));
    evpt_message_free(message);
}

/* Each worker for itself: nothing is lost, and ThreadSanitizer has nothing to say, although
 * somebody reads all the time. */
START_TEST(test_kind_of_many_services_on_many_workers)
{
    struct rig rig;
    struct actor actors[SERVICES];
    rig_init(&rig, 3, 1000000);
    struct evpt_kind *kind = evpt_kinds_get(&rig.scheduler.kinds, "crowd");
    rig_start(&rig);
    for (int i = 0; i < SERVICES; i++) {
        actors[i] = (struct actor){.on_message = count_as_crowd, .user = &rig};
        actor_spawn(&actors[i], &rig.scheduler, NULL);
    }
    for (int n = 0; n < EACH; n++) {
        for (int i = 0; i < SERVICES; i++)
            CHECK(post_send(&rig.scheduler, NULL, actors[i].handle, 0, n) == 0);
    }
    UNTIL(sum_messages(&rig, kind) == SERVICES * EACH);
    rig_stop(&rig);
    uint64_t sum = 0;
    for (unsigned i = 0; i <= rig.scheduler.worker_count; i++)
        sum += handled(&kind->meters[i], UINT64_MAX) +
               atomic_load(&kind->meters[i].handler.counts[EVPT_HISTOGRAM_BOUNDS]);
    ck_assert_uint_eq(sum, SERVICES * EACH);
    rig_fini(&rig);
}
END_TEST

SUPPORT_MAIN("kind", test_kind_is_the_same_for_the_same_script, test_kind_names_can_be_shown,
             test_kinds_beyond_the_limit_share_one,
             test_kind_without_memory_is_none_and_may_come_later,
             test_kind_counts_how_long_each_handler_took,
             test_kind_loses_no_handler_where_many_end_at_once,
             test_kind_counts_refused_messages_and_outlives_its_services,
             test_kind_of_many_services_on_many_workers)
