/* The VM host from inside: what is left behind, what happens without memory, and the slots of
 * waits. What a service sees is tested from outside (tests/node). */
#include "lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nothing is in progress in it. */
static void check_idle(struct lab *lab, uint32_t handle)
{
    struct evpt_vm *vm = lab_vm(lab, handle);
    ck_assert_uint_eq(atomic_load(&vm->task_count), 0);
    ck_assert_uint_eq(atomic_load(&vm->wait_count), 0);
    ck_assert_uint_eq(vm->late_count, 0);
    ck_assert(evpt_list_is_empty(&vm->running));
    ck_assert(evpt_list_is_empty(&vm->ready));
    ck_assert(evpt_list_is_empty(&vm->due));
    ck_assert_ptr_null(vm->current);
    ck_assert_ptr_null(vm->task);
    ck_assert_ptr_null(vm->setup);
    ck_assert_ptr_null(vm->answered);
    ck_assert_ptr_null(vm->ending);
}

/* ---- nothing is left behind ---- */

static const char busy_script[] =
    "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
    "kept = {}\n"
    "evpt.methods {\n"
    "  work = function(text)\n"
    "    for i = 1, 50 do\n"
    "      kept[#kept + 1] = ('%s %d'):format(text, i)\n"
    "      evpt.timeout(i, function() kept[i] = nil end)\n"
    "      evpt.fork(function(...) evpt.sleep(i % 5) kept[#kept + 1] = {...} end, i, text)\n"
    "      cluster.remoteCall(evpt.node(), evpt.name(), 'echo', {i}, function() end)\n"
    "    end\n"
    "    return evpt.call(evpt.self(), 'echo', text)\n"
    "  end,\n"
    "  echo = function(...) return ... end,\n"
    "}\n";

START_TEST(test_vm_gives_back_all_memory_when_it_ends)
{
    struct lab *lab = lab_new(0);
    long before = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t handle = lab_start(lab, "busy", busy_script);
        ck_assert_uint_gt(lab_vm(lab, handle)->memory.used, 10000);
        uint32_t first = lab_call(lab, handle, "work", "a"), last;
        if (i != 3)
            ck_assert_int_eq(lab_await(lab, first)->code, 0);
        last = lab_call(lab, handle, "work", "b");
        if (i == 0)
            ck_assert_int_eq(lab_await(lab, last)->code, 0);
        else if (i == 1)
            lab_pass(lab, 3); /* it ends in the middle of it */
        lab_kill(lab, handle);
        (void)lab_await(lab, last);
        (void)lab_await(lab, first);
        lab_pass(lab, 3);
        if (i == 0) /* tables of the node that stay have been made */
            before = support_leaked_allocations();
        ck_assert_int_eq(support_leaked_allocations(), before);
    }
    lab_free(lab);
}
END_TEST

/* 1000 tasks make 100 calls each, to a service that is often later with its answer than the caller
 * waits for it. */
START_TEST(test_vm_keeps_nothing_of_a_hundred_thousand_calls_with_late_answers)
{
    struct lab *lab = lab_new(0);
    uint32_t slow = lab_start(lab, "slow",
                              "local evpt = require 'evpt'\n"
                              "evpt.methods { work = function(i)\n"
                              "  if i % 3 > 0 then evpt.sleep(i % 37) end\n"
                              "  return i end }\n");
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    const char *counts = lab_run(lab, handle,
                                 "local evpt = require 'evpt'\n"
                                 "local ok, late, left, me = 0, 0, 1000, coroutine.running()\n"
                                 "for task = 1, 1000 do\n"
                                 "  evpt.fork(function()\n"
                                 "    for i = task, task + 99 do\n"
                                 "      local code, result = evpt.try('slow', 'work', i)\n"
                                 "      if code == 0 then assert(result == i) ok = ok + 1\n"
                                 "      else assert(code == 4, result) late = late + 1 end\n"
                                 "    end\n"
                                 "    left = left - 1\n"
                                 "    if left == 0 then evpt.wakeup(me) end\n"
                                 "  end)\n"
                                 "end\n"
                                 "evpt.wait()\n"
                                 "return ok .. ' ' .. late\n");
    int ok = 0, late = 0;
    ck_assert_int_eq(sscanf(counts, "%d %d", &ok, &late), 2);
    ck_assert_int_eq(ok + late, 100000);
    ck_assert_int_gt(ok, 10000);
    ck_assert_int_gt(late, 10000);
    lab_pass(lab, 50); /* the last answers */
    check_idle(lab, handle);
    check_idle(lab, slow);
    ck_assert_uint_le(lab_vm(lab, handle)->spare_count, EVPT_TASKS_SPARE_MAX);
    ck_assert_uint_le(lab_vm(lab, handle)->wait_capacity, 60000); /* slots are used again */
    lab_free(lab);
}
END_TEST

