/* Who is there: handles, generations, names. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct evpt_registry registry;

static uint32_t claim(void)
{
    struct evpt_service *service = evpt_registry_claim(&registry);
    return service ? evpt_service_handle(service) : 0;
}

static void release(uint32_t handle)
{
    struct evpt_service *service = evpt_registry_find(&registry, handle);
    CHECK(service);
    evpt_registry_release(&registry, service);
}

static int name(const char *text, uint32_t handle)
{
    return evpt_registry_name(&registry, text, strlen(text), handle);
}

static uint32_t query(const char *text)
{
    return evpt_registry_query(&registry, text, strlen(text));
}

static const char *name_of(uint32_t handle)
{
    static char buffer[65];
    return evpt_registry_name_of(&registry, handle, buffer, sizeof(buffer));
}

START_TEST(test_registry_handle_is_valid_until_it_is_released)
{
    evpt_registry_init(&registry);
    ck_assert_ptr_null(evpt_registry_find(&registry, 0));
    ck_assert_ptr_null(evpt_registry_find(&registry, 12345));
    ck_assert_ptr_null(evpt_registry_find(&registry, UINT32_MAX));
    uint32_t first = claim(), second = claim();
    ck_assert(first && second && first != second);
    struct evpt_service *service = evpt_registry_find(&registry, first);
    ck_assert_uint_eq(evpt_service_handle(service), first);
    release(first);
    ck_assert_ptr_null(evpt_registry_find(&registry, first));
    ck_assert_ptr_eq(evpt_registry_slot(&registry, first % EVPT_SLOTS_MAX), service);
    ck_assert_ptr_nonnull(evpt_registry_find(&registry, second));
    evpt_registry_fini(&registry);
}
END_TEST

/* First in first out: a handle that has just died is the last to come near again. */
START_TEST(test_registry_reuses_slots_in_order_and_with_another_generation)
{
    evpt_registry_init(&registry);
    uint32_t handles[EVPT_SLOT_CHUNK];
    for (int i = 0; i < EVPT_SLOT_CHUNK; i++)
        handles[i] = claim();
    for (int i = 0; i < EVPT_SLOT_CHUNK; i++)
        release(handles[i * 5 % EVPT_SLOT_CHUNK]);
    for (int i = 0; i < EVPT_SLOT_CHUNK; i++) {
        uint32_t again = claim(), before = handles[i * 5 % EVPT_SLOT_CHUNK];
        ck_assert_uint_eq(again % EVPT_SLOTS_MAX, before % EVPT_SLOTS_MAX);
        ck_assert_uint_ne(again, before);
        ck_assert_ptr_null(evpt_registry_find(&registry, before));
    }
    evpt_registry_fini(&registry);
}
END_TEST

START_TEST(test_registry_generations_wrap_without_a_handle_zero)
{
    evpt_registry_init(&registry);
    for (int i = 1; i < EVPT_SLOT_CHUNK; i++)
        CHECK(claim());
    uint32_t first = claim(), last = first,
             rounds = 1; /* the one slot that is left: again and again */
    ck_assert_uint_eq(first >> EVPT_SLOT_BITS, 1);
    do {
        release(last);
        uint32_t next = claim();
        CHECK(next != 0 && next != last && next >> EVPT_SLOT_BITS != 0);
        CHECK(next % EVPT_SLOTS_MAX == first % EVPT_SLOTS_MAX);
        last = next;
        rounds++;
    } while (last != first);
    ck_assert_uint_eq(rounds, EVPT_GENERATION_MAX); /* 1 to max - 1, and 1 again */
    evpt_registry_fini(&registry);
}
END_TEST

START_TEST(test_registry_holds_so_many_services_and_not_one_more)
{
    evpt_registry_init(&registry);
    for (uint32_t i = 0; i < EVPT_SLOTS_MAX; i++)
        CHECK(claim());
    ck_assert_uint_eq(claim(), 0);
    ck_assert_ptr_null(evpt_registry_slot(&registry, EVPT_SLOTS_MAX));
    uint32_t some = evpt_service_handle(evpt_registry_slot(&registry, 77777));
    release(some);
    uint32_t again = claim();
    ck_assert_uint_eq(again % EVPT_SLOTS_MAX, 77777);
    ck_assert_uint_ne(again, some);
    evpt_registry_fini(&registry);
}
END_TEST

