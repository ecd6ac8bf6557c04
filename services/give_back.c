#include "services/give_back.h"

static void give(struct evpt_give_back *give_back, size_t before)
{
    evpt_sys_give_back();
    size_t after = evpt_sys_resident();
    bool much = before > after + EVPT_GIVE_BACK_GROWTH;
    if (much)
        give_back->pause = 1;
    else if (give_back->pause < EVPT_GIVE_BACK_PAUSE_MAX)
        give_back->pause *= 2;
    give_back->wait = give_back->pause;
    give_back->last = after;
    if (after < give_back->least)
        give_back->least = after;
}

static void look(struct evpt_timer *timer, void *user)
{
    struct evpt_give_back *give_back = user;
    uint64_t cpu_ns = evpt_sys_process_cpu_ns(), used_ns = cpu_ns - give_back->cpu_ns;
    bool quiet = used_ns * EVPT_GIVE_BACK_QUIET < EVPT_GIVE_BACK_MS * EVPT_NS_PER_MS;
    size_t resident = evpt_sys_resident();
    give_back->cpu_ns = cpu_ns;
    if (resident > give_back->last + EVPT_GIVE_BACK_GROWTH)
        give_back->wait = give_back->pause = 1;
    if (give_back->wait > 0)
        give_back->wait--;
    if (quiet && give_back->wait == 0 && resident > give_back->least + EVPT_GIVE_BACK_GROWTH)
        give(give_back, resident);
    evpt_loop_timer(give_back->loop, timer, EVPT_GIVE_BACK_MS * EVPT_NS_PER_MS, look, give_back);
}

void evpt_give_back_start(struct evpt_give_back *give_back, struct evpt_loop *loop)
{
    size_t resident = evpt_sys_resident();
    *give_back = (struct evpt_give_back){.loop = loop,
                                         .cpu_ns = evpt_sys_process_cpu_ns(),
                                         .least = resident,
                                         .last = resident,
                                         .pause = 1};
    evpt_loop_timer(loop, &give_back->timer, EVPT_GIVE_BACK_MS * EVPT_NS_PER_MS, look, give_back);
}

void evpt_give_back_stop(struct evpt_give_back *give_back)
{
    if (give_back->loop)
        evpt_timer_stop(evpt_loop_wheel(give_back->loop), &give_back->timer);
    give_back->loop = NULL;
}
