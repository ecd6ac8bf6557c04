#include "cluster/msgpack.h"

#include "cluster/bytes.h"
#include "reactor/error.h"
#include <assert.h>
#include <string.h>

/* ---- reading ----
 *
 * The first byte of an item says what it is; a fixed number of bytes follows (an operand: a number,
 * a length or a count), then perhaps a payload. `evpt_read_item` takes the operand off in one
 * place, so that there is one check for it, one for payloads and one for counts. */

struct operand {
    uint8_t kind;  /* enum evpt_item_kind, or BAD */
    uint8_t bytes; /* that follow the first one */
};

enum { BAD = 0xff };

/* 0xc0 to 0xdf; what lies around them carries its operand in the first byte. */
static const struct operand operands[32] = {
    {EVPT_ITEM_NIL, 0},
    {BAD, 0},
    {EVPT_ITEM_BOOL, 0},
    {EVPT_ITEM_BOOL, 0},
    {EVPT_ITEM_STR, 1},
    {EVPT_ITEM_STR, 2},
    {EVPT_ITEM_STR, 4},
    {BAD, 0},
    {BAD, 0},
    {BAD, 0},
    {EVPT_ITEM_FLOAT, 4},
    {EVPT_ITEM_FLOAT, 8},
    {EVPT_ITEM_INT, 1},
    {EVPT_ITEM_INT, 2},
    {EVPT_ITEM_INT, 4},
    {EVPT_ITEM_INT, 8},
    {EVPT_ITEM_INT, 1},
    {EVPT_ITEM_INT, 2},
    {EVPT_ITEM_INT, 4},
    {EVPT_ITEM_INT, 8},
    {BAD, 0},
    {BAD, 0},
    {BAD, 0},
    {BAD, 0},
    {BAD, 0},
    {EVPT_ITEM_STR, 1},
    {EVPT_ITEM_STR, 2},
    {EVPT_ITEM_STR, 4},
    {EVPT_ITEM_ARRAY, 2},
    {EVPT_ITEM_ARRAY, 4},
    {EVPT_ITEM_MAP, 2},
    {EVPT_ITEM_MAP, 4},
};

static uint64_t load_operand(const uint8_t *at, uint8_t bytes)
{
    switch (bytes) {
    case 1:
        return at[0];
    case 2:
        return evpt_load_u16(at);
    case 4:
        return evpt_load_u32(at);
    case 8:
        return evpt_load_u64(at);
    default:
        return 0;
    }
}

/* Widens the two's complement number of so many bytes; the first byte of an item tells the sign. */
static int64_t sign_extend(uint64_t value, uint8_t bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (int64_t)(value << shift) >> shift;
}

static double real_from_bits(uint64_t bits, uint8_t bytes)
{
    if (bytes == 4) {
        uint32_t narrow_bits = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &narrow_bits, sizeof narrow);
        return narrow;
    }
    double wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

