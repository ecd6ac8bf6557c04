#include "services/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the page: grows as needed; `failed` sticks ---- */

struct page {
    char *text;
    size_t size, room;
    bool failed;
};

static bool reserve(struct page *page, size_t bytes)
{
    if (page->failed || page->size + bytes <= page->room)
        return !page->failed;
    size_t room = (page->size + bytes) * 2;
    char *text = evpt_sys_realloc(page->text, room);
    if (!text) {
        page->failed = true;
        return false;
    }
    page->text = text;
    page->room = room;
    return true;
}

static void __attribute__((format(printf, 2, 3))) put(struct page *page, const char *format, ...)
{
    enum { LINE_MAX_BYTES = 512 }; /* more than any line here: names are bounded */
    if (!reserve(page, LINE_MAX_BYTES))
        return;
    va_list args;
    va_start(args, format);
    int used = vsnprintf(page->text + page->size, LINE_MAX_BYTES, format, args);
    va_end(args);
    if (used > 0)
        page->size += used < LINE_MAX_BYTES ? (size_t)used : LINE_MAX_BYTES - 1;
}

/* A value of a label, in which these three are escaped. */
static void put_escaped(struct page *page, const char *value)
{
    for (; *value && reserve(page, 2); value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            page->text[page->size++] = '\\';
        page->text[page->size++] = *value == '\n' ? 'n' : *value;
    }
}

/* ---- families ----
 *
 * All samples of a family have to stand together, under its two lines. Its name says the rest: a
 * counter ends in _total, and what is counted in _seconds comes in nanoseconds. */

struct family {
    const char *name, *help;
};

static bool ends_in(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);
    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

static void begin_family(struct page *page, struct family family, const char *type)
{
    put(page, "# HELP %s %s\n# TYPE %s %s\n", family.name, family.help, family.name, type);
}

static void begin_plain(struct page *page, struct family family)
{
    begin_family(page, family, ends_in(family.name, "_total") ? "counter" : "gauge");
}

/* What a sample is about. No key: nothing in particular. */
struct label {
    const char *key, *value;
};

static void put_label(struct page *page, struct label label)
{
    put(page, "%s=\"", label.key);
    put_escaped(page, label.value);
    put(page, "\"");
}

static void put_seconds(struct page *page, uint64_t ns)
{
    put(page, " %" PRIu64 ".%09" PRIu64 "\n", ns / EVPT_NS_PER_S, ns % EVPT_NS_PER_S);
}

static void put_value(struct page *page, const char *name, uint64_t value)
{
    if (ends_in(name, "_seconds") || ends_in(name, "_seconds_total"))
        put_seconds(page, value);
    else
        put(page, " %" PRIu64 "\n", value);
}

static void put_sample(struct page *page, const char *name, struct label label, uint64_t value)
{
    put(page, "%s", name);
    if (label.key) {
        put(page, "{");
        put_label(page, label);
        put(page, "}");
    }
    put_value(page, name, value);
}

static void put_histogram(struct page *page, const char *name, struct label label,
                          const struct evpt_histogram *histogram)
{
    static const char *const bounds[EVPT_HISTOGRAM_BOUNDS + 1] = {
        "1e-05",  "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001",
        "0.0025", "0.005",   "0.01",  "0.025",  "0.05",    "0.1",    "0.25",
        "0.5",    "1.0",     "2.5",   "5.0",    "10.0",    "+Inf"};
    uint64_t total = 0;
    for (unsigned i = 0; i <= EVPT_HISTOGRAM_BOUNDS; i++) {
        total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        put(page, "%s_bucket{", name);
        put_label(page, label);
        put(page, ",le=\"%s\"} %" PRIu64 "\n", bounds[i], total);
    }
    put(page, "%s_sum{", name);
    put_label(page, label);
    put(page, "}");
    put_seconds(page, atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed));
    put(page, "%s_count{", name);
    put_label(page, label);
    put(page, "} %" PRIu64 "\n", total);
}

/* ---- totals of the node ---- */

