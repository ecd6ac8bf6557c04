/* Messages in, bytes out.
 *
 * A message of one frame goes straight into the stream. A longer one goes into its lane, and so
 * does whatever is sent in that lane before it has left: order within a lane is order of arrival,
 * always.
 *
 * Lanes with something to send are in one of two queues. The first EVPT_SESSION_LANES_ACTIVE are
 * taking turns (`turns`): a frame, then to the back. When a lane has finished a message, it goes to
 * the back of those that wait for a place among them (`waiting`), if it has more. So at most
 * EVPT_SESSION_LANES_ACTIVE messages are in parts at any time.
 *
 * A part is a reference into its message. The reference of the last part owns the message; until
 * that one is queued the lane owns it, and must not free it while the stream may still read from
 * it.
 */
#include "cluster/session.h"

#include "cluster/session_private.h"
#include "reactor/error.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

/* Chains stay short: a lane begins with more than 32 KiB, so send_buffer_max (64 MiB) allows for
 * about 2048 of them. */
#define LANE_BUCKETS 256

struct lane {
    struct evpt_list link;             /* in turns or waiting */
    struct lane *next;                 /* in its bucket */
    uint64_t number;                   /* 0: on its own, in no bucket */
    struct evpt_message *first, *last; /* linked by node.next */
    uint32_t offset;                   /* bytes of `first` that are in the stream */
};

struct evpt_session_lanes {
    struct evpt_list turns, waiting;
    uint32_t turn_count;
    uint32_t count;
    size_t bytes; /* data that are not in the stream yet, and a header for each message */
    struct lane *buckets[LANE_BUCKETS];
};

/* ---- lanes ---- */

