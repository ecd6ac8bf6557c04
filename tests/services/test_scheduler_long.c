/* Handlers that do not return: neither the loop nor the other services may have to wait for them,
 * as long as there is a thread left (with one worker, the one that holds the loop). Each test has
 * one that stays inside until somebody else, whose turn comes only if the scheduler does what it
 * promises, lets it out. */
#include "support.h"

#include <string.h>
#include <unistd.h>

/* Run by whom: the thread that holds the loop, or another one. */
enum where { ON_HOLDER, ON_WORKER };
/* How it stays inside. */
enum how { SPINS, BLOCKS };

struct scene {
    struct rig rig;
    struct evpt_pair pair; /* of a pinned service: its callbacks show that the loop is alive */
    uint32_t pinned;
    struct actor prisoner, liberator;
    enum how how;
    int pipe[2];
    atomic_bool inside, free, rests; /* rests: it waits until the watcher does */
    int64_t via_loop; /* what it says to the pinned one instead of to the liberator; 0: nothing */
    atomic_int prisoner_index;
};

static void release(struct scene *scene)
{
    atomic_store(&scene->free, true);
    CHECK(write(scene->pipe[1], "x", 1) == 1);
}

/* Pinned: 1: a message for the prisoner is to be passed on, from the loop; 2: for the liberator;
 * 3: the loop itself sets it free. */
static void on_pinned(void *user, struct evpt_mpsc_node *list)
{
    struct scene *scene = user;
    struct evpt_worker *worker = evpt_scheduler_loop_worker(&scene->rig.scheduler);
    while (list) {
        struct evpt_message *message = evpt_message_from_node(list);
        int64_t what = support_argument(message);
        list = list->next;
        evpt_message_free(message);
        if (what == 3)
            release(scene);
        else
            CHECK(post_send(&scene->rig.scheduler, worker,
                            what == 1 ? scene->prisoner.handle : scene->liberator.handle, 0,
                            1) == 0);
    }
}

static void stay(struct scene *scene)
{
    char byte;
    if (scene->how == BLOCKS) {
        CHECK(read(scene->pipe[0], &byte, 1) == 1);
        return;
    }
    while (!atomic_load(&scene->free))
        continue;
    CHECK(read(scene->pipe[0], &byte, 1) == 1);
}

/* 0: a short message, of which its cost is learnt; 1: it goes inside. */
static void imprison(struct actor *actor, struct evpt_message *message)
{
    struct scene *scene = actor->user;
    struct evpt_scheduler *scheduler = actor->scheduler;
    int64_t what = support_argument(message);
    evpt_message_free(message);
    if (what == 0)
        return;
    atomic_store(&scene->prisoner_index, (int)actor_worker(actor)->index);
    atomic_store(&scene->inside, true);
    uint64_t limit_ns = support_limit_ns();
    while (scene->rests && !atomic_load(&scheduler->watcher_rests))
        CHECK(support_real_now_ns() < limit_ns);
    if (scene->via_loop)
        CHECK(post_send(scheduler, actor_worker(actor), scene->pinned, 0, scene->via_loop) == 0);
    else
        CHECK(post_send(scheduler, actor_worker(actor), scene->liberator.handle, 0, 1) == 0);
    stay(scene);
}

static void liberate(struct actor *actor, struct evpt_message *message)
{
    struct scene *scene = actor->user;
    int64_t what = support_argument(message);
    evpt_message_free(message);
    if (what == 1)
        release(scene);
}

static void scene_init(struct scene *scene, unsigned workers, enum how how)
{
    memset(scene, 0, sizeof(*scene));
    scene->how = how;
    ck_assert_int_eq(pipe(scene->pipe), 0);
    rig_init(&scene->rig, workers, 1000);
    ck_assert_int_eq(evpt_pair_init(&scene->pair, scene->rig.loop, on_pinned, scene), 0);
    scene->pinned = evpt_scheduler_pin(&scene->rig.scheduler, &scene->pair, NULL);
    scene->prisoner = (struct actor){.on_message = imprison, .user = scene};
    scene->liberator = (struct actor){.on_message = liberate, .user = scene};
    actor_spawn(&scene->prisoner, &scene->rig.scheduler, NULL);
    actor_spawn(&scene->liberator, &scene->rig.scheduler, NULL);
    rig_start(&scene->rig);
}

static void scene_fini(struct scene *scene)
{
    rig_stop(&scene->rig);
    evpt_pair_fini(&scene->pair);
    rig_fini(&scene->rig);
    close(scene->pipe[0]);
    close(scene->pipe[1]);
}

/* Both become known as short, so that the holder of the loop may run them. */
static void train(struct scene *scene)
{
    for (unsigned long i = 1; i <= 200; i++) {
        CHECK(post_send(&scene->rig.scheduler, NULL, scene->prisoner.handle, 0, 0) == 0);
        CHECK(post_send(&scene->rig.scheduler, NULL, scene->liberator.handle, 0, 0) == 0);
        UNTIL(atomic_load(&scene->prisoner.handled) == i &&
              atomic_load(&scene->liberator.handled) == i);
    }
}