/* ---- late answers ---- */

static struct evpt_service *service_of(struct lab *lab, uint32_t handle)
{
    return evpt_registry_find(&lab->node.scheduler.registry, handle);
}

/* Keeps requests until it is told to answer them. */
static const char keeper_script[] = "local evpt = require 'evpt'\n"
                                    "local held = {}\n"
                                    "function _msg_dispatch_(source, session, method, n)\n"
                                    "  if method == 'hold' then\n"
                                    "    held[n] = { source, session }\n"
                                    "  elseif method == 'release' then\n"
                                    "    local from, to = n:match('(%d+) (%d+)')\n"
                                    "    for i = from // 1, to // 1 do\n"
                                    "      evpt.reply(held[i][1], held[i][2], 0, i)\n"
                                    "      held[i] = nil\n"
                                    "    end\n"
                                    "    evpt.reply(source, session, 0)\n"
                                    "  end\n"
                                    "end\n";

static void release(struct lab *lab, uint32_t keeper, int from, int to)
{
    char range[32];
    snprintf(range, sizeof(range), "%d %d", from, to);
    ck_assert_int_eq(lab_await(lab, lab_call(lab, keeper, "release", range))->code, 0);
    lab_turn(lab);
    lab_turn(lab);
}

START_TEST(test_vm_slot_of_a_call_that_timed_out_waits_for_its_late_answer)
{
    struct lab *lab = lab_new(0);
    uint32_t keeper = lab_start(lab, "keeper", keeper_script);
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    struct evpt_vm *vm = lab_vm(lab, handle);
    ck_assert_str_eq(
        lab_run(lab, handle,
                "local evpt, codes = require 'evpt', {}\n"
                "for i = 1, 4 do\n"
                "  evpt.fork(function() codes[i] = evpt.try('keeper', 'hold', i) end)\n"
                "end\n"
                "evpt.sleep(30)\n"
                "return table.concat(codes, ' ')\n"),
        "4 4 4 4");
    ck_assert_uint_eq(atomic_load(&vm->task_count), 0); /* only slots wait */
    ck_assert_uint_eq(vm->late_count, 4);
    /* they leave their list at its front, whatever the order of the answers */
    release(lab, keeper, 2, 2);
    ck_assert_uint_eq(vm->late_count, 4);
    release(lab, keeper, 1, 1);
    ck_assert_uint_eq(vm->late_count, 2);
    release(lab, keeper, 4, 4);
    ck_assert_uint_eq(vm->late_count, 2);
    release(lab, keeper, 3, 3);
    check_idle(lab, handle);
    lab_free(lab);
}
END_TEST

/* So many answers never come that the oldest are given up, and their slots go to others; then all
 * of them come after all. */
