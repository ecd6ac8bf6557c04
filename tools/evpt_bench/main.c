/* evpt-bench: the load tool. Options in, an engine that makes the load, a report out.
 *
 *     prepare --> warm-up run --> measured run --> report
 *
 * Both runs are the same but for their length; the first one is thrown away. A Ctrl-C ends the run
 * under way in order (nothing new is started, what is in flight is waited for) and what it has is
 * reported; a second one does not wait.
 */
#include "lua/config_load.h"
#include "reactor/error.h"
#include "reactor/tls.h"
#include "tools/evpt_bench/client.h"
#include "tools/evpt_bench/compare.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/driver.h"
#include "tools/evpt_bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct bench {
    struct bench_options options;
    struct bench_environment environment;
    struct bench_context context;
    struct bench_engine *engine;
    struct bench_comparison *comparison;
    struct bench_tally *tally; /* of the run under way */
    struct evpt_watch signals;
    int signal_fd;
    bool shows_progress;
    uint64_t tick_begin_ns; /* of what `recent` covers */
    struct bench_cpu cpus[BENCH_CPU_MAX];
    unsigned cpu_count;
};

/* ---- signals ---- */

static void on_signal(struct evpt_watch *watch, uint32_t events, void *user)
{
    struct bench *bench = user;
    while (evpt_sys_signalfd_read(bench->signal_fd) > 0)
        bench->context.interrupts++;
}

/* ---- progress ---- */

static void clear_progress(const struct bench *bench)
{
    if (bench->shows_progress)
        fputs("\r\033[K", stderr);
}

static void show_progress(const struct bench *bench, uint64_t now_ns)
{
    const struct bench_tally *recent = bench->engine->recent;
    char rate[BENCH_SHORT_SIZE], p50[BENCH_SHORT_SIZE], p99[BENCH_SHORT_SIZE];
    double seconds = (double)(now_ns - bench->tick_begin_ns) / EVPT_NS_PER_S;
    uint64_t ended = bench_tally_ended(recent);
    bench_format_count(rate, seconds > 0 ? (double)ended / seconds : 0);
    bench_format_ns(p50, (double)bench_histogram_quantile(&recent->latency, 0.5, 0));
    bench_format_ns(p99, (double)bench_histogram_quantile(&recent->latency, 0.99, 0));
    clear_progress(bench);
    fprintf(stderr, "%5.0f s  %s/s  p50 %s  p99 %s  errors %" PRIu64,
            (double)(now_ns - bench->engine->run.begin_ns) / EVPT_NS_PER_S, rate, p50, p99,
            ended - recent->outcomes[EVPT_CODE_OK]);
    fflush(stderr);
}

/* The engine has brought `recent` up to date: show it, and add it to the rest. */
static void on_sample(struct bench_engine *engine, void *user)
{
    struct bench *bench = user;
    uint64_t now_ns = evpt_sys_now_ns();
    if (bench->shows_progress)
        show_progress(bench, now_ns);
    bench_tally_merge(bench->tally, engine->recent);
    bench_tally_clear(engine->recent);
    bench->tick_begin_ns = now_ns;
}

/* ---- a run ---- */

static void read_cpus(struct bench *bench)
{
    const struct bench_engine *engine = bench->engine;
    bench->cpus[0] = (struct bench_cpu){.name = "evpt-bench", .ns = bench_cpu_ns(0)};
    bench->cpu_count = 1;
    for (unsigned i = 0; i < engine->peer_count; i++) {
        const struct bench_peer *peer = &engine->peers[i];
        bench->cpus[bench->cpu_count++] =
            (struct bench_cpu){.name = peer->name, .pid = peer->pid, .ns = bench_cpu_ns(peer->pid)};
    }
}

/* From what they were at the beginning to what they have used since. */
static void subtract_cpus(struct bench *bench)
{
    for (unsigned i = 0; i < bench->cpu_count; i++) {
        if (bench->cpus[i].pid) /* our own is of no interest */
            bench->cpus[i].memory_max = bench_memory_max(bench->cpus[i].pid);
        uint64_t now_ns = bench_cpu_ns(bench->cpus[i].pid);
        bench->cpus[i].ns = now_ns > bench->cpus[i].ns ? now_ns - bench->cpus[i].ns : 0;
    }
}

static uint64_t smaller(uint64_t left, uint64_t right)
{
    return left < right ? left : right;
}

