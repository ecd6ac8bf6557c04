#include "cluster/frame.h"

#include "reactor/error.h"
#include "support.h"
#include <stdlib.h>

static ssize_t read_bytes(const uint8_t *bytes, size_t size, struct evpt_frame *frame,
                          const char **reason)
{
    /* a copy that ends where the bytes end: reading further is seen by the sanitizer */
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    ssize_t taken = evpt_frame_read(frame, copy, size, reason);
    free(copy);
    return taken;
}

START_TEST(test_frame_header_has_the_bytes_of_the_specification)
{
    uint8_t header[EVPT_FRAME_HEADER];
    evpt_frame_write_header(header, EVPT_FRAME_FIRST, 0x01020304, 32768);
    static const uint8_t expected[] = {0x80, 0x07, 0x81, 0x01, 0x02, 0x03, 0x04};
    ck_assert_mem_eq(header, expected, sizeof expected);
    evpt_frame_write_header(header, EVPT_FRAME_WHOLE, UINT32_MAX, 0);
    static const uint8_t smallest[] = {0x00, 0x07, 0x80, 0xff, 0xff, 0xff, 0xff};
    ck_assert_mem_eq(header, smallest, sizeof smallest);
}
END_TEST

START_TEST(test_frame_of_every_flag_and_size_comes_back)
{
    static const size_t sizes[] = {0, 1, 2, 255, 256, 1024, 32767, 32768};
    static uint8_t bytes[EVPT_FRAME_MAX + 1];
    for (int flag = EVPT_FRAME_WHOLE; flag <= EVPT_FRAME_GOAWAY; flag++) {
        bool control = flag >= EVPT_FRAME_HELLO;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            if (control && sizes[i] > EVPT_FRAME_CONTROL_MAX)
                continue;
            uint32_t session = control ? 0 : 0xfeedbeef;
            const char *reason = NULL;
            struct evpt_frame frame;
            evpt_frame_write_header(bytes, (enum evpt_frame_flag)flag, session, sizes[i]);
            ssize_t taken = evpt_frame_read(&frame, bytes, sizeof bytes, &reason);
            ck_assert_int_eq(taken, EVPT_FRAME_HEADER + sizes[i]);
            ck_assert_int_eq(frame.flag, flag);
            ck_assert_uint_eq(frame.session, session);
            ck_assert_uint_eq(frame.size, sizes[i]);
            ck_assert_ptr_eq(frame.data, bytes + EVPT_FRAME_HEADER);
            ck_assert_ptr_null(reason);
        }
    }
}
END_TEST

START_TEST(test_frame_wants_more_at_every_length_short_of_its_own)
{
    static uint8_t bytes[EVPT_FRAME_HEADER + 300];
    struct evpt_frame frame;
    const char *reason;
    evpt_frame_write_header(bytes, EVPT_FRAME_WHOLE, 5, 300);
    for (size_t size = 0; size < sizeof bytes; size++)
        ck_assert_int_eq(read_bytes(bytes, size, &frame, &reason), 0);
    ck_assert_int_eq(read_bytes(bytes, sizeof bytes, &frame, &reason), sizeof bytes);
}
END_TEST

struct refusal {
    uint8_t bytes[7];
    size_t known_after; /* bytes that are enough to refuse it */
    const char *reason;
};

static const struct refusal refusals[] = {
    {{0x00, 0x00}, 2, "length"},
    {{0x00, 0x06}, 2, "length"},
    {{0x80, 0x08}, 2, "length"},
    {{0xff, 0xff}, 2, "length"},
    {{0x00, 0x07, 0x00}, 3, "flag"},
    {{0x00, 0x07, 0x7f}, 3, "flag"},
    {{0x00, 0x07, 0x88}, 3, "flag"},
    {{0x00, 0x07, 0xff}, 3, "flag"},
    {{0x04, 0x08, 0x84}, 3, "control frame longer"},
    {{0x80, 0x07, 0x87}, 3, "control frame longer"},
    {{0x00, 0x07, 0x80, 0, 0, 0, 0}, 7, "session 0"},
    {{0x00, 0x08, 0x81, 0, 0, 0, 0}, 7, "session 0"},
    {{0x00, 0x08, 0x82, 0, 0, 0, 0}, 7, "session 0"},
    {{0x00, 0x08, 0x83, 0, 0, 0, 0}, 7, "session 0"},
    {{0x00, 0x07, 0x84, 0, 0, 0, 1}, 7, "with a session"},
    {{0x00, 0x07, 0x87, 1, 0, 0, 0}, 7, "with a session"},
};

START_TEST(test_frame_is_refused_as_soon_as_its_bytes_are_there)
{
    const struct refusal *refusal = &refusals[_i];
    for (size_t size = 0; size <= sizeof refusal->bytes; size++) {
        struct evpt_frame frame;
        const char *reason = NULL;
        ssize_t taken = read_bytes(refusal->bytes, size, &frame, &reason);
        if (size < refusal->known_after) {
            ck_assert_int_eq(taken, 0);
        } else {
            ck_assert_int_eq(taken, -EVPT_EPROTOCOL);
            ck_assert_ptr_nonnull(strstr(reason, refusal->reason));
        }
    }
}
END_TEST

START_TEST(test_frame_reader_stays_inside_random_bytes)
{
    uint64_t random = test_seed();
    int read = 0, refused = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[64];
        size_t size = next_random(&random) % sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)next_random(&random);
        if (size > 2 && round % 2) { /* half of them near something valid */
            bytes[0] = 0;
            bytes[1] %= sizeof bytes;
            bytes[2] = 0x80 | (bytes[2] & 7);
        }
        struct evpt_frame frame;
        const char *reason = NULL;
        ssize_t taken = read_bytes(bytes, size, &frame, &reason);
        ck_assert_int_le(taken, (ssize_t)size);
        if (taken > 0) {
            read++;
            ck_assert_uint_eq((size_t)taken, frame.size + EVPT_FRAME_HEADER);
        } else if (taken < 0) {
            refused++;
            ck_assert_ptr_nonnull(reason);
        }
    }
    ck_assert_int_gt(read, 1000);
    ck_assert_int_gt(refused, 1000);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("frame");
    tcase_add_test(tcase, test_frame_header_has_the_bytes_of_the_specification);
    tcase_add_test(tcase, test_frame_of_every_flag_and_size_comes_back);
    tcase_add_test(tcase, test_frame_wants_more_at_every_length_short_of_its_own);
    tcase_add_loop_test(tcase, test_frame_is_refused_as_soon_as_its_bytes_are_there, 0,
                        sizeof refusals / sizeof refusals[0]);
    tcase_add_test(tcase, test_frame_reader_stays_inside_random_bytes);
    return run_tests("frame", tcase);
}
