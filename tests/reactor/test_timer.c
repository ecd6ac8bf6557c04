#include "support.h"
#include "reactor/timer.h"
#include <stdlib.h>

#define TICK EVPT_TIMER_TICK_NS
#define DAY (86400 * EVPT_NS_PER_S)

static const uint64_t START_NS = 1000 * TICK + 17;

struct fixture {
    struct evpt_timer_wheel wheel;
    uint64_t now_ns;
    int fired[64];
    int count;
};

struct entry {
    struct evpt_timer timer;
    struct fixture *fixture;
    int id;
};

static void begin(struct fixture *f)
{
    *f = (struct fixture){.now_ns = START_NS};
    evpt_timer_wheel_init(&f->wheel, f->now_ns);
    evpt_timer_wheel_check(&f->wheel);
}

static void end(struct fixture *f)
{
    evpt_timer_wheel_fini(&f->wheel);
    ck_assert_uint_eq(evpt_timer_wheel_count(&f->wheel), 0);
}

static size_t advance_to(struct fixture *f, uint64_t now_ns)
{
    f->now_ns = now_ns;
    size_t fired = evpt_timer_wheel_advance(&f->wheel, now_ns);
    evpt_timer_wheel_check(&f->wheel);
    return fired;
}

static void note(struct evpt_timer *timer, void *user)
{
    struct entry *entry = user;
    ck_assert(!evpt_timer_is_running(timer));
    entry->fixture->fired[entry->fixture->count++] = entry->id;
}

static void start(struct fixture *f, struct entry *entry, int id, uint64_t deadline_ns)
{
    entry->fixture = f;
    entry->id = id;
    evpt_timer_start(&f->wheel, &entry->timer, deadline_ns, note, entry);
    evpt_timer_wheel_check(&f->wheel);
}

START_TEST(test_fires_neither_early_nor_more_than_a_tick_late)
{
    static const uint64_t after[] = {
        1,           TICK - 1, TICK, TICK + 1, 63 * TICK, 64 * TICK, 65 * TICK + 5,
        4095 * TICK, DAY / 24, DAY,  12 * DAY, 14 * DAY,  400 * DAY, 100 * 365 * DAY};
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
        struct fixture f;
        struct entry entry = {0};
        begin(&f);
        uint64_t deadline_ns = f.now_ns + after[i];
        start(&f, &entry, 1, deadline_ns);
        ck_assert_uint_eq(advance_to(&f, deadline_ns - 1), 0);
        advance_to(&f, deadline_ns + TICK - 1);
        ck_assert_int_eq(f.count, 1);
        end(&f);
    }
}
END_TEST

START_TEST(test_fires_in_order_of_ticks_then_of_starts)
{
    struct fixture f;
    struct entry entries[5] = {0};
    begin(&f);
    uint64_t tick_ns = START_NS / TICK * TICK;
    start(&f, &entries[0], 0, tick_ns + 200 * TICK);
    start(&f, &entries[1], 1, tick_ns + 100 * TICK + 900);
    start(&f, &entries[2], 2, tick_ns + 100 * TICK + 100); /* same tick: later start, later turn */
    advance_to(&f, tick_ns + 70 * TICK); /* the first ones have moved down a level by now */
    start(&f, &entries[3], 3, tick_ns + 100 * TICK + 1);
    start(&f, &entries[4], 4, tick_ns + 100 * TICK);
    ck_assert_uint_eq(advance_to(&f, tick_ns + 300 * TICK), 5);
    static const int expected[] = {4, 1, 2, 3, 0};
    ck_assert_mem_eq(f.fired, expected, sizeof(expected));
    end(&f);
}
END_TEST

START_TEST(test_deadline_in_the_past_fires_in_the_next_advance)
{
    struct fixture f;
    struct entry entries[2] = {0};
    begin(&f);
    start(&f, &entries[0], 0, 0);
    start(&f, &entries[1], 1, START_NS);
    ck_assert_uint_eq(advance_to(&f, START_NS + TICK), 2);
    end(&f);
}
END_TEST

START_TEST(test_forever_never_fires)
{
    struct fixture f;
    struct entry entry = {0};
    begin(&f);
    start(&f, &entry, 0, EVPT_FOREVER);
    ck_assert_uint_eq(advance_to(&f, UINT64_MAX - 1), 0);
    ck_assert_uint_eq(advance_to(&f, UINT64_MAX), 0);
    ck_assert_uint_eq(evpt_timer_wheel_count(&f.wheel), 1);
    end(&f);
    ck_assert(!evpt_timer_is_running(&entry.timer));
}
END_TEST