START_TEST(test_vm_late_answer_that_was_given_up_is_not_taken_for_another)
{
    enum { MORE = 200 };
    struct lab *lab = lab_new(0);
    char code[1024], expected[64];
    uint32_t keeper = lab_start(lab, "keeper", keeper_script);
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    struct evpt_vm *vm = lab_vm(lab, handle);
    snprintf(code, sizeof(code),
             "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
             "late, right, total = 0, 0, %d\n"
             "for i = 1, total do\n"
             "  cluster.remoteCall(evpt.node(), 'keeper', 'hold', i, function(_, code)\n"
             "    if code == 4 then late = late + 1 end\n"
             "  end, 20000)\n"
             "end\n",
             EVPT_WAITS_LATE_MAX + MORE);
    (void)lab_run(lab, handle, code);
    LAB_UNTIL(lab, atomic_load(&service_of(lab, keeper)->waiting) == 0); /* it has them all */
    support_skip_ms(20000);
    LAB_UNTIL(lab, evpt_list_is_empty(&vm->due) && vm->late_count == EVPT_WAITS_LATE_MAX);
    ck_assert_uint_eq(vm->late_count, EVPT_WAITS_LATE_MAX);
    snprintf(expected, sizeof(expected), "%d", EVPT_WAITS_LATE_MAX + MORE);
    ck_assert_str_eq(lab_run(lab, handle, "return late"), expected);
    (void)lab_run(
        lab, handle,
        "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
        "for i = total + 1, total + 200 do\n"
        "  cluster.remoteCall(evpt.node(), 'keeper', 'hold', i, function(_, code, result)\n"
        "    if code == 0 and result == i then right = right + 1 end\n"
        "  end, 60000)\n"
        "end\n");
    lab_pass(lab, 3);
    release(lab, keeper, 1, EVPT_WAITS_LATE_MAX + MORE);
    lab_pass(lab, 400);
    ck_assert_uint_eq(vm->late_count, 0);
    ck_assert_str_eq(lab_run(lab, handle, "return right"), "0");
    release(lab, keeper, EVPT_WAITS_LATE_MAX + MORE + 1, EVPT_WAITS_LATE_MAX + 2 * MORE);
    lab_pass(lab, 3);
    ck_assert_str_eq(lab_run(lab, handle, "return right"), "200");
    lab_pass(lab, 3);
    check_idle(lab, handle);
    lab_free(lab);
}
END_TEST

/* Its id comes from a number that is not used again; sessions are. */
START_TEST(test_vm_old_timer_cancels_no_other)
{
    struct lab *lab = lab_new(0);
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    ck_assert_str_eq(lab_run(lab, handle,
                             "local evpt = require 'evpt'\n"
                             "local old = evpt.timeout(1, function() end)\n"
                             "evpt.sleep(5)\n"
                             "local fired = 0\n"
                             "for i = 1, 10000 do\n"
                             "  local new = evpt.timeout(1000, function() end)\n"
                             "  assert(new ~= old)\n"
                             "  assert(not evpt.cancel(old))\n"
                             "  assert(evpt.cancel(new))\n"
                             "  assert(not evpt.cancel(new))\n"
                             "end\n"
                             "return 'fine'\n"),
                     "fine");
    lab_pass(lab, 3);
    check_idle(lab, handle);
    lab_free(lab);
}
END_TEST

/* ---- coroutines of scripts ---- */

static void check_run(struct lab *lab, uint32_t handle, const char *code, const char *expected)
{
    ck_assert_str_eq(lab_run(lab, handle, code), expected);
    lab_pass(lab, 60); /* whatever it has left behind */
    check_idle(lab, handle);
}

#define PRELUDE                                                                                    \
    "local evpt = require 'evpt'\n"                                                                \
    "local function ask(n) return evpt.call('echo', 'echo', n) end\n"

