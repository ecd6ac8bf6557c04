/* The log: what is written is in the file, once, in order and readable; what is not, is counted. */
#include "support.h"

#include "services/log.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[64], path[96], moved[96];
static struct evpt_log logger;

static void make_folder(void)
{
    strcpy(folder, "/tmp/evpt-test-log-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(moved, sizeof(moved), "%s/log.1", folder);
}

static void remove_folder(void)
{
    (void)unlink(path);
    (void)unlink(moved);
    ck_assert_int_eq(rmdir(folder), 0);
}

/* The whole file, to be freed. */
static char *read_file(const char *name)
{
    FILE *file = fopen(name, "r");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    char *text = malloc(size + 1);
    rewind(file);
    ck_assert_uint_eq(fread(text, 1, size, file), size);
    text[size] = 0;
    fclose(file);
    return text;
}

static void start_log(bool json)
{
    ck_assert_int_eq(evpt_log_init(&logger, "game_1", path, json, EVPT_LOG_INFO), 0);
    ck_assert_int_eq(evpt_log_start(&logger), 0);
}

/* What one message with these bytes looks like in the file, behind time, level and names. */
static char *logged(bool json, const char *service, const char *bytes, size_t size)
{
    make_folder();
    start_log(json);
    evpt_log_write(&logger, EVPT_LOG_WARN, service, bytes, size);
    evpt_log_fini(&logger);
    char *text = read_file(path);
    remove_folder();
    return text;
}

static void check_logged(bool json, const char *service, const char *bytes, size_t size,
                         const char *expected)
{
    char *text = logged(json, service, bytes, size);
    const size_t skipped = json ? strlen("{\"time\":\"2026-11-22T18:58:11.123Z\",")
                                : strlen("2026-11-22T18:58:11.123Z ");
    ck_assert_uint_gt(strlen(text), skipped);
    ck_assert_str_eq(text + skipped, expected);
    free(text);
}

/* ---- lines ---- */

START_TEST(test_log_text_line_has_its_form)
{
    int year, month, day, hour, minute, second, ms, used = 0;
    char *text = logged(false, "room_1", "player 17 joined", 16);
    ck_assert_int_eq(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour,
                            &minute, &second, &ms, &used),
                     7);
    ck_assert_int_eq(used, 24);
    ck_assert_int_ge(year, 2024);
    ck_assert_str_eq(text + used, " warn game_1 room_1 player 17 joined\n");
    free(text);
}
END_TEST

START_TEST(test_log_text_shows_control_characters)
{
    check_logged(false, NULL, "a\tb\nc", 5, "warn game_1 - a\tb\nc\n");
    check_logged(false, "", "\x1b[31m\r\0\x7f", 8, "warn game_1 - \\x1b[31m\\x0d\\x00\\x7f\n");
    check_logged(false, "\x1b]", "\xff\xc3\xa4", 3, "warn game_1 \\x1b] \xff\xc3\xa4\n");
    check_logged(false, "s", "", 0, "warn game_1 s \n");
}
END_TEST

START_TEST(test_log_json_line_is_json_whatever_is_in_it)
{
#define HEAD(service)                                                                              \
    "\"level\":\"warn\",\"node\":\"game_1\",\"service\":\"" service "\",\"message\":\""
    check_logged(true, "room_1", "hi", 2, HEAD("room_1") "hi\"}\n");
    check_logged(true, NULL, "\"\\\n\t\r\x01\x7f", 7,
                 HEAD("-") "\\\"\\\\\\n\\t\\u000d\\u0001\\u007f\"}\n");
    check_logged(true, "a\"b\n", "", 0, HEAD("a\\\"b\\n") "\"}\n");
    /* UTF-8 stays, what is none is replaced byte by byte */
    check_logged(true, "s", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", 11,
                 HEAD("s") "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"}\n");
    check_logged(true, "s", "\xff", 1, HEAD("s") "\\ufffd\"}\n");
    check_logged(true, "s", "\xc3", 1, HEAD("s") "\\ufffd\"}\n");            /* cut */
    check_logged(true, "s", "\xc0\xaf", 2, HEAD("s") "\\ufffd\\ufffd\"}\n"); /* overlong */
    check_logged(true, "s", "\xe0\x9f\xbf", 3, HEAD("s") "\\ufffd\\ufffd\\ufffd\"}\n");
    check_logged(true, "s", "\xed\xa0\x80", 3,
                 HEAD("s") "\\ufffd\\ufffd\\ufffd\"}\n"); /* surrogate */
    check_logged(true, "s", "\xf4\x90\x80\x80", 4,
                 HEAD("s") "\\ufffd\\ufffd\\ufffd\\ufffd\"}\n"); /* beyond the last one */
    check_logged(true, "s", "\xe2\x82x", 3, HEAD("s") "\\ufffd\\ufffdx\"}\n");
}
END_TEST