START_TEST(test_restart_moves_the_deadline)
{
    struct fixture f;
    struct entry entry = {0};
    begin(&f);
    start(&f, &entry, 0, START_NS + 5 * TICK);
    start(&f, &entry, 1, START_NS + 500 * TICK);
    ck_assert_uint_eq(evpt_timer_wheel_count(&f.wheel), 1);
    ck_assert_uint_eq(advance_to(&f, START_NS + 499 * TICK), 0);
    ck_assert_uint_eq(advance_to(&f, START_NS + 501 * TICK), 1);
    ck_assert_int_eq(f.fired[0], 1);
    end(&f);
}
END_TEST

START_TEST(test_stop_of_a_stopped_or_zeroed_timer_does_nothing)
{
    struct fixture f;
    struct entry entry = {0};
    begin(&f);
    evpt_timer_stop(&f.wheel, &entry.timer);
    start(&f, &entry, 0, START_NS + 5 * TICK);
    evpt_timer_stop(&f.wheel, &entry.timer);
    evpt_timer_stop(&f.wheel, &entry.timer);
    evpt_timer_wheel_check(&f.wheel);
    ck_assert_uint_eq(advance_to(&f, START_NS + DAY), 0);
    ck_assert_uint_eq(evpt_timer_wheel_next(&f.wheel), EVPT_FOREVER);
    end(&f);
}
END_TEST

START_TEST(test_time_that_goes_back_fires_nothing)
{
    struct fixture f;
    struct entry entry = {0};
    begin(&f);
    advance_to(&f, START_NS + 10 * TICK);
    start(&f, &entry, 0, START_NS + 5 * TICK);
    ck_assert_uint_eq(advance_to(&f, START_NS), 0);
    ck_assert_uint_eq(advance_to(&f, START_NS + 11 * TICK), 1);
    end(&f);
}
END_TEST

/* ---- hostile callbacks ---- */

struct hostile {
    struct evpt_timer timer;
    struct fixture *fixture;
    struct entry *victims;
    int victim_count;
    int runs;
};

static void stop_victims(struct evpt_timer *timer, void *user)
{
    struct hostile *h = user;
    h->runs++;
    for (int i = 0; i < h->victim_count; i++)
        evpt_timer_stop(&h->fixture->wheel, &h->victims[i].timer);
    evpt_timer_wheel_check(&h->fixture->wheel);
}

START_TEST(test_callback_stops_siblings_of_the_same_tick)
{
    struct fixture f;
    struct entry entries[3] = {0};
    begin(&f);
    struct hostile h = {.fixture = &f, .victims = entries, .victim_count = 2};
    evpt_timer_start(&f.wheel, &h.timer, START_NS + TICK, stop_victims, &h);
    for (int i = 0; i < 3; i++)
        start(&f, &entries[i], i, START_NS + TICK);
    ck_assert_uint_eq(advance_to(&f, START_NS + 10 * TICK), 2);
    ck_assert_int_eq(f.count, 1);
    ck_assert_int_eq(f.fired[0], 2);
    ck_assert_uint_eq(evpt_timer_wheel_count(&f.wheel), 0);
    end(&f);
}
END_TEST

START_TEST(test_callback_stops_all_siblings_and_the_slot_is_usable_again)
{
    struct fixture f;
    struct entry entries[3] = {0};
    begin(&f);
    struct hostile h = {.fixture = &f, .victims = entries, .victim_count = 3};
    evpt_timer_start(&f.wheel, &h.timer, START_NS + TICK, stop_victims, &h);
    for (int i = 0; i < 3; i++)
        start(&f, &entries[i], i, START_NS + TICK);
    ck_assert_uint_eq(advance_to(&f, START_NS + 2 * TICK), 1);
    start(&f, &entries[0], 7, START_NS + (2 + 64) * TICK);
    ck_assert_uint_eq(advance_to(&f, START_NS + 100 * TICK), 1);
    ck_assert_int_eq(f.fired[0], 7);
    end(&f);
}
END_TEST

static void restart_in_the_past(struct evpt_timer *timer, void *user)
{
    struct hostile *h = user;
    h->runs++;
    evpt_timer_start(&h->fixture->wheel, timer, 0, restart_in_the_past, h);
}

START_TEST(test_callback_that_restarts_itself_in_the_past_runs_once_an_advance)
{
    struct fixture f;
    begin(&f);
    struct hostile h = {.fixture = &f};
    evpt_timer_start(&f.wheel, &h.timer, START_NS, restart_in_the_past, &h);
    /* far over many ticks: it must not fire once for each of them */
    for (int i = 1; i <= 5; i++) {
        ck_assert_uint_eq(advance_to(&f, START_NS + (uint64_t)i * 1000 * TICK), 1);
        ck_assert_int_eq(h.runs, i);
    }
    end(&f);
}
END_TEST