static struct lane **bucket_of(struct evpt_session_lanes *lanes, uint64_t number)
{
    /* the upper half of a product depends on all bits: senders put handles in upper bits, too */
    return &lanes->buckets[(number * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}

static struct lane *find_lane(const struct evpt_session *session, uint64_t number)
{
    if (!session->lanes || number == 0)
        return NULL;
    struct lane *lane = *bucket_of(session->lanes, number);
    while (lane && lane->number != number)
        lane = lane->next;
    return lane;
}

/* Lanes that wait get a place among those that take turns. */
static void fill_turns(struct evpt_session_lanes *lanes)
{
    while (lanes->turn_count < EVPT_SESSION_LANES_ACTIVE) {
        struct evpt_list *link = evpt_list_pop_front(&lanes->waiting);
        if (!link)
            return;
        evpt_list_push_back(&lanes->turns, link);
        lanes->turn_count++;
    }
}

static struct evpt_session_lanes *new_lanes(void)
{
    struct evpt_session_lanes *lanes = evpt_sys_zalloc(sizeof *lanes);
    if (!lanes)
        return NULL;
    evpt_list_init(&lanes->turns);
    evpt_list_init(&lanes->waiting);
    return lanes;
}

/* An empty lane at the end of those that wait; NULL: out of memory. */
static struct lane *add_lane(struct evpt_session *session, uint64_t number)
{
    if (!session->lanes && !(session->lanes = new_lanes()))
        return NULL;
    struct evpt_session_lanes *lanes = session->lanes;
    struct lane *lane = evpt_sys_zalloc(sizeof *lane);
    if (!lane)
        return NULL; /* a table without lanes is freed by the next pump, or with the session */
    lane->number = number;
    if (number != 0) {
        struct lane **bucket = bucket_of(lanes, number);
        lane->next = *bucket;
        *bucket = lane;
    }
    lanes->count++;
    evpt_list_push_back(&lanes->waiting, &lane->link);
    fill_turns(lanes);
    return lane;
}

/* An empty lane in neither queue goes. */
static void remove_lane(struct evpt_session_lanes *lanes, struct lane *lane)
{
    if (lane->number != 0) {
        struct lane **at = bucket_of(lanes, lane->number);
        while (*at != lane)
            at = &(*at)->next;
        *at = lane->next;
    }
    lanes->count--;
    evpt_sys_free(lane);
}

static struct evpt_message *next_message(const struct evpt_message *message)
{
    return message->node.next ? evpt_message_from_node(message->node.next) : NULL;
}

static void free_queue(struct evpt_list *queue)
{
    struct evpt_list *link;
    while ((link = evpt_list_pop_front(queue))) {
        struct lane *lane = EVPT_CONTAINER_OF(link, struct lane, link);
        while (lane->first) {
            struct evpt_message *message = lane->first;
            lane->first = next_message(message);
            evpt_message_free(message);
        }
        evpt_sys_free(lane);
    }
}

void evpt_session_lanes_free(struct evpt_session *session)
{
    if (!session->lanes)
        return;
    free_queue(&session->lanes->turns);
    free_queue(&session->lanes->waiting);
    evpt_sys_free(session->lanes);
    session->lanes = NULL;
}

/* ---- frames ---- */

static void release_message(void *user)
{
    evpt_message_free(user);
}

static void release_nothing(void *user)
{
    (void)user; /* the last part releases the message */
}

/* Why the stream has no room. */
static int write_error(const struct evpt_session *session)
{
    return evpt_stream_is_open(&session->stream) ? -ENOMEM : -EVPT_ECLOSED;
}

/* One frame. Takes the message over. */
static int write_whole(struct evpt_session *session, struct evpt_message *message)
{
    size_t size = message->size;
    if (size > EVPT_SESSION_COPY_MAX) {
        uint8_t *header = message->data - EVPT_FRAME_HEADER; /* in the headroom */
        evpt_frame_write_header(header, EVPT_FRAME_WHOLE, message->session, size);
        return evpt_stream_write_ref(&session->stream, header, EVPT_FRAME_HEADER + size,
                                     release_message, message);
    }
    uint8_t *frame = evpt_stream_reserve(&session->stream, EVPT_FRAME_HEADER + size);
    if (frame) {
        evpt_frame_write_header(frame, EVPT_FRAME_WHOLE, message->session, size);
        memcpy(frame + EVPT_FRAME_HEADER, message->data, size);
    }
    evpt_message_free(message);
    return frame ? 0 : write_error(session);
}

/* `size` bytes from `offset`; the last part takes the message over. After a failure the stream may
 * end in half a frame. */
static int write_part(struct evpt_session *session, struct evpt_message *message, size_t offset,
                      size_t size)
{
    bool last = offset + size == message->size;
    enum evpt_frame_flag flag = offset == 0 ? EVPT_FRAME_FIRST
                                : last      ? EVPT_FRAME_LAST
                                            : EVPT_FRAME_MIDDLE;
    uint8_t *header = evpt_stream_reserve(&session->stream, EVPT_FRAME_HEADER);
    if (!header) {
        if (last)
            evpt_message_free(message);
        return write_error(session);
    }
    evpt_frame_write_header(header, flag, message->session, size);
    return evpt_stream_write_ref(&session->stream, message->data + offset, size,
                                 last ? release_message : release_nothing, message);
}

/* ---- pumping ---- */

/* The lane is done with its first message: the next one waits for its place. */
static void finish_message(struct evpt_session_lanes *lanes, struct lane *lane)
{
    lane->offset = 0;
    lanes->turn_count--;
    if (lane->first)
        evpt_list_push_back(&lanes->waiting, &lane->link);
    else
        remove_lane(lanes, lane);
    fill_turns(lanes);
}

/* One frame of the lane whose turn it is. */
static void write_turn(struct evpt_session *session)
{
    struct evpt_session_lanes *lanes = session->lanes;
    struct lane *lane = EVPT_CONTAINER_OF(evpt_list_pop_front(&lanes->turns), struct lane, link);
    struct evpt_message *message = lane->first;
    uint32_t number = message->session;
    size_t left = message->size - lane->offset;
    size_t size = left < EVPT_FRAME_DATA_MAX ? left : EVPT_FRAME_DATA_MAX;
    bool last = size == left;

    lanes->bytes -= size;
    if (last) { /* whoever queues the last byte owns the message */
        lanes->bytes -= EVPT_FRAME_HEADER;
        lane->first = next_message(message);
    }
    int error = last && lane->offset == 0 ? write_whole(session, message)
                                          : write_part(session, message, lane->offset, size);
    lane->offset += (uint32_t)size;
    if (last) {
        finish_message(lanes, lane);
    } else {
        evpt_list_push_back(&lanes->turns, &lane->link);
    }
    if (error) {
        evpt_session_fail(session, error, "out of memory for an outgoing message");
    } else if (last) {
        session->messages_out++;
        if (session->ops->on_queued)
            session->ops->on_queued(session, number, session->stream.queued_total, session->user);
    }
}

static bool may_write(const struct evpt_session *session)
{
    return (session->state == EVPT_SESSION_OPEN || session->state == EVPT_SESSION_FLUSHING) &&
           evpt_stream_is_open(&session->stream);
}

static void on_pump(struct evpt_deferred *deferred, void *user)
{
    struct evpt_session *session = user;
    evpt_session_enter(session);
    while (may_write(session) && session->lanes && session->lanes->count > 0 &&
           evpt_stream_queued(&session->stream) < EVPT_SESSION_HIGH_WATER)
        write_turn(session);
    if (session->lanes && session->lanes->count == 0)
        evpt_session_lanes_free(session);
    if (session->state == EVPT_SESSION_FLUSHING && !session->lanes)
        evpt_session_lanes_emptied(session);
    if (session->state == EVPT_SESSION_ENDING)
        evpt_session_try_shut(session);
    evpt_session_leave(session);
}

void evpt_session_pump_later(struct evpt_session *session)
{
    evpt_loop_defer(session->loop, &session->pump, on_pump, session);
}

/* ---- sending ---- */

static int enqueue(struct evpt_session *session, struct lane *lane, struct evpt_message *message)
{
    if (!lane && !(lane = add_lane(session, message->lane))) {
        evpt_message_free(message);
        return -ENOMEM;
    }
    message->node.next = NULL;
    if (lane->first)
        lane->last->node.next = &message->node;
    else
        lane->first = message;
    lane->last = message;
    session->lanes->bytes += message->size + EVPT_FRAME_HEADER;
    evpt_session_pump_later(session);
    return 0;
}

static int check_limits(const struct evpt_session *session, size_t size)
{
    if (!evpt_session_is_open(session))
        return -EVPT_ECLOSED;
    if (size > session->config->message_max || size > session->peer_message_max)
        return -EVPT_ETOOLARGE;
    if (evpt_session_queued(session) + size > session->config->send_buffer_max)
        return -EVPT_ELIMIT;
    return 0;
}

int evpt_session_send(struct evpt_session *session, struct evpt_message *message,
                      uint64_t *ret_position)
{
    assert(message->session != 0);
    int error = check_limits(session, message->size);
    if (error) {
        evpt_message_free(message);
        return error;
    }
    struct lane *lane = find_lane(session, message->lane);
    bool waits = lane || message->size > EVPT_FRAME_DATA_MAX;
    error = waits ? enqueue(session, lane, message) : write_whole(session, message);
    if (error)
        return error;
    if (!waits)
        session->messages_out++;
    if (ret_position)
        *ret_position = waits ? UINT64_MAX : session->stream.queued_total;
    return 0;
}

uint32_t evpt_session_lanes_count(const struct evpt_session *session)
{
    return session->lanes ? session->lanes->count : 0;
}

/* Every lane in one queue, with a message, found by its number; the sums are right. */
static uint32_t check_queue(const struct evpt_session *session, const struct evpt_list *queue,
                            bool turns, size_t *bytes)
{
    uint32_t count = 0;
    for (const struct evpt_list *link = queue->next; link != queue; link = link->next, count++) {
        const struct lane *lane = EVPT_CONTAINER_OF(link, struct lane, link);
        assert(lane->first && lane->offset <= lane->first->size);
        assert(lane->offset == 0 || turns);
        assert(lane->number == 0 || find_lane(session, lane->number) == lane);
        const struct evpt_message *message = lane->first, *last = NULL;
        *bytes -= lane->offset;
        for (; message; last = message, message = next_message(message))
            *bytes += message->size + EVPT_FRAME_HEADER;
        assert(lane->last == last);
    }
    return count;
}

void evpt_session_lanes_check(const struct evpt_session *session)
{
    const struct evpt_session_lanes *lanes = session->lanes;
    if (!lanes)
        return;
    size_t bytes = 0;
    uint32_t turns = check_queue(session, &lanes->turns, true, &bytes);
    uint32_t waiting = check_queue(session, &lanes->waiting, false, &bytes);
    assert(turns == lanes->turn_count && turns <= EVPT_SESSION_LANES_ACTIVE);
    assert(waiting == 0 || turns == EVPT_SESSION_LANES_ACTIVE);
    assert(turns + waiting == lanes->count);
    assert(bytes == lanes->bytes);
}

size_t evpt_session_queued(const struct evpt_session *session)
{
    return evpt_stream_queued(&session->stream) + (session->lanes ? session->lanes->bytes : 0);
}
