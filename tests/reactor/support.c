#include "support.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct support_calls support_calls;

static atomic_long live_allocations;
static atomic_long allocations_to_failure;
static atomic_size_t write_limit;
static atomic_int accept_error;
static _Atomic uint64_t stopped_clock_ns; /* 0: it runs */

static int fds_before;
static long allocations_before;

/* ---- in place of the library's way to the system (ld --wrap) ---- */

void *__real_evpt_sys_alloc(size_t bytes);
void *__real_evpt_sys_zalloc(size_t bytes);
void *__real_evpt_sys_realloc(void *old, size_t bytes);
void __real_evpt_sys_free(void *memory);
uint64_t __real_evpt_sys_now_ns(void);
int __real_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token);
int __real_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns);
void __real_evpt_sys_eventfd_signal(int fd);
void __real_evpt_sys_eventfd_clear(int fd);
ssize_t __real_evpt_sys_read(int fd, void *buffer, size_t bytes);
ssize_t __real_evpt_sys_write(int fd, const void *buffer, size_t bytes);
ssize_t __real_evpt_sys_writev(int fd, const struct iovec *vec, int count);
int __real_evpt_sys_accept(int fd, struct evpt_addr *ret_peer);
int __real_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size);

void *__wrap_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes);
void __wrap_evpt_sys_free(void *memory);
uint64_t __wrap_evpt_sys_now_ns(void);
int __wrap_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token);
int __wrap_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns);
void __wrap_evpt_sys_eventfd_signal(int fd);
void __wrap_evpt_sys_eventfd_clear(int fd);
ssize_t __wrap_evpt_sys_read(int fd, void *buffer, size_t bytes);
ssize_t __wrap_evpt_sys_write(int fd, const void *buffer, size_t bytes);
ssize_t __wrap_evpt_sys_writev(int fd, const struct iovec *vec, int count);
int __wrap_evpt_sys_accept(int fd, struct evpt_addr *ret_peer);
int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size);

static bool is_refused(void)
{
    return atomic_load(&allocations_to_failure) > 0 &&
           atomic_fetch_sub(&allocations_to_failure, 1) == 1;
}

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&live_allocations, 1);
    return memory;
}

void *__wrap_evpt_sys_alloc(size_t bytes)
{
    return is_refused() ? NULL : counted(__real_evpt_sys_alloc(bytes));
}

void *__wrap_evpt_sys_zalloc(size_t bytes)
{
    return is_refused() ? NULL : counted(__real_evpt_sys_zalloc(bytes));
}

void *__wrap_evpt_sys_realloc(void *old, size_t bytes)
{
    if (is_refused())
        return NULL;
    return old ? __real_evpt_sys_realloc(old, bytes)
               : counted(__real_evpt_sys_realloc(NULL, bytes));
}

void __wrap_evpt_sys_free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&live_allocations, 1);
    __real_evpt_sys_free(memory);
}

uint64_t __wrap_evpt_sys_now_ns(void)
{
    uint64_t stopped_ns = atomic_load(&stopped_clock_ns);
    atomic_fetch_add(&support_calls.now, 1);
    return stopped_ns ? stopped_ns : __real_evpt_sys_now_ns();
}

int __wrap_evpt_sys_epoll_set(int epoll, enum evpt_sys_epoll_op op, int fd, uint32_t events,
                              uint64_t token)
{
    atomic_fetch_add(&support_calls.epoll_set, 1);
    return __real_evpt_sys_epoll_set(epoll, op, fd, events, token);
}

int __wrap_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns)
{
    atomic_fetch_add(&support_calls.epoll_wait, 1);
    bool stopped = atomic_load(&stopped_clock_ns) && deadline_ns != EVPT_FOREVER;
    if (!stopped)
        return __real_evpt_sys_epoll_wait(epoll, events, max, now_ns, deadline_ns);
    int count = __real_evpt_sys_epoll_wait(epoll, events, max, now_ns, 0);
    if (!count && deadline_ns > now_ns)
        support_pass_time(deadline_ns - now_ns);
    return count;
}

void __wrap_evpt_sys_eventfd_signal(int fd)
{
    atomic_fetch_add(&support_calls.eventfd_signal, 1);
    __real_evpt_sys_eventfd_signal(fd);
}

void __wrap_evpt_sys_eventfd_clear(int fd)
{
    atomic_fetch_add(&support_calls.eventfd_clear, 1);
    __real_evpt_sys_eventfd_clear(fd);
}

