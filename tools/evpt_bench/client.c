#include "tools/evpt_bench/client.h"

#include "cluster/msgpack.h"
#include "cluster/tcp_client.h"
#include "reactor/error.h"
#include "services/request.h"
#include "tools/evpt_bench/calls.h"
#include "tools/evpt_bench/complain.h"
#include "tools/evpt_bench/pace.h"
#include "tools/evpt_bench/system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RECONNECT_NS (100 * EVPT_NS_PER_MS)
#define STARTS_PER_TURN 256     /* of an open loop that lags: answers want to be read, too */
#define RETRY_NS EVPT_NS_PER_MS /* after a message that could not even be sent */
#define HEARTBEAT_MS 5000
#define SEND_BUFFER_MAX ((size_t)5 << 30) /* above what options.c allows to be in flight */
#define SOURCE 1 /* who sends, for the target: all messages are one sender's, and so in order */

struct connection {
    struct client *client;
    struct evpt_session *session; /* NULL: not connected */
    struct evpt_timer retry;
    uint32_t index;
    uint32_t unconfirmed; /* sends since the last call */
    uint32_t parked;      /* places of the closed loop that wait for it */
    bool was_connected;
};

enum started { STARTED_SEND, STARTED_CALL, START_FAILED };

struct client {
    struct bench_engine engine;
    const struct bench_options *options;
    struct evpt_loop *loop;
    struct evpt_addr addr;
    struct evpt_session_config config;
    struct evpt_tcp_client tcp;
    struct connection *connections;
    uint32_t live; /* connections that are open */
    uint32_t next; /* connection that the next slot takes */
    uint32_t parked;
    int connect_error;
    struct evpt_timer give_up;
    struct bench_calls calls;
    struct bench_pace pace;
    uint64_t count; /* messages, or slots, of this run */
    uint64_t slots; /* that have come due */
    bool stopping;
    uint64_t random;
    uint64_t closed_bytes_out, closed_bytes_in; /* of connections that are gone */
    uint64_t begin_bytes_out, begin_bytes_in;
    uint8_t *payload; /* size_max bytes that do not compress */
};

static struct client *client_of(const struct bench_engine *engine)
{
    return EVPT_CONTAINER_OF(engine, struct client, engine);
}

static bool is_open_loop(const struct client *client)
{
    return client->options->rate > 0;
}

/* xorshift64*: sizes and the payload's bytes; the same in each run, so that runs compare. */
static uint64_t next_random(struct client *client)
{
    client->random ^= client->random >> 12;
    client->random ^= client->random << 25;
    client->random ^= client->random >> 27;
    return client->random * UINT64_C(2685821657736338717);
}

/* ---- the end of calls and of the run ---- */

static void sum_bytes(const struct client *client, uint64_t *ret_out, uint64_t *ret_in)
{
    *ret_out = client->closed_bytes_out;
    *ret_in = client->closed_bytes_in;
    for (uint32_t i = 0; i < client->options->connections; i++) {
        struct evpt_session_stats stats;
        if (!client->connections[i].session)
            continue;
        evpt_session_stats(client->connections[i].session, &stats);
        *ret_out += stats.bytes_out;
        *ret_in += stats.bytes_in;
    }
}

static void close_window(struct client *client, uint64_t now_ns)
{
    if (!client->engine.run.window_end_ns)
        client->engine.run.window_end_ns = now_ns;
}

/* Of `count`. */
static uint64_t used_up(const struct client *client)
{
    return is_open_loop(client) ? client->slots : client->engine.run.started;
}

static bool has_more(const struct client *client)
{
    return !client->stopping && used_up(client) < client->count;
}

static void confirm_rest(struct client *client, uint64_t now_ns);

static void end_if_done(struct client *client, uint64_t now_ns)
{
    struct bench_run *run = &client->engine.run;
    if (run->over || has_more(client))
        return;
    confirm_rest(client, now_ns);
    if (client->calls.count > 0)
        return;
    close_window(client, now_ns);
    sum_bytes(client, &run->bytes_out, &run->bytes_in);
    run->bytes_out -= client->begin_bytes_out;
    run->bytes_in -= client->begin_bytes_in;
    run->over = true;
}