START_TEST(test_vm_waits_inside_coroutines_of_the_script)
{
    struct lab *lab = lab_new(0);
    lab_start(lab, "echo",
              "local evpt = require 'evpt'\n"
              "evpt.methods { echo = function(...) evpt.sleep(1) return ... end }\n");
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    /* a generator that calls: its own yields and those of the wait are kept apart */
    check_run(lab, handle,
              PRELUDE "local text = ''\n"
                      "for n in coroutine.wrap(function()\n"
                      "  for i = 1, 5 do coroutine.yield(ask(i)) evpt.sleep(1) end\n"
                      "end) do text = text .. n end\n"
                      "return text\n",
              "12345");
    /* deep, through protected calls */
    check_run(lab, handle,
              PRELUDE
              "local function deep(n)\n"
              "  if n == 0 then return ask('bottom') end\n"
              "  local ok, result = pcall(coroutine.wrap(function() return deep(n - 1) end))\n"
              "  return result\n"
              "end\n"
              "return deep(50)\n",
              "bottom");
    /* values in both directions, around a wait */
    check_run(lab, handle,
              PRELUDE "local co = coroutine.create(function(a, b)\n"
                      "  local c, d = coroutine.yield(ask(a), ask(b))\n"
                      "  return ask(c), nil, ask(d)\n"
                      "end)\n"
                      "local parts = table.pack(coroutine.resume(co, 1, 2))\n"
                      "local more = table.pack(coroutine.resume(co, 3, 4))\n"
                      "return table.concat({parts.n, parts[2], parts[3], more.n, more[2],\n"
                      "  tostring(more[3]), more[4], coroutine.status(co)}, ' ')\n",
              "3 1 2 4 3 nil 4 dead");
    /* errors on both sides of a wait */
    check_run(lab, handle,
              PRELUDE "local co = coroutine.create(function() ask(1) error('after') end)\n"
                      "local ok, problem = coroutine.resume(co)\n"
                      "local wrapped = coroutine.wrap(function()\n"
                      "  return evpt.call('echo', 'no_such_method')\n"
                      "end)\n"
                      "local ok2, failure = pcall(wrapped)\n"
                      "return tostring(ok) .. problem:match('after$') .. tostring(ok2) .. "
                      "failure.name\n",
              "falseafterfalseunknown_method");
    lab_free(lab);
}
END_TEST

/* A coroutine that waits belongs to the wait. Whoever resumes or closes it in between gets an
 * error, or it does: but nothing else happens. */
START_TEST(test_vm_survives_who_meddles_with_a_waiting_coroutine)
{
    struct lab *lab = lab_new(0);
    lab_start(lab, "echo",
              "local evpt = require 'evpt'\n"
              "evpt.methods { echo = function(...) evpt.sleep(5) return ... end }\n");
    uint32_t handle = lab_start(lab, "lab", LAB_RUN);
    static const char *const meddling[] = {
        "coroutine.resume(co)",
        "coroutine.resume(co, 0)",
        "coroutine.resume(co, 0, 'forged')",
        "coroutine.resume(co, 4, 'forged', 1)",
        "coroutine.resume(co, 'a', {}, print)",
        "coroutine.resume(co, table.unpack({}, 1, 200))",
        "coroutine.close(co)",
        "coroutine.close(co) coroutine.resume(co)",
        "coroutine.wrap(function() coroutine.resume(co) end)()",
        "co = nil collectgarbage()",
    };
    static const char *const waiting[] = {
        "evpt.call('echo', 'echo', 1)",
        "evpt.sleep(10)",
        "evpt.wait()",
        "coroutine.wrap(function() evpt.call('echo', 'echo', 1) end)()",
    };
    for (size_t w = 0; w < sizeof(waiting) / sizeof(waiting[0]); w++) {
        for (size_t m = 0; m < sizeof(meddling) / sizeof(meddling[0]); m++) {
            char code[1024];
            snprintf(code, sizeof(code),
                     "local evpt = require 'evpt'\n"
                     "co = coroutine.create(function() %s end)\n"
                     "local root\n"
                     "evpt.fork(function() root = coroutine.running() coroutine.resume(co) end)\n"
                     "evpt.sleep(1)\n"
                     "pcall(function() %s end)\n"
                     "evpt.sleep(20)\n"
                     "if root then evpt.wakeup(root) end\n"
                     "return 'fine'\n",
                     waiting[w], meddling[m]);
            ck_assert_str_eq(lab_run(lab, handle, code), "fine");
            lab_pass(lab, 30);
        }
        /* the task itself, from outside */
        for (size_t m = 0; m < sizeof(meddling) / sizeof(meddling[0]); m++) {
            char code[1024];
            snprintf(code, sizeof(code),
                     "local evpt = require 'evpt'\n"
                     "evpt.fork(function() co = coroutine.running() %s end)\n"
                     "evpt.sleep(1)\n"
                     "pcall(function() %s end)\n"
                     "evpt.sleep(20)\n"
                     "return 'fine'\n",
                     waiting[w], meddling[m]);
            ck_assert_str_eq(lab_run(lab, handle, code), "fine");
            lab_pass(lab, 30);
        }
    }
    ck_assert_str_eq(lab_run(lab, handle, "return 'alive'"), "alive");
    lab_free(lab);
}
END_TEST

