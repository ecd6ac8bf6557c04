/* Loads evpt.lua and the node list (SPEC sections 2 and 3).
 *
 * Both are Lua files that are run as text only, in an empty environment, in a VM of their own with
 * a limit on instructions (EVPT_LOAD_INSTRUCTIONS), memory (EVPT_LOAD_MEMORY) and CPU time
 * (EVPT_LOAD_CPU_NS). They set globals, and those are then read raw, one by one: an unknown key, a
 * wrong type, a value out of range are errors, never ignored. Each error is one line "FILE: KEY:
 * expected WHAT, got WHAT" (no program name in front, no newline behind), FILE being the path as
 * given, KEY with dots and brackets ("cluster.heartbeat_ms", "services[2].name"); errors of Lua
 * itself are "FILE:LINE: message". All problems are reported, in the order of the keys' names, not
 * only the first.
 *
 * Relative paths, templates and --set too, are resolved against the folder of evpt.lua. Since a
 * file cannot tell nil from absent, `admin = false`, `log.file = false` and `tls = false` switch
 * these off;
 * --set KEY=nil does so too.
 */
#ifndef EVPT_LUA_CONFIG_LOAD_H
#define EVPT_LUA_CONFIG_LOAD_H

#include "services/config.h"
#include "services/node_list.h"

#define EVPT_LOAD_INSTRUCTIONS 10000000 /* far above any honest file; under a second */
#define EVPT_LOAD_MEMORY (64 << 20)
#define EVPT_LOAD_CPU_NS UINT64_C(5000000000) /* for instructions that are slow one by one */
#define EVPT_LOAD_FILE_MAX (16 << 20)

/* Receives each problem. */
typedef void (*evpt_problem_fn)(const char *line, void *user);

/* file: path, or NULL for built-in defaults (then nothing is read). `overrides`: "KEY=VALUE" texts
 * of --set (count of them); VALUE is read as a Lua literal (number, true, false, nil, quoted
 * string, table constructor) where it is one, and as a plain string otherwise; problems in them
 * name "--set". `node`: the node's name for %s in `admin`. `workers` defaults to the number of
 * cores. 0, or -EVPT_EFORMAT after at least one problem (*ret_config then holds
 * what could be read; fini it too). */
int evpt_config_load(struct evpt_config *ret_config, const char *file, const char *const *overrides,
                     size_t override_count, const char *node, evpt_problem_fn problem, void *user);

/* The node list from a file, or from text (`text` not NULL; `file` then only names it in problems).
 * `node`: if not NULL, its own line must be there with an address. Port 0, and one address for two
 * nodes, are problems too. 0 or -EVPT_EFORMAT after at least one problem. */
int evpt_node_list_load(struct evpt_node_list *ret_list, const char *file, const char *text,
                        size_t text_size, const char *node, evpt_problem_fn problem, void *user);

#endif
