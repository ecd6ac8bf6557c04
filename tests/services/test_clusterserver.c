/* clusterserver: which service gets a request, and which connection its answer. Peers are sessions
 * over real sockets on the same loop, services are actors; all in one thread. */
#include "support.h"

#include "cluster/cluster_mgr.h"
#include "cluster/msgpack.h"
#include "services/clusterserver.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS 4096 /* frame sessions that a peer uses */

struct yard;

/* A node that has connected. */
struct peer {
    struct yard *yard;
    struct evpt_session *session; /* NULL: gone */
    int answers[NUMBERS], codes[NUMBERS];
    int64_t results[NUMBERS];
    char text[160]; /* of the last error */
    int goaways, closes;
};

/* A request that a service has and keeps. */
struct kept {
    struct evpt_message *messages[NUMBERS];
    size_t count;
};

struct yard {
    struct rig rig;
    struct evpt_log log;
    struct evpt_pair pair; /* answers to the server's pinned service */
    struct evpt_cluster_mgr mgr, peers_mgr;
    struct evpt_clusterserver server;
    struct evpt_addr addr;
    struct peer peers[3];
    struct actor room; /* keeps what it gets */
    struct actor echo; /* answers at once */
    struct kept kept;
};

/* ---- events ---- */

static void on_accepted(void *user, struct evpt_session *session)
{
    struct yard *yard = user;
    evpt_clusterserver_on_accepted(&yard->server, session);
}

static void on_request(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct yard *yard = user;
    evpt_clusterserver_on_request(&yard->server, session, message);
}

static void on_hello(void *user, struct evpt_session *session)
{
    struct yard *yard = user;
    evpt_clusterserver_on_hello(&yard->server, session);
}

static void on_closed(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct yard *yard = user;
    evpt_clusterserver_on_closed(&yard->server, session, error, reason);
}

static const struct evpt_cluster_sink server_sink = {
    .on_accepted = on_accepted,
    .on_request = on_request,
    .on_hello = on_hello,
    .on_closed = on_closed,
};

static void on_connect(void *user, void *tag, struct evpt_session *session, int error)
{
    struct peer *peer = tag;
    CHECK(session);
    peer->session = session;
}

static void on_reply(void *user, struct evpt_session *session, struct evpt_message *message)
{
    struct peer *peer = evpt_session_tag(session);
    CHECK(evpt_reply_parse(message) == 0);
    CHECK(message->session < NUMBERS);
    peer->answers[message->session]++;
    peer->codes[message->session] = message->code;
    if (message->code)
        snprintf(peer->text, sizeof(peer->text), "%.150s", support_error_text(message));
    else if (message->args_size < 20)
        peer->results[message->session] = support_argument(message);
    evpt_message_free(message);
}

static void on_goaway(void *user, struct evpt_session *session, int code, const char *text)
{
    struct peer *peer = evpt_session_tag(session);
    CHECK(code == EVPT_CODE_STOPPING);
    peer->goaways++;
}

static void on_disconnect(void *user, struct evpt_session *session, int error, const char *reason)
{
    struct peer *peer = evpt_session_tag(session);
    peer->session = NULL;
    peer->closes++;
}

static void ignore_hello(void *user, struct evpt_session *session)
{
}

static void ignore_queued(void *user, struct evpt_session *session, uint32_t number,
                          uint64_t position)
{
}

static const struct evpt_cluster_sink peers_sink = {
    .on_connect = on_connect,
    .on_reply = on_reply,
    .on_hello = ignore_hello,
    .on_goaway = on_goaway,
    .on_queued = ignore_queued,
    .on_disconnect = on_disconnect,
};

static void on_answers(void *user, struct evpt_mpsc_node *list)
{
    struct yard *yard = user;
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        list = list->next;
        evpt_clusterserver_reply(&yard->server, message);
    }
}

