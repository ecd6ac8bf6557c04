#include "support.h"
#include "reactor/pair.h"
#include "reactor/thread.h"

struct message {
    struct evpt_mpsc_node node;
    unsigned producer, number;
};

static struct message *message_of(struct evpt_mpsc_node *node)
{
    return EVPT_CONTAINER_OF(node, struct message, node);
}

/* Notes the numbers in the order in which they come. */
struct inbox {
    struct evpt_pair pair;
    unsigned numbers[64];
    unsigned count, batches;
};

static void note(void *user, struct evpt_mpsc_node *list)
{
    struct inbox *inbox = user;
    inbox->batches++;
    for (; list; list = list->next)
        inbox->numbers[inbox->count++] = message_of(list)->number;
}

static void open_inbox(struct inbox *inbox, struct evpt_loop *loop)
{
    *inbox = (struct inbox){0};
    ck_assert_int_eq(evpt_pair_init(&inbox->pair, loop, note, inbox), 0);
}

static void write_number(struct inbox *inbox, struct message *message, unsigned number)
{
    message->number = number;
    evpt_pair_write(&inbox->pair, &message->node);
}

START_TEST(test_messages_come_in_one_batch_in_the_order_written)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inbox;
    struct message messages[10];
    open_inbox(&inbox, loop);
    for (unsigned i = 0; i < 10; i++)
        write_number(&inbox, &messages[i], i);
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_uint_eq(inbox.batches, 1);
    ck_assert_uint_eq(inbox.count, 10);
    for (unsigned i = 0; i < 10; i++)
        ck_assert_uint_eq(inbox.numbers[i], i);
    evpt_pair_fini(&inbox.pair);
    evpt_loop_free(loop);
}
END_TEST

/* ---- when the eventfd is written ---- */

struct talker {
    struct evpt_timer timer;
    struct evpt_deferred deferred;
    struct inbox *inbox;
    struct message messages[3];
};

static void talk_from_timer(struct evpt_timer *timer, void *user)
{
    struct talker *talker = user;
    write_number(talker->inbox, &talker->messages[0], 0);
}

static void talk_from_deferred(struct evpt_deferred *deferred, void *user)
{
    struct talker *talker = user;
    write_number(talker->inbox, &talker->messages[1], 1);
}

START_TEST(test_loop_that_is_awake_is_never_signalled)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inbox;
    struct talker talker = {.inbox = &inbox};
    open_inbox(&inbox, loop);
    support_stop_clock();
    evpt_loop_update_now(loop);
    evpt_loop_timer(loop, &talker.timer, 50 * EVPT_NS_PER_MS, talk_from_timer, &talker);
    evpt_loop_defer(loop, &talker.deferred, talk_from_deferred, &talker);
    write_number(&inbox, &talker.messages[2], 2);
    while (inbox.count < 3) /* sleeps in between, for the timer */
        ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    ck_assert_uint_eq(support_calls.eventfd_signal, 0);
    evpt_pair_fini(&inbox.pair);
    evpt_loop_free(loop);
}
END_TEST

/* Another hook whose `rest` comes after the pair's: what it writes then, it writes to a sleeping
 * loop. */
struct late_writer {
    struct evpt_loop_hook hook;
    struct inbox *inbox;
    struct message messages[5];
    bool done;
};

static int late_before(struct evpt_loop_hook *hook)
{
    return 0;
}

static bool late_rest(struct evpt_loop_hook *hook)
{
    struct late_writer *writer = EVPT_CONTAINER_OF(hook, struct late_writer, hook);
    if (!writer->done) {
        for (unsigned i = 0; i < 5; i++)
            write_number(writer->inbox, &writer->messages[i], i);
    }
    writer->done = true;
    return true;
}

