/* The log: any thread writes lines, the log thread puts them into the file.
 *
 * A line is formatted by the thread that has something to say and pushed on a queue bounded in
 * bytes (EVPT_LOG_QUEUE_MAX); what does not fit is dropped, counted, and the count is logged when
 * there is room again. A slow or full disk so costs lines, never calls.
 *
 * A full disk takes whole lines or nothing of them.
 *
 *     text:  2026-11-22T18:58:11.123Z info game_1 room_1 player joined player=17 from="the lobby"
 *     json:  {"time":"...","level":"info","node":"game_1","service":"room_1",
 *             "message":"player joined","player":17,"from":"the lobby"}
 */
#ifndef EVPT_SERVICES_LOG_H
#define EVPT_SERVICES_LOG_H

#include "reactor/mpsc.h"
#include "reactor/thread.h"
#include "services/config.h"
#include <stdarg.h>

#define EVPT_LOG_QUEUE_MAX (8 << 20) /* bytes of lines that wait */
#define EVPT_LOG_MESSAGE_MAX 65536   /* bytes of one message; longer ones are cut and say so */
#define EVPT_LOG_FIELDS_MAX 32
#define EVPT_LOG_RETRY_NS EVPT_NS_PER_S /* how often a full disk is asked for room */

/* What a line says besides its message. Names begin with a letter or _, and consist of those,
 * digits,
 * `.` and `-`; one that the line has already gets a _ behind it. Longer values than 4 KiB are cut.
 */
struct evpt_log_field {
    const char *name;
    const char *value;
    size_t size;     /* of the value */
    bool is_literal; /* a number or true or false: stands in JSON as it is */
};

struct evpt_log {
    _Atomic int level; /* enum evpt_log_level; may be changed at any time */
    /* private */
    struct evpt_mpsc queue;
    struct evpt_thread thread;
    int wake_fd, ended_fd, fd;
    char node[65];
    char *path; /* NULL: stderr */
    bool json;
    _Atomic size_t queued;    /* bytes */
    _Atomic uint64_t dropped; /* lines */
    _Atomic uint64_t lines;
    _Atomic uint64_t wanted[EVPT_LOG_ERROR + 1]; /* lines by level, also those dropped later */
    _Atomic bool reopen, stopping;
};

/* Opens the file (NULL: stderr). 0 or -errno. */
int evpt_log_init(struct evpt_log *log, const char *node, const char *path, bool json,
                  enum evpt_log_level level);
int evpt_log_start(struct evpt_log *log);
/* Writes what is queued and ends the thread. False: nothing could be written for a second, because
 * the file is a pipe that nobody reads, for instance. The thread then still waits for that, so the
 * log cannot be finished, and the process can only be ended. */
bool evpt_log_stop(struct evpt_log *log);
/* Writes what is queued, ends the thread, closes the file. NULL and zeroed are fine. */
void evpt_log_fini(struct evpt_log *log);
/* Opens the file anew before the next line (rotation). Any thread. */
void evpt_log_reopen(struct evpt_log *log);

static inline bool evpt_log_wants(struct evpt_log *log, enum evpt_log_level level)
{
    return (int)level >= atomic_load_explicit(&log->level, memory_order_relaxed);
}
/* Any thread. `service` may be NULL. The message may have several lines and any bytes: control
 * characters but tab and newline are shown as \xNN. */
void evpt_log_write(struct evpt_log *log, enum evpt_log_level level, const char *service,
                    const char *message, size_t size);
/* The same with fields, at most EVPT_LOG_FIELDS_MAX. */
void evpt_log_write_fields(struct evpt_log *log, enum evpt_log_level level, const char *service,
                           const char *message, size_t size, const struct evpt_log_field *fields,
                           size_t count);
void evpt_logf(struct evpt_log *log, enum evpt_log_level level, const char *service,
               const char *format, ...) __attribute__((format(printf, 4, 5)));

const char *evpt_log_level_name(enum evpt_log_level level);

#endif