START_TEST(test_log_cuts_long_messages_and_says_so)
{
    static char bytes[EVPT_LOG_MESSAGE_MAX + 1];
    memset(bytes, '\x01', sizeof(bytes)); /* of which each becomes six */
    for (int json = 0; json <= 1; json++) {
        for (size_t size = EVPT_LOG_MESSAGE_MAX; size <= sizeof(bytes); size++) {
            char *text = logged(json, "s", bytes, size);
            size_t each = json ? 6 : 4, length = strlen(text);
            ck_assert_uint_ge(length, EVPT_LOG_MESSAGE_MAX * each);
            ck_assert_int_eq(strstr(text, " [cut]") != NULL, size > EVPT_LOG_MESSAGE_MAX);
            ck_assert_str_eq(text + length - (json ? 3 : 1), json ? "\"}\n" : "\n");
            free(text);
        }
    }
    memset(bytes, 'x', sizeof(bytes));
    bytes[300] = 0;
    char *text = logged(false, bytes, "m", 1); /* the service's name, too */
    ck_assert_uint_lt(strlen(text), 200);
    free(text);
}
END_TEST

START_TEST(test_log_level_is_obeyed_and_may_change)
{
    make_folder();
    start_log(false);
    ck_assert(!evpt_log_wants(&logger, EVPT_LOG_DEBUG));
    evpt_logf(&logger, EVPT_LOG_DEBUG, "s", "not this");
    atomic_store(&logger.level, EVPT_LOG_DEBUG);
    evpt_logf(&logger, EVPT_LOG_DEBUG, "s", "but %s, %d", "this", 42);
    atomic_store(&logger.level, EVPT_LOG_ERROR);
    evpt_logf(&logger, EVPT_LOG_WARN, "s", "not this");
    evpt_logf(&logger, EVPT_LOG_ERROR, "s", "%0600d", 7); /* longer than the buffer on the stack */
    evpt_log_fini(&logger);
    char *text = read_file(path);
    ck_assert_ptr_null(strstr(text, "not this"));
    ck_assert_ptr_nonnull(strstr(text, "debug game_1 s but this, 42\n"));
    ck_assert_ptr_nonnull(strstr(text, "0000007\n"));
    free(text);
    remove_folder();
}
END_TEST

/* ---- many threads ---- */

enum { WRITERS = 4, LINES = 5000 };

struct writer {
    struct evpt_thread thread;
    int number;
};

static void write_lines(void *user)
{
    struct writer *writer = user;
    for (int i = 0; i < LINES; i++)
        evpt_logf(&logger, EVPT_LOG_INFO, "w", "%d %d", writer->number, i);
}

static void start_writers(struct writer *writers)
{
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.number = i};
        ck_assert_int_eq(evpt_thread_start(&writers[i].thread, "writer", write_lines, &writers[i]),
                         0);
    }
}

/* Each line that was written is there once, those of one thread in order. */
static void check_lines(const char *text, int next[WRITERS])
{
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        int writer, number;
        ck_assert_int_eq(sscanf(line, "%*s info game_1 w %d %d\n", &writer, &number), 2);
        ck_assert_int_eq(number, next[writer]);
        next[writer]++;
    }
}

START_TEST(test_log_lines_of_many_threads_are_all_there)
{
    struct writer writers[WRITERS];
    int next[WRITERS] = {0};
    make_folder();
    start_log(false);
    start_writers(writers);
    for (int i = 0; i < WRITERS; i++)
        evpt_thread_join(&writers[i].thread);
    evpt_log_fini(&logger);
    char *text = read_file(path);
    check_lines(text, next);
    for (int i = 0; i < WRITERS; i++)
        ck_assert_int_eq(next[i], LINES);
    free(text);
    remove_folder();
}
END_TEST

