/* libevent 2; see bench.h. */
#ifndef EVPT_BENCH_WITH_LIBEVENT_H
#define EVPT_BENCH_WITH_LIBEVENT_H

#include "bench.h"
#include "locked_queue.h"
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>

static inline const char *lib_version(void)
{
    return "libevent " LIBEVENT_VERSION;
}

struct lib_loop {
    struct event_base *base;
};

static inline void lib_loop_init(struct lib_loop *loop)
{
    loop->base = event_base_new();
    MUST(loop->base);
}

static inline void lib_run(struct lib_loop *loop)
{
    MUST(event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY) >= 0);
}

static inline void lib_break(struct lib_loop *loop)
{
    event_base_loopbreak(loop->base);
}

static inline void lib_loop_fini(struct lib_loop *loop)
{
    event_base_free(loop->base);
}

static inline void lib_loop_adopt(struct lib_loop *loop)
{
}

static inline void lib_use_threads(void)
{
    MUST(evthread_use_pthreads() == 0);
}

struct lib_io {
    struct event event;
};

#define LIB_ON_IO(name, io)                                                                        \
    static void name##_body(struct lib_io *io);                                                    \
    static void name(evutil_socket_t fd_, short events_, void *user_)                              \
    {                                                                                              \
        name##_body(user_);                                                                        \
    }                                                                                              \
    static void name##_body(struct lib_io *io)

static inline void lib_io_start(struct lib_loop *loop, struct lib_io *io, int fd,
                                event_callback_fn fn)
{
    MUST(event_assign(&io->event, loop->base, fd, EV_READ | EV_PERSIST, fn, io) == 0);
    MUST(event_add(&io->event, NULL) == 0);
}

static inline void lib_io_stop(struct lib_loop *loop, struct lib_io *io)
{
    event_del(&io->event);
}

struct lib_timer {
    struct event event;
};

#define LIB_ON_TIMER(name, timer)                                                                  \
    static void name##_body(struct lib_timer *timer);                                              \
    static void name(evutil_socket_t fd_, short events_, void *user_)                              \
    {                                                                                              \
        name##_body(user_);                                                                        \
    }                                                                                              \
    static void name##_body(struct lib_timer *timer)

/* The callback of an event cannot change while it is pending: it is set with the time. */
static inline void lib_timer_init(struct lib_loop *loop, struct lib_timer *timer)
{
}

static inline void lib_timer_start(struct lib_loop *loop, struct lib_timer *timer, unsigned ms,
                                   event_callback_fn fn)
{
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    MUST(evtimer_assign(&timer->event, loop->base, fn, timer) == 0);
    MUST(event_add(&timer->event, &after) == 0);
}

static inline void lib_timer_stop(struct lib_loop *loop, struct lib_timer *timer)
{
    event_del(&timer->event);
}

static inline void lib_timer_fini(struct lib_timer *timer)
{
}

struct lib_channel {
    struct event event;
    struct locked_queue queue;
};

#define LIB_ON_MESSAGES(name, channel, list)                                                       \
    static void name##_body(struct lib_channel *channel, struct lib_message *list);                \
    static void name(evutil_socket_t fd_, short events_, void *user_)                              \
    {                                                                                              \
        struct lib_channel *channel_ = user_;                                                      \
        struct lib_message *list_ = locked_queue_take(&channel_->queue);                           \
        if (list_)                                                                                 \
            name##_body(channel_, list_);                                                          \
    }                                                                                              \
    static void name##_body(struct lib_channel *channel, struct lib_message *list)

static inline void lib_channel_init(struct lib_loop *loop, struct lib_channel *channel,
                                    event_callback_fn fn)
{
    locked_queue_init(&channel->queue);
    MUST(event_assign(&channel->event, loop->base, -1, EV_PERSIST, fn, channel) == 0);
    MUST(event_add(&channel->event, NULL) == 0);
}

static inline void lib_send(struct lib_channel *channel, struct lib_message *message)
{
    if (locked_queue_push(&channel->queue, message))
        event_active(&channel->event, 0, 0);
}

static inline void lib_channel_fini(struct lib_channel *channel)
{
    event_del(&channel->event);
    locked_queue_fini(&channel->queue);
}

#endif
