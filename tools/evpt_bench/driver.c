#include "tools/evpt_bench/driver.h"

#include "cluster/msgpack.h"
#include "cluster/tcp_client.h"
#include "reactor/error.h"
#include "services/request.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/local.h"
#include "tools/evpt_bench/pace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define START_NS (10 * EVPT_NS_PER_S) /* for the nodes to be up: they take a hundredth of that */
#define START_MORE_NS                                                                              \
    (2 * EVPT_NS_PER_MS) /* for each service and peer: they take a tenth of that */
#define ATTEMPT_NS (2 * EVPT_NS_PER_MS)
#define LEAD_NS (2 * EVPT_NS_PER_MS) /* an open loop begins when the driver knows about it */
#define CHECK_NS (200 * EVPT_NS_PER_MS)
#define HEARTBEAT_MS 5000 /* a node that hangs is found out */
#define ARGUMENTS_MAX 512
#define SEND_BUFFER_MAX (64 << 20)
#define MESSAGE_MAX (64 << 20) /* a histogram with every bucket used has half a megabyte */

/* What we ask the driver service for, and the session of the frame: one each at a time. */
enum request { REACH = 1, RUN, STOP, TAKE, DUE };
static const char *const methods[] = {
    [REACH] = "reach", [RUN] = "run", [STOP] = "stop", [TAKE] = "take", [DUE] = "due"};

struct driver {
    struct bench_engine engine;
    const struct bench_options *options;
    struct evpt_loop *loop;
    struct bench_local local;
    struct bench_peers *peers; /* NULL: there is a second node */
    struct evpt_session_config config;
    struct evpt_tcp_client tcp;
    struct evpt_session *session; /* to the node that has the driver */
    struct evpt_timer attempt;
    unsigned up;   /* nodes that listen */
    bool reached;  /* the driver has called the echo */
    bool is_final; /* the run is over; the sample under way is its last */
    bool taking;
    bool stop_asked;
    struct bench_pace pace;
    uint64_t count, slots;
    uint64_t next_check_ns;
    struct bench_tally *taken; /* the run so far: what a sample brings is in `recent` too */
};

static struct driver *driver_of(const struct bench_engine *engine)
{
    return EVPT_CONTAINER_OF(engine, struct driver, engine);
}

static bool is_open_loop(const struct driver *driver)
{
    return driver->options->rate > 0;
}

static void fail(struct driver *driver, const char *what, const char *why)
{
    struct bench_run *run = &driver->engine.run;
    if (!run->failed)
        snprintf(run->failure, sizeof(run->failure), "--local: %s: %s", what, why);
    run->failed = run->over = true;
}

/* ---- requests ---- */

/* The arguments are MessagePack, the array included. */
static void ask(struct driver *driver, enum request request, const struct evpt_writer *written,
                const uint8_t *arguments)
{
    static const char service[] = "bench_driver";
    enum evpt_message_kind kind = request == DUE ? EVPT_MESSAGE_SEND : EVPT_MESSAGE_CALL;
    size_t size = (size_t)(written->at - arguments);
    int error = -EVPT_ECLOSED;
    if (driver->session) {
        error = -ENOMEM;
        struct evpt_message *message = evpt_request_new(
            kind, service, sizeof(service) - 1, methods[request], strlen(methods[request]), size);
        if (message) {
            memcpy(message->data + message->size, arguments, size);
            message->size += (uint32_t)size;
            message->session = request;
            message->lane = 1; /* `due` behind `run` */
            /* none of these has a deadline; they take what the load leaves them */
            if (evpt_request_finish(&message, 1, EVPT_FOREVER) == 0)
                error = evpt_session_send(driver->session, message, NULL);
            else
                evpt_message_free(message);
        }
    }
    if (error)
        fail(driver, methods[request], evpt_strerror(error));
}

static void ask_nothing(struct driver *driver, enum request request)
{
    uint8_t arguments[EVPT_ITEM_MAX];
    struct evpt_writer writer;
    evpt_writer_init(&writer, arguments, sizeof(arguments));
    evpt_write_array(&writer, 0);
    ask(driver, request, &writer, arguments);
}