static void count_outcome(struct client *client, unsigned code, uint32_t covers, uint64_t ns)
{
    struct bench_run *run = &client->engine.run;
    bench_tally_end(client->engine.recent, code, covers, ns);
    if (!run->window_end_ns)
        run->window_ended += covers;
}

static void end_call(struct client *client, struct bench_call *call, unsigned code, uint64_t now_ns)
{
    evpt_timer_stop(evpt_loop_wheel(client->loop), &call->timeout);
    count_outcome(client, code, call->covers, now_ns - call->start_ns);
    bench_calls_give(&client->calls, call);
}

/* ---- starting ---- */

/* The request, with an argument of the plan's size; NULL: no memory. */
static struct evpt_message *make_request(struct client *client, enum evpt_message_kind kind,
                                         uint64_t now_ns)
{
    const struct bench_options *options = client->options;
    size_t size = options->size_min;
    if (options->size_max > options->size_min)
        size += next_random(client) % (options->size_max - options->size_min + 1);
    struct evpt_message *message =
        evpt_request_new(kind, options->service, strlen(options->service), options->method,
                         strlen(options->method), size + 2 * EVPT_ITEM_MAX);
    if (!message)
        return NULL;
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    (void)evpt_write_array(&writer, 1); /* there is room for both */
    (void)evpt_write_str(&writer, client->payload, size);
    message->size = (uint32_t)(writer.at - message->data);
    if (evpt_request_finish(&message, SOURCE, now_ns + options->timeout_ns) != 0) {
        evpt_message_free(message);
        return NULL;
    }
    evpt_request_patch_deadline(message, now_ns);
    /* sends have to arrive in order; calls are independent of each other */
    message->lane = options->what == BENCH_SEND ? SOURCE : 0;
    return message;
}

static unsigned code_of(int error)
{
    switch (error) {
    case -EVPT_ETOOLARGE:
        return EVPT_CODE_TOO_LARGE;
    case -EVPT_ECLOSED:
        return EVPT_CODE_DISCONNECTED;
    default: /* the send queue is full, or memory is */
        return EVPT_CODE_OVERLOADED;
    }
}

static void on_call_timeout(struct evpt_timer *timer, void *user);

/* Is the next message of `send` one that is to be confirmed? Always so for the last ones, one for
 * each connection: then nothing is left to confirm, and the count is exact. */
static bool is_call_next(const struct client *client, const struct connection *connection)
{
    return client->options->what == BENCH_CALL || connection->unconfirmed + 1 == BENCH_SEND_BURST ||
           client->count - used_up(client) <= client->options->connections;
}

static enum started start_send(struct client *client, struct connection *connection,
                               uint64_t now_ns)
{
    struct evpt_message *message = make_request(client, EVPT_MESSAGE_SEND, now_ns);
    int error = -ENOMEM;
    if (message) {
        message->session = 1; /* nobody answers it */
        error = evpt_session_send(connection->session, message, NULL);
    }
    client->engine.run.started++;
    if (error) {
        count_outcome(client, code_of(error), 1, 0);
        return START_FAILED;
    }
    connection->unconfirmed++;
    return STARTED_SEND;
}

static enum started start_call(struct client *client, struct connection *connection,
                               uint64_t start_ns, uint64_t now_ns)
{
    uint32_t covers = connection->unconfirmed + 1;
    connection->unconfirmed = 0;
    client->engine.run.started++;
    struct bench_call *call = bench_calls_take(&client->calls);
    struct evpt_message *message = call ? make_request(client, EVPT_MESSAGE_CALL, now_ns) : NULL;
    int error = -ENOMEM;
    if (message) {
        message->session = call->session;
        error = evpt_session_send(connection->session, message, NULL);
    }
    if (error) {
        if (call)
            bench_calls_give(&client->calls, call);
        count_outcome(client, code_of(error), covers, 0);
        return START_FAILED;
    }
    call->start_ns = start_ns;
    call->connection = connection->index;
    call->covers = covers;
    evpt_loop_timer(client->loop, &call->timeout, client->options->timeout_ns, on_call_timeout,
                    client);
    return STARTED_CALL;
}

static enum started start_one(struct client *client, struct connection *connection,
                              uint64_t start_ns, uint64_t now_ns)
{
    return is_call_next(client, connection) ? start_call(client, connection, start_ns, now_ns)
                                            : start_send(client, connection, now_ns);
}