static uint64_t load(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct total {
    const char *name;
    uint64_t value;
    const char *help;
};

static void put_totals(struct page *page, const struct total *totals, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        begin_plain(page, (struct family){totals[i].name, totals[i].help});
        put_sample(page, totals[i].name, (struct label){0}, totals[i].value);
    }
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void put_process(struct page *page)
{
    struct evpt_sys_process process;
    evpt_sys_process(&process);
    const struct total totals[] = {
        {"process_cpu_seconds_total", process.cpu_ns, "Processor time, in the system too."},
        {"process_resident_memory_bytes", process.resident_bytes, "Memory that is really there."},
        {"process_virtual_memory_bytes", process.virtual_bytes, "Memory that was asked for."},
        {"process_open_fds", process.fds, "File descriptors open."},
        {"process_max_fds", process.fds_max, "File descriptors allowed."},
        {"process_threads", process.threads, "Threads."},
        {"process_start_time_seconds", (uint64_t)process.started_ns, "Start, since the epoch."},
    };
    put_totals(page, totals, COUNT(totals));
}

static uint64_t count_runnable(struct evpt_scheduler *scheduler)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= scheduler->worker_count; i++)
        sum += atomic_load_explicit(&scheduler->workers[i].queued, memory_order_relaxed);
    return sum;
}

static void put_node(struct page *page, struct evpt_node *node, bool sampled, bool ready)
{
    begin_plain(page, (struct family){"evpt_info", "Version and name of the node."});
    put(page, "evpt_info{version=\"%s\",node=\"%s\"} 1\n", EVPT_VERSION, node->name);
    const struct total totals[] = {
        {"evpt_ready", ready, "1 from the end of the start to the beginning of the stop."},
        {"evpt_cluster_loop_answers", sampled,
         "0: the cluster's loop has not answered, and what it alone knows is left out."},
        {"evpt_workers", node->scheduler.worker_count, "Worker threads, without the cluster's."},
        {"evpt_runnable_services", count_runnable(&node->scheduler),
         "Services that wait for a worker."},
        {"evpt_loop_takeovers_total", load(&node->scheduler.takeovers),
         "How often a thread took the cluster's loop over from one that was stuck in a handler."},
        {"evpt_mailbox_limit_messages", node->config->mailbox_max,
         "mailbox_max: messages that may wait in one service."},
        {"evpt_send_queue_limit_bytes", node->config->cluster.send_buffer_max,
         "cluster.send_buffer_max: bytes that may wait for one node."},
        {"evpt_sends_total", load(&node->client.sends), "Sends to other nodes."},
        {"evpt_sends_lost_total", load(&node->client.lost_sends),
         "Sends to other nodes that are certainly lost."},
        {"evpt_sends_bounced_total", load(&node->scheduler.bounced),
         "Sends within the node that found no service, or a full mailbox."},
        {"evpt_requests_total", load(&node->server.requests), "Requests from other nodes."},
        {"evpt_requests_refused_total", load(&node->server.refused),
         "Requests from other nodes that got an error before a service saw them."},
        {"evpt_requests_denied_total", load(&node->server.denied),
         "Of these, requests for methods that are exported to other nodes only."},
        {"evpt_handshakes_refused_total", load(&node->mgr.server.gate.refused),
         "Connections over TLS that did not show that they are a friend's."},
        {"evpt_handshakes_turned_away_total", load(&node->mgr.server.gate.turned_away),
         "Connections over TLS that were too many at once."},
        {"evpt_replies_dropped_total", load(&node->server.dropped_replies),
         "Answers whose connection had gone."},
        {"evpt_log_lines_dropped_total", load(&node->log.dropped),
         "Log lines lost to a full queue or disk."},
    };
    put_totals(page, totals, COUNT(totals));
}

static void put_logs_and_reloads(struct page *page, struct evpt_node *node)
{
    const struct family lines = {"evpt_log_lines_total", "Lines logged, also those lost later."};
    const struct family reloads = {"evpt_reloads_total", "Reloads of the node list."};
    begin_plain(page, lines);
    for (int level = EVPT_LOG_DEBUG; level <= EVPT_LOG_ERROR; level++) {
        struct label label = {"level", evpt_log_level_name((enum evpt_log_level)level)};
        put_sample(page, lines.name, label, load(&node->log.wanted[level]));
    }
    begin_plain(page, reloads);
    put_sample(page, reloads.name, (struct label){"result", "applied"}, load(&node->reloads));
    put_sample(page, reloads.name, (struct label){"result", "refused"},
               load(&node->reloads_refused));
}