static void write_text(struct evpt_writer *writer, const char *text)
{
    evpt_write_str(writer, text, strlen(text));
}

struct number {
    const char *key;
    uint64_t value;
};

static void write_numbers(struct evpt_writer *writer, const struct number *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        write_text(writer, numbers[i].key);
        evpt_write_int(writer, (int64_t)numbers[i].value);
    }
}

static void ask_reach(struct driver *driver)
{
    const struct bench_options *options = driver->options;
    uint8_t arguments[ARGUMENTS_MAX];
    struct evpt_writer writer;
    const struct number numbers[] = {
        {"services", options->services}, {"peers", options->peers}, {"beside", options->beside}};
    enum { NUMBERS = sizeof(numbers) / sizeof(numbers[0]) };
    evpt_writer_init(&writer, arguments, sizeof(arguments));
    evpt_write_array(&writer, 1);
    evpt_write_map(&writer, NUMBERS + 1);
    write_numbers(&writer, numbers, NUMBERS);
    write_text(&writer, "node");
    write_text(&writer, options->where == BENCH_LOCAL_ONE ? "bench_a" : "bench_b");
    ask(driver, REACH, &writer, arguments);
}

static void ask_run(struct driver *driver)
{
    const struct bench_options *options = driver->options;
    uint8_t arguments[ARGUMENTS_MAX];
    struct evpt_writer writer;
    const struct number numbers[] = {
        /* a limit that is never reached, and that Lua still calculates with */
        {"count", driver->count < INT64_MAX / 2 ? driver->count : INT64_MAX / 2},
        {"in_flight", options->in_flight},
        {"size_min", options->size_min},
        {"size_max", options->size_max},
        {"begin_ns", driver->pace.begin_ns},
    };
    enum { NUMBERS = sizeof(numbers) / sizeof(numbers[0]) };
    evpt_writer_init(&writer, arguments, sizeof(arguments));
    evpt_write_array(&writer, 1);
    evpt_write_map(&writer, NUMBERS + 2);
    write_numbers(&writer, numbers, NUMBERS);
    write_text(&writer, "rate");
    evpt_write_float(&writer, options->rate);
    write_text(&writer, "what");
    write_text(&writer, options->what == BENCH_SEND ? "send" : "call");
    ask(driver, RUN, &writer, arguments);
}

static void ask_due(struct driver *driver, uint64_t slots)
{
    uint8_t arguments[2 * EVPT_ITEM_MAX];
    struct evpt_writer writer;
    evpt_writer_init(&writer, arguments, sizeof(arguments));
    evpt_write_array(&writer, 1);
    evpt_write_int(&writer, (int64_t)slots);
    ask(driver, DUE, &writer, arguments);
}

/* ---- answers ---- */

/* The next number, integer or float. */
static int read_number(struct evpt_reader *reader, double *ret_number)
{
    struct evpt_item item;
    int error = evpt_read_item(reader, &item);
    if (error)
        return error;
    if (item.kind != EVPT_ITEM_INT && item.kind != EVPT_ITEM_FLOAT)
        return -EVPT_EFORMAT;
    *ret_number = item.kind == EVPT_ITEM_INT ? (double)item.u.integer : item.u.real;
    return 0;
}

static int read_count(struct evpt_reader *reader, uint64_t *ret_count)
{
    int64_t value;
    int error = evpt_read_int(reader, &value);
    if (error)
        return error;
    if (value < 0)
        return -EVPT_EFORMAT;
    *ret_count = (uint64_t)value;
    return 0;
}

/* As meter.c writes it: max, sum, sum of squares, overflows, then buckets with their counts. */
static int read_histogram(struct evpt_reader *reader, struct bench_histogram *histogram)
{
    enum { HEAD = 4 };
    uint32_t items;
    uint64_t max, overflows, index, count;
    double sum, square_sum;
    int error = evpt_read_array(reader, &items);
    if (!error)
        error = items < HEAD || items % 2 != 0 ? -EVPT_EFORMAT : read_count(reader, &max);
    if (!error)
        error = read_number(reader, &sum);
    if (!error)
        error = read_number(reader, &square_sum);
    if (!error)
        error = read_count(reader, &overflows);
    for (uint32_t i = HEAD; !error && i < items; i += 2) {
        error = read_count(reader, &index);
        if (!error)
            error = read_count(reader, &count);
        if (!error && index >= BENCH_HISTOGRAM_BUCKETS)
            error = -EVPT_EFORMAT;
        if (!error)
            bench_histogram_add_bucket(histogram, (uint32_t)index, count);
    }
    if (error)
        return error;
    histogram->sum += sum;
    histogram->square_sum += square_sum;
    histogram->overflows += overflows;
    if (max > histogram->max)
        histogram->max = max;
    return 0;
}