static void keep(struct actor *actor, struct evpt_message *message)
{
    struct yard *yard = actor->user;
    CHECK(yard->kept.count < NUMBERS);
    yard->kept.messages[yard->kept.count++] = message;
}

/* ---- the yard ---- */

static void yard_turn(struct yard *yard)
{
    evpt_scheduler_step(&yard->rig.scheduler.workers[0]);
}

#define TURN_UNTIL(yard, condition)                                                                \
    do {                                                                                           \
        uint64_t limit_ns_ = support_limit_ns();                                                   \
        while (!(condition)) {                                                                     \
            if (support_real_now_ns() >= limit_ns_)                                                \
                ck_abort_msg("never came true: %s", #condition);                                   \
            yard_turn(yard);                                                                       \
        }                                                                                          \
    } while (0)

static void name_it(struct yard *yard, const char *name, uint32_t handle)
{
    CHECK(evpt_registry_name(&yard->rig.scheduler.registry, name, strlen(name), handle) == 0);
}

static void peer_connect(struct yard *yard, struct peer *peer)
{
    peer->yard = yard;
    ck_assert_int_eq(
        evpt_cluster_mgr_connect(&yard->peers_mgr, &yard->addr, "here", 5 * EVPT_NS_PER_S, peer),
        0);
    TURN_UNTIL(yard, peer->session && evpt_session_said_hello(peer->session));
}

static struct yard *yard_new(uint32_t mailbox_max)
{
    struct yard *yard = calloc(1, sizeof(*yard));
    struct evpt_session_config config = {
        .node = "here", .incarnation = 1, .message_max = 1 << 20, .send_buffer_max = 64 << 20};
    rig_init(&yard->rig, 0, mailbox_max);
    ck_assert_int_eq(evpt_log_init(&yard->log, "here", "/dev/null", false,
                                   (enum evpt_log_level)(EVPT_LOG_ERROR + 1)),
                     0);
    ck_assert_int_eq(evpt_pair_init(&yard->pair, yard->rig.loop, on_answers, yard), 0);
    evpt_cluster_mgr_init(&yard->mgr, yard->rig.loop, &config, &server_sink, yard);
    strcpy(config.node, "there");
    evpt_cluster_mgr_init(&yard->peers_mgr, yard->rig.loop, &config, &peers_sink, yard);
    ck_assert_int_eq(evpt_clusterserver_init(&yard->server, &yard->rig.scheduler, &yard->mgr,
                                             yard->rig.loop, &yard->log, NULL),
                     0);
    yard->server.handle = evpt_scheduler_pin(&yard->rig.scheduler, &yard->pair, NULL);
    yard->room = (struct actor){.on_message = keep, .user = yard};
    actor_spawn(&yard->room, &yard->rig.scheduler, NULL);
    actor_spawn(&yard->echo, &yard->rig.scheduler, NULL);
    name_it(yard, "room", yard->room.handle);
    name_it(yard, "echo", yard->echo.handle);
    ck_assert_int_eq(evpt_addr_parse(&yard->addr, "127.0.0.1:0"), 0);
    ck_assert_int_eq(evpt_cluster_mgr_listen(&yard->mgr, &yard->addr), 0);
    ck_assert_int_eq(evpt_tcp_server_addr(&yard->mgr.server, &yard->addr), 0);
    for (int i = 0; i < 3; i++)
        peer_connect(yard, &yard->peers[i]);
    return yard;
}

static void yard_free(struct yard *yard)
{
    for (size_t i = 0; i < yard->kept.count; i++)
        evpt_message_free(yard->kept.messages[i]);
    evpt_cluster_mgr_fini(&yard->peers_mgr);
    evpt_cluster_mgr_fini(&yard->mgr);
    evpt_clusterserver_fini(&yard->server);
    evpt_pair_fini(&yard->pair);
    evpt_log_fini(&yard->log);
    rig_fini(&yard->rig);
    free(yard);
}

/* A request with one integer; timeout 0: none. */
static void ask(struct peer *peer, enum evpt_message_kind kind, const char *service,
                uint32_t number, int64_t argument, uint32_t timeout_ms)
{
    struct evpt_message *message =
        evpt_request_new(kind, service, strlen(service), "m", 1, 2 * EVPT_ITEM_MAX);
    struct evpt_writer writer;
    evpt_writer_init(&writer, message->data + message->size, message->capacity - message->size);
    CHECK(evpt_write_array(&writer, 1) && evpt_write_int(&writer, argument));
    message->size = (uint32_t)(writer.at - message->data);
    uint64_t now_ns = evpt_sys_now_ns();
    CHECK(evpt_request_finish(
              &message, 77, timeout_ms ? now_ns + timeout_ms * EVPT_NS_PER_MS : EVPT_FOREVER) == 0);
    evpt_request_patch_deadline(message, now_ns);
    message->session = number;
    CHECK(evpt_session_send(peer->session, message, NULL) == 0);
}

static void ask_raw(struct peer *peer, uint32_t number, const char *bytes, size_t size)
{
    struct evpt_message *message = evpt_message_new(size);
    memcpy(message->data, bytes, size);
    message->size = (uint32_t)size;
    message->session = number;
    CHECK(evpt_session_send(peer->session, message, NULL) == 0);
}

static void check_answer(struct peer *peer, uint32_t number, int code)
{
    TURN_UNTIL(peer->yard, peer->answers[number]);
    ck_assert_int_eq(peer->answers[number], 1);
    ck_assert_msg(peer->codes[number] == code, "%s (%s), where %s was expected",
                  evpt_code_name(peer->codes[number]), peer->text, evpt_code_name(code));
}

/* The room answers what it has kept. */
static void release(struct yard *yard, size_t which)
{
    struct evpt_message *message = yard->kept.messages[which];
    yard->kept.messages[which] = NULL;
    struct evpt_message *reply = evpt_reply_new(2 * EVPT_ITEM_MAX);
    struct evpt_writer writer;
    evpt_writer_init(&writer, reply->data + reply->size, reply->capacity - reply->size);
    CHECK(evpt_write_array(&writer, 1) && evpt_write_int(&writer, support_argument(message)));
    reply->size = (uint32_t)(writer.at - reply->data);
    evpt_reply_finish(reply);
    evpt_post_reply(&yard->rig.scheduler, NULL, message->source, message->session, reply);
    evpt_message_free(message);
}

/* ---- to the service and back ---- */

START_TEST(test_clusterserver_request_reaches_its_service_and_the_answer_its_asker)
{
    struct yard *yard = yard_new(1000);
    ask(&yard->peers[0], EVPT_MESSAGE_CALL, "room", 5, 42, 5000);
    TURN_UNTIL(yard, yard->kept.count == 1);
    struct evpt_message *message = yard->kept.messages[0];
    ck_assert_int_eq(message->kind, EVPT_MESSAGE_CALL);
    ck_assert(message->flags & EVPT_MESSAGE_REMOTE);
    ck_assert_uint_eq(message->source, yard->server.handle);
    ck_assert_uint_ne(message->session, 0);
    ck_assert_uint_eq(message->method_size, 1);
    uint64_t left_ns = message->deadline_ns - evpt_sys_now_ns();
    ck_assert_uint_le(left_ns, 5000 * EVPT_NS_PER_MS);
    ck_assert_uint_ge(left_ns, 4000 * EVPT_NS_PER_MS);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 1);
    release(yard, 0);
    check_answer(&yard->peers[0], 5, EVPT_CODE_OK);
    ck_assert_int_eq(yard->peers[0].results[5], 42);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

/* Numbers are the askers' own: two may use the same. */
START_TEST(test_clusterserver_keeps_the_askers_apart)
{
    struct yard *yard = yard_new(1000);
    for (int i = 0; i < 3; i++) {
        ask(&yard->peers[i], EVPT_MESSAGE_CALL, "room", 9, 100 + i, 0);
        size_t count = (size_t)i + 1;
        TURN_UNTIL(yard, yard->kept.count == count);
    }
    for (size_t i = 3; i-- > 0;)
        release(yard, i);
    for (int i = 0; i < 3; i++) {
        check_answer(&yard->peers[i], 9, EVPT_CODE_OK);
        ck_assert_int_eq(yard->peers[i].results[9], 100 + i);
    }
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_send_gets_no_answer_whatever_becomes_of_it)
{
    struct yard *yard = yard_new(1);
    struct peer *peer = &yard->peers[0];
    ask(peer, EVPT_MESSAGE_SEND, "room", 1, 1, 0);
    TURN_UNTIL(yard, yard->kept.count == 1);
    ck_assert_uint_eq(yard->kept.messages[0]->session, 0);
    ask(peer, EVPT_MESSAGE_SEND, "nobody", 2, 1, 0);
    ask(peer, EVPT_MESSAGE_CALL, "echo", 3, 1, 0);
    check_answer(peer, 3, EVPT_CODE_OK);
    ck_assert_int_eq(peer->answers[1] + peer->answers[2], 0);
    ck_assert_uint_eq(yard->server.refused, 1);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_many_calls_in_progress_each_get_their_own_answer)
{
    enum { MANY = 3000 };
    struct yard *yard = yard_new(100000);
    uint64_t random = support_seed();
    for (uint32_t i = 1; i <= MANY; i++)
        ask(&yard->peers[i % 3], EVPT_MESSAGE_CALL, "room", i, i, 0);
    TURN_UNTIL(yard, yard->kept.count == MANY);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), MANY);
    for (size_t i = MANY; i > 1; i--) { /* answered in a random order */
        size_t other = support_random(&random) % i;
        struct evpt_message *message = yard->kept.messages[i - 1];
        yard->kept.messages[i - 1] = yard->kept.messages[other];
        yard->kept.messages[other] = message;
    }
    for (size_t i = 0; i < MANY; i++)
        release(yard, i);
    for (uint32_t i = 1; i <= MANY; i++) {
        check_answer(&yard->peers[i % 3], i, EVPT_CODE_OK);
        ck_assert_int_eq(yard->peers[i % 3].results[i], i);
    }
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_uses_the_same_entry_again_and_again)
{
    struct yard *yard = yard_new(1000);
    for (uint32_t i = 1; i <= 1000; i++) {
        ask(&yard->peers[0], EVPT_MESSAGE_CALL, "echo", i, i, 0);
        check_answer(&yard->peers[0], i, EVPT_CODE_OK);
    }
    ck_assert_uint_le(yard->server.capacity, 64);
    yard_free(yard);
}
END_TEST

