#include "services/log.h"

#include "reactor/error.h"
#include "reactor/list.h"
#include "reactor/sys.h"
#include "services/log_line.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void push_line(struct evpt_log *log, struct evpt_log_line *line)
{
    if (!line || atomic_fetch_add_explicit(&log->queued, line->size, memory_order_relaxed) >=
                     EVPT_LOG_QUEUE_MAX) {
        if (line)
            atomic_fetch_sub_explicit(&log->queued, line->size, memory_order_relaxed);
        evpt_sys_free(line);
        atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
        return;
    }
    if (evpt_mpsc_push(&log->queue, &line->node))
        evpt_sys_eventfd_signal(log->wake_fd);
}

void evpt_log_write_fields(struct evpt_log *log, enum evpt_log_level level, const char *service,
                           const char *message, size_t size, const struct evpt_log_field *fields,
                           size_t count)
{
    if (!evpt_log_wants(log, level))
        return;
    atomic_fetch_add_explicit(&log->wanted[level], 1, memory_order_relaxed);
    push_line(log, evpt_log_line_new(log, level, service, message, size, fields, count));
}

void evpt_log_write(struct evpt_log *log, enum evpt_log_level level, const char *service,
                    const char *message, size_t size)
{
    evpt_log_write_fields(log, level, service, message, size, NULL, 0);
}

void evpt_logf(struct evpt_log *log, enum evpt_log_level level, const char *service,
               const char *format, ...)
{
    if (!evpt_log_wants(log, level))
        return;
    char small[512], *text = small;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int size = vsnprintf(small, sizeof(small), format, args);
    if (size >= (int)sizeof(small) && (text = evpt_sys_alloc((size_t)size + 1)) != NULL)
        vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    va_end(args);
    if (size >= 0 && text)
        evpt_log_write(log, level, service, text, (size_t)size);
    else
        atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
    if (text != small)
        evpt_sys_free(text);
}

/* ---- the log thread ---- */

static int open_file(struct evpt_log *log)
{
    return log->path ? evpt_sys_file_append_open(log->path) : 2;
}

static void close_file(struct evpt_log *log)
{
    if (log->path)
        evpt_sys_close(log->fd);
}

/* A line of the log's own, past the queue. False: it could not be written. */
static bool write_own(struct evpt_log *log, enum evpt_log_level level, const char *text)
{
    struct evpt_log_line *line = evpt_log_line_new(log, level, "log", text, strlen(text), NULL, 0);
    bool written = line && evpt_sys_file_append(log->fd, line->text, line->size) == 0;
    if (written) {
        atomic_fetch_add_explicit(&log->wanted[level], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&log->lines, 1, memory_order_relaxed);
    }
    evpt_sys_free(line);
    return written;
}

/* Rotation: the new file is opened before the old one is let go, so a path that cannot be opened
 * loses nothing. */
static void reopen_file(struct evpt_log *log)
{
    char text[256];
    int fd = open_file(log);
    if (fd >= 0) {
        close_file(log);
        log->fd = fd;
        return;
    }
    snprintf(text, sizeof(text), "cannot open %.180s, and goes on with the old file: %s", log->path,
             evpt_strerror(fd));
    (void)write_own(log, EVPT_LOG_ERROR, text);
}

static void write_line(struct evpt_log *log, const struct evpt_log_line *line)
{
    bool written = evpt_sys_file_append(log->fd, line->text, line->size) == 0;
    atomic_fetch_add_explicit(written ? &log->lines : &log->dropped, 1, memory_order_relaxed);
}

static void write_queued(struct evpt_log *log)
{
    struct evpt_mpsc_node *node;
    while ((node = evpt_mpsc_take(&log->queue)) != NULL) {
        if (atomic_exchange_explicit(&log->reopen, false, memory_order_relaxed))
            reopen_file(log);
        while (node) {
            struct evpt_log_line *line = EVPT_CONTAINER_OF(node, struct evpt_log_line, node);
            node = node->next;
            write_line(log, line);
            atomic_fetch_sub_explicit(&log->queued, line->size, memory_order_relaxed);
            evpt_sys_free(line);
        }
    }
}