static void put_loops(struct page *page, struct evpt_node *node)
{
    const struct family family = {
        "evpt_loop_iteration_seconds",
        "How long a loop was away from its wait: so long may an event have waited."};
    begin_family(page, family, "histogram");
    put_histogram(page, family.name, (struct label){"loop", "cluster"}, &node->cluster_away);
    put_histogram(page, family.name, (struct label){"loop", "main"}, &node->main_away);
}

/* ---- services, by kind ---- */

struct kind_sum {
    struct label label;
    struct evpt_histogram handler;
    uint64_t messages, run_ns, refused;                 /* of all that ever were */
    uint64_t services, waiting, fullest, memory, tasks; /* of those there are now */
};

struct kind_sums {
    struct kind_sum *sums;
    unsigned count;
};

/* evpt_registry_each_fn */
static void add_service(struct evpt_service *service, uint32_t handle, void *user)
{
    struct kind_sums *sums = user;
    struct evpt_kind *kind = atomic_load_explicit(&service->kind, memory_order_acquire);
    if (!kind || kind->index >= sums->count) /* one that has come about just now */
        return;
    struct kind_sum *sum = &sums->sums[kind->index];
    uint64_t waiting = atomic_load_explicit(&service->waiting, memory_order_relaxed);
    sum->services++;
    sum->waiting += waiting;
    if (waiting > sum->fullest)
        sum->fullest = waiting;
    sum->memory += atomic_load_explicit(&service->memory, memory_order_relaxed);
    sum->tasks += atomic_load_explicit(&service->tasks, memory_order_relaxed);
}

static bool sum_up(struct kind_sums *sums, struct evpt_scheduler *scheduler)
{
    sums->count = evpt_kinds_count(&scheduler->kinds);
    sums->sums = evpt_sys_zalloc((sums->count + 1) * sizeof(*sums->sums));
    if (!sums->sums)
        return false;
    for (unsigned i = 0; i < sums->count; i++) {
        struct kind_sum *sum = &sums->sums[i];
        struct evpt_kind *kind = scheduler->kinds.kinds[i];
        sum->label = (struct label){"kind", kind->name};
        sum->refused = load(&kind->refused);
        for (unsigned w = 0; w <= scheduler->worker_count; w++) {
            evpt_histogram_merge(&sum->handler, &kind->meters[w].handler);
            sum->messages += load(&kind->meters[w].messages);
            sum->run_ns += load(&kind->meters[w].run_ns);
        }
    }
    evpt_registry_each(&scheduler->registry, add_service, sums);
    return true;
}

static const struct {
    struct family family;
    size_t offset; /* of a uint64_t in struct kind_sum */
} kind_families[] = {
#define FIELD(name) offsetof(struct kind_sum, name)
    {{"evpt_services", "Services of this kind (script)."}, FIELD(services)},
    {{"evpt_mailbox_messages", "Messages that wait in all mailboxes."}, FIELD(waiting)},
    {{"evpt_mailbox_fullest_messages", "Messages in the fullest mailbox."}, FIELD(fullest)},
    {{"evpt_lua_memory_bytes", "Memory of the Lua states."}, FIELD(memory)},
    {{"evpt_coroutines", "Coroutines in use: requests and forks in progress."}, FIELD(tasks)},
    {{"evpt_messages_total", "Messages handled, answers and timers too."}, FIELD(messages)},
    {{"evpt_messages_refused_total", "Messages that found a full mailbox."}, FIELD(refused)},
    {{"evpt_run_seconds_total", "Time in which services of the kind ran."}, FIELD(run_ns)},
#undef FIELD
};

static void put_kinds(struct page *page, struct evpt_scheduler *scheduler)
{
    const struct family handlers = {
        "evpt_handler_duration_seconds",
        "From the start of a handler to its end, with the time in which it waited."};
    struct kind_sums kinds = {0};
    if (!sum_up(&kinds, scheduler)) {
        page->failed = true;
        return;
    }
    for (size_t f = 0; f < COUNT(kind_families); f++) {
        begin_plain(page, kind_families[f].family);
        for (unsigned i = 0; i < kinds.count; i++) {
            const char *field = (const char *)&kinds.sums[i] + kind_families[f].offset;
            put_sample(page, kind_families[f].family.name, kinds.sums[i].label,
                       *(const uint64_t *)(const void *)field);
        }
    }
    begin_family(page, handlers, "histogram");
    for (unsigned i = 0; i < kinds.count; i++)
        put_histogram(page, handlers.name, kinds.sums[i].label, &kinds.sums[i].handler);
    evpt_sys_free(kinds.sums);
}