/* ---- refusals ---- */

START_TEST(test_clusterserver_unknown_and_hidden_services_are_not_there)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    char long_name[EVPT_NAME_MAX + 1];
    memset(long_name, 'x', EVPT_NAME_MAX);
    long_name[EVPT_NAME_MAX] = 0;
    yard->server.builtin[yard->server.builtin_count++] = yard->echo.handle;
    ask(peer, EVPT_MESSAGE_CALL, "nobody", 1, 1, 0);
    check_answer(peer, 1, EVPT_CODE_UNKNOWN_SERVICE);
    ck_assert_ptr_nonnull(strstr(peer->text, "nobody"));
    ask(peer, EVPT_MESSAGE_CALL, "", 2, 1, 0);
    ask(peer, EVPT_MESSAGE_CALL, long_name, 3, 1, 0);
    for (uint32_t i = 4; i < 7; i++)
        ask(peer, EVPT_MESSAGE_CALL, "echo", i, 1, 0);
    for (uint32_t i = 2; i < 7; i++)
        check_answer(peer, i, EVPT_CODE_UNKNOWN_SERVICE);
    ck_assert_uint_eq(yard->echo.consumed, 0);
    ck_assert_uint_eq(yard->server.refused, 6);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_only_reaches_one_service)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    yard->server.only = yard->echo.handle;
    yard->server.builtin[yard->server.builtin_count++] = yard->echo.handle;
    ask(peer, EVPT_MESSAGE_CALL, "room", 1, 1, 0);
    ask(peer, EVPT_MESSAGE_CALL, "echo", 2, 1, 0);
    ask(peer, EVPT_MESSAGE_CALL, "room", 3, 1, 0);
    check_answer(peer, 1, EVPT_CODE_UNKNOWN_SERVICE);
    check_answer(peer, 2, EVPT_CODE_OK);
    check_answer(peer, 3, EVPT_CODE_UNKNOWN_SERVICE);
    ck_assert_uint_eq(yard->kept.count, 0);
    yard_free(yard);
}
END_TEST

