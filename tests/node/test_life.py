"""The life of a service: start, order, errors at the start, what it may reach, stop (SPEC section
4)."""

import os

import wire
from evptnode import NodeCase, wait_until

STEP = """
local name = evpt.name()
print("step script " .. name)
function __main__(...) print("step main " .. name) end
function doAfterInit() print("step after " .. name) end
"""


class StartTest(NodeCase):
    def steps(self, node):
        return [line.split("step ")[1] for line in node.log_lines("step ")]

    def assert_start_fails(self, scripts, *words, services=None, traceback=True):
        """The start stops with exit status 1, these words and a traceback; nothing stays."""
        node = self.folder.node("game_1", scripts, services, start=False)
        done = self.evpt("--pidfile", "game.pid", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1, done.stderr)
        for word in words + (("stack traceback",) if traceback else ()):
            self.assertIn(word, done.stderr)
        self.assertFalse(os.path.exists(node.admin))
        self.assertFalse(os.path.exists(node.path("game.pid")))
        return done.stderr

    def test_start_runs_scripts_and_mains_in_order_then_every_do_after_init(self):
        node = self.node(scripts={"a": STEP, "b": STEP, "c": STEP})
        node.wait_log("step after c")
        self.assertEqual(self.steps(node), ["script a", "main a", "script b", "main b", "script c",
                                            "main c", "after a", "after b", "after c"])

    def test_main_may_wait_and_the_next_service_starts_when_it_has_returned(self):
        wait = STEP.replace('print("step main " .. name)',
                            'evpt.sleep(30) print("step main " .. name)')
        node = self.node(scripts={"a": wait, "b": wait})
        node.wait_log("step after b")
        self.assertEqual(self.steps(node)[:4], ["script a", "main a", "script b", "main b"])

    def test_main_may_call_a_service_that_is_there_already(self):
        node = self.node(scripts={
            "a": "evpt.export { double = function(n) return 2 * n end }",
            "b": """function __main__() got = evpt.call("a", "double", 21) end
                    evpt.export { got = function() return got end }"""})
        self.assertEqual(node.ask("b", "got"), [42])

    def test_do_after_init_may_wait_and_call_every_service(self):
        node = self.node(scripts={
            "a": """function doAfterInit() evpt.sleep(5) got = evpt.call("b", "double", 21) end
                    evpt.export { got = function() return got end }""",
            "b": "evpt.export { double = function(n) return 2 * n end }"})
        wait_until(lambda: node.ask("a", "got") == [42], "the result of the call")

    def test_main_gets_the_arguments_of_the_configuration(self):
        script = """function __main__(...) got = table.pack(...) end
                    evpt.export { got = function() return got.n, table.unpack(got, 1, got.n) end,
                                  name = evpt.name }"""
        node = self.node(scripts={"room": script}, services=[
            {1: "room", "name": "room_1", "args": [1, "pvp", 2.5, True, {"a": [1]}]},
            {1: "room", "name": "room_2"}])
        self.assertEqual(node.ask("room_1", "got"), [5, 1, "pvp", 2.5, True, {"a": [1]}])
        self.assertEqual(node.ask("room_2", "got"), [0])
        self.assertEqual(node.ask("room_2", "name"), ["room_2"])

    def test_two_services_of_one_script_share_nothing(self):
        script = """n = 0 evpt.export { inc = function() n = n + 1 return n end }"""
        node = self.node(scripts={"c": script}, services=["c", {1: "c", "name": "d"}])
        self.assertEqual([node.ask("c", "inc"), node.ask("c", "inc"), node.ask("d", "inc")],
                         [[1], [2], [1]])

    def test_all_three_entry_points_may_be_left_out(self):
        node = self.node(scripts={"empty": ""})
        self.assertEqual(node.client().call("empty", "x").code, wire.UNKNOWN_SERVICE)

    def test_error_in_a_script_stops_the_start(self):
        self.assert_start_fails({"ok": "", "bad": "\nerror('no luck today')"},
                                "no luck today", "bad.lua:2")

    def test_error_in_main_stops_the_start(self):
        self.assert_start_fails(
            {"bad": "function __main__()\n evpt.sleep(1) error('no luck today') end"},
            "no luck today", "bad.lua:2")

    def test_error_in_do_after_init_stops_the_start(self):
        self.assert_start_fails(
            {"ok": "", "bad": "function doAfterInit()\n evpt.sleep(1) error('no luck today') end"},
            "no luck today", "bad.lua:2")

    def test_errors_of_the_start_that_are_no_strings_stop_it_too(self):
        for error in ("{}", "nil", "setmetatable({}, {__tostring = function() return 'odd' end})"):
            with self.subTest(error):
                self.assert_start_fails({"bad": "error(%s)" % error}, "bad")
                self.folder.addresses.clear()

    def test_syntax_error_names_the_line(self):
        self.assert_start_fails({"bad": "\n\nlocal = 5"}, "bad.lua:3", traceback=False)

    def test_missing_script_is_named(self):
        self.assert_start_fails({}, "nosuch", services=["nosuch"], traceback=False)

    def test_binary_script_is_refused(self):
        self.assert_start_fails({"bad": b"\x1bLuaT\0\x19\x93\r\n\x1a\n\x04\x08\x08"}, "bad",
                                traceback=False)

    def test_export_of_something_else_than_functions_stops_the_start(self):
        self.assert_start_fails({"bad": "evpt.export { x = 5 }"}, "x")

    def test_require_looks_through_the_path(self):
        node = self.node(scripts={
            "util": "return { twice = function(n) return 2 * n end }",
            "a": """local util = require "util" assert(util == require "util")
                    evpt.export { twice = util.twice,
                                  missing = function() return pcall(require, "nosuch") end }"""},
                         services=["a"])
        self.assertEqual(node.ask("a", "twice", 4), [8])
        ok, message = node.ask("a", "missing")
        self.assertFalse(ok)
        self.assertIn("nosuch", message)

    def test_script_has_the_standard_libraries(self):
        names = ["string", "table", "math", "os", "io", "utf8", "coroutine", "debug"]
        node = self.node(script="""evpt.export { kinds = function(names)
            for i, name in ipairs(names) do names[i] = type(_G[name]) end
            return names end }""")
        self.assertEqual(node.ask("s", "kinds", names), [["table"] * len(names)])

    def test_service_without_state_holds_little(self):
        """Its Lua state; Lua's own libraries take 21 KiB of it. A node may run thousands."""
        node = self.node(script="""evpt.export { held = function()
            collectgarbage() return collectgarbage("count") end }""")
        self.assertLess(node.ask("s", "held")[0], 28)

    def test_workers_none_one_and_many_run_the_same_service(self):
        for workers in (0, 1, 7):
            with self.subTest(workers):
                node = self.node("game_%d" % workers, script="""
                    evpt.export { go = function()
                        evpt.sleep(1)
                        return cluster.call(evpt.node(), "s", "leaf")
                    end, leaf = function() return "leaf" end }""", config={"workers": workers})
                self.assertEqual(node.ask("s", "go"), ["leaf"])

    def test_lua_memory_max_stops_a_service_that_eats_memory(self):
        node = self.node(script="""evpt.export {
                eat = function() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end end,
                ping = function() return "pong" end }""",
                         config={"lua_memory_max": 32 << 20})
        client = node.client()
        reply = client.call("s", "eat")
        self.assertEqual(reply.code, wire.FAILED)
        self.assertIn("memory", reply.results[0])
        self.assertEqual(client.ask("s", "ping"), ["pong"])


