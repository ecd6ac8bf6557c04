#include "support.h"
#include "reactor/connector.h"
#include "reactor/error.h"
#include <errno.h>
#include <sys/resource.h>

struct attempt {
    struct evpt_loop *loop;
    struct evpt_connector *connector;
    struct evpt_addr addr;
    int listening;
    int calls, result;
    int again; /* how often on_done starts anew */
    bool free_in_done;
};

static void on_done(struct evpt_connector *connector, int fd, void *user)
{
    struct attempt *attempt = user;
    attempt->calls++;
    attempt->result = fd;
    evpt_sys_close(fd);
    if (attempt->again-- > 0)
        evpt_connector_start(connector, attempt->loop, &attempt->addr, EVPT_NS_PER_S, on_done,
                             attempt);
    if (attempt->free_in_done) {
        evpt_sys_free(connector);
        attempt->connector = NULL;
    }
}

static void open_attempt(struct attempt *attempt)
{
    *attempt = (struct attempt){.loop = support_loop()};
    attempt->connector = evpt_sys_zalloc(sizeof(*attempt->connector));
    ck_assert_int_eq(evpt_addr_parse(&attempt->addr, "127.0.0.1:0"), 0);
    attempt->listening = evpt_sys_listen(&attempt->addr, 8);
    ck_assert_int_ge(attempt->listening, 0);
    ck_assert_int_eq(evpt_sys_local_addr(attempt->listening, &attempt->addr), 0);
}

static void stop_listening(struct attempt *attempt)
{
    evpt_sys_close(attempt->listening);
    attempt->listening = -1;
}

static void start(struct attempt *attempt)
{
    evpt_connector_start(attempt->connector, attempt->loop, &attempt->addr, EVPT_NS_PER_S, on_done,
                         attempt);
    ck_assert_int_eq(attempt->calls, 0); /* never from inside start */
}

static void close_attempt(struct attempt *attempt)
{
    evpt_connector_stop(attempt->connector);
    evpt_sys_free(attempt->connector);
    evpt_sys_close(attempt->listening);
    ck_assert_uint_eq(evpt_timer_wheel_count(evpt_loop_wheel(attempt->loop)), 0);
    evpt_loop_free(attempt->loop);
}

START_TEST(test_connects)
{
    struct attempt attempt;
    open_attempt(&attempt);
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls);
    ck_assert_int_ge(attempt.result, 0);
    close_attempt(&attempt);
    ck_assert_int_eq(attempt.calls, 1);
}
END_TEST

START_TEST(test_reports_a_refusal)
{
    struct attempt attempt;
    open_attempt(&attempt);
    stop_listening(&attempt);
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls);
    ck_assert_int_eq(attempt.result, -ECONNREFUSED);
    close_attempt(&attempt);
    ck_assert_int_eq(attempt.calls, 1);
}
END_TEST

START_TEST(test_failure_at_once_is_reported_from_the_loop)
{
    struct attempt attempt;
    open_attempt(&attempt);
    ck_assert_int_eq(evpt_addr_local(&attempt.addr, "/nonexistent/socket"), 0);
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls);
    ck_assert_int_eq(attempt.result, -ENOENT);
    close_attempt(&attempt);
    ck_assert_int_eq(attempt.calls, 1);
}
END_TEST

START_TEST(test_lack_of_descriptors_is_reported_from_the_loop)
{
    struct attempt attempt;
    struct rlimit old;
    open_attempt(&attempt);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none = {.rlim_cur = 1, .rlim_max = old.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls);
    ck_assert_int_eq(attempt.result, -EMFILE);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    close_attempt(&attempt);
}
END_TEST

START_TEST(test_lack_of_memory_is_reported_from_the_loop)
{
    struct attempt attempt;
    open_attempt(&attempt);
    support_fail_allocation(1); /* the loop's table of watchers */
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls);
    ck_assert_int_eq(attempt.result, -ENOMEM);
    close_attempt(&attempt);
}
END_TEST

/* An address whose backlog is full answers nothing: the system drops what comes. */
static void fill_backlog(struct attempt *attempt, int *fds, int count)
{
    stop_listening(attempt);
    attempt->listening = evpt_sys_listen(&attempt->addr, 0);
    ck_assert_int_ge(attempt->listening, 0);
    for (int i = 0; i < count; i++) {
        fds[i] = evpt_sys_connect(&attempt->addr);
        ck_assert_int_ge(fds[i], 0);
    }
}

START_TEST(test_times_out_where_nobody_answers)
{
    struct attempt attempt;
    int fds[3];
    open_attempt(&attempt);
    fill_backlog(&attempt, fds, 3);
    support_stop_clock();
    uint64_t start_ns = evpt_loop_update_now(attempt.loop);
    start(&attempt);
    while (!attempt.calls)
        ck_assert_int_ge(evpt_loop_turn(attempt.loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(attempt.result, -EVPT_ETIMEOUT);
    ck_assert_uint_ge(evpt_sys_now_ns(), start_ns + EVPT_NS_PER_S);
    ck_assert_uint_lt(evpt_sys_now_ns(), start_ns + EVPT_NS_PER_S + EVPT_TIMER_TICK_NS);
    for (int i = 0; i < 3; i++)
        evpt_sys_close(fds[i]);
    close_attempt(&attempt);
    ck_assert_int_eq(attempt.calls, 1);
}
END_TEST

START_TEST(test_stopped_attempt_is_not_reported)
{
    struct attempt attempt;
    open_attempt(&attempt);
    for (int i = 0; i < 2; i++) { /* one that succeeds, and one that has failed at once */
        start(&attempt);
        evpt_connector_stop(attempt.connector);
        evpt_connector_stop(attempt.connector);
        for (int j = 0; j < 3; j++)
            ck_assert_int_eq(
                evpt_loop_turn(attempt.loop, evpt_sys_now_ns() + 2 * EVPT_TIMER_TICK_NS), 0);
        ck_assert_int_eq(attempt.calls, 0);
        ck_assert_int_eq(evpt_addr_local(&attempt.addr, "/nonexistent/socket"), 0);
    }
    evpt_connector_stop(NULL);
    close_attempt(&attempt);
}
END_TEST

START_TEST(test_connector_can_start_again_in_on_done)
{
    struct attempt attempt;
    open_attempt(&attempt);
    attempt.again = 3;
    start(&attempt);
    TURN_UNTIL(attempt.loop, attempt.calls == 4);
    ck_assert_int_ge(attempt.result, 0);
    close_attempt(&attempt);
}
END_TEST

START_TEST(test_connector_can_be_freed_in_on_done)
{
    for (int i = 0; i < 2; i++) {
        struct attempt attempt;
        open_attempt(&attempt);
        attempt.free_in_done = true;
        if (i)
            ck_assert_int_eq(evpt_addr_local(&attempt.addr, "/nonexistent/socket"), 0);
        start(&attempt);
        TURN_UNTIL(attempt.loop, attempt.calls);
        ck_assert_ptr_null(attempt.connector);
        close_attempt(&attempt);
    }
}
END_TEST

SUPPORT_MAIN("reactor/connector", test_connects, test_reports_a_refusal,
             test_failure_at_once_is_reported_from_the_loop,
             test_lack_of_descriptors_is_reported_from_the_loop,
             test_lack_of_memory_is_reported_from_the_loop, test_times_out_where_nobody_answers,
             test_stopped_attempt_is_not_reported, test_connector_can_start_again_in_on_done,
             test_connector_can_be_freed_in_on_done)
