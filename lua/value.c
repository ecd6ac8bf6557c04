#include "lua/value.h"

#include "reactor/error.h"
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Each remote call passes here four times: arguments out and in, results out and in. The items that
 * make up most of what travels, small integers and short strings, are therefore written and read
 * right here (a tenth to a fifth of the time of a short list of arguments); the others go through
 * cluster/msgpack.h. */

#define LITERAL_OF(x) #x
#define LITERAL(x) LITERAL_OF(x)

/* ---- writing: places ---- */

/* A table that is being written. The chain of these, innermost first, is the way from a value to
 * its root: it finds cycles, and names the place of a value that cannot travel. It lives on the C
 * stack. */
struct level {
    const struct level *parent; /* NULL: the table is itself one of the values to send */
    const void *table;          /* its identity */
    int depth;                  /* 1 for the outermost */
    int key;                    /* stack index of the key that is at work; its value lies above */
    bool in_key;                /* the key itself is being written, not its value */
};

struct encoder {
    lua_State *L;
    struct evpt_writer out; /* the room behind the bytes of `message` that are written */
    struct evpt_message *message;
    size_t size_max;
    const char *root;
    int number; /* of the value that is being written, 1-based */
    char *error;
};

/* Text that is cut, and says so, where it does not fit. */
struct text {
    char *at, *end; /* `end` leaves room for the dots and a final 0 */
    bool cut;
};

static void text_add(struct text *text, const char *bytes, size_t size)
{
    if (text->cut)
        return; /* a gap would mislead */
    if (size > (size_t)(text->end - text->at)) {
        size = (size_t)(text->end - text->at);
        text->cut = true;
    }
    memcpy(text->at, bytes, size);
    text->at += size;
}

static void text_add_root(struct text *text, const char *root, int number)
{
    const char *hole = strstr(root, "%d");
    if (!hole) {
        text_add(text, root, strlen(root));
        return;
    }
    char digits[16];
    text_add(text, root, (size_t)(hole - root));
    text_add(text, digits, (size_t)snprintf(digits, sizeof(digits), "%d", number));
    text_add(text, hole + 2, strlen(hole + 2));
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_identifier(const char *bytes, size_t size)
{
    if (size == 0 || !is_letter(bytes[0]))
        return false;
    for (size_t i = 1; i < size; i++) {
        if (!is_letter(bytes[i]) && (bytes[i] < '0' || bytes[i] > '9'))
            return false;
    }
    return true;
}

static void text_add_string_key(struct text *text, const char *bytes, size_t size)
{
    if (is_identifier(bytes, size)) {
        text_add(text, ".", 1);
        text_add(text, bytes, size);
        return;
    }
    text_add(text, "[\"", 2);
    for (size_t i = 0; i < size && !text->cut; i++) {
        unsigned char c = (unsigned char)bytes[i];
        char escaped[8];
        int length;
        if (c == '"' || c == '\\')
            length = snprintf(escaped, sizeof(escaped), "\\%c", c);
        else if (c < 0x20 || c == 0x7f) /* as Lua's %q; the text is to stay one line */
            length = snprintf(escaped, sizeof(escaped), "\\%03u", c);
        else
            length = snprintf(escaped, sizeof(escaped), "%c", c);
        text_add(text, escaped, (size_t)length);
    }
    text_add(text, "\"]", 2);
}

static void text_add_key(struct text *text, lua_State *L, int key)
{
    char number[64];
    const char *bytes = number;
    size_t size;
    switch (lua_type(L, key)) {
    case LUA_TSTRING:
        bytes = lua_tolstring(L, key, &size);
        text_add_string_key(text, bytes, size);
        return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, key))
            snprintf(number, sizeof(number), "[%lld]", (long long)lua_tointeger(L, key));
        else
            snprintf(number, sizeof(number), "[%.14g]", lua_tonumber(L, key));
        break;
    case LUA_TBOOLEAN:
        bytes = lua_toboolean(L, key) ? "[true]" : "[false]";
        break;
    default:
        bytes = "[a table]";
        break;
    }
    text_add(text, bytes, strlen(bytes));
}

