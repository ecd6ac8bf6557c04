#include "support.h"

#include "cluster/msgpack.h"
#include "reactor/sys.h"
#include "reactor/thread.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIMIT_NS (40 * EVPT_NS_PER_S)

/* ---- the system below ---- */

static atomic_long live, fail_in;
static atomic_bool failed, fail_all;
static atomic_int fail_thread_in;
static atomic_ulong waits;
static _Atomic uint64_t skipped_ns, stopped_at_ns;
static long live_before;
static int fds_before;

static bool refuses(void)
{
    if (atomic_load(&fail_all))
        return true;
    if (atomic_load(&fail_in) == 0 || atomic_fetch_sub(&fail_in, 1) != 1)
        return false;
    atomic_store(&failed, true);
    return true;
}

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&live, 1);
    return memory;
}

void *__real_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes)
{
    return refuses() ? NULL : counted(__real_evpt_sys_alloc(bytes));
}

void *__real_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes)
{
    return refuses() ? NULL : counted(__real_evpt_sys_zalloc(bytes));
}

void *__real_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes)
{
    if (refuses())
        return NULL;
    void *memory = __real_evpt_sys_realloc(old, bytes);
    return old ? memory : counted(memory);
}

void __real_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory);
void __wrap_evpt_sys_free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&live, 1);
    __real_evpt_sys_free(memory);
}

uint64_t __real_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void)
{
    uint64_t stopped_ns = atomic_load_explicit(&stopped_at_ns, memory_order_relaxed);
    return (stopped_ns ? stopped_ns : __real_evpt_sys_now_ns()) +
           atomic_load_explicit(&skipped_ns, memory_order_relaxed);
}

bool __real_evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns);
bool __wrap_evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns);
bool __wrap_evpt_sys_eventfd_wait(int fd, uint64_t deadline_ns)
{
    atomic_fetch_add(&waits, 1);
    return __real_evpt_sys_eventfd_wait(fd, deadline_ns);
}

int __real_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns);
int __wrap_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns);
int __wrap_evpt_sys_epoll_wait(int epoll, struct evpt_sys_event *events, int max, uint64_t now_ns,
                               uint64_t deadline_ns)
{
    atomic_fetch_add(&waits, 1);
    return __real_evpt_sys_epoll_wait(epoll, events, max, now_ns, deadline_ns);
}

int __real_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user);
int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user);
int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user)
{
    if (atomic_load(&fail_thread_in) && atomic_fetch_sub(&fail_thread_in, 1) == 1)
        return -EAGAIN;
    return __real_evpt_thread_start(thread, name, fn, user);
}

void support_fail_allocation(long nth)
{
    atomic_store(&failed, false);
    atomic_store(&fail_in, nth);
}

bool support_allocation_failed(void)
{
    return atomic_load(&failed);
}

long support_pause_failures(void)
{
    return atomic_exchange(&fail_in, 0);
}

void support_resume_failures(long paused)
{
    atomic_store(&fail_in, paused);
}

void support_refuse_memory(bool refused)
{
    atomic_store(&fail_all, refused);
}

void support_fail_thread(int nth)
{
    atomic_store(&fail_thread_in, nth);
}

void support_stop_clock(void)
{
    atomic_store(&stopped_at_ns, __real_evpt_sys_now_ns());
}

void support_skip_ms(uint64_t ms)
{
    atomic_fetch_add(&skipped_ns, ms * EVPT_NS_PER_MS);
}

unsigned long support_waits(void)
{
    return atomic_load(&waits);
}

/* ---- the fixture ---- */

void support_setup(void)
{
    live_before = atomic_load(&live);
    fds_before = evpt_sys_count_fds();
}

long support_leaked_allocations(void)
{
    return atomic_load(&live) - live_before;
}

void support_teardown(void)
{
    support_fail_allocation(0);
    support_refuse_memory(false);
    ck_assert_int_eq(support_leaked_allocations(), 0);
    ck_assert_int_eq(evpt_sys_count_fds(), fds_before);
}

int support_run(const char *name, const TTest *const *tests, size_t count)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, support_setup, support_teardown);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}