/* Sends that nothing confirms yet get a call behind them. */
static void confirm_rest(struct client *client, uint64_t now_ns)
{
    for (uint32_t i = 0; i < client->options->connections; i++) {
        struct connection *connection = &client->connections[i];
        if (connection->session && connection->unconfirmed)
            (void)start_call(client, connection, now_ns, now_ns); /* a failure was counted */
    }
}

/* ---- closed loop ---- */

/* What one place in flight does next: a call, or a burst of sends with a call at its end. */
static void go_on(struct client *client, struct connection *connection, uint64_t now_ns)
{
    enum started started = STARTED_SEND;
    while (started == STARTED_SEND && has_more(client) && connection->session)
        started = start_one(client, connection, now_ns, now_ns);
    if (started == STARTED_CALL || !has_more(client))
        return;
    connection->parked++;
    client->parked++;
}

static void unpark(struct client *client, uint64_t now_ns)
{
    for (uint32_t i = 0; i < client->options->connections && client->parked; i++) {
        struct connection *connection = &client->connections[i];
        uint32_t parked = connection->session ? connection->parked : 0;
        connection->parked -= parked;
        client->parked -= parked;
        while (parked--)
            go_on(client, connection, now_ns);
    }
}

/* A place has become free; the end of one call is the start of the next. */
static void after_call(struct client *client, uint32_t connection, uint64_t now_ns)
{
    if (!is_open_loop(client) && has_more(client))
        go_on(client, &client->connections[connection], now_ns);
    end_if_done(client, now_ns);
}

static void on_call_timeout(struct evpt_timer *timer, void *user)
{
    struct client *client = user;
    struct bench_call *call = EVPT_CONTAINER_OF(timer, struct bench_call, timeout);
    uint32_t connection = call->connection;
    uint64_t now_ns = evpt_sys_now_ns();
    end_call(client, call, EVPT_CODE_TIMEOUT, now_ns);
    after_call(client, connection, now_ns);
}

/* ---- open loop ---- */

static struct connection *next_connection(struct client *client)
{
    for (uint32_t i = 0; client->live && i < client->options->connections; i++) {
        struct connection *connection = &client->connections[client->next];
        client->next = (client->next + 1) % (uint32_t)client->options->connections;
        if (connection->session)
            return connection;
    }
    return NULL;
}

static void start_slots(struct client *client, uint64_t now_ns)
{
    uint64_t due = bench_pace_due(&client->pace, now_ns);
    for (int n = 0; n < STARTS_PER_TURN && client->slots < due && has_more(client); n++) {
        uint64_t start_ns = bench_pace_at(&client->pace, client->slots);
        struct connection *connection =
            client->calls.count < client->options->in_flight ? next_connection(client) : NULL;
        if (connection) {
            uint64_t actual_ns = evpt_sys_now_ns();
            bench_histogram_record(&client->engine.recent->lag, actual_ns - start_ns);
            (void)start_one(client, connection, start_ns, actual_ns); /* a failure was counted */
        } else {
            client->engine.run.missed++;
        }
        client->slots++;
    }
    if (!has_more(client)) /* the schedule is at its end, whatever the last calls take */
        close_window(client, now_ns);
    end_if_done(client, now_ns);
}

/* Slots that have come due, and were not started before the end. */
static void miss_rest(struct client *client, uint64_t now_ns)
{
    uint64_t due = bench_pace_due(&client->pace, now_ns);
    uint64_t last = due < client->count ? due : client->count;
    if (last <= client->slots)
        return;
    client->engine.run.missed += last - client->slots;
    client->slots = last;
}

/* ---- what comes in ---- */

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct client *client = user;
    struct bench_call *call = bench_calls_find(&client->calls, message->session);
    if (!call) {
        client->engine.run.late_answers++;
        evpt_message_free(message);
        return;
    }
    /* When the program has it in hand, not when it was read: answers that wait here while others
     * are looked at do wait. */
    uint64_t now_ns = evpt_sys_now_ns();
    unsigned code = evpt_reply_parse(message) == 0 ? message->code : EVPT_CODE_BAD_MESSAGE;
    uint32_t connection = call->connection;
    evpt_message_free(message);
    end_call(client, call, code, now_ns);
    after_call(client, connection, now_ns);
}

static void try_connect(struct client *client, struct connection *connection);