class ReachTest(NodeCase):
    """What another node can reach: exports, and nothing else."""

    SCRIPT = """
        evpt.export { open = function() return "open" end }
        evpt.methods { inner = function() return "inner" end }
        function __main__() end
        function doAfterInit() end
        function plain() return "plain" end
        touched = 0
    """

    def setUp(self):
        super().setUp()
        self.game = self.node(scripts={
            "s": self.SCRIPT, "private": "evpt.methods { x = function() end }",
            "low": """function _msg_dispatch_(source, session, method, ...)
                          print("reached", method) evpt.reply(source, session, 0, "low") end"""})
        self.client = self.game.client()

    def test_outside_reaches_an_export(self):
        self.assertEqual(self.client.call("s", "open"), (wire.OK, ["open"]))

    def test_outside_reaches_no_method_that_is_not_exported(self):
        for method in ("inner", "plain", "__main__", "doAfterInit", "print", "touched", "", "open ",
                       "Open", "open\0", "__index", "_G", "_msg_dispatch_", "x" * 70000):
            with self.subTest(method[:20]):
                self.assertEqual(self.client.call("s", method).code, wire.UNKNOWN_METHOD)

    def test_outside_reaches_no_service_without_exports(self):
        for service in ("private", "low", "nosuch", "", "S", "s ", "s\0", "x" * 70000):
            with self.subTest(service[:20]):
                self.assertEqual(self.client.call(service, "x").code, wire.UNKNOWN_SERVICE)
        self.assertFalse(self.game.log_lines("reached"))

    def test_outside_reaches_no_built_in_service(self):
        for service in ("launcher", "clusterclient", "clusterserver", "console", "log", "logger",
                        "main", "clustermgr", "_G", ".launcher"):
            for method in ("stop", "nodes", "start", "reload", "remoteCall", "callback",
                           "startListen", "onDisconnect", "_recv_data_", "__main__"):
                self.assertEqual(self.client.call(service, method).code, wire.UNKNOWN_SERVICE,
                                 (service, method))
        self.assertEqual(self.client.call("s", "open").code, wire.OK)

    def test_outside_reaches_nothing_by_handle(self):
        handle = self.game.name     # only for the log of a failure
        for number in list(range(40)) + [0x10001, 0x01000001, 2 ** 31, 2 ** 32 - 1, -1]:
            code = self.client.call(number, "open").code
            self.assertIn(code, (wire.UNKNOWN_SERVICE, wire.BAD_MESSAGE), (handle, number))
            for text in (str(number), "%d.0" % number, ":%08x" % (number & 0xffffffff)):
                self.assertEqual(self.client.call(text, "open").code, wire.UNKNOWN_SERVICE, text)
        self.assertEqual(self.client.call("s", "open").code, wire.OK)


