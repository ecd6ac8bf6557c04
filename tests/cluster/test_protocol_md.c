/* Reads PROTOCOL.md and holds the code to what it says.
 *
 * A ```wire block is a conversation: each frame has a line in words and its bytes below
 * (PROTOCOL.md, section 8). The bytes are decoded with the real codec, put back into the words, and
 * compared; then they are given to real sessions. A ```refused block has on each line the first
 * bytes of a client and the reason why a server ends the connection.
 */
#include "cluster/frame.h"

#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const flag_names[] = {"WHOLE", "FIRST", "MIDDLE", "LAST",
                                         "HELLO", "PING",  "PONG",   "GOAWAY"};

/* ---- the document ---- */

static char *read_document(void)
{
    char path[4096], *text;
    size_t size;
    const char *root = getenv("EVPT_SOURCE_ROOT");
    ck_assert_msg(root, "EVPT_SOURCE_ROOT is not set: run this test with meson");
    snprintf(path, sizeof path, "%s/PROTOCOL.md", root);
    ck_assert_msg(evpt_sys_file_read(path, 1 << 20, &text, &size) == 0, "cannot read %s", path);
    return text;
}

/* The line after `*at`, without its end, which is overwritten; NULL at the end of the text. */
static char *next_line(char **at)
{
    char *line = *at;
    if (!line || !*line)
        return NULL;
    char *end = strchr(line, '\n');
    *at = end ? end + 1 : NULL;
    if (end)
        *end = 0;
    return line;
}

/* Steps behind the line that opens the next block of this kind; false: there is none. */
static bool next_block(char **at, const char *kind)
{
    char open[32], *line;
    snprintf(open, sizeof open, "```%s", kind);
    while ((line = next_line(at))) {
        if (strcmp(line, open) == 0)
            return true;
    }
    return false;
}

static bool is_end_of_block(const char *line)
{
    return strncmp(line, "```", 3) == 0;
}

/* "00 1e 78*32" -> bytes, appended. False: that is something else. */
static bool append_hex(uint8_t *bytes, size_t room, size_t *size, const char *words)
{
    char *end;
    for (const char *at = words + strspn(words, " "); *at; at = end + strspn(end, " ")) {
        unsigned long byte = strtoul(at, &end, 16), count = 1;
        if (end != at + 2 || byte > 0xff)
            return false;
        if (*end == '*')
            count = strtoul(end + 1, &end, 10);
        if (count > room - *size || (*end && *end != ' '))
            return false;
        memset(bytes + *size, (int)byte, count);
        *size += count;
    }
    return true;
}

/* ---- values in words ---- */

static bool print_value(FILE *out, struct evpt_reader *reader);

static bool print_elements(FILE *out, struct evpt_reader *reader, const struct evpt_item *item)
{
    bool map = item->kind == EVPT_ITEM_MAP;
    fputc(map ? '{' : '[', out);
    for (uint32_t i = 0; i < item->size; i++) {
        if (i > 0)
            fputs(", ", out);
        if (map && (!print_value(out, reader) || fputs(": ", out) < 0))
            return false;
        if (!print_value(out, reader))
            return false;
    }
    fputc(map ? '}' : ']', out);
    return true;
}

static void print_string(FILE *out, const uint8_t *bytes, uint32_t size)
{
    uint32_t same = 0;
    while (same < size && bytes[same] == bytes[0])
        same++;
    if (size > 40 && same == size)
        fprintf(out, "\"%c\"*%u", bytes[0], size);
    else
        fprintf(out, "\"%.*s\"", (int)size, (const char *)bytes);
}

static bool print_value(FILE *out, struct evpt_reader *reader)
{
    struct evpt_item item;
    if (evpt_read_item(reader, &item))
        return false;
    switch (item.kind) {
    case EVPT_ITEM_NIL:
        fputs("nil", out);
        break;
    case EVPT_ITEM_BOOL:
        fputs(item.u.boolean ? "true" : "false", out);
        break;
    case EVPT_ITEM_INT:
        fprintf(out, "%lld", (long long)item.u.integer);
        break;
    case EVPT_ITEM_FLOAT:
        fprintf(out, "%.17g%s", item.u.real, item.u.real == floor(item.u.real) ? ".0" : "");
        break;
    case EVPT_ITEM_STR:
        print_string(out, item.u.bytes, item.size);
        break;
    case EVPT_ITEM_ARRAY:
    case EVPT_ITEM_MAP:
        return print_elements(out, reader, &item);
    }
    return true;
}

