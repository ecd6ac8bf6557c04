/* The handshake of one connection, with a transport that does what the test says. */
#include "support.h"
#include "reactor/error.h"
#include "reactor/handshake.h"
#include <errno.h>
#include <string.h>

struct party {
    struct evpt_transport transport;
    struct evpt_handshake handshake;
    struct evpt_loop *loop;
    int peer;
    int answer; /* of the next steps */
    int steps, frees, dones, error;
    bool stop_in_done;
};

static int op_handshake(struct evpt_transport *transport)
{
    struct party *party = EVPT_CONTAINER_OF(transport, struct party, transport);
    party->steps++;
    return party->answer;
}

static void op_free(struct evpt_transport *transport)
{
    EVPT_CONTAINER_OF(transport, struct party, transport)->frees++;
}

static const struct evpt_transport_ops ops = {.handshake = op_handshake, .free = op_free};

static void on_done(struct evpt_handshake *handshake, int error, void *user)
{
    struct party *party = user;
    ck_assert_ptr_eq(handshake, &party->handshake);
    ck_assert_int_eq(party->frees, 0); /* its words are still there */
    party->dones++;
    party->error = error;
    if (!error)
        evpt_sys_close(handshake->fd);
    if (party->stop_in_done)
        evpt_handshake_stop(handshake); /* idle already */
}

static void start(struct party *party, uint64_t timeout_ns, struct evpt_handshake_pace *pace)
{
    int fds[2];
    support_socketpair(fds);
    party->peer = fds[1];
    party->transport.ops = &ops;
    party->answer = -EAGAIN;
    evpt_handshake_start(&party->handshake, party->loop, fds[0], &party->transport, timeout_ns,
                         pace, on_done, party);
    ck_assert_int_eq(party->steps, 0); /* from the loop only */
}

static void end(struct party *party)
{
    evpt_handshake_stop(&party->handshake);
    evpt_sys_close(party->peer);
    evpt_loop_free(party->loop);
}

static void turn(struct evpt_loop *loop)
{
    ck_assert_int_ge(evpt_loop_turn(loop, 0), 0);
}

static void say(struct party *party)
{
    ck_assert_int_eq(evpt_sys_write(party->peer, "x", 1), 1);
}

START_TEST(test_who_connected_begins_and_who_accepted_waits)
{
    for (int accepted = 0; accepted < 2; accepted++) {
        struct evpt_handshake_pace pace = {0};
        struct party party = {.loop = support_loop(), .handshake = {.accepted = accepted}};
        start(&party, EVPT_NS_PER_S, &pace);
        turn(party.loop);
        ck_assert_int_eq(party.steps, !accepted);
        turn(party.loop);
        ck_assert_int_eq(party.steps, !accepted); /* then both wait for the other one */
        party.answer = 0;
        say(&party);
        turn(party.loop);
        ck_assert_int_eq(party.dones, 1);
        ck_assert_int_eq(party.error, 0);
        ck_assert_int_eq(party.frees, 0); /* the callee's */
        end(&party);
    }
}
END_TEST

START_TEST(test_what_is_pending_waits_for_a_socket_that_takes_it)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop(), .handshake = {.accepted = true}};
    start(&party, EVPT_NS_PER_S, &pace);
    party.transport.pending = true;
    say(&party);
    turn(party.loop);
    turn(party.loop);
    ck_assert_int_eq(party.steps, 2);
    party.answer = 0;
    turn(party.loop);
    ck_assert_int_eq(party.dones, 1);
    end(&party);
}
END_TEST

START_TEST(test_timeout_ends_it)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop(), .handshake = {.accepted = true}};
    support_stop_clock();
    evpt_loop_update_now(party.loop);
    start(&party, 2 * EVPT_NS_PER_S, &pace);
    support_pass_time(EVPT_NS_PER_S);
    turn(party.loop);
    ck_assert_int_eq(party.dones, 0);
    support_pass_time(EVPT_NS_PER_S + 10 * EVPT_NS_PER_MS);
    turn(party.loop);
    ck_assert_int_eq(party.dones, 1);
    ck_assert_int_eq(party.error, -EVPT_ETIMEOUT);
    ck_assert_int_eq(party.frees, 1);
    end(&party);
}
END_TEST

START_TEST(test_who_connected_reports_a_failure_at_once)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop(), .stop_in_done = true};
    start(&party, EVPT_NS_PER_S, &pace);
    party.answer = -EVPT_ETLS;
    turn(party.loop);
    ck_assert_int_eq(party.dones, 1);
    ck_assert_int_eq(party.error, -EVPT_ETLS);
    ck_assert_int_eq(party.frees, 1);
    char byte;
    ck_assert_int_eq(evpt_sys_read(party.peer, &byte, 1), 0);
    end(&party);
}
END_TEST

