/* evpt.lua and clustername.lua: what is read, and the exact line for all that is not. */
#include "lua/config_load.h"

#include "lua/sandbox.h"
#include "reactor/error.h"
#include "reactor/sys.h"
#include "services/scheduler.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBLEMS_MAX 64
#define LITERAL_OF(x) #x
#define LITERAL(x) LITERAL_OF(x)
#define WORKERS_MAX LITERAL(EVPT_WORKERS_MAX)

static char folder[] = "/tmp/evpt-config-XXXXXX";
static char problems[PROBLEMS_MAX][6000];
static size_t problem_count;
static struct evpt_config config;
static struct evpt_node_list list;

/* Paths in the tests are relative, as a user's mostly are: each test runs in a folder of its own.
 */
static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(mkdir("conf", 0700), 0);
}

static void teardown(void)
{
    evpt_config_fini(&config);
    evpt_node_list_fini(&list);
    static const char *const files[] = {"evpt.lua", "conf/evpt.lua", "clustername.lua"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        (void)unlink(files[i]); /* most are not there */
    ck_assert_int_eq(rmdir("conf"), 0);
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static void note_problem(const char *line, void *user)
{
    ck_assert_ptr_eq(user, problems);
    ck_assert_uint_lt(problem_count, PROBLEMS_MAX);
    ck_assert_uint_lt(strlen(line), sizeof problems[0]);
    strcpy(problems[problem_count++], line);
}

/* Loads `file` with overrides (NULL-terminated). */
static int load(const char *file, const char *const *overrides)
{
    size_t count = 0;
    while (overrides && overrides[count])
        count++;
    evpt_config_fini(&config);
    problem_count = 0;
    int error = evpt_config_load(&config, file, overrides, count, "game_1", note_problem, problems);
    ck_assert_int_eq(error, problem_count > 0 ? -EVPT_EFORMAT : 0);
    return error; /* what could be read stays in `config`, and is freed by the next load or the
                     fixture */
}

static int load_text(const char *text, const char *const *overrides)
{
    write_bytes("evpt.lua", text, strlen(text));
    return load("evpt.lua", overrides);
}

static int load_list(const char *text, const char *node)
{
    evpt_node_list_fini(&list);
    problem_count = 0;
    int error = evpt_node_list_load(&list, "clustername.lua", text, strlen(text), node,
                                    note_problem, problems);
    ck_assert_int_eq(error, problem_count > 0 ? -EVPT_EFORMAT : 0);
    if (error)
        ck_assert_uint_eq(list.count, 0);
    return error;
}

/* Expects exactly these lines, one behind the other. */
static void check_problems(const char *lines)
{
    char all[sizeof problems[0] * 4] = "";
    for (size_t i = 0; i < problem_count; i++) {
        strcat(all, problems[i]);
        strcat(all, i + 1 < problem_count ? "\n" : "");
    }
    ck_assert_str_eq(all, lines);
}

#define OVERRIDES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- values ---- */

START_TEST(test_config_has_the_documented_defaults)
{
    ck_assert_int_eq(_i == 0 ? load(NULL, NULL) : load_text("", NULL), 0);
    if (_i == 0)
        ck_assert_ptr_null(config.file);
    else
        ck_assert_str_eq(config.file, "evpt.lua");
    ck_assert_str_eq(config.clustername, "clustername.lua");
    ck_assert_str_eq(config.path, "services/?.lua");
    ck_assert_str_eq(config.cpath, "");
    ck_assert_uint_ge(config.workers, 1);
    ck_assert_uint_eq(config.service_count, 0);
    ck_assert_int_eq(config.log.level, EVPT_LOG_INFO);
    ck_assert_ptr_null(config.log.file);
    ck_assert(!config.log.json);
    ck_assert_str_eq(config.admin, "run/game_1.sock");
    ck_assert_uint_eq(config.metrics.size, 0);
    ck_assert_uint_eq(config.cluster.call_timeout_ms, 5000);
    ck_assert_uint_eq(config.cluster.connect_timeout_ms, 3000);
    ck_assert_uint_eq(config.cluster.heartbeat_ms, 5000);
    ck_assert_uint_eq(config.cluster.message_max, 16777216);
    ck_assert_uint_eq(config.cluster.pending_max, 1000000);
    ck_assert_uint_eq(config.cluster.cache_max, 100000);
    ck_assert_uint_eq(config.cluster.send_buffer_max, 67108864);
    ck_assert(!config.tls.on);
    ck_assert_ptr_null(config.tls.cert);
    ck_assert(config.tls.verify_name);
    ck_assert_uint_eq(config.tls.handshakes_max, 64);
    ck_assert_uint_eq(config.tls.handshakes_per_address_max, 8);
    ck_assert_uint_eq(config.mailbox_max, 1000000);
    ck_assert_uint_eq(config.lua_memory_max, 0);
    ck_assert_uint_eq(config.stop_timeout_ms, 10000);
}
END_TEST

START_TEST(test_config_reads_every_key)
{
    ck_assert_int_eq(
        load_text("clustername = 'n.lua' path = 'a/?.lua;b/?.lua' cpath = 'c/?.so' workers = 3.0\n"
                  "services = {'echo', {'game/room', name = 'room_1', args = {1, 'pvp'}}}\n"
                  "log = {level = 'warn', file = 'log/e.log', format = 'json'} admin = 'a.sock'\n"
                  "metrics = '[::1]:9101'\n"
                  "cluster = {call_timeout_ms = 1, connect_timeout_ms = 2, heartbeat_ms = 30,\n"
                  "message_max = 4096, pending_max = 5, cache_max = 6, send_buffer_max = 70000}\n"
                  "tls = {cert = 'tls/%s.crt', key = 'k.pem', ca = '/ca/%s', verify_name = false,\n"
                  "handshakes_max = 9, handshakes_per_address_max = 10}\n"
                  "mailbox_max = 8 lua_memory_max = 2 << 20 stop_timeout_ms = 0",
                  NULL),
        0);
    ck_assert_str_eq(config.clustername, "n.lua");
    ck_assert_str_eq(config.path, "a/?.lua;b/?.lua");
    ck_assert_str_eq(config.cpath, "c/?.so");
    ck_assert_uint_eq(config.workers, 3);
    ck_assert_uint_eq(config.service_count, 2);
    ck_assert_int_eq(config.log.level, EVPT_LOG_WARN);
    ck_assert_str_eq(config.log.file, "log/e.log");
    ck_assert(config.log.json);
    ck_assert_str_eq(config.admin, "a.sock");
    ck_assert_uint_eq(evpt_addr_port(&config.metrics), 9101);
    ck_assert_uint_eq(config.cluster.call_timeout_ms, 1);
    ck_assert_uint_eq(config.cluster.connect_timeout_ms, 2);
    ck_assert_uint_eq(config.cluster.heartbeat_ms, 30);
    ck_assert_uint_eq(config.cluster.message_max, 4096);
    ck_assert_uint_eq(config.cluster.pending_max, 5);
    ck_assert_uint_eq(config.cluster.cache_max, 6);
    ck_assert_uint_eq(config.cluster.send_buffer_max, 70000);
    ck_assert(config.tls.on);
    ck_assert_str_eq(config.tls.cert, "tls/game_1.crt");
    ck_assert_str_eq(config.tls.key, "k.pem");
    ck_assert_str_eq(config.tls.ca, "/ca/game_1");
    ck_assert(!config.tls.verify_name);
    ck_assert_uint_eq(config.tls.handshakes_max, 9);
    ck_assert_uint_eq(config.tls.handshakes_per_address_max, 10);
    ck_assert_uint_eq(config.mailbox_max, 8);
    ck_assert_uint_eq(config.lua_memory_max, 2 << 20);
    ck_assert_uint_eq(config.stop_timeout_ms, 0);
}
END_TEST

START_TEST(test_config_services_keep_order_names_and_arguments)
{
    ck_assert_int_eq(load_text("services = {'echo', {'game/room', name = 'room_1', "
                               "args = {1, nil, 'pvp', {x = 1.5}}}, {'a.b-c', name = '_b'}}",
                               NULL),
                     0);
    ck_assert_uint_eq(config.service_count, 3);
    ck_assert_str_eq(config.services[0].script, "echo");
    ck_assert_str_eq(config.services[0].name, "echo");
    ck_assert_uint_eq(config.services[0].args_size, 1);
    ck_assert_uint_eq(config.services[0].args[0], 0x90);
    ck_assert_str_eq(config.services[1].script, "game/room");
    ck_assert_str_eq(config.services[1].name, "room_1");
    static const char args[] = "\x94\x01\xc0\xa3pvp\x81\xa1x\xcb\x3f\xf8\0\0\0\0\0\0";
    ck_assert_uint_eq(config.services[1].args_size, sizeof args - 1);
    ck_assert_mem_eq(config.services[1].args, args, sizeof args - 1);
    ck_assert_str_eq(config.services[2].script, "a.b-c");
    ck_assert_str_eq(config.services[2].name, "_b");
    ck_assert_uint_eq(config.services[2].args_size, 1);
}
END_TEST

START_TEST(test_config_relative_paths_start_at_the_file)
{
    static const char text[] = "path = 'a/?.lua;/abs/?.lua;;?.lua' cpath = '' clustername = 'n;1'\n"
                               "log = {file = '../x.log'}";
    write_bytes("conf/evpt.lua", text, sizeof text - 1);
    ck_assert_int_eq(load("conf/evpt.lua", OVERRIDES("cpath=/c/?.so;d/?.so")), 0);
    ck_assert_str_eq(config.file, "conf/evpt.lua");
    ck_assert_str_eq(config.clustername, "conf/n;1");
    ck_assert_str_eq(config.path, "conf/a/?.lua;/abs/?.lua;;conf/?.lua");
    ck_assert_str_eq(config.cpath, "/c/?.so;conf/d/?.so");
    ck_assert_str_eq(config.log.file, "conf/../x.log");
    ck_assert_str_eq(config.admin, "conf/run/game_1.sock");
    ck_assert_int_eq(load("conf/evpt.lua", OVERRIDES("clustername=/n.lua", "admin=/run/%s")), 0);
    ck_assert_str_eq(config.clustername, "/n.lua");
    ck_assert_str_eq(config.admin, "/run/game_1");
}
END_TEST

START_TEST(test_config_admin_and_log_file_can_be_switched_off)
{
    ck_assert_int_eq(load_text("admin = false log = {file = false}", NULL), 0);
    ck_assert_ptr_null(config.admin);
    ck_assert_ptr_null(config.log.file);
    ck_assert_int_eq(load_text("admin = nil", NULL), 0); /* said, not left out */
    ck_assert_ptr_null(config.admin);
    ck_assert_int_eq(load_text("workers = nil", NULL), 0); /* the same as left out */
    ck_assert_str_eq(config.admin, "run/game_1.sock");
    ck_assert_int_eq(
        load_text("admin = 'x' log = {file = 'y'}", OVERRIDES("admin=nil", "log.file=nil")), 0);
    ck_assert_ptr_null(config.admin);
    ck_assert_ptr_null(config.log.file);
}
END_TEST

START_TEST(test_config_tls_is_on_by_any_of_its_paths_and_off_when_said_so)
{
    static const char text[] = "tls = {cert = 'c', key = 'k', ca = 'a'}";
    ck_assert_int_eq(load_text("tls = false", NULL), 0);
    ck_assert(!config.tls.on);
    ck_assert_int_eq(load_text(text, OVERRIDES("tls=false")), 0);
    ck_assert(!config.tls.on);
    ck_assert_int_eq(load_text(text, OVERRIDES("tls=nil")), 0);
    ck_assert(!config.tls.on);
    ck_assert_int_eq(load_text("", OVERRIDES("tls.cert=c", "tls.key=k", "tls.ca=a")), 0);
    ck_assert(config.tls.on);
    ck_assert_int_eq(load_text("", OVERRIDES("tls.handshakes_max=5")), 0);
    ck_assert(!config.tls.on);
}
END_TEST

START_TEST(test_config_overrides_win_and_the_last_one_most)
{
    ck_assert_int_eq(load_text("workers = 1 log = {level = 'error', format = 'json'}",
                               OVERRIDES("workers=5", "log.level=debug", "workers=0x10",
                                         "cluster.heartbeat_ms= 1e3", "clustername=\"a b.lua\"",
                                         "path=[[x/?.lua]]", "services={'a', {'b', args = {{}}}}",
                                         "cluster={cache_max = 9}", "admin=run=%s")),
                     0);
    ck_assert_uint_eq(config.workers, 16);
    ck_assert_int_eq(config.log.level, EVPT_LOG_DEBUG);
    ck_assert(config.log.json);
    ck_assert_str_eq(config.clustername, "a b.lua");
    ck_assert_str_eq(config.path, "x/?.lua");
    ck_assert_uint_eq(config.service_count, 2);
    ck_assert_str_eq(config.services[1].name, "b");
    ck_assert_uint_eq(config.cluster.cache_max, 9);
    ck_assert_str_eq(config.admin, "run=game_1");
}
END_TEST

/* ---- problems ---- */

struct fault {
    const char *text;  /* of evpt.lua */
    const char *lines; /* that it gives */
};

static const struct fault faults[] = {
    {"workers = '2'",
     "evpt.lua: workers: expected an integer from 0 to " WORKERS_MAX ", got \"2\""},
    {"workers = 1.5", "evpt.lua: workers: expected an integer from 0 to " WORKERS_MAX ", got 1.5"},
    {"workers = {}",
     "evpt.lua: workers: expected an integer from 0 to " WORKERS_MAX ", got a table"},
    {"stop_timeout_ms = 1/0", "evpt.lua: stop_timeout_ms: expected an integer from 0 to 3600000, "
                              "got inf"},
    {"mailbox_max = 2^62", "evpt.lua: mailbox_max: expected an integer from 1 to 16777216, "
                           "got 4.6116860184274e+18"},
    {"lua_memory_max = 1",
     "evpt.lua: lua_memory_max: expected 0 or an integer from 1048576 to 1099511627776, got 1"},
    {"clustername = 17", "evpt.lua: clustername: expected a path, got 17"},
    {"clustername = ''", "evpt.lua: clustername: expected a path, got \"\""},
    {"clustername = 'a\\0b'", "evpt.lua: clustername: expected a path, got \"a\\0...\""},
    {"path = function() end", "evpt.lua: path: expected path templates, got a function"},
    {"cpath = false", "evpt.lua: cpath: expected path templates, got false"},
    {"log = 'info'", "evpt.lua: log: expected a table, got \"info\""},
    {"log = {level = 'loud', format = 'xml', file = true}",
     "evpt.lua: log.file: expected a path or false, got true\n"
     "evpt.lua: log.format: expected \"text\" or \"json\", got \"xml\"\n"
     "evpt.lua: log.level: expected \"debug\", \"info\", \"warn\" or \"error\", got \"loud\""},
    {"log = {level = 1}",
     "evpt.lua: log.level: expected \"debug\", \"info\", \"warn\" or \"error\", got 1"},
    {"admin = '%s/%s'", "evpt.lua: admin: expected a path with at most one %s and no other %, or "
                        "false, got \"%s/%s\""},
    {"admin = '%d'", "evpt.lua: admin: expected a path with at most one %s and no other %, or "
                     "false, got \"%d\""},
    {"admin = '100%'", "evpt.lua: admin: expected a path with at most one %s and no other %, or "
                       "false, got \"100%\""},
    {"admin = true", "evpt.lua: admin: expected a path with at most one %s and no other %, or "
                     "false, got true"},
    {"metrics = 9101", "evpt.lua: metrics: expected \"ip:port\" or false, got 9101"},
    {"metrics = 'localhost:9101'",
     "evpt.lua: metrics: expected \"ip:port\" or false, got \"localhost:9101\""},
    {"metrics = true", "evpt.lua: metrics: expected \"ip:port\" or false, got true"},
    /* half of it is none */
    {"tls = {}", "evpt.lua: tls.ca: expected a path, got nothing\n"
                 "evpt.lua: tls.cert: expected a path, got nothing\n"
                 "evpt.lua: tls.key: expected a path, got nothing"},
    {"tls = {cert = 'c', ca = 'a'}", "evpt.lua: tls.key: expected a path, got nothing"},
    {"tls = {cert = 'c', key = false, ca = 'a', verify_name = 1}",
     "evpt.lua: tls.key: expected a path with at most one %s and no other %, got false\n"
     "evpt.lua: tls.verify_name: expected true or false, got 1\n"
     "evpt.lua: tls.key: expected a path, got nothing"},
    {"tls = true", "evpt.lua: tls: expected a table or false, got true"},
    /* unknown keys */
    {"wrokers = 2", "evpt.lua: wrokers: unknown key, did you mean \"workers\"?"},
    {"cluster = {call_timeout = 1, heartbeet_ms = 1}",
     "evpt.lua: cluster.call_timeout: unknown key\n"
     "evpt.lua: cluster.heartbeet_ms: unknown key, did you mean \"cluster.heartbeat_ms\"?"},
    {"message_max = 4096",
     "evpt.lua: message_max: unknown key, did you mean \"cluster.message_max\"?"},
    {"completely_else = 1", "evpt.lua: completely_else: unknown key"},
    {"_ENV[1] = 1", "evpt.lua: [1]: unknown key"},
    {"_ENV['log.level'] = 'info'", "evpt.lua: log.level: unknown key"},
    {"_ENV['workers\\0'] = 1", "evpt.lua: [\"workers\\0...\"]: unknown key"},
    {"_ENV['a\\nb'] = 1", "evpt.lua: a?b: unknown key"},
    /* all of them, by name */
    {"workers = -1 admin = 5 zzz = 1 cluster = 5 path = 1",
     "evpt.lua: admin: expected a path with at most one %s and no other %, or false, got 5\n"
     "evpt.lua: cluster: expected a table, got 5\n"
     "evpt.lua: path: expected path templates, got 1\n"
     "evpt.lua: workers: expected an integer from 0 to " WORKERS_MAX ", got -1\n"
     "evpt.lua: zzz: unknown key"},
    /* services */
    {"services = 'echo'", "evpt.lua: services: expected a list without holes, got \"echo\""},
    {"services = {room = 'room'}",
     "evpt.lua: services: expected a list without holes, got a table"},
    {"services = {[1000000000000] = 'x'}",
     "evpt.lua: services: expected a list without holes, got a table"},
    {"services = {17, {'a', nmae = 1}, 'b'}",
     "evpt.lua: services[1]: expected a script's name or a table, got 17\n"
     "evpt.lua: services[2].nmae: unknown key, did you mean \"name\"?"},
    {"services = {{}}", "evpt.lua: services[1][1]: expected a script (letters, digits, _ - . /, "
                        "without \"..\"), got nothing"},
    {"services = {'../x'}", "evpt.lua: services[1]: expected a script (letters, digits, _ - . /, "
                            "without \"..\"), got \"../x\""},
    {"services = {'/x'}", "evpt.lua: services[1]: expected a script (letters, digits, _ - . /, "
                          "without \"..\"), got \"/x\""},
    {"services = {'game/room'}",
     "evpt.lua: services[1].name: expected a name ([%a_][%w_]*), got \"game/room\""},
    {"services = {{'a', name = '1a'}, {'b', name = 5}, {'c', 'd'}}",
     "evpt.lua: services[1].name: expected a name ([%a_][%w_]*), got \"1a\"\n"
     "evpt.lua: services[2].name: expected a name ([%a_][%w_]*), got 5\n"
     "evpt.lua: services[3][2]: unknown key"},
    {"services = {'room', {'echo', name = 'room'}, 'echo'}",
     "evpt.lua: services[2].name: expected a name of its own, got \"room\", which services[1] has"},
    {"services = {'launcher', {'x', name = 'clusterclient'}, 'clusterserver', 'console'}",
     "evpt.lua: services[1].name: expected a name that no built-in service has, got \"launcher\"\n"
     "evpt.lua: services[2].name: expected a name that no built-in service has, got "
     "\"clusterclient\"\n"
     "evpt.lua: services[3].name: expected a name that no built-in service has, got "
     "\"clusterserver\"\n"
     "evpt.lua: services[4].name: expected a name that no built-in service has, got \"console\""},
    {"services = {{'a', args = 5}, {'b', args = {x = 1}}, {'c', args = {[256] = 1}}}",
     "evpt.lua: services[1].args: expected a list of at most 255 values, got 5\n"
     "evpt.lua: services[2].args: expected a list of at most 255 values, got a table\n"
     "evpt.lua: services[3].args: expected a list of at most 255 values, got a table"},
    {"services = {{'a', args = {1, {x = function() end}}}}",
     "evpt.lua: services[1].args[2].x: cannot send a function"},
    /* Lua's own */
    {"workers = = 2", "evpt.lua:1: unexpected symbol near '='"},
    {"\n\nworkers.x = 1", "evpt.lua:3: attempt to index a nil value (global 'workers')"},
    {"print('x')", "evpt.lua:1: attempt to call a nil value (global 'print')"},
    {"x = ('x'):rep(1e9)", "evpt.lua:1: attempt to index a string value (constant 'x')"},
    {"while true do end", "evpt.lua:1: stopped, it runs too long (an endless loop?)"},
    {"local t = {} for i = 1, 1e9 do t[i] = {i} end", "evpt.lua: needs more than 64 MiB of memory"},
    {"local s = 'x' while true do s = s .. s end", "evpt.lua: needs more than 64 MiB of memory"},
    {"x = 1 [[a\nb]]", "evpt.lua:2: unexpected symbol near '[[a?b]]'"},
    {"\x1bLua", "evpt.lua: attempt to load a binary chunk (mode is 't')"},
};

START_TEST(test_config_problem_is_an_exact_line)
{
    const struct fault *fault = &faults[_i];
    ck_assert_int_eq(load_text(fault->text, NULL), -EVPT_EFORMAT);
    check_problems(fault->lines);
}
END_TEST

/* What has no exact text, for it depends on the C library (the sign of a NaN), or on a table's
 * order. */
START_TEST(test_config_problem_without_an_exact_text_is_one)
{
    load_text("stop_timeout_ms = 0/0", NULL);
    ck_assert_uint_eq(problem_count, 1);
    ck_assert_ptr_nonnull(strstr(problems[0], "nan"));
    load_text("cluster = {5, [true] = 1}", NULL);
    ck_assert_uint_eq(problem_count, 2);
    ck_assert_ptr_nonnull(strstr(problems[0], "evpt.lua: cluster["));
    load_text("local function f() return 1 + f() end f()", NULL);
    ck_assert_uint_eq(problem_count, 1);
    bool is_clear = strstr(problems[0], "stack overflow") || strstr(problems[0], "memory");
    ck_assert_msg(is_clear, "%s", problems[0]);
}
END_TEST

struct range {
    const char *key; /* with the opening of its section */
    const char *close;
    long long min, max;
};

static const struct range ranges[] = {
    {"workers", "", 0, EVPT_WORKERS_MAX},
    {"mailbox_max", "", 1, 16777216},
    {"stop_timeout_ms", "", 0, 3600000},
    {"lua_memory_max", "", 1048576, 1LL << 40},
    {"cluster = {call_timeout_ms", "}", 1, 86400000},
    {"cluster = {connect_timeout_ms", "}", 1, 86400000},
    {"cluster = {heartbeat_ms", "}", 10, 86400000},
    {"cluster = {message_max", "}", 1024, 1073741824},
    {"cluster = {pending_max", "}", 1, 16777216},
    {"cluster = {cache_max", "}", 1, 16777216},
    {"cluster = {send_buffer_max", "}", 65536, 1LL << 40},
};

START_TEST(test_config_ranges_are_as_documented)
{
    const struct range *range = &ranges[_i];
    const long long values[] = {range->min, range->max, range->min - 1, range->max + 1};
    for (int i = 0; i < 4; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s = %lld %s", range->key, values[i], range->close);
        ck_assert_msg(load_text(text, NULL) == (i < 2 ? 0 : -EVPT_EFORMAT), "%s", text);
    }
}
END_TEST

START_TEST(test_config_problems_in_overrides_name_set)
{
    static const char *const overrides[] = {
        "wrokers=2",        "workers=many",       "workers=nil",     "log.level=5", "workers",
        "services={'a', 5", "services={print()}", "clustername=nil", NULL};
    ck_assert_int_eq(load_text("mailbox_max = 0", overrides), -EVPT_EFORMAT);
    check_problems("evpt.lua: mailbox_max: expected an integer from 1 to 16777216, got 0\n"
                   "--set: wrokers: unknown key, did you mean \"workers\"?\n"
                   "--set: workers: expected an integer from 0 to " WORKERS_MAX ", got \"many\"\n"
                   "--set: workers: expected an integer from 0 to " WORKERS_MAX ", got nothing\n"
                   "--set: log.level: expected \"debug\", \"info\", \"warn\" or \"error\", got 5\n"
                   "--set: workers: expected KEY=VALUE, got no \"=\"\n"
                   "--set: services: expected a list without holes, got \"{'a', 5\"\n"
                   "--set: services: expected a list without holes, got \"{print()}\"\n"
                   "--set: clustername: expected a path, got nothing");
}
END_TEST

START_TEST(test_config_override_sees_nothing_of_the_file)
{
    ck_assert_int_eq(load_text("local function f() return 'echo' end workers = 1",
                               OVERRIDES("services={{workers}}")),
                     -EVPT_EFORMAT);
    check_problems("--set: services[1][1]: expected a script (letters, digits, _ - . /, without "
                   "\"..\"), got nothing");
}
END_TEST

START_TEST(test_config_admin_path_must_fit_a_socket_address)
{
    char text[256], expected[512];
    snprintf(text, sizeof text, "admin = '%0107d'", 0);
    ck_assert_int_eq(load_text(text, NULL), 0);
    snprintf(text, sizeof text, "admin = '%0108d'", 0);
    ck_assert_int_eq(load_text(text, NULL), -EVPT_EFORMAT);
    snprintf(expected, sizeof expected,
             "evpt.lua: admin: expected a path of at most 107 bytes, got \"%0108d\"", 0);
    check_problems(expected);
    ck_assert_int_eq(load_text(text, OVERRIDES("admin=false")), 0);
}
END_TEST

START_TEST(test_config_file_that_cannot_be_read_is_one_problem)
{
    ck_assert_int_eq(load("absent.lua", OVERRIDES("wrokers=1")), -EVPT_EFORMAT);
    check_problems("absent.lua: cannot read: No such file or directory");
    ck_assert_int_eq(load("conf", NULL), -EVPT_EFORMAT);
    check_problems("conf: cannot read: Is a directory");
}
END_TEST

START_TEST(test_config_windows_editors_are_understood)
{
    ck_assert_int_eq(load_text("\xef\xbb\xbfworkers = 1\r\nmailbox_max = 7\r\n", NULL), 0);
    ck_assert_uint_eq(config.mailbox_max, 7);
}
END_TEST

/* ---- node list ---- */

START_TEST(test_node_list_of_a_file_is_sorted_and_complete)
{
    static const char text[] = "game_1 = '192.168.10.1:8002' battle_1 = \"192.168.10.1:8001\"\n"
                               "old_1 = false six = '[::1]:1'";
    write_bytes("clustername.lua", text, sizeof text - 1);
    ck_assert_int_eq(
        evpt_node_list_load(&list, "clustername.lua", NULL, 0, "game_1", note_problem, problems),
        0);
    static const char *const expected[][2] = {{"battle_1", "192.168.10.1:8001"},
                                              {"game_1", "192.168.10.1:8002"},
                                              {"old_1", NULL},
                                              {"six", "[::1]:1"}};
    ck_assert_uint_eq(list.count, 4);
    for (size_t i = 0; i < 4; i++) {
        char address[EVPT_ADDR_TEXT_SIZE];
        ck_assert_str_eq(list.entries[i].name, expected[i][0]);
        ck_assert_int_eq(list.entries[i].addr.size > 0, expected[i][1] != NULL);
        if (expected[i][1])
            ck_assert_str_eq(evpt_addr_format(&list.entries[i].addr, address, sizeof address),
                             expected[i][1]);
    }
}
END_TEST

static const struct fault list_faults[] = {
    {"a = 17", "clustername.lua: a: expected \"ip:port\", got 17"},
    {"a = true", "clustername.lua: a: expected \"ip:port\", got true"},
    {"a = {}", "clustername.lua: a: expected \"ip:port\", got a table"},
    {"a = '1.2.3.4'", "clustername.lua: a: expected \"ip:port\", got \"1.2.3.4\""},
    {"a = 'localhost:1'", "clustername.lua: a: expected \"ip:port\", got \"localhost:1\""},
    {"a = '1.2.3.4:80\\0'", "clustername.lua: a: expected \"ip:port\", got \"1.2.3.4:80\\0...\""},
    {"a = '1.2.3.4:0'", "clustername.lua: a: expected \"ip:port\" with a port from 1 to 65535, got "
                        "\"1.2.3.4:0\""},
    {"b = '[::1]:80' a = '[0::0001]:80' c = '[::1]:81'",
     "clustername.lua: b: expected an address of its own, got \"[::1]:80\", which a has"},
    {"_ENV['bad-name'] = '1.2.3.4:1'",
     "clustername.lua: bad-name: expected a node's name ([%a_][%w_]*, at most 64 bytes)"},
    {"_ENV[1] = '1.2.3.4:1'",
     "clustername.lua: [1]: expected a node's name ([%a_][%w_]*, at most 64 bytes)"},
    {"b = 1 c = '1.2.3.4:1' a = 'x'", "clustername.lua: a: expected \"ip:port\", got \"x\"\n"
                                      "clustername.lua: b: expected \"ip:port\", got 1"},
    {"a = = 1", "clustername.lua:1: unexpected symbol near '='"},
};

START_TEST(test_node_list_problem_is_an_exact_line)
{
    ck_assert_int_eq(load_list(list_faults[_i].text, NULL), -EVPT_EFORMAT);
    check_problems(list_faults[_i].lines);
}
END_TEST

START_TEST(test_node_list_must_have_the_own_line_with_an_address)
{
    ck_assert_int_eq(load_list("a = '1.2.3.4:1'", "a"), 0);
    ck_assert_int_eq(load_list("a = '1.2.3.4:1' b = false", "b"), -EVPT_EFORMAT);
    check_problems(
        "clustername.lua: b: expected \"ip:port\" (it is this node's own line), got false");
    ck_assert_int_eq(load_list("", "b"), -EVPT_EFORMAT);
    check_problems(
        "clustername.lua: b: expected \"ip:port\" (it is this node's own line), got nothing");
    ck_assert_int_eq(load_list("b = 17", "b"), -EVPT_EFORMAT);
    check_problems("clustername.lua: b: expected \"ip:port\", got 17");
}
END_TEST

START_TEST(test_node_list_names_may_have_64_bytes)
{
    char text[128];
    snprintf(text, sizeof text, "n%063d = '1.2.3.4:1'", 0);
    ck_assert_int_eq(load_list(text, NULL), 0);
    snprintf(text, sizeof text, "n%064d = '1.2.3.4:1'", 0);
    ck_assert_int_eq(load_list(text, NULL), -EVPT_EFORMAT);
}
END_TEST

START_TEST(test_node_list_of_ten_thousand_nodes_loads)
{
    char *text = malloc(400000), *at = text;
    for (int i = 0; i < 10000; i++)
        at += sprintf(at, "n%d = '10.0.%d.%d:80'\n", i, i / 250, i % 250 + 1);
    ck_assert_int_eq(load_list(text, "n777"), 0);
    ck_assert_uint_eq(list.count, 10000);
    ck_assert_ptr_nonnull(evpt_node_list_find(&list, "n9999"));
    free(text);
}
END_TEST

/* ---- the sandbox under it ---- */

static const struct evpt_sandbox_limits wide = {
    .memory = 64 << 20, .instructions = UINT64_MAX, .cpu_ns = UINT64_MAX};

static void read_nothing(lua_State *L, void *user)
{
    ck_assert_int_eq(lua_gettop(L), 1);
    ++*(int *)user;
}

/* Each instruction compares megabytes: counted by instructions alone it would run for hours. */
START_TEST(test_sandbox_stops_instructions_that_are_slow)
{
    static const char text[] = "local s = 'x' for i = 1, 23 do s = s .. s end local a = s .. 'a' "
                               "local b = s .. 'a' while a <= b do end";
    struct evpt_sandbox_limits limits = wide;
    limits.cpu_ns = 20000000;
    char error[EVPT_SANDBOX_ERROR_SIZE];
    int calls = 0;
    ck_assert_int_eq(
        evpt_sandbox_run("x.lua", text, sizeof text - 1, &limits, read_nothing, &calls, error),
        -EVPT_EFORMAT);
    ck_assert_str_eq(error, "x.lua:1: stopped, it runs too long (an endless loop?)");
    ck_assert_int_eq(calls, 0);
}
END_TEST

START_TEST(test_sandbox_memory_limit_may_hit_anywhere)
{
    static const char text[] = "a = {1, 2, 3} b = 'text' c = function() return a end d = b .. 'x'";
    char error[EVPT_SANDBOX_ERROR_SIZE];
    int calls = 0, refused = 0;
    for (size_t memory = 0; memory < 20000; memory += 40) {
        struct evpt_sandbox_limits limits = wide;
        limits.memory = memory;
        refused += evpt_sandbox_run("x.lua", text, sizeof text - 1, &limits, read_nothing, &calls,
                                    error) != 0;
    }
    ck_assert_int_gt(refused, 20);
    ck_assert_int_eq(calls, 500 - refused);
}
END_TEST

START_TEST(test_sandbox_long_names_are_kept_whole)
{
    char name[200], expected[300], error[EVPT_SANDBOX_ERROR_SIZE];
    snprintf(name, sizeof name, "/%0180d.lua", 0);
    snprintf(expected, sizeof expected, "%s:1: unexpected symbol near <eof>", name);
    int calls = 0;
    evpt_sandbox_run(name, "x =", 3, &wide, read_nothing, &calls, error);
    ck_assert_str_eq(error, expected);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config_load");
    TCase *tc = tcase_create("config_load");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_config_has_the_documented_defaults, 0, 2);
    tcase_add_test(tc, test_config_reads_every_key);
    tcase_add_test(tc, test_config_services_keep_order_names_and_arguments);
    tcase_add_test(tc, test_config_relative_paths_start_at_the_file);
    tcase_add_test(tc, test_config_admin_and_log_file_can_be_switched_off);
    tcase_add_test(tc, test_config_tls_is_on_by_any_of_its_paths_and_off_when_said_so);
    tcase_add_test(tc, test_config_overrides_win_and_the_last_one_most);
    tcase_add_loop_test(tc, test_config_problem_is_an_exact_line, 0,
                        sizeof faults / sizeof faults[0]);
    tcase_add_test(tc, test_config_problem_without_an_exact_text_is_one);
    tcase_add_loop_test(tc, test_config_ranges_are_as_documented, 0,
                        sizeof ranges / sizeof ranges[0]);
    tcase_add_test(tc, test_config_problems_in_overrides_name_set);
    tcase_add_test(tc, test_config_override_sees_nothing_of_the_file);
    tcase_add_test(tc, test_config_admin_path_must_fit_a_socket_address);
    tcase_add_test(tc, test_config_file_that_cannot_be_read_is_one_problem);
    tcase_add_test(tc, test_config_windows_editors_are_understood);
    tcase_add_test(tc, test_node_list_of_a_file_is_sorted_and_complete);
    tcase_add_loop_test(tc, test_node_list_problem_is_an_exact_line, 0,
                        sizeof list_faults / sizeof list_faults[0]);
    tcase_add_test(tc, test_node_list_must_have_the_own_line_with_an_address);
    tcase_add_test(tc, test_node_list_names_may_have_64_bytes);
    tcase_add_test(tc, test_node_list_of_ten_thousand_nodes_loads);
    tcase_add_test(tc, test_sandbox_stops_instructions_that_are_slow);
    tcase_add_test(tc, test_sandbox_memory_limit_may_hit_anywhere);
    tcase_add_test(tc, test_sandbox_long_names_are_kept_whole);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