/* The way from the root to the value at work in `level`, as far as it leads through values: below a
 * key there are no names. True where it ends at a key. */
static bool text_add_place(struct text *text, lua_State *L, const struct level *level)
{
    if (!level)
        return false;
    if (text_add_place(text, L, level->parent))
        return true;
    if (level->in_key)
        return true;
    text_add_key(text, L, level->key);
    return false;
}

/* Writes "PLACE: problem" to the caller's buffer, the place cut where it is too long for it. */
static int refuse(struct encoder *e, const struct level *level, const char *problem)
{
    static const char dots[] = "...", as_key[] = " as a key";
    size_t tail = sizeof(dots) + 2 + strlen(problem) + sizeof(as_key);
    assert(tail < EVPT_VALUE_ERROR_SIZE);
    struct text place = {e->error, e->error + EVPT_VALUE_ERROR_SIZE - tail, false};
    text_add_root(&place, e->root, e->number);
    bool in_key = text_add_place(&place, e->L, level);
    snprintf(place.at, (size_t)(e->error + EVPT_VALUE_ERROR_SIZE - place.at), "%s: %s%s",
             place.cut ? dots : "", problem, in_key ? as_key : "");
    return -EVPT_EFORMAT;
}

static int refuse_type(struct encoder *e, const struct level *level, int type)
{
    switch (type) {
    case LUA_TFUNCTION:
        return refuse(e, level, "cannot send a function");
    case LUA_TTHREAD:
        return refuse(e, level, "cannot send a coroutine");
    default:
        return refuse(e, level, "cannot send a userdata");
    }
}

/* ---- writing: bytes ---- */

static size_t bytes_written(const struct encoder *e)
{
    return (size_t)(e->out.at - e->message->data);
}

static void attach(struct encoder *e, size_t size)
{
    evpt_writer_init(&e->out, e->message->data + size, e->message->capacity - size);
}

/* The message may get up to EVPT_ITEM_MAX bytes longer than allowed, for callers ask for the most
 * that an item could take; whether it really is longer shows at the latest at the end. */
static int grow(struct encoder *e, size_t more)
{
    size_t size = bytes_written(e);
    if (size > e->size_max || more > e->size_max + EVPT_ITEM_MAX - size)
        return -EVPT_ETOOLARGE;
    e->message->size = (uint32_t)size;
    struct evpt_message *grown = evpt_message_grow(e->message, more);
    if (!grown)
        return -ENOMEM;
    e->message = grown;
    attach(e, size);
    return 0;
}

static inline int reserve(struct encoder *e, size_t more)
{
    return more <= (size_t)(e->out.end - e->out.at) ? 0 : grow(e, more);
}

static inline int encode_number(struct encoder *e, int index)
{
    int error = reserve(e, EVPT_ITEM_MAX);
    if (error)
        return error;
    if (!lua_isinteger(e->L, index)) {
        (void)evpt_write_float(&e->out, lua_tonumber(e->L, index)); /* there is room */
        return 0;
    }
    lua_Integer value = lua_tointeger(e->L, index);
    if (value >= -32 && value <= 127)
        *e->out.at++ = (uint8_t)value;
    else
        (void)evpt_write_int(&e->out, value); /* there is room */
    return 0;
}

static inline int encode_string(struct encoder *e, int index)
{
    size_t size;
    const char *bytes = lua_tolstring(e->L, index, &size); /* a string: converts nothing */
    int error = reserve(e, EVPT_ITEM_MAX + size);
    if (error)
        return error;
    if (size <= 31) {
        *e->out.at++ = (uint8_t)(0xa0 | size);
        memcpy(e->out.at, bytes, size);
        e->out.at += size;
    } else {
        (void)evpt_write_str(&e->out, bytes, size); /* there is room */
    }
    return 0;
}

static int encode_table(struct encoder *e, int index, const struct level *parent);

