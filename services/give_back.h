/* Memory that a node does not use any more goes back to the system.
 *
 * The allocator keeps what is freed, for whoever asks next: after 64 MiB have waited for a peer
 * that did not read, the process stays as large as that. Asking the allocator to give everything
 * back costs a walk through all of its free blocks, milliseconds in which other threads wait for
 * memory. So it is asked when the node is quiet (a busy one uses that memory again anyway), and
 * only where there may be much to give: when the process has grown, and then, since what is in use
 * now may be free soon, after twice the time again, and so on.
 *
 *     evpt_give_back_start(&node->give_back, loop); ... evpt_give_back_stop(&node->give_back);
 */
#ifndef EVPT_SERVICES_GIVE_BACK_H
#define EVPT_SERVICES_GIVE_BACK_H

#include "reactor/loop.h"

#define EVPT_GIVE_BACK_MS 2000
#define EVPT_GIVE_BACK_GROWTH ((size_t)4 << 20) /* less is not worth the walk */
#define EVPT_GIVE_BACK_QUIET 20                 /* quiet: under one 20th of one processor */

#define EVPT_GIVE_BACK_PAUSE_MAX 1024 /* half an hour */

struct evpt_give_back {
    /* private */
    struct evpt_loop *loop;
    struct evpt_timer timer;
    uint64_t cpu_ns;      /* of the process, at the last look */
    size_t least, last;   /* resident: the least ever; what the last time has left */
    unsigned pause, wait; /* looks between two times; until the next one */
};

/* Looks every EVPT_GIVE_BACK_MS, on a loop that may be held up by it. */
void evpt_give_back_start(struct evpt_give_back *give_back, struct evpt_loop *loop);
/* Zeroed is fine. */
void evpt_give_back_stop(struct evpt_give_back *give_back);

#endif