/* The one value that the bytes hold, in words. */
static bool says(const uint8_t *bytes, size_t size, const char *words)
{
    char *text = NULL;
    size_t text_size;
    FILE *out = open_memstream(&text, &text_size);
    struct evpt_reader reader;
    evpt_reader_init(&reader, bytes, size);
    bool printed = print_value(out, &reader);
    fclose(out);
    bool same = printed && reader.at == reader.end && strcmp(text, words) == 0;
    if (!same)
        printf("the document says %s\nthe bytes say      %s\n", words, text);
    free(text);
    return same;
}

/* ---- conversations ---- */

enum { FRAMES_MAX = 16, BYTES_MAX = 1 << 18 };

struct example {
    char way; /* '>', '<', or '=': what the parts of a session come to */
    char name[16], words[256];
    uint32_t session;
    uint8_t *bytes;
    size_t size;
};

struct conversation {
    struct example example[FRAMES_MAX];
    int count;
    uint8_t bytes[BYTES_MAX];
    size_t size;
};

/* NULL, or what is wrong with the block. */
static const char *read_conversation(struct conversation *talk, char **at)
{
    char *line;
    struct example *example = NULL;
    talk->count = 0;
    talk->size = 0;
    while ((line = next_line(at)) && !is_end_of_block(line)) {
        if (line[0] == ' ') {
            if (!example || !append_hex(talk->bytes, BYTES_MAX, &talk->size, line))
                return "bytes in another form than expected";
            example->size = (size_t)(talk->bytes + talk->size - example->bytes);
            continue;
        }
        if (talk->count == FRAMES_MAX)
            return "too many frames";
        example = &talk->example[talk->count++];
        *example = (struct example){.way = line[0], .bytes = talk->bytes + talk->size};
        if (example->way == '='
                ? sscanf(line, "= %u %255[^\n]", &example->session, example->words) != 2
                : sscanf(line, "%*[<>] %15s %u %255[^\n]", example->name, &example->session,
                         example->words) != 3)
            return "a line in another form than expected";
    }
    return line ? NULL : "a block without an end";
}

static const char *check_frame(const struct example *example)
{
    struct evpt_frame frame;
    const char *reason = "more bytes expected";
    uint8_t header[EVPT_FRAME_HEADER];
    ssize_t taken = evpt_frame_read(&frame, example->bytes, example->size, &reason);
    if (taken <= 0)
        return reason;
    if ((size_t)taken != example->size)
        return "bytes behind the frame";
    evpt_frame_write_header(header, frame.flag, frame.session, frame.size);
    if (memcmp(header, example->bytes, sizeof header) != 0)
        return "another header";
    if (strcmp(flag_names[frame.flag - EVPT_FRAME_WHOLE], example->name) != 0)
        return "another flag";
    if (frame.session != example->session)
        return "another session";
    if (frame.flag >= EVPT_FRAME_FIRST && frame.flag <= EVPT_FRAME_LAST)
        return strcmp(example->words, "part") == 0 ? NULL : "a part without its name";
    if (frame.flag == EVPT_FRAME_PING || frame.flag == EVPT_FRAME_PONG)
        return (size_t)atoi(example->words) == frame.size ? NULL : "another number of bytes";
    return says(frame.data, frame.size, example->words) ? NULL : "another value";
}

/* The parts of one session so far, one after the other. */
static const char *check_whole(const struct conversation *talk, int at)
{
    static uint8_t bytes[BYTES_MAX];
    size_t size = 0;
    for (int i = 0; i < at; i++) {
        const struct example *part = &talk->example[i];
        if (part->session != talk->example[at].session)
            continue;
        memcpy(bytes + size, part->bytes + EVPT_FRAME_HEADER, part->size - EVPT_FRAME_HEADER);
        size += part->size - EVPT_FRAME_HEADER;
    }
    return says(bytes, size, talk->example[at].words) ? NULL : "another value";
}

