"""The program: options, exit statuses, start-up errors, signals, logs (SPEC section 1)."""

import json
import os
import signal
import time

import wire
from evptnode import NodeCase, address_text, fresh_address, lua_globals, read_file, wait_until, \
    write_file

ECHO = "evpt.export { echo = function(...) return ... end }"


SPIN = "evpt.export { spin = function() print('spin') while true do end end }"

# Half a second is long enough for a test to see the node drain, and short enough for a drain.
HOLD = """
local held = false
evpt.export {
    hold = function() held = true evpt.sleep(500) return "answered" end,
    held = function() return held end,
}
"""


class OptionTest(NodeCase):
    def write(self, name, text):
        write_file(os.path.join(self.folder.path, name), text)

    def assert_usage(self, done):
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertIn("evpt", done.stderr)

    def test_version_is_printed(self):
        done = self.evpt("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\Aevpt \d+\.\d+\.\d+")

    def test_help_names_every_option(self):
        for option in ("-h", "--help"):
            done = self.evpt(option)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            for word in ("NODENAME", "--config", "--set", "--check", "--pidfile", "--version"):
                self.assertIn(word, done.stdout)

    def test_wrong_usage_exits_2(self):
        for args in ((), ("--nosuch", "game_1"), ("-x", "game_1"), ("game_1", "game_2"), ("-c",),
                     ("game_1", "--pidfile"), ("-s",), ("--check",)):
            with self.subTest(args):
                self.assert_usage(self.evpt(*args))

    def test_missing_config_file_is_an_error_only_where_it_was_named(self):
        self.write("clustername.lua", lua_globals({"game_1": "127.0.0.1:8001"}))
        done = self.evpt("-c", "nosuch.lua", "--check", "game_1")
        self.assertEqual(done.returncode, 1)
        self.one_line(done.stderr, "nosuch.lua")
        self.assertEqual(self.evpt("--check", "game_1").returncode, 0)

    def test_a_node_runs_without_a_config_file(self):
        node = self.node(start=False)
        os.remove(node.path("evpt.lua"))
        node.start()
        self.assertEqual(node.ctl("nodes").returncode, 0)
        client = node.client()
        self.assertEqual(client.call("s", "m").code, wire.UNKNOWN_SERVICE)

    def test_missing_node_list_is_one_line(self):
        done = self.evpt("game_1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.one_line(done.stderr, "clustername.lua")

    def test_node_without_a_line_in_the_list_is_one_line(self):
        for text in ('battle_1 = "127.0.0.1:8001"\n', "game_1 = false\n"):
            self.write("clustername.lua", text)
            done = self.evpt("game_1")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.one_line(done.stderr, "clustername.lua", "game_1")

    def test_startup_error_names_file_key_and_expectation(self):
        self.write("clustername.lua", 'game_1 = "127.0.0.1:8001"\nbattle_1 = 17\n')
        done = self.evpt("game_1")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr,
                         'evpt: clustername.lua: battle_1: expected "ip:port", got 17\n')

    def test_check_of_a_good_configuration_starts_nothing(self):
        node = self.node(script="print('script ran')", start=False)
        done = self.evpt("--check", "--pidfile", "x.pid", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("script ran", done.stdout + done.stderr)
        self.assertFalse(os.path.exists(node.path("run")))
        self.assertFalse(os.path.exists(node.path("x.pid")))

    def test_check_works_while_the_node_runs(self):
        node = self.node()
        self.assertEqual(self.evpt("--check", "game_1", cwd=node.folder).returncode, 0)
        self.assertEqual(node.ctl("nodes").returncode, 0)

    def test_check_prints_every_problem(self):
        self.write("evpt.lua", 'workers = "two"\nwrokers = 2\nlog = { level = "loud" }\n'
                               "cluster = { heartbeat_ms = -1, nosuch = 1 }\n")
        self.write("clustername.lua", 'game_1 = "127.0.0.1:8001"\nbattle_1 = 17\nb2 = "x"\n')
        done = self.evpt("--check", "game_1")
        self.assertEqual(done.returncode, 1)
        lines = (done.stdout + done.stderr).splitlines()
        for key in ("evpt.lua: workers", "evpt.lua: wrokers", "evpt.lua: log.level",
                    "evpt.lua: cluster.heartbeat_ms", "evpt.lua: cluster.nosuch",
                    "clustername.lua: battle_1", "clustername.lua: b2"):
            self.assertEqual(len([line for line in lines if key + ":" in line]), 1, (key, lines))

    def test_check_fails_where_the_own_line_is_missing(self):
        self.write("clustername.lua", 'battle_1 = "127.0.0.1:8001"\n')
        done = self.evpt("--check", "game_1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("game_1", done.stdout + done.stderr)

    def test_config_paths_are_relative_to_its_file(self):
        node = self.node(script=ECHO, start=False)
        other = os.path.join(self.folder.path, "elsewhere")
        os.mkdir(other)
        done = self.evpt("-c", "../game_1/evpt.lua", "--check", "game_1", cwd=other)
        self.assertEqual(done.returncode, 0, done.stderr)
        node.start("--config", os.path.join("..", "game_1", "evpt.lua"))
        self.assertEqual(node.ask("s", "echo", 1), [1])

    def test_set_overrides_a_key_and_reaches_inside(self):
        node = self.node(script=ECHO + " evpt.log.debug('now in detail')", start=False)
        node.start("-s", "log.level=debug", "--set", "workers=0", "-s", "cluster.heartbeat_ms=700")
        self.assertEqual(node.ask("s", "echo", 1), [1])
        node.wait_log("now in detail")

    def test_set_of_a_bad_key_or_value_is_an_error(self):
        self.write("clustername.lua", 'game_1 = "127.0.0.1:8001"\n')
        for assignment, key in (("nosuch=1", "nosuch"), ("log.level=loud", "log.level"),
                                ("workers=many", "workers"), ("log.nosuch=1", "log.nosuch"),
                                ("cluster.heartbeat_ms=-5", "cluster.heartbeat_ms"),
                                ("cluster.heartbeat_ms.x=5", "heartbeat_ms"),
                                ("workers", "workers"), ("=5", "")):
            with self.subTest(assignment):
                done = self.evpt("-s", assignment, "--check", "game_1")
                self.assertIn(done.returncode, (1, 2))
                self.assertIn(key, done.stderr)

    def test_pidfile_holds_the_pid_and_goes_with_the_node(self):
        node = self.node(start=False).start("--pidfile", "game.pid")
        self.assertEqual(read_file(node.path("game.pid")).strip(), str(node.pid))
        node.stop()
        self.assertFalse(os.path.exists(node.path("game.pid")))

    def test_pidfile_that_cannot_be_written_stops_the_start(self):
        node = self.node(start=False)
        done = self.evpt("--pidfile", "nosuch/game.pid", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nosuch/game.pid", done.stderr)
        self.assertFalse(os.path.exists(node.admin))

    def test_address_in_use_stops_the_start_and_leaves_nothing(self):
        server = self.fake("game_1")
        node = self.node(script=ECHO, start=False)
        done = self.evpt("--pidfile", "game.pid", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn(address_text(server.address), done.stderr)
        self.assertFalse(os.path.exists(node.admin))
        self.assertFalse(os.path.exists(node.path("game.pid")))

    def test_admin_socket_in_use_stops_the_second_node(self):
        node = self.node()
        other = fresh_address()
        write_file(node.path("other.lua"), lua_globals({"game_1": address_text(other)}))
        node.expected_files.add("other.lua")
        done = self.evpt("-s", "clustername=other.lua", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("run/game_1.sock", done.stderr)
        self.assertEqual(node.ctl("nodes").returncode, 0)


class SignalTest(NodeCase):
    def test_term_and_int_stop_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            node = self.node("game_%d" % number, script="evpt.on_stop(function() print('bye') end)")
            node.signal(number)
            self.assertEqual(node.wait_end(), 0)
            self.assertEqual(len(node.log_lines("bye")), 1)

    def test_drain_answers_what_is_in_flight_and_refuses_what_is_new(self):
        node = self.node(script=HOLD)
        client = node.client()
        session = client.start("s", "hold")
        self.assertEqual(client.ask("s", "held"), [True])
        node.signal(signal.SIGTERM)
        wait_until(lambda: client.call("s", "held").code == wire.STOPPING, "stopping")
        self.assertNotIn(session, client.replies)
        self.assertEqual(client.reply(session), (wire.OK, ["answered"]))
        self.assertEqual(node.wait_end(), 0)

    def test_drain_says_goaway_to_peers_that_said_hello(self):
        node = self.node(script=HOLD)
        client = node.client(say_hello=True)
        session = client.start("s", "hold")
        self.assertEqual(client.ask("s", "held"), [True])
        node.signal(signal.SIGTERM)
        code, text = client.control(wire.GOAWAY)[:2]
        self.assertEqual((type(code), type(text)), (int, str))
        self.assertEqual(client.reply(session).code, wire.OK)
        self.assertEqual(node.wait_end(), 0)

    def test_drain_ends_at_its_timeout(self):
        node = self.node(script="evpt.on_stop(function() print('never') evpt.wait() end)",
                         config={"stop_timeout_ms": 200})
        started = time.monotonic()
        node.signal(signal.SIGTERM)
        node.wait_end()
        self.assertLess(time.monotonic() - started, 8)

    def test_stop_timeout_is_that_of_the_whole_stop(self):
        # three seconds for on_stop, and then a handler that never returns: one second is left
        node = self.node(config={"stop_timeout_ms": 4000}, script="""
            evpt.on_stop(function()
                evpt.sleep(3000)
                evpt.fork(function() print("spin") while true do end end)
            end)""")
        started = time.monotonic()
        node.signal(signal.SIGTERM)
        self.assertEqual(node.wait_end(), 1)
        self.assertLess(time.monotonic() - started, 6)
        self.assertTrue(node.log_lines("spin"))

    def test_second_signal_stops_at_once(self):
        node = self.node(script="evpt.on_stop(function() print('waiting') evpt.wait() end)",
                         config={"stop_timeout_ms": 600000})
        node.signal(signal.SIGINT)
        node.wait_log("waiting")
        node.signal(signal.SIGINT)
        node.wait_end()

    def test_second_signal_stops_a_service_that_never_yields(self):
        node = self.node(script=SPIN,
                         config={"stop_timeout_ms": 600000})
        node.client().post("s", "spin")
        node.wait_log("spin")
        node.signal(signal.SIGTERM)
        node.signal(signal.SIGTERM)
        # Signals of one number merge while the first is pending: send on until one has been the
        # second.
        while node.running():
            node.signal(signal.SIGTERM)
            try:
                node.process.wait(0.05)
            except Exception:       # pylint: disable=broad-except
                continue
        node.wait_end()
        node.expected_files.add("run/game_1.sock")

    def test_drain_of_a_service_that_never_yields_ends_at_its_timeout(self):
        node = self.node(script=SPIN,
                         config={"stop_timeout_ms": 300})
        node.client().post("s", "spin")
        node.wait_log("spin")
        node.signal(signal.SIGTERM)
        node.wait_end()
        node.expected_files.add("run/game_1.sock")

    def test_stop_during_the_start_stops(self):
        node = self.node(script="function __main__() print('in main') evpt.sleep(600000) end",
                         start=False, config={"stop_timeout_ms": 300})
        node.start(wait=False)
        node.wait_log("in main")
        node.signal(signal.SIGTERM)
        node.wait_end()
        self.assertFalse(os.path.exists(node.admin))

    def test_sigpipe_is_ignored(self):
        node = self.node(script=ECHO)
        node.signal(signal.SIGPIPE)
        self.assertEqual(node.ask("s", "echo", 1), [1])

    def test_peers_that_vanish_while_answers_are_due_do_no_harm(self):
        node = self.node(script="evpt.export { big = function() return ('x'):rep(4000000) end }")
        for _ in range(10):
            client = node.client()
            client.start("s", "big")
            client.reset()
        self.assertEqual(len(node.ask("s", "big")[0]), 4000000)

    def test_hup_reloads_the_node_list(self):
        node = self.node(script="evpt.export { nodes = function() return cluster.nodes() end }")
        node.write_list(dict(node.addresses, late_1=("127.0.0.1", 9)))
        node.signal(signal.SIGHUP)
        wait_until(lambda: "late_1" in node.ask("s", "nodes")[0], "the reloaded list")

    def test_hup_with_a_bad_list_is_logged_and_changes_nothing(self):
        node = self.node(script="evpt.export { nodes = function() return cluster.nodes() end }")
        before = node.ask("s", "nodes")
        write_file(node.path("clustername.lua"), "game_1 = 17\n")
        node.signal(signal.SIGHUP)
        node.wait_log(r"clustername\.lua: game_1")
        self.assertEqual(node.ask("s", "nodes"), before)

    def test_term_while_nothing_runs_leaves_an_empty_folder(self):
        node = self.node(start=False).start("--pidfile", "game.pid")
        node.stop()
        self.assertFalse(os.path.exists(node.path("game.pid")))
        self.assertFalse(os.path.exists(node.admin))


class LogTest(NodeCase):
    TALK = """evpt.export {
        say = function(level, ...) evpt.log[level](...) end,
        print = function(...) print(...) end,
    }"""

    def test_log_has_levels_and_formats_its_arguments(self):
        node = self.node(script=self.TALK)
        for level in ("debug", "info", "warn", "error"):
            node.ask("s", "say", level, "level %s is %d%%", level, 50)
        self.assertEqual(len(node.wait_log("level error is 50%")), 1)
        lines = node.log_lines(r"level \w+ is 50%")
        self.assertEqual(len(lines), 3)         # level info is the default: no debug
        for line, level in zip(lines, ("info", "warn", "error")):
            self.assertRegex(line.lower(), r"\b%s" % level)

    def test_print_goes_to_the_log(self):
        node = self.node(script=self.TALK)
        node.ask("s", "print", "one", 2, None, True)
        self.assertTrue(node.wait_log(r"one\s+2\s+nil\s+true"))

    def test_log_line_names_the_service(self):
        node = self.node(scripts={"room": self.TALK},
                         services=[{1: "room", "name": "room_7"}])
        node.ask("room_7", "say", "info", "hello")
        self.assertIn("room_7", node.wait_log("hello")[0])

    def test_log_with_a_bad_format_is_an_error_of_the_caller_only(self):
        node = self.node(script=self.TALK)
        client = node.client()
        self.assertIn(client.call("s", "say", "info", "%d", "x").code, (wire.OK, wire.FAILED))
        self.assertEqual(client.call("s", "say", "info", "fine").code, wire.OK)

    def test_log_in_json_is_one_object_per_line(self):
        node = self.node(script=self.TALK, config={"log": {"format": "json"}})
        node.ask("s", "say", "warn", "%s", 'quote " back \\ line\nend \x01 \udcff.')
        node.ask("s", "say", "warn", "last")
        node.wait_log("last")
        rows = [json.loads(line) for line in node.log().splitlines()]
        self.assertTrue([row for row in rows if any("quote" in str(v) and "line\nend" in str(v)
                                                    for v in row.values())], rows[-3:])

    def test_log_level_filters(self):
        node = self.node(script=self.TALK, config={"log": {"level": "error"}})
        node.ask("s", "say", "warn", "not this")
        node.ask("s", "say", "error", "but this")
        node.wait_log("but this")
        self.assertFalse(node.log_lines("not this"))

    def log_file_node(self, name="game_1"):
        node = self.node(name, self.TALK, config={"log": {"file": "game.log"}})
        node.expected_files |= {"game.log", "game.log.1"}
        node.ask("s", "say", "info", "before")
        path = node.path("game.log")
        wait_until(lambda: "before" in read_file(path), "a line in the log file")
        return node, path

    def test_log_file_takes_the_place_of_stderr(self):
        node, _ = self.log_file_node()
        self.assertNotIn("before", node.log())

    def test_usr1_and_hup_reopen_the_log(self):
        for number in (signal.SIGUSR1, signal.SIGHUP):
            with self.subTest(number):
                node, path = self.log_file_node("game_%d" % number)
                os.rename(path, path + ".1")
                node.signal(number)
                wait_until(lambda: os.path.exists(path), "a new log file")
                node.ask("s", "say", "info", "after")
                wait_until(lambda: "after" in read_file(path), "a line in the new log file")
                self.assertNotIn("after", read_file(path + ".1"))

    def test_log_file_that_cannot_be_opened_stops_the_start(self):
        node = self.node(config={"log": {"file": "nosuch/game.log"}}, start=False)
        done = self.evpt("game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nosuch/game.log", done.stderr)
