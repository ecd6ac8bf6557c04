/* libev 4; see bench.h. */
#ifndef EVPT_BENCH_WITH_LIBEV_H
#define EVPT_BENCH_WITH_LIBEV_H

#include "bench.h"
#include "locked_queue.h"
#include <ev.h>
#include <string.h>

#define LIB_TEXT_(x) #x
#define LIB_TEXT(x) LIB_TEXT_(x)

static inline const char *lib_version(void)
{
    return "libev " LIB_TEXT(EV_VERSION_MAJOR) "." LIB_TEXT(EV_VERSION_MINOR);
}

struct lib_loop {
    struct ev_loop *loop;
};

static inline void lib_loop_init(struct lib_loop *loop)
{
    loop->loop = ev_loop_new(EVBACKEND_EPOLL);
    MUST(loop->loop);
}

static inline void lib_run(struct lib_loop *loop)
{
    ev_run(loop->loop, 0);
}

static inline void lib_break(struct lib_loop *loop)
{
    ev_break(loop->loop, EVBREAK_ALL);
}

static inline void lib_loop_fini(struct lib_loop *loop)
{
    ev_loop_destroy(loop->loop);
}

static inline void lib_loop_adopt(struct lib_loop *loop)
{
}

static inline void lib_use_threads(void)
{
}

struct lib_io {
    ev_io io;
};

#define LIB_ON_IO(name, io)                                                                        \
    static void name##_body(struct lib_io *io);                                                    \
    static void name(struct ev_loop *loop_, ev_io *io_, int events_)                               \
    {                                                                                              \
        name##_body(CONTAINER_OF(io_, struct lib_io, io));                                         \
    }                                                                                              \
    static void name##_body(struct lib_io *io)

static inline void lib_io_start(struct lib_loop *loop, struct lib_io *io, int fd,
                                void (*fn)(struct ev_loop *, ev_io *, int))
{
    ev_io_init(&io->io, fn, fd, EV_READ);
    ev_io_start(loop->loop, &io->io);
}

static inline void lib_io_stop(struct lib_loop *loop, struct lib_io *io)
{
    ev_io_stop(loop->loop, &io->io);
}

struct lib_timer {
    ev_timer timer;
};

#define LIB_ON_TIMER(name, timer)                                                                  \
    static void name##_body(struct lib_timer *timer);                                              \
    static void name(struct ev_loop *loop_, ev_timer *timer_, int events_)                         \
    {                                                                                              \
        name##_body(CONTAINER_OF(timer_, struct lib_timer, timer));                                \
    }                                                                                              \
    static void name##_body(struct lib_timer *timer)

static inline void lib_timer_init(struct lib_loop *loop, struct lib_timer *timer)
{
    memset(timer, 0, sizeof(*timer));
}

static inline void lib_timer_start(struct lib_loop *loop, struct lib_timer *timer, unsigned ms,
                                   void (*fn)(struct ev_loop *, ev_timer *, int))
{
    ev_timer_init(&timer->timer, fn, ms * 1e-3, 0);
    ev_timer_start(loop->loop, &timer->timer);
}

static inline void lib_timer_stop(struct lib_loop *loop, struct lib_timer *timer)
{
    ev_timer_stop(loop->loop, &timer->timer);
}

static inline void lib_timer_fini(struct lib_timer *timer)
{
}

struct lib_channel {
    ev_async async;
    struct ev_loop *loop;
    struct locked_queue queue;
};

#define LIB_ON_MESSAGES(name, channel, list)                                                       \
    static void name##_body(struct lib_channel *channel, struct lib_message *list);                \
    static void name(struct ev_loop *loop_, ev_async *async_, int events_)                         \
    {                                                                                              \
        struct lib_channel *channel_ = CONTAINER_OF(async_, struct lib_channel, async);            \
        struct lib_message *list_ = locked_queue_take(&channel_->queue);                           \
        if (list_)                                                                                 \
            name##_body(channel_, list_);                                                          \
    }                                                                                              \
    static void name##_body(struct lib_channel *channel, struct lib_message *list)

static inline void lib_channel_init(struct lib_loop *loop, struct lib_channel *channel,
                                    void (*fn)(struct ev_loop *, ev_async *, int))
{
    locked_queue_init(&channel->queue);
    channel->loop = loop->loop;
    ev_async_init(&channel->async, fn);
    ev_async_start(loop->loop, &channel->async);
}

static inline void lib_send(struct lib_channel *channel, struct lib_message *message)
{
    if (locked_queue_push(&channel->queue, message))
        ev_async_send(channel->loop, &channel->async);
}

static inline void lib_channel_fini(struct lib_channel *channel)
{
    ev_async_stop(channel->loop, &channel->async);
    locked_queue_fini(&channel->queue);
}

#endif
