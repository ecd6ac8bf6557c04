#include "cluster/frame.h"

#include "cluster/bytes.h"
#include "reactor/error.h"
#include <assert.h>
#include <stdbool.h>

static ssize_t refuse(const char **ret_reason, const char *reason)
{
    *ret_reason = reason;
    return -EVPT_EPROTOCOL;
}

ssize_t evpt_frame_read(struct evpt_frame *ret_frame, const uint8_t *bytes, size_t size,
                        const char **ret_reason)
{
    if (size < 2)
        return 0;
    size_t length = evpt_load_u16(bytes);
    if (length < EVPT_FRAME_HEADER || length > EVPT_FRAME_MAX)
        return refuse(ret_reason, "frame length out of range (7 to 32775)");

    if (size < 3)
        return 0;
    uint8_t flag = bytes[2];
    if (flag < EVPT_FRAME_WHOLE || flag > EVPT_FRAME_GOAWAY)
        return refuse(ret_reason, "unknown frame flag");
    bool control = flag >= EVPT_FRAME_HELLO;
    if (control && length > EVPT_FRAME_HEADER + EVPT_FRAME_CONTROL_MAX)
        return refuse(ret_reason, "control frame longer than 1024 bytes");

    if (size < EVPT_FRAME_HEADER)
        return 0;
    uint32_t session = evpt_load_u32(bytes + 3);
    if (control && session != 0)
        return refuse(ret_reason, "control frame with a session");
    if (!control && session == 0)
        return refuse(ret_reason, "message with session 0");

    if (size < length)
        return 0;
    ret_frame->flag = (enum evpt_frame_flag)flag;
    ret_frame->session = session;
    ret_frame->data = bytes + EVPT_FRAME_HEADER;
    ret_frame->size = length - EVPT_FRAME_HEADER;
    return (ssize_t)length;
}

void evpt_frame_write_header(uint8_t *header, enum evpt_frame_flag flag, uint32_t session,
                             size_t data_size)
{
    assert(data_size <= EVPT_FRAME_DATA_MAX);
    evpt_store_u16(header, (uint16_t)(EVPT_FRAME_HEADER + data_size));
    header[2] = (uint8_t)flag;
    evpt_store_u32(header + 3, session);
}
