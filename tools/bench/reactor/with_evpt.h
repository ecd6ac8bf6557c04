/* The reactor of this project; see bench.h. */
#ifndef EVPT_BENCH_WITH_EVPT_H
#define EVPT_BENCH_WITH_EVPT_H

#include "bench.h"
#include "reactor/loop.h"
#include "reactor/pair.h"

static inline const char *lib_version(void)
{
    return "evpt " EVPT_VERSION;
}

struct lib_loop {
    struct evpt_loop *loop;
    bool done;
};

static inline void lib_loop_init(struct lib_loop *loop)
{
    MUST(evpt_loop_new(&loop->loop) == 0);
}

static inline void lib_run(struct lib_loop *loop)
{
    for (loop->done = false; !loop->done;)
        MUST(evpt_loop_turn(loop->loop, EVPT_FOREVER) >= 0);
}

static inline void lib_break(struct lib_loop *loop)
{
    loop->done = true;
}

static inline void lib_loop_fini(struct lib_loop *loop)
{
    evpt_loop_free(loop->loop);
}

static inline void lib_use_threads(void)
{
}

static inline void lib_loop_adopt(struct lib_loop *loop)
{
    evpt_loop_adopt(loop->loop);
}

struct lib_io {
    struct evpt_watch watch;
};

#define LIB_ON_IO(name, io)                                                                        \
    static void name##_body(struct lib_io *io);                                                    \
    static void name(struct evpt_watch *watch_, uint32_t events_, void *user_)                     \
    {                                                                                              \
        name##_body(user_);                                                                        \
    }                                                                                              \
    static void name##_body(struct lib_io *io)

static inline void lib_io_start(struct lib_loop *loop, struct lib_io *io, int fd, evpt_watch_fn fn)
{
    MUST(evpt_watch_start(loop->loop, &io->watch, fd, EVPT_READ, fn, io) == 0);
}

static inline void lib_io_stop(struct lib_loop *loop, struct lib_io *io)
{
    evpt_watch_stop(&io->watch);
}

struct lib_timer {
    struct evpt_timer timer;
};

#define LIB_ON_TIMER(name, timer)                                                                  \
    static void name##_body(struct lib_timer *timer);                                              \
    static void name(struct evpt_timer *timer_, void *user_)                                       \
    {                                                                                              \
        name##_body(user_);                                                                        \
    }                                                                                              \
    static void name##_body(struct lib_timer *timer)

static inline void lib_timer_init(struct lib_loop *loop, struct lib_timer *timer)
{
    timer->timer = (struct evpt_timer){0};
}

static inline void lib_timer_start(struct lib_loop *loop, struct lib_timer *timer, unsigned ms,
                                   evpt_timer_fn fn)
{
    evpt_loop_timer(loop->loop, &timer->timer, ms * EVPT_NS_PER_MS, fn, timer);
}

static inline void lib_timer_stop(struct lib_loop *loop, struct lib_timer *timer)
{
    evpt_timer_stop(evpt_loop_wheel(loop->loop), &timer->timer);
}

static inline void lib_timer_fini(struct lib_timer *timer)
{
}

struct lib_message {
    struct evpt_mpsc_node node;
};

struct lib_channel {
    struct evpt_pair pair;
};

static inline struct lib_message *lib_next(struct lib_message *message)
{
    return (struct lib_message *)message->node.next;
}

#define LIB_ON_MESSAGES(name, channel, list)                                                       \
    static void name##_body(struct lib_channel *channel, struct lib_message *list);                \
    static void name(void *user_, struct evpt_mpsc_node *list_)                                    \
    {                                                                                              \
        name##_body(user_, (struct lib_message *)list_);                                           \
    }                                                                                              \
    static void name##_body(struct lib_channel *channel, struct lib_message *list)

static inline void lib_channel_init(struct lib_loop *loop, struct lib_channel *channel,
                                    evpt_pair_fn fn)
{
    MUST(evpt_pair_init(&channel->pair, loop->loop, fn, channel) == 0);
}

static inline void lib_send(struct lib_channel *channel, struct lib_message *message)
{
    evpt_pair_write(&channel->pair, &message->node);
}

static inline void lib_channel_fini(struct lib_channel *channel)
{
    evpt_pair_fini(&channel->pair);
}

#endif