static void free_self(struct evpt_timer *timer, void *user)
{
    struct hostile *h = user;
    h->fixture->count++;
    evpt_sys_free(h);
}

START_TEST(test_callback_frees_its_own_timer)
{
    struct fixture f;
    begin(&f);
    for (int i = 0; i < 3; i++) {
        struct hostile *h = evpt_sys_zalloc(sizeof(*h));
        h->fixture = &f;
        evpt_timer_start(&f.wheel, &h->timer, START_NS + TICK, free_self, h);
    }
    ck_assert_uint_eq(advance_to(&f, START_NS + 2 * TICK), 3);
    ck_assert_int_eq(f.count, 3);
    end(&f);
}
END_TEST

START_TEST(test_fini_accepts_zeroed_and_unlinks_the_rest)
{
    struct fixture f;
    struct entry entries[2] = {0};
    struct evpt_timer_wheel zeroed = {0};
    evpt_timer_wheel_fini(&zeroed);
    begin(&f);
    start(&f, &entries[0], 0, START_NS + TICK);
    start(&f, &entries[1], 1, START_NS + 100 * DAY);
    end(&f);
    ck_assert(!evpt_timer_is_running(&entries[0].timer));
    ck_assert(!evpt_timer_is_running(&entries[1].timer));
}
END_TEST

START_TEST(test_waiting_for_next_reaches_every_deadline_in_a_few_steps)
{
    static const uint64_t after[] = {TICK, 5000 * TICK, DAY, 12 * DAY, 40 * DAY};
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
        struct fixture f;
        struct entry entry = {0};
        begin(&f);
        start(&f, &entry, 0, START_NS + after[i]);
        int steps = 0;
        for (; evpt_timer_is_running(&entry.timer); steps++) {
            uint64_t next_ns = evpt_timer_wheel_next(&f.wheel);
            ck_assert_uint_gt(next_ns, f.now_ns);
            ck_assert_uint_lt(next_ns, START_NS + after[i] + TICK);
            advance_to(&f, next_ns);
        }
        ck_assert_int_le(steps, EVPT_TIMER_LEVELS + 4); /* 40 days: three rounds of 13 */
        ck_assert_uint_eq(evpt_timer_wheel_next(&f.wheel), EVPT_FOREVER);
        end(&f);
    }
}
END_TEST

/* ---- against a model ---- */

/* The model keeps each timer's tick and order of start, and finds the next one to fire by looking
 * at all of them. Timers are started, restarted and stopped at random, in callbacks too. */
enum { MODEL_TIMERS = 150, MODEL_STEPS = 6000 };

struct model_timer {
    struct evpt_timer timer;
    struct model *model;
    bool running;
    uint64_t tick, order, deadline_ns;
};

struct model {
    struct evpt_timer_wheel wheel;
    struct support_random random;
    uint64_t now_ns;
    uint64_t earliest; /* tick below which nothing fires any more */
    uint64_t orders;
    uint64_t last_tick; /* of the advance that is going on */
    size_t fired, running;
    struct model_timer timers[MODEL_TIMERS];
};

static struct model_timer *model_first(struct model *m)
{
    struct model_timer *first = NULL;
    for (int i = 0; i < MODEL_TIMERS; i++) {
        struct model_timer *t = &m->timers[i];
        if (t->running && (!first || t->tick < first->tick ||
                           (t->tick == first->tick && t->order < first->order)))
            first = t;
    }
    return first;
}

/* From nanoseconds to years, in the past too. */
static uint64_t random_deadline(struct model *m)
{
    unsigned bits = (unsigned)support_below(&m->random, 56), shift = 20 + 6 * (bits % 6);
    uint64_t distance_ns = support_random(&m->random) & ((UINT64_C(1) << bits) - 1);
    switch (support_below(&m->random, 20)) {
    case 0:
        return EVPT_FOREVER - support_below(&m->random, 2 * TICK);
    case 1:
        return m->now_ns > distance_ns ? m->now_ns - distance_ns : 0;
    case 2: /* right at, before or behind the boundary of a level */
        return (((m->now_ns >> shift) + 1) << shift) - 1 + bits % 3;
    default:
        return m->now_ns + distance_ns;
    }
}

static void model_fire(struct evpt_timer *timer, void *user);

static void model_start(struct model *m, struct model_timer *t)
{
    t->deadline_ns = random_deadline(m);
    t->tick = t->deadline_ns / TICK + (t->deadline_ns % TICK != 0);
    if (t->tick < m->earliest)
        t->tick = m->earliest;
    t->order = m->orders++;
    m->running += !t->running;
    t->running = true;
    t->model = m;
    evpt_timer_start(&m->wheel, &t->timer, t->deadline_ns, model_fire, t);
}