int evpt_read_item(struct evpt_reader *reader, struct evpt_item *ret_item)
{
    const uint8_t *at = reader->at;
    size_t left = (size_t)(reader->end - at);
    if (left == 0)
        return -EVPT_ETRUNCATED;
    uint8_t first = *at++;
    left--;

    uint8_t kind, operand_bytes = 0;
    uint64_t operand;
    if (first < 0x80 || first >= 0xe0) { /* fixint */
        ret_item->kind = EVPT_ITEM_INT;
        ret_item->size = 0;
        ret_item->u.integer = (int8_t)first;
        reader->at = at;
        return 0;
    }
    if (first < 0xc0) { /* fixmap, fixarray, fixstr */
        kind = first < 0x90 ? EVPT_ITEM_MAP : first < 0xa0 ? EVPT_ITEM_ARRAY : EVPT_ITEM_STR;
        operand = first & (first < 0xa0 ? 0x0f : 0x1f);
    } else {
        kind = operands[first - 0xc0].kind;
        operand_bytes = operands[first - 0xc0].bytes;
        if (kind == BAD)
            return -EVPT_EFORMAT;
        if (operand_bytes > left)
            return -EVPT_ETRUNCATED;
        operand = load_operand(at, operand_bytes);
        at += operand_bytes;
        left -= operand_bytes;
    }

    struct evpt_item item = {.kind = kind};
    switch (kind) {
    case EVPT_ITEM_NIL:
        break;
    case EVPT_ITEM_BOOL:
        item.u.boolean = first == 0xc3;
        break;
    case EVPT_ITEM_INT:
        if (first >= 0xd0)
            item.u.integer = sign_extend(operand, operand_bytes);
        else if (operand > INT64_MAX)
            return -EVPT_EFORMAT;
        else
            item.u.integer = (int64_t)operand;
        break;
    case EVPT_ITEM_FLOAT:
        item.u.real = real_from_bits(operand, operand_bytes);
        break;
    case EVPT_ITEM_STR:
        if (operand > left)
            return -EVPT_ETRUNCATED;
        item.u.bytes = at;
        item.size = (uint32_t)operand;
        at += operand;
        break;
    case EVPT_ITEM_ARRAY: /* an element takes one byte at least, a pair two */
        if (operand > left)
            return -EVPT_ETRUNCATED;
        item.size = (uint32_t)operand;
        break;
    case EVPT_ITEM_MAP:
        if (operand > left / 2)
            return -EVPT_ETRUNCATED;
        item.size = (uint32_t)operand;
        break;
    }
    *ret_item = item;
    reader->at = at;
    return 0;
}

static int read_kind(struct evpt_reader *reader, enum evpt_item_kind kind,
                     struct evpt_item *ret_item)
{
    struct evpt_reader ahead = *reader;
    int error = evpt_read_item(&ahead, ret_item);
    if (error)
        return error;
    if (ret_item->kind != kind)
        return -EVPT_EFORMAT;
    *reader = ahead;
    return 0;
}

int evpt_read_array(struct evpt_reader *reader, uint32_t *ret_count)
{
    struct evpt_item item;
    int error = read_kind(reader, EVPT_ITEM_ARRAY, &item);
    if (!error)
        *ret_count = item.size;
    return error;
}

int evpt_read_map(struct evpt_reader *reader, uint32_t *ret_count)
{
    struct evpt_item item;
    int error = read_kind(reader, EVPT_ITEM_MAP, &item);
    if (!error)
        *ret_count = item.size;
    return error;
}

int evpt_read_int(struct evpt_reader *reader, int64_t *ret_value)
{
    struct evpt_item item;
    int error = read_kind(reader, EVPT_ITEM_INT, &item);
    if (!error)
        *ret_value = item.u.integer;
    return error;
}

int evpt_read_str(struct evpt_reader *reader, const char **ret_bytes, uint32_t *ret_size)
{
    struct evpt_item item;
    int error = read_kind(reader, EVPT_ITEM_STR, &item);
    if (error)
        return error;
    *ret_bytes = (const char *)item.u.bytes;
    *ret_size = item.size;
    return 0;
}

int evpt_read_skip(struct evpt_reader *reader, int depth)
{
    assert(depth >= 0 && depth <= EVPT_SKIP_DEPTH_MAX);
    struct evpt_reader ahead = *reader;
    uint64_t left[EVPT_SKIP_DEPTH_MAX + 1]; /* values still to come on each level that is open */
    int level = 0;
    left[0] = 1;
    for (;;) {
        while (left[level] == 0) {
            if (level-- == 0) {
                *reader = ahead;
                return 0;
            }
        }
        left[level]--;
        struct evpt_item item;
        int error = evpt_read_item(&ahead, &item);
        if (error)
            return error;
        if (item.kind != EVPT_ITEM_ARRAY && item.kind != EVPT_ITEM_MAP)
            continue;
        if (level == depth)
            return -EVPT_EDEPTH;
        left[++level] = item.kind == EVPT_ITEM_MAP ? (uint64_t)item.size * 2 : item.size;
    }
}

