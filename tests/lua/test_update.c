/* Code update where memory runs out: all or nothing, at whatever point. What an update does is
 * tested from outside (tests/node/test_update.py). */
#include "lab.h"

#include "cluster/msgpack.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* %d: the version. Functions in every kind of place; those at the end come and go, so that tables
 * grow. */
static const char script_format[] =
    "local evpt, cluster = require 'evpt', require 'evpt.cluster'\n"
    "local version <const> = %d\n"
    "local calls, class = 0, {}\n"
    "class.__index = class\n"
    "function class.version() return version end\n"
    "local function inner() return version end\n"
    "function global() return version end\n"
    "function string.version() return version end\n"
    "local object, held = setmetatable({}, class), { inner }\n"
    "evpt.on_stop(function() return version end)\n"
    "evpt.methods {\n"
    "  versions = function()\n"
    "    calls = calls + 1\n"
    "    return version .. inner() .. held[1]() .. global() .. ('').version() ..\n"
    "      object.version() .. '/' .. calls\n"
    "  end,\n"
    "  fill = function(to)\n"
    "    local count = 0\n"
    "    for _ in pairs(class) do count = count + 1 end\n"
    "    for i = count + 1, to // 1 do class['filler' .. i] = i end\n"
    "  end,\n"
    "}\n";
static const char more_format[] = "evpt.methods { more_%d = function() return object end }\n"
                                  "function class.more_%d() end\n"
                                  "function global_%d() end\n";

enum { SCRIPT_SIZE = 4096, MORE = 9 }; /* MORE: enough for small tables to be made larger */
/* A power of two: the table is full, and one more field takes the change, which needs next to
 * nothing else, 1.5 MiB. */
#define FULL "32768"

static void write_script(char text[SCRIPT_SIZE], int version)
{
    int size = snprintf(text, SCRIPT_SIZE, script_format, version);
    for (int i = 0; version == 2 && i < MORE; i++)
        size += snprintf(text + size, (size_t)(SCRIPT_SIZE - size), more_format, i, i, i);
    ck_assert_int_lt(size, SCRIPT_SIZE);
}

/* Lets the service take the text with so many bytes more than it has now; 0: with as many as it
 * likes. */
static void update(struct lab *lab, uint32_t handle, const char *text, size_t memory)
{
    uint8_t arguments[SCRIPT_SIZE + 128];
    struct evpt_writer writer;
    char path[64];
    struct evpt_vm_memory *of_vm = &lab_vm(lab, handle)->memory;
    snprintf(path, sizeof(path), "%s/s.lua", lab->folder); /* as it was loaded from */
    evpt_writer_init(&writer, arguments, sizeof(arguments));
    CHECK(evpt_write_array(&writer, 4) && evpt_write_str(&writer, "apply", 5) &&
          evpt_write_bool(&writer, true) && evpt_write_str(&writer, path, strlen(path)) &&
          evpt_write_str(&writer, text, strlen(text)));
    (void)lua_gc(lab_vm(lab, handle)->L, LUA_GCCOLLECT, 0); /* always succeeds */
    of_vm->limit = memory ? of_vm->used + memory : 0;
    (void)lab_await(
        lab, lab_call_packed(lab, handle, ".update", arguments, (size_t)(writer.at - arguments)));
    of_vm->limit = 0;
}

/* The version that all its functions have; fails the test where they differ, or where a call has
 * been forgotten. */
static int version_of(struct lab *lab, uint32_t handle, int calls)
{
    char want[64];
    const struct lab_outcome *outcome = lab_await(lab, lab_call(lab, handle, "versions", ""));
    int version = outcome->text[0] - '0';
    snprintf(want, sizeof(want), "%d%d%d%d%d%d/%d", version, version, version, version, version,
             version, calls);
    ck_assert_msg(outcome->code == 0 && strcmp(outcome->text, want) == 0, "%s and not %s",
                  outcome->text, want);
    return version;
}

static void reset_calls(struct lab *lab)
{
    lab->calls = 0; /* all have been answered */
    memset(lab->outcomes, 0, sizeof(lab->outcomes));
}

START_TEST(test_update_is_all_or_nothing_wherever_memory_runs_out)
{
    struct lab *lab = lab_new(0);
    char old[SCRIPT_SIZE], new[SCRIPT_SIZE];
    write_script(old, 1);
    write_script(new, 2);
    uint32_t handle = lab_start(lab, "s", old);
    (void)lab_await(lab, lab_call(lab, handle, "fill", FULL));
    int calls = 0, failed = 0;
    size_t enough = 0;
    for (size_t memory = 2000; !enough; memory = memory * 17 / 16) {
        update(lab, handle, new, memory);
        if (version_of(lab, handle, ++calls) == 2)
            enough = memory;
        failed += !enough;
        reset_calls(lab);
    }
    ck_assert_uint_gt(enough, 1 << 20); /* what was refused last was the change */
    ck_assert_int_gt(failed, 50);
    update(lab, handle, old, 0);
    ck_assert_int_eq(version_of(lab, handle, ++calls), 1);
    lab_free(lab);
}
END_TEST

START_TEST(test_update_leaves_no_memory_behind)
{
    struct lab *lab = lab_new(0);
    char text[2][SCRIPT_SIZE];
    write_script(text[0], 1);
    write_script(text[1], 2);
    uint32_t handle = lab_start(lab, "s", text[0]);
    size_t used[2];
    for (int i = 1; i <= 200; i++) {
        update(lab, handle, text[i % 2], 0);
        if (i <= 20 || i > 198) /* tables have their size by then */
            used[i % 2] = i > 198 ? lab_vm(lab, handle)->memory.used - used[i % 2]
                                  : lab_vm(lab, handle)->memory.used;
        ck_assert_int_eq(version_of(lab, handle, i), i % 2 + 1);
        reset_calls(lab);
    }
    ck_assert_uint_eq(used[0], 0);
    ck_assert_uint_eq(used[1], 0);
    lab_free(lab);
}
END_TEST

SUPPORT_MAIN("update", test_update_is_all_or_nothing_wherever_memory_runs_out,
             test_update_leaves_no_memory_behind)
