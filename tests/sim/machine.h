/* A simulated machine room: processes, threads, clock, network, all in one thread and from one
 * seed.
 *
 * sys_sim.c implements reactor/sys.h on top of it, net.c is the network, fiber.c turns every thread
 * of every process into a fiber that runs until it would block (or, by chance, until it asks the
 * clock). Time is virtual: it passes by a few microseconds with each switch, and jumps to the next
 * event when nobody can run. Everything that chance decides comes from sim_random, so a seed is a
 * run.
 *
 *     sim_init(seed);
 *     process = sim_spawn(host, name, main_fn, user);
 *     sim_at(time, fn, user);                     what the outside does, and when
 *     while (sim_step()) ...
 *     sim_fini();
 *
 * A process that ends leaves nothing behind, or the run fails; one that is killed takes with it
 * what it had, as the kernel would have it.
 */
#ifndef EVPT_TESTS_SIM_MACHINE_H
#define EVPT_TESTS_SIM_MACHINE_H

#include "reactor/sys.h"

#define SIM_HOSTS_MAX 8
#define SIM_PORT 8000

/* Everything that should happen now and then; a batch in which one of them never did has tested
 * less than it says. */
/* clang-format off: it cannot fold this list */
#define SIM_COUNTS(X) \
    X(switches) X(preemptions) X(reads) X(writes) X(short_reads) X(short_writes) \
    X(spurious_eagain) X(window_full) X(shuffled_batches) X(cut_batches) X(fd_reused) \
    X(connects) X(connect_errors) X(connects_refused) X(syns_lost) X(accepts_failed) \
    X(segments_held_back) X(resets) X(bytes_lost_by_reset) X(half_closes) \
    X(black_holes) X(partitions_one_way) X(partitions_two_way) X(slow_links) X(freezes) \
    X(ten_minute_freezes) X(ten_minute_jumps) X(kills) X(power_losses) X(orderly_stops) \
    X(drains) X(restarts) X(list_applied) X(list_refused) X(nodes_removed) X(nodes_changed) \
    X(nodes_down) X(sessions_wrapped) X(services_killed) X(allocations_failed) X(calls) X(sends) \
    X(executed) X(void_calls) X(large_messages) X(executed_no) X(executed_maybe) X(executed_yes) \
    X(maybe_and_executed) X(maybe_and_not) X(ok) X(unknown_node) X(connect_failed) \
    X(disconnected) X(timeout) X(unknown_service) X(unknown_method) X(failed) X(overloaded) \
    X(too_large) X(bad_message) X(stopping) X(disconnect_to_connecting) \
    X(connecting_to_connected) X(connecting_to_disconnect) X(connected_to_disconnect) \
    X(connected_to_down) X(connecting_to_down) X(disconnect_to_down) X(down_to_disconnect) \
    X(checks)
/* clang-format on */

enum sim_count {
#define X(name) SIM_##name,
    SIM_COUNTS(X)
#undef X
        SIM_COUNT_MAX
};

/* What the machine does by itself; chances out of 1000. Zeroed: a kind one. */
struct sim_faults {
    unsigned short_read, short_write, eagain, connect_error, accept_error, no_memory;
    unsigned preempt;    /* a thread loses the processor where it asks the clock */
    unsigned shuffle;    /* an epoll batch comes in another order, or is cut short */
    unsigned latency_us; /* at most */
    unsigned switch_us;  /* a thread's run takes at most that long */
    unsigned slow_link;  /* a new connection carries a few bytes a millisecond */
    size_t window;       /* bytes that one direction of a connection holds, at most */
};

struct sim_process;
typedef void (*sim_main_fn)(void *user);
typedef void (*sim_event_fn)(void *user);

extern struct sim_faults sim_faults;
extern uint64_t sim_counts[SIM_COUNT_MAX];
extern bool sim_tracing;

void sim_init(uint64_t seed);
/* Gives everything back, also what killed processes had. */
void sim_fini(void);
uint64_t sim_seed(void);
uint64_t sim_now(void);

/* ---- chance ---- */

uint64_t sim_random(void);
/* 0 to n - 1; 0 where n is 0. */
uint64_t sim_below(uint64_t n);
uint64_t sim_between(uint64_t least, uint64_t most);
bool sim_chance(unsigned of_1000);

/* ---- the record ---- */

/* Goes into the hash by which two runs of one seed are compared. */
void sim_note(uint64_t what, uint64_t value);
uint64_t sim_hash(void);
/* A line for --trace. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says which seed failed, when and why, and ends the program. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- time ---- */

/* One thread's run, or the next event. False: nobody will ever run again. */
bool sim_step(void);
/* From outside of all processes. */
void sim_at(uint64_t at_ns, sim_event_fn fn, void *user);
/* The clock jumps for everybody. */
void sim_jump(uint64_t ns);
/* When the clock jumped last. */
uint64_t sim_jumped_at(void);

/* ---- processes ---- */

struct sim_process *sim_spawn(unsigned host, const char *name, sim_main_fn main, void *user);
/* Its main has returned, or it was killed. */
bool sim_has_ended(const struct sim_process *process);
/* kill -9, or the plug is pulled: then nobody is told, and the host stays silent until
 * sim_power_on.
 */
void sim_kill(struct sim_process *process, bool power_loss);
void sim_power_on(unsigned host);
void sim_freeze(struct sim_process *process, uint64_t until_ns);
/* Until when, or since when it runs again. */
uint64_t sim_thawed_at(const struct sim_process *process);
void sim_allow_memory_faults(struct sim_process *process, bool allowed);
/* Runs `fn(user)` as if a signal handler of the process did. */
void sim_signal(struct sim_process *process, sim_event_fn fn, void *user);

/* ---- network ---- */

void sim_address(unsigned host, struct evpt_addr *ret_addr);
void sim_cut(unsigned from, unsigned to, bool cut);
/* No link is cut any more. */
void sim_heal(void);
/* Nothing is on its way or unread; what a black hole has, nobody will ever get. */
bool sim_net_is_idle(void);
/* Connections that have been slow or narrow are not any more. What a black hole has, it keeps. */
void sim_widen(void);
enum sim_harm { SIM_RESET, SIM_HALF_CLOSE, SIM_BLACK_HOLE };
/* Picks a connection. Nothing where there is none. */
void sim_harm(enum sim_harm harm);

#endif
