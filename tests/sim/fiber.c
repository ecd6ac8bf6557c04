/* Threads as fibers, and the clock: see machine.h. */
#include "machine_private.h"

#include "reactor/thread.h"

#include <assert.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

struct context {
    ucontext_t whole;
    jmp_buf place;
    bool has_run;
};

/* swapcontext saves the signal mask, which takes a system call and half the time of a run; _setjmp
 * and _longjmp do not, so only the first switch to a fiber is a setcontext. For ASan a longjmp
 * leaves frames for good and forgets what it knew about them, so there it is swapcontext. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SWITCH_BEGIN(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define SWITCH_END(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#define SWITCH(from, to) swapcontext(&(from)->whole, &(to)->whole)
#else
#define SWITCH_BEGIN(save, stack, size) ((void)(save), (void)(stack), (void)(size))
#define SWITCH_END(save, stack, size) ((void)(save), (void)(stack), (void)(size))
#define SWITCH(from, to)                                                                           \
    do {                                                                                           \
        if (_setjmp((from)->place) == 0) {                                                         \
            (from)->has_run = true;                                                                \
            if ((to)->has_run)                                                                     \
                _longjmp((to)->place, 1);                                                          \
            setcontext(&(to)->whole);                                                              \
        }                                                                                          \
    } while (0)
#endif

#define STACK_SIZE (256 * 1024)
#define STACKS_KEPT 64

enum fiber_state { READY, WAITING, JOINING, ENDED };

struct fiber {
    struct evpt_list link;
    struct context context;
    char *stack;
    void *fake_stack;
    struct sim_process *process;
    struct evpt_thread *thread; /* NULL: the process's first */
    sim_main_fn fn;
    void *user;
    enum fiber_state state;
    struct file *file; /* WAITING for it */
    struct fiber *joined;
    uint64_t deadline_ns;
};

struct event {
    uint64_t at_ns, number;
    sim_event_fn fn;
    void *user;
};

/* The stacks outlive a machine: they are worth keeping. */
static struct {
    struct context driver;
    void *fake_stack;
    const void *driver_stack;
    size_t driver_stack_size;
    char *stacks[STACKS_KEPT];
    unsigned stack_count;
    struct event *events; /* a heap */
    size_t event_count, event_room;
    uint64_t event_number;
} fibers;

/* ---- events ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void swap(struct event *a, struct event *b)
{
    struct event kept = *a;
    *a = *b;
    *b = kept;
}

void sim_at(uint64_t at_ns, sim_event_fn fn, void *user)
{
    if (fibers.event_count == fibers.event_room) {
        fibers.event_room = fibers.event_room ? fibers.event_room * 2 : 256;
        fibers.events = realloc(fibers.events, fibers.event_room * sizeof(*fibers.events));
        assert(fibers.events);
    }
    size_t i = fibers.event_count++;
    fibers.events[i] = (struct event){at_ns, fibers.event_number++, fn, user};
    for (; i && is_before(&fibers.events[i], &fibers.events[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&fibers.events[i], &fibers.events[(i - 1) / 2]);
}

static struct event pop_event(void)
{
    struct event first = fibers.events[0];
    fibers.events[0] = fibers.events[--fibers.event_count];
    for (size_t i = 0, least;; i = least) {
        least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < fibers.event_count; child++) {
            if (is_before(&fibers.events[child], &fibers.events[least]))
                least = child;
        }
        if (least == i)
            return first;
        swap(&fibers.events[i], &fibers.events[least]);
    }
}

static void run_events(void)
{
    while (fibers.event_count && fibers.events[0].at_ns <= machine.now_ns) {
        struct event event = pop_event();
        event.fn(event.user);
    }
}

/* ---- switching ---- */

static void to_driver(void)
{
    struct fiber *fiber = machine.fiber;
    SWITCH_BEGIN(fiber->state == ENDED ? NULL : &fiber->fake_stack, fibers.driver_stack,
                 fibers.driver_stack_size);
    SWITCH(&fiber->context, &fibers.driver);
    SWITCH_END(fiber->fake_stack, &fibers.driver_stack, &fibers.driver_stack_size);
}

static void to_fiber(struct fiber *fiber)
{
    machine.fiber = fiber;
    machine.process = fiber->process;
    SWITCH_BEGIN(&fibers.fake_stack, fiber->stack, STACK_SIZE);
    SWITCH(&fibers.driver, &fiber->context);
    SWITCH_END(fibers.fake_stack, NULL, NULL);
    machine.fiber = NULL;
    machine.process = &machine.outside;
}

static void fiber_main(void)
{
    SWITCH_END(NULL, &fibers.driver_stack, &fibers.driver_stack_size);
    struct fiber *fiber = machine.fiber;
    fiber->fn(fiber->user);
    fiber->state = ENDED;
    fiber->process->dirty = true;
    to_driver();
    abort();
}

static struct fiber *new_fiber(struct sim_process *process, sim_main_fn fn, void *user)
{
    struct fiber *fiber = calloc(1, sizeof(*fiber));
    assert(fiber);
    fiber->stack = fibers.stack_count ? fibers.stacks[--fibers.stack_count] : malloc(STACK_SIZE);
    assert(fiber->stack);
    fiber->process = process;
    fiber->fn = fn;
    fiber->user = user;
    getcontext(&fiber->context.whole);
    fiber->context.whole.uc_stack.ss_sp = fiber->stack;
    fiber->context.whole.uc_stack.ss_size = STACK_SIZE;
    makecontext(&fiber->context.whole, fiber_main, 0);
    evpt_list_push_back(&process->fibers, &fiber->link);
    process->dirty = true;
    return fiber;
}