START_TEST(test_log_rotation_loses_no_line)
{
    struct writer writers[WRITERS];
    int next[WRITERS] = {0};
    make_folder();
    start_log(false);
    start_writers(writers);
    for (int i = 0; i < 50; i++) {
        if (rename(path, moved) == 0) {
            evpt_log_reopen(&logger);
            UNTIL(access(path, F_OK) == 0); /* even if nobody writes any more */
            UNTIL(!atomic_load(&logger.reopen));
            char *text = read_file(moved);
            check_lines(text, next);
            free(text);
        }
    }
    for (int i = 0; i < WRITERS; i++)
        evpt_thread_join(&writers[i].thread);
    evpt_log_fini(&logger);
    char *text = read_file(path);
    check_lines(text, next);
    for (int i = 0; i < WRITERS; i++)
        ck_assert_int_eq(next[i], LINES);
    free(text);
    remove_folder();
}
END_TEST

START_TEST(test_log_line_after_reopen_is_in_the_new_file)
{
    make_folder();
    start_log(false);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(rename(path, moved), 0);
        evpt_log_reopen(&logger);
        evpt_logf(&logger, EVPT_LOG_INFO, "s", "line %d", i);
        char expected[32];
        snprintf(expected, sizeof(expected), "line %d\n", i);
        UNTIL(access(path, F_OK) == 0);
        uint64_t lines = (uint64_t)i + 1;
        UNTIL(atomic_load(&logger.lines) == lines);
        char *text = read_file(path);
        ck_assert_ptr_nonnull(strstr(text, expected));
        free(text);
    }
    evpt_log_fini(&logger);
    remove_folder();
}
END_TEST

START_TEST(test_log_reopen_that_fails_keeps_the_old_file)
{
    make_folder();
    start_log(false);
    ck_assert_int_eq(rename(path, moved), 0);
    char elsewhere[96];
    snprintf(elsewhere, sizeof(elsewhere), "%s-elsewhere", folder);
    ck_assert_int_eq(rename(folder, elsewhere), 0);
    evpt_log_reopen(&logger);
    evpt_logf(&logger, EVPT_LOG_INFO, "s", "still here");
    UNTIL(atomic_load(&logger.lines) == 2);
    ck_assert_int_eq(rename(elsewhere, folder), 0);
    evpt_log_fini(&logger);
    char *text = read_file(moved);
    ck_assert_ptr_nonnull(strstr(text, "s still here\n"));
    ck_assert_ptr_nonnull(strstr(text, " error game_1 log cannot open /tmp/"));
    ck_assert_ptr_nonnull(strstr(text, "goes on with the old file: No such file or directory\n"));
    free(text);
    remove_folder();
}
END_TEST

/* ---- fields ---- */

static const struct evpt_log_field fields[] = {
    {"player", "17", 2, true},   {"alive", "true", 4, true},
    {"name", "Ann", 3, false},   {"place", "the \"lobby\"\n", 12, false},
    {"empty", "", 0, false},     {"sum", "a=b", 3, false},
    {"path", "c:\\x", 4, false}, {"bytes", "\x01\xff\xe4\xbd\xa0", 5, false},
    {"time", "now", 3, false}, /* a name that the line has already */
};

static void check_fields(bool json, const char *expected)
{
    make_folder();
    start_log(json);
    evpt_log_write_fields(&logger, EVPT_LOG_INFO, "s", "joined", 6, fields,
                          sizeof(fields) / sizeof(fields[0]));
    evpt_log_fini(&logger);
    char *text = read_file(path);
    remove_folder();
    const char *message = strstr(text, "joined");
    ck_assert_ptr_nonnull(message);
    ck_assert_str_eq(message, expected);
    free(text);
}

START_TEST(test_log_fields_follow_the_message)
{
    check_fields(false, "joined player=17 alive=true name=Ann place=\"the \\\"lobby\\\"\\n\" "
                        "empty=\"\" sum=\"a=b\" path=\"c:\\\\x\" "
                        "bytes=\"\\x01\xff\xe4\xbd\xa0\" time_=now\n");
    check_fields(true, "joined\",\"player\":17,\"alive\":true,\"name\":\"Ann\","
                       "\"place\":\"the \\\"lobby\\\"\\n\",\"empty\":\"\",\"sum\":\"a=b\","
                       "\"path\":\"c:\\\\x\",\"bytes\":\"\\u0001\\ufffd\xe4\xbd\xa0\","
                       "\"time_\":\"now\"}\n");
}
END_TEST

