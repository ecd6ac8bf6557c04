/* Workload: messages from thread to thread.
 *
 *     messages-LIBRARY stream PRODUCERS MESSAGES    each producer sends its share as fast as it can
 *     messages-LIBRARY pingpong ROUNDS              one message goes to and fro between two loops
 *
 * stream: the messages lie ready in memory before the start, PASS_MAX of them, and are sent again
 * and again until there were that many: how the threads happen to meet differs from pass to pass,
 * and few would be over before the second thread runs. Printed: ns for each message from the start
 * of the producers until the loop has seen the last one; for pingpong, ns for each way (half a
 * round).
 */
#include ADAPTER
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct payload {
    struct lib_message message;
    uint64_t number;
};

/* ---- stream ---- */

enum { PASS_MAX = 1000000 };

struct stream_run {
    struct lib_loop loop;
    struct lib_channel channel;
    pthread_barrier_t barrier; /* at the beginning of each pass */
    long passes, to_come;
    uint64_t sum;
};

struct producer {
    pthread_t thread;
    struct stream_run *run;
    struct payload *messages;
    long count; /* in a pass */
};

static void *produce(void *user)
{
    struct producer *producer = user;
    struct stream_run *run = producer->run;
    for (long pass = 0; pass < run->passes; pass++) {
        pthread_barrier_wait(&run->barrier);
        for (long i = 0; i < producer->count; i++)
            lib_send(&run->channel, &producer->messages[i].message);
    }
    return NULL;
}

LIB_ON_MESSAGES(on_stream, channel, list)
{
    struct stream_run *run = CONTAINER_OF(channel, struct stream_run, channel);
    for (; list; list = lib_next(list)) {
        run->sum += CONTAINER_OF(list, struct payload, message)->number;
        run->to_come--;
    }
    if (!run->to_come)
        lib_break(&run->loop);
}

static void start_producer(struct producer *producer, struct stream_run *run, long count)
{
    *producer = (struct producer){.run = run, .count = count};
    producer->messages = must_alloc((size_t)count, sizeof(*producer->messages));
    for (long number = 0; number < count; number++)
        producer->messages[number].number = (uint64_t)number;
    MUST(pthread_create(&producer->thread, NULL, produce, producer) == 0);
}

/* The time from the start of the producers until the last message of the pass is there. */
static uint64_t run_pass(struct stream_run *run, long messages)
{
    run->to_come = messages;
    pthread_barrier_wait(&run->barrier);
    uint64_t begin_ns = now_ns();
    lib_run(&run->loop);
    return now_ns() - begin_ns;
}

static void run_stream(long producers, long messages)
{
    long passes = (messages + PASS_MAX - 1) / PASS_MAX, each = messages / passes / producers;
    struct stream_run run = {.passes = passes};
    struct producer *all = must_alloc((size_t)producers, sizeof(*all));
    uint64_t taken_ns = 0;
    MUST(each > 0);
    lib_loop_init(&run.loop);
    lib_channel_init(&run.loop, &run.channel, on_stream);
    pthread_barrier_init(&run.barrier, NULL, (unsigned)producers + 1);
    for (long i = 0; i < producers; i++)
        start_producer(&all[i], &run, each);
    for (long pass = 0; pass < passes; pass++)
        taken_ns += run_pass(&run, each * producers);
    report("ns", (double)taken_ns / (double)(passes * each * producers));

    uint64_t sum_of_each = (uint64_t)each * (uint64_t)(each - 1) / 2;
    MUST(run.sum == (uint64_t)(passes * producers) * sum_of_each);
    for (long i = 0; i < producers; i++) {
        pthread_join(all[i].thread, NULL);
        free(all[i].messages);
    }
    lib_channel_fini(&run.channel);
    lib_loop_fini(&run.loop);
    pthread_barrier_destroy(&run.barrier);
    free(all);
}

/* ---- pingpong ---- */

struct player {
    struct lib_loop loop;
    struct lib_channel channel;
    struct player *other;
    pthread_t thread;
    uint64_t last; /* the number of the message that is this player's last one */
};

LIB_ON_MESSAGES(on_ball, channel, list)
{
    struct player *player = CONTAINER_OF(channel, struct player, channel);
    struct payload *ball = CONTAINER_OF(list, struct payload, message);
    if (ball->number >= player->last)
        lib_break(&player->loop);
    ball->number++;
    if (ball->number <= player->other->last)
        lib_send(&player->other->channel, list);
}

static void *play(void *user)
{
    struct player *player = user;
    lib_loop_adopt(&player->loop);
    lib_run(&player->loop);
    return NULL;
}

static void run_pingpong(long rounds)
{
    struct payload ball = {.number = 0};
    struct player players[2] = {{.other = &players[1]}, {.other = &players[0]}};
    for (int i = 0; i < 2; i++) {
        lib_loop_init(&players[i].loop);
        lib_channel_init(&players[i].loop, &players[i].channel, on_ball);
        players[i].last = 2 * (uint64_t)(rounds - 1) + (uint64_t)i;
    }
    MUST(pthread_create(&players[1].thread, NULL, play, &players[1]) == 0);
    uint64_t begin_ns = now_ns();
    lib_send(&players[0].channel, &ball.message);
    play(&players[0]);
    pthread_join(players[1].thread, NULL);
    report("ns", (double)(now_ns() - begin_ns) / (double)(2 * rounds));

    lib_loop_adopt(&players[1].loop);
    for (int i = 0; i < 2; i++) {
        lib_channel_fini(&players[i].channel);
        lib_loop_fini(&players[i].loop);
    }
}

int main(int argc, char **argv)
{
    static const char usage[] = "stream PRODUCERS MESSAGES | pingpong ROUNDS";
    report_library(lib_version());
    lib_use_threads();
    if (argc > 1 && !strcmp(argv[1], "stream"))
        run_stream(argument(argc, argv, 2, usage), argument(argc, argv, 3, usage));
    else if (argc > 1 && !strcmp(argv[1], "pingpong"))
        run_pingpong(argument(argc, argv, 2, usage));
    else
        (void)argument(1, argv, 1, usage);
    return 0;
}