static void free_fiber(struct fiber *fiber)
{
    evpt_list_remove(&fiber->link);
    if (fibers.stack_count < STACKS_KEPT)
        fibers.stacks[fibers.stack_count++] = fiber->stack;
    else
        free(fiber->stack);
    free(fiber);
}

void sim_fibers_drop(struct sim_process *process)
{
    while (!evpt_list_is_empty(&process->fibers))
        free_fiber(EVPT_CONTAINER_OF(process->fibers.next, struct fiber, link));
}

/* ---- what fibers call ---- */

void sim_block(struct file *file, uint64_t deadline_ns)
{
    struct fiber *fiber = machine.fiber;
    if (!fiber || sim_is_ready(file) || deadline_ns <= machine.now_ns)
        return;
    fiber->state = WAITING;
    fiber->file = file;
    fiber->deadline_ns = deadline_ns;
    fiber->process->dirty = true;
    to_driver();
}

void sim_maybe_yield(void)
{
    if (!machine.fiber || !sim_chance(sim_faults.preempt))
        return;
    sim_counts[SIM_preemptions]++;
    machine.process->dirty = true;
    to_driver();
}

/* The linker puts these in the place of thread.c's (meson.build). */
int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user);
void __wrap_evpt_thread_join(struct evpt_thread *thread);

int __wrap_evpt_thread_start(struct evpt_thread *thread, const char *name, evpt_thread_fn fn,
                             void *user)
{
    (void)name;
    new_fiber(machine.process, fn, user)->thread = thread;
    thread->running = true;
    return 0;
}

static struct fiber *fiber_of(const struct evpt_thread *thread)
{
    struct evpt_list *all = &machine.process->fibers;
    for (struct evpt_list *link = all->next; link != all; link = link->next) {
        struct fiber *fiber = EVPT_CONTAINER_OF(link, struct fiber, link);
        if (fiber->thread == thread)
            return fiber;
    }
    sim_fail("a thread is joined that was not started");
}

void __wrap_evpt_thread_join(struct evpt_thread *thread)
{
    if (!thread || !thread->running)
        return;
    struct fiber *joined = fiber_of(thread);
    if (joined->state != ENDED) {
        machine.fiber->state = JOINING;
        machine.fiber->joined = joined;
        to_driver();
    }
    free_fiber(joined);
    thread->running = false;
}

/* ---- who runs next ---- */

static bool can_run(const struct fiber *fiber)
{
    switch (fiber->state) {
    case READY:
        return true;
    case WAITING:
        return fiber->deadline_ns <= machine.now_ns || sim_is_ready(fiber->file);
    case JOINING:
        return fiber->joined->state == ENDED;
    default:
        return false;
    }
}

/* Adds to `found` who can run, and sets when to look again. */
static unsigned collect(struct sim_process *process, struct fiber **found, unsigned count,
                        unsigned max)
{
    unsigned before = count;
    process->check_at_ns = EVPT_FOREVER;
    for (struct evpt_list *link = process->fibers.next; link != &process->fibers;
         link = link->next) {
        struct fiber *fiber = EVPT_CONTAINER_OF(link, struct fiber, link);
        if (count < max && can_run(fiber))
            found[count++] = fiber;
        else if (fiber->state == WAITING && fiber->deadline_ns < process->check_at_ns)
            process->check_at_ns = fiber->deadline_ns;
    }
    process->dirty = count > before;
    return count;
}

static void advance(uint64_t next_ns)
{
    if (fibers.event_count && fibers.events[0].at_ns < next_ns)
        next_ns = fibers.events[0].at_ns;
    if (next_ns > machine.now_ns)
        machine.now_ns = next_ns;
}

static void run_fiber(struct fiber *fiber)
{
    struct sim_process *process = fiber->process;
    fiber->state = READY;
    sim_counts[SIM_switches]++;
    sim_note(process->host, machine.now_ns);
    to_fiber(fiber);
    process->dirty = true;
    machine.now_ns += 1000 + sim_below(sim_faults.switch_us) * 1000;
    if (fiber->state == ENDED && !fiber->thread) {
        sim_trace("%s ends", process->name);
        free_fiber(fiber);
        sim_take_apart(process, true, false);
    }
}

bool sim_step(void)
{
    enum { MAX = 64 };
    struct fiber *found[MAX];
    unsigned count = 0;
    uint64_t next_ns = EVPT_FOREVER;
    run_events();
    for (struct sim_process *process = machine.processes; process; process = process->next) {
        if (process->ended)
            continue;
        if (process->frozen_until_ns > machine.now_ns) {
            if (process->frozen_until_ns < next_ns)
                next_ns = process->frozen_until_ns;
            continue;
        }
        if (process->dirty || process->check_at_ns <= machine.now_ns)
            count = collect(process, found, count, MAX);
        if (process->check_at_ns < next_ns)
            next_ns = process->check_at_ns;
    }
    if (count) {
        run_fiber(found[sim_below(count)]);
        return true;
    }
    if (next_ns == EVPT_FOREVER && !fibers.event_count)
        return false;
    advance(next_ns);
    return true;
}

void sim_jump(uint64_t ns)
{
    machine.now_ns += ns;
    machine.jumped_ns = machine.now_ns;
}

/* ---- life cycle ---- */

struct sim_process *sim_spawn(unsigned host, const char *name, sim_main_fn fn, void *user)
{
    struct sim_process *process = calloc(1, sizeof(*process));
    assert(process && host < SIM_HOSTS_MAX);
    process->host = host;
    process->name = name;
    evpt_list_init(&process->blocks);
    evpt_list_init(&process->fibers);
    process->next = machine.processes;
    machine.processes = process;
    new_fiber(process, fn, user);
    return process;
}

void sim_fibers_init(void)
{
    fibers.event_count = 0;
    fibers.event_number = 0;
}