uint64_t support_seed(void)
{
    uint64_t seed;
    const char *given = getenv("EVPT_TEST_SEED");
    if (given)
        seed = strtoull(given, NULL, 0);
    else
        evpt_sys_random(&seed, sizeof(seed));
    printf("EVPT_TEST_SEED=%#llx\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

uint64_t support_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t support_real_now_ns(void)
{
    return __real_evpt_sys_now_ns();
}

uint64_t support_limit_ns(void)
{
    return support_real_now_ns() + LIMIT_NS;
}

void support_pause(void)
{
    const struct timespec little = {.tv_nsec = 50000};
    nanosleep(&little, NULL);
}

/* ---- messages ---- */

struct evpt_message *support_request(enum evpt_message_kind kind, uint32_t target, uint32_t source,
                                     uint32_t session, int64_t argument)
{
    struct evpt_message *message = evpt_request_new(kind, "s", 1, "m", 1, 2 * EVPT_ITEM_MAX);
    CHECK(message);
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    CHECK(evpt_write_array(&writer, 1) && evpt_write_int(&writer, argument));
    message->size = (uint32_t)(writer.at - message->data);
    CHECK(evpt_request_finish(&message, source, EVPT_FOREVER) == 0);
    message->target = target;
    message->session = session;
    return message;
}

int64_t support_argument(const struct evpt_message *message)
{
    struct evpt_reader reader;
    uint32_t count;
    int64_t argument;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    CHECK(evpt_read_array(&reader, &count) == 0);
    CHECK(count == 1);
    CHECK(evpt_read_int(&reader, &argument) == 0);
    return argument;
}

const char *support_error_text(const struct evpt_message *reply)
{
    static _Thread_local char text[256];
    struct evpt_reader reader;
    uint32_t count, size;
    const char *bytes;
    evpt_reader_init(&reader, reply->data + reply->args_at, reply->args_size);
    text[0] = 0;
    if (evpt_read_array(&reader, &count) == 0 && count == 1 &&
        evpt_read_str(&reader, &bytes, &size) == 0)
        snprintf(text, sizeof(text), "%.*s", (int)size, bytes);
    return text;
}

/* ---- actors ---- */

void actor_echo(struct actor *actor, struct evpt_message *message)
{
    if (message->kind == EVPT_MESSAGE_CALL) {
        struct evpt_message *reply = evpt_reply_new(message->args_size);
        CHECK(reply);
        reply = evpt_message_grow(reply, message->args_size);
        memcpy(reply->data + reply->size, message->data + message->args_at, message->args_size);
        reply->size += message->args_size;
        evpt_reply_finish(reply);
        evpt_post_reply(actor->scheduler, actor_worker(actor), message->source, message->session,
                        reply);
    }
    evpt_message_free(message);
}

static void actor_run(struct evpt_service *service)
{
    struct actor *actor = service->user;
    actor->service = service;
    CHECK(atomic_fetch_add(&actor->inside, 1) == 0);
    struct evpt_message *message;
    while ((message = evpt_service_next(service)) != NULL) {
        actor->consumed++;
        if (actor->on_message)
            actor->on_message(actor, message);
        else
            actor_echo(actor, message);
        atomic_store(&actor->handled, actor->consumed);
    }
    CHECK(atomic_fetch_sub(&actor->inside, 1) == 1);
}

static void actor_tick(struct evpt_service *service)
{
    struct actor *actor = service->user;
    actor->service = service;
    if (actor->on_tick)
        actor->on_tick(actor);
}

static void actor_stop(struct evpt_service *service)
{
    struct actor *actor = service->user;
    CHECK(atomic_fetch_add(&actor->stopped, 1) == 0);
}

void actor_spawn(struct actor *actor, struct evpt_scheduler *scheduler, struct evpt_worker *self)
{
    static const struct evpt_service_ops ops = {
        .run = actor_run, .tick = actor_tick, .stop = actor_stop};
    actor->scheduler = scheduler;
    actor->handle = evpt_scheduler_spawn(scheduler, self, &ops, actor);
    CHECK(actor->handle);
}

int post_send(struct evpt_scheduler *scheduler, struct evpt_worker *self, uint32_t target,
              uint32_t source, int64_t argument)
{
    struct evpt_message *message = support_request(EVPT_MESSAGE_SEND, target, source, 0, argument);
    int error;
    while ((error = evpt_post(scheduler, self, message)) == -EVPT_ELIMIT)
        support_pause();
    if (error)
        evpt_message_free(message);
    return error;
}

/* ---- the rig ---- */

void rig_init(struct rig *rig, unsigned workers, uint32_t mailbox_max)
{
    memset(rig, 0, sizeof(*rig));
    ck_assert_int_eq(evpt_loop_new(&rig->loop), 0);
    ck_assert_int_eq(evpt_scheduler_init(&rig->scheduler, workers, mailbox_max, rig->loop), 0);
}

void rig_start(struct rig *rig)
{
    ck_assert_int_eq(evpt_scheduler_start(&rig->scheduler), 0);
    rig->started = true;
}

void rig_stop(struct rig *rig)
{
    if (!rig->started)
        return;
    evpt_scheduler_stop(&rig->scheduler);
    ck_assert(evpt_scheduler_join_until(&rig->scheduler, evpt_sys_now_ns() + LIMIT_NS));
    rig->started = false;
}

void rig_fini(struct rig *rig)
{
    rig_stop(rig);
    evpt_scheduler_fini(&rig->scheduler);
    evpt_loop_free(rig->loop);
}