START_TEST(test_registry_name_belongs_to_one_service)
{
    evpt_registry_init(&registry);
    uint32_t a = claim(), b = claim(), version = registry.version;
    ck_assert_uint_eq(query("room"), 0);
    ck_assert_str_eq(name_of(a), "");
    ck_assert_int_eq(name("room", a), 0);
    ck_assert_uint_ne(registry.version, version);
    version = registry.version;
    ck_assert_int_eq(name("room", a), 0); /* says nothing new */
    ck_assert_int_eq(name("room", b), -EVPT_EEXISTS);
    ck_assert_int_eq(name("hall", 99), -EVPT_ENOTFOUND);
    ck_assert_uint_eq(registry.version, version);
    ck_assert_int_eq(name("hall", a), 0); /* a second name of the same */
    ck_assert_uint_eq(query("room"), a);
    ck_assert_uint_eq(query("hall"), a);
    ck_assert_uint_eq(query("roo"), 0);
    ck_assert_uint_eq(query("room "), 0);
    ck_assert_str_eq(name_of(a), "room"); /* the first one */
    release(a);
    ck_assert_uint_eq(query("room"), 0);
    ck_assert_uint_eq(query("hall"), 0);
    ck_assert_str_eq(name_of(a), "");
    ck_assert_int_eq(name("room", b), 0);
    ck_assert_uint_eq(query("room"), b);
    evpt_registry_fini(&registry);
}
END_TEST

START_TEST(test_registry_version_tells_changes_of_names_only)
{
    evpt_registry_init(&registry);
    uint32_t version = registry.version;
    release(claim()); /* nobody's answers are old because of it */
    ck_assert_uint_eq(registry.version, version);
    uint32_t named = claim();
    ck_assert_int_eq(name("a", named), 0);
    version = registry.version;
    release(named);
    ck_assert_uint_ne(registry.version, version);
    evpt_registry_fini(&registry);
}
END_TEST

START_TEST(test_registry_names_of_any_bytes_and_length)
{
    evpt_registry_init(&registry);
    uint32_t a = claim(), b = claim();
    char buffer[8], name_with_zero[3] = {'a', 0, 'b'};
    ck_assert_int_eq(evpt_registry_name(&registry, name_with_zero, 3, a), 0);
    ck_assert_int_eq(evpt_registry_name(&registry, name_with_zero, 1, b), 0);
    ck_assert_uint_eq(evpt_registry_query(&registry, name_with_zero, 3), a);
    ck_assert_uint_eq(evpt_registry_query(&registry, name_with_zero, 1), b);
    ck_assert_uint_eq(evpt_registry_query(&registry, name_with_zero, 2), 0);
    uint32_t c = claim();
    ck_assert_int_eq(name("a_name_longer_than_the_buffer", c), 0);
    ck_assert_str_eq(evpt_registry_name_of(&registry, c, buffer, sizeof(buffer)), "a_name_");
    evpt_registry_fini(&registry);
}
END_TEST

/* Against a plain model: names come and go at random, in numbers that grow the table often. */
START_TEST(test_registry_names_agree_with_a_model)
{
    enum { SERVICES = 500, NAMES = 3000, STEPS = 30000 };
    uint64_t random = support_seed();
    static uint32_t handles[SERVICES], owner[NAMES]; /* owner: index + 1, 0: nobody */
    memset(owner, 0, sizeof(owner));
    evpt_registry_init(&registry);
    for (int i = 0; i < SERVICES; i++)
        handles[i] = claim();
    for (int step = 0; step < STEPS; step++) {
        char text[16];
        uint32_t n = support_random(&random) % NAMES, s = support_random(&random) % SERVICES;
        snprintf(text, sizeof(text), "n%u", n);
        if (support_random(&random) % 50 == 0) {
            release(handles[s]);
            handles[s] = claim();
            for (int i = 0; i < NAMES; i++)
                owner[i] = owner[i] == s + 1 ? 0 : owner[i];
        } else {
            int expected = owner[n] == 0 || owner[n] == s + 1 ? 0 : -EVPT_EEXISTS;
            CHECK(name(text, handles[s]) == expected);
            if (!expected)
                owner[n] = s + 1;
        }
        n = support_random(&random) % NAMES;
        snprintf(text, sizeof(text), "n%u", n);
        CHECK(query(text) == (owner[n] ? handles[owner[n] - 1] : 0));
    }
    evpt_registry_fini(&registry);
}
END_TEST

static void count_service(struct evpt_service *service, uint32_t handle, void *user)
{
    CHECK(handle == evpt_service_handle(service));
    ++*(int *)user;
}

