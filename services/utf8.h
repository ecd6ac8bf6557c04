/* Is it UTF-8? For texts whose readers refuse them whole where it is not: JSON, Prometheus. */
#ifndef EVPT_SERVICES_UTF8_H
#define EVPT_SERVICES_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the UTF-8 sequence at `at`, of which `left` bytes are there; 0: it is none. */
static inline size_t evpt_utf8_size(const unsigned char *at, size_t left)
{
    size_t size = *at < 0x80                  ? 1
                  : *at >= 0xc2 && *at < 0xe0 ? 2
                  : *at >= 0xe0 && *at < 0xf0 ? 3
                  : *at >= 0xf0 && *at < 0xf5 ? 4
                                              : 0;
    if (size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    bool is_overlong = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xf0 && at[1] < 0x90);
    bool is_surrogate = *at == 0xed && at[1] > 0x9f;
    bool is_beyond = *at == 0xf4 && at[1] > 0x8f; /* U+10FFFF */
    return is_overlong || is_surrogate || is_beyond ? 0 : size;
}

#endif
