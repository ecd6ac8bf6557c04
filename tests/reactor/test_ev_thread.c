#include "support.h"
#include "reactor/ev_thread.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

struct message {
    struct evpt_mpsc_node node;
    struct evpt_ev_thread *answer_to; /* NULL: none */
};

struct worker {
    struct evpt_ev_thread t;
    unsigned received; /* the thread's; the test reads it after the join */
    atomic_uint betweens;
    uint64_t between_deadline_ns;
    pthread_t thread;
    bool all_signals_blocked;
};

static void on_messages(void *user, struct evpt_mpsc_node *list)
{
    struct worker *worker = user;
    while (list) {
        struct message *message = EVPT_CONTAINER_OF(list, struct message, node);
        list = list->next; /* the answer hands the node on */
        worker->received++;
        struct evpt_ev_thread *answer_to = message->answer_to;
        message->answer_to = NULL;
        if (answer_to)
            evpt_ev_thread_send(answer_to, &message->node);
    }
}

static uint64_t between(void *user)
{
    struct worker *worker = user;
    atomic_fetch_add_explicit(&worker->betweens, 1, memory_order_relaxed);
    return worker->between_deadline_ns;
}

static void open_worker(struct worker *worker)
{
    memset(worker, 0, sizeof(*worker));
    worker->between_deadline_ns = EVPT_FOREVER;
    ck_assert_int_eq(evpt_ev_thread_init(&worker->t, on_messages, worker), 0);
}

static void run_worker(struct worker *worker)
{
    ck_assert_int_eq(evpt_ev_thread_start(&worker->t, "worker", between, worker), 0);
}

static void close_worker(struct worker *worker)
{
    evpt_ev_thread_stop(&worker->t);
    evpt_ev_thread_join(&worker->t);
    evpt_ev_thread_fini(&worker->t);
}

START_TEST(test_messages_sent_before_start_and_after_stop_are_all_handed_over)
{
    struct worker worker;
    struct message messages[3] = {0};
    open_worker(&worker);
    evpt_ev_thread_send(&worker.t, &messages[0].node);
    run_worker(&worker);
    evpt_ev_thread_send(&worker.t, &messages[1].node);
    evpt_ev_thread_stop(&worker.t);
    evpt_ev_thread_join(&worker.t);
    evpt_ev_thread_send(&worker.t, &messages[2].node);
    evpt_ev_thread_fini(&worker.t);
    ck_assert_uint_eq(worker.received, 3);
}
END_TEST

START_TEST(test_stop_wakes_a_thread_that_waits_for_ever)
{
    struct worker worker;
    open_worker(&worker);
    run_worker(&worker);
    while (!atomic_load_explicit(&worker.betweens, memory_order_relaxed))
        sched_yield(); /* it is on its way into the wait */
    close_worker(&worker);
    ck_assert_uint_le(worker.betweens, 2);
}
END_TEST

START_TEST(test_stop_before_start_ends_the_thread_at_once)
{
    struct worker worker;
    open_worker(&worker);
    evpt_ev_thread_stop(&worker.t);
    run_worker(&worker);
    evpt_ev_thread_join(&worker.t);
    ck_assert_uint_eq(worker.betweens, 0);
    evpt_ev_thread_fini(&worker.t);
}
END_TEST

START_TEST(test_thread_turns_without_waiting_where_between_says_so)
{
    struct worker worker;
    open_worker(&worker);
    worker.between_deadline_ns = 0;
    run_worker(&worker);
    while (atomic_load_explicit(&worker.betweens, memory_order_relaxed) < 100)
        sched_yield();
    close_worker(&worker);
}
END_TEST

START_TEST(test_between_may_be_left_out)
{
    struct worker worker;
    struct message message = {0};
    open_worker(&worker);
    ck_assert_int_eq(evpt_ev_thread_start(&worker.t, "worker", NULL, NULL), 0);
    evpt_ev_thread_send(&worker.t, &message.node);
    close_worker(&worker);
    ck_assert_uint_eq(worker.received, 1);
}
END_TEST

START_TEST(test_two_threads_answer_each_other)
{
    enum { COUNT = 5000 };
    static struct message messages[COUNT];
    struct worker asked, asking;
    open_worker(&asked);
    open_worker(&asking);
    run_worker(&asked);
    run_worker(&asking);
    for (unsigned i = 0; i < COUNT; i++) {
        messages[i].answer_to = &asking.t;
        evpt_ev_thread_send(&asked.t, &messages[i].node);
    }
    close_worker(&asked); /* hands over, and so answers, what was left */
    close_worker(&asking);
    ck_assert_uint_eq(asked.received, COUNT);
    ck_assert_uint_eq(asking.received, COUNT);
}
END_TEST

START_TEST(test_init_survives_any_refused_allocation)
{
    struct worker worker = {0};
    int refused = 0;
    for (;; refused++) {
        support_fail_allocation(refused + 1);
        int error = evpt_ev_thread_init(&worker.t, on_messages, &worker);
        support_fail_allocation(0);
        if (!error)
            break;
        ck_assert_int_eq(error, -ENOMEM);
        evpt_ev_thread_fini(&worker.t);
        support_teardown();
    }
    ck_assert_int_gt(refused, 2);
    evpt_ev_thread_fini(&worker.t);
    evpt_ev_thread_fini(&worker.t);
    evpt_ev_thread_fini(NULL);
    evpt_ev_thread_join(NULL);
}
END_TEST

/* ---- thread ---- */

static void look_around(void *user)
{
    struct worker *worker = user;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    worker->all_signals_blocked = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1);
    worker->thread = pthread_self();
}

START_TEST(test_thread_runs_with_signals_blocked_and_leaves_the_starter_alone)
{
    struct worker worker = {0};
    struct evpt_thread thread = {0};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    ck_assert_int_eq(evpt_thread_start(&thread, "a name longer than fifteen", look_around, &worker),
                     0);
    evpt_thread_join(&thread);
    evpt_thread_join(&thread);
    evpt_thread_join(NULL);
    ck_assert(worker.all_signals_blocked);
    ck_assert(!pthread_equal(worker.thread, pthread_self()));
    ck_assert_str_eq(thread.name, "a name longer t");
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    ck_assert_int_eq(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}
END_TEST

SUPPORT_MAIN("reactor/ev_thread",
             test_messages_sent_before_start_and_after_stop_are_all_handed_over,
             test_stop_wakes_a_thread_that_waits_for_ever,
             test_stop_before_start_ends_the_thread_at_once,
             test_thread_turns_without_waiting_where_between_says_so, test_between_may_be_left_out,
             test_two_threads_answer_each_other, test_init_survives_any_refused_allocation,
             test_thread_runs_with_signals_blocked_and_leaves_the_starter_alone)
