/* MessagePack, item by item, in a bounded buffer, without allocating.
 * (github.com/msgpack/msgpack/blob/master/spec.md)
 *
 * A reader walks over bytes that strangers sent: every call checks what it needs before it touches
 * it, and a declared count is believed only as far as bytes are left for it (each element takes at
 * least one). A writer fills a buffer and says when it is full; the caller grows it and goes on.
 * Containers are an item with a count; their elements follow as items of their own.
 */
#ifndef EVPT_CLUSTER_MSGPACK_H
#define EVPT_CLUSTER_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- reading ---- */

struct evpt_reader {
    const uint8_t *at, *end;
};

enum evpt_item_kind {
    EVPT_ITEM_NIL,
    EVPT_ITEM_BOOL,
    EVPT_ITEM_INT,   /* in `integer`; an unsigned value above INT64_MAX is refused */
    EVPT_ITEM_FLOAT, /* in `real`; float 32 is widened */
    EVPT_ITEM_STR,   /* in `bytes`, `size`; str and bin */
    EVPT_ITEM_ARRAY, /* `size` elements follow */
    EVPT_ITEM_MAP,   /* `size` pairs follow */
};

struct evpt_item {
    enum evpt_item_kind kind;
    uint32_t size;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const uint8_t *bytes;
    } u;
};

static inline void evpt_reader_init(struct evpt_reader *reader, const void *bytes, size_t size)
{
    reader->at = (const uint8_t *)bytes;
    reader->end = reader->at + size;
}

/* The next item. 0, -EVPT_ETRUNCATED (bytes end inside it, or a count larger than what can follow),
 * or -EVPT_EFORMAT (ext types, 0xc1, integer out of range). On failure the reader stays where it
 * was. */
int evpt_read_item(struct evpt_reader *reader, struct evpt_item *ret_item);
/* Items of one kind; -EVPT_EFORMAT where it is another. */
int evpt_read_array(struct evpt_reader *reader, uint32_t *ret_count);
int evpt_read_map(struct evpt_reader *reader, uint32_t *ret_count);
int evpt_read_int(struct evpt_reader *reader, int64_t *ret_value);
int evpt_read_str(struct evpt_reader *reader, const char **ret_bytes, uint32_t *ret_size);
#define EVPT_SKIP_DEPTH_MAX                                                                        \
    128 /* twice what may travel (SPEC section 4); one counter a level lies on the stack */
/* Steps over one whole value, at most `depth` levels of containers deep (-EVPT_EDEPTH; at most
 * EVPT_SKIP_DEPTH_MAX), without recursion. On failure the reader stays where it was. */
int evpt_read_skip(struct evpt_reader *reader, int depth);

/* ---- writing ---- */

struct evpt_writer {
    uint8_t *at, *end;
};

static inline void evpt_writer_init(struct evpt_writer *writer, void *bytes, size_t size)
{
    writer->at = (uint8_t *)bytes;
    writer->end = writer->at + size;
}

/* Each returns false, and writes nothing, where there is no room. Integers take their shortest
 * form; floats are always float 64, so that 1.0 stays a float. */
bool evpt_write_nil(struct evpt_writer *writer);
bool evpt_write_bool(struct evpt_writer *writer, bool value);
bool evpt_write_int(struct evpt_writer *writer, int64_t value);
bool evpt_write_float(struct evpt_writer *writer, double value);
bool evpt_write_str(struct evpt_writer *writer, const void *bytes, size_t size);
bool evpt_write_array(struct evpt_writer *writer, uint32_t count);
bool evpt_write_map(struct evpt_writer *writer, uint32_t count);
/* An unsigned 32-bit integer in its 5-byte form, so that it can be overwritten in place. */
bool evpt_write_fixed_u32(struct evpt_writer *writer, uint32_t value);
/* Overwrites the 4 value bytes of such an item. */
void evpt_patch_u32(uint8_t *value_bytes, uint32_t value);

/* The most bytes that an item without payload takes: the header of any str, array, map, or a
 * number. */
#define EVPT_ITEM_MAX 9

#endif