START_TEST(test_log_fields_have_bounds)
{
    static char large[100000];
    char name[100];
    memset(large, '\x01', sizeof(large)); /* which takes the most room */
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    for (int json = 0; json < 2; json++) {
        struct evpt_log_field many[EVPT_LOG_FIELDS_MAX];
        for (int i = 0; i < EVPT_LOG_FIELDS_MAX; i++)
            many[i] = (struct evpt_log_field){name, large, sizeof(large), false};
        make_folder();
        start_log(json);
        evpt_log_write_fields(&logger, EVPT_LOG_INFO, "s", large, sizeof(large), many,
                              EVPT_LOG_FIELDS_MAX); /* ASan sees where the room is too small */
        evpt_log_fini(&logger);
        char *text = read_file(path);
        remove_folder();
        ck_assert_ptr_nonnull(strstr(text, json ? " [cut]\",\"nnn" : " [cut] nnn"));
        ck_assert_uint_lt(strlen(text), 1500000);
        ck_assert(text[strlen(text) - 1] == '\n');
        free(text);
    }
}
END_TEST

/* ---- too much, and no room ---- */

START_TEST(test_log_queue_is_bounded_and_drops_are_counted)
{
    static char big[60000];
    memset(big, 'x', sizeof(big));
    make_folder();
    ck_assert_int_eq(evpt_log_init(&logger, "game_1", path, false, EVPT_LOG_INFO), 0);
    int written = 0; /* nobody takes lines out yet */
    while (atomic_load(&logger.dropped) == 0) {
        evpt_log_write(&logger, EVPT_LOG_INFO, "s", big, sizeof(big));
        written++;
        ck_assert_uint_lt(atomic_load(&logger.queued), EVPT_LOG_QUEUE_MAX + 2 * sizeof(big));
        ck_assert_int_lt(written, 1000);
    }
    ck_assert_int_gt(written, EVPT_LOG_QUEUE_MAX / (int)sizeof(big));
    for (int i = 0; i < 9; i++)
        evpt_logf(&logger, EVPT_LOG_INFO, "s", "dropped, too");
    ck_assert_uint_eq(atomic_load(&logger.dropped), 10);
    ck_assert_int_eq(evpt_log_start(&logger), 0);
    UNTIL(atomic_load(&logger.queued) == 0);
    evpt_logf(&logger, EVPT_LOG_INFO, "s", "there is room again");
    evpt_log_fini(&logger);
    char *text = read_file(path);
    ck_assert_ptr_nonnull(strstr(text, "warn game_1 log 10 log lines were dropped\n"));
    ck_assert_ptr_nonnull(strstr(text, "there is room again\n"));
    ck_assert_ptr_null(strstr(text, "dropped, too"));
    const char *told = strstr(text, "were dropped");
    ck_assert_ptr_null(strstr(told + 1, "were dropped")); /* once */
    free(text);
    remove_folder();
}
END_TEST

START_TEST(test_log_full_disk_costs_lines_and_nothing_else)
{
    ck_assert_int_eq(evpt_log_init(&logger, "game_1", "/dev/full", false, EVPT_LOG_INFO), 0);
    ck_assert_int_eq(evpt_log_start(&logger), 0);
    for (int i = 0; i < 100; i++)
        evpt_logf(&logger, EVPT_LOG_INFO, "s", "line %d", i);
    UNTIL(atomic_load(&logger.dropped) == 100);
    ck_assert_uint_eq(atomic_load(&logger.queued), 0);
    ck_assert_uint_eq(atomic_load(&logger.lines), 0);
    evpt_log_fini(&logger);
}
END_TEST

/* What got lost while the disk was full is told when it is not any more. */
START_TEST(test_log_tells_of_lines_lost_to_a_full_disk_later)
{
    make_folder();
    ck_assert_int_eq(symlink("/dev/full", path), 0);
    start_log(false);
    for (int i = 0; i < 5; i++) {
        evpt_logf(&logger, EVPT_LOG_INFO, "s", "lost");
        uint64_t lost = (uint64_t)i + 1;
        UNTIL(atomic_load(&logger.dropped) == lost);
    }
    ck_assert_int_eq(unlink(path), 0);
    evpt_log_reopen(&logger);
    evpt_logf(&logger, EVPT_LOG_INFO, "s", "kept");
    UNTIL(atomic_load(&logger.lines) == 2);
    evpt_log_fini(&logger);
    char *text = read_file(path);
    ck_assert_ptr_nonnull(strstr(text, "s kept\n"));
    ck_assert_ptr_nonnull(strstr(text, "5 log lines were dropped\n"));
    free(text);
    remove_folder();
}
END_TEST

