/* What a session makes of the bytes of a peer that keeps to the protocol. */
#include "cluster/session.h"

#include "support.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- messages come in ---- */

START_TEST(test_session_in_whole_message_of_every_size)
{
    static const size_t sizes[] = {0, 1, 7, 4096, 32767, 32768};
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct evpt_message *message = make_message(i + 1, 0, sizes[i]);
        ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, i + 1, message->data, sizes[i]));
        evpt_message_free(message);
        TURN_UNTIL(&world, end.inbox_count == i + 1);
        check_message(end_last(&end), i + 1, sizes[i]);
        ck_assert_uint_eq(end_last(&end)->deadline_ns, EVPT_FOREVER);
    }
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_in_does_not_care_how_bytes_are_cut)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);

    uint8_t bytes[1024];
    struct evpt_message *message = make_message(5, 0, 30), *other = make_message(6, 0, 3);
    size_t size = 0;
    static const int flags[] = {EVPT_FRAME_FIRST, EVPT_FRAME_MIDDLE, EVPT_FRAME_LAST};
    for (int i = 0; i < 3; i++) {
        evpt_frame_write_header(bytes + size, (enum evpt_frame_flag)flags[i], 5, 10);
        memcpy(bytes + size + EVPT_FRAME_HEADER, message->data + i * 10, 10);
        size += EVPT_FRAME_HEADER + 10;
        if (i == 1) { /* between its parts, another one */
            evpt_frame_write_header(bytes + size, EVPT_FRAME_WHOLE, 6, 3);
            memcpy(bytes + size + EVPT_FRAME_HEADER, other->data, 3);
            size += EVPT_FRAME_HEADER + 3;
        }
    }
    evpt_message_free(message);
    evpt_message_free(other);
    for (size_t cut = 1; cut <= size; cut++) { /* pieces of `cut` bytes: one byte at a time first */
        for (size_t at = 0; at < size; at += cut) {
            ck_assert(raw_write(&raw, bytes + at, at + cut < size ? cut : size - at));
            turn(&world);
            evpt_session_check(end.session);
        }
        TURN_UNTIL(&world, end.inbox_count == 2 * cut);
        check_message(end.inbox[2 * cut - 2], 6, 3);
        check_message(end.inbox[2 * cut - 1], 5, 30);
    }
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* Messages under way, as a peer keeps them: by session, with what has been sent of each. */
enum { MODEL_MAX = 600 };

struct model {
    struct evpt_message *message[MODEL_MAX];
    uint32_t sent[MODEL_MAX];
    int count;
};

static void model_send_part(struct model *model, int at, size_t size, int flag, struct raw *raw)
{
    struct evpt_message *message = model->message[at];
    ck_assert(raw_frame(raw, flag, message->session, message->data + model->sent[at], size));
    model->sent[at] += (uint32_t)size;
}

