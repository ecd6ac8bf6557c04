"""Sentences of the specification that no other test holds the node to: found by going through it
line by line."""

import os
import shutil

import evptnode
import wire
from evptnode import LabCase, NodeCase, address_text, read_file, write_file


class StartErrorTest(NodeCase):
    """Every start-up error is one line that names the file, the key and what was expected."""

    def check(self, config, *parts, lists=None):
        node = self.folder.node("game_1", {}, [], start=False)
        write_file(node.path("evpt.lua"), config)
        if lists is not None:
            write_file(node.path("clustername.lua"), lists)
        done = self.evpt("game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.one_line(done.stderr, *parts)
        self.assertEqual(done.stdout, "")
        self.assertFalse(os.path.exists(node.admin))

    def test_admin_socket_that_cannot_be_made(self):
        self.check("admin = 'no/such/%s.sock'",
                   "evpt.lua: admin: cannot listen on no/such/game_1.sock: No such file or directory")

    def test_log_file_that_cannot_be_opened(self):
        self.check("log = { file = 'no/such.log' }",
                   "evpt.lua: log.file: cannot open no/such.log: No such file or directory")

    def test_script_that_is_not_there(self):
        self.check("services = { 'nosuch' } path = 'services/?.lua;lib/?.lua'",
                   "evpt.lua: services: no script 'nosuch': no file 'services/nosuch.lua', "
                   "no file 'lib/nosuch.lua'")

    def test_script_with_a_syntax_error(self):
        write_file(os.path.join(self.folder.path, "game_1/services/bad.lua"), "local = 5")
        self.check("services = { 'bad' }", "services/bad.lua:1: <name> expected near '='")

    def test_address_that_is_in_use(self):
        server = self.fake("game_1")
        self.check("", "clustername.lua: game_1: cannot listen on %s: Address already in use"
                   % address_text(server.address))

    def test_address_that_is_not_this_machines(self):
        self.check("", "clustername.lua: game_1: cannot listen on 192.0.2.1:8001: ",
                   lists='game_1 = "192.0.2.1:8001"')

    def test_pidfile_that_cannot_be_written(self):
        node = self.folder.node("game_1", {}, [], start=False)
        done = self.evpt("--pidfile", "no/such.pid", "game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.one_line(done.stderr, "--pidfile: cannot write no/such.pid: No such file or directory")

    def test_error_of_a_script_has_its_traceback_and_nothing_of_the_insides(self):
        node = self.folder.node("game_1", {"bad": "local function f() error('no luck') end f()"},
                                start=False)
        done = self.evpt("game_1", cwd=node.folder)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aevpt: service bad: services/bad.lua:1: no luck\n"
                         r"stack traceback:\n(\t.*\n)+\Z")
        self.assertIn("services/bad.lua:1: in local 'f'", done.stderr)
        self.assertNotIn("evpt:", done.stderr[len("evpt:"):])


class DefaultTest(NodeCase):
    def threads(self, node):
        names = [read_file("/proc/%d/task/%s/comm" % (node.pid, task)).strip()
                 for task in os.listdir("/proc/%d/task" % node.pid)]
        return sorted(name for name in names if name.startswith("worker"))

    def test_workers_are_as_many_as_cores_or_as_it_says_or_none(self):
        cores = len(os.sched_getaffinity(0))
        for config, count in (("", min(cores, 63)), ("workers = 3", 3), ("workers = 0", 0)):
            node = self.node("game_%d" % count, services=[], start=False)
            write_file(node.path("evpt.lua"), config)
            node.start()
            self.assertEqual(self.threads(node), ["worker-%d" % (i + 1) for i in range(count)])

    def test_call_has_five_seconds(self):
        fake = self.fake("battle_1")
        node = self.node(scripts={"s": """
            evpt.export {
                call = function() return cluster.call("battle_1", "r", "m", 1, nil) end,
                remote = function() cluster.remoteCall("battle_1", "r", "m", {}, function() end) end,
                own = function() cluster.remoteCall("battle_1", "r", "m", {}, function() end, 700) end,
            }"""}, start=False)
        write_file(node.path("evpt.lua"), "services = { 's' }")
        node.start()
        client = node.client()
        waiting = client.start("s", "call")
        peer = fake.accept()
        session, request = peer.request()
        self.assertEqual(request[:4], [1, "r", "m", [1, None]])
        self.assertEqual(request[4][1], 5000)
        peer.answer(session, "done")
        self.assertEqual(client.reply(waiting).results, ["done"])
        for method, timeout_ms in (("remote", 5000), ("own", 700)):
            client.ask("s", method)
            session, request = peer.request()
            self.assertEqual(request[4][1], timeout_ms)
            peer.answer(session)
        peer.close()


class CModuleTest(NodeCase):
    def test_script_finds_modules_in_c_through_cpath(self):
        library = os.path.join(evptnode.settings.build, "tests/node/stones.so")
        if not os.path.exists(library):
            self.skipTest("%s: not built" % library)
        node = self.node(script="""
            local stones = require "stones"
            evpt.export {
                sum = stones.sum,
                fail = function() stones.fail() end,
                keep = function(count)
                    local references = {}
                    for i = 1, count do references[i] = stones.keep({ i }) end
                    for i = 1, count do
                        evpt.call("s", "sum", i)        -- the node uses the registry meanwhile
                        if stones.give(references[i])[1] ~= i then return i end
                    end
                    return "all"
                end,
            }""", config={"cpath": "services/c/?.so"}, start=False)
        os.mkdir(node.path("services/c"))
        shutil.copy(library, node.path("services/c/stones.so"))
        node.start()
        self.assertEqual(node.ask("s", "sum", 1, 2, 39), [42])
        self.assertEqual(node.ask("s", "keep", 300), ["all"])
        reply = node.client().call("s", "fail")
        self.assertEqual(reply.code, wire.FAILED)
        self.assertIn("stone 7 is cracked", reply.results[0])


class StopTest(NodeCase):
    def test_on_stop_runs_backwards_and_may_call_other_services_and_nodes(self):
        battle = self.node("battle_1", "evpt.export { note = function(text) print(text) end }")
        hook = """evpt.on_stop(function() print("stop %s first given") end)
            evpt.on_stop(function()
                evpt.sleep(5)
                cluster.call("battle_1", "s", "note", "stop %s told elsewhere")
                print("stop %s last given")
                if evpt.name() == "b" then error("stop b raised") end
            end)
            function doAfterInit()
                if evpt.name() == "c" then evpt.start("d", { name = "d" }) end
            end"""
        node = self.node(scripts={name: hook.replace("%s", name) for name in "abcd"},
                         services=["a", "b", "c"])
        node.stop()
        self.assertEqual(node.status, 0)
        steps = [line.split("stop ")[1] for line in node.log_lines(r"info \S+ \S+ stop ")]
        self.assertEqual(steps, ["%s %s" % (name, when) for name in "dcba"
                                 for when in ("last given", "first given")])
        self.assertEqual(len(battle.log_lines("told elsewhere")), 4)
        self.assertEqual(len(node.log_lines("stop b raised")), 1)


class OptionTest(LabCase):
    """What is wrong is said where it is given, and not later or from the inside."""

    def test_wrong_options_name_themselves(self):
        for code, text in (
                ("cluster.proxy('a', 'b', 7)", "expected a table of options, got a number"),
                ("cluster.proxy('a', 'b', { timeout = 5 })", "timeout: unknown option"),
                ("cluster.proxy('a', 'b', { timeout_ms = -1 })", "timeout_ms: expected"),
                ("cluster.proxy('a', 'b', { timeout_ms = 'x' })", "timeout_ms: expected"),
                ("evpt.start('lab', 7)", "expected a table of options, got a number"),
                ("evpt.start('lab', { nam = 'x' })", "nam: unknown option"),
                ("evpt.start('lab', { name = 'a b' })", "evpt.start: bad service name 'a b'"),
                ("evpt.start('lab', { name = 'lab' })", "evpt.start: the name lab is taken"),
                ("evpt.call(nil, 'x')", "name or handle of a service expected, got nil"),
                ("evpt.send({}, 'x')", "name or handle of a service expected, got table"),
                ("evpt.kill(1.5)", "name or handle of a service expected, got number")):
            ok, seen = self.game.lua("return caught(function() %s end)" % code)
            self.assertFalse(ok, code)
            self.assertIn("test:1: ", seen["text"], code)       # the line of the script
            self.assertIn(text, seen["text"])