static void on_retry(struct evpt_timer *timer, void *user)
{
    struct connection *connection = user;
    try_connect(connection->client, connection);
}

static void on_give_up(struct evpt_timer *timer, void *user)
{
    struct client *client = user;
    struct bench_run *run = &client->engine.run;
    run->failed = true;
    snprintf(run->failure, sizeof(run->failure), "%s: the target has gone: %s",
             client->options->target, evpt_strerror(client->connect_error));
    client->stopping = true;
    end_if_done(client, evpt_sys_now_ns());
}

static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct client *client = user;
    struct connection *connection = evpt_session_tag(session);
    struct evpt_session_stats stats;
    evpt_session_stats(session, &stats);
    client->closed_bytes_out += stats.bytes_out;
    client->closed_bytes_in += stats.bytes_in;
    connection->session = NULL;
    client->live--;
    client->connect_error = error ? error : -EVPT_ECLOSED;
    uint64_t now_ns = evpt_sys_now_ns();
    if (connection->unconfirmed)
        count_outcome(client, EVPT_CODE_DISCONNECTED, connection->unconfirmed, 0);
    connection->unconfirmed = 0;
    for (uint32_t i = 0; i < client->calls.capacity; i++) {
        struct bench_call *call = bench_calls_at(&client->calls, i);
        if (!call || call->connection != connection->index)
            continue;
        end_call(client, call, EVPT_CODE_DISCONNECTED, now_ns);
        after_call(client, connection->index, now_ns);
    }
    if (!client->live)
        evpt_loop_timer(client->loop, &client->give_up, client->options->timeout_ns, on_give_up,
                        client);
    evpt_loop_timer(client->loop, &connection->retry, RECONNECT_NS, on_retry, connection);
}

/* ---- connections ---- */

static void on_connect(void *tag, struct evpt_session *session, int error, void *user)
{
    struct client *client = user;
    struct connection *connection = tag;
    if (!session) {
        client->connect_error = error;
        if (connection->was_connected) /* else prepare() gives up at the first failure */
            evpt_loop_timer(client->loop, &connection->retry, RECONNECT_NS, on_retry, connection);
        return;
    }
    connection->session = session;
    client->live++;
    evpt_timer_stop(evpt_loop_wheel(client->loop), &client->give_up);
    if (connection->was_connected)
        client->engine.run.reconnects++;
    connection->was_connected = true;
}

static void try_connect(struct client *client, struct connection *connection)
{
    int error = evpt_tcp_client_try_connect(&client->tcp, &client->addr, "target",
                                            client->options->timeout_ns, connection);
    if (error)
        on_connect(connection, NULL, error, client);
}

static int prepare(struct bench_engine *engine)
{
    struct client *client = client_of(engine);
    const struct bench_options *options = client->options;
    for (uint32_t i = 0; i < options->connections; i++)
        try_connect(client, &client->connections[i]);
    while (client->live < options->connections && !engine->context->interrupts) {
        if (client->connect_error) {
            bench_complain("%s: %s", options->target,
                           evpt_tcp_client_reason(&client->tcp, client->connect_error));
            return -1;
        }
        (void)evpt_loop_turn(client->loop, EVPT_FOREVER); /* fails only as the descriptors do */
    }
    pid_t pid = bench_owner_of(&client->addr);
    if (pid)
        engine->peers[engine->peer_count++] = (struct bench_peer){.name = "target", .pid = pid};
    return engine->context->interrupts ? -1 : 0;
}

/* ---- a run ---- */

static void begin(struct bench_engine *engine, uint64_t count)
{
    struct client *client = client_of(engine);
    const struct bench_options *options = client->options;
    uint64_t now_ns = evpt_loop_update_now(client->loop);
    engine->run.begin_ns = now_ns;
    client->pace = (struct bench_pace){.begin_ns = now_ns, .rate = options->rate};
    client->count = count;
    client->slots = 0;
    client->stopping = false;
    sum_bytes(client, &client->begin_bytes_out, &client->begin_bytes_in);
    if (is_open_loop(client))
        return;
    /* spread evenly; the first ones get what is left over */
    for (uint64_t i = 0; i < options->in_flight; i++)
        go_on(client, &client->connections[i % options->connections], evpt_sys_now_ns());
    end_if_done(client, evpt_sys_now_ns());
}