static const char *check_conversation(const struct conversation *talk)
{
    for (int i = 0; i < talk->count; i++) {
        const char *problem =
            talk->example[i].way == '=' ? check_whole(talk, i) : check_frame(&talk->example[i]);
        if (problem)
            return problem;
    }
    return NULL;
}

static struct conversation talk; /* too large for the stack */

START_TEST(test_protocol_md_bytes_of_every_example_say_what_its_words_say)
{
    char *text = read_document(), *at = text;
    int seen[8] = {0}, blocks = 0, wholes = 0;
    for (; next_block(&at, "wire"); blocks++) {
        const char *problem = read_conversation(&talk, &at);
        if (!problem)
            problem = check_conversation(&talk);
        ck_assert_msg(!problem, "block %d, which begins with %s %u: %s", blocks + 1,
                      talk.example[0].name, talk.example[0].session, problem);
        for (int i = 0; i < talk.count; i++) {
            for (int flag = 0; flag < 8; flag++)
                seen[flag] += strcmp(talk.example[i].name, flag_names[flag]) == 0;
            wholes += talk.example[i].way == '=';
        }
    }
    ck_assert_int_ge(blocks, 8);
    ck_assert_int_ge(wholes, 3);
    for (int flag = 0; flag < 8; flag++)
        ck_assert_msg(seen[flag], "there is no example of %s", flag_names[flag]);
    evpt_sys_free(text);
}
END_TEST

/* The checker is worth something only if it fails. */
START_TEST(test_protocol_md_wrong_examples_are_found)
{
    static const char *const wrong[] = {
        "> WHOLE 1 [3, 0, []]\n  00 0b 80 00 00 00 01\n  93 03 01 90\n```\n",    /* another value */
        "> WHOLE 1 [3, 0, []]\n  00 0c 80 00 00 00 01\n  93 03 00 90\n```\n",    /* length */
        "> WHOLE 2 [3, 0, []]\n  00 0b 80 00 00 00 01\n  93 03 00 90\n```\n",    /* session */
        "> FIRST 1 part\n  00 0b 80 00 00 00 01\n  93 03 00 90\n```\n",          /* flag */
        "> WHOLE 1 [3, 0, []]\n  00 0c 80 00 00 00 01\n  93 03 00 90 c0\n```\n", /* trailing */
        "> WHOLE 1 [3, 0, []]\n  00 0b 80 00 00 00 01\n  93 03 00 9\n```\n",
        "> WHOLE 1 [3, 0, []]\n  00 0b 80 00 00 00 01\n  93 03 00 90\n",
        "> FIRST 1 part\n  00 08 81 00 00 00 01\n  93\n= 1 [3, 0, nil]\n```\n", /* half of it */
        "> LAST 1 part\n  00 0b 83 00 00 00 01\n  93 03 00 90\n= 1 [3, 0, nil]\n```\n",
    };
    static const char right[] =
        "> FIRST 1 part\n  00 08 81 00 00 00 01\n  93\n> LAST 1 part\n  00 0a 83 00 00 00 01\n"
        "  03 00 90\n= 1 [3, 0, []]\n```\n";
    char text[512], *at = text;
    strcpy(text, right);
    ck_assert_ptr_null(read_conversation(&talk, &at));
    ck_assert_ptr_null(check_conversation(&talk));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        at = strcpy(text, wrong[i]);
        const char *problem = read_conversation(&talk, &at);
        if (!problem)
            problem = check_conversation(&talk);
        ck_assert_msg(problem, "example %zu passed", i);
    }
}
END_TEST

/* ---- given to sessions ---- */

/* One side of a conversation goes to a session of the other role, which must take it. */
static void give(char way, enum evpt_session_role role)
{
    struct world world;
    struct end end;
    struct raw raw;
    size_t messages = 0;
    int hellos = 0, goaways = 0;
    world_init(&world);
    raw_open(&raw, &end, &world, role);
    for (int i = 0; i < talk.count; i++) {
        const struct example *example = &talk.example[i];
        if (example->way != way)
            continue;
        ck_assert(raw_write(&raw, example->bytes, example->size));
        messages += strcmp(example->name, "WHOLE") == 0 || strcmp(example->name, "LAST") == 0;
        hellos += strcmp(example->name, "HELLO") == 0;
        goaways += strcmp(example->name, "GOAWAY") == 0;
    }
    TURN_UNTIL(&world,
               end.inbox_count == messages && end.hellos == hellos && end.goaways == goaways);
    ck_assert(evpt_session_is_open(end.session));
    end_fini(&end);
    raw_fini(&raw);
    world_fini(&world);
}