/* Names are remembered, but not beyond the service that had them. */
START_TEST(test_clusterserver_name_passes_from_one_service_to_the_next)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    uint32_t number = 1;
    for (int i = 0; i < 20; i++, number += 3) {
        struct actor next = {0};
        struct evpt_registry *registry = &yard->rig.scheduler.registry;
        actor_spawn(&next, &yard->rig.scheduler, NULL);
        name_it(yard, "inn", next.handle);
        for (uint32_t k = 0; k < 2; k++) {
            ask(peer, EVPT_MESSAGE_CALL, "inn", number + k, 7, 0);
            check_answer(peer, number + k, EVPT_CODE_OK);
        }
        ck_assert_uint_eq(next.consumed, 2);
        ck_assert(evpt_scheduler_kill(&yard->rig.scheduler, NULL, next.handle));
        TURN_UNTIL(yard, !evpt_registry_find(registry, next.handle));
        ask(peer, EVPT_MESSAGE_CALL, "inn", number + 2, 7, 0);
        check_answer(peer, number + 2, EVPT_CODE_UNKNOWN_SERVICE);
    }
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_bytes_that_are_no_request_get_an_answer)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {{"", 0},
                 {"hello", 5},
                 {"\x94\x01\xa0\xa0\x80", 5},
                 {"\x94\x02\xa4room\xc0\x90", 9}, /* a send, or nearly */
                 {"\x93\x03\x00\x90", 4},         /* a reply, to a server */
                 {"\xc1", 1}};
    for (uint32_t i = 0; i < 6; i++) {
        ask_raw(peer, i + 1, cases[i].bytes, cases[i].size);
        check_answer(peer, i + 1, EVPT_CODE_BAD_MESSAGE);
    }
    ask(peer, EVPT_MESSAGE_CALL, "echo", 10, 1, 0); /* the connection has not noticed */
    check_answer(peer, 10, EVPT_CODE_OK);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_full_mailbox_is_overload)
{
    struct yard *yard = yard_new(10);
    struct peer *peer = &yard->peers[0];
    evpt_scheduler_step(&yard->rig.scheduler.workers[0]);
    /* all in one write: they come in before the service runs */
    for (uint32_t i = 1; i <= 30; i++)
        ask(peer, i % 2 ? EVPT_MESSAGE_CALL : EVPT_MESSAGE_SEND, "echo", i, i, 0);
    int ok = 0, overloaded = 0;
    for (uint32_t i = 1; i <= 30; i += 2) {
        TURN_UNTIL(yard, peer->answers[i]);
        ok += peer->codes[i] == EVPT_CODE_OK;
        overloaded += peer->codes[i] == EVPT_CODE_OVERLOADED;
    }
    ck_assert_int_ge(ok, 5);
    ck_assert_int_eq(ok + overloaded, 15);
    ck_assert_int_gt(overloaded, 0);
    ck_assert_ptr_nonnull(strstr(peer->text, "mailbox_max"));
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_service_that_ends_answers_what_waits_in_it)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    ck_assert(evpt_scheduler_kill(&yard->rig.scheduler, NULL, yard->echo.handle));
    for (uint32_t i = 1; i <= 10; i++)
        ask(peer, EVPT_MESSAGE_CALL, "echo", i, i, 0);
    for (uint32_t i = 1; i <= 10; i++)
        check_answer(peer, i, EVPT_CODE_UNKNOWN_SERVICE);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