/* How many lines have been lost, once it is over. True: there is nothing to tell any more. */
static bool tell_dropped(struct evpt_log *log, uint64_t *told)
{
    char text[64];
    uint64_t dropped = atomic_load_explicit(&log->dropped, memory_order_relaxed);
    if (dropped == *told)
        return true;
    snprintf(text, sizeof(text), "%llu log lines were dropped",
             (unsigned long long)(dropped - *told));
    if (!write_own(log, EVPT_LOG_WARN, text))
        return false;
    *told = dropped;
    return true;
}

static void log_main(void *user)
{
    struct evpt_log *log = user;
    uint64_t told = 0;
    while (!atomic_load_explicit(&log->stopping, memory_order_acquire)) {
        write_queued(log);
        if (atomic_exchange_explicit(&log->reopen, false, memory_order_relaxed))
            reopen_file(log);
        /* a disk that is full says nothing when it has room again: it is asked */
        uint64_t until_ns =
            tell_dropped(log, &told) ? EVPT_FOREVER : evpt_sys_now_ns() + EVPT_LOG_RETRY_NS;
        if (evpt_mpsc_park(&log->queue))
            evpt_sys_eventfd_wait(log->wake_fd, until_ns);
    }
    write_queued(log);
    (void)tell_dropped(log, &told);
    evpt_sys_eventfd_signal(log->ended_fd);
}

int evpt_log_init(struct evpt_log *log, const char *node, const char *path, bool json,
                  enum evpt_log_level level)
{
    memset(log, 0, sizeof(*log));
    log->fd = log->wake_fd = log->ended_fd = -1;
    evpt_mpsc_init(&log->queue, false);
    atomic_init(&log->level, (int)level);
    log->json = json;
    snprintf(log->node, sizeof(log->node), "%s", node);
    if (path) {
        log->path = evpt_sys_alloc(strlen(path) + 1);
        if (!log->path)
            return -ENOMEM;
        strcpy(log->path, path);
    }
    log->wake_fd = evpt_sys_eventfd();
    if (log->wake_fd < 0)
        return log->wake_fd;
    log->ended_fd = evpt_sys_eventfd();
    if (log->ended_fd < 0)
        return log->ended_fd;
    log->fd = open_file(log);
    return log->fd < 0 ? log->fd : 0;
}

int evpt_log_start(struct evpt_log *log)
{
    return evpt_thread_start(&log->thread, "log", log_main, log);
}

void evpt_log_reopen(struct evpt_log *log)
{
    atomic_store_explicit(&log->reopen, true, memory_order_relaxed);
    evpt_sys_eventfd_signal(log->wake_fd);
}

static uint64_t lines_done(struct evpt_log *log)
{
    return atomic_load_explicit(&log->lines, memory_order_relaxed) +
           atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

bool evpt_log_stop(struct evpt_log *log)
{
    atomic_store_explicit(&log->stopping, true, memory_order_release);
    evpt_sys_eventfd_signal(log->wake_fd);
    bool ended = !log->thread.running;
    for (uint64_t before = lines_done(log) + 1; !ended && before != lines_done(log);) {
        before = lines_done(log);
        ended = evpt_sys_eventfd_wait(log->ended_fd, evpt_sys_now_ns() + EVPT_NS_PER_S);
    }
    if (ended)
        evpt_thread_join(&log->thread);
    return ended;
}

void evpt_log_fini(struct evpt_log *log)
{
    if (!log || !log->node[0])
        return;
    atomic_store_explicit(&log->stopping, true, memory_order_release);
    if (log->wake_fd >= 0)
        evpt_sys_eventfd_signal(log->wake_fd);
    evpt_thread_join(&log->thread);
    if (log->fd >= 0)
        write_queued(log); /* what was logged after the thread had ended */
    close_file(log);
    evpt_sys_close(log->wake_fd);
    evpt_sys_close(log->ended_fd);
    evpt_sys_free(log->path);
    memset(log, 0, sizeof(*log));
    log->fd = log->wake_fd = log->ended_fd = -1;
}
