"""Configuration and node list: each kind of bad key, value and text (SPEC sections 2 and 3).

One test per row of the tables below, each of them `evpt --check`: the problem is named with file
and key, in one line, and the exit status is 1.
"""

import os
import re
import time

from evptnode import NodeCase, write_file

GOOD_LIST = 'game_1 = "127.0.0.1:8001"\n'

# name, text of evpt.lua, what the line has to name
BAD_CONFIG = [
    ("unknown_key", "wrokers = 2", "wrokers"),
    ("unknown_key_in_cluster", "cluster = { call_timeout = 1 }", "cluster.call_timeout"),
    ("unknown_key_in_log", "log = { levle = 'info' }", "log.levle"),
    ("unknown_key_in_service", "services = { { 'room', nmae = 'x' } }", "nmae"),
    ("positional_in_cluster", "cluster = { 5 }", "cluster"),
    ("workers_a_string", "workers = 'two'", "workers"),
    ("workers_a_numeric_string", "workers = '2'", "workers"),
    ("workers_negative", "workers = -1", "workers"),
    ("workers_fraction", "workers = 1.5", "workers"),
    ("workers_too_many", "workers = 1000000", "workers"),
    ("workers_function", "workers = function() return 2 end", "workers"),
    ("clustername_number", "clustername = 17", "clustername"),
    ("clustername_empty", "clustername = ''", "clustername"),
    ("path_number", "path = 17", "path"),
    ("cpath_boolean", "cpath = false", "cpath"),
    ("services_string", "services = 'echo'", "services"),
    ("services_number_inside", "services = { 'a', 17 }", "services"),
    ("services_without_script", "services = { { name = 'x' } }", "services"),
    ("services_empty_entry", "services = { {} }", "services"),
    ("services_name_number", "services = { { 'room', name = 5 } }", "name"),
    ("services_args_number", "services = { { 'room', args = 5 } }", "args"),
    ("services_args_function", "services = { { 'room', args = { function() end } } }", "args"),
    ("services_twice_one_name", "services = { 'room', { 'echo', name = 'room' } }", "room"),
    ("services_name_of_a_built_in_service", "services = { { 'x', name = 'clusterclient' } }",
     "clusterclient"),
    ("services_keyed", "services = { room = 'room' }", "services"),
    ("log_string", "log = 'info'", "log"),
    ("log_level_unknown", "log = { level = 'loud' }", "log.level"),
    ("log_level_number", "log = { level = 1 }", "log.level"),
    ("log_format_unknown", "log = { format = 'xml' }", "log.format"),
    ("log_file_number", "log = { file = 5 }", "log.file"),
    ("admin_number", "admin = 5", "admin"),
    ("metrics_number", "metrics = 9101", "metrics"),
    ("metrics_port_alone", "metrics = ':9101'", "metrics"),
    ("metrics_host_name", "metrics = 'localhost:9101'", "metrics"),
    ("metrics_path", "metrics = 'run/metrics.sock'", "metrics"),
    ("cluster_number", "cluster = 5", "cluster"),
    ("mailbox_max_negative", "mailbox_max = -1", "mailbox_max"),
    ("mailbox_max_string", "mailbox_max = 'x'", "mailbox_max"),
    ("lua_memory_max_negative", "lua_memory_max = -1", "lua_memory_max"),
    ("stop_timeout_negative", "stop_timeout_ms = -1", "stop_timeout_ms"),
    ("stop_timeout_nan", "stop_timeout_ms = 0/0", "stop_timeout_ms"),
    ("stop_timeout_infinite", "stop_timeout_ms = 1/0", "stop_timeout_ms"),
] + [("cluster_%s_%s" % (key, kind), "cluster = { %s = %s }" % (key, value), "cluster." + key)
     for key in ("call_timeout_ms", "connect_timeout_ms", "heartbeat_ms", "message_max",
                 "pending_max", "cache_max", "send_buffer_max")
     for kind, value in (("string", "'x'"), ("negative", "-1"), ("fraction", "0.5"),
                         ("huge", "1e18"))
     if (key, kind) != ("send_buffer_max", "huge")]     # the one that counts in 64 bits

