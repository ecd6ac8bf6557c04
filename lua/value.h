/* Lua values to MessagePack and back.
 *
 * Values that travel (SPEC section 4): nil, booleans, 64-bit integers, floats, strings, tables of
 * these, at most EVPT_VALUE_DEPTH levels deep. A table whose keys are exactly 1..n becomes an array
 * (the empty table too), any other a map. Arguments and results are one array whose count is known,
 * so trailing and inner nils are kept. Metatables are ignored: access is raw.
 */
#ifndef EVPT_LUA_VALUE_H
#define EVPT_LUA_VALUE_H

#include "cluster/message.h"
#include "cluster/msgpack.h"
#include <lua.h>

#define EVPT_VALUE_DEPTH 64 /* SPEC: levels of tables */
#define EVPT_VALUE_ERROR_SIZE 256

/* Appends one array of the values at stack indexes first..first+count-1 to *message (which may
 * move). Never raises and never calls back into Lua. 0; or, with the message as it was before
 * (`size` restored): -EVPT_EFORMAT    a value that cannot travel; `error` says where and what:
 *                    "params.list[3]: cannot send a function", "argument 2.x: cannot send a cycle",
 *                    "result 1: deeper than 64 levels"
 *   -EVPT_ETOOLARGE  the message would be longer than `size_max` bytes
 *   -ENOMEM
 * `root`: how the place is named: a text with %d for the 1-based number of the value ("argument
 * %d", "result %d"), or without ("params"). String keys that are identifiers are shown as .key,
 * others as ["key"], integers as [3]. */
int evpt_value_encode(lua_State *L, int first, int count, struct evpt_message **message,
                      size_t size_max, const char *root, char error[EVPT_VALUE_ERROR_SIZE]);

/* Pushes the elements of the array that begins at the reader and returns their number; the reader
 * then stands behind the array. Negative, with nothing pushed, where the bytes are no such array:
 * -EVPT_ETRUNCATED, -EVPT_EFORMAT (also a nil or NaN as a key), -EVPT_EDEPTH; -EVPT_ELIMIT where
 * the Lua stack cannot hold so many values. Raises only what Lua raises for want of memory. */
int evpt_value_decode(lua_State *L, struct evpt_reader *reader);

/* Pushes a single value. 0 or as above. */
int evpt_value_decode_one(lua_State *L, struct evpt_reader *reader);

#endif
