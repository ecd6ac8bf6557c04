#include "reactor/timer.h"
#include <assert.h>
#include <string.h>

enum {
    DIGIT_BITS = 6, /* EVPT_TIMER_SLOTS is 2^6 */
    TICK_BITS = 20, /* EVPT_TIMER_TICK_NS is 2^20 */
    WHEEL_BITS = DIGIT_BITS * EVPT_TIMER_LEVELS,
    WARM_MAX = 1024 /* timers from either end: 128 KiB, which the second level of any cache holds */
};

static const uint64_t NEVER = UINT64_MAX; /* a tick after all others */

/* Digit of a tick at a level: the slot that it has there. */
static unsigned digit(uint64_t tick, unsigned level)
{
    return (unsigned)(tick >> (DIGIT_BITS * level)) % EVPT_TIMER_SLOTS;
}

/* The list for a tick, by number: the slots level by level, then `beyond`. */
enum { BEYOND = EVPT_TIMER_LEVELS * EVPT_TIMER_SLOTS, LISTS };

static unsigned find_list(const struct evpt_timer_wheel *wheel, uint64_t tick)
{
    uint64_t difference = tick ^ wheel->tick;
    if (difference >> WHEEL_BITS)
        return BEYOND;
    /* "| 1": the current tick itself belongs to level 0, and clz of 0 is undefined */
    unsigned level = (63 - (unsigned)__builtin_clzll(difference | 1)) / DIGIT_BITS;
    return level * EVPT_TIMER_SLOTS + digit(tick, level);
}

/* That list, about to get a timer. */
static struct evpt_list *open_list(struct evpt_timer_wheel *wheel, unsigned number)
{
    if (number == BEYOND)
        return &wheel->beyond;
    unsigned level = number / EVPT_TIMER_SLOTS, slot = number % EVPT_TIMER_SLOTS;
    wheel->occupied[level] |= UINT64_C(1) << slot;
    return &wheel->slots[level][slot];
}

/* Spreads out the timers of a slot whose time has begun. The lists that they go to are empty, since
 * a lower level lies wholly before that time. Where there are many, each one is a cache miss, and
 * its address stands in the one beside it: taken from both ends there are two such chains, whose
 * misses are waited for at once. A million timers fire in 220 ns each instead of 290. The order
 * stays: `middle` is, for each list, the last timer that came from the front, and those from the
 * back go in right behind it. */
static void spread(struct evpt_timer_wheel *wheel, struct evpt_list *from)
{
    struct evpt_list *middle[LISTS] = {NULL};
    for (bool front = true; !evpt_list_is_empty(from); front = !front) {
        struct evpt_list *link = front ? from->next : from->prev;
        unsigned number = find_list(wheel, EVPT_CONTAINER_OF(link, struct evpt_timer, link)->tick);
        struct evpt_list *list = open_list(wheel, number);
        evpt_list_remove(link);
        evpt_list_insert_after(middle[number] ? middle[number] : list, link);
        if (front)
            middle[number] = link;
    }
}

/* The tick at which something is to be done: a slot of level 0 fires, an upper one is spread out.
 */
static uint64_t next_tick(const struct evpt_timer_wheel *wheel)
{
    /* A lower level lies wholly before the next slot of the one above it. */
    for (unsigned level = 0; level < EVPT_TIMER_LEVELS; level++) {
        if (!wheel->occupied[level])
            continue;
        unsigned shift = DIGIT_BITS * level;
        uint64_t slot = (uint64_t)__builtin_ctzll(wheel->occupied[level]);
        return (wheel->tick >> shift >> DIGIT_BITS << DIGIT_BITS | slot) << shift;
    }
    if (evpt_list_is_empty(&wheel->beyond))
        return NEVER;
    return ((wheel->tick >> WHEEL_BITS) + 1) << WHEEL_BITS;
}

/* Takes the wheel to a tick that is not after next_tick(), and spreads out the upper slot whose
 * time begins with it, so that no slot of a level above 0 ever is the current one. */
static void move_to(struct evpt_timer_wheel *wheel, uint64_t tick)
{
    bool new_round = tick >> WHEEL_BITS != wheel->tick >> WHEEL_BITS;
    struct evpt_list moving;
    wheel->tick = tick;
    if (new_round) {
        evpt_list_move(&moving, &wheel->beyond);
        spread(wheel, &moving);
    }
    for (unsigned level = EVPT_TIMER_LEVELS - 1; level > 0; level--) {
        unsigned slot = digit(tick, level);
        if (!(wheel->occupied[level] >> slot & 1))
            continue;
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        evpt_list_move(&moving, &wheel->slots[level][slot]);
        spread(wheel, &moving);
    }
}

/* Where there are many timers, each one due is a cache miss, and its address stands in the one
 * before it. Walking from both ends makes two such chains that are waited for at once: a million
 * timers fire in 270 ns each instead of 380. */
static void warm(const struct evpt_list *list)
{
    const struct evpt_list *front = list->next, *back = list->prev;
    for (int i = 0; i < WARM_MAX && front != back && front->next != back; i++) {
        front = front->next;
        back = back->prev;
        __builtin_prefetch(front); /* else the compiler sees that the walk comes to nothing */
        __builtin_prefetch(back);
    }
}