/* ---- answers that do not get through ---- */

START_TEST(test_clusterserver_drops_answers_of_dead_connections)
{
    struct yard *yard = yard_new(1000);
    for (uint32_t i = 1; i <= 10; i++)
        ask(&yard->peers[i % 2], EVPT_MESSAGE_CALL, "room", i, i, 0);
    TURN_UNTIL(yard, yard->kept.count == 10);
    evpt_session_close(yard->peers[0].session, false, "");
    TURN_UNTIL(yard, evpt_tcp_object_count(&yard->mgr.server.object) == 2);
    peer_connect(yard, &yard->peers[0]); /* the same node again, but another connection */
    for (size_t i = 0; i < 10; i++)
        release(yard, i);
    for (uint32_t i = 1; i <= 10; i += 2)
        check_answer(&yard->peers[1], i, EVPT_CODE_OK);
    TURN_UNTIL(yard, yard->server.dropped_replies == 5);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    for (uint32_t i = 2; i <= 10; i += 2)
        ck_assert_int_eq(yard->peers[0].answers[i], 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_second_answer_is_dropped)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    ask(peer, EVPT_MESSAGE_CALL, "room", 1, 1, 0);
    TURN_UNTIL(yard, yard->kept.count == 1);
    uint32_t session = yard->kept.messages[0]->session;
    release(yard, 0);
    for (uint32_t i = 0; i < 300; i++) /* the same session, and others that nobody gave out */
        evpt_post_reply(&yard->rig.scheduler, NULL, yard->server.handle,
                        i ? session + (i << 24) + i : session, evpt_reply_error(7, "again", 5));
    check_answer(peer, 1, EVPT_CODE_OK);
    TURN_UNTIL(yard, yard->server.dropped_replies == 300);
    ask(peer, EVPT_MESSAGE_CALL, "room", 2, 2, 0); /* gets the same slot */
    TURN_UNTIL(yard, yard->kept.count == 2);
    evpt_post_reply(&yard->rig.scheduler, NULL, yard->server.handle, session,
                    evpt_reply_error(7, "still", 5));
    TURN_UNTIL(yard, yard->server.dropped_replies == 301);
    release(yard, 1);
    check_answer(peer, 2, EVPT_CODE_OK);
    ck_assert_int_eq(peer->answers[1], 1);
    yard_free(yard);
}
END_TEST