/* ---- other nodes ---- */

static void put_requests(struct page *page, const struct evpt_sample *sample)
{
    const struct family connections = {"evpt_connections", "Connections of the cluster."};
    const struct family serving = {"evpt_requests_in_progress",
                                   "Requests of other nodes that have no answer yet."};
    begin_plain(page, serving);
    put_sample(page, serving.name, (struct label){0}, sample->serving);
    begin_plain(page, connections);
    put_sample(page, connections.name, (struct label){"direction", "in"}, sample->connections_in);
    put_sample(page, connections.name, (struct label){"direction", "out"}, sample->connections_out);
}

static void put_outcomes(struct page *page, const struct evpt_sample *sample)
{
    const struct family family = {"evpt_calls_total",
                                  "Calls to other nodes that have ended, by outcome."};
    begin_plain(page, family);
    for (uint32_t i = 0; i < sample->peer_count; i++) {
        const struct evpt_peer_sample *peer = &sample->peers[i];
        for (int code = 0; code <= EVPT_CODE_COUNT; code++) {
            if (code != EVPT_CODE_OK && !peer->meter.outcomes[code])
                continue; /* most never happen */
            put(page, "%s{peer=\"%s\",outcome=\"%s\"}", family.name, peer->name,
                code < EVPT_CODE_COUNT ? evpt_code_name(code) : "other");
            put_value(page, family.name, peer->meter.outcomes[code]);
        }
    }
}

static void put_call_durations(struct page *page, const struct evpt_sample *sample)
{
    const struct family family = {
        "evpt_call_duration_seconds",
        "Calls to other nodes, from when they were asked for to their outcome, whatever it was."};
    begin_family(page, family, "histogram");
    for (uint32_t i = 0; i < sample->peer_count; i++) {
        const struct evpt_peer_sample *peer = &sample->peers[i];
        put_histogram(page, family.name, (struct label){"peer", peer->name}, &peer->meter.duration);
    }
}

static const struct {
    struct family family;
    size_t offset; /* of a uint64_t in struct evpt_peer_sample */
} peer_families[] = {
#define FIELD(name) offsetof(struct evpt_peer_sample, name)
    {{"evpt_peer_connected", "1 while there is a connection; it is made when it is needed."},
     FIELD(connected)},
    {{"evpt_peer_round_trip_seconds", "Of the last heartbeat; 0: there was none."},
     FIELD(round_trip_ns)},
    {{"evpt_peer_connects_total", "Connections made."}, FIELD(connects)},
    {{"evpt_peer_connect_failures_total", "Attempts to connect that failed."},
     FIELD(meter.connect_failures)},
    {{"evpt_peer_disconnects_total", "Connections lost."}, FIELD(disconnects)},
    {{"evpt_calls_in_flight", "Calls sent and not answered (session2context)."}, FIELD(in_flight)},
    {{"evpt_requests_waiting", "Requests that wait for the connection (requestCache)."},
     FIELD(waiting)},
    {{"evpt_send_queue_bytes", "Bytes that the network has not taken yet."}, FIELD(queued)},
#undef FIELD
};

static void put_peers(struct page *page, const struct evpt_sample *sample)
{
    for (size_t f = 0; f < COUNT(peer_families); f++) {
        begin_plain(page, peer_families[f].family);
        for (uint32_t i = 0; i < sample->peer_count; i++) {
            const char *field = (const char *)&sample->peers[i] + peer_families[f].offset;
            put_sample(page, peer_families[f].family.name,
                       (struct label){"peer", sample->peers[i].name},
                       *(const uint64_t *)(const void *)field);
        }
    }
}

/* ---- all of it ---- */

char *evpt_metrics_text(struct evpt_node *node, const struct evpt_sample *sample, bool ready,
                        size_t *ret_size)
{
    struct page page = {0};
    put_node(&page, node, sample != NULL, ready);
    put_logs_and_reloads(&page, node);
    put_loops(&page, node);
    put_kinds(&page, &node->scheduler);
    if (sample) {
        put_requests(&page, sample);
        put_outcomes(&page, sample);
        put_call_durations(&page, sample);
        put_peers(&page, sample);
    }
    put_process(&page);
    if (page.failed) {
        evpt_sys_free(page.text);
        return NULL;
    }
    *ret_size = page.size;
    return page.text;
}