static int read_taken(struct evpt_reader *reader, struct bench_tally *tally)
{
    uint32_t codes;
    uint64_t count;
    int error = evpt_read_array(reader, &codes);
    if (!error && codes != BENCH_CODES)
        error = -EVPT_EFORMAT;
    for (uint32_t i = 0; !error && i < codes; i++) {
        error = read_count(reader, &count);
        if (!error)
            tally->outcomes[i] += count;
    }
    if (!error)
        error = read_histogram(reader, &tally->latency);
    return error ? error : read_histogram(reader, &tally->lag);
}

/* One take at a time; a run's last one waits for the one under way. */
static void take(struct driver *driver)
{
    if (driver->taking)
        return;
    driver->taking = true;
    ask_nothing(driver, TAKE);
}

static int on_taken(struct driver *driver, struct evpt_reader *reader)
{
    struct bench_engine *engine = &driver->engine;
    bool was_final = driver->is_final;
    driver->taking = false;
    bench_tally_clear(driver->taken);
    int error = read_taken(reader, driver->taken);
    if (error)
        return error;
    bench_tally_merge(engine->recent, driver->taken);
    /* Where the run was stopped, its answer has told what had ended by then. */
    if (!driver->stop_asked || !engine->run.window_end_ns)
        engine->run.window_ended += bench_tally_ended(driver->taken);
    if (was_final)
        engine->run.over = true;
    engine->on_sample(engine, engine->user);
    return 0;
}

static int on_stopped(struct driver *driver, struct evpt_reader *reader)
{
    struct bench_run *run = &driver->engine.run;
    uint64_t now_ns, ended;
    int error = read_count(reader, &now_ns);
    if (!error)
        error = read_count(reader, &ended);
    if (error)
        return error;
    run->window_end_ns = now_ns;
    run->window_ended += ended;
    return 0;
}

static int on_run_over(struct driver *driver, struct evpt_reader *reader)
{
    struct bench_run *run = &driver->engine.run;
    uint64_t end_ns;
    int error = read_count(reader, &run->begin_ns);
    if (!error)
        error = read_count(reader, &end_ns);
    if (!error)
        error = read_count(reader, &run->started);
    if (!error)
        error = read_count(reader, &run->missed);
    if (!error)
        error = read_count(reader, &run->bytes_out);
    if (!error)
        error = read_count(reader, &run->bytes_in);
    if (!error)
        error = read_count(reader, &run->beside_calls);
    if (!error)
        error = read_count(reader, &run->beside_ns);
    if (error)
        return error;
    if (!run->window_end_ns)
        run->window_end_ns = end_ns;
    driver->is_final = true;
    take(driver);
    return 0;
}

static int on_reached(struct driver *driver, struct evpt_reader *reader)
{
    int64_t code;
    const char *text;
    uint32_t size;
    int error = evpt_read_int(reader, &code);
    if (!error)
        error = evpt_read_str(reader, &text, &size);
    if (error)
        return error;
    if (code != EVPT_CODE_OK) {
        bench_complain("--local: bench_a does not reach the echo: %.*s", (int)size, text);
        driver->engine.run.failed = true;
    }
    driver->reached = true;
    return 0;
}

