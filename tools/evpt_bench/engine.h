/* What makes the load: the client in this process (client.h), or a service in a node of our own
 * (driver.h). Both live on one loop, which main.c turns:
 *
 *     engine->ops->prepare(engine)                  connections; nodes
 *     engine->ops->begin(engine, count)             a run: warm-up, then the measured one
 *     while (!engine->run.over) {
 *         engine->ops->advance(engine, now)         starts what is due
 *         evpt_loop_turn(loop, min(engine->ops->next_ns(engine), ...))
 *     }
 *     engine->ops->stop(engine)                     any time: nothing new is started, and the run
 * is over when everything in flight has ended engine->ops->close(engine)
 */
#ifndef EVPT_BENCH_ENGINE_H
#define EVPT_BENCH_ENGINE_H

#include "reactor/loop.h"
#include "tools/evpt_bench/options.h"
#include "tools/evpt_bench/tally.h"

#include <sys/types.h>

/* What everything here shares. */
struct bench_context {
    const struct bench_options *options;
    struct evpt_loop *loop;
    struct evpt_tls *tls; /* NULL: none */
    unsigned interrupts; /* Ctrl-C, TERM */
};

/* One run, in numbers. */
struct bench_run {
    uint64_t begin_ns;
    uint64_t window_end_ns; /* nothing was started after it */
    uint64_t window_ended;  /* messages that had an outcome by then: the rate's numerator */
    uint64_t started;       /* messages */
    uint64_t missed;        /* slots of an open loop */
    uint64_t late_answers;  /* came after their call had timed out */
    uint64_t reconnects;
    uint64_t bytes_out, bytes_in;
    uint64_t beside_calls, beside_ns; /* --beside: calls that ended, in that time */
    bool over;
    bool failed; /* it could not go on: `failure` says why */
    char failure[256];
};

struct bench_peer { /* a process at the other end, where it is on this machine */
    const char *name;
    pid_t pid;
};
#define BENCH_PEERS_MAX 2

struct bench_engine;

struct bench_engine_ops {
    /* 0; or -1 after one line to stderr, or silently where the context was interrupted. */
    int (*prepare)(struct bench_engine *engine);
    /* Starts a run of at most `count` messages; `run` and `recent` have been cleared. */
    void (*begin)(struct bench_engine *engine, uint64_t count);
    void (*advance)(struct bench_engine *engine, uint64_t now_ns);
    uint64_t (*next_ns)(const struct bench_engine *engine);
    void (*stop)(struct bench_engine *engine);
    /* Brings `recent` up to date, then calls on_sample, at once or later. */
    void (*sample)(struct bench_engine *engine);
    void (*close)(struct bench_engine *engine);
};

struct bench_engine {
    const struct bench_engine_ops *ops;
    struct bench_context *context;
    struct bench_run run;
    struct bench_tally *recent; /* since it was last cleared; whoever owns the engine clears it */
    struct bench_peer peers[BENCH_PEERS_MAX];
    unsigned peer_count;
    void (*on_sample)(struct bench_engine *engine, void *user);
    void *user;
};

#endif
