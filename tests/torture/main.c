/* Runs scenarios, and lets one thing fail in each run: see README.md. */
#include "torture.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIAL_SECONDS 120 /* of real time: after that it hangs */

static const char *const kind_names[FAIL_KINDS] = {"allocations", "system calls"};

/* What a child says, even if it dies. */
static struct report {
    unsigned counted, nth;
    unsigned done; /* trials of this child */
    char failed[32];
} * report;

/* One run, in which the nth fails (0: none). */
static void run_trial(const struct scenario *scenario, enum failing kind, unsigned nth,
                      unsigned burst)
{
    long live = machine_live();
    int fds = evpt_sys_count_fds();
    report->nth = nth;
    snprintf(report->failed, sizeof(report->failed), "nothing");
    alarm(TRIAL_SECONDS);
    scenario->before();
    machine_arm(kind, nth, burst);
    scenario->act();
    machine_disarm();
    snprintf(report->failed, sizeof(report->failed), "%s", machine_failed());
    report->counted = machine_counted();
    scenario->after();
    for (unsigned i = 0; i < NODES; i++)
        node_stop(&nodes[i], false);
    CHECK(machine_live() == live);
    CHECK(evpt_sys_count_fds() == fds);
    report->done++;
}

/* Every `stride`th from `from` to `to`, in a child. True: it came to its end. */
static bool run_child(const struct scenario *scenario, enum failing kind, unsigned from,
                      unsigned to, unsigned stride, unsigned burst)
{
    fflush(stdout);
    report->done = 0;
    pid_t child = fork();
    if (child == 0) {
        for (unsigned nth = from; nth <= to; nth += stride)
            run_trial(scenario, kind, nth, burst);
        exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (WIFSIGNALED(status))
        fprintf(stderr, "ended by signal %d (%s)\n", WTERMSIG(status),
                WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)));
    fprintf(stderr, "FAILED: --scenario %s --kind %d --nth %u --burst %u\n", scenario->name, kind,
            report->nth, burst);
    return false;
}

/* Returns how many trials failed. */
static unsigned torture(const struct scenario *scenario, enum failing kind, unsigned trials_max,
                        unsigned burst)
{
    if (!run_child(scenario, kind, 0, 0, 1, burst))
        return 1;
    unsigned count = report->counted, failures = 0, trials = 0, from = 1;
    unsigned stride = trials_max && count > trials_max ? (count + trials_max - 1) / trials_max : 1;
    while (from <= count) {
        bool good = run_child(scenario, kind, from, count, stride, burst);
        trials += report->done;
        if (good)
            break;
        failures++;
        trials++;
        from = report->nth + stride;
    }
    printf("%-12s %6u %-12s %6u failed one by one, %u wrong\n", scenario->name, count,
           kind_names[kind], trials, failures);
    return failures;
}

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s SCRIPTS [--trials N] [--burst N] [--scenario NAME] [--kind K] [--nth N]\n"
            "       --trials N    at most so many of each kind and scenario, evenly spread\n"
            "       --burst N     so many in a row fail, not one\n"
            "       --nth N       only this one, without a child: for a debugger\n",
            program);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"trials", 1, NULL, 't'},   {"burst", 1, NULL, 'b'},
                                            {"scenario", 1, NULL, 's'}, {"kind", 1, NULL, 'k'},
                                            {"nth", 1, NULL, 'n'},      {NULL, 0, NULL, 0}};
    const char *only = NULL;
    unsigned trials = 0, burst = 1, failures = 0, ran = 0;
    int only_kind = -1, nth = -1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 't':
            trials = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            burst = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            only = optarg;
            break;
        case 'k':
            only_kind = atoi(optarg);
            break;
        case 'n':
            nth = atoi(optarg);
            break;
        default:
            return usage(argv[0]);
        }
    }
    if (optind != argc - 1)
        return usage(argv[0]);
    signal(SIGPIPE, SIG_IGN);
    report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED)
        return 1;
    nodes_setup(argv[optind]);
    scenarios_setup();
    for (unsigned i = 0; i < scenario_count; i++) {
        for (int kind = 0; kind < FAIL_KINDS; kind++) {
            if ((only && strcmp(only, scenarios[i].name) != 0) ||
                (only_kind >= 0 && kind != only_kind))
                continue;
            ran++;
            if (nth >= 0)
                run_trial(&scenarios[i], kind, (unsigned)nth, burst);
            else
                failures += torture(&scenarios[i], kind, trials, burst);
        }
    }
    return ran && !failures ? 0 : 1;
}