START_TEST(test_protocol_md_sessions_take_every_example)
{
    char *text = read_document(), *at = text;
    while (next_block(&at, "wire")) {
        ck_assert_ptr_null(read_conversation(&talk, &at));
        give('>', EVPT_SESSION_SERVER);
        give('<', EVPT_SESSION_CLIENT);
    }
    evpt_sys_free(text);
}
END_TEST

START_TEST(test_protocol_md_sessions_write_hello_as_it_stands_there)
{
    char *text = read_document(), *at = text;
    int found = 0;
    while (next_block(&at, "wire")) {
        ck_assert_ptr_null(read_conversation(&talk, &at));
        for (int i = 0; i < talk.count; i++) {
            const struct example *example = &talk.example[i];
            if (strcmp(example->name, "HELLO") != 0)
                continue;
            struct world world;
            struct end end;
            struct raw raw;
            unsigned long long incarnation;
            world_init(&world);
            ck_assert_int_eq(sscanf(example->words, "[1, \"%64[^\"]\", %llu, %u]",
                                    world.config.node, &incarnation, &world.config.message_max),
                             3);
            world.config.incarnation = incarnation;
            bool client = example->way == '>';
            raw_open(&raw, &end, &world, client ? EVPT_SESSION_CLIENT : EVPT_SESSION_SERVER);
            if (!client)
                raw_hello(&raw, 1000);
            struct evpt_frame frame = raw_take(&raw);
            ck_assert_int_eq(frame.flag, EVPT_FRAME_HELLO);
            ck_assert_uint_eq(frame.size + EVPT_FRAME_HEADER, example->size);
            ck_assert_mem_eq(frame.data, example->bytes + EVPT_FRAME_HEADER, frame.size);
            end_fini(&end);
            raw_fini(&raw);
            world_fini(&world);
            found++;
        }
    }
    ck_assert_int_eq(found, 2);
    evpt_sys_free(text);
}
END_TEST

START_TEST(test_protocol_md_refusals_have_the_reasons_that_stand_there)
{
    char *text = read_document(), *at = text, *line;
    int count = 0;
    ck_assert(next_block(&at, "refused"));
    for (; (line = next_line(&at)) && !is_end_of_block(line); count++) {
        char *reason = strstr(line, "   ");
        ck_assert_msg(reason, "no reason in: %s", line);
        *reason++ = 0;
        reason += strspn(reason, " ");
        uint8_t bytes[256];
        size_t size = 0;
        ck_assert_msg(append_hex(bytes, sizeof bytes, &size, line), "no bytes: %s", line);
        struct world world;
        struct end end;
        struct raw raw;
        world_init(&world);
        raw_open(&raw, &end, &world, EVPT_SESSION_SERVER);
        ck_assert(raw_write(&raw, bytes, size));
        raw_expect_end(&raw);
        raw_fini(&raw);
        TURN_UNTIL(&world, end.closes);
        ck_assert_int_eq(end.close_error, -EVPT_EPROTOCOL);
        ck_assert_str_eq(end.close_reason, reason);
        end_fini(&end);
        world_fini(&world);
    }
    ck_assert_int_ge(count, 10);
    evpt_sys_free(text);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("protocol_md");
    tcase_add_test(tcase, test_protocol_md_bytes_of_every_example_say_what_its_words_say);
    tcase_add_test(tcase, test_protocol_md_wrong_examples_are_found);
    tcase_add_test(tcase, test_protocol_md_sessions_take_every_example);
    tcase_add_test(tcase, test_protocol_md_sessions_write_hello_as_it_stands_there);
    tcase_add_test(tcase, test_protocol_md_refusals_have_the_reasons_that_stand_there);
    return run_tests("protocol_md", tcase);
}