/* Sends the prisoner inside on the thread that is wanted. It may be another one that is quicker;
 * then once more, when all is quiet. */
static void run(unsigned workers, enum how how, enum where where, bool via_loop, bool rests)
{
    for (int tries = 0;; tries++) {
        struct scene scene;
        scene_init(&scene, workers, how);
        scene.via_loop = via_loop ? 2 : 0;
        atomic_store(&scene.rests, rests);
        train(&scene);
        if (where == ON_HOLDER) /* from the loop: nobody else is woken for it */
            UNTIL(atomic_load(&scene.rig.scheduler.watcher) >= 0);
        CHECK(post_send(&scene.rig.scheduler, NULL,
                        where == ON_HOLDER ? scene.pinned : scene.prisoner.handle, 0, 1) == 0);
        UNTIL(atomic_load(&scene.inside) && scene.prisoner.handled == 201);
        bool on_holder = scene.prisoner_index == 0;
        scene_fini(&scene);
        if (on_holder == (where == ON_HOLDER))
            break;
        ck_assert_int_lt(tries, 50);
    }
}

START_TEST(test_scheduler_other_services_run_while_a_handler_does_not_return)
{
    for (unsigned workers = 1; workers <= 3; workers++) {
        for (enum how how = SPINS; how <= BLOCKS; how++) {
            run(workers, how, ON_WORKER, false, false);
            run(workers, how, ON_HOLDER, false, false);
        }
    }
}
END_TEST

START_TEST(test_scheduler_the_loop_goes_on_while_a_handler_does_not_return)
{
    for (unsigned workers = 1; workers <= 3; workers++) {
        for (enum how how = SPINS; how <= BLOCKS; how++) {
            run(workers, how, ON_WORKER, true, false);
            run(workers, how, ON_HOLDER, true, false);
        }
    }
}
END_TEST

/* It speaks only after it has been inside for so long that the watcher has gone to rest. */
START_TEST(test_scheduler_a_late_message_of_a_handler_that_does_not_return_is_delivered)
{
    run(2, SPINS, ON_WORKER, false, true);
    run(2, BLOCKS, ON_WORKER, true, true);
}
END_TEST

/* With one worker both threads are taken: but the loop lives. */
START_TEST(test_scheduler_the_only_worker_takes_the_loop_over)
{
    for (enum how how = SPINS; how <= BLOCKS; how++) {
        struct scene scene;
        scene_init(&scene, 1, how);
        scene.via_loop = 3;
        train(&scene);
        UNTIL(atomic_load(&scene.rig.scheduler.watcher) >= 0);
        CHECK(post_send(&scene.rig.scheduler, NULL, scene.pinned, 0, 1) == 0);
        UNTIL(scene.prisoner.handled == 201);
        scene_fini(&scene);
    }
}
END_TEST

/* Takes long, and has always something to do. */
static void never_rest(struct actor *actor, struct evpt_message *message)
{
    struct scene *scene = actor->user;
    uint64_t until_ns = support_real_now_ns() + 2 * EVPT_SHORT_NS;
    evpt_message_free(message);
    while (support_real_now_ns() < until_ns)
        continue;
    if (!atomic_load(&scene->free))
        CHECK(post_send(actor->scheduler, actor_worker(actor), actor->handle, 0, 0) == 0);
}

/* Who is not known to be short is for the workers alone; and theirs never comes to an end. */
START_TEST(test_scheduler_services_that_never_rest_leave_room_for_the_others)
{
    for (unsigned workers = 1; workers <= 3; workers++) {
        struct scene scene;
        struct actor busy[3];
        scene_init(&scene, workers, BLOCKS);
        for (unsigned i = 0; i < workers; i++) {
            busy[i] = (struct actor){.on_message = never_rest, .user = &scene};
            actor_spawn(&busy[i], &scene.rig.scheduler, NULL);
            CHECK(post_send(&scene.rig.scheduler, NULL, busy[i].handle, 0, 0) == 0);
        }
        for (unsigned i = 0; i < workers; i++)
            UNTIL(atomic_load(&busy[i].handled) > 20);
        CHECK(post_send(&scene.rig.scheduler, NULL, scene.pinned, 0, 2) == 0);
        UNTIL(atomic_load(&scene.liberator.handled) == 1);
        scene_fini(&scene);
    }
}
END_TEST

SUPPORT_MAIN("scheduler_long", test_scheduler_other_services_run_while_a_handler_does_not_return,
             test_scheduler_the_loop_goes_on_while_a_handler_does_not_return,
             test_scheduler_a_late_message_of_a_handler_that_does_not_return_is_delivered,
             test_scheduler_the_only_worker_takes_the_loop_over,
             test_scheduler_services_that_never_rest_leave_room_for_the_others)
