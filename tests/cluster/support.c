#include "support.h"

#include "reactor/sys.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the machine ---- */

static uint64_t skipped_ns, allocated;
static int live, refuse_in = -1;
static bool refused;

uint64_t __real_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void);
uint64_t __wrap_evpt_sys_now_ns(void)
{
    return __real_evpt_sys_now_ns() + skipped_ns;
}

struct evpt_message *__real_evpt_message_new(size_t capacity);
struct evpt_message *__wrap_evpt_message_new(size_t capacity);
struct evpt_message *__wrap_evpt_message_new(size_t capacity)
{
    struct evpt_message *message = __real_evpt_message_new(capacity);
    live += message != NULL;
    return message;
}

void __real_evpt_message_free(struct evpt_message *message);
void __wrap_evpt_message_free(struct evpt_message *message);
void __wrap_evpt_message_free(struct evpt_message *message)
{
    live -= message != NULL;
    __real_evpt_message_free(message);
}

static bool refuse_now(void)
{
    if (refuse_in < 0 || refuse_in-- > 0)
        return false;
    return refused = true;
}

void *__real_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes);
void *__wrap_evpt_sys_alloc(size_t bytes)
{
    allocated += bytes;
    return refuse_now() ? NULL : __real_evpt_sys_alloc(bytes);
}

void *__real_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes);
void *__wrap_evpt_sys_zalloc(size_t bytes)
{
    allocated += bytes;
    return refuse_now() ? NULL : __real_evpt_sys_zalloc(bytes);
}

void *__real_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes);
void *__wrap_evpt_sys_realloc(void *old, size_t bytes)
{
    allocated += bytes;
    return refuse_now() ? NULL : __real_evpt_sys_realloc(old, bytes);
}

void clock_skip_ms(uint64_t ms)
{
    skipped_ns += ms * EVPT_NS_PER_MS;
}

int messages_live(void)
{
    return live;
}

void refuse_alloc(int skip)
{
    refuse_in = skip;
    refused = false;
}

bool alloc_was_refused(void)
{
    return refused;
}

uint64_t bytes_allocated(void)
{
    return allocated;
}