START_TEST(test_session_in_parts_of_a_hundred_messages_interleaved)
{
    struct world world;
    struct end end;
    struct raw raw;
    struct model model = {.count = 100};
    uint64_t random = test_seed();
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (int i = 0; i < model.count; i++) {
        model.message[i] = make_message((uint32_t)i + 1, 0, 3 * EVPT_FRAME_DATA_MAX);
        model_send_part(&model, i, EVPT_FRAME_DATA_MAX, EVPT_FRAME_FIRST, &raw);
    }
    for (int i = model.count; i-- > 0;)
        model_send_part(&model, i, EVPT_FRAME_DATA_MAX, EVPT_FRAME_MIDDLE, &raw);
    struct evpt_session_stats stats;
    TURN_UNTIL(&world, (evpt_session_stats(end.session, &stats),
                        stats.bytes_in == 200 * (uint64_t)EVPT_FRAME_MAX));
    ck_assert_uint_eq(stats.partials_in, 100);
    ck_assert_uint_eq(end.inbox_count, 0);
    for (int left = model.count; left > 0; left--) {
        int at = (int)(next_random(&random) % (uint64_t)left);
        uint32_t session = model.message[at]->session;
        model_send_part(&model, at, EVPT_FRAME_DATA_MAX, EVPT_FRAME_LAST, &raw);
        evpt_message_free(model.message[at]);
        model.message[at] = model.message[left - 1];
        model.sent[at] = model.sent[left - 1];
        TURN_UNTIL(&world, end.inbox_count == (size_t)(model.count - left + 1));
        check_message(end_last(&end), session, 3 * EVPT_FRAME_DATA_MAX);
    }
    evpt_session_stats(end.session, &stats);
    ck_assert_uint_eq(stats.partials_in, 0);
    ck_assert_uint_eq(stats.messages_in, 100);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_in_agrees_with_a_model_over_random_parts)
{
    struct world world;
    struct end end;
    struct raw raw;
    struct model model = {0};
    uint64_t random = test_seed();
    size_t expected = 0;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    for (int step = 0; step < 20000; step++) {
        uint64_t r = next_random(&random);
        bool growing = step / 2000 % 2 == 0; /* the table grows and becomes empty in turns */
        if (model.count < MODEL_MAX && (model.count == 0 || r % 4 < (growing ? 2 : 1))) {
            int at = model.count++;
            model.message[at] = make_message((uint32_t)(r >> 32) | 1, 0, (r >> 8) % 100);
            model.sent[at] = 0;
            model_send_part(&model, at, 0, EVPT_FRAME_FIRST, &raw);
        } else {
            int at = (int)((r >> 8) % (uint64_t)model.count);
            size_t left = model.message[at]->size - model.sent[at];
            if (r % 4 < 3) {
                model_send_part(&model, at, left / 2, EVPT_FRAME_MIDDLE, &raw);
                continue;
            }
            model_send_part(&model, at, left, EVPT_FRAME_LAST, &raw);
            expected++;
            TURN_UNTIL(&world, end.inbox_count == expected);
            check_message(end_last(&end), model.message[at]->session, model.message[at]->size);
            evpt_message_free(model.message[at]);
            model.count--;
            model.message[at] = model.message[model.count];
            model.sent[at] = model.sent[model.count];
        }
        evpt_session_check(end.session);
    }
    ck_assert_uint_gt(expected, 1000);
    for (int i = 0; i < model.count; i++)
        evpt_message_free(model.message[i]);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

START_TEST(test_session_in_memory_of_a_partial_message_follows_its_bytes)
{
    struct world world;
    struct end end;
    struct raw raw;
    world_init(&world);
    world.config.message_max = 100000;
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    struct evpt_message *message = make_message(1, 0, 100000);
    ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, 1, message->data, 1));
    turn(&world);
    uint64_t before = bytes_allocated();
    for (uint32_t session = 2; session <= 8; session++)
        ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, session, message->data, 0));
    struct evpt_session_stats stats;
    TURN_UNTIL(&world, (evpt_session_stats(end.session, &stats), stats.partials_in == 8));
    ck_assert_uint_lt(bytes_allocated() - before, 8192); /* nothing in advance */
    for (uint32_t at = 1; at < 99999;) {
        uint32_t size = 99999 - at < 30000 ? 99999 - at : 30000;
        ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 1, message->data + at, size));
        at += size;
    }
    ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, 1, message->data + 99999, 1));
    TURN_UNTIL(&world, end.inbox_count == 1);
    check_message(end_last(&end), 1, 100000);
    ck_assert_uint_eq(end_last(&end)->capacity, 100000); /* doubling stops at message_max */
    evpt_message_free(message);
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}
END_TEST

/* ---- memory is refused ---- */

static const uint8_t zeros[EVPT_FRAME_DATA_MAX];

START_TEST(test_session_in_survives_or_ends_wherever_memory_is_refused)
{
    int refused = 0;
    for (int skip = 0; skip < 12; skip++) {
        struct world world;
        struct end end;
        struct raw raw;
        world_init(&world);
        raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
        for (uint32_t session = 1; session <= 6; session++)
            ck_assert(raw_frame(&raw, EVPT_FRAME_FIRST, session, zeros, 1000));
        ck_assert(raw_frame(&raw, EVPT_FRAME_MIDDLE, 1, zeros, 3000));
        for (uint32_t session = 1; session <= 6; session++)
            ck_assert(raw_frame(&raw, EVPT_FRAME_LAST, session, zeros, 1000));
        refuse_alloc(skip);
        TURN_UNTIL(&world, end.inbox_count == 6 || end.closes);
        bool hit = alloc_was_refused();
        refuse_alloc(-1);
        refused += hit;
        ck_assert_int_eq(end.closes, hit);
        if (hit)
            ck_assert_int_eq(end.close_error, -ENOMEM);
        end_fini(&end);
        raw_fini(&raw);
        world_fini(&world);
    }
    ck_assert_int_ge(refused, 8);
}
END_TEST

/* ---- hostile callbacks ---- */

static void free_it(struct end *end)
{
    evpt_session_free(end->session);
    end->session = NULL;
}

