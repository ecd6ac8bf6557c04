/* What the reactor's tests share: a fixture that finds leaks, and a hand on the system below.
 *
 * The test programs are linked with `--wrap` for some functions of sys.h (see meson.build): the
 * library calls the functions of support.c in their place, which count, and on request refuse
 * memory, cut writes short or stop the clock, and otherwise pass on to sys_linux.c.
 */
#ifndef EVPT_TESTS_REACTOR_SUPPORT_H
#define EVPT_TESTS_REACTOR_SUPPORT_H

#include "reactor/loop.h"
#include <check.h>
#include <stdatomic.h>

/* ---- the fixture ---- */

/* Before and after each test: the teardown fails a test that has left descriptors or memory behind.
 */
void support_setup(void);
void support_teardown(void);
/* What has been left since support_setup (tests call it to see the state in between). */
int support_leaked_fds(void);
long support_leaked_allocations(void);

/* A suite of one case with the fixture, run by main: EXIT_SUCCESS or EXIT_FAILURE. */
int support_run(const char *name, const TTest *const *tests, size_t count);
#define SUPPORT_MAIN(name, ...)                                                                    \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return support_run(name, tests, sizeof(tests) / sizeof(tests[0]));                         \
    }

/* ---- the system below ---- */

/* How often the library has called. Any thread. */
struct support_calls {
    atomic_size_t now, epoll_set, epoll_wait, eventfd_signal, eventfd_clear, read, write;
};
extern struct support_calls support_calls;
void support_reset_calls(void);

/* The nth allocation from now fails (1: the next one); 0: none. */
void support_fail_allocation(long nth);
/* Every write takes at most so many bytes; 0: no limit. */
void support_limit_writes(size_t bytes);
/* The next accept fails with this. */
void support_fail_accept(int error);
/* From now on the time stands still, but that a wait for a deadline takes it there at once. */
void support_stop_clock(void);
void support_pass_time(uint64_t ns);

/* ---- helpers ---- */

/* Turns the loop until the condition holds; fails the test if that takes more than ten seconds. */
#define TURN_UNTIL(loop, condition)                                                                \
    do {                                                                                           \
        uint64_t limit_ns_ = support_real_now_ns() + 10 * EVPT_NS_PER_S;                           \
        while (!(condition)) {                                                                     \
            ck_assert_msg(support_real_now_ns() < limit_ns_, "never came true: " #condition);      \
            ck_assert_int_ge(evpt_loop_turn(loop, evpt_sys_now_ns() + EVPT_NS_PER_S), 0);          \
        }                                                                                          \
    } while (0)

uint64_t support_real_now_ns(void);
struct evpt_loop *support_loop(void);
/* A connected pair, checked. */
void support_socketpair(int fds[2]);

/* Reproducible random numbers; support_seed prints the seed, which EVPT_TEST_SEED in the
 * environment overrides. */
struct support_random {
    uint64_t state;
};
struct support_random support_seed(void);
uint64_t support_random(struct support_random *random);
static inline uint64_t support_below(struct support_random *random, uint64_t bound)
{
    return support_random(random) % bound;
}

#endif