/* ---- ends ---- */

START_TEST(test_vm_that_ends_answers_each_task_once)
{
    struct lab *lab = lab_new(0);
    uint32_t calls[100];
    uint32_t handle = lab_start(lab, "waiter",
                                "local evpt = require 'evpt'\n"
                                "local count = 0\n"
                                "evpt.methods { wait = function(how)\n"
                                "  count = count + 1\n"
                                "  if how == 'exit' then evpt.exit() end\n"
                                "  evpt.wait()\n"
                                "end }\n");
    for (int i = 0; i < 100; i++)
        calls[i] = lab_call(lab, handle, "wait", i == 60 ? "exit" : "");
    for (int i = 0; i < 100; i++) {
        const struct lab_outcome *outcome = lab_await(lab, calls[i]);
        ck_assert_int_eq(outcome->code, i <= 60 ? EVPT_CODE_FAILED : EVPT_CODE_UNKNOWN_SERVICE);
    }
    ck_assert_ptr_null(evpt_registry_find(&lab->node.scheduler.registry, handle));
    lab_free(lab);
}
END_TEST

/* Finalizers run when the state is closed: what they do then finds nobody, and leaves nothing. */
START_TEST(test_vm_finalizers_at_the_end_may_do_anything)
{
    struct lab *lab = lab_new(0);
    static const char *const deeds[] = {
        "evpt.send(evpt.self(), 'x')",
        "evpt.send('other', 'x', {1, 2, 3})",
        "evpt.call('other', 'x')",
        "evpt.fork(function() end)",
        "evpt.timeout(5, function() end)",
        "evpt.sleep(5)",
        "evpt.exit()",
        "evpt.kill(evpt.self())",
        "error('in a finalizer')",
        "cluster.remoteCall(evpt.node(), 'other', 'x', {}, function() end)",
        "cluster.send('nowhere', 'a', 'b')",
        "setmetatable({}, {__gc = function() evpt.fork(function() end) end})",
        "coroutine.wrap(function() evpt.fork(function() end) coroutine.yield() end)()",
    };
    lab_start(lab, "other", "require 'evpt'.methods { x = function() end }\n");
    for (size_t i = 0; i < sizeof(deeds) / sizeof(deeds[0]); i++) {
        char script[512];
        snprintf(script, sizeof(script),
                 "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
                 "anchor = setmetatable({}, {__gc = function() %s end})\n",
                 deeds[i]);
        uint32_t handle = lab_start(lab, "last", script);
        lab_kill(lab, handle);
        lab_pass(lab, 10);
    }
    lab_free(lab);
}
END_TEST

/* ---- too little memory ---- */

#define LIMIT (3 << 20)

/* Fills its memory up to a rest of so many bytes, does something, and gives it back. */
static const char fat_script[] =
    "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
    "local held\n"
    "local function fill(rest)\n"
    "  held = {}\n"
    "  for size = 16, 4, -1 do\n" /* as much as goes in, in pieces that get smaller */
    "    while pcall(function() held[#held + 1] = ('x'):rep(1 << size) .. #held end) do end\n"
    "  end\n"
    "  while rest > 0 and #held > 0 do\n"
    "    rest = rest - #held[#held]\n"
    "    held[#held] = nil\n"
    "  end\n"
    "end\n"
    "local deeds = {\n"
    "  nothing = function() end,\n"
    "  fork = function() for i = 1, 20 do evpt.fork(evpt.sleep, 1) end end,\n"
    "  timers = function() for i = 1, 20 do evpt.timeout(i % 3, function() end) end end,\n"
    "  call = function() return evpt.call('echo', 'echo', ('y'):rep(100)) end,\n"
    "  large = function() return evpt.call('echo', 'large', 100000) end,\n"
    "  calls = function()\n"
    "    for i = 1, 20 do\n"
    "      cluster.remoteCall(evpt.node(), 'echo', 'echo', { i }, function() end)\n"
    "    end\n"
    "  end,\n"
    "  late = function() return evpt.try('echo', 'never') end,\n"
    "  nested = function()\n"
    "    return coroutine.wrap(function() return evpt.call('echo', 'echo', 1) end)()\n"
    "  end,\n"
    "  raise = function() error({}) end,\n"
    "  raise_text = function() error(('z'):rep(300)) end,\n"
    "  results = function() return { 'a', { 'b', { 'c' } } } end,\n"
    "  start = function() return evpt.start('no_such_script') end,\n"
    "}\n"
    "evpt.methods {\n"
    "  deed = function(what)\n"
    "    local name, rest = what:match('(%S+) (%d+)')\n"
    "    fill(rest // 1)\n"
    "    return deeds[name]()\n"
    "  end,\n"
    "  again = function(name) return deeds[name]() end,\n"
    "  free = function() held = nil collectgarbage() return 'free' end,\n"
    "}\n";