static void close_at_once(struct end *end)
{
    evpt_session_close(end->session, false, "had enough");
}

static void close_with_flush(struct end *end)
{
    evpt_session_close(end->session, true, "had enough");
}

static void refuse_it(struct end *end)
{
    evpt_session_refuse(end->session, "had enough");
}

static void send_one(struct end *end)
{
    (void)evpt_session_send(end->session, make_message(77, 0, 100000), NULL);
}

START_TEST(test_session_in_callback_may_do_anything_to_its_session)
{
    static const end_fn hooks[] = {free_it, close_at_once, close_with_flush, refuse_it, send_one};
    end_fn hook = hooks[_i / 4];
    int where = _i % 4; /* whole message, last part, HELLO, GOAWAY */
    struct world world;
    struct bystander bystander;
    struct end end;
    struct raw raw;
    world_init(&world);
    bystander_open(&bystander, &world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    end.on_message = where < 2 ? hook : NULL;
    end.on_hello = where == 2 ? hook : NULL;
    end.on_goaway = where == 3 ? hook : NULL;
    if (where == 1) {
        raw_frame(&raw, EVPT_FRAME_FIRST, 1, "x", 1);
        raw_frame(&raw, EVPT_FRAME_FIRST, 2, "x", 1);
        raw_frame(&raw, EVPT_FRAME_LAST, 1, "x", 1);
    } else if (where == 2) {
        raw_hello(&raw, 1 << 20);
    } else if (where == 3) {
        raw_frame(&raw, EVPT_FRAME_GOAWAY, 0, "\x92\x0b\xa0", 3);
    }
    raw_frame(&raw, EVPT_FRAME_WHOLE, 3, "x", 1);
    raw_frame(&raw, EVPT_FRAME_WHOLE, 4, "x", 1);
    if (hook == send_one) {
        TURN_UNTIL(&world, raw_has_frame(&raw));
        ck_assert_int_eq(end.closes, 0);
    } else {
        TURN_UNTIL(&world, (raw_pull(&raw), raw.eof));
        ck_assert_uint_le(end.inbox_count, 1); /* nothing is delivered behind it */
        raw_fini(&raw);
        TURN_UNTIL(&world, !end.session);
        ck_assert_int_eq(end.closes, hook != free_it);
        if (hook != free_it) {
            ck_assert_str_eq(end.close_reason, "had enough");
            ck_assert_int_eq(end.close_error, hook == refuse_it ? -EVPT_EPROTOCOL : 0);
        }
    }
    bystander_fini(&bystander);
    end_fini(&end);
    if (raw.fd >= 0)
        raw_fini(&raw);
    world_fini(&world);
}
END_TEST

static struct end *victim;

static void free_victim(struct end *end)
{
    if (victim->session)
        free_it(victim);
}

START_TEST(test_session_in_callback_may_free_another_session)
{
    struct world world;
    struct end end, other;
    struct raw raw, other_raw;
    world_init(&world);
    raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
    raw_open(&other_raw, &other, &world, EVPT_SESSION_SERVER);
    victim = &other;
    end.on_message = free_victim;
    ck_assert(raw_frame(&raw, EVPT_FRAME_WHOLE, 1, "x", 1));
    ck_assert(raw_frame(&other_raw, EVPT_FRAME_FIRST, 1, "x", 1));
    TURN_UNTIL(&world, end.inbox_count == 1);
    raw_expect_end(&other_raw);
    ck_assert_int_eq(other.closes, 0);
    end_fini(&end);
    end_fini(&other);
    raw_fini(&raw);
    raw_fini(&other_raw);
    world_fini(&world);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("session_in");
    tcase_add_test(tcase, test_session_in_whole_message_of_every_size);
    tcase_add_test(tcase, test_session_in_does_not_care_how_bytes_are_cut);
    tcase_add_test(tcase, test_session_in_parts_of_a_hundred_messages_interleaved);
    tcase_add_test(tcase, test_session_in_agrees_with_a_model_over_random_parts);
    tcase_add_test(tcase, test_session_in_memory_of_a_partial_message_follows_its_bytes);
    tcase_add_test(tcase, test_session_in_survives_or_ends_wherever_memory_is_refused);
    tcase_add_loop_test(tcase, test_session_in_callback_may_do_anything_to_its_session, 0, 20);
    tcase_add_test(tcase, test_session_in_callback_may_free_another_session);
    return run_tests("session_in", tcase);
}