/* `type` is that of the value at the index. */
static inline int encode_typed(struct encoder *e, int type, int index, const struct level *level)
{
    int error;
    switch (type) {
    case LUA_TNUMBER:
        return encode_number(e, index);
    case LUA_TSTRING:
        return encode_string(e, index);
    case LUA_TTABLE:
        return encode_table(e, index, level);
    case LUA_TBOOLEAN:
        if ((error = reserve(e, 1)))
            return error;
        *e->out.at++ = lua_toboolean(e->L, index) ? 0xc3 : 0xc2;
        return 0;
    case LUA_TNIL:
        if ((error = reserve(e, 1)))
            return error;
        *e->out.at++ = 0xc0;
        return 0;
    default:
        return refuse_type(e, level, type);
    }
}

static int encode_value(struct encoder *e, int index, const struct level *level)
{
    return encode_typed(e, lua_type(e->L, index), index, level);
}

/* ---- writing: tables ---- */

static int begin_array(struct encoder *e, size_t count)
{
    int error = reserve(e, EVPT_ITEM_MAX);
    if (error)
        return error;
    if (count > UINT32_MAX)
        return -EVPT_ETOOLARGE;
    (void)evpt_write_array(&e->out, (uint32_t)count); /* there is room */
    return 0;
}

/* Writes the header of a map, for which one byte was left at `header`, now that its pairs are
 * counted. They are moved only where there are more than 15. */
static int end_map(struct encoder *e, size_t header, size_t pairs)
{
    if (pairs <= 15) { /* an empty table is an empty array */
        e->message->data[header] = pairs == 0 ? 0x90 : (uint8_t)(0x80 | pairs);
        return 0;
    }
    int error = reserve(e, EVPT_ITEM_MAX);
    if (error)
        return error;
    uint8_t *at = e->message->data + header;
    size_t extra = pairs <= UINT16_MAX ? 2 : 4;
    memmove(at + 1 + extra, at + 1, (size_t)(e->out.at - (at + 1)));
    e->out.at += extra;
    struct evpt_writer patch;
    evpt_writer_init(&patch, at, 1 + extra);
    (void)evpt_write_map(&patch, (uint32_t)pairs); /* 1 + extra is the size that it takes */
    return 0;
}

static int encode_map(struct encoder *e, int index, struct level *level)
{
    int error = reserve(e, 1);
    if (error)
        return error;
    size_t header = bytes_written(e), pairs = 0; /* an offset: the message may move */
    e->out.at++;
    lua_pushnil(e->L);
    while (lua_next(e->L, index)) {
        level->in_key = true;
        if ((error = encode_value(e, level->key, level)))
            return error;
        level->in_key = false;
        if ((error = encode_value(e, level->key + 1, level)))
            return error;
        lua_pop(e->L, 1);
        pairs++;
    }
    return end_map(e, header, pairs);
}

/* Whether the keys are exactly 1..n. A float key needs no thought: Lua stores 1.0 as 1. */
static bool is_array(lua_State *L, int index, size_t n)
{
    size_t pairs = 0;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (!lua_isinteger(L, -1) || (lua_Unsigned)lua_tointeger(L, -1) - 1 >= n) {
            lua_pop(L, 1);
            return false;
        }
        pairs++;
    }
    return pairs == n;
}

/* The elements from..n of a table that is known to be an array. */
static int encode_elements(struct encoder *e, int index, struct level *level, size_t from, size_t n)
{
    int error = 0;
    for (size_t i = from; i <= n && !error; i++) {
        lua_pushinteger(e->L, (lua_Integer)i);
        lua_rawgeti(e->L, index, (lua_Integer)i);
        if (!(error = encode_value(e, level->key + 1, level)))
            lua_pop(e->L, 2);
    }
    return error;
}

static int rewrite_table(struct encoder *e, int index, struct level *level, size_t start, size_t n)
{
    attach(e, start);
    if (!is_array(e->L, index, n))
        return encode_map(e, index, level);
    int error = begin_array(e, n);
    return error ? error : encode_elements(e, index, level, 1, n);
}

/* A table with n elements, which is an array if it has nothing besides.
 *
 * To know that takes a walk over its keys, so it is written on that very walk: lua_next goes
 * through a table's array part first and in order, and nearly every array shows its keys as 1, 2 ..
 * n. Where the k-th key is not k the bytes are taken back. An inner table, which could do the same
 * again and again on each level, is written only once the question is settled. */