START_TEST(test_sleeping_loop_is_signalled_once_for_many_messages)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inbox;
    struct late_writer writer = {.hook = {.before = late_before, .rest = late_rest},
                                 .inbox = &inbox};
    open_inbox(&inbox, loop);
    evpt_loop_add_hook(loop, &writer.hook);
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_uint_eq(inbox.count, 5);
    ck_assert_uint_eq(inbox.batches, 1);
    ck_assert_uint_eq(support_calls.eventfd_signal, 1);
    ck_assert_int_eq(evpt_loop_turn(loop, 0), 0); /* the signal is cleared */
    evpt_loop_remove_hook(&writer.hook);
    evpt_pair_fini(&inbox.pair);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_pair_stays_awake_where_its_neighbour_keeps_the_loop_awake)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inboxes[2];
    struct message messages[2];
    struct late_writer writer = {.hook = {.before = late_before, .rest = late_rest},
                                 .inbox = &inboxes[1]};
    /* order of `rest`: the first pair parks, the writer writes to the second, which then refuses */
    open_inbox(&inboxes[0], loop);
    evpt_loop_add_hook(loop, &writer.hook);
    open_inbox(&inboxes[1], loop);
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_uint_eq(inboxes[1].count, 5);
    write_number(&inboxes[0], &messages[0], 7); /* the loop has not slept: no signal is needed */
    ck_assert_uint_eq(support_calls.eventfd_signal, 0);
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_uint_eq(inboxes[0].numbers[0], 7);
    evpt_loop_remove_hook(&writer.hook);
    for (int i = 0; i < 2; i++)
        evpt_pair_fini(&inboxes[i].pair);
    evpt_loop_free(loop);
}
END_TEST

/* ---- life ---- */

START_TEST(test_fini_hands_over_what_is_left)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inbox;
    struct message message;
    open_inbox(&inbox, loop);
    write_number(&inbox, &message, 3);
    evpt_pair_fini(&inbox.pair);
    ck_assert_uint_eq(inbox.count, 1);
    ck_assert_uint_eq(inbox.numbers[0], 3);
    evpt_pair_fini(&inbox.pair);
    ck_assert_uint_eq(inbox.count, 1);
    struct evpt_pair zeroed = {0};
    evpt_pair_fini(&zeroed);
    evpt_pair_fini(NULL);
    evpt_loop_free(loop);
}
END_TEST

static void fini_and_free(void *user, struct evpt_mpsc_node *list)
{
    struct evpt_pair **pair = user;
    evpt_pair_fini(*pair);
    evpt_sys_free(*pair);
    *pair = NULL;
}

START_TEST(test_callback_frees_the_pair)
{
    struct evpt_loop *loop = support_loop();
    struct message message;
    struct evpt_pair *pair = evpt_sys_alloc(sizeof(*pair));
    ck_assert_int_eq(evpt_pair_init(pair, loop, fini_and_free, &pair), 0);
    evpt_pair_write(pair, &message.node);
    ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 1);
    ck_assert_ptr_null(pair);
    evpt_loop_free(loop);
}
END_TEST

START_TEST(test_read_takes_what_is_there_now)
{
    struct evpt_loop *loop = support_loop();
    struct inbox inbox;
    struct message message;
    open_inbox(&inbox, loop);
    ck_assert(!evpt_pair_read(&inbox.pair));
    write_number(&inbox, &message, 1);
    ck_assert(evpt_pair_read(&inbox.pair));
    ck_assert_uint_eq(inbox.count, 1);
    ck_assert(!evpt_pair_read(&inbox.pair));
    evpt_pair_fini(&inbox.pair);
    evpt_loop_free(loop);
}
END_TEST

/* ---- threads: a lost wake-up leaves the loop in a wait without end ---- */

enum { PRODUCERS = 4, MESSAGES = 20000 };

struct crowd {
    struct evpt_pair pair;
    unsigned next[PRODUCERS];
    unsigned received;
};

struct producer {
    struct evpt_thread thread;
    struct evpt_pair *pair;
    struct message messages[MESSAGES];
};