# name, text of either file: these fail before there is a key; the line names the file
BAD_TEXT = [
    ("syntax_error", "a = = 2"),
    ("runtime_error", "local a = nil; a.b = 1"),
    ("error_call", "error('x')"),
    ("no_library", "os.exit(3)"),
    ("no_print", "print('x')"),
    ("no_require", "require 'os'"),
    ("endless_loop", "while true do end"),
    ("endless_recursion", "local function f() return 1 + f() end f()"),
    ("endless_memory", "local t = {} for i = 1, 1e9 do t[i] = { i } end"),
    ("huge_string", "local s = ('x'):rep(1e9) .. 'y'"),
    ("slow_pattern", "local s = ('a'):rep(1e5); for i = 1, 1e9 do s:find('.-.-.-.-b') end"),
    ("binary_chunk", b"\x1bLuaS\0\x19\x93\r\n\x1a\n"),
    ("binary_garbage", bytes(range(256))),
]

# name, value of battle_1, as Lua text
BAD_ADDRESS = [
    ("number", "17"), ("true", "true"), ("table", "{}"), ("function", "function() end"),
    ("empty", "''"), ("no_port", "'192.168.1.1'"), ("empty_port", "'192.168.1.1:'"),
    ("port_65536", "'192.168.1.1:65536'"), ("port_negative", "'192.168.1.1:-1'"),
    ("port_0", "'192.168.1.1:0'"), ("port_text", "'192.168.1.1:http'"),
    ("host_name", "'localhost:8001'"), ("byte_300", "'300.1.1.1:8001'"),
    ("three_bytes", "'1.1.1:8001'"), ("blank_behind", "'192.168.1.1:8001 '"),
    ("blank_before", "' 192.168.1.1:8001'"), ("zero_byte", "'192.168.1.1:80\\0'"),
    ("ipv6_without_brackets", "'::1:8001'"), ("ipv6_without_port", "'[::1]'"),
    ("ipv6_open", "'[::1:8001'"), ("ipv6_bad", "'[::g]:8001'"), ("unix_path", "'/tmp/x.sock'"),
]

GOOD_CONFIG = [
    ("empty", ""),
    ("comment_only", "-- nothing\n"),
    ("shebang_free_arithmetic", "local n = 2 * 2; workers = n"),
    ("workers_0", "workers = 0"),
    ("integral_float", "cluster = { heartbeat_ms = 5e3 }"),
    ("services", "services = { 'echo', { 'room', name = 'room_1', args = { 1, 'pvp' } } }"),
    ("path_with_templates", "path = 'services/?.lua;lib/?.lua'; cpath = 'c/?.so'"),
    ("loop", "services = {} for i = 1, 100 do services[i] = { 'room', name = 'room_' .. i } end"),
    ("metrics", "metrics = '127.0.0.1:9101'"),
    ("metrics_ipv6", "metrics = '[::1]:9101'"),
    ("metrics_off", "metrics = false"),
    ("nil_values", "log = { level = 'info', file = nil, format = 'text' } admin = nil"),
]

SPEC_EXAMPLE = """
clustername = "clustername.lua"      -- the node list; paths are relative to this file
path     = "services/?.lua"          -- where service scripts are found; `;` separates templates
cpath    = ""                        -- C modules for service scripts
workers  = 2                         -- worker threads; default: number of cores
services = {                         -- started in this order by the launcher
    "echo",                          -- script echo.lua, registered under the name "echo"
    { "room", name = "room_1", args = { 1, "pvp" } },
}
log      = { level = "info", file = nil, format = "text" }
admin    = "run/%s.sock"
cluster  = {
    call_timeout_ms    = 5000,
    connect_timeout_ms = 3000,
    heartbeat_ms       = 5000,
    message_max        = 16777216,
    pending_max        = 1000000,
    cache_max          = 100000,
    send_buffer_max    = 67108864,
}
mailbox_max  = 1000000
lua_memory_max = 0
stop_timeout_ms = 10000
"""


