/* Runs seeds: see README.md. */
#include "world.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A batch this large without an event of some kind does not try what it claims to. */
#define SOMETIMES_SEEDS 400
#define RARE_SEEDS 10000 /* for a node list that finds no memory */

static const char *const count_names[SIM_COUNT_MAX] = {
#define X(name) #name,
    SIM_COUNTS(X)
#undef X
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* An assertion has failed: which seed was it? */
static void on_abort(int number)
{
    char text[80];
    int size = snprintf(text, sizeof(text), "seed %llu: signal %d\n",
                        (unsigned long long)sim_seed(), number);
    (void)!write(STDERR_FILENO, text, (size_t)size);
    signal(number, SIG_DFL);
    raise(number);
}

static void print_counts(void)
{
    for (int i = 0; i < SIM_COUNT_MAX; i++)
        printf("%-28s %12llu\n", count_names[i], (unsigned long long)sim_counts[i]);
}

/* There is no bad peer yet. */
static bool is_expected(int count, uint64_t seeds)
{
    if (count == SIM_bad_message)
        return false;
    return seeds >= (count == SIM_list_refused ? RARE_SEEDS : SOMETIMES_SEEDS);
}

/* Things that never happened. */
static int missing(uint64_t seeds)
{
    int count = 0;
    for (int i = 0; i < SIM_COUNT_MAX; i++) {
        if (sim_counts[i] || !is_expected(i, seeds))
            continue;
        fprintf(stderr, "never happened: %s\n", count_names[i]);
        count++;
    }
    return count;
}

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s --seeds N [--from S] [--counts] | --seed S [--trace] [--counts]\n"
            "       --for SECONDS  as many seeds as fit\n"
            "       --plant N      with bug N (1 to %d) in the services, which must be found\n",
            program, PLANTS - 1);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seeds", 1, NULL, 'n'},  {"from", 1, NULL, 'f'},
                                            {"seed", 1, NULL, 's'},   {"trace", 0, NULL, 't'},
                                            {"counts", 0, NULL, 'c'}, {"for", 1, NULL, 'd'},
                                            {"plant", 1, NULL, 'p'},  {NULL, 0, NULL, 0}};
    uint64_t count = 0, from = 1;
    double limit = 0;
    bool counts = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'n':
            count = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            from = strtoull(optarg, NULL, 10);
            break;
        case 's':
            from = strtoull(optarg, NULL, 10);
            count = 1;
            break;
        case 't':
            sim_tracing = true;
            break;
        case 'c':
            counts = true;
            break;
        case 'd':
            limit = strtod(optarg, NULL);
            count = UINT64_MAX;
            break;
        case 'p':
            planted = (enum plant)strtoul(optarg, NULL, 10);
            break;
        default:
            return usage(argv[0]);
        }
    }
    if (!count)
        return usage(argv[0]);
    /* Loops come and go with buffers that malloc would map and unmap each time. */
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);

    double began = seconds();
    uint64_t done = 0, repeated = 0;
    for (; done < count && (!limit || seconds() - began < limit); done++) {
        uint64_t hash = world_run(from + done);
        if (done % 100)
            continue;
        repeated++;
        if (world_run(from + done) != hash)
            sim_fail("two runs differ");
    }
    double took = seconds() - began;
    if (counts)
        print_counts();
    printf("%llu seeds from %llu, %llu of them twice, in %.1f s: %.0f a second\n",
           (unsigned long long)done, (unsigned long long)from, (unsigned long long)repeated, took,
           (double)(done + repeated) / took);
    return missing(done) ? 1 : 0;
}