SLOW = """
n = 0
evpt.export {
    spin = function(ms) local t = evpt.now() while evpt.now() - t < ms do end end,
    hit = function() n = n + 1 end,
    hits = function() return n end,
}
"""


class LimitTest(NodeCase):
    def test_full_mailbox_refuses_with_overloaded_and_recovers(self):
        node = self.node(scripts={
            "slow": SLOW,
            "s": """evpt.export { flood = function(count)
                        evpt.send("slow", "spin", 300)
                        evpt.sleep(30)
                        local ok, refused, code, executed = 0, 0, nil, nil
                        for i = 1, count do
                            local sent, e = evpt.send("slow", "hit")
                            if sent then ok = ok + 1
                            else refused, code, executed = refused + 1, e.code, e.executed end
                        end
                        return ok, refused, code, executed
                    end }"""}, config={"mailbox_max": 100})
        ok, refused, code, executed = node.ask("s", "flood", 500)
        self.assertEqual((ok + refused, code, executed), (500, wire.OVERLOADED, "no"))
        self.assertLessEqual(ok, 110)
        self.assertGreaterEqual(ok, 90)
        client = node.client()
        wait_until(lambda: client.call("slow", "hits") == (wire.OK, [ok]), "%d hits" % ok)

    def test_full_mailbox_answers_calls_from_outside_with_overloaded(self):
        node = self.node(script=SLOW, config={"mailbox_max": 50})
        client = node.client()
        client.post("s", "spin", 400)
        sessions = [client.start("s", "hit") for _ in range(300)]
        codes = [client.reply(session).code for session in sessions]
        self.assertEqual(set(codes), {wire.OK, wire.OVERLOADED})
        count = codes.count(wire.OK)
        wait_until(lambda: client.call("s", "hits") == (wire.OK, [count]), "%d hits" % count)
