/* What the tests of cluster/ share: one loop with its clock, sessions whose events are written
 * down, raw peers that write and read bytes by hand, and counters of what is alive.
 *
 * The executables are linked with --wrap for the functions named in meson.build, so that the clock
 * can be moved (clock_skip_ms), an allocation refused (refuse_alloc), and every message counted
 * (messages_live).
 */
#ifndef EVPT_TESTS_CLUSTER_SUPPORT_H
#define EVPT_TESTS_CLUSTER_SUPPORT_H

#include "cluster/bytes.h"
#include "cluster/frame.h"
#include "cluster/msgpack.h"
#include "cluster/session.h"
#include "reactor/error.h"
#include "reactor/loop.h"
#include <check.h>
#include <string.h>

/* ---- the machine ---- */

/* From now on it is that much later, for everybody who asks the clock. */
void clock_skip_ms(uint64_t ms);
/* Messages that were made and not freed. */
int messages_live(void);
/* The allocation after `skip` more is refused; -1: none. Tells whether that has happened. */
void refuse_alloc(int skip);
bool alloc_was_refused(void);
/* EVPT_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
uint64_t test_seed(void);
uint64_t next_random(uint64_t *state);
/* Bytes asked of the allocator so far. */
uint64_t bytes_allocated(void);
/* Runs a suite of one case; what main returns. */
int run_tests(const char *name, TCase *tcase);

/* ---- the world of a test ---- */

struct world {
    struct evpt_loop *loop;
    struct evpt_session_config config;
    int messages, fds; /* at the beginning */
};

/* message_max 16 MiB, heartbeat 5 s, send_buffer_max 64 MiB, node "here". */
void world_init(struct world *world);
/* Asserts that nothing is left: messages, descriptors. */
void world_fini(struct world *world);
/* One turn that does not wait. */
void turn(struct world *world);
/* Turns until the condition holds; fails after 10 s. */
#define TURN_UNTIL(world, condition)                                                               \
    do {                                                                                           \
        uint64_t turn_end = turn_limit();                                                          \
        while (!(condition)) {                                                                     \
            ck_assert_msg(turn_limit() < turn_end + TURN_LIMIT_NS, "never came: " #condition);     \
            turn(world);                                                                           \
        }                                                                                          \
    } while (0)
#define TURN_LIMIT_NS (10 * EVPT_NS_PER_S)
uint64_t turn_limit(void); /* the clock without what was skipped */

/* ---- a session and what it reported ---- */

struct end;
typedef void (*end_fn)(struct end *end);

struct end {
    struct world *world;
    struct evpt_session *session; /* NULL after on_close */
    struct evpt_message **inbox;
    size_t inbox_count, inbox_room;
    int hellos, goaways, goaway_code, queued_count, closes, close_error;
    char goaway_text[EVPT_FRAME_CONTROL_MAX + 1], close_reason[128];
    uint32_t queued_session; /* of the last on_queued */
    uint64_t queued_position, written_at_close;
    /* hostile users: called at the end of the callback, NULL where not wanted */
    end_fn on_message, on_hello, on_goaway, on_queued, on_close;
    bool in_call; /* set by a test around calls that must not call back */
};

void end_open(struct end *end, struct world *world, int fd, enum evpt_session_role role,
              uint32_t id);
/* Both sides of a connection, HELLO exchanged. */
void ends_open(struct end *client, struct end *server, struct world *world);
/* Frees messages and, if it is still there, the session. */
void end_fini(struct end *end);
struct evpt_message *end_last(const struct end *end);

/* A message with `size` bytes that follow from its session and size. */
struct evpt_message *make_message(uint32_t session, uint64_t lane, size_t size);
/* Asserts that it is such a message. */
void check_message(const struct evpt_message *message, uint32_t session, size_t size);
/* Sends one, asserts success, returns the position. */
uint64_t end_send(struct end *end, uint32_t session, uint64_t lane, size_t size);

/* ---- a raw peer: the other end of a session's socket pair ---- */

struct raw {
    struct world *world;
    int fd;
    uint8_t *bytes; /* read and not yet taken */
    size_t size, room;
    bool eof;
};

/* A session of the given role on one end, bytes on the other. The session's own HELLO (client)
 * stays to be read. */
void raw_open(struct raw *raw, struct end *end, struct world *world, enum evpt_session_role role);
void raw_fini(struct raw *raw);
/* Writes everything, turning the loop where the socket is full; false: the session has closed the
 * connection. */
bool raw_write(struct raw *raw, const void *bytes, size_t size);
bool raw_frame(struct raw *raw, int flag, uint32_t session, const void *data, size_t size);
void raw_hello(struct raw *raw, uint32_t message_max);
/* Reads what is there without waiting. */
void raw_pull(struct raw *raw);
/* The next frame, which must come; its data are valid until the next call. */
struct evpt_frame raw_take(struct raw *raw);
/* The frame after that has not come. */
bool raw_has_frame(struct raw *raw);
/* Turns until the session has ended the connection; asserts that no frame is left unread. */
void raw_expect_end(struct raw *raw);

/* ---- a bystander: on the same loop, in the middle of a message while others misbehave ---- */

struct bystander {
    struct end end;
    struct raw raw;
};

/* The first half of a message is in. */
void bystander_open(struct bystander *bystander, struct world *world);
/* The second half comes, and a reply goes back: it has noticed nothing. */
void bystander_fini(struct bystander *bystander);

#endif