/* The method has run, so the caller must not read "not executed". */
START_TEST(test_clusterserver_results_that_cannot_be_sent_are_a_failure)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    static const size_t sizes[] = {(1 << 20) + 1, 700000};
    for (uint32_t i = 0; i < 2; i++) {
        ask(peer, EVPT_MESSAGE_CALL, "room", i + 1, 1, 0);
        size_t count = i + 1;
        TURN_UNTIL(yard, yard->kept.count == count);
        struct evpt_message *reply = evpt_reply_new(sizes[i]);
        memset(reply->data + 3, 0xc0, sizes[i] - 3);
        reply->size = (uint32_t)sizes[i];
        evpt_reply_finish(reply);
        if (i == 1)
            yard->mgr.config.send_buffer_max = 500000;
        evpt_post_reply(&yard->rig.scheduler, NULL, yard->server.handle,
                        yard->kept.messages[i]->session, reply);
        check_answer(peer, i + 1, EVPT_CODE_FAILED);
        ck_assert_ptr_nonnull(strstr(peer->text, i ? "send_buffer_max" : "message_max"));
    }
    yard->mgr.config.send_buffer_max = 1; /* not even that it failed can be said any more */
    ask(peer, EVPT_MESSAGE_CALL, "room", 3, 1, 0);
    TURN_UNTIL(yard, yard->kept.count == 3);
    release(yard, 2);
    TURN_UNTIL(yard, peer->closes == 1);
    ck_assert_int_eq(peer->answers[3], 0);
    yard_free(yard);
}
END_TEST

