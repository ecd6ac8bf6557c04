/* Runs a piece of Lua that is data more than program: a configuration file.
 *
 * It gets a VM of its own without any library, an empty table for its globals, and limits; then a
 * function of the caller looks at what it has set. Everything happens in protected mode and the VM
 * is gone afterwards.
 *
 *     static void read(lua_State *L, void *user) { lua_getfield(L, 1, "workers"); ... }
 *     evpt_sandbox_run("evpt.lua", text, size, &limits, read, &result, error);
 *
 * Any thread.
 */
#ifndef EVPT_LUA_SANDBOX_H
#define EVPT_LUA_SANDBOX_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVPT_SANDBOX_ERROR_SIZE 5120 /* a path of 4096 bytes and a message */

struct evpt_sandbox_limits {
    size_t memory; /* bytes that the VM may hold */
    uint64_t instructions;
    /* CPU time, for what one instruction can cost: comparing two strings of megabytes is one. */
    uint64_t cpu_ns;
    /* A global whose `NAME = nil` means something other than its absence: it is then `false`. NULL:
     * none. */
    const char *nil_is_false;
};

/* Is called with the table of globals at stack index 1 and nothing else. It may raise: what it
 * makes outside of Lua must belong to `user`. */
typedef void (*evpt_sandbox_fn)(lua_State *L, void *user);

/* Runs `text` (NULL: nothing), then `read`. 0, or -EVPT_EFORMAT with a line in `error`: "NAME:LINE:
 * message" for what is wrong in the text, "NAME: message" for limits and for what `read` raised. */
int evpt_sandbox_run(const char *name, const char *text, size_t size,
                     const struct evpt_sandbox_limits *limits, evpt_sandbox_fn read, void *user,
                     char error[EVPT_SANDBOX_ERROR_SIZE]);

/* For use in `read`: pushes the value of a Lua literal (number, true, false, nil, string in quotes
 * or long brackets, table constructor), under the same limits and with nothing but itself in reach.
 * False, with nothing pushed, where the text is none. */
bool evpt_sandbox_literal(lua_State *L, const char *text);

#endif
