"""The log under what happens to logs: fields and their formats, rotation with a writer at full speed,
disks that are full."""

import json
import os
import re
import signal
import subprocess
import threading

import wire
from evptnode import NodeCase, PATIENCE, program, read_file, wait_until

TALK = """
evpt.export {
    say = function(text, fields) evpt.log.info(text, fields) end,
    format = function(...) evpt.log.info(...) end,
    lua = function(text) return assert(load(text, "=test", "t", { evpt = evpt, math = math }))() end,
    echo = function(...) return ... end,
    -- Writes lines as fast as it can, `count` in all, and lets others in now and then.
    pour = function(count)
        for i = 1, count do
            evpt.log.info("line %d of many, with something behind it to make it longer", i)
            if i % 200 == 0 then evpt.sleep(0) end
        end
    end,
}
"""


class FieldTest(NodeCase):
    def test_fields_in_both_formats(self):
        for kind in ("text", "json"):
            node = self.node("game_%s" % kind, TALK, config={"log": {"format": kind}})
            node.ask("s", "lua", """evpt.log.warn("%s has joined %d%%", "Ann", 50, {
                player = 17, ratio = 0.5, alive = true, name = "the \\"cat\\"", ["a.b-c"] = "x",
                huge = math.huge, level = 9 })""")
            line = node.wait_log("Ann has joined 50%")[0]
            if kind == "text":
                self.assertTrue(line.endswith(
                    ' warn game_text s Ann has joined 50% a.b-c=x alive=true huge=inf level_=9 '
                    'name="the \\"cat\\"" player=17 ratio=0.5'), line)
                self.assertRegex(line, r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
                continue
            got = json.loads(line)
            self.assertRegex(got.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
            self.assertEqual(got, {
                "level": "warn", "node": "game_json", "service": "s",
                "message": "Ann has joined 50%", "a.b-c": "x", "alive": True, "huge": "inf",
                "level_": 9, "name": 'the "cat"', "player": 17, "ratio": 0.5})
            for line in node.log().splitlines():
                json.loads(line)

    def test_a_table_that_the_format_takes_is_no_fields(self):
        node = self.node(script=TALK)
        node.ask("s", "format", "one %s", {"a": 1})
        self.assertRegex(node.wait_log("one ")[0], r"one table: 0x\w+$")
        node.ask("s", "format", "two %d%%", 2, {"a": 1})
        self.assertTrue(node.wait_log("two ")[0].endswith("two 2% a=1"))
        node.ask("s", "format", "three 100%", {"a": 1})     # without arguments it is no format
        self.assertTrue(node.wait_log("three ")[0].endswith("three 100% a=1"))
        node.ask("s", "format", {"a": 1})
        self.assertRegex(node.wait_log(r"table: 0x\w+$", count=2)[1], r" s table: 0x\w+$")

    def test_bad_fields_are_an_error_of_the_caller_and_write_nothing(self):
        node = self.node(script=TALK)
        client = node.client()
        for fields in ("{ 'list' }", "{ ['a b'] = 1 }", "{ [''] = 1 }", "{ ['1a'] = 1 }",
                       "{ [true] = 1 }", "{ ['a=b'] = 1 }", "many"):
            text = ("local many = {} for i = 1, 33 do many['f' .. i] = i end "
                    "evpt.log.info('unseen', %s)" % fields)
            reply = client.call("s", "lua", text)
            self.assertEqual(reply.code, wire.FAILED, fields)
            self.assertIn("log: ", reply.results[0])
        node.ask("s", "say", "seen")
        node.wait_log("seen")
        self.assertEqual(node.log_lines("unseen$"), [])


class RotationTest(NodeCase):
    COUNT = 40000       # 4 MB: the queue holds 8, so whatever is lost was lost by the rotation

    def test_no_line_is_lost_with_a_writer_at_full_speed(self):
        node = self.node(script=TALK, config={"log": {"file": "game.log"}})
        node.expected_files.add("game.log")
        client = node.client()
        session = client.start("s", "pour", self.COUNT)
        number = 0
        done = threading.Event()
        waiter = threading.Thread(target=lambda: (client.reply(session, patience=60), done.set()))
        waiter.start()
        while not done.is_set() or number < 6:
            number += 1
            name = "game.log.%d" % number
            node.expected_files.add(name)
            os.rename(node.path("game.log"), node.path(name))
            node.signal(signal.SIGUSR1 if number % 2 else signal.SIGHUP)
            wait_until(lambda: os.path.exists(node.path("game.log")), "a new log file")
        waiter.join()
        node.stop()
        text = "".join(read_file(node.path("game.log.%d" % i)) for i in range(1, number + 1))
        text += read_file(node.path("game.log"))
        numbers = [int(n) for n in re.findall(r" s line (\d+) of many, with something behind it "
                                              r"to make it longer\n", text)]
        self.assertEqual(numbers, list(range(1, self.COUNT + 1)))
        self.assertNotIn("were dropped", text)

    def test_rotation_that_fails_is_told_of_and_the_old_file_goes_on(self):
        folder = os.path.join("logs", "game.log")
        node = self.node(script=TALK, start=False, config={"log": {"file": folder}})
        os.mkdir(node.path("logs"))
        node.start()
        os.rename(node.path("logs"), node.path("moved"))
        node.expected_files.add("moved/game.log")
        node.signal(signal.SIGUSR1)
        moved = node.path("moved/game.log")
        wait_until(lambda: "error game_1 log cannot open logs/game.log" in read_file(moved),
                   "the complaint")
        node.ask("s", "say", "still here")
        wait_until(lambda: "still here" in read_file(moved), "the line")


class FullDiskTest(NodeCase):
    """RLIMIT_FSIZE is a disk with little room, for one process."""

    def test_full_disk_costs_lines_and_not_calls(self):
        node = self.node(script=TALK, start=False,
                         config={"log": {"file": "game.log", "format": "json"}})
        node.expected_files |= {"game.log", "game.log.1"}
        with open(node.path("stderr.1"), "ab") as log:
            node.runs, node.log_path = 1, node.path("stderr.1")
            # 16 blocks of 512 or 1024 bytes
            node.process = subprocess.Popen(
                ["sh", "-c", "ulimit -S -f 16 && exec '%s' game_1" % program("evpt")],
                cwd=node.folder, stdout=log, stderr=log, start_new_session=True)
        node.wait_ready()
        for i in range(400):
            self.assertEqual(node.ask("s", "echo", i), [i])
            node.ask("s", "say", "line %d" % i)

        def dropped():
            return json.loads(node.ctl("stat", "--json").stdout)["log_lines_dropped"]
        wait_until(lambda: dropped() > 100, "a full disk")
        for i in range(100):        # every call is answered as before
            self.assertEqual(node.ask("s", "echo", i), [i])
        self.assertLessEqual(os.path.getsize(node.path("game.log")), 16384)
        lost = dropped()
        os.rename(node.path("game.log"), node.path("game.log.1"))
        node.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(node.path("game.log")) and
                   "%d log lines were dropped" % lost in read_file(node.path("game.log")),
                   "the count")
        node.ask("s", "say", "it goes on")
        wait_until(lambda: "it goes on" in read_file(node.path("game.log")), "the next line")
        for name in ("game.log.1", "game.log"):     # whole lines, each of them
            text = read_file(node.path(name))
            self.assertTrue(text.endswith("}\n"))
            for line in text.splitlines():
                json.loads(line)

    def test_disk_that_is_full_from_the_first_byte_on(self):
        node = self.node(script=TALK, config={"log": {"file": "/dev/full"}})
        for i in range(50):
            node.ask("s", "say", "lost")
            self.assertEqual(node.ask("s", "echo", i), [i])
        stat = json.loads(node.ctl("stat", "--json").stdout)
        self.assertEqual(stat["log_lines"], 0)
        self.assertGreaterEqual(stat["log_lines_dropped"], 50)
        node.signal(signal.SIGTERM)
        self.assertEqual(node.wait_end(PATIENCE), 0)