static size_t fire(struct evpt_timer_wheel *wheel)
{
    unsigned slot = digit(wheel->tick, 0);
    if (!(wheel->occupied[0] >> slot & 1))
        return 0;
    /* aside first: the callbacks may stop any of these, and what they start goes elsewhere */
    struct evpt_list due;
    evpt_list_move(&due, &wheel->slots[0][slot]);
    wheel->occupied[0] &= ~(UINT64_C(1) << slot);
    warm(&due);
    size_t fired = 0;
    for (struct evpt_list *link; (link = evpt_list_pop_front(&due)); fired++) {
        struct evpt_timer *timer = EVPT_CONTAINER_OF(link, struct evpt_timer, link);
        wheel->count--;
        timer->fn(timer, timer->user);
    }
    return fired;
}

void evpt_timer_wheel_init(struct evpt_timer_wheel *wheel, uint64_t now_ns)
{
    *wheel =
        (struct evpt_timer_wheel){.tick = now_ns >> TICK_BITS, .earliest = now_ns >> TICK_BITS};
    for (unsigned level = 0; level < EVPT_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < EVPT_TIMER_SLOTS; slot++)
            evpt_list_init(&wheel->slots[level][slot]);
    }
    evpt_list_init(&wheel->beyond);
}

void evpt_timer_wheel_fini(struct evpt_timer_wheel *wheel)
{
    if (!wheel->beyond.next)
        return;
    for (unsigned level = 0; level < EVPT_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < EVPT_TIMER_SLOTS; slot++) {
            while (evpt_list_pop_front(&wheel->slots[level][slot]))
                wheel->count--;
        }
        wheel->occupied[level] = 0;
    }
    while (evpt_list_pop_front(&wheel->beyond))
        wheel->count--;
    assert(wheel->count == 0);
}

void evpt_timer_start(struct evpt_timer_wheel *wheel, struct evpt_timer *timer,
                      uint64_t deadline_ns, evpt_timer_fn fn, void *user)
{
    evpt_timer_stop(wheel, timer);
    /* rounded up: never early */
    uint64_t tick = (deadline_ns >> TICK_BITS) + (deadline_ns % EVPT_TIMER_TICK_NS != 0);
    timer->tick = tick > wheel->earliest ? tick : wheel->earliest;
    timer->fn = fn;
    timer->user = user;
    evpt_list_push_back(open_list(wheel, find_list(wheel, timer->tick)), &timer->link);
    wheel->count++;
}

void evpt_timer_stop(struct evpt_timer_wheel *wheel, struct evpt_timer *timer)
{
    if (!evpt_timer_is_running(timer))
        return;
    struct evpt_list *prev = timer->link.prev, *next = timer->link.next;
    evpt_list_remove(&timer->link);
    wheel->count--;
    if (prev != next)
        return;
    /* Both neighbours the same: it is the list's head, and the list is empty now. The head's place
     * in the wheel tells which slot that was; other lists (beyond, a batch being fired) have no
     * bit. */
    size_t offset = (size_t)((uintptr_t)prev - (uintptr_t)wheel->slots);
    if (offset < sizeof(wheel->slots)) {
        size_t index = offset / sizeof(wheel->slots[0][0]);
        wheel->occupied[index / EVPT_TIMER_SLOTS] &= ~(UINT64_C(1) << index % EVPT_TIMER_SLOTS);
    }
}

size_t evpt_timer_wheel_advance(struct evpt_timer_wheel *wheel, uint64_t now_ns)
{
    uint64_t last = now_ns >> TICK_BITS;
    if (last < wheel->tick)
        return 0;
    assert(wheel->earliest == wheel->tick); /* else called from a callback */
    size_t fired = 0;
    wheel->earliest = last + 1;
    for (uint64_t tick; (tick = next_tick(wheel)) <= last;) {
        move_to(wheel, tick);
        fired += fire(wheel);
    }
    move_to(wheel, last + 1);
    return fired;
}

uint64_t evpt_timer_wheel_next(const struct evpt_timer_wheel *wheel)
{
    if (!wheel->count)
        return UINT64_MAX;
    uint64_t tick = next_tick(wheel);
    return tick >> (64 - TICK_BITS) ? UINT64_MAX : tick << TICK_BITS;
}

size_t evpt_timer_wheel_count(const struct evpt_timer_wheel *wheel)
{
    return wheel->count;
}

static size_t check_list(const struct evpt_list *head)
{
    size_t count = 0;
    assert(head->next->prev == head && head->prev->next == head);
    for (const struct evpt_list *link = head->next; link != head; link = link->next, count++)
        assert(link->next->prev == link);
    return count;
}

void evpt_timer_wheel_check(const struct evpt_timer_wheel *wheel)
{
    size_t count = check_list(&wheel->beyond);
    for (unsigned level = 0; level < EVPT_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < EVPT_TIMER_SLOTS; slot++) {
            const struct evpt_list *head = &wheel->slots[level][slot];
            count += check_list(head);
            assert((wheel->occupied[level] >> slot & 1) == !evpt_list_is_empty(head));
            for (const struct evpt_list *link = head->next; link != head; link = link->next) {
                uint64_t tick = EVPT_CONTAINER_OF(link, const struct evpt_timer, link)->tick;
                assert(tick >= wheel->tick);
                /* the one slot for this tick: all digits above agree, that of the level is it */
                assert(tick >> DIGIT_BITS * (level + 1) == wheel->tick >> DIGIT_BITS * (level + 1));
                assert(digit(tick, level) == slot);
                assert(level == 0 || slot > digit(wheel->tick, level));
            }
        }
    }
    assert(wheel->earliest >= wheel->tick);
    /* in a callback, those of the same tick that have yet to fire are counted and in no slot */
    assert(wheel->earliest > wheel->tick ? wheel->count >= count : wheel->count == count);
}
