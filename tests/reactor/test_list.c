#include "support.h"
#include "reactor/list.h"

struct item {
    int value;
    struct evpt_list link;
};

static int value_of(struct evpt_list *link)
{
    return link ? EVPT_CONTAINER_OF(link, struct item, link)->value : -1;
}

static void fill(struct evpt_list *list, struct item *items, int count)
{
    evpt_list_init(list);
    for (int i = 0; i < count; i++) {
        items[i] = (struct item){.value = i};
        evpt_list_push_back(list, &items[i].link);
    }
}

START_TEST(test_pops_in_the_order_pushed)
{
    struct evpt_list list;
    struct item items[5];
    fill(&list, items, 5);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(value_of(evpt_list_pop_front(&list)), i);
    ck_assert(evpt_list_is_empty(&list));
    ck_assert_ptr_null(evpt_list_pop_front(&list));
}
END_TEST

START_TEST(test_zeroed_and_popped_nodes_are_unlinked)
{
    struct evpt_list list;
    struct item item = {0};
    evpt_list_init(&list);
    ck_assert(!evpt_list_is_linked(&item.link));
    evpt_list_remove(&item.link);
    evpt_list_push_back(&list, &item.link);
    ck_assert(evpt_list_is_linked(&item.link));
    evpt_list_pop_front(&list);
    ck_assert(!evpt_list_is_linked(&item.link));
    evpt_list_remove(&item.link);
    ck_assert(evpt_list_is_empty(&list));
}
END_TEST

START_TEST(test_removes_first_middle_last_and_only)
{
    struct evpt_list list;
    struct item items[4];
    fill(&list, items, 4);
    evpt_list_remove(&items[0].link);
    evpt_list_remove(&items[2].link);
    evpt_list_remove(&items[3].link);
    ck_assert_ptr_eq(list.next, &items[1].link);
    ck_assert_ptr_eq(list.prev, &items[1].link);
    evpt_list_remove(&items[1].link);
    ck_assert(evpt_list_is_empty(&list));
}
END_TEST

START_TEST(test_move_takes_everything_in_order_and_leaves_an_empty_list)
{
    struct evpt_list list, other;
    struct item items[3];
    fill(&list, items, 3);
    evpt_list_move(&other, &list);
    ck_assert(evpt_list_is_empty(&list));
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(value_of(evpt_list_pop_front(&other)), i);
    evpt_list_move(&other, &list);
    ck_assert(evpt_list_is_empty(&other));
}
END_TEST

START_TEST(test_moved_list_survives_any_unlinking_while_it_is_popped)
{
    struct evpt_list list, todo;
    struct item items[6];
    fill(&list, items, 6);
    evpt_list_move(&todo, &list);
    ck_assert_int_eq(value_of(evpt_list_pop_front(&todo)), 0);
    evpt_list_remove(&items[0].link);           /* itself */
    evpt_list_remove(&items[1].link);           /* the next */
    evpt_list_remove(&items[5].link);           /* the last */
    evpt_list_push_back(&list, &items[1].link); /* back in the list for later */
    for (int i = 2; i < 5; i++)
        ck_assert_int_eq(value_of(evpt_list_pop_front(&todo)), i);
    ck_assert(evpt_list_is_empty(&todo));
    ck_assert_int_eq(value_of(evpt_list_pop_front(&list)), 1);
}
END_TEST

SUPPORT_MAIN("reactor/list", test_pops_in_the_order_pushed,
             test_zeroed_and_popped_nodes_are_unlinked, test_removes_first_middle_last_and_only,
             test_move_takes_everything_in_order_and_leaves_an_empty_list,
             test_moved_list_survives_any_unlinking_while_it_is_popped)
