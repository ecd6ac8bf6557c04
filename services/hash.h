/* FNV-1a, for tables of names: short keys, well spread in the low bits. The tables of those who use
 * it are bounded by the node's own configuration and scripts, so no stranger can aim at a bucket.
 */
#ifndef EVPT_SERVICES_HASH_H
#define EVPT_SERVICES_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t evpt_hash(const char *bytes, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (uint8_t)bytes[i]) * 16777619u;
    return hash;
}

#endif
