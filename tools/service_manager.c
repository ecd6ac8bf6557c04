#include "service_manager.h"

#include "reactor/error.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- telling ---- */

static void __attribute__((format(printf, 2, 3)))
tell(struct service_manager *manager, const char *format, ...)
{
    char text[512];
    if (!manager->socket)
        return;
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (size >= (int)sizeof(text))
        size = sizeof(text) - 1; /* a long status is cut */
    int error = evpt_sys_send_datagram(manager->socket, text, (size_t)size);
    if (error && !manager->failed) {
        manager->failed = true; /* said once: it will hardly get better */
        evpt_logf(&manager->node->log, EVPT_LOG_WARN, "main",
                  "cannot tell the service manager at %s: %s", manager->socket,
                  evpt_strerror(error));
    }
}

/* ---- the watchdog ---- */

static void on_alive(struct evpt_probe *probe, const struct evpt_message *answer, void *user)
{
    struct service_manager *manager = user;
    if (answer)
        tell(manager, "WATCHDOG=1");
    else
        evpt_logf(&manager->node->log, EVPT_LOG_ERROR, "main",
                  "the cluster's loop or the workers hang: the watchdog is not told that all is "
                  "well");
}

static void on_watchdog(struct evpt_timer *timer, void *user)
{
    struct service_manager *manager = user;
    evpt_loop_timer(manager->node->main.loop, timer, manager->watchdog_ns, on_watchdog, manager);
    if (!evpt_probe_is_running(&manager->probe))
        evpt_probe_start(&manager->probe, manager->prober, EVPT_PROBE_ALIVE,
                         (uint32_t)(manager->watchdog_ns / EVPT_NS_PER_MS), on_alive, manager);
}

/* ---- the environment ---- */

static uint64_t read_number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    unsigned long long value = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    return value && !*end ? value : 0;
}

void service_manager_init(struct service_manager *manager, struct evpt_node *node)
{
    const uint64_t usec_max = UINT64_C(86400) * 1000000; /* a day: longer is no watchdog */
    *manager = (struct service_manager){.node = node};
    const char *socket = getenv("NOTIFY_SOCKET");
    uint64_t usec = read_number("WATCHDOG_USEC"), pid = read_number("WATCHDOG_PID");
    bool is_meant = !getenv("WATCHDOG_PID") || pid == (uint64_t)getpid();
    manager->socket = socket && *socket ? strdup(socket) : NULL;
    if (manager->socket && is_meant && usec && usec <= usec_max)
        manager->watchdog_ns = usec * 1000 / 2;
    (void)unsetenv("NOTIFY_SOCKET"); /* fails for a bad name only */
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
}

/* ---- the node's life ---- */

static void tell_ready(struct service_manager *manager)
{
    char addr[EVPT_ADDR_TEXT_SIZE];
    tell(manager, "READY=1\nSTATUS=listening on %s",
         evpt_addr_format(&manager->node->addr, addr, sizeof(addr)));
}

void service_manager_ready(struct service_manager *manager, struct evpt_prober *prober)
{
    manager->prober = prober;
    manager->ready = true;
    tell_ready(manager);
    if (manager->watchdog_ns)
        evpt_loop_timer(manager->node->main.loop, &manager->timer, 0, on_watchdog, manager);
}

void service_manager_reloading(struct service_manager *manager)
{
    if (!manager->ready) /* READY=1 afterwards would say that the start is over */
        return;
    manager->reloads++;
    tell(manager, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reading the node list",
         evpt_sys_now_ns() / 1000);
}

void service_manager_reloaded(struct service_manager *manager)
{
    if (manager->reloads && --manager->reloads == 0 && manager->ready)
        tell_ready(manager);
}

void service_manager_stopping(struct service_manager *manager)
{
    manager->ready = false;
    tell(manager, "STOPPING=1\nSTATUS=draining");
}

void service_manager_start_failed(struct service_manager *manager, const char *text, size_t size)
{
    const char *end = memchr(text, '\n', size);
    tell(manager, "STATUS=%.*s", (int)(end ? end - text : (ptrdiff_t)size), text);
}