static int encode_sequence(struct encoder *e, int index, struct level *level, size_t n)
{
    size_t start = bytes_written(e), k = 0;
    int error = begin_array(e, n);
    if (error)
        return error;
    lua_pushnil(e->L);
    while (lua_next(e->L, index)) {
        k++;
        int type = lua_type(e->L, level->key + 1);
        bool in_order =
            lua_isinteger(e->L, level->key) && lua_tointeger(e->L, level->key) == (lua_Integer)k;
        if (!in_order || type == LUA_TTABLE) {
            lua_pop(e->L, 2);
            if (in_order && is_array(e->L, index, n))
                return encode_elements(e, index, level, k, n);
            return rewrite_table(e, index, level, start, n);
        }
        if ((error = encode_typed(e, type, level->key + 1, level)))
            return error;
        lua_pop(e->L, 1);
    }
    return k == n ? 0 : rewrite_table(e, index, level, start, n);
}

static int encode_table(struct encoder *e, int index, const struct level *parent)
{
    struct level level = {
        .parent = parent,
        .table = lua_topointer(e->L, index),
        .depth = parent ? parent->depth + 1 : 1,
        .key = lua_gettop(e->L) + 1,
    };
    for (const struct level *up = parent; up; up = up->parent) {
        if (up->table == level.table)
            return refuse(e, parent, "cannot send a cycle");
    }
    if (level.depth > EVPT_VALUE_DEPTH)
        return refuse(e, NULL, "deeper than " LITERAL(EVPT_VALUE_DEPTH) " levels");
    if (!lua_checkstack(e->L, 3)) /* a key, its value, and the next key */
        return -ENOMEM;
    size_t n = lua_rawlen(e->L, index);
    return n > 0 ? encode_sequence(e, index, &level, n) : encode_map(e, index, &level);
}

int evpt_value_encode(lua_State *L, int first, int count, struct evpt_message **message,
                      size_t size_max, const char *root, char error_text[EVPT_VALUE_ERROR_SIZE])
{
    assert(first > 0 && count >= 0 && size_max <= UINT32_MAX - EVPT_ITEM_MAX);
    int top = lua_gettop(L);
    size_t size = (*message)->size;
    struct encoder e = {
        .L = L, .message = *message, .size_max = size_max, .root = root, .error = error_text};
    attach(&e, size);
    int error = begin_array(&e, (size_t)count);
    for (int i = 0; i < count && !error; i++) {
        e.number = i + 1;
        error = encode_value(&e, first + i, NULL);
    }
    if (!error && bytes_written(&e) > size_max)
        error = -EVPT_ETOOLARGE;
    lua_settop(L, top); /* after an error the tables on the way to it are still there */
    e.message->size = (uint32_t)(error ? size : bytes_written(&e));
    *message = e.message;
    return error;
}

/* ---- reading ---- */

struct decoder {
    lua_State *L;
    struct evpt_reader in;
    /* Values that the containers which are open have declared and not yet got. Each takes a byte at
     * least, so a container is believed only as far as bytes are left beyond these: what a message
     * makes Lua allocate is then a fixed multiple of its own size, however its counts are nested.
     */
    size_t owed;
};

static int decode_value(struct decoder *d, int depth);

static inline bool is_small_int(uint8_t first)
{
    return first <= 0x7f || first >= 0xe0;
}

/* Pushes the short string that begins at the reader, if there is one and it is all there. */
static inline bool decode_short_string(struct decoder *d)
{
    size_t left = (size_t)(d->in.end - d->in.at);
    if (left == 0 || (*d->in.at & 0xe0) != 0xa0 || (size_t)(*d->in.at & 0x1f) >= left)
        return false;
    size_t size = *d->in.at & 0x1f;
    lua_pushlstring(d->L, (const char *)d->in.at + 1, size);
    d->in.at += 1 + size;
    return true;
}