static const char *const deeds[] = {"nothing", "fork",       "timers",  "call",
                                    "large",   "calls",      "late",    "nested",
                                    "raise",   "raise_text", "results", "start"};
enum { DEEDS = sizeof(deeds) / sizeof(deeds[0]) };

static const char echo_script[] = "local evpt = require 'evpt'\n"
                                  "evpt.methods {\n"
                                  "  echo = function(...) return ... end,\n"
                                  "  large = function(n) return ('x'):rep(n) end,\n"
                                  "  never = function() evpt.wait() end,\n"
                                  "}\n";

START_TEST(test_vm_over_its_limit_gets_errors_and_its_callers_get_answers)
{
    struct lab *lab = lab_new(LIMIT);
    uint32_t echo = lab_start(lab, "echo", echo_script);
    for (int rest = 0; rest <= 40000; rest = rest ? rest * 3 : 500) {
        for (size_t i = 0; i < DEEDS; i++) {
            char what[64];
            uint32_t handle = lab_start(lab, "fat", fat_script);
            snprintf(what, sizeof(what), "%s %d", deeds[i], rest);
            uint32_t first = lab_call(lab, handle, "deed", what);
            (void)lab_await(lab, first); /* any answer is fine, none is not */
            uint32_t more[4];
            for (int k = 0; k < 4; k++)
                more[k] = lab_call(lab, handle, "again", deeds[(i + (size_t)k) % DEEDS]);
            for (int k = 0; k < 4; k++)
                (void)lab_await(lab, more[k]);
            ck_assert_uint_le(lab_vm(lab, handle)->memory.used, LIMIT);
            lab_pass(lab, 30);
            /* a request may find no room even for its coroutine, but only as long as that is so */
            uint32_t freed = lab_call(lab, handle, "free", "");
            const struct lab_outcome *outcome = lab_await(lab, freed);
            if (rest >= 10000)
                ck_assert_msg(outcome->code == 0, "%s: %s", what, outcome->text);
            if (outcome->code == 0) {
                lab_pass(lab, 100);
                ck_assert_msg(atomic_load(&lab_vm(lab, handle)->task_count) == 0, "%s", what);
                ck_assert_msg(atomic_load(&lab_vm(lab, handle)->wait_count) ==
                                  lab_vm(lab, handle)->late_count,
                              "%s: %u waits", what, atomic_load(&lab_vm(lab, handle)->wait_count));
                uint32_t after = lab_call(lab, handle, "again", "call");
                ck_assert_int_eq(lab_await(lab, after)->code, 0);
            }
            lab_kill(lab, handle);
        }
    }
    ck_assert_int_eq(lab_await(lab, lab_call(lab, echo, "echo", "x"))->code, 0);
    lab_free(lab);
}
END_TEST

START_TEST(test_vm_message_that_does_not_fit_is_refused)
{
    struct lab *lab = lab_new(LIMIT);
    char *large = malloc(LIMIT + 1);
    memset(large, 'x', LIMIT);
    large[LIMIT] = 0;
    uint32_t handle = lab_start(lab, "echo", echo_script);
    for (int i = 0; i < 3; i++) {
        const struct lab_outcome *outcome = lab_await(lab, lab_call(lab, handle, "echo", large));
        ck_assert_int_eq(outcome->code, EVPT_CODE_OVERLOADED);
        ck_assert_ptr_nonnull(strstr(outcome->text, "lua_memory_max"));
    }
    ck_assert_int_eq(lab_await(lab, lab_call(lab, handle, "echo", "small"))->code, 0);
    lab_pass(lab, 3);
    check_idle(lab, handle);
    free(large);
    lab_free(lab);
}
END_TEST