/* ---- writing ---- */

/* One byte, and so many of an operand behind it. */
static bool put(struct evpt_writer *writer, uint8_t first, uint64_t operand, size_t bytes)
{
    if ((size_t)(writer->end - writer->at) < 1 + bytes)
        return false;
    uint8_t *at = writer->at;
    *at++ = first;
    switch (bytes) {
    case 1:
        *at = (uint8_t)operand;
        break;
    case 2:
        evpt_store_u16(at, (uint16_t)operand);
        break;
    case 4:
        evpt_store_u32(at, (uint32_t)operand);
        break;
    case 8:
        evpt_store_u64(at, operand);
        break;
    }
    writer->at = at + bytes;
    return true;
}

bool evpt_write_nil(struct evpt_writer *writer)
{
    return put(writer, 0xc0, 0, 0);
}

bool evpt_write_bool(struct evpt_writer *writer, bool value)
{
    return put(writer, value ? 0xc3 : 0xc2, 0, 0);
}

bool evpt_write_int(struct evpt_writer *writer, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    if (value >= -32 && value <= 127)
        return put(writer, (uint8_t)bits, 0, 0);
    if (value >= 0) {
        if (value <= UINT8_MAX)
            return put(writer, 0xcc, bits, 1);
        if (value <= UINT16_MAX)
            return put(writer, 0xcd, bits, 2);
        if (value <= UINT32_MAX)
            return put(writer, 0xce, bits, 4);
        return put(writer, 0xcf, bits, 8);
    }
    if (value >= INT8_MIN)
        return put(writer, 0xd0, bits, 1);
    if (value >= INT16_MIN)
        return put(writer, 0xd1, bits, 2);
    if (value >= INT32_MIN)
        return put(writer, 0xd2, bits, 4);
    return put(writer, 0xd3, bits, 8);
}

bool evpt_write_float(struct evpt_writer *writer, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put(writer, 0xcb, bits, 8);
}

bool evpt_write_str(struct evpt_writer *writer, const void *bytes, size_t size)
{
    size_t room = (size_t)(writer->end - writer->at);
    size_t head = size <= 31 ? 1 : size <= UINT8_MAX ? 2 : size <= UINT16_MAX ? 3 : 5;
    if (size > UINT32_MAX || room < head || room - head < size)
        return false;
    switch (head) {
    case 1:
        put(writer, (uint8_t)(0xa0 | size), 0, 0);
        break;
    case 2:
        put(writer, 0xd9, size, 1);
        break;
    case 3:
        put(writer, 0xda, size, 2);
        break;
    default:
        put(writer, 0xdb, size, 4);
        break;
    }
    if (size > 0) /* memcpy from NULL is undefined even for no bytes */
        memcpy(writer->at, bytes, size);
    writer->at += size;
    return true;
}

bool evpt_write_array(struct evpt_writer *writer, uint32_t count)
{
    if (count <= 15)
        return put(writer, (uint8_t)(0x90 | count), 0, 0);
    if (count <= UINT16_MAX)
        return put(writer, 0xdc, count, 2);
    return put(writer, 0xdd, count, 4);
}

bool evpt_write_map(struct evpt_writer *writer, uint32_t count)
{
    if (count <= 15)
        return put(writer, (uint8_t)(0x80 | count), 0, 0);
    if (count <= UINT16_MAX)
        return put(writer, 0xde, count, 2);
    return put(writer, 0xdf, count, 4);
}

bool evpt_write_fixed_u32(struct evpt_writer *writer, uint32_t value)
{
    return put(writer, 0xce, value, 4);
}

void evpt_patch_u32(uint8_t *value_bytes, uint32_t value)
{
    evpt_store_u32(value_bytes, value);
}
