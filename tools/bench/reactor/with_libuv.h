/* libuv 1; see bench.h. */
#ifndef EVPT_BENCH_WITH_LIBUV_H
#define EVPT_BENCH_WITH_LIBUV_H

#include "bench.h"
#include "locked_queue.h"
#include <uv.h>

#define LIB_TEXT_(x) #x
#define LIB_TEXT(x) LIB_TEXT_(x)

static inline const char *lib_version(void)
{
    return "libuv " LIB_TEXT(UV_VERSION_MAJOR) "." LIB_TEXT(UV_VERSION_MINOR) "." LIB_TEXT(
        UV_VERSION_PATCH);
}

struct lib_loop {
    uv_loop_t loop;
};

static inline void lib_loop_init(struct lib_loop *loop)
{
    MUST(uv_loop_init(&loop->loop) == 0);
}

static inline void lib_run(struct lib_loop *loop)
{
    uv_run(&loop->loop, UV_RUN_DEFAULT);
}

static inline void lib_break(struct lib_loop *loop)
{
    uv_stop(&loop->loop);
}

/* Handles that are closed have their callbacks to come. */
static inline void lib_loop_fini(struct lib_loop *loop)
{
    uv_run(&loop->loop, UV_RUN_NOWAIT);
    MUST(uv_loop_close(&loop->loop) == 0);
}

static inline void lib_loop_adopt(struct lib_loop *loop)
{
}

static inline void lib_use_threads(void)
{
}

struct lib_io {
    uv_poll_t poll;
};

#define LIB_ON_IO(name, io)                                                                        \
    static void name##_body(struct lib_io *io);                                                    \
    static void name(uv_poll_t *poll_, int status_, int events_)                                   \
    {                                                                                              \
        name##_body(CONTAINER_OF(poll_, struct lib_io, poll));                                     \
    }                                                                                              \
    static void name##_body(struct lib_io *io)

static inline void lib_io_start(struct lib_loop *loop, struct lib_io *io, int fd, uv_poll_cb fn)
{
    MUST(uv_poll_init(&loop->loop, &io->poll, fd) == 0);
    MUST(uv_poll_start(&io->poll, UV_READABLE, fn) == 0);
}

static inline void lib_io_stop(struct lib_loop *loop, struct lib_io *io)
{
    uv_close((uv_handle_t *)&io->poll, NULL);
}

struct lib_timer {
    uv_timer_t timer;
};

#define LIB_ON_TIMER(name, timer)                                                                  \
    static void name##_body(struct lib_timer *timer);                                              \
    static void name(uv_timer_t *timer_)                                                           \
    {                                                                                              \
        name##_body(CONTAINER_OF(timer_, struct lib_timer, timer));                                \
    }                                                                                              \
    static void name##_body(struct lib_timer *timer)

static inline void lib_timer_init(struct lib_loop *loop, struct lib_timer *timer)
{
    MUST(uv_timer_init(&loop->loop, &timer->timer) == 0);
}

static inline void lib_timer_start(struct lib_loop *loop, struct lib_timer *timer, unsigned ms,
                                   uv_timer_cb fn)
{
    MUST(uv_timer_start(&timer->timer, fn, ms, 0) == 0);
}

static inline void lib_timer_stop(struct lib_loop *loop, struct lib_timer *timer)
{
    MUST(uv_timer_stop(&timer->timer) == 0);
}

static inline void lib_timer_fini(struct lib_timer *timer)
{
    uv_close((uv_handle_t *)&timer->timer, NULL);
}

struct lib_channel {
    uv_async_t async;
    struct locked_queue queue;
};

#define LIB_ON_MESSAGES(name, channel, list)                                                       \
    static void name##_body(struct lib_channel *channel, struct lib_message *list);                \
    static void name(uv_async_t *async_)                                                           \
    {                                                                                              \
        struct lib_channel *channel_ = CONTAINER_OF(async_, struct lib_channel, async);            \
        struct lib_message *list_ = locked_queue_take(&channel_->queue);                           \
        if (list_)                                                                                 \
            name##_body(channel_, list_);                                                          \
    }                                                                                              \
    static void name##_body(struct lib_channel *channel, struct lib_message *list)

static inline void lib_channel_init(struct lib_loop *loop, struct lib_channel *channel,
                                    uv_async_cb fn)
{
    locked_queue_init(&channel->queue);
    MUST(uv_async_init(&loop->loop, &channel->async, fn) == 0);
}

static inline void lib_send(struct lib_channel *channel, struct lib_message *message)
{
    if (locked_queue_push(&channel->queue, message))
        MUST(uv_async_send(&channel->async) == 0);
}

static inline void lib_channel_fini(struct lib_channel *channel)
{
    uv_close((uv_handle_t *)&channel->async, NULL);
    locked_queue_fini(&channel->queue);
}

#endif