static void produce(void *user)
{
    struct producer *producer = user;
    for (unsigned i = 0; i < MESSAGES; i++)
        evpt_pair_write(producer->pair, &producer->messages[i].node);
}

static void receive(void *user, struct evpt_mpsc_node *list)
{
    struct crowd *crowd = user;
    for (; list; list = list->next, crowd->received++) {
        struct message *message = message_of(list);
        ck_assert_uint_eq(message->number, crowd->next[message->producer]++);
    }
}

START_TEST(test_no_message_of_many_producers_is_lost_or_overtaken)
{
    static struct producer producers[PRODUCERS];
    struct evpt_loop *loop = support_loop();
    struct crowd crowd = {.received = 0};
    ck_assert_int_eq(evpt_pair_init(&crowd.pair, loop, receive, &crowd), 0);
    for (unsigned i = 0; i < PRODUCERS; i++) {
        producers[i].pair = &crowd.pair;
        for (unsigned j = 0; j < MESSAGES; j++)
            producers[i].messages[j] = (struct message){.producer = i, .number = j};
        ck_assert_int_eq(
            evpt_thread_start(&producers[i].thread, "producer", produce, &producers[i]), 0);
    }
    while (crowd.received < PRODUCERS * MESSAGES)
        ck_assert_int_ge(evpt_loop_turn(loop, EVPT_FOREVER), 0);
    for (unsigned i = 0; i < PRODUCERS; i++)
        evpt_thread_join(&producers[i].thread);
    evpt_pair_fini(&crowd.pair);
    evpt_loop_free(loop);
}
END_TEST

/* One message goes to and fro between two loops: each hop finds the other one asleep or about to.
 */
enum { HOPS = 20000 };

struct player {
    struct evpt_thread thread;
    struct evpt_loop *loop;
    struct evpt_pair pair;
    struct player *other;
    unsigned hops;
};

static void play(void *user, struct evpt_mpsc_node *list)
{
    struct player *player = user;
    ck_assert_ptr_null(list->next);
    if (++player->hops <= HOPS)
        evpt_pair_write(&player->other->pair, list);
}

static void run_player(void *user)
{
    struct player *player = user;
    evpt_loop_adopt(player->loop);
    while (player->hops < HOPS)
        ck_assert_int_ge(evpt_loop_turn(player->loop, EVPT_FOREVER), 0);
}

START_TEST(test_ping_pong_loses_no_wake_up)
{
    struct player players[2] = {{.other = &players[1]}, {.other = &players[0]}};
    struct message ball;
    for (int i = 0; i < 2; i++) {
        players[i].loop = support_loop();
        ck_assert_int_eq(evpt_pair_init(&players[i].pair, players[i].loop, play, &players[i]), 0);
    }
    evpt_pair_write(&players[0].pair, &ball.node);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(evpt_thread_start(&players[i].thread, "player", run_player, &players[i]),
                         0);
    for (int i = 0; i < 2; i++)
        evpt_thread_join(&players[i].thread);
    for (int i = 0; i < 2; i++) {
        players[i].hops = HOPS; /* the ball that is left stays where it is */
        evpt_loop_adopt(players[i].loop);
        evpt_pair_fini(&players[i].pair);
        evpt_loop_free(players[i].loop);
    }
}
END_TEST

SUPPORT_MAIN("reactor/pair", test_messages_come_in_one_batch_in_the_order_written,
             test_loop_that_is_awake_is_never_signalled,
             test_sleeping_loop_is_signalled_once_for_many_messages,
             test_pair_stays_awake_where_its_neighbour_keeps_the_loop_awake,
             test_fini_hands_over_what_is_left, test_callback_frees_the_pair,
             test_read_takes_what_is_there_now,
             test_no_message_of_many_producers_is_lost_or_overtaken,
             test_ping_pong_loses_no_wake_up)
