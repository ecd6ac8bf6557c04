/* The gate: who is let in, who is turned away, and what is left of them. TLS is the test's here: a
 * guest is known when it has sent a 'y', refused when it has sent an 'n'. */
#include "support.h"

#include "cluster/gate.h"
#include <errno.h>
#include <stdio.h>

static int transports; /* alive */

struct doorman {
    struct evpt_transport transport;
    int fd;
};

static int op_handshake(struct evpt_transport *transport)
{
    char answer;
    ssize_t got =
        evpt_sys_read(EVPT_CONTAINER_OF(transport, struct doorman, transport)->fd, &answer, 1);
    if (got == -EAGAIN)
        return -EAGAIN;
    if (got == 1 && answer == 'y')
        return 0;
    if (got == 1)
        strcpy(transport->reason, "unwelcome");
    return got == 1 ? -EVPT_ETLS : -EVPT_EEOF;
}

static void op_free(struct evpt_transport *transport)
{
    transports--;
    evpt_sys_free(EVPT_CONTAINER_OF(transport, struct doorman, transport));
}

static const struct evpt_transport_ops doorman_ops = {.handshake = op_handshake, .free = op_free};

/* In place of the library's: nothing else of TLS is needed here. */
int evpt_tls_accept(struct evpt_tls *tls, int fd, struct evpt_transport **ret_transport)
{
    struct doorman *doorman = evpt_sys_zalloc(sizeof(*doorman));
    if (!doorman)
        return -ENOMEM;
    transports++;
    doorman->transport.ops = &doorman_ops;
    doorman->fd = fd;
    *ret_transport = &doorman->transport;
    return 0;
}

struct house {
    struct world world;
    struct evpt_gate gate;
    int passed, refused, error;
    char reason[128], peer[EVPT_ADDR_TEXT_SIZE];
};

static void on_passed(struct evpt_gate *gate, int fd, struct evpt_transport *transport, void *user)
{
    struct house *house = user;
    house->passed++;
    evpt_transport_free(transport);
    evpt_sys_close(fd);
}

static void on_refused(struct evpt_gate *gate, const struct evpt_addr *peer, int error,
                       const char *reason, void *user)
{
    struct house *house = user;
    house->refused++;
    house->error = error;
    snprintf(house->reason, sizeof(house->reason), "%s", reason);
    evpt_addr_format(peer, house->peer, sizeof(house->peer));
}

static const struct evpt_gate_ops ops = {.on_passed = on_passed, .on_refused = on_refused};

static void house_init(struct house *house, uint32_t max, uint32_t per_address_max)
{
    *house = (struct house){0};
    world_init(&house->world);
    evpt_gate_init(&house->gate, house->world.loop, max, per_address_max, &ops, house);
}

static void house_fini(struct house *house)
{
    evpt_gate_fini(&house->gate);
    ck_assert_int_eq(transports, 0);
    world_fini(&house->world);
}

/* Somebody from this address; its end of the connection. */
static int knock(struct house *house, const char *from)
{
    struct evpt_addr addr;
    int fds[2];
    ck_assert_int_eq(evpt_addr_parse(&addr, from), 0);
    ck_assert_int_eq(evpt_sys_socketpair(fds), 0);
    evpt_gate_enter(&house->gate, NULL, fds[0], &addr);
    return fds[1];
}

static bool is_closed(int fd)
{
    char byte;
    return evpt_sys_read(fd, &byte, 1) == 0;
}

START_TEST(test_gate_passes_who_is_known_and_refuses_who_is_not)
{
    struct house house;
    house_init(&house, 4, 4);
    int friend = knock(&house, "10.0.0.1:1"), stranger = knock(&house, "10.0.0.2:2");
    ck_assert_uint_eq(house.gate.count, 2);
    turn(&house.world);
    ck_assert_int_eq(house.passed + house.refused, 0);
    ck_assert_int_eq(evpt_sys_write(friend, "y", 1), 1);
    ck_assert_int_eq(evpt_sys_write(stranger, "n", 1), 1);
    TURN_UNTIL(&house.world, house.passed == 1);
    evpt_sys_close(stranger); /* it is heard out until then */
    TURN_UNTIL(&house.world, house.refused == 1);
    ck_assert_str_eq(house.reason, "unwelcome");
    ck_assert_str_eq(house.peer, "10.0.0.2:2");
    ck_assert_int_eq(house.error, -EVPT_ETLS);
    ck_assert_uint_eq(house.gate.count, 0);
    ck_assert_uint_eq(house.gate.refused, 1);
    ck_assert(is_closed(friend));
    evpt_sys_close(friend);
    house_fini(&house);
}
END_TEST

START_TEST(test_gate_gives_a_guest_two_seconds)
{
    struct house house;
    house_init(&house, 4, 4);
    int silent = knock(&house, "10.0.0.1:1");
    clock_skip_ms(1900);
    turn(&house.world);
    ck_assert_int_eq(house.refused, 0);
    clock_skip_ms(200);
    turn(&house.world);
    ck_assert_int_eq(house.refused, 1);
    ck_assert_int_eq(house.error, -EVPT_ETIMEOUT);
    ck_assert_str_eq(house.reason, "it did not say who it is within 2 s");
    ck_assert(is_closed(silent));
    evpt_sys_close(silent);
    house_fini(&house);
}
END_TEST

