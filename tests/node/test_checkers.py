"""What judges nodes is judged here: each checker of the harness, of load.py and of kill.py has to
notice its case."""

import collections
import signal
import subprocess
import unittest

import evptnode
import kill
import load
import wire


class HarnessTest(unittest.TestCase):
    def complaints(self, spoil):
        """What the harness says at the end of a test that did this to its node."""
        folder = evptnode.Folder()
        spoil(folder.node("game_1", {}))
        return folder.close()

    def test_harness_is_content_with_a_good_node(self):
        self.assertEqual(self.complaints(lambda node: None), "")

    def test_harness_notices_a_file_left_behind(self):
        self.assertIn("clustername.lua.tmp", self.complaints(
            lambda node: evptnode.write_file(node.path("clustername.lua.tmp"), "")))

    def test_harness_notices_what_a_sanitizer_said(self):
        for line in ("==1==ERROR: AddressSanitizer: heap-use-after-free",
                     "x.c:1:2: runtime error: y",
                     "==1==ERROR: LeakSanitizer: detected memory leaks",
                     "WARNING: ThreadSanitizer: data race (pid=1)"):
            def spoil(node, text=line):
                with open(node.log_path, "a", encoding="utf-8") as log:
                    log.write(text + "\n")
            self.assertIn("sanitizer", self.complaints(spoil))

    def test_harness_notices_a_node_that_ended_by_itself(self):
        self.assertIn("status -6", self.complaints(lambda node: node.signal(signal.SIGABRT)))

    def test_harness_finds_a_process_left_behind(self):
        process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            self.assertEqual(evptnode.processes_of_session(process.pid), [process.pid])
        finally:
            process.kill()
            process.wait()
        self.assertEqual(evptnode.processes_of_session(process.pid), [])

    def test_harness_gives_up_waiting(self):
        with self.assertRaises(AssertionError):
            evptnode.wait_until(lambda: False, "never", patience=0.02)


class JudgeTest(unittest.TestCase):
    def judge(self, outcomes, executed=()):
        return kill.judge(bytes(outcomes), collections.Counter(executed))

    def assert_refused(self, words, outcomes, executed=()):
        with self.assertRaisesRegex(load.LoadFailed, words):
            self.judge(outcomes, executed)

    OK, REFUSED, LOST, SAFE = 2, 4 * wire.CONNECT_FAILED, 4 * wire.DISCONNECTED + 1, \
        4 * wire.DISCONNECTED

    def test_kill_judge_takes_what_may_be(self):
        text = self.judge([self.OK, self.REFUSED, self.LOST, self.LOST, self.SAFE], [1, 3])
        self.assertEqual(text, "1 connect_failed/no, 2 disconnected/maybe, 1 disconnected/no, 1 ok")

    def test_kill_judge_notices_what_may_not_be(self):
        self.assert_refused("call 2: no outcome", [self.OK, 254], [1])
        self.assert_refused("call 1: a wrong answer", [255], [1])
        self.assert_refused("call 1: outcome timeout", [4 * wire.TIMEOUT + 1])
        self.assert_refused("call 1 was executed 2 times", [self.LOST], [1, 1])
        self.assert_refused("call 1 succeeded and was not executed", [self.OK])
        self.assert_refused('call 1 was executed, and its outcome says "no"', [self.SAFE], [1])
        self.assert_refused('call 1 was executed, and its outcome says "no"', [self.REFUSED], [1])
        self.assert_refused("nobody made", [self.OK], [1, 7])

    def test_load_notices_memory_that_grows(self):
        def rounds(key, values):
            return [{key: value} for value in values]
        ups_and_downs = [20000, 29000, 21000, 28000, 29000, 30000, 22000]
        load.check_memory(rounds("game_1 resident", ups_and_downs), exact=True)
        growing = [20000 + 3000 * i for i in range(10)]
        with self.assertRaises(load.LoadFailed):
            load.check_memory(rounds("game_1 resident", growing), exact=True)
        load.check_memory(rounds("game_1 resident", growing), exact=False)
        with self.assertRaises(load.LoadFailed):
            load.check_memory(rounds("game_1 Lua", range(100, 800, 100)), exact=False)
