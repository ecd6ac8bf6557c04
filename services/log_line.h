/* One line of the log, formatted by the thread that has something to say. For log.c. */
#ifndef EVPT_SERVICES_LOG_LINE_H
#define EVPT_SERVICES_LOG_LINE_H

#include "services/log.h"

struct evpt_log_line {
    struct evpt_mpsc_node node; /* must be first */
    size_t size;
    char text[];
};

/* NULL: no memory. To be freed with evpt_sys_free. */
struct evpt_log_line *evpt_log_line_new(const struct evpt_log *log, enum evpt_log_level level,
                                        const char *service, const char *message, size_t size,
                                        const struct evpt_log_field *fields, size_t count);

#endif