START_TEST(test_gate_turns_away_whoever_comes_when_it_is_full)
{
    struct house house;
    int fds[5];
    house_init(&house, 4, 3);
    for (int i = 0; i < 3; i++)
        fds[i] = knock(&house, i % 2 ? "10.0.0.1:1" : "10.0.0.1:2");
    int fourth = knock(&house, "10.0.0.1:3");
    ck_assert(is_closed(fourth));
    ck_assert_int_eq(house.refused, 1);
    ck_assert_ptr_nonnull(strstr(house.reason, "tls.handshakes_per_address_max"));
    fds[3] = knock(&house, "10.0.0.2:1"); /* from elsewhere there is room */
    ck_assert(!is_closed(fds[3]));
    for (int i = 0; i < 10; i++) {
        fds[4] = knock(&house, "[2001:db8::1]:1");
        ck_assert(is_closed(fds[4]));
        evpt_sys_close(fds[4]);
    }
    ck_assert_int_eq(house.refused, 1); /* told once */
    ck_assert_uint_eq(house.gate.turned_away, 11);
    ck_assert_uint_eq(house.gate.count, 4);
    ck_assert_int_eq(evpt_sys_write(fds[0], "y", 1), 1);
    TURN_UNTIL(&house.world, house.passed == 1);
    fds[4] = knock(&house, "10.0.0.1:9");
    ck_assert(!is_closed(fds[4])); /* its place is free again */
    for (int i = 0; i < 5; i++)
        evpt_sys_close(fds[i]);
    TURN_UNTIL(&house.world, house.gate.count == 0);
    house.refused = 0;
    for (int i = 0; i < 4; i++)
        fds[i] = knock(&house, "10.0.0.1:1");
    ck_assert_int_eq(house.refused, 1); /* all was quiet in between: told again */
    for (int i = 0; i < 4; i++)
        evpt_sys_close(fds[i]);
    evpt_sys_close(fourth);
    house_fini(&house);
}
END_TEST

START_TEST(test_gate_tells_addresses_of_both_kinds_apart)
{
    struct house house;
    static const char *const hosts[] = {"10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1",
                                        "[2001:db8::2]:1"};
    int fds[4];
    house_init(&house, 8, 1);
    for (int i = 0; i < 4; i++) {
        fds[i] = knock(&house, hosts[i]);
        ck_assert(!is_closed(fds[i]));
    }
    for (int i = 0; i < 4; i++) {
        int again = knock(&house, hosts[i]);
        ck_assert(is_closed(again));
        evpt_sys_close(again);
        evpt_sys_close(fds[i]);
    }
    house_fini(&house);
}
END_TEST

START_TEST(test_gate_without_memory_turns_away_and_goes_on)
{
    struct house house;
    house_init(&house, 4, 4);
    for (int skip = 0; skip < 2; skip++) {
        refuse_alloc(skip);
        int fd = knock(&house, "10.0.0.1:1");
        ck_assert(alloc_was_refused());
        ck_assert(is_closed(fd));
        evpt_sys_close(fd);
    }
    ck_assert_uint_eq(house.gate.turned_away, 2);
    ck_assert_int_eq(house.error, -ENOMEM);
    int fd = knock(&house, "10.0.0.1:1");
    ck_assert_int_eq(evpt_sys_write(fd, "y", 1), 1);
    TURN_UNTIL(&house.world, house.passed == 1);
    evpt_sys_close(fd);
    house_fini(&house);
}
END_TEST

START_TEST(test_gate_that_closes_lets_everybody_go)
{
    struct house house;
    int fds[4];
    house_init(&house, 4, 4);
    for (int i = 0; i < 4; i++)
        fds[i] = knock(&house, "10.0.0.1:1");
    evpt_gate_fini(&house.gate);
    evpt_gate_fini(&house.gate);
    evpt_gate_fini(NULL);
    ck_assert_int_eq(house.passed + house.refused, 0);
    for (int i = 0; i < 4; i++) {
        ck_assert(is_closed(fds[i]));
        evpt_sys_close(fds[i]);
    }
    house_fini(&house);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("gate");
    tcase_add_test(tcase, test_gate_passes_who_is_known_and_refuses_who_is_not);
    tcase_add_test(tcase, test_gate_gives_a_guest_two_seconds);
    tcase_add_test(tcase, test_gate_turns_away_whoever_comes_when_it_is_full);
    tcase_add_test(tcase, test_gate_tells_addresses_of_both_kinds_apart);
    tcase_add_test(tcase, test_gate_without_memory_turns_away_and_goes_on);
    tcase_add_test(tcase, test_gate_that_closes_lets_everybody_go);
    return run_tests("gate", tcase);
}