static int on_answer(struct driver *driver, const struct evpt_message *message)
{
    struct evpt_reader reader;
    uint32_t count;
    evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
    int error = evpt_read_array(&reader, &count);
    if (error)
        return error;
    switch ((enum request)message->session) {
    case REACH:
        return on_reached(driver, &reader);
    case RUN:
        return on_run_over(driver, &reader);
    case STOP:
        return on_stopped(driver, &reader);
    case TAKE:
        return on_taken(driver, &reader);
    case DUE:
        break;
    }
    return -EVPT_EFORMAT;
}

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct driver *driver = user;
    int error = evpt_reply_parse(message);
    struct evpt_reader reader;
    uint32_t count, size;
    const char *text = evpt_code_text(message->code);
    if (!error && message->code != EVPT_CODE_OK) {
        size = (uint32_t)strlen(text);
        evpt_reader_init(&reader, message->data + message->args_at, message->args_size);
        if (evpt_read_array(&reader, &count) == 0 && count > 0)
            (void)evpt_read_str(&reader, &text, &size); /* else the code's own text */
        char why[200];
        snprintf(why, sizeof(why), "%.*s", (int)size, text);
        why[strcspn(why, "\n")] = 0; /* behind it: the traceback */
        fail(driver, "bench_driver", why);
    } else {
        if (!error)
            error = on_answer(driver, message);
        if (error)
            fail(driver, "bench_driver", evpt_strerror(error));
    }
    evpt_message_free(message);
}

static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct driver *driver = user;
    if (session != driver->session)
        return; /* the one that only saw whether the other node was up */
    driver->session = NULL;
    fail(driver, "the connection to bench_a was lost", reason);
}

/* ---- until both nodes are up ---- */

static void try_connect(struct driver *driver);

static void on_attempt(struct evpt_timer *timer, void *user)
{
    try_connect(user);
}

/* The node to be waited for: the last one first, so that the driver finds the echo there. */
static struct bench_node *awaited(struct driver *driver)
{
    return &driver->local.nodes[driver->local.count - 1 - driver->up];
}

static void on_connect(void *tag, struct evpt_session *session, int error, void *user)
{
    struct driver *driver = user;
    if (!session) { /* not yet; prepare() watches the clock and the processes */
        evpt_loop_timer(driver->loop, &driver->attempt, ATTEMPT_NS, on_attempt, driver);
        return;
    }
    bench_local_is_up(awaited(driver));
    driver->up++;
    if (driver->up < driver->local.count) {
        evpt_session_close(session, true, "it is up");
        try_connect(driver);
        return;
    }
    driver->session = session;
    ask_reach(driver);
}

static void try_connect(struct driver *driver)
{
    int error = evpt_tcp_client_try_connect(&driver->tcp, &awaited(driver)->addr,
                                            awaited(driver)->name, START_NS, driver);
    if (error)
        on_connect(driver, NULL, error, driver);
}

static int prepare(struct bench_engine *engine)
{
    struct driver *driver = driver_of(engine);
    struct bench_local *local = &driver->local;
    if (driver->options->peers) {
        int error = bench_peers_new(&driver->peers, driver->loop, driver->options);
        if (error) {
            bench_complain("--peers: %s", evpt_strerror(error));
            return -1;
        }
    }
    if (bench_local_start(local, driver->options, driver->peers) != 0)
        return -1;
    uint64_t more = driver->options->services + driver->options->peers;
    uint64_t limit_ns = START_NS + more * START_MORE_NS;
    uint64_t deadline_ns = evpt_loop_update_now(driver->loop) + limit_ns;
    try_connect(driver);
    while (!driver->reached && !engine->run.failed && !engine->context->interrupts) {
        (void)evpt_loop_turn(driver->loop, evpt_sys_now_ns() + 10 * EVPT_NS_PER_MS);
        if (!bench_local_check(local))
            return -1;
        if (evpt_sys_now_ns() > deadline_ns) {
            bench_complain("--local: the nodes were not up after %d s",
                           (int)(limit_ns / EVPT_NS_PER_S));
            return -1;
        }
    }
    if (engine->run.failure[0])
        bench_complain("%s", engine->run.failure);
    engine->peer_count = local->count;
    for (unsigned i = 0; i < local->count; i++)
        engine->peers[i] =
            (struct bench_peer){.name = local->nodes[i].name, .pid = local->nodes[i].pid};
    return engine->run.failed || engine->context->interrupts ? -1 : 0;
}

/* ---- a run ---- */

