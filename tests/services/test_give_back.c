/* The process below is played here: its CPU time, its size, and how much of that is free. */
#include "services/give_back.h"
#include "support.h"

#define MIB ((size_t)1 << 20)

static uint64_t cpu_ns;
static size_t resident, unused;
static int times;

uint64_t __wrap_evpt_sys_process_cpu_ns(void);
uint64_t __wrap_evpt_sys_process_cpu_ns(void)
{
    return cpu_ns;
}

size_t __wrap_evpt_sys_resident(void);
size_t __wrap_evpt_sys_resident(void)
{
    return resident;
}

void __wrap_evpt_sys_give_back(void);
void __wrap_evpt_sys_give_back(void)
{
    times++;
    resident -= unused;
    unused = 0;
}

static struct evpt_loop *loop;
static struct evpt_give_back give_back;

static void start(void)
{
    cpu_ns = 0;
    resident = 10 * MIB;
    unused = 0;
    times = 0;
    ck_assert_int_eq(evpt_loop_new(&loop), 0);
    evpt_give_back_start(&give_back, loop);
}

static void stop(void)
{
    evpt_give_back_stop(&give_back);
    evpt_loop_free(loop);
}

/* One look; the process has computed for `busy_ms` since the last one. */
static void look(uint64_t busy_ms)
{
    cpu_ns += busy_ms * EVPT_NS_PER_MS;
    support_skip_ms(EVPT_GIVE_BACK_MS + 2); /* and the tick that a timer may be late */
    (void)evpt_loop_turn(loop, 0);
}

START_TEST(test_what_a_burst_has_left_is_given_back_once)
{
    start();
    resident += 70 * MIB;
    unused = 68 * MIB;
    look(0);
    ck_assert_int_eq(times, 1);
    ck_assert_uint_eq(resident, 12 * MIB);
    for (int i = 0; i < 5; i++)
        look(0);
    ck_assert_int_eq(times, 1);
    stop();
}
END_TEST

START_TEST(test_nothing_is_asked_of_a_busy_node)
{
    start();
    resident += 70 * MIB;
    for (int i = 0; i < 5; i++)
        look(EVPT_GIVE_BACK_MS / EVPT_GIVE_BACK_QUIET);
    ck_assert_int_eq(times, 0);
    look(EVPT_GIVE_BACK_MS / EVPT_GIVE_BACK_QUIET - 1);
    ck_assert_int_eq(times, 1);
    stop();
}
END_TEST

START_TEST(test_memory_in_use_is_asked_for_after_twice_the_time_each)
{
    static const int due[] = {1, 3, 7, 15, 31};
    start();
    resident += 70 * MIB;
    for (int i = 1, n = 0; i <= 31; i++) {
        look(0);
        n += i == due[n];
        ck_assert_int_eq(times, n);
    }
    unused = 30 * MIB; /* freed in the meantime */
    for (int i = 32; i <= 63; i++)
        look(0);
    ck_assert_int_eq(times, 6);
    ck_assert_uint_eq(resident, 50 * MIB);
    look(0); /* who had much to give may have more */
    ck_assert_int_eq(times, 7);
    stop();
}
END_TEST

START_TEST(test_growth_is_asked_for_at_once)
{
    start();
    resident += 70 * MIB;
    for (int i = 0; i < 8; i++)
        look(0);
    ck_assert_int_eq(times, 3);
    resident += EVPT_GIVE_BACK_GROWTH;
    look(0);
    ck_assert_int_eq(times, 3);
    resident++;
    look(0);
    ck_assert_int_eq(times, 4);
    stop();
}
END_TEST

START_TEST(test_a_node_that_has_not_grown_is_left_alone)
{
    start();
    resident += EVPT_GIVE_BACK_GROWTH;
    for (int i = 0; i < 100; i++)
        look(0);
    ck_assert_int_eq(times, 0);
    stop();
}
END_TEST

START_TEST(test_stopped_and_zeroed_it_does_nothing)
{
    struct evpt_give_back zeroed = {0};
    evpt_give_back_stop(&zeroed);
    start();
    resident += 70 * MIB;
    evpt_give_back_stop(&give_back);
    look(0);
    ck_assert_int_eq(times, 0);
    stop();
}
END_TEST

SUPPORT_MAIN("give_back", test_what_a_burst_has_left_is_given_back_once,
             test_nothing_is_asked_of_a_busy_node,
             test_memory_in_use_is_asked_for_after_twice_the_time_each,
             test_growth_is_asked_for_at_once, test_a_node_that_has_not_grown_is_left_alone,
             test_stopped_and_zeroed_it_does_nothing)
