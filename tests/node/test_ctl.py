"""evpt-ctl: against a fake admin socket that a test drives by hand, then against a node."""

import json
import os
import socket
import stat
import subprocess
import tempfile
import unittest

import wire
from evptnode import NodeCase, environment, program, wait_until, write_file


class CtlTest(unittest.TestCase):
    """Against a fake node: what goes over the socket, and what the script that called it sees."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="evpt-ctl-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        os.mkdir(os.path.join(self.dir, "run"))

    def serve(self, name="game_1"):
        server = wire.FakeServer(os.path.join(self.dir, "run", name + ".sock"))
        self.addCleanup(server.close)
        return server

    def start(self, *args, stdin=subprocess.DEVNULL):
        process = subprocess.Popen([program("evpt-ctl"), *args], cwd=self.dir, env=environment(),
                                   stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def finish(self, process):
        out, err = process.communicate(timeout=20)
        return process.returncode, out.decode(), err.decode()

    def run_ctl(self, *args):
        return self.finish(self.start(*args))

    def talk(self, *args, results=(0, ""), code=wire.OK, data=None):
        """One exchange: the request as the node saw it, and (status, stdout, stderr)."""
        server = self.serve()
        process = self.start(*args)
        peer = server.accept(hello=False)
        session, message = peer.message()
        if data is None:
            data = wire.pack([wire.REPLY, code, list(results)])
        peer.send_message(session, data)
        done = self.finish(process)
        peer.close()
        server.close()
        return wire.unpack(message), done

    def assert_one_line(self, done, *parts):
        status, out, err = done
        self.assertEqual((status, out), (1, ""), err)
        self.assertRegex(err, r"\Aevpt-ctl: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, err)

    def assert_usage(self, done):
        status, out, err = done
        self.assertEqual((status, out), (2, ""), err)
        self.assertIn("usage: evpt-ctl", err)

    def test_ctl_sends_the_verb_to_the_console_and_prints_the_answer(self):
        request, done = self.talk("nodes", results=[0, "battle_1 connected\n"])
        self.assertEqual(request, [1, "console", "nodes", [{"json": False}], {1: 15000}])
        self.assertEqual(done, (0, "battle_1 connected\n", ""))

    def test_ctl_takes_json_before_and_behind_the_verb(self):
        for args in (("--json", "nodes"), ("nodes", "--json")):
            with self.subTest(args):
                request, done = self.talk(*args, results=[0, "[]"])
                self.assertEqual(request[3], [{"json": True}])
                self.assertEqual(done, (0, "[]\n", ""))

    def test_ctl_passes_an_unknown_verb_and_its_arguments_as_they_are(self):
        request, _ = self.talk("kick", "-x", "--name", "", "ä", "--", "--json")
        self.assertEqual(request[2:4], ["kick", ["-x", "--name", "", "ä", "--json",
                                                 {"json": False}]])

    def test_ctl_exits_with_the_status_of_the_verb_and_its_text_on_stderr(self):
        _, done = self.talk("reload", results=[3, "clustername.lua: bad"])
        self.assertEqual(done, (3, "", "clustername.lua: bad\n"))

    def test_ctl_reports_a_refusal_of_the_node_in_one_line(self):
        _, done = self.talk("what", code=wire.UNKNOWN_METHOD, results=["no verb what\nand more"])
        self.assert_one_line(done, "no verb what")

    def test_ctl_sends_the_content_of_the_file_to_rewrite(self):
        text = "battle_1 = \"127.0.0.1:1\"\n-- \0 and more\n" * 3000      # five frames
        write_file(os.path.join(self.dir, "new.lua"), text)
        request, done = self.talk("rewrite", "new.lua", results=[0, "added: battle_1"])
        self.assertEqual(request[2:4], ["rewrite", [text, {"json": False}]])
        self.assertEqual(done[0], 0)

    def test_ctl_reads_the_text_to_rewrite_from_standard_input(self):
        server = self.serve()
        process = self.start("rewrite", "-", stdin=subprocess.PIPE)
        process.stdin.write(b"a = 1\n" * 20000)
        process.stdin.close()
        process.stdin = None
        peer = server.accept(hello=False)
        session, request = peer.request()
        self.assertEqual(request[3][0], "a = 1\n" * 20000)
        peer.answer(session, 0, "")
        self.assertEqual(self.finish(process), (0, "", ""))
        peer.close()

    def test_ctl_rewrite_of_a_missing_file_is_one_line_and_asks_nobody(self):
        server = self.serve()
        self.assert_one_line(self.run_ctl("rewrite", "nosuch.lua"), "nosuch.lua")
        with self.assertRaises(BlockingIOError):
            server.accept(patience=0, hello=False)

    def test_ctl_reads_an_answer_in_parts_that_come_byte_by_byte(self):
        text = "line\n" * 20000
        server = self.serve()
        process = self.start("services")
        peer = server.accept(hello=False)
        session, _ = peer.message()
        data = b"".join(wire.split(session, wire.pack([3, 0, [0, text]])))
        for at in range(0, 20):
            peer.send(data[at:at + 1])
        peer.send(data[20:])
        self.assertEqual(self.finish(process), (0, text, ""))
        peer.close()

    def test_ctl_finds_its_socket_by_path_by_name_and_alone(self):
        os.mkdir(os.path.join(self.dir, "else"))
        for where, args in (("run/game_1.sock", []), ("run/game_1.sock", ["-n", "game_1"]),
                            ("run/game_1.sock", ["-C", ".", "-n", "game_1"]),
                            ("run/game_1.sock", ["-C", self.dir]),
                            ("else/x", ["-s", "else/x"])):
            with self.subTest(args):
                path = os.path.join(self.dir, where)
                server = wire.FakeServer(path)
                process = self.start(*args, "nodes")
                peer = server.accept(hello=False)
                peer.answer(peer.message()[0], 0, "found")
                self.assertEqual(self.finish(process), (0, "found\n", ""))
                peer.close()
                server.close()

    def test_ctl_with_several_sockets_asks_which(self):
        self.serve("game_1")
        self.serve("game_2")
        self.assert_one_line(self.run_ctl("nodes"), "-n")

    def test_ctl_without_a_node_is_one_line(self):
        self.assert_one_line(self.run_ctl("nodes"), "run/")
        self.assert_one_line(self.run_ctl("-n", "game_1", "nodes"), "run/game_1.sock")
        self.assert_one_line(self.run_ctl("-s", "/" + "x" * 400, "nodes"), "long")
        with socket.socket(socket.AF_UNIX) as dead:     # its file stays, as after a kill -9
            dead.bind(os.path.join(self.dir, "run/dead.sock"))
        self.assert_one_line(self.run_ctl("nodes"), "run/dead.sock")

    def test_ctl_gives_up_after_its_timeout(self):
        self.serve()
        self.assert_one_line(self.run_ctl("--timeout", "50", "nodes"), "50 ms")

    def test_ctl_tells_its_timeout_to_the_node(self):
        request, _ = self.talk("--timeout", "1234", "nodes")
        self.assertEqual(request[4], {1: 1234})

    def test_ctl_reports_a_connection_that_ends_without_an_answer(self):
        server = self.serve()
        process = self.start("nodes")
        peer = server.accept(hello=False)
        peer.message()
        peer.close()
        self.assert_one_line(self.finish(process), "no answer")

    def test_ctl_reports_a_reply_of_another_form(self):
        for data in (b"", b"\xc1", wire.pack(1), wire.pack([3, 0]), wire.pack([1, 0, []]),
                     wire.pack([3, 0, []]), wire.pack([3, 0, [0]]), wire.pack([3, 0, ["0", "x"]]),
                     wire.pack([3, 0, [0, 1]]), wire.pack([3, 0, [256, "x"]]),
                     wire.pack([3, 0, [-1, "x"]]), wire.pack([3, 7, [1]]), b"\xdd\xff\xff\xff\xff"):
            with self.subTest(data):
                _, done = self.talk("nodes", data=data)
                self.assert_one_line(done)

    def test_ctl_reports_frames_that_break_the_protocol(self):
        part = b"x" * wire.PART
        for bad in (b"\0\x06", wire.frame(0x88, 0), wire.frame(wire.WHOLE, 0),
                    wire.frame(wire.WHOLE, 9, wire.pack([3, 0, [0, ""]])),
                    wire.frame(wire.LAST, 1, part), wire.frame(wire.FIRST, 1, part) * 2):
            with self.subTest(bad[:8]):
                server = self.serve()
                process = self.start("nodes")
                peer = server.accept(hello=False)
                peer.message()
                peer.send(bad)
                self.assert_one_line(self.finish(process))
                peer.close()
                server.close()

    def test_ctl_usage_errors_exit_2(self):
        for args in ((), ("-x", "nodes"), ("-s",), ("--timeout", "0", "nodes"), ("rewrite",),
                     ("--timeout", "1s", "nodes"), ("rewrite", "a", "b"),
                     ("-s", "x", "-n", "y", "nodes"), ("-s", "x", "-C", "y", "nodes")):
            with self.subTest(args):
                self.assert_usage(self.run_ctl(*args))

    def test_ctl_help_and_version(self):
        for option in ("-h", "--help"):
            status, out, err = self.run_ctl(option)
            self.assertEqual((status, err), (0, ""))
            for word in ("usage: evpt-ctl", "rewrite FILE", "--json", "--timeout"):
                self.assertIn(word, out)
        status, out, err = self.run_ctl("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\Aevpt-ctl \d+\.\d+\.\d+\n\Z")

    def test_ctl_reports_an_output_that_cannot_be_written(self):
        server = self.serve()
        with open("/dev/full", "wb") as full:
            process = subprocess.Popen([program("evpt-ctl"), "nodes"], cwd=self.dir, stdout=full,
                                       env=environment(), stderr=subprocess.PIPE)
        peer = server.accept(hello=False)
        peer.answer(peer.message()[0], 0, "text")
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(err, rb"\Aevpt-ctl: [^\n]+\n\Z")
        peer.close()


class ConsoleTest(NodeCase):
    """Against a node."""

    def test_ctl_nodes_shows_every_node_of_the_list(self):
        self.address("battle_1")
        self.folder.addresses["old_1"] = False
        node = self.node()
        text = node.ctl("nodes")
        self.assertEqual((text.returncode, text.stderr), (0, ""))
        rows = node.nodes()
        self.assertEqual(sorted(rows), ["battle_1", "game_1", "old_1"])
        for name in rows:
            self.assertIn(name, text.stdout)
        ip, port = self.address("battle_1")
        row = rows["battle_1"]
        self.assertEqual((row["ip"], row["port"], row["status"], row["session2context"],
                          row["requestCache"]), (ip, port, "disconnect", 0, 0))
        self.assertEqual(rows["old_1"]["status"], "down")

    def test_ctl_nodes_shows_calls_in_flight_and_requests_waiting(self):
        server = self.fake("battle_1")
        self.stuck("battle_2")
        node = self.node(script="""
            evpt.export { start = function(node, count)
                for i = 1, count do evpt.fork(cluster.try, node, "s", "m") end
            end }""")
        node.ask("s", "start", "battle_1", 3)
        peer = server.accept()
        for _ in range(3):
            peer.request()
        node.ask("s", "start", "battle_2", 2)
        rows = node.nodes()
        self.assertEqual([rows["battle_1"][key] for key in ("status", "session2context",
                                                           "requestCache")], ["connected", 3, 0])
        self.assertEqual([rows["battle_2"][key] for key in ("status", "session2context",
                                                           "requestCache")], ["connecting", 0, 2])
        node.kill()     # nobody will answer: a drain would wait for the deadlines
        peer.close()

    def test_ctl_services_shows_the_services_by_name(self):
        node = self.node(scripts={"a": "", "room": ""},
                         services=["a", {1: "room", "name": "room_1"}])
        text = node.ctl("services")
        self.assertEqual(text.returncode, 0)
        for name in ("a", "room_1"):
            self.assertRegex(text.stdout, r"\b%s\b" % name)
        self.assertIn("room_1", json.dumps(json.loads(node.ctl("services", "--json").stdout)))

    def test_ctl_unknown_verb_is_answered_by_the_node(self):
        node = self.node()
        done = node.ctl("frobnicate")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn("frobnicate", done.stderr)
        self.assertEqual(node.ctl("nodes").returncode, 0)

    def test_ctl_stop_drains_and_stops(self):
        node = self.node(script="evpt.on_stop(function() print('drained') end)")
        self.assertEqual(node.ctl("stop").returncode, 0)
        self.assertEqual(node.wait_end(), 0)
        self.assertEqual(len(node.log_lines(" s drained")), 1)
        self.assertNotEqual(node.ctl("nodes").returncode, 0)

    def test_admin_socket_is_for_its_owner_only_and_goes_with_the_node(self):
        node = self.node()
        mode = os.stat(node.admin)
        self.assertTrue(stat.S_ISSOCK(mode.st_mode))
        self.assertEqual(stat.S_IMODE(mode.st_mode), 0o600)
        node.stop()
        self.assertFalse(os.path.exists(node.admin))

    def test_admin_socket_left_by_a_killed_node_is_replaced(self):
        node = self.node()
        node.kill()
        self.assertTrue(os.path.exists(node.admin))
        node.start()
        self.assertEqual(node.ctl("nodes").returncode, 0)

    def test_admin_nil_means_no_admin_socket(self):
        node = self.node(config={"admin": None}, script="evpt.export { ping = function() end }")
        self.assertEqual(node.ask("s", "ping"), [])
        self.assertFalse(os.path.exists(node.path("run")))

    def test_admin_path_gets_the_name_of_the_node(self):
        node = self.node(config={"admin": "adm-%s-x"})
        wait_until(lambda: os.path.exists(node.path("adm-game_1-x")), "the admin socket")
        done = subprocess.run([program("evpt-ctl"), "-s", node.path("adm-game_1-x"), "nodes"],
                              capture_output=True, env=environment(), check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_admin_socket_survives_bad_bytes_and_silent_peers(self):
        node = self.node()
        silent = [wire.connect(node.admin) for _ in range(5)]
        for data in (b"\0\0\0", os.urandom(500), wire.frame(wire.WHOLE, 1, b"\xc1")):
            sock = wire.connect(node.admin)
            sock.sendall(data)
            sock.close()
        self.assertEqual(node.ctl("nodes").returncode, 0)
        for sock in silent:
            sock.close()
        self.assertEqual(node.ctl("nodes").returncode, 0)

    def test_admin_socket_serves_two_at_once(self):
        node = self.node()
        clients = [wire.Client(node.admin) for _ in range(2)]
        sessions = [client.start("console", "nodes", {"json": True}) for client in clients]
        for client, session in reversed(list(zip(clients, sessions))):
            reply = client.reply(session)
            self.assertEqual((reply.code, reply.results[0]), (0, 0))
            client.close()

    def test_console_is_the_only_service_of_the_admin_socket(self):
        node = self.node(script="evpt.methods { secret = function() return 1 end }")
        client = wire.Client(node.admin)
        self.addCleanup(client.close)
        self.assertNotEqual(client.call("s", "secret").code, wire.OK)
        self.assertNotEqual(client.call("clusterclient", "nodes").code, wire.OK)