/* Turns the loop until the run is over. */
static void turn_until_over(struct bench *bench, uint64_t end_ns)
{
    struct bench_engine *engine = bench->engine;
    uint64_t tick_ns = bench->shows_progress ? engine->run.begin_ns + EVPT_NS_PER_S : EVPT_FOREVER;
    while (!engine->run.over && bench->context.interrupts < 2) {
        uint64_t now_ns = evpt_sys_now_ns();
        if (now_ns >= end_ns || bench->context.interrupts) {
            engine->ops->stop(engine);
            end_ns = EVPT_FOREVER;
        }
        if (now_ns >= tick_ns) {
            engine->ops->sample(engine);
            tick_ns += EVPT_NS_PER_S;
        }
        engine->ops->advance(engine, now_ns);
        if (engine->run.over)
            break;
        uint64_t until_ns = smaller(smaller(end_ns, tick_ns), engine->ops->next_ns(engine));
        int ran = evpt_loop_turn(bench->context.loop, until_ns);
        if (ran < 0) {
            snprintf(engine->run.failure, sizeof(engine->run.failure), "wait: %s",
                     evpt_strerror(ran));
            engine->run.failed = true;
            break;
        }
    }
}

/* An open loop makes every slot that lies within its duration, and ends with the last one; it gets
 * this long for those that it is late with. */
#define LATE_NS EVPT_NS_PER_S

static uint64_t add_ns(uint64_t ns, uint64_t more_ns)
{
    return more_ns < EVPT_FOREVER - ns ? ns + more_ns : EVPT_FOREVER;
}

/* One run; afterwards engine->run, bench->tally and bench->cpus tell about it. */
static void run(struct bench *bench, uint64_t duration_ns, uint64_t count)
{
    struct bench_engine *engine = bench->engine;
    double rate = bench->options.rate;
    if (rate > 0 && duration_ns != UINT64_MAX) {
        count = smaller(count, (uint64_t)ceil((double)duration_ns * rate / EVPT_NS_PER_S));
        duration_ns = add_ns(duration_ns, LATE_NS);
    }
    bench_tally_clear(bench->tally);
    bench_tally_clear(engine->recent);
    engine->run = (struct bench_run){0};
    read_cpus(bench);
    engine->ops->begin(engine, count);
    uint64_t begin_ns = engine->run.begin_ns;
    bench->tick_begin_ns = begin_ns;
    turn_until_over(bench,
                    duration_ns < UINT64_MAX - begin_ns ? begin_ns + duration_ns : EVPT_FOREVER);
    if (!engine->run.window_end_ns) /* it did not end in order */
        engine->run.window_end_ns = evpt_sys_now_ns();
    subtract_cpus(bench);
    bench_tally_merge(bench->tally, engine->recent);
    clear_progress(bench);
}

/* ---- start and end ---- */

static void print_problem(const char *line, void *user)
{
    bench_complain("%s", line);
}

static int find_target(const struct bench_options *options, struct evpt_addr *ret_addr)
{
    if (!options->nodes)
        return evpt_addr_parse(ret_addr, options->target); /* options.c has tried it */
    struct evpt_node_list list = {0};
    if (evpt_node_list_load(&list, options->nodes, NULL, 0, NULL, print_problem, NULL) != 0)
        return -1;
    const struct evpt_node_entry *entry = evpt_node_list_find(&list, options->target);
    bool found = entry && entry->addr.size;
    if (found)
        *ret_addr = entry->addr;
    else
        bench_complain("%s: %s: %s", options->nodes, options->target,
                       entry ? "the node is down there" : "no such node");
    evpt_node_list_fini(&list);
    return found ? 0 : -1;
}

static int load_tls(struct bench *bench)
{
    char cert[512], key[512], ca[512], text[EVPT_TLS_TEXT_SIZE] = "";
    const char *folder = bench->options.tls;
    if (!folder)
        return 0;
    snprintf(cert, sizeof(cert), "%s/evpt_bench.crt", folder);
    snprintf(key, sizeof(key), "%s/evpt_bench.key", folder);
    snprintf(ca, sizeof(ca), "%s/ca.crt", folder);
    const struct evpt_tls_files files = {.cert = cert, .key = key, .ca = ca};
    /* A target may be an address: its name is not known then, and that the CA has signed it must
     * do. */
    int error = evpt_tls_new(&bench->context.tls, false, NULL, NULL);
    if (!error || error == -ENOTSUP)
        error = evpt_tls_load(bench->context.tls, &files, text);
    if (error)
        bench_complain("--tls: %s", text[0] ? text : evpt_strerror(error));
    return error ? -1 : 0;
}

static int make_engine(struct bench *bench)
{
    struct evpt_addr addr;
    if (bench->options.where != BENCH_TARGET)
        bench->engine = bench_driver_new(&bench->context);
    else if (find_target(&bench->options, &addr) != 0)
        return -1;
    else
        bench->engine = bench_client_new(&bench->context, &addr);
    bench->tally = evpt_sys_zalloc(sizeof(*bench->tally));
    if (!bench->engine || !bench->tally) {
        bench_complain("out of memory");
        return -1;
    }
    bench->engine->on_sample = on_sample;
    bench->engine->user = bench;
    return 0;
}

