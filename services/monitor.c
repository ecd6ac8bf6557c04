#include "services/monitor.h"

#include "services/metrics.h"

#include <assert.h>
#include <string.h>

#define PLAIN "text/plain; charset=utf-8"

static void say(struct evpt_monitor *monitor, uint32_t connection, int status, const char *text)
{
    evpt_http_respond(&monitor->http, connection, status, PLAIN, text, strlen(text));
}

/* ---- the pages ---- */

static void on_sample(struct evpt_probe *probe, const struct evpt_message *answer, void *user)
{
    struct evpt_monitor_page *page = user;
    struct evpt_monitor *monitor = page->monitor;
    size_t size;
    char *text = evpt_metrics_text(monitor->node, answer ? evpt_sample_of(answer) : NULL,
                                   monitor->phase == EVPT_MONITOR_READY, &size);
    if (text)
        evpt_http_respond(&monitor->http, page->connection, 200, EVPT_METRICS_TYPE, text, size);
    else
        say(monitor, page->connection, 503, "out of memory\n");
    evpt_sys_free(text);
}

static void on_alive(struct evpt_probe *probe, const struct evpt_message *answer, void *user)
{
    struct evpt_monitor_page *page = user;
    if (answer)
        say(page->monitor, page->connection, 200, "alive\n");
    else
        say(page->monitor, page->connection, 503, "the cluster's loop or the workers hang\n");
}

static void say_ready(struct evpt_monitor *monitor, uint32_t connection)
{
    static const char *const texts[] = {[EVPT_MONITOR_STARTING] = "starting\n",
                                        [EVPT_MONITOR_READY] = "ready\n",
                                        [EVPT_MONITOR_DRAINING] = "draining\n"};
    say(monitor, connection, monitor->phase == EVPT_MONITOR_READY ? 200 : 503,
        texts[monitor->phase]);
}

static void ask(struct evpt_monitor *monitor, uint32_t connection, enum evpt_probe_kind kind,
                evpt_probe_fn fn)
{
    struct evpt_monitor_page *page = &monitor->pages[connection % EVPT_HTTP_CONNECTIONS_MAX];
    evpt_probe_stop(&page->probe); /* for a connection that had the place before, and has gone */
    page->monitor = monitor;
    page->connection = connection;
    evpt_probe_start(&page->probe, monitor->prober, kind, EVPT_MONITOR_PROBE_MS, fn, page);
}

static bool is(const char *path, size_t size, const char *page)
{
    return size == strlen(page) && memcmp(path, page, size) == 0;
}

static void on_request(struct evpt_http *http, uint32_t connection, const char *path, size_t size,
                       void *user)
{
    struct evpt_monitor *monitor = user;
    if (is(path, size, "/metrics"))
        ask(monitor, connection, EVPT_PROBE_SAMPLE, on_sample);
    else if (is(path, size, "/healthz"))
        ask(monitor, connection, EVPT_PROBE_ALIVE, on_alive);
    else if (is(path, size, "/readyz"))
        say_ready(monitor, connection);
    else
        say(monitor, connection, 404, "there are /metrics, /healthz and /readyz\n");
}

/* ---- life cycle ---- */

int evpt_monitor_start(struct evpt_monitor *monitor, struct evpt_node *node,
                       struct evpt_prober *prober)
{
    static const struct evpt_http_ops ops = {.on_request = on_request};
    char text[EVPT_ADDR_TEXT_SIZE];
    struct evpt_addr addr;
    monitor->node = node;
    monitor->prober = prober;
    int error =
        evpt_http_start(&monitor->http, node->main.loop, &node->config->metrics, &ops, monitor);
    if (!error)
        error = evpt_http_addr(&monitor->http, &addr);
    if (error)
        return error;
    evpt_logf(&node->log, EVPT_LOG_INFO, "main", "metrics on http://%s/metrics",
              evpt_addr_format(&addr, text, sizeof(text)));
    if (!evpt_addr_is_loopback(&addr))
        evpt_logf(&node->log, EVPT_LOG_WARN, "main",
                  "metrics: %s is no loopback address: whoever reaches it can read them", text);
    return 0;
}

void evpt_monitor_stop(struct evpt_monitor *monitor)
{
    for (int i = 0; i < EVPT_HTTP_CONNECTIONS_MAX; i++)
        evpt_probe_stop(&monitor->pages[i].probe);
    evpt_http_stop(&monitor->http);
}
