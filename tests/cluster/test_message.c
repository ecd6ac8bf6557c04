#include "cluster/message.h"

#include "support.h"
#include <stddef.h>

START_TEST(test_message_is_new_but_for_its_capacity)
{
    struct evpt_message *message = evpt_message_new(100);
    ck_assert_ptr_nonnull(message);
    ck_assert_uint_eq(message->deadline_ns, EVPT_FOREVER);
    ck_assert_uint_eq(message->capacity, 100);
    ck_assert_uint_eq(message->size, 0);
    ck_assert_uint_eq(message->session, 0);
    ck_assert_uint_eq(message->lane, 0);
    ck_assert_uint_eq(message->flags, 0);
    memset(message->data, 0xee, 100);
    evpt_message_free(message);
    evpt_message_free(NULL);
}
END_TEST

START_TEST(test_message_has_its_headroom_right_in_front_of_its_data)
{
    struct evpt_message *message = evpt_message_new(1);
    ck_assert_ptr_eq(message->headroom + EVPT_MESSAGE_HEADROOM, message->data);
    ck_assert_int_ge(EVPT_MESSAGE_HEADROOM, EVPT_FRAME_HEADER);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_message_grows_by_doubling_and_keeps_what_it_has)
{
    struct evpt_message *message = make_message(9, 0, 10);
    message->lane = 77;
    int moves = 0;
    while (message->size < 100000) {
        uint32_t before = message->capacity;
        message = evpt_message_grow(message, 1);
        ck_assert_ptr_nonnull(message);
        ck_assert_uint_gt(message->capacity, message->size);
        moves += message->capacity != before;
        message->data[message->size++] = 0xab;
    }
    ck_assert_int_le(moves, 15);
    ck_assert_uint_eq(message->lane, 77);
    for (uint32_t i = 10; i < message->size; i++)
        ck_assert_uint_eq(message->data[i], 0xab);
    message->size = 10;
    check_message(message, 9, 10);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_message_has_room_for_one_large_piece)
{
    struct evpt_message *message = make_message(9, 0, 10);
    message = evpt_message_grow(message, 5000);
    ck_assert_uint_eq(message->capacity, 5010);
    message = evpt_message_resize(message, 10);
    ck_assert_uint_eq(message->capacity, 10);
    check_message(message, 9, 10);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_message_longer_than_its_size_can_say_is_refused)
{
    ck_assert_ptr_null(evpt_message_new(UINT32_MAX));
    ck_assert_ptr_null(evpt_message_new(SIZE_MAX));
    struct evpt_message *message = make_message(9, 0, 10);
    ck_assert_ptr_null(evpt_message_grow(message, UINT32_MAX));
    ck_assert_ptr_null(evpt_message_grow(message, SIZE_MAX));
    ck_assert_ptr_null(evpt_message_resize(message, UINT32_MAX));
    check_message(message, 9, 10);
    evpt_message_free(message);
}
END_TEST

START_TEST(test_message_stays_valid_where_memory_is_refused)
{
    refuse_alloc(0);
    ck_assert_ptr_null(evpt_message_new(10));
    struct evpt_message *message = make_message(9, 0, 10);
    refuse_alloc(0);
    ck_assert_ptr_null(evpt_message_grow(message, 1));
    ck_assert(alloc_was_refused());
    check_message(message, 9, 10);
    evpt_message_free(message);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("message");
    tcase_add_test(tcase, test_message_is_new_but_for_its_capacity);
    tcase_add_test(tcase, test_message_has_its_headroom_right_in_front_of_its_data);
    tcase_add_test(tcase, test_message_grows_by_doubling_and_keeps_what_it_has);
    tcase_add_test(tcase, test_message_has_room_for_one_large_piece);
    tcase_add_test(tcase, test_message_longer_than_its_size_can_say_is_refused);
    tcase_add_test(tcase, test_message_stays_valid_where_memory_is_refused);
    return run_tests("message", tcase);
}
