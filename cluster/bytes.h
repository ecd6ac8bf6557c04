/* Big-endian integers in bytes of any alignment, as both the frame header and MessagePack store
 * them. Written with shifts: gcc and clang make one load or store and a byte swap of each. */
#ifndef EVPT_CLUSTER_BYTES_H
#define EVPT_CLUSTER_BYTES_H

#include <stdint.h>

static inline uint16_t evpt_load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t evpt_load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t evpt_load_u64(const uint8_t *at)
{
    return (uint64_t)evpt_load_u32(at) << 32 | evpt_load_u32(at + 4);
}

static inline void evpt_store_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void evpt_store_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline void evpt_store_u64(uint8_t *at, uint64_t value)
{
    evpt_store_u32(at, (uint32_t)(value >> 32));
    evpt_store_u32(at + 4, (uint32_t)value);
}

#endif
