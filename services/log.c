#include "services/log.h"

#include "reactor/list.h"
#include "reactor/sys.h"
#include "services/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SERVICE_MAX 128 /* bytes of a service's name that are shown */
#define ESCAPED_MAX 6   /* what a byte may become: \u001f */
#define FRAME_MAX 256   /* time, level, node's name, and what JSON has around them */

struct line {
    struct evpt_mpsc_node node;
    size_t size;
    char text[];
};

const char *evpt_log_level_name(enum evpt_log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    return names[level];
}

/* ---- formatting, on the writer's thread ---- */

static size_t format_time(char *text, size_t size)
{
    int64_t wall_ns = evpt_sys_wall_ns();
    time_t seconds = (time_t)(wall_ns / (int64_t)EVPT_NS_PER_S);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t used = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
    int ms = (int)(wall_ns / (int64_t)EVPT_NS_PER_MS % 1000);
    return used + (size_t)snprintf(text + used, size - used, ".%03dZ", ms);
}

/* One byte that stands for itself or is escaped; returns how many were written (at most
 * ESCAPED_MAX). */
static size_t escape(char *out, unsigned char c, bool json)
{
    if (json && (c == '"' || c == '\\'))
        return (size_t)sprintf(out, "\\%c", c);
    if (json && c == '\n')
        return (size_t)sprintf(out, "\\n");
    if (json && c == '\t')
        return (size_t)sprintf(out, "\\t");
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
        return (size_t)sprintf(out, json ? "\\u%04x" : "\\x%02x", c);
    *out = (char)c;
    return 1;
}

/* Any bytes; in JSON, what is not UTF-8 becomes U+FFFD: readers would refuse the whole line. */
static size_t put_escaped(char *out, const char *bytes, size_t size, bool json)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t used = 0;
    for (size_t i = 0, step; i < size; i += step) {
        step = json ? evpt_utf8_size(at + i, size - i) : 1;
        if (step == 1) {
            used += escape(out + used, at[i], json);
        } else if (step == 0) {
            used += (size_t)sprintf(out + used, "\\ufffd");
            step = 1;
        } else {
            memcpy(out + used, at + i, step);
            used += step;
        }
    }
    return used;
}

static struct line *make_line(struct evpt_log *log, enum evpt_log_level level, const char *service,
                              const char *message, size_t size)
{
    static const char cut[] = " [cut]";
    const char *name = service && *service ? service : "-";
    size_t name_size = strnlen(name, SERVICE_MAX);
    size_t kept = size > EVPT_LOG_MESSAGE_MAX ? EVPT_LOG_MESSAGE_MAX : size;
    size_t worst = sizeof(struct line) + FRAME_MAX + (name_size + kept) * ESCAPED_MAX;
    struct line *line = evpt_sys_alloc(worst);
    if (!line)
        return NULL;
    char time_text[64], *text = line->text;
    format_time(time_text, sizeof(time_text));
    const char *head = log->json
                           ? "{\"time\":\"%s\",\"level\":\"%s\",\"node\":\"%s\",\"service\":\""
                           : "%s %s %s ";
    size_t used =
        (size_t)snprintf(text, FRAME_MAX, head, time_text, evpt_log_level_name(level), log->node);
    used += put_escaped(text + used, name, name_size, log->json);
    used += (size_t)sprintf(text + used, "%s", log->json ? "\",\"message\":\"" : " ");
    used += put_escaped(text + used, message, kept, log->json);
    used +=
        (size_t)sprintf(text + used, "%s%s", kept < size ? cut : "", log->json ? "\"}\n" : "\n");
    line->size = used;
    struct line *fitted = evpt_sys_realloc(line, sizeof(*line) + used);
    return fitted ? fitted : line;
}

static void push_line(struct evpt_log *log, struct line *line)
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

void evpt_log_write(struct evpt_log *log, enum evpt_log_level level, const char *service,
                    const char *message, size_t size)
{
    if (!evpt_log_wants(log, level))
        return;
    atomic_fetch_add_explicit(&log->wanted[level], 1, memory_order_relaxed);
    push_line(log, make_line(log, level, service, message, size));
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

/* Rotation: the new file is opened before the old one is let go, so a path that cannot be opened
 * loses nothing. */
static void reopen_file(struct evpt_log *log)
{
    int fd = open_file(log);
    if (fd < 0)
        return;
    close_file(log);
    log->fd = fd;
}

static void write_text(struct evpt_log *log, const char *text, size_t size)
{
    if (evpt_sys_file_write_all(log->fd, text, size) == 0)
        atomic_fetch_add_explicit(&log->lines, 1, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
}

static void write_queued(struct evpt_log *log, uint64_t *told_dropped)
{
    struct evpt_mpsc_node *node;
    while ((node = evpt_mpsc_take(&log->queue)) != NULL) {
        if (atomic_exchange_explicit(&log->reopen, false, memory_order_relaxed))
            reopen_file(log);
        while (node) {
            struct line *line = EVPT_CONTAINER_OF(node, struct line, node);
            node = node->next;
            write_text(log, line->text, line->size);
            atomic_fetch_sub_explicit(&log->queued, line->size, memory_order_relaxed);
            evpt_sys_free(line);
        }
    }
    uint64_t dropped = atomic_load_explicit(&log->dropped, memory_order_relaxed);
    if (dropped == *told_dropped)
        return;
    char text[64];
    int size = snprintf(text, sizeof(text), "%llu log lines were dropped",
                        (unsigned long long)(dropped - *told_dropped));
    struct line *line = make_line(log, EVPT_LOG_WARN, "log", text, (size_t)size);
    if (line && evpt_sys_file_write_all(log->fd, line->text, line->size) == 0) {
        atomic_fetch_add_explicit(&log->lines, 1, memory_order_relaxed);
        *told_dropped = dropped; /* else again, when the disk has room */
    }
    evpt_sys_free(line);
}

static void log_main(void *user)
{
    struct evpt_log *log = user;
    uint64_t told_dropped = 0;
    while (!atomic_load_explicit(&log->stopping, memory_order_acquire)) {
        write_queued(log, &told_dropped);
        if (atomic_exchange_explicit(&log->reopen, false, memory_order_relaxed))
            reopen_file(log);
        if (evpt_mpsc_park(&log->queue))
            evpt_sys_eventfd_wait(log->wake_fd, EVPT_FOREVER);
    }
    write_queued(log, &told_dropped);
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
    uint64_t told = atomic_load_explicit(&log->dropped, memory_order_relaxed);
    if (log->fd >= 0)
        write_queued(log, &told); /* what was logged after the thread had ended */
    close_file(log);
    evpt_sys_close(log->wake_fd);
    evpt_sys_close(log->ended_fd);
    evpt_sys_free(log->path);
    memset(log, 0, sizeof(*log));
    log->fd = log->wake_fd = log->ended_fd = -1;
}
