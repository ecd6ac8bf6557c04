/* Who may call what: patterns, rules, and the registry that keeps them. */
#include "support.h"

#include "cluster/session.h"
#include "services/access.h"
#include "services/registry.h"

#include <errno.h>
#include <string.h>

START_TEST(test_access_pattern_matches_as_it_says)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"game_1", "game_1", true}, {"game_1", "game_12", false},
        {"game_1", "game_", false}, {"game_1", "Game_1", false},
        {"game_*", "game_1", true}, {"game_*", "game_", true},
        {"game_*", "game", false},  {"*", "a", true},
        {"*", "", false},           {"**", "ab", true},
        {"*_1", "game_1", true},    {"*_1", "game_11", false},
        {"*_1", "_1_1", true},      {"a*b*c", "abc", true},
        {"a*b*c", "a_b_b_c", true}, {"a*b*c", "acb", false},
        {"*ab", "aab", true},       {"*ab", "abab", true},
        {"*ab*", "xxabxx", true},   {"*a*a*", "a", false},
        {"x", "", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(evpt_access_matches(cases[i].pattern, cases[i].name) == cases[i].matches,
                      "%s on \"%s\"", cases[i].pattern, cases[i].name);
}
END_TEST

/* The slow way: every place for every star. */
static bool model(const char *pattern, const char *name)
{
    if (*pattern == 0)
        return *name == 0;
    if (*pattern == '*')
        return model(pattern + 1, name) || (*name && model(pattern, name + 1));
    return *pattern == *name && model(pattern + 1, name + 1);
}

START_TEST(test_access_patterns_agree_with_a_model)
{
    uint64_t random = support_seed();
    for (int i = 0; i < 20000; i++) {
        char pattern[9] = "", name[9] = "";
        size_t pattern_size = support_random(&random) % 8 + 1,
               size = support_random(&random) % 8 + 1;
        for (size_t k = 0; k < pattern_size; k++)
            pattern[k] = "ab*"[support_random(&random) % 3];
        for (size_t k = 0; k < size; k++)
            name[k] = "ab"[support_random(&random) % 2];
        ck_assert_msg(evpt_access_matches(pattern, name) == model(pattern, name), "%s on %s",
                      pattern, name);
    }
}
END_TEST

START_TEST(test_access_pattern_of_many_stars_takes_no_time)
{
    char pattern[EVPT_NODE_NAME_MAX + 1] = "", name[EVPT_NODE_NAME_MAX + 1] = "";
    for (int i = 0; i < EVPT_NODE_NAME_MAX; i++) {
        pattern[i] = i % 2 ? 'a' : '*';
        name[i] = 'a';
    }
    pattern[EVPT_NODE_NAME_MAX - 1] = 'b';
    for (int i = 0; i < 100000; i++)
        CHECK(!evpt_access_matches(pattern, name)); /* of ages, where each star were tried anew */
}
END_TEST

START_TEST(test_access_pattern_is_made_of_a_names_letters_and_stars)
{
    char longest[EVPT_NODE_NAME_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[EVPT_NODE_NAME_MAX + 1] = 0;
    static const char *const good[] = {"a", "*", "1*", "Game_*_9"};
    static const char *const bad[] = {"", "a-b", "a b", "a.b", "a?", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert(evpt_access_pattern_is_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert(!evpt_access_pattern_is_valid(bad[i]));
    ck_assert(!evpt_access_pattern_is_valid(longest));
    longest[EVPT_NODE_NAME_MAX] = 0;
    ck_assert(evpt_access_pattern_is_valid(longest));
}
END_TEST

START_TEST(test_access_rule_is_for_its_method_until_it_is_replaced)
{
    static const char *const games[] = {"game_*", "login_1"}, *const gm[] = {"gm_1"};
    struct evpt_access_rule *rules = NULL;
    ck_assert(evpt_access_allows(rules, "join", 4, ""));
    ck_assert_int_eq(evpt_access_set(&rules, "join", 4, games, 2), 0);
    ck_assert_int_eq(evpt_access_set(&rules, "kick", 4, gm, 1), 0);
    ck_assert(evpt_access_allows(rules, "join", 4, "game_7"));
    ck_assert(evpt_access_allows(rules, "join", 4, "login_1"));
    ck_assert(!evpt_access_allows(rules, "join", 4, "gm_1"));
    ck_assert(!evpt_access_allows(rules, "join", 4, ""));
    ck_assert(evpt_access_allows(rules, "joi", 3, "gm_1")); /* another method */
    ck_assert(!evpt_access_allows(rules, "kick", 4, "game_7"));
    ck_assert_int_eq(evpt_access_set(&rules, "join", 4, gm, 1), 0);
    ck_assert(!evpt_access_allows(rules, "join", 4, "game_7"));
    ck_assert(evpt_access_allows(rules, "join", 4, "gm_1"));
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_access_set(&rules, "join", 4, games, 2), -ENOMEM);
    ck_assert(evpt_access_allows(rules, "join", 4, "gm_1")); /* as it was */
    ck_assert_int_eq(evpt_access_set(&rules, "join", 4, NULL, 0), 0);
    ck_assert(evpt_access_allows(rules, "join", 4, "anybody"));
    ck_assert(!evpt_access_allows(rules, "kick", 4, "anybody"));
    evpt_access_clear(&rules);
    ck_assert_ptr_null(rules);
}
END_TEST

START_TEST(test_access_rules_go_with_their_service)
{
    static const char *const gm[] = {"gm_1"};
    static struct evpt_registry registry;
    evpt_registry_init(&registry);
    struct evpt_service *service = evpt_registry_claim(&registry);
    uint32_t handle = evpt_service_handle(service);
    ck_assert(evpt_registry_allows(&registry, handle, "kick", 4, ""));
    ck_assert_int_eq(evpt_registry_restrict(&registry, handle, "kick", 4, gm, 1), 0);
    ck_assert(!evpt_registry_allows(&registry, handle, "kick", 4, "game_1"));
    ck_assert(evpt_registry_allows(&registry, handle, "kick", 4, "gm_1"));
    ck_assert(evpt_registry_allows(&registry, handle, "join", 4, "game_1"));
    evpt_registry_release(&registry, service);
    ck_assert_int_eq(evpt_registry_restrict(&registry, handle, "kick", 4, gm, 1), -EVPT_ENOTFOUND);
    ck_assert(evpt_registry_allows(&registry, handle, "kick", 4, "x")); /* nobody to protect */
    uint32_t next = 0;
    for (unsigned i = 0; i < EVPT_SLOT_CHUNK; i++) { /* until the slot comes round again */
        service = evpt_registry_claim(&registry);
        if (evpt_service_handle(service) % EVPT_SLOTS_MAX == handle % EVPT_SLOTS_MAX)
            next = evpt_service_handle(service);
    }
    ck_assert_uint_ne(next, 0);
    ck_assert(evpt_registry_allows(&registry, next, "kick", 4, "x"));
    ck_assert_int_eq(evpt_registry_restrict(&registry, next, "kick", 4, gm, 1), 0);
    evpt_registry_fini(&registry); /* with the rule */
}
END_TEST

SUPPORT_MAIN("access", test_access_pattern_matches_as_it_says,
             test_access_patterns_agree_with_a_model,
             test_access_pattern_of_many_stars_takes_no_time,
             test_access_pattern_is_made_of_a_names_letters_and_stars,
             test_access_rule_is_for_its_method_until_it_is_replaced,
             test_access_rules_go_with_their_service)