START_TEST(test_registry_each_sees_the_living_and_each_slot_all)
{
    int living = 0, slots = 0;
    evpt_registry_init(&registry);
    evpt_registry_each_slot(&registry, count_service, &slots);
    ck_assert_int_eq(slots, 0);
    uint32_t a = claim();
    CHECK(claim() && claim());
    release(a);
    evpt_registry_each(&registry, count_service, &living);
    evpt_registry_each_slot(&registry, count_service, &slots);
    ck_assert_int_eq(living, 2);
    ck_assert_int_eq(slots, EVPT_SLOT_CHUNK);
    evpt_registry_fini(&registry);
}
END_TEST

/* Each allocation in turn is refused: the call fails, and what was there is there. */
START_TEST(test_registry_survives_want_of_memory)
{
    evpt_registry_init(&registry);
    uint32_t handle = 0;
    for (long nth = 1; !handle; nth++) {
        support_fail_allocation(nth);
        handle = claim();
        ck_assert_int_eq(handle == 0, support_allocation_failed());
        support_fail_allocation(0);
    }
    int done = 0;
    for (int i = 0; i < 200; i++) { /* past the table's growth */
        char text[16];
        snprintf(text, sizeof(text), "n%d", i);
        int error = -ENOMEM;
        for (long nth = 1; error; nth++) {
            support_fail_allocation(nth);
            error = name(text, handle);
            ck_assert_int_eq(error, support_allocation_failed() ? -ENOMEM : 0);
            support_fail_allocation(0);
            ck_assert_uint_eq(query(text), error ? 0 : handle);
        }
        done++;
    }
    for (int i = 0; i < done; i++) {
        char text[16];
        snprintf(text, sizeof(text), "n%d", i);
        ck_assert_uint_eq(query(text), handle);
    }
    evpt_registry_fini(&registry);
}
END_TEST

/* Readers without a lock while others claim, name and release. */
struct churn {
    struct evpt_thread thread;
    int number;
    atomic_bool *over;
};

static void churn_writer(void *user)
{
    struct churn *churn = user;
    char text[16];
    snprintf(text, sizeof(text), "t%d", churn->number);
    for (int i = 0; i < 3000; i++) {
        uint32_t handle = claim();
        CHECK(handle);
        CHECK(name(text, handle) == 0);
        CHECK(query(text) == handle);
        CHECK(evpt_registry_find(&registry, handle));
        release(handle);
        CHECK(query(text) == 0);
    }
}

static void look(struct evpt_service *service, uint32_t handle, void *user)
{
    CHECK(service && handle);
}

static void churn_reader(void *user)
{
    struct churn *churn = user;
    char buffer[16];
    while (!atomic_load(churn->over)) {
        uint32_t handle = query("t0");
        struct evpt_service *service = evpt_registry_find(&registry, handle);
        CHECK(!service || evpt_registry_slot(&registry, handle % EVPT_SLOTS_MAX) == service);
        evpt_registry_name_of(&registry, handle, buffer, sizeof(buffer));
        CHECK(buffer[0] == 0 || strcmp(buffer, "t0") == 0);
        evpt_registry_each(&registry, look, NULL);
    }
}

START_TEST(test_registry_may_be_read_while_it_changes)
{
    enum { WRITERS = 3 };
    atomic_bool over = false;
    struct churn reader = {.over = &over}, writers[WRITERS];
    evpt_registry_init(&registry);
    for (int i = 0; i < EVPT_SLOT_CHUNK - 2; i++) /* so that another chunk comes in their time */
        CHECK(claim());
    ck_assert_int_eq(evpt_thread_start(&reader.thread, "reader", churn_reader, &reader), 0);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct churn){.number = i};
        ck_assert_int_eq(evpt_thread_start(&writers[i].thread, "writer", churn_writer, &writers[i]),
                         0);
    }
    for (int i = 0; i < WRITERS; i++)
        evpt_thread_join(&writers[i].thread);
    atomic_store(&over, true);
    evpt_thread_join(&reader.thread);
    ck_assert_uint_eq(registry.name_count, 0);
    evpt_registry_fini(&registry);
}
END_TEST

SUPPORT_MAIN("registry", test_registry_handle_is_valid_until_it_is_released,
             test_registry_reuses_slots_in_order_and_with_another_generation,
             test_registry_generations_wrap_without_a_handle_zero,
             test_registry_holds_so_many_services_and_not_one_more,
             test_registry_name_belongs_to_one_service,
             test_registry_version_tells_changes_of_names_only,
             test_registry_names_of_any_bytes_and_length, test_registry_names_agree_with_a_model,
             test_registry_each_sees_the_living_and_each_slot_all,
             test_registry_survives_want_of_memory, test_registry_may_be_read_while_it_changes)