static void model_stop(struct model *m, struct model_timer *t)
{
    m->running -= t->running;
    t->running = false;
    evpt_timer_stop(&m->wheel, &t->timer);
}

static void model_act(struct model *m)
{
    struct model_timer *t = &m->timers[support_below(&m->random, MODEL_TIMERS)];
    if (support_below(&m->random, 3))
        model_start(m, t);
    else
        model_stop(m, t);
}

static void model_fire(struct evpt_timer *timer, void *user)
{
    struct model_timer *t = user;
    struct model *m = t->model;
    ck_assert_ptr_eq(model_first(m), t);
    ck_assert_uint_le(t->tick, m->last_tick);
    ck_assert_uint_le(t->deadline_ns, m->now_ns);
    t->running = false;
    m->running--;
    m->fired++;
    for (uint64_t i = support_below(&m->random, 4); i > 0; i--)
        model_act(m);
    ck_assert_uint_eq(evpt_timer_wheel_count(&m->wheel), m->running);
}

static uint64_t random_step(struct model *m)
{
    uint64_t next_ns = evpt_timer_wheel_next(&m->wheel);
    switch (support_below(&m->random, 8)) {
    case 0:
        return 0;
    case 1:
        return support_below(&m->random, DAY);
    case 2:
        return support_below(&m->random, 3600 * EVPT_NS_PER_S);
    case 3: /* exactly to where the wheel wants to be called, or just before */
        if (next_ns > m->now_ns && next_ns - m->now_ns < 30 * DAY)
            return next_ns - m->now_ns - support_below(&m->random, 2);
        return 1;
    default:
        return support_below(&m->random, 1u << support_below(&m->random, 28));
    }
}

static void model_step(struct model *m)
{
    for (uint64_t i = support_below(&m->random, 6); i > 0; i--)
        model_act(m);
    evpt_timer_wheel_check(&m->wheel);
    struct model_timer *first = model_first(m);
    uint64_t next_ns = evpt_timer_wheel_next(&m->wheel);
    ck_assert_int_eq(first == NULL, next_ns == EVPT_FOREVER && !m->running);
    if (first && first->tick >> 44 == 0)
        ck_assert_uint_le(next_ns, first->tick * TICK);

    m->now_ns += random_step(m);
    m->last_tick = m->now_ns / TICK;
    if (m->earliest < m->last_tick + 1)
        m->earliest = m->last_tick + 1;
    evpt_timer_wheel_advance(&m->wheel, m->now_ns);
    evpt_timer_wheel_check(&m->wheel);
    ck_assert_uint_eq(evpt_timer_wheel_count(&m->wheel), m->running);
    first = model_first(m);
    ck_assert(!first || first->tick > m->last_tick);
}

START_TEST(test_agrees_with_a_model_over_months_of_random_use)
{
    struct model *m = evpt_sys_zalloc(sizeof(*m));
    ck_assert_ptr_nonnull(m);
    m->random = support_seed();
    m->now_ns = support_random(&m->random) >> (8 + support_below(&m->random, 50));
    m->earliest = m->now_ns / TICK;
    uint64_t start_ns = m->now_ns;
    evpt_timer_wheel_init(&m->wheel, m->now_ns);
    for (int i = 0; i < MODEL_STEPS; i++)
        model_step(m);
    ck_assert_uint_gt(m->fired, MODEL_STEPS / 2);
    ck_assert_uint_gt(m->now_ns - start_ns, 30 * DAY);
    evpt_timer_wheel_fini(&m->wheel);
    evpt_sys_free(m);
}
END_TEST

SUPPORT_MAIN("reactor/timer", test_fires_neither_early_nor_more_than_a_tick_late,
             test_fires_in_order_of_ticks_then_of_starts,
             test_deadline_in_the_past_fires_in_the_next_advance, test_forever_never_fires,
             test_restart_moves_the_deadline, test_stop_of_a_stopped_or_zeroed_timer_does_nothing,
             test_time_that_goes_back_fires_nothing, test_callback_stops_siblings_of_the_same_tick,
             test_callback_stops_all_siblings_and_the_slot_is_usable_again,
             test_callback_that_restarts_itself_in_the_past_runs_once_an_advance,
             test_callback_frees_its_own_timer, test_fini_accepts_zeroed_and_unlinks_the_rest,
             test_waiting_for_next_reaches_every_deadline_in_a_few_steps,
             test_agrees_with_a_model_over_months_of_random_use)