/* ---- draining ---- */

START_TEST(test_clusterserver_drain_finishes_what_it_has_and_takes_nothing_new)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    ask(peer, EVPT_MESSAGE_CALL, "room", 1, 1, 0);
    TURN_UNTIL(yard, yard->kept.count == 1);
    evpt_clusterserver_drain(&yard->server);
    evpt_clusterserver_drain(&yard->server);
    TURN_UNTIL(yard, yard->peers[0].goaways && yard->peers[1].goaways && yard->peers[2].goaways);
    ck_assert_int_eq(peer->goaways, 1);
    ask(peer, EVPT_MESSAGE_CALL, "echo", 2, 1, 0);
    check_answer(peer, 2, EVPT_CODE_STOPPING);
    ask_raw(peer, 3, "hello", 5);
    check_answer(peer, 3, EVPT_CODE_BAD_MESSAGE);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 1);
    release(yard, 0);
    check_answer(peer, 1, EVPT_CODE_OK);
    ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    yard_free(yard);
}
END_TEST

START_TEST(test_clusterserver_want_of_memory_answers_at_most_once_and_leaks_nothing)
{
    struct yard *yard = yard_new(1000);
    struct peer *peer = &yard->peers[0];
    struct evpt_session *session = evpt_cluster_mgr_accepted(&yard->mgr, 1); /* the peer's */
    bool failed = true;
    uint32_t nth = 0;
    name_it(yard, "s", yard->room.handle); /* whom support_request is for */
    while (failed) {
        struct evpt_message *message = support_request(EVPT_MESSAGE_CALL, 0, 0, ++nth, 1);
        message->connection = evpt_session_id(session);
        size_t before = yard->kept.count;
        support_fail_allocation((long)nth);
        evpt_clusterserver_on_request(&yard->server, session, message);
        failed = support_allocation_failed();
        support_fail_allocation(0);
        for (int i = 0; i < 10; i++)
            yard_turn(yard);
        ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), yard->kept.count - before);
        if (yard->kept.count > before)
            release(yard, before);
        else
            check_answer(peer, nth, EVPT_CODE_OVERLOADED);
        TURN_UNTIL(yard, peer->answers[nth]);
        ck_assert_uint_eq(evpt_clusterserver_pending(&yard->server), 0);
    }
    ck_assert_uint_ge(nth, 2); /* else nothing was refused */
    for (uint32_t i = 1; i <= nth; i++)
        ck_assert_int_eq(peer->answers[i], 1);
    yard_free(yard);
}
END_TEST

SUPPORT_MAIN("clusterserver",
             test_clusterserver_request_reaches_its_service_and_the_answer_its_asker,
             test_clusterserver_keeps_the_askers_apart,
             test_clusterserver_send_gets_no_answer_whatever_becomes_of_it,
             test_clusterserver_many_calls_in_progress_each_get_their_own_answer,
             test_clusterserver_uses_the_same_entry_again_and_again,
             test_clusterserver_unknown_and_hidden_services_are_not_there,
             test_clusterserver_only_reaches_one_service,
             test_clusterserver_name_passes_from_one_service_to_the_next,
             test_clusterserver_bytes_that_are_no_request_get_an_answer,
             test_clusterserver_full_mailbox_is_overload,
             test_clusterserver_service_that_ends_answers_what_waits_in_it,
             test_clusterserver_drops_answers_of_dead_connections,
             test_clusterserver_second_answer_is_dropped,
             test_clusterserver_results_that_cannot_be_sent_are_a_failure,
             test_clusterserver_drain_finishes_what_it_has_and_takes_nothing_new,
             test_clusterserver_want_of_memory_answers_at_most_once_and_leaks_nothing)
