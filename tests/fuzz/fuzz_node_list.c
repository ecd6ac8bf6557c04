/* The node list: text that must be refused with problems of one line each, or give a list that
 * reads the same when it is written out. At the back: which allocation is refused, and whether a
 * node looks for its own line. */
#include "fuzz.h"

#include "lua/config_load.h"
#include "reactor/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_problem(const char *line, void *user)
{
    FUZZ_CHECK(!strchr(line, '\n'));
    FUZZ_CHECK(strncmp(line, "nodes.lua:", 10) == 0);
    ++*(size_t *)user;
}

static int load(struct evpt_node_list *ret_list, const uint8_t *text, size_t size, const char *node)
{
    size_t problems = 0;
    int error = evpt_node_list_load(ret_list, "nodes.lua", (const char *)text, size, node,
                                    on_problem, &problems);
    FUZZ_CHECK(error == (problems ? -EVPT_EFORMAT : 0));
    return error;
}

static void check_list(const struct evpt_node_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct evpt_node_entry *entry = &list->entries[i];
        FUZZ_CHECK(evpt_node_name_is_valid(entry->name));
        FUZZ_CHECK(i == 0 || strcmp(entry[-1].name, entry->name) < 0);
        FUZZ_CHECK(!entry->addr.size || evpt_addr_port(&entry->addr));
        FUZZ_CHECK(evpt_node_list_find(list, entry->name) == entry);
    }
}

static void check_same(const struct evpt_node_list *a, const struct evpt_node_list *b)
{
    FUZZ_CHECK(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        char x[EVPT_ADDR_TEXT_SIZE], y[EVPT_ADDR_TEXT_SIZE];
        FUZZ_CHECK(strcmp(a->entries[i].name, b->entries[i].name) == 0);
        FUZZ_CHECK(strcmp(evpt_addr_format(&a->entries[i].addr, x, sizeof(x)),
                          evpt_addr_format(&b->entries[i].addr, y, sizeof(y))) == 0);
    }
}

static void write_anew(const struct evpt_node_list *list)
{
    struct evpt_node_list again = {0};
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    FUZZ_CHECK(out);
    for (size_t i = 0; i < list->count; i++) {
        const struct evpt_node_entry *entry = &list->entries[i];
        char addr[EVPT_ADDR_TEXT_SIZE];
        evpt_addr_format(&entry->addr, addr, sizeof(addr));
        fprintf(out, "_ENV[\"%s\"] = %s%s%s\n", entry->name, entry->addr.size ? "\"" : "",
                entry->addr.size ? addr : "false", entry->addr.size ? "\"" : "");
    }
    fclose(out);
    FUZZ_CHECK(load(&again, (const uint8_t *)text, size, NULL) == 0);
    check_list(&again);
    check_same(list, &again);
    evpt_node_list_fini(&again);
    free(text);
}

void fuzz_one(struct fuzz_input *in)
{
    struct evpt_node_list list = {0};
    unsigned refuse = fuzz_byte(in), own = fuzz_byte(in);
    size_t size;
    const uint8_t *text = fuzz_take(in, fuzz_left(in), &size);
    if (refuse >= 128)
        (void)fuzz_refuse_allocation(refuse - 127);
    int error = load(&list, text, size, own % 2 ? "n1" : NULL);
    (void)fuzz_refuse_allocation(0);
    if (error)
        FUZZ_CHECK(list.count == 0);
    check_list(&list);
    if (!error)
        write_anew(&list);
    evpt_node_list_fini(&list);
}