static int start(struct bench *bench, const char *command)
{
    static const int signals[] = {SIGINT, SIGTERM, 0};
    const struct bench_options *options = &bench->options;
    if (bench_report_check_files(options) != 0)
        return -1;
    if (options->compare && !(bench->comparison = bench_comparison_read(options->compare)))
        return -1;
    if (options->pin && sched_setaffinity(0, sizeof(options->cpus), &options->cpus) != 0) {
        bench_complain("--pin %s: this machine has no such processors", options->pin);
        return -1;
    }
    bench_environment_read(&bench->environment, command);
    bench_exact_timers();
    int error = evpt_loop_new(&bench->context.loop);
    if (!error)
        error = bench->signal_fd = evpt_sys_signalfd(signals);
    if (error >= 0)
        error = evpt_watch_start(bench->context.loop, &bench->signals, bench->signal_fd, EVPT_READ,
                                 on_signal, bench);
    if (error < 0) {
        bench_complain("cannot start: %s", evpt_strerror(error));
        return -1;
    }
    bench->shows_progress = isatty(STDERR_FILENO);
    return load_tls(bench) == 0 ? make_engine(bench) : -1;
}

static void finish(struct bench *bench)
{
    if (bench->engine)
        bench->engine->ops->close(bench->engine);
    evpt_tls_free(bench->context.tls);
    evpt_watch_stop(&bench->signals);
    evpt_sys_close(bench->signal_fd);
    evpt_loop_free(bench->context.loop);
    bench_comparison_free(bench->comparison);
    evpt_sys_free(bench->tally);
}

/* Tells what came of it; the exit status. */
static int report(struct bench *bench, bool warmup_only)
{
    const struct bench_options *options = &bench->options;
    const struct bench_run *run = &bench->engine->run;
    struct bench_report report = {
        .options = options,
        .environment = &bench->environment,
        .run = run,
        .tally = bench->tally,
        .cpu_count = bench->cpu_count,
        .interrupted = bench->context.interrupts > 0,
        .warmup_only = warmup_only,
    };
    memcpy(report.cpus, bench->cpus, sizeof(report.cpus));
    const char *files[] = {options->json, options->csv, options->hgrm};
    FILE *out = stdout;
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (files[i] && strcmp(files[i], "-") == 0)
            out = stderr; /* stdout is for the file */
    }
    bench_report_text(out, &report);
    if (bench->comparison)
        bench_comparison_print(out, bench->comparison, &report);
    fflush(out);
    int status = bench_report_files(&report) == 0 ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
    if (run->failed) {
        if (run->failure[0])
            bench_complain("%s", run->failure);
        status = BENCH_EXIT_FAILED;
    } else if (bench->tally->outcomes[EVPT_CODE_OK] == 0) {
        bench_complain("no call was answered with ok");
        status = BENCH_EXIT_FAILED;
    }
    if (status == BENCH_EXIT_OK && options->max_p99_ns &&
        !bench_report_keeps(&report, options->max_p99_ns)) {
        char limit[BENCH_SHORT_SIZE];
        bench_complain("--max-p99: less than 99 %% of the calls were answered within %s",
                       bench_format_ns(limit, (double)options->max_p99_ns));
        status = BENCH_EXIT_TOO_SLOW;
    }
    return status;
}

static int measure(struct bench *bench)
{
    const struct bench_options *options = &bench->options;
    struct bench_engine *engine = bench->engine;
    if (engine->ops->prepare(engine) != 0) {
        if (bench->context.interrupts)
            bench_complain("interrupted before anything was measured");
        return BENCH_EXIT_FAILED;
    }
    bool warmup = options->warmup_ns > 0;
    if (warmup)
        run(bench, options->warmup_ns, UINT64_MAX);
    if (warmup && (bench->context.interrupts || engine->run.failed))
        return report(bench, true);
    run(bench, options->duration_ns, options->count);
    return report(bench, false);
}

static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old limit then stays */
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {.signal_fd = -1};
    signal(SIGPIPE, SIG_IGN);
    raise_fd_limit();
    bench.context.options = &bench.options;
    char *command = bench_quote_command(argc, argv); /* before getopt moves things about */
    int status = bench_options_parse(&bench.options, argc, argv);
    if (status < 0) {
        status = start(&bench, command) == 0 ? measure(&bench) : BENCH_EXIT_FAILED;
        finish(&bench);
    }
    bench_options_fini(&bench.options);
    free(command);
    return status;
}