ssize_t __wrap_evpt_sys_read(int fd, void *buffer, size_t bytes)
{
    atomic_fetch_add(&support_calls.read, 1);
    return __real_evpt_sys_read(fd, buffer, bytes);
}

ssize_t __wrap_evpt_sys_write(int fd, const void *buffer, size_t bytes)
{
    size_t limit = atomic_load(&write_limit);
    atomic_fetch_add(&support_calls.write, 1);
    return __real_evpt_sys_write(fd, buffer, limit && bytes > limit ? limit : bytes);
}

ssize_t __wrap_evpt_sys_writev(int fd, const struct iovec *vec, int count)
{
    size_t left = atomic_load(&write_limit);
    atomic_fetch_add(&support_calls.write, 1);
    if (!left)
        return __real_evpt_sys_writev(fd, vec, count);
    struct iovec cut[64];
    int used = 0;
    for (; used < count && used < 64 && left; used++) {
        cut[used] = vec[used];
        if (cut[used].iov_len > left)
            cut[used].iov_len = left;
        left -= cut[used].iov_len;
    }
    return __real_evpt_sys_writev(fd, cut, used);
}

int __wrap_evpt_sys_accept(int fd, struct evpt_addr *ret_peer)
{
    int error = atomic_exchange(&accept_error, 0);
    return error ? error : __real_evpt_sys_accept(fd, ret_peer);
}

/* What sys_linux.c allocates itself does not pass the counter, and is the caller's from here on. */
int __wrap_evpt_sys_file_read(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
    int error = __real_evpt_sys_file_read(path, max, ret_text, ret_size);
    if (!error)
        (void)counted(*ret_text);
    return error;
}

void support_reset_calls(void)
{
    atomic_store(&support_calls.now, 0);
    atomic_store(&support_calls.epoll_set, 0);
    atomic_store(&support_calls.epoll_wait, 0);
    atomic_store(&support_calls.eventfd_signal, 0);
    atomic_store(&support_calls.eventfd_clear, 0);
    atomic_store(&support_calls.read, 0);
    atomic_store(&support_calls.write, 0);
}

void support_fail_allocation(long nth)
{
    atomic_store(&allocations_to_failure, nth);
}

void support_limit_writes(size_t bytes)
{
    atomic_store(&write_limit, bytes);
}

void support_fail_accept(int error)
{
    atomic_store(&accept_error, error);
}

void support_stop_clock(void)
{
    atomic_store(&stopped_clock_ns, __real_evpt_sys_now_ns());
}

void support_pass_time(uint64_t ns)
{
    atomic_fetch_add(&stopped_clock_ns, ns);
}

/* ---- the fixture ---- */

void support_setup(void)
{
    fds_before = evpt_sys_count_fds();
    allocations_before = atomic_load(&live_allocations);
    support_reset_calls();
}

void support_teardown(void)
{
    ck_assert_msg(support_leaked_fds() == 0, "%d descriptors left", support_leaked_fds());
    ck_assert_msg(support_leaked_allocations() == 0, "%ld allocations left",
                  support_leaked_allocations());
}

int support_leaked_fds(void)
{
    return evpt_sys_count_fds() - fds_before;
}

long support_leaked_allocations(void)
{
    return atomic_load(&live_allocations) - allocations_before;
}

int support_run(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 50);
    tcase_add_checked_fixture(tcase, support_setup, support_teardown);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- helpers ---- */

uint64_t support_real_now_ns(void)
{
    return __real_evpt_sys_now_ns();
}

struct evpt_loop *support_loop(void)
{
    struct evpt_loop *loop = NULL;
    ck_assert_int_eq(evpt_loop_new(&loop), 0);
    return loop;
}

void support_socketpair(int fds[2])
{
    ck_assert_int_eq(evpt_sys_socketpair(fds), 0);
}

struct support_random support_seed(void)
{
    struct support_random random;
    const char *given = getenv("EVPT_TEST_SEED");
    if (given)
        random.state = strtoull(given, NULL, 0);
    else
        evpt_sys_random(&random.state, sizeof(random.state));
    printf("EVPT_TEST_SEED=%" PRIu64 "\n", random.state);
    fflush(stdout);
    return random;
}

/* SplitMix64: any seed will do, 0 included. */
uint64_t support_random(struct support_random *random)
{
    uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}