static void advance(struct bench_engine *engine, uint64_t now_ns)
{
    struct client *client = client_of(engine);
    if (is_open_loop(client))
        start_slots(client, now_ns);
    else if (client->parked && client->live)
        unpark(client, now_ns);
}

static uint64_t next_ns(const struct bench_engine *engine)
{
    const struct client *client = client_of(engine);
    if (!has_more(client))
        return EVPT_FOREVER;
    if (is_open_loop(client))
        return bench_pace_at(&client->pace, client->slots);
    return client->parked && client->live ? evpt_loop_now(client->loop) + RETRY_NS : EVPT_FOREVER;
}

static void stop(struct bench_engine *engine)
{
    struct client *client = client_of(engine);
    uint64_t now_ns = evpt_sys_now_ns();
    if (client->stopping || engine->run.over)
        return;
    close_window(client, now_ns);
    if (is_open_loop(client))
        miss_rest(client, now_ns);
    client->stopping = true;
    for (uint32_t i = 0; i < client->options->connections; i++)
        client->connections[i].parked = 0;
    client->parked = 0;
    end_if_done(client, now_ns);
}

static void sample(struct bench_engine *engine)
{
    engine->on_sample(engine, engine->user);
}

static void close_client(struct bench_engine *engine)
{
    struct client *client = client_of(engine);
    struct evpt_timer_wheel *wheel = evpt_loop_wheel(client->loop);
    evpt_timer_stop(wheel, &client->give_up);
    for (uint32_t i = 0; client->connections && i < client->options->connections; i++)
        evpt_timer_stop(wheel, &client->connections[i].retry);
    for (uint32_t i = 0; i < client->calls.capacity; i++) {
        struct bench_call *call = bench_calls_at(&client->calls, i);
        if (call)
            evpt_timer_stop(wheel, &call->timeout);
    }
    evpt_tcp_client_fini(&client->tcp);
    bench_calls_fini(&client->calls);
    evpt_sys_free(client->connections);
    evpt_sys_free(client->payload);
    evpt_sys_free(client->engine.recent);
    evpt_sys_free(client);
}

/* ---- making it ---- */

static void fill_payload(struct client *client)
{
    for (uint64_t i = 0; i < client->options->size_max; i++)
        client->payload[i] = (uint8_t)(next_random(client) >> 56);
}

struct bench_engine *bench_client_new(struct bench_context *context, const struct evpt_addr *addr)
{
    static const struct bench_engine_ops ops = {.prepare = prepare,
                                                .begin = begin,
                                                .advance = advance,
                                                .next_ns = next_ns,
                                                .stop = stop,
                                                .sample = sample,
                                                .close = close_client};
    static const struct evpt_tcp_client_ops tcp_ops = {
        .session = {.on_message = on_message, .on_close = on_close}, .on_connect = on_connect};
    const struct bench_options *options = context->options;
    struct client *client = evpt_sys_zalloc(sizeof(*client));
    if (!client)
        return NULL;
    client->engine = (struct bench_engine){.ops = &ops, .context = context};
    client->options = options;
    client->loop = context->loop;
    client->addr = *addr;
    client->random = UINT64_C(0x9e3779b97f4a7c15);
    client->config = (struct evpt_session_config){.node = "evpt_bench",
                                                  .message_max = UINT32_MAX / 2,
                                                  .heartbeat_ms = HEARTBEAT_MS,
                                                  .send_buffer_max = SEND_BUFFER_MAX,
                                                  .tls = context->tls};
    evpt_sys_random(&client->config.incarnation, sizeof(client->config.incarnation));
    client->config.incarnation >>= 1; /* below 2^63 */
    bench_calls_init(&client->calls);
    evpt_tcp_client_init(&client->tcp, client->loop, &client->config, &tcp_ops, client);
    client->connections = evpt_sys_zalloc(options->connections * sizeof(*client->connections));
    client->payload = evpt_sys_alloc(options->size_max + 1);
    client->engine.recent = evpt_sys_zalloc(sizeof(*client->engine.recent));
    if (!client->connections || !client->payload || !client->engine.recent) {
        close_client(&client->engine);
        return NULL;
    }
    for (uint32_t i = 0; i < options->connections; i++) {
        client->connections[i].client = client;
        client->connections[i].index = i;
    }
    fill_payload(client);
    return &client->engine;
}