class ConfigTest(NodeCase):
    def check(self, config="", nodes=GOOD_LIST):
        write_file(os.path.join(self.folder.path, "evpt.lua"), config)
        write_file(os.path.join(self.folder.path, "clustername.lua"), nodes)
        return self.evpt("--check", "game_1")

    def assert_bad(self, done, file, key):
        self.assertEqual(done.returncode, 1, done.stderr)
        lines = done.stderr.splitlines()
        self.assertTrue([line for line in lines if line.startswith("evpt: " + file)
                         and re.search(r"(?<!\w)%s(?!\w)" % re.escape(key), line)], done.stderr)

    def assert_bad_text(self, file, **files):
        started = time.monotonic()
        done = self.check(**files)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.one_line(done.stderr, file)
        self.assertLess(time.monotonic() - started, 15)

    def test_config_of_the_specification_is_good(self):
        done = self.check(SPEC_EXAMPLE)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nodelist_of_the_specification_is_good(self):
        done = self.check(nodes='battle_1 = "192.168.10.1:8001"\ngame_1   = "192.168.10.1:8002"\n'
                                "old_1    = false\n")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nodelist_takes_ipv6(self):
        done = self.check(nodes=GOOD_LIST + 'six_1 = "[::1]:8001"\nsix_2 = "[2001:db8::1]:80"\n')
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nodelist_of_a_thousand_nodes_is_good(self):
        done = self.check(nodes=GOOD_LIST + "".join('n%d = "10.0.%d.%d:80"\n'
                                                    % (i, i // 250, i % 250 + 1)
                                                    for i in range(1000)))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_nodelist_refuses_bad_names(self):
        for name in ("bad-name", "1st", "", "a b", "a.b", "ä"):
            with self.subTest(name):
                done = self.check(nodes=GOOD_LIST + '_ENV["%s"] = "127.0.0.1:8002"\n' % name)
                self.assert_bad(done, "clustername.lua", name)
        done = self.check(nodes=GOOD_LIST + '_ENV[1] = "127.0.0.1:8002"\n')
        self.assertEqual(done.returncode, 1)

    def test_config_error_stops_a_real_start_in_one_line(self):
        write_file(os.path.join(self.folder.path, "evpt.lua"), "workers = 'two'\n")
        write_file(os.path.join(self.folder.path, "clustername.lua"), GOOD_LIST)
        done = self.evpt("game_1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.one_line(done.stderr, "evpt.lua: workers: expected ", "got ")

    def test_config_that_is_a_folder_is_an_error(self):
        os.mkdir(os.path.join(self.folder.path, "evpt.lua"))
        write_file(os.path.join(self.folder.path, "clustername.lua"), GOOD_LIST)
        done = self.evpt("--check", "game_1")
        self.assertEqual(done.returncode, 1)
        self.one_line(done.stderr, "evpt.lua")

    def test_config_text_is_checked_with_a_name_for_each_service_problem(self):
        done = self.check("services = { 17, { 'a', nmae = 1 }, 'b' }")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 2, done.stderr)


def add(name, function):
    setattr(ConfigTest, "test_" + name, function)


for _name, _text, _key in BAD_CONFIG:
    add("config_refuses_" + _name, lambda self, text=_text, key=_key: self.assert_bad(
        self.check(text + "\n"), "evpt.lua", key))
for _name, _text in BAD_TEXT:
    add("config_text_refuses_" + _name,
        lambda self, text=_text: self.assert_bad_text("evpt.lua", config=text))
    add("nodelist_text_refuses_" + _name, lambda self, text=_text: self.assert_bad_text(
        "clustername.lua", nodes=text))
for _name, _text in BAD_ADDRESS:
    add("nodelist_refuses_" + _name, lambda self, text=_text: self.assert_bad(
        self.check(nodes=GOOD_LIST + "battle_1 = %s\n" % text), "clustername.lua", "battle_1"))
for _name, _text in GOOD_CONFIG:
    add("config_takes_" + _name, lambda self, text=_text: self.assertEqual(
        self.check(text).returncode, 0))