START_TEST(test_vm_limit_too_small_for_a_state_is_an_answer)
{
    for (size_t limit = 1000; limit < 200000; limit = limit * 5 / 4) {
        struct lab *lab = lab_new(limit);
        uint32_t handle = lab_spawn(lab, "echo", echo_script);
        uint32_t started = lab_call(lab, handle, ".start", "echo");
        (void)lab_await(lab, started);
        (void)lab_await(lab, lab_call(lab, handle, "echo", "x"));
        lab_free(lab);
    }
}
END_TEST

/* A life, with the nth allocation refused: each call is answered, once, and nothing is left. */
static bool live(struct lab *lab, long nth)
{
    uint32_t calls[DEEDS + 2], count = 0;
    support_fail_allocation(nth);
    uint32_t handle = lab_spawn(lab, "fat", fat_script);
    if (handle) {
        calls[count++] = lab_call(lab, handle, ".start", "fat");
        (void)lab_await(lab, calls[0]);
        for (size_t i = 0; i < DEEDS; i++) {
            if (strcmp(deeds[i], "start") != 0) /* the launcher is not there */
                calls[count++] = lab_call(lab, handle, "again", deeds[i]);
        }
        for (uint32_t i = 0; i < count; i++)
            (void)lab_await(lab, calls[i]);
        lab_pass(lab, 60);
        bool failed = support_allocation_failed();
        support_fail_allocation(0);
        if (evpt_registry_find(&lab->node.scheduler.registry, handle)) {
            if (lab->outcomes[calls[0]].code == 0) {
                ck_assert_int_eq(lab_await(lab, lab_call(lab, handle, "again", "call"))->code, 0);
                lab_pass(lab, 3);
                struct evpt_vm *vm = lab_vm(lab, handle);
                ck_assert_msg(atomic_load(&vm->task_count) == 0, "allocation %ld: %u tasks", nth,
                              atomic_load(&vm->task_count));
                ck_assert_msg(atomic_load(&vm->wait_count) == vm->late_count,
                              "allocation %ld: %u waits", nth, atomic_load(&vm->wait_count));
            }
            lab_kill(lab, handle);
        }
        return failed;
    }
    support_fail_allocation(0);
    return true;
}

START_TEST(test_vm_survives_the_refusal_of_any_allocation)
{
    struct lab *lab = lab_new(0);
    lab_start(lab, "echo", echo_script);
    ck_assert(!live(lab, 0));
    lab_pass(lab, 10);
    int lives = 0;
    for (bool failed = true; failed; lives++) {
        failed = live(lab, lives + 1);
        lab->calls = 0; /* all have been answered */
        memset(lab->outcomes, 0, sizeof(lab->outcomes));
        lab_pass(lab, 5);
        ck_assert_int_lt(lives, 100000);
    }
    ck_assert_int_gt(lives, 250);
    lab_free(lab); /* and the fixture looks for leaks */
}
END_TEST

SUPPORT_MAIN("vm", test_vm_gives_back_all_memory_when_it_ends,
             test_vm_keeps_nothing_of_a_hundred_thousand_calls_with_late_answers,
             test_vm_slot_of_a_call_that_timed_out_waits_for_its_late_answer,
             test_vm_late_answer_that_was_given_up_is_not_taken_for_another,
             test_vm_old_timer_cancels_no_other, test_vm_waits_inside_coroutines_of_the_script,
             test_vm_survives_who_meddles_with_a_waiting_coroutine,
             test_vm_that_ends_answers_each_task_once,
             test_vm_finalizers_at_the_end_may_do_anything,
             test_vm_over_its_limit_gets_errors_and_its_callers_get_answers,
             test_vm_message_that_does_not_fit_is_refused,
             test_vm_limit_too_small_for_a_state_is_an_answer,
             test_vm_survives_the_refusal_of_any_allocation)
