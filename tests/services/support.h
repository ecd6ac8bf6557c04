/* What the tests of services/ share: a fixture that finds leaks, a hand on the system below, a
 * scheduler with real threads, and services made of a C function.
 *
 * The test programs are linked with `--wrap` for some functions of sys.h and thread.h
 * (meson.build): support.c counts, refuses memory or threads on request, and moves the clock.
 */
#ifndef EVPT_TESTS_SERVICES_SUPPORT_H
#define EVPT_TESTS_SERVICES_SUPPORT_H

#include "reactor/error.h"
#include "services/request.h"
#include "services/scheduler.h"
#include <check.h>
#include <stdatomic.h>

/* ---- the fixture ---- */

/* Before and after each test: the teardown fails a test that leaves descriptors or memory behind.
 */
void support_setup(void);
void support_teardown(void);
long support_leaked_allocations(void);
/* A suite of one case with the fixture; what main returns. */
int support_run(const char *name, const TTest *const *tests, size_t count);
#define SUPPORT_MAIN(name, ...)                                                                    \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return support_run(name, tests, sizeof(tests) / sizeof(tests[0]));                         \
    }

/* ---- the system below ---- */

/* The nth allocation from now fails (1: the next one); 0: none. True: the last order was carried
 * out. */
void support_fail_allocation(long nth);
bool support_allocation_failed(void);
/* Between the two, allocations succeed and are not counted for support_fail_allocation. */
long support_pause_failures(void);
void support_resume_failures(long paused);
/* Every allocation fails from now on. */
void support_refuse_memory(bool refused);
/* The nth thread from now is not started. */
void support_fail_thread(int nth);
/* For everybody who asks the clock it is that much later from now on. */
void support_skip_ms(uint64_t ms);
/* From now on the clock goes only with support_skip_ms. */
void support_stop_clock(void);
/* How often a thread has gone to rest, on an eventfd or in a loop. */
unsigned long support_waits(void);

/* ck_assert for paths that run often, and for other threads: says nothing where all is well. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("does not hold: %s", #condition);                                         \
    } while (0)

/* EVPT_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
uint64_t support_seed(void);
uint64_t support_random(uint64_t *state);

/* Waits for other threads; fails after 40 seconds. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        uint64_t limit_ns_ = support_limit_ns();                                                   \
        while (!(condition)) {                                                                     \
            if (support_real_now_ns() >= limit_ns_)                                                \
                ck_abort_msg("never came true: %s", #condition);                                   \
            support_pause();                                                                       \
        }                                                                                          \
    } while (0)
uint64_t support_real_now_ns(void);
uint64_t support_limit_ns(void);
void support_pause(void);

/* ---- messages ---- */

/* A request with one integer as its argument, ready to be posted to `target`. */
struct evpt_message *support_request(enum evpt_message_kind kind, uint32_t target, uint32_t source,
                                     uint32_t session, int64_t argument);
/* That integer. */
int64_t support_argument(const struct evpt_message *message);
/* A reply's text of error, or "". Valid until the next call. */
const char *support_error_text(const struct evpt_message *reply);

/* ---- services made of a C function ---- */

struct actor;
struct actor { /* caller's storage; zeroed but for what is wanted */
    /* Owns the message. NULL: calls are answered with their argument, all else is freed. */
    void (*on_message)(struct actor *actor, struct evpt_message *message);
    void (*on_tick)(struct actor *actor);
    struct evpt_scheduler *scheduler;
    struct evpt_service *service; /* for its consumer */
    uint32_t handle;
    void *user;
    unsigned long consumed; /* not atomic: two consumers at a time are a race that TSan sees */
    atomic_ulong handled;   /* the same for others */
    atomic_int inside, stopped;
};

/* Starts it; `self` as in evpt_post. */
void actor_spawn(struct actor *actor, struct evpt_scheduler *scheduler, struct evpt_worker *self);
/* For on_message: the worker that runs it. */
static inline struct evpt_worker *actor_worker(struct actor *actor)
{
    return actor->service->worker;
}
/* Answers a call with its argument, frees anything. */
void actor_echo(struct actor *actor, struct evpt_message *message);
/* Posts a SEND, again and again while the mailbox is full; 0 or -EVPT_ENOTFOUND. */
int post_send(struct evpt_scheduler *scheduler, struct evpt_worker *self, uint32_t target,
              uint32_t source, int64_t argument);

/* ---- a scheduler with its loop ---- */

struct rig {
    struct evpt_loop *loop;
    struct evpt_scheduler scheduler;
    bool started;
};

void rig_init(struct rig *rig, unsigned workers, uint32_t mailbox_max);
void rig_start(struct rig *rig);
/* Stops and joins. */
void rig_stop(struct rig *rig);
void rig_fini(struct rig *rig);

#endif