int run_tests(const char *name, TCase *tcase)
{
    tcase_set_timeout(tcase, 50);
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

uint64_t test_seed(void)
{
    uint64_t seed;
    const char *given = getenv("EVPT_TEST_SEED");
    if (given)
        seed = strtoull(given, NULL, 0);
    else
        evpt_sys_random(&seed, sizeof seed);
    printf("EVPT_TEST_SEED=%#llx\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* splitmix64 */
uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* ---- the world ---- */

void world_init(struct world *world)
{
    *world = (struct world){.config = {.node = "here",
                                       .incarnation = 7,
                                       .message_max = 16 << 20,
                                       .heartbeat_ms = 5000,
                                       .send_buffer_max = 64 << 20},
                            .messages = live,
                            .fds = evpt_sys_count_fds()};
    ck_assert_int_eq(evpt_loop_new(&world->loop), 0);
}

void world_fini(struct world *world)
{
    evpt_loop_free(world->loop);
    ck_assert_int_eq(live, world->messages);
    ck_assert_int_eq(evpt_sys_count_fds(), world->fds);
}

void turn(struct world *world)
{
    ck_assert_int_ge(evpt_loop_turn(world->loop, 0), 0);
}

uint64_t turn_limit(void)
{
    return __real_evpt_sys_now_ns();
}

/* ---- ends ---- */

static void call(struct end *end, end_fn fn)
{
    ck_assert_msg(!end->in_call, "called back from inside a call");
    if (end->session)
        evpt_session_check(end->session);
    if (fn)
        fn(end);
}

static void on_message(struct evpt_session *session, struct evpt_message *message, void *user)
{
    struct end *end = user;
    ck_assert_ptr_eq(end->session, session);
    ck_assert_uint_eq(message->connection, evpt_session_id(session));
    if (end->inbox_count == end->inbox_room) {
        end->inbox_room = end->inbox_room ? end->inbox_room * 2 : 16;
        end->inbox = realloc(end->inbox, end->inbox_room * sizeof(struct evpt_message *));
    }
    end->inbox[end->inbox_count++] = message;
    call(end, end->on_message);
}

static void on_hello(struct evpt_session *session, void *user)
{
    struct end *end = user;
    end->hellos++;
    ck_assert(evpt_session_said_hello(session));
    call(end, end->on_hello);
}

static void on_goaway(struct evpt_session *session, int code, const char *text, void *user)
{
    struct end *end = user;
    end->goaways++;
    end->goaway_code = code;
    snprintf(end->goaway_text, sizeof end->goaway_text, "%s", text);
    call(end, end->on_goaway);
}

static void on_queued(struct evpt_session *session, uint32_t frame_session, uint64_t position,
                      void *user)
{
    struct end *end = user;
    end->queued_count++;
    end->queued_session = frame_session;
    end->queued_position = position;
    call(end, end->on_queued);
}

static void on_close(struct evpt_session *session, int error, const char *reason, void *user)
{
    struct end *end = user;
    ck_assert_ptr_eq(end->session, session);
    ck_assert_ptr_nonnull(reason);
    end->closes++;
    end->close_error = error;
    end->written_at_close = evpt_session_written(session);
    snprintf(end->close_reason, sizeof end->close_reason, "%s", reason);
    call(end, end->on_close);
    end->session = NULL;
}

static const struct evpt_session_ops ops = {
    .on_message = on_message,
    .on_hello = on_hello,
    .on_goaway = on_goaway,
    .on_queued = on_queued,
    .on_close = on_close,
};

void end_open(struct end *end, struct world *world, int fd, enum evpt_session_role role,
              uint32_t id)
{
    *end = (struct end){.world = world};
    ck_assert_int_eq(
        evpt_session_new(&end->session, world->loop, fd, role, id, &world->config, &ops, end), 0);
    evpt_session_check(end->session);
}

void ends_open(struct end *client, struct end *server, struct world *world)
{
    int fds[2];
    ck_assert_int_eq(evpt_sys_socketpair(fds), 0);
    end_open(client, world, fds[0], EVPT_SESSION_CLIENT, 1);
    end_open(server, world, fds[1], EVPT_SESSION_SERVER, 2);
    TURN_UNTIL(world, client->hellos && server->hellos);
}

void end_fini(struct end *end)
{
    evpt_session_free(end->session);
    for (size_t i = 0; i < end->inbox_count; i++)
        evpt_message_free(end->inbox[i]);
    free(end->inbox);
    *end = (struct end){0};
}

struct evpt_message *end_last(const struct end *end)
{
    ck_assert_uint_gt(end->inbox_count, 0);
    return end->inbox[end->inbox_count - 1];
}

/* ---- messages ---- */

static uint8_t byte_of(uint32_t session, size_t size, size_t at)
{
    return (uint8_t)((session * 31 + size * 7 + at + (at >> 8) * 13) & 0xff);
}

struct evpt_message *make_message(uint32_t session, uint64_t lane, size_t size)
{
    struct evpt_message *message = evpt_message_new(size);
    ck_assert_ptr_nonnull(message);
    message->session = session;
    message->lane = lane;
    message->size = (uint32_t)size;
    for (size_t i = 0; i < size; i++)
        message->data[i] = byte_of(session, size, i);
    return message;
}

void check_message(const struct evpt_message *message, uint32_t session, size_t size)
{
    ck_assert_uint_eq(message->session, session);
    ck_assert_uint_eq(message->size, size);
    for (size_t i = 0; i < size; i++) {
        if (message->data[i] != byte_of(session, size, i))
            ck_abort_msg("session %u: byte %zu of %zu is wrong", session, i, size);
    }
}

uint64_t end_send(struct end *end, uint32_t session, uint64_t lane, size_t size)
{
    uint64_t position = 0;
    end->in_call = true;
    int error = evpt_session_send(end->session, make_message(session, lane, size), &position);
    end->in_call = false;
    ck_assert_int_eq(error, 0);
    evpt_session_check(end->session);
    return position;
}

/* ---- raw peers ---- */

void raw_open(struct raw *raw, struct end *end, struct world *world, enum evpt_session_role role)
{
    int fds[2];
    ck_assert_int_eq(evpt_sys_socketpair(fds), 0);
    *raw = (struct raw){.world = world, .fd = fds[1]};
    end_open(end, world, fds[0], role, 3);
}

void raw_fini(struct raw *raw)
{
    evpt_sys_close(raw->fd);
    free(raw->bytes);
    *raw = (struct raw){.world = raw->world, .fd = -1};
}

bool raw_write(struct raw *raw, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        ssize_t sent = evpt_sys_write(raw->fd, at, size);
        if (sent == -EAGAIN) {
            turn(raw->world);
            continue;
        }
        if (sent < 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool raw_frame(struct raw *raw, int flag, uint32_t session, const void *data, size_t size)
{
    uint8_t header[EVPT_FRAME_HEADER];
    evpt_frame_write_header(header, (enum evpt_frame_flag)flag, session, size);
    return raw_write(raw, header, sizeof header) && raw_write(raw, data, size);
}

void raw_hello(struct raw *raw, uint32_t message_max)
{
    uint8_t data[64];
    struct evpt_writer writer;
    evpt_writer_init(&writer, data, sizeof data);
    evpt_write_array(&writer, 4);
    evpt_write_int(&writer, 1);
    evpt_write_str(&writer, "there", 5);
    evpt_write_int(&writer, 99);
    evpt_write_int(&writer, message_max);
    ck_assert(raw_frame(raw, EVPT_FRAME_HELLO, 0, data, (size_t)(writer.at - data)));
}

void raw_pull(struct raw *raw)
{
    for (;;) {
        if (raw->room - raw->size < 65536) {
            raw->room += 1 << 20;
            raw->bytes = realloc(raw->bytes, raw->room);
        }
        ssize_t got = evpt_sys_read(raw->fd, raw->bytes + raw->size, raw->room - raw->size);
        if (got == -EAGAIN)
            return;
        if (got <= 0) {
            raw->eof = true;
            return;
        }
        raw->size += (size_t)got;
    }
}

static ssize_t first_frame(struct raw *raw, struct evpt_frame *ret_frame)
{
    const char *reason = "";
    ssize_t taken = evpt_frame_read(ret_frame, raw->bytes, raw->size, &reason);
    ck_assert_msg(taken >= 0, "the session wrote a bad frame: %s", reason);
    return taken;
}

bool raw_has_frame(struct raw *raw)
{
    struct evpt_frame frame;
    raw_pull(raw);
    return first_frame(raw, &frame) > 0;
}

struct evpt_frame raw_take(struct raw *raw)
{
    static uint8_t data[EVPT_FRAME_DATA_MAX];
    struct evpt_frame frame;
    TURN_UNTIL(raw->world, raw_has_frame(raw) || raw->eof);
    ssize_t taken = first_frame(raw, &frame);
    ck_assert_msg(taken > 0, "the connection ended before the next frame");
    memcpy(data, frame.data, frame.size);
    frame.data = data;
    raw->size -= (size_t)taken;
    memmove(raw->bytes, raw->bytes + taken, raw->size);
    return frame;
}

void raw_expect_end(struct raw *raw)
{
    TURN_UNTIL(raw->world, (raw_pull(raw), raw->eof));
    ck_assert_uint_eq(raw->size, 0);
}

/* ---- bystanders ---- */

void bystander_open(struct bystander *bystander, struct world *world)
{
    raw_open(&bystander->raw, &bystander->end, world, EVPT_SESSION_SERVER);
    ck_assert(raw_frame(&bystander->raw, EVPT_FRAME_FIRST, 1, "unaff", 5));
    struct evpt_session_stats stats;
    TURN_UNTIL(world, (evpt_session_stats(bystander->end.session, &stats), stats.partials_in == 1));
}

void bystander_fini(struct bystander *bystander)
{
    ck_assert(raw_frame(&bystander->raw, EVPT_FRAME_LAST, 1, "ected", 5));
    TURN_UNTIL(bystander->raw.world, bystander->end.inbox_count == 1);
    ck_assert_uint_eq(end_last(&bystander->end)->size, 10);
    ck_assert_mem_eq(end_last(&bystander->end)->data, "unaffected", 10);
    end_send(&bystander->end, 1, 0, 10);
    ck_assert_uint_eq(raw_take(&bystander->raw).session, 1);
    ck_assert_int_eq(bystander->end.closes, 0);
    end_fini(&bystander->end);
    raw_fini(&bystander->raw);
}
