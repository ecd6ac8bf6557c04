/* Streams: references and their release, closing, callbacks that finish the stream; and a long
 * random transfer that uses everything. */
#include "stream_side.h"

/* ---- references ---- */

struct owned {
    int releases;
    struct side *fini; /* finished by the release, if set */
};

static void release(void *user)
{
    struct owned *owned = user;
    owned->releases++;
    if (owned->fini)
        evpt_stream_fini(&owned->fini->stream);
}

START_TEST(test_reference_is_released_once_when_it_is_written)
{
    struct side *side = new_side();
    struct owned owned = {0}, empty = {0};
    write_text(side, "head ");
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "", 0, release, &empty), 0);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned), 0);
    ck_assert_int_eq(owned.releases, 0);
    turn(side);
    ck_assert_int_eq(owned.releases, 1);
    ck_assert_int_eq(empty.releases, 1);
    assert_peer_gets(side, "head body");
    free_side(side);
    ck_assert_int_eq(owned.releases, 1);
    ck_assert_int_eq(empty.releases, 1);
}
END_TEST

START_TEST(test_reference_of_no_bytes_alone_is_released)
{
    struct side *side = new_side();
    struct owned empty = {0};
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "", 0, release, &empty), 0);
    turn(side);
    ck_assert_int_eq(empty.releases, 1);
    ck_assert(evpt_stream_is_open(&side->stream));
    free_side(side);
}
END_TEST

START_TEST(test_reference_is_released_once_when_the_stream_closes_before)
{
    struct side *side = new_side();
    struct owned owned[3] = {0};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(owned[0].releases, 0); /* not from inside close */
    turn(side);
    free_side(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
}
END_TEST

START_TEST(test_reference_is_released_once_when_the_stream_is_finished)
{
    struct side *side = new_side();
    struct owned owned[3] = {0};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    free_side(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
}
END_TEST

START_TEST(test_reference_is_released_once_where_it_is_refused)
{
    struct side *side = new_side();
    struct owned owned[2] = {0};
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[0]), -ENOMEM);
    ck_assert_int_eq(owned[0].releases, 1);
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[1]),
                     -EVPT_ECLOSED);
    ck_assert_int_eq(owned[1].releases, 1);
    free_side(side);
    ck_assert_int_eq(owned[0].releases + owned[1].releases, 2);
}
END_TEST

/* ---- closing ---- */

START_TEST(test_close_with_flush_writes_what_is_queued_first)
{
    struct side *side = new_side();
    size_t total = fill_socket(side);
    write_text(side, "the end");
    evpt_stream_close(&side->stream, true);
    ck_assert_int_eq(evpt_stream_write(&side->stream, "x", 1), -EVPT_ECLOSED);
    peer_sends(side, "not read any more");
    turn(side);
    ck_assert_int_eq(side->closes, 0);
    ck_assert_uint_eq(empty_socket(side), total + 7);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, 0);
    ck_assert_uint_eq(side->calls, 0);
    free_side(side);
}
END_TEST

START_TEST(test_close_with_flush_ends_when_the_peer_is_gone)
{
    struct side *side = new_side();
    fill_socket(side);
    evpt_stream_close(&side->stream, true);
    peer_closes(side);
    TURN_UNTIL(side->loop, side->closes);
    ck_assert_int_lt(side->error, 0);
    free_side(side);
}
END_TEST

START_TEST(test_close_without_flush_drops_what_is_queued)
{
    struct side *side = new_side();
    write_text(side, "too late");
    evpt_stream_close(&side->stream, false);
    ck_assert_int_eq(side->closes, 0); /* from the loop, not from inside close */
    ck_assert_int_ge(evpt_loop_turn(side->loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, 0);
    ck_assert_uint_eq(evpt_stream_queued(&side->stream), 0);
    ck_assert_uint_eq(side->stream.written_total, 0); /* dropped is not written */
    char byte;
    ck_assert_int_eq(end_read(&side->line, 1, &byte, 1), 0);
    free_side(side);
}
END_TEST

START_TEST(test_first_reason_to_close_is_the_one_reported)
{
    struct side *side = new_side();
    evpt_stream_fail(&side->stream, -EVPT_ETIMEOUT);
    evpt_stream_fail(&side->stream, -EVPT_ELIMIT);
    evpt_stream_close(&side->stream, true);
    for (int i = 0; i < 3; i++)
        turn(side);
    ck_assert_int_eq(side->closes, 1);
    ck_assert_int_eq(side->error, -EVPT_ETIMEOUT);
    free_side(side);
}
END_TEST

START_TEST(test_refused_descriptor_is_closed)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    side->loop = support_loop();
    side->line.fds[0] = side->line.fds[1] = -1;
    int fd = evpt_sys_reserve_fd(); /* epoll takes no /dev/null */
    ck_assert_int_eq(evpt_stream_start(&side->stream, side->loop, fd, &ops, side), -EPERM);
    ck_assert(!evpt_stream_is_open(&side->stream));
    free_side(side);
}
END_TEST

/* ---- hostile callbacks ---- */