static void begin(struct bench_engine *engine, uint64_t count)
{
    struct driver *driver = driver_of(engine);
    uint64_t now_ns = evpt_loop_update_now(driver->loop);
    driver->count = count;
    driver->slots = 0;
    driver->is_final = driver->stop_asked = false;
    driver->pace = (struct bench_pace){.begin_ns = now_ns + LEAD_NS, .rate = driver->options->rate};
    engine->run.begin_ns = is_open_loop(driver) ? driver->pace.begin_ns : now_ns;
    driver->next_check_ns = now_ns + CHECK_NS;
    ask_run(driver);
}

static bool has_slots(const struct driver *driver)
{
    return is_open_loop(driver) && !driver->stop_asked && driver->slots < driver->count;
}

/* What has come due. */
static void start_slots(struct driver *driver, uint64_t now_ns)
{
    uint64_t due = bench_pace_due(&driver->pace, now_ns);
    uint64_t last = due < driver->count ? due : driver->count;
    if (last <= driver->slots)
        return;
    ask_due(driver, last);
    driver->slots = last;
}

static void stop(struct bench_engine *engine)
{
    struct driver *driver = driver_of(engine);
    if (driver->stop_asked || engine->run.over)
        return;
    if (has_slots(driver))
        start_slots(driver, evpt_sys_now_ns());
    driver->stop_asked = true;
    ask_nothing(driver, STOP);
}

static void advance(struct bench_engine *engine, uint64_t now_ns)
{
    struct driver *driver = driver_of(engine);
    if (has_slots(driver)) {
        start_slots(driver, now_ns);
        if (!has_slots(driver)) /* the schedule is at its end, whatever the last calls take */
            stop(engine);
    }
    if (now_ns < driver->next_check_ns)
        return;
    driver->next_check_ns = now_ns + CHECK_NS;
    if (!bench_local_check(&driver->local))
        engine->run.failed = engine->run.over = true; /* that was said already */
}

static uint64_t next_ns(const struct bench_engine *engine)
{
    const struct driver *driver = driver_of(engine);
    uint64_t slot_ns =
        has_slots(driver) ? bench_pace_at(&driver->pace, driver->slots) : EVPT_FOREVER;
    return slot_ns < driver->next_check_ns ? slot_ns : driver->next_check_ns;
}

static void sample(struct bench_engine *engine)
{
    struct driver *driver = driver_of(engine);
    if (!driver->is_final)
        take(driver);
}

static void close_driver(struct bench_engine *engine)
{
    struct driver *driver = driver_of(engine);
    evpt_timer_stop(evpt_loop_wheel(driver->loop), &driver->attempt);
    evpt_tcp_client_fini(&driver->tcp);
    bench_local_stop(&driver->local);
    bench_peers_free(driver->peers);
    evpt_sys_free(driver->taken);
    evpt_sys_free(engine->recent);
    evpt_sys_free(driver);
}

struct bench_engine *bench_driver_new(struct bench_context *context)
{
    static const struct bench_engine_ops ops = {.prepare = prepare,
                                                .begin = begin,
                                                .advance = advance,
                                                .next_ns = next_ns,
                                                .stop = stop,
                                                .sample = sample,
                                                .close = close_driver};
    static const struct evpt_tcp_client_ops tcp_ops = {
        .session = {.on_message = on_message, .on_close = on_close}, .on_connect = on_connect};
    struct driver *driver = evpt_sys_zalloc(sizeof(*driver));
    if (!driver)
        return NULL;
    driver->engine = (struct bench_engine){.ops = &ops, .context = context};
    driver->options = context->options;
    driver->loop = context->loop;
    driver->config = (struct evpt_session_config){.node = "evpt_bench",
                                                  .message_max = MESSAGE_MAX,
                                                  .heartbeat_ms = HEARTBEAT_MS,
                                                  .send_buffer_max = SEND_BUFFER_MAX,
                                                  .tls = context->tls};
    evpt_tcp_client_init(&driver->tcp, driver->loop, &driver->config, &tcp_ops, driver);
    driver->taken = evpt_sys_zalloc(sizeof(*driver->taken));
    driver->engine.recent = evpt_sys_zalloc(sizeof(*driver->engine.recent));
    if (!driver->taken || !driver->engine.recent) {
        close_driver(&driver->engine);
        return NULL;
    }
    return &driver->engine;
}