/* A peer that is sending: to close with its bytes unread would reset the connection. */
START_TEST(test_who_accepted_hears_the_peer_out)
{
    struct evpt_handshake_pace pace = {0};
    static uint8_t bytes[100000];
    struct party party = {.loop = support_loop(), .handshake = {.accepted = true}};
    start(&party, EVPT_NS_PER_S, &pace);
    party.answer = -EVPT_ETLS;
    say(&party);
    turn(party.loop);
    ck_assert_int_eq(party.dones, 0);
    char byte;
    ck_assert_int_eq(evpt_sys_read(party.peer, &byte, 1), 0); /* it knows that nothing will come */
    ck_assert_int_gt(evpt_sys_write(party.peer, bytes, sizeof(bytes)), 50000);
    for (int i = 0; i < 20; i++)
        turn(party.loop);
    ck_assert_int_eq(party.dones, 0);
    ck_assert_int_eq(party.steps, 1);
    evpt_sys_close(party.peer);
    party.peer = -1;
    turn(party.loop);
    ck_assert_int_eq(party.dones, 1);
    ck_assert_int_eq(party.error, -EVPT_ETLS);
    end(&party);
}
END_TEST

START_TEST(test_who_accepted_hears_nobody_out_for_ever)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop(), .handshake = {.accepted = true}};
    support_stop_clock();
    evpt_loop_update_now(party.loop);
    start(&party, 2 * EVPT_NS_PER_S, &pace);
    party.answer = -EVPT_ETLS;
    say(&party);
    turn(party.loop);
    support_pass_time(2 * EVPT_NS_PER_S + 10 * EVPT_NS_PER_MS);
    turn(party.loop);
    ck_assert_int_eq(party.dones, 1);
    ck_assert_int_eq(party.error, -EVPT_ETLS); /* why it failed, not how it ended */
    end(&party);
}
END_TEST

/* Sixty-four peers that want a signature each: whoever is connected already waits for two of them a
 * turn, and each gets its turn. */
START_TEST(test_handshakes_of_a_loop_keep_pace)
{
    enum { PARTIES = 64 };
    struct evpt_handshake_pace pace = {0};
    struct evpt_loop *loop = support_loop();
    static struct party parties[PARTIES];
    for (int i = 0; i < PARTIES; i++) {
        parties[i] = (struct party){.loop = loop, .handshake = {.accepted = true}};
        start(&parties[i], EVPT_NS_PER_S, &pace);
        parties[i].answer = 0;
        say(&parties[i]);
    }
    int done = 0;
    for (int turns = 1; done < PARTIES; turns++) {
        ck_assert_int_le(turns, PARTIES / EVPT_HANDSHAKE_STEPS_MAX + 1);
        turn(loop);
        int now = 0;
        for (int i = 0; i < PARTIES; i++)
            now += parties[i].dones;
        ck_assert_int_le(now - done, EVPT_HANDSHAKE_STEPS_MAX);
        done = now;
    }
    for (int i = 0; i < PARTIES; i++) {
        ck_assert_int_eq(parties[i].steps, 1);
        evpt_sys_close(parties[i].peer);
    }
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_stopped_handshake_says_nothing)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop()};
    start(&party, EVPT_NS_PER_S, &pace);
    evpt_handshake_stop(&party.handshake);
    ck_assert_int_eq(party.frees, 1);
    turn(party.loop);
    ck_assert_int_eq(party.dones, 0);
    evpt_handshake_stop(NULL);
    end(&party);
}
END_TEST

START_TEST(test_refused_descriptor_is_told_from_the_loop)
{
    struct evpt_handshake_pace pace = {0};
    struct party party = {.loop = support_loop(), .peer = -1, .transport = {.ops = &ops}};
    int fd = evpt_sys_reserve_fd(); /* epoll takes no /dev/null */
    evpt_handshake_start(&party.handshake, party.loop, fd, &party.transport, EVPT_NS_PER_S, &pace,
                         on_done, &party);
    ck_assert_int_eq(party.dones, 0);
    for (int i = 0; i < 100 && !party.dones; i++)
        ck_assert_int_ge(evpt_loop_turn(party.loop, EVPT_FOREVER), 0);
    ck_assert_int_eq(party.dones, 1);
    ck_assert_int_eq(party.error, -EPERM);
    ck_assert_int_eq(party.frees, 1);
    end(&party);
}
END_TEST

SUPPORT_MAIN("reactor/handshake", test_who_connected_begins_and_who_accepted_waits,
             test_what_is_pending_waits_for_a_socket_that_takes_it, test_timeout_ends_it,
             test_who_connected_reports_a_failure_at_once, test_who_accepted_hears_the_peer_out,
             test_who_accepted_hears_nobody_out_for_ever, test_handshakes_of_a_loop_keep_pace,
             test_stopped_handshake_says_nothing, test_refused_descriptor_is_told_from_the_loop)
