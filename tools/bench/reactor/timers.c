/* Workload: N timers are started, N are stopped, N fire.
 *
 *     timers-LIBRARY N
 *
 * As the deadlines of N calls in flight: the deadlines are spread at random over a second, in no
 * order. First all are started and stopped again in the order in which they were started, as calls
 * are answered; then all are started once more, the program sleeps until all are due, and the loop
 * fires them. All in callbacks of the loop, where each library has its time at hand. Printed: ns
 * of CPU time for each timer to start, to stop (the mean of the two rounds for start), and to fire.
 */
#include ADAPTER
#include <unistd.h>

enum { SPREAD_MS = 1000 };

struct run;

struct counted_timer {
    struct lib_timer timer;
    struct run *run;
    unsigned after_ms;
};

struct run {
    struct lib_loop loop;
    struct lib_timer start;
    struct counted_timer *timers;
    long count, fired;
    uint64_t start_ns, stop_ns, fire_ns;
};

LIB_ON_TIMER(on_fire, timer)
{
    struct run *run = CONTAINER_OF(timer, struct counted_timer, timer)->run;
    if (++run->fired == run->count)
        lib_break(&run->loop);
}

static void start_all(struct run *run)
{
    uint64_t begin_ns = cpu_ns();
    for (long i = 0; i < run->count; i++)
        lib_timer_start(&run->loop, &run->timers[i].timer, run->timers[i].after_ms, on_fire);
    run->start_ns += cpu_ns() - begin_ns;
}

static void stop_all(struct run *run)
{
    uint64_t begin_ns = cpu_ns();
    for (long i = 0; i < run->count; i++)
        lib_timer_stop(&run->loop, &run->timers[i].timer);
    run->stop_ns += cpu_ns() - begin_ns;
}

LIB_ON_TIMER(on_start, timer)
{
    struct run *run = CONTAINER_OF(timer, struct run, start);
    start_all(run);
    stop_all(run);
    start_all(run);
    usleep(SPREAD_MS * 1000 + 50000);
    run->fire_ns = cpu_ns();
}

/* xorshift: the same deadlines for every library */
static unsigned next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

int main(int argc, char **argv)
{
    struct run run = {.count = argument(argc, argv, 1, "TIMERS")};
    uint32_t random = 2463534242;
    lib_loop_init(&run.loop);
    run.timers = must_alloc((size_t)run.count, sizeof(*run.timers));
    for (long i = 0; i < run.count; i++) {
        lib_timer_init(&run.loop, &run.timers[i].timer);
        run.timers[i].run = &run;
        run.timers[i].after_ms = 1 + next_random(&random) % SPREAD_MS;
    }
    lib_timer_init(&run.loop, &run.start);
    lib_timer_start(&run.loop, &run.start, 1, on_start);
    lib_run(&run.loop);
    run.fire_ns = cpu_ns() - run.fire_ns;

    double count = (double)run.count;
    report_library(lib_version());
    report("start_ns", (double)run.start_ns / 2 / count);
    report("stop_ns", (double)run.stop_ns / count);
    report("fire_ns", (double)run.fire_ns / count);
    for (long i = 0; i < run.count; i++)
        lib_timer_fini(&run.timers[i].timer);
    lib_timer_fini(&run.start);
    lib_loop_fini(&run.loop);
    free(run.timers);
    return 0;
}