/* A disk with so many bytes of room, for this process. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* No half a line, whatever the room was; and the count comes by itself when there is room again. */
START_TEST(test_log_full_disk_takes_whole_lines_and_is_told_of_when_it_is_over)
{
    signal(SIGXFSZ, SIG_IGN); /* as evpt does: else the first byte too many kills the process */
    for (rlim_t room = 1000; room < 1100; room += 33) {
        make_folder();
        limit_files(room);
        start_log(true);
        for (uint64_t i = 1; i <= 40; i++) {
            evpt_logf(&logger, EVPT_LOG_INFO, "s", "line %d", (int)i);
            UNTIL(atomic_load(&logger.lines) + atomic_load(&logger.dropped) == i);
        }
        uint64_t kept = atomic_load(&logger.lines), lost = atomic_load(&logger.dropped);
        ck_assert_uint_gt(kept, 5);
        ck_assert_uint_gt(lost, 5);
        limit_files(RLIM_INFINITY);
        UNTIL(atomic_load(&logger.lines) == kept + 1); /* nobody logs anything meanwhile */
        evpt_log_fini(&logger);
        char *text = read_file(path), words[64];
        uint64_t lines = 0;
        for (const char *at = text; *at; lines++) {
            ck_assert_int_eq(*at, '{');
            const char *end = strchr(at, '\n');
            ck_assert_ptr_nonnull(end);
            ck_assert_int_eq(end[-1], '}');
            at = end + 1;
        }
        ck_assert_uint_eq(lines, kept + 1);
        snprintf(words, sizeof(words), "\"%d log lines were dropped\"}\n", (int)lost);
        ck_assert_ptr_nonnull(strstr(text, words));
        free(text);
        remove_folder();
    }
}
END_TEST

START_TEST(test_log_without_memory_counts_the_line_as_dropped)
{
    make_folder();
    start_log(false);
    support_fail_allocation(1);
    evpt_logf(&logger, EVPT_LOG_INFO, "s", "lost");
    ck_assert(support_allocation_failed());
    ck_assert_uint_eq(atomic_load(&logger.dropped), 1);
    support_fail_allocation(1);
    evpt_logf(&logger, EVPT_LOG_INFO, "s", "%0600d", 7); /* here already the text has no room */
    ck_assert(support_allocation_failed());
    support_fail_allocation(0);
    ck_assert_uint_eq(atomic_load(&logger.dropped), 2);
    evpt_log_fini(&logger);
    remove_folder();
}
END_TEST

START_TEST(test_log_init_that_fails_says_why_and_can_be_finished)
{
    ck_assert_int_eq(evpt_log_init(&logger, "game_1", "/no/such/folder/log", false, EVPT_LOG_INFO),
                     -ENOENT);
    evpt_log_fini(&logger);
    support_fail_allocation(1);
    ck_assert_int_eq(evpt_log_init(&logger, "game_1", "/dev/null", false, EVPT_LOG_INFO), -ENOMEM);
    support_fail_allocation(0);
    evpt_log_fini(&logger);
    evpt_log_fini(&logger);
    evpt_log_fini(NULL);
}
END_TEST

SUPPORT_MAIN("log", test_log_text_line_has_its_form, test_log_text_shows_control_characters,
             test_log_json_line_is_json_whatever_is_in_it, test_log_cuts_long_messages_and_says_so,
             test_log_level_is_obeyed_and_may_change, test_log_lines_of_many_threads_are_all_there,
             test_log_rotation_loses_no_line, test_log_line_after_reopen_is_in_the_new_file,
             test_log_reopen_that_fails_keeps_the_old_file, test_log_fields_follow_the_message,
             test_log_fields_have_bounds, test_log_queue_is_bounded_and_drops_are_counted,
             test_log_full_disk_costs_lines_and_nothing_else,
             test_log_tells_of_lines_lost_to_a_full_disk_later,
             test_log_full_disk_takes_whole_lines_and_is_told_of_when_it_is_over,
             test_log_without_memory_counts_the_line_as_dropped,
             test_log_init_that_fails_says_why_and_can_be_finished)
