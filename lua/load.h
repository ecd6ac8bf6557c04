/* What the loaders of evpt.lua and of the node list have in common: files, problems, keys. Private
 * to the two. */
#ifndef EVPT_LUA_LOAD_H
#define EVPT_LUA_LOAD_H

#include "lua/config_load.h"
#include "lua/sandbox.h"

struct evpt_load {
    const char *source; /* what problems name: the file's path as given, or "--set" */
    evpt_problem_fn problem;
    void *user;
    size_t problem_count;
};

/* Reports "SOURCE: KEY: text", as one line whatever the text holds; key NULL: "SOURCE: text". */
void evpt_load_problem(struct evpt_load *load, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reports a line that already names its source. */
void evpt_load_problem_line(struct evpt_load *load, const char *line);

/* How a value is shown in a problem: "text" (cut), 17, 1.5, true, nothing, a table, a function. */
#define EVPT_LOAD_SHOWN_SIZE 96
const char *evpt_load_show(lua_State *L, int index, char shown[EVPT_LOAD_SHOWN_SIZE]);
/* Reports "SOURCE: KEY: expected WHAT, got VALUE". */
void evpt_load_expected(struct evpt_load *load, lua_State *L, int index, const char *key,
                        const char *what);

/* The value as a string, if it is one and has no zero byte, or NULL. It lives as long as the value.
 */
const char *evpt_load_text(lua_State *L, int index);

/* The string keys of a table, sorted by bytes, without those that hold a zero byte. Pushes the
 * userdata that they lie in; they are valid while it and the table's entries are. */
const char **evpt_load_keys(lua_State *L, int table, size_t *ret_count);
/* Reports every other key, except the integers 1..sequence; `prefix` names the table ("" for the
 * globals). */
void evpt_load_refuse_odd_keys(struct evpt_load *load, lua_State *L, int table,
                               lua_Integer sequence, const char *prefix, const char *problem);

/* How many bytes must be put in, taken out, exchanged or swapped with their neighbour to make one
 * of the other; SIZE_MAX for long texts. */
size_t evpt_load_distance(const char *left, const char *right);
/* Reports an unknown key; `suggestion`: what may have been meant, or NULL. */
void evpt_load_unknown(struct evpt_load *load, const char *key, const char *suggestion);

/* Raises Lua's error for want of memory where `memory` is NULL. */
void *evpt_load_must(lua_State *L, void *memory);
/* A copy that is the caller's; raises where there is no memory. */
char *evpt_load_copy(lua_State *L, const char *text);

/* Reads the file, unless `text` is given or `file` is NULL, runs it, and calls `read`. 0, or
 * -EVPT_EFORMAT if there was a problem, in `read` too. */
int evpt_load_run(struct evpt_load *load, const char *file, const char *text, size_t text_size,
                  const char *nil_is_false, evpt_sandbox_fn read, void *user);

#endif
