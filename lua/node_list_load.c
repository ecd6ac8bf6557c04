#include "lua/config_load.h"

#include "lua/load.h"
#include "reactor/error.h"
#include "reactor/sys.h"
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

struct node_list_load {
    struct evpt_load load;
    struct evpt_node_list list;
    const char *node; /* whose own line must be there; NULL: nobody's */
};

/* Parses the value of a line. False after a problem. */
static bool read_address(struct node_list_load *load, lua_State *L, const char *name,
                         struct evpt_addr *ret_addr)
{
    const char *text = evpt_load_text(L, -1), *what = NULL;
    if (!text || evpt_addr_parse(ret_addr, text))
        what = "\"ip:port\"";
    else if (evpt_addr_port(ret_addr) == 0) /* any free one: nobody else would know which */
        what = "\"ip:port\" with a port from 1 to 65535";
    if (what)
        evpt_load_expected(&load->load, L, -1, name, what);
    return !what;
}

/* Notes who has an address; two nodes cannot listen on the same. `seen`: stack index of a table
 * from an address in its usual writing to the node. */
static bool claim_address(struct node_list_load *load, lua_State *L, int seen, const char *name,
                          const struct evpt_addr *addr)
{
    char text[EVPT_ADDR_TEXT_SIZE];
    evpt_addr_format(addr, text, sizeof(text));
    lua_pushstring(L, text);
    lua_rawget(L, seen);
    const char *other = lua_tostring(L, -1);
    if (other)
        evpt_load_problem(&load->load, name,
                          "expected an address of its own, got \"%s\", which %s has", text, other);
    lua_pop(L, 1);
    if (other)
        return false;
    lua_pushstring(L, text);
    lua_pushstring(L, name);
    lua_rawset(L, seen);
    return true;
}

/* The line of one name; its value is on top of the stack. */
static void read_line(struct node_list_load *load, lua_State *L, int seen, const char *name)
{
    if (!evpt_node_name_is_valid(name)) {
        evpt_load_problem(&load->load, name,
                          "expected a node's name ([%%a_][%%w_]*, at most %d bytes)",
                          EVPT_NODE_NAME_MAX);
        return;
    }
    bool is_own = load->node && strcmp(name, load->node) == 0;
    bool is_down = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    struct evpt_addr addr;
    if (is_own && is_down) {
        evpt_load_expected(&load->load, L, -1, name, "\"ip:port\" (it is this node's own line)");
        return;
    }
    if (!is_down &&
        (!read_address(load, L, name, &addr) || !claim_address(load, L, seen, name, &addr)))
        return;
    int error = evpt_node_list_add(&load->list, name, is_down ? NULL : &addr);
    if (error)
        (void)evpt_load_must(L, NULL); /* -ENOMEM: a table has no key twice */
}

/* evpt_sandbox_fn */
static void read_all(lua_State *L, void *user)
{
    struct node_list_load *load = user;
    char what[96];
    snprintf(what, sizeof(what), "expected a node's name ([%%a_][%%w_]*, at most %d bytes)",
             EVPT_NODE_NAME_MAX);
    evpt_load_refuse_odd_keys(&load->load, L, 1, 0, "", what);
    size_t count;
    const char **names = evpt_load_keys(L, 1, &count);
    bool own_line = false;
    lua_newtable(L);
    int seen = lua_gettop(L);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, names[i]);
        lua_rawget(L, 1);
        read_line(load, L, seen, names[i]);
        lua_pop(L, 1);
        own_line = own_line || (load->node && strcmp(names[i], load->node) == 0);
    }
    if (load->node && !own_line)
        evpt_load_problem(&load->load, load->node,
                          "expected \"ip:port\" (it is this node's own line), got nothing");
}

int evpt_node_list_load(struct evpt_node_list *ret_list, const char *file, const char *text,
                        size_t text_size, const char *node, evpt_problem_fn problem, void *user)
{
    struct node_list_load load = {
        .load = {.source = file, .problem = problem, .user = user},
        .node = node,
    };
    int error = evpt_load_run(&load.load, file, text, text_size, NULL, read_all, &load);
    if (error)
        evpt_node_list_fini(&load.list);
    else
        *ret_list = load.list;
    return error;
}
