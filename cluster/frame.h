/* The frame codec (SPEC section 5): bytes to frames and back, without I/O and without state.
 *
 *     | 2 length | 1 flag | 4 session | data ... |      big-endian; length counts all bytes
 */
#ifndef EVPT_CLUSTER_FRAME_H
#define EVPT_CLUSTER_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EVPT_FRAME_HEADER 7
#define EVPT_FRAME_DATA_MAX 32768
#define EVPT_FRAME_MAX (EVPT_FRAME_HEADER + EVPT_FRAME_DATA_MAX)
#define EVPT_FRAME_CONTROL_MAX 1024 /* data of a control frame */

enum evpt_frame_flag {
    EVPT_FRAME_WHOLE = 0x80,
    EVPT_FRAME_FIRST = 0x81,
    EVPT_FRAME_MIDDLE = 0x82,
    EVPT_FRAME_LAST = 0x83,
    EVPT_FRAME_HELLO = 0x84,
    EVPT_FRAME_PING = 0x85,
    EVPT_FRAME_PONG = 0x86,
    EVPT_FRAME_GOAWAY = 0x87,
};

struct evpt_frame {
    enum evpt_frame_flag flag;
    uint32_t session;
    const uint8_t *data; /* into the bytes given */
    size_t size;
};

/* Reads the frame at the beginning of `bytes`. Returns the bytes that it takes (7 to 32775), 0
 * where more are needed, or -EVPT_EPROTOCOL with a static text in *ret_reason: length out of range,
 * unknown flag, session 0 on a message, session on a control frame, control frame too long. What
 * can be refused is refused as soon as its bytes are there (a bad length after two bytes). */
ssize_t evpt_frame_read(struct evpt_frame *ret_frame, const uint8_t *bytes, size_t size,
                        const char **ret_reason);

/* Writes the 7 bytes of a header. `data_size`: at most EVPT_FRAME_DATA_MAX. */
void evpt_frame_write_header(uint8_t *header, enum evpt_frame_flag flag, uint32_t session,
                             size_t data_size);

#endif