/* Before a container of so many values is made: may it be, and is there room for it? */
static int open_container(struct decoder *d, size_t values, int depth)
{
    if (depth == EVPT_VALUE_DEPTH)
        return -EVPT_EDEPTH;
    if (values > INT_MAX) /* lua_createtable takes an int */
        return -EVPT_ELIMIT;
    if (values + d->owed > (size_t)(d->in.end - d->in.at))
        return -EVPT_ETRUNCATED;
    d->owed += values;
    return lua_checkstack(d->L, 3) ? 0 : -EVPT_ELIMIT; /* a table, a key, a value */
}

static int decode_array(struct decoder *d, uint32_t count, int depth)
{
    int error = open_container(d, count, depth);
    if (error)
        return error;
    lua_createtable(d->L, (int)count, 0);
    int table = lua_gettop(d->L);
    for (uint32_t i = 1; i <= count; i++) {
        d->owed--;
        if ((error = decode_value(d, depth + 1)))
            return error;
        lua_rawseti(d->L, table, i);
    }
    return 0;
}

/* Pushes a key; those that a Lua table cannot have are refused. */
static inline int decode_key(struct decoder *d, int depth)
{
    if (decode_short_string(d))
        return 0;
    int error = decode_value(d, depth);
    if (error)
        return error;
    if (lua_isnil(d->L, -1) || (lua_type(d->L, -1) == LUA_TNUMBER && !lua_rawequal(d->L, -1, -1)))
        return -EVPT_EFORMAT; /* nil or NaN */
    return 0;
}

static int decode_map(struct decoder *d, uint32_t pairs, int depth)
{
    int error = open_container(d, (size_t)pairs * 2, depth);
    if (error)
        return error;
    lua_createtable(d->L, 0, (int)pairs);
    int table = lua_gettop(d->L);
    for (uint32_t i = 0; i < pairs; i++) {
        d->owed--;
        if ((error = decode_key(d, depth + 1)))
            return error;
        d->owed--;
        if ((error = decode_value(d, depth + 1)))
            return error;
        lua_rawset(d->L, table);
    }
    return 0;
}

static int decode_value(struct decoder *d, int depth)
{
    if (d->in.at < d->in.end && is_small_int(*d->in.at)) {
        lua_pushinteger(d->L, (int8_t)*d->in.at++);
        return 0;
    }
    if (decode_short_string(d))
        return 0;
    struct evpt_item item;
    int error = evpt_read_item(&d->in, &item);
    if (error)
        return error;
    switch (item.kind) {
    case EVPT_ITEM_NIL:
        lua_pushnil(d->L);
        break;
    case EVPT_ITEM_BOOL:
        lua_pushboolean(d->L, item.u.boolean);
        break;
    case EVPT_ITEM_INT:
        lua_pushinteger(d->L, item.u.integer);
        break;
    case EVPT_ITEM_FLOAT:
        lua_pushnumber(d->L, item.u.real);
        break;
    case EVPT_ITEM_STR:
        lua_pushlstring(d->L, (const char *)item.u.bytes, item.size);
        break;
    case EVPT_ITEM_ARRAY:
        return decode_array(d, item.size, depth);
    case EVPT_ITEM_MAP:
        return decode_map(d, item.size, depth);
    }
    return 0;
}

int evpt_value_decode(lua_State *L, struct evpt_reader *reader)
{
    struct decoder d = {.L = L, .in = *reader};
    uint32_t count;
    int error = evpt_read_array(&d.in, &count);
    if (error)
        return error;
    if (count > INT_MAX || !lua_checkstack(L, (int)count))
        return -EVPT_ELIMIT;
    int top = lua_gettop(L);
    d.owed = count;
    for (uint32_t i = 0; i < count; i++) {
        d.owed--;
        if ((error = decode_value(&d, 0))) {
            lua_settop(L, top);
            return error;
        }
    }
    *reader = d.in;
    return (int)count;
}

int evpt_value_decode_one(lua_State *L, struct evpt_reader *reader)
{
    if (!lua_checkstack(L, 1))
        return -EVPT_ELIMIT;
    int top = lua_gettop(L);
    struct decoder d = {.L = L, .in = *reader};
    int error = decode_value(&d, 0);
    if (error)
        lua_settop(L, top);
    else
        *reader = d.in;
    return error;
}