START_TEST(test_stream_can_be_finished_in_on_data)
{
    struct side *side = new_side();
    side->fini_in_data = true;
    peer_sends(side, "abc");
    turn(side);
    turn(side);
    ck_assert_uint_eq(side->calls, 1);
    ck_assert_int_eq(side->closes, 0);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_closed_in_on_data)
{
    struct side *side = new_side();
    side->close_in_data = true;
    side->leave = 1;
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_on_drain)
{
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    side->stream.high_water = side->stream.low_water = 1;
    open_side(side, support_loop());
    side->fini_in_drain = true;
    write_text(side, "abc");
    turn(side);
    ck_assert_int_eq(side->drains, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_on_close)
{
    struct side *side = new_side();
    side->fini_in_close = true;
    evpt_stream_close(&side->stream, false);
    turn(side);
    turn(side);
    ck_assert_int_eq(side->closes, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_a_release)
{
    struct side *side = new_side();
    struct owned owned[3] = {{.fini = NULL}, {.fini = side}, {.fini = NULL}};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    turn(side); /* written, released */
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
    free_side(side);
}
END_TEST

START_TEST(test_stream_can_be_finished_in_a_release_while_it_closes)
{
    struct side *side = new_side();
    struct owned owned[3] = {{.fini = NULL}, {.fini = side}, {.fini = NULL}};
    for (int i = 0; i < 3; i++)
        evpt_stream_write_ref(&side->stream, "body", 4, release, &owned[i]);
    evpt_stream_close(&side->stream, false);
    turn(side);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(owned[i].releases, 1);
    ck_assert_int_eq(side->closes, 0); /* finished before it was reported */
    free_side(side);
}
END_TEST

/* on_data flushes, the flush releases, the release finishes: three deep. */
static ssize_t flush_in_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                             void *user)
{
    ck_assert_int_eq(evpt_stream_write_ref(stream, "body", 4, release, user), 0);
    evpt_stream_flush(stream);
    return 0;
}

START_TEST(test_stream_can_be_finished_in_a_release_in_a_flush_in_on_data)
{
    static const struct evpt_stream_ops flush_ops = {.on_data = flush_in_data,
                                                     .on_close = on_close};
    struct side *side = evpt_sys_zalloc(sizeof(*side));
    struct owned owned = {.fini = side};
    open_line(&side->line);
    side->loop = support_loop();
    int fd = give_end(&side->line, 0, &side->stream);
    ck_assert_int_eq(evpt_stream_start(&side->stream, side->loop, fd, &flush_ops, &owned), 0);
    peer_sends(side, "abc");
    turn(side);
    ck_assert_int_eq(owned.releases, 1);
    free_side(side);
}
END_TEST

/* Frees the memory of the stream too, from each callback. */
static ssize_t free_in_data(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                            void *user)
{
    evpt_stream_fini(stream);
    evpt_sys_free(stream);
    ++*(int *)user;
    return (ssize_t)size;
}

static void free_in_close(struct evpt_stream *stream, int error, void *user)
{
    evpt_sys_free(stream);
    ++*(int *)user;
}

START_TEST(test_streams_memory_can_be_freed_in_callbacks)
{
    static const struct evpt_stream_ops free_ops = {.on_data = free_in_data,
                                                    .on_close = free_in_close};
    struct evpt_loop *loop = support_loop();
    int freed = 0;
    struct line lines[2];
    for (int i = 0; i < 2; i++) {
        struct evpt_stream *stream = evpt_sys_zalloc(sizeof(*stream));
        open_line(&lines[i]);
        int fd = give_end(&lines[i], 0, stream);
        ck_assert_int_eq(evpt_stream_start(stream, loop, fd, &free_ops, &freed), 0);
        if (i)
            ck_assert_int_eq(end_write(&lines[i], 1, "x", 1), 1);
        close_end(&lines[i], 1);
    }
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_int_eq(freed, 2);
    close_line(&lines[0]);
    close_line(&lines[1]);
    evpt_loop_free(loop);
}
END_TEST

/* ---- everything at once, against a model ---- */

/* Random bytes go out in random pieces by all three ways, through writes that are cut at random;
 * they are echoed by a second stream that leaves random rests, pauses at random, and compared on
 * return. */
enum { TRANSFER = 3 * 1000 * 1000, PIECE_MAX = 100000 };

struct transfer {
    struct support_random random;
    struct evpt_loop *loop;
    struct evpt_stream near, far;
    uint8_t *bytes;
    size_t sent, returned;
    size_t references, releases;
    int closes;
};

static ssize_t on_returned(struct evpt_stream *stream, const uint8_t *bytes, size_t size,
                           void *user)
{
    struct transfer *t = user;
    ck_assert_uint_le(t->returned + size, t->sent);
    ck_assert_mem_eq(bytes, t->bytes + t->returned, size);
    size_t rest = support_below(&t->random, 3) ? 0 : support_below(&t->random, 1000);
    size_t used = size > rest ? size - rest : 0;
    t->returned += used;
    return (ssize_t)used;
}

static ssize_t on_echo(struct evpt_stream *stream, const uint8_t *bytes, size_t size, void *user)
{
    struct transfer *t = user;
    size_t rest = support_below(&t->random, 3) ? 0 : support_below(&t->random, 60000);
    size_t used = size > rest ? size - rest : 0;
    ck_assert_int_eq(evpt_stream_write(stream, bytes, used), 0);
    if (!support_below(&t->random, 4))
        evpt_stream_pause(stream, true);
    return (ssize_t)used;
}

static void on_transfer_closed(struct evpt_stream *stream, int error, void *user)
{
    ((struct transfer *)user)->closes++;
}

static void count_release(void *user)
{
    ((struct transfer *)user)->releases++;
}

static void send_piece(struct transfer *t)
{
    size_t size = support_below(&t->random, support_below(&t->random, 2) ? PIECE_MAX : 100) + 1;
    if (size > TRANSFER - t->sent)
        size = TRANSFER - t->sent;
    const uint8_t *piece = t->bytes + t->sent;
    switch (support_below(&t->random, 3)) {
    case 0:
        ck_assert_int_eq(evpt_stream_write(&t->near, piece, size), 0);
        break;
    case 1:
        t->references++;
        ck_assert_int_eq(evpt_stream_write_ref(&t->near, piece, size, count_release, t), 0);
        break;
    default:
        if (size > EVPT_STREAM_RESERVE_MAX)
            size = EVPT_STREAM_RESERVE_MAX;
        memcpy(evpt_stream_reserve(&t->near, size), piece, size);
    }
    t->sent += size;
}

static void transfer_step(struct transfer *t)
{
    for (uint64_t i = support_below(&t->random, 6); i > 0 && t->sent < TRANSFER; i--)
        send_piece(t);
    if (!support_below(&t->random, 5))
        evpt_stream_flush(&t->near);
    support_limit_writes(support_below(&t->random, 3) ? 0 : support_below(&t->random, 50000) + 1);
    if (t->far.paused && support_below(&t->random, 2))
        evpt_stream_pause(&t->far, false);
    if (t->sent == TRANSFER && t->near.tail) { /* the rest that on_returned left comes again so */
        evpt_stream_pause(&t->near, true);
        evpt_stream_pause(&t->near, false);
    }
    if (t->sent == TRANSFER && t->far.tail) {
        evpt_stream_pause(&t->far, true);
        evpt_stream_pause(&t->far, false);
    }
    ck_assert_int_ge(evpt_loop_turn(t->loop, 0), 0);
    evpt_stream_check(&t->near);
    evpt_stream_check(&t->far);
}

START_TEST(test_any_mix_of_pieces_arrives_unchanged)
{
    static const struct evpt_stream_ops near_ops = {.on_data = on_returned,
                                                    .on_close = on_transfer_closed};
    static const struct evpt_stream_ops far_ops = {.on_data = on_echo,
                                                   .on_close = on_transfer_closed};
    struct transfer t = {.random = support_seed(), .loop = support_loop()};
    struct line line;
    open_line(&line);
    int near_fd = give_end(&line, 0, &t.near), far_fd = give_end(&line, 1, &t.far);
    t.bytes = evpt_sys_alloc(TRANSFER);
    for (size_t i = 0; i < TRANSFER; i++)
        t.bytes[i] = (uint8_t)support_random(&t.random);
    ck_assert_int_eq(evpt_stream_start(&t.near, t.loop, near_fd, &near_ops, &t), 0);
    ck_assert_int_eq(evpt_stream_start(&t.far, t.loop, far_fd, &far_ops, &t), 0);
    for (int i = 0; t.returned < TRANSFER; i++) {
        ck_assert_int_lt(i, 100000);
        transfer_step(&t);
    }
    ck_assert_uint_eq(t.releases, t.references);
    ck_assert_int_eq(t.closes, 0);
    evpt_stream_fini(&t.near);
    evpt_stream_fini(&t.far);
    close_line(&line);
    evpt_loop_free(t.loop);
    evpt_sys_free(t.bytes);
}
END_TEST

SUPPORT_MAIN("reactor/stream_close", test_reference_is_released_once_when_it_is_written,
             test_reference_of_no_bytes_alone_is_released,
             test_reference_is_released_once_when_the_stream_closes_before,
             test_reference_is_released_once_when_the_stream_is_finished,
             test_reference_is_released_once_where_it_is_refused,
             test_close_with_flush_writes_what_is_queued_first,
             test_close_with_flush_ends_when_the_peer_is_gone,
             test_close_without_flush_drops_what_is_queued,
             test_first_reason_to_close_is_the_one_reported, test_refused_descriptor_is_closed,
             test_stream_can_be_finished_in_on_data, test_stream_can_be_closed_in_on_data,
             test_stream_can_be_finished_in_on_drain, test_stream_can_be_finished_in_on_close,
             test_stream_can_be_finished_in_a_release,
             test_stream_can_be_finished_in_a_release_while_it_closes,
             test_stream_can_be_finished_in_a_release_in_a_flush_in_on_data,
             test_streams_memory_can_be_freed_in_callbacks,
             test_any_mix_of_pieces_arrives_unchanged)
