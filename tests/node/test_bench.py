"""evpt-bench: what it measures is what a node sees, and what it prints is what it measured."""

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

import wire
from evptnode import (PATIENCE, NodeCase, environment, fresh_address, processes_of_session, program,
                      read_file, sanitized, wait_until, write_file)

# A service that counts what it gets.
COUNTING = """
    local calls, shortest, longest = 0, math.huge, 0
    local function count(text)
        calls = calls + 1
        shortest, longest = math.min(shortest, #text), math.max(longest, #text)
    end
    evpt.export {
        echo = function(text) count(text) return text end,
        seen = function() return calls, shortest, longest end,
        slow = function(text) count(text) evpt.sleep(300) return text end,
        fail = function() error("on purpose") end,
        fail_half = function(text) count(text) if calls % 2 == 0 then error("on purpose") end end,
        -- holds up the whole service once, for 400 ms
        stall = function(text)
            count(text)
            if calls == 100 then
                local started = evpt.now()
                while evpt.now() - started < 400 do end
            end
        end,
    }
"""


class BenchCase(NodeCase):
    def setUp(self):
        super().setUp()
        tmp = tempfile.TemporaryDirectory(prefix="evpt-bench-test-")
        self.addCleanup(tmp.cleanup)
        self.dir = tmp.name

    def path(self, name):
        return os.path.join(self.dir, name)

    def start_bench(self, *args, stderr=subprocess.PIPE):
        os.makedirs(self.path("tmp"), exist_ok=True)
        process = subprocess.Popen(
            [program("evpt-bench"), *map(str, args)], cwd=self.dir, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
            env=dict(environment(), TMPDIR=self.path("tmp")))
        self.addCleanup(process.stdout.close)
        if process.stderr:
            self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def end_bench(self, process, patience=PATIENCE):
        """Waits for it to end; nothing of it may be left behind: (status, stdout, stderr)."""
        out, err = process.communicate(timeout=patience)
        self.assertEqual(processes_of_session(process.pid), [])
        self.assertEqual(os.listdir(self.path("tmp")), [])
        return process.returncode, out, err

    def bench(self, *args, patience=PATIENCE):
        return self.end_bench(self.start_bench(*args), patience)

    def measured(self, *args, status=0):
        """The JSON of a run that ends with this status."""
        got, out, err = self.bench("--json", "report.json", *args)
        self.assertEqual(got, status, out + err)
        return self.report()

    def report(self):
        return json.loads(read_file(self.path("report.json")))

    def target(self, **options):
        self.game = self.node("game_1", COUNTING, **options)
        return "%s:%d" % self.game.address

    def seen(self):
        return self.game.ask("s", "seen")[0]

    def assert_one_line(self, done, status, *parts):
        got, out, err = done
        self.assertEqual((got, out), (status, ""), err)
        self.assertRegex(err, r"\Aevpt-bench: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, err)


class ClosedLoopTest(BenchCase):
    def test_bench_makes_exactly_as_many_calls_as_it_was_told(self):
        target = self.target()
        report = self.measured("-n", "1003", "-c", "10", "call", target, "s", "echo")
        self.assertEqual(self.seen(), 1003)
        result = report["result"]
        self.assertEqual((result["calls"], result["ok"], result["errors"]), (1003, 1003, 0))
        self.assertEqual(report["workload"]["loop"], "closed")
        self.assertGreater(result["calls_per_second"], 0)
        self.assertGreater(result["p50_ns"], 1000)
        self.assertLessEqual(result["p50_ns"], result["p99_ns"])
        self.assertLessEqual(result["p99_99_ns"], result["max_ns"])
        self.assertGreater(result["cpu_evpt_bench_s"], 0)
        self.assertGreater(result["cpu_target_s"], 0)
        self.assertGreater(result["bytes_out"], 1003 * 64)

    def test_bench_sends_exactly_as_many_and_waits_until_they_were_handled(self):
        target = self.target()
        for connections in (1, 3):
            before = self.seen()
            report = self.measured("-n", "1003", "--connections", connections, "send", target,
                                   "s", "echo")
            self.assertEqual(self.seen() - before, 1003)
            self.assertEqual((report["result"]["calls"], report["result"]["ok"]), (1003, 1003))

    def test_bench_lets_every_16th_send_be_a_call_and_waits_for_its_answer(self):
        server = self.fake("game_1")
        process = self.start_bench("-n", "40", "-c", "1", "--json", "report.json", "send",
                                   "%s:%d" % server.address, "s", "echo")
        peer = server.accept()
        for burst in (16, 16, 8):
            kinds = []
            for _ in range(burst):
                session, message = peer.message()
                kinds.append(wire.unpack(message)[0])
            self.assertEqual(kinds, [wire.SEND] * (burst - 1) + [wire.CALL])
            with self.assertRaises(TimeoutError):
                peer.message(patience=0.05)
            peer.send_message(session, wire.pack([wire.REPLY, wire.OK, []]))
        self.assertEqual(self.end_bench(process)[0], 0)
        peer.close()
        self.assertEqual(self.report()["result"]["ok"], 40)

    def test_bench_keeps_as_many_calls_in_flight_as_it_was_told(self):
        # each takes 300 ms, and 20 at a time are three rounds of them
        report = self.measured("-n", "60", "-c", "20", "call", self.target(), "s", "slow")
        self.assertGreater(report["result"]["seconds"], 0.85)
        self.assertGreater(report["result"]["p50_ns"], 290e6)

    def test_bench_runs_for_the_time_it_was_told(self):
        report = self.measured("-d", "500ms", "-w", "0", "call", self.target(), "s", "echo")
        self.assertAlmostEqual(report["result"]["seconds"], 0.5, delta=0.05)
        self.assertEqual(report["result"]["calls"], self.seen())

    def test_bench_does_not_count_the_warm_up(self):
        report = self.measured("-w", "100ms", "-n", "50", "call", self.target(), "s", "echo")
        self.assertEqual(report["result"]["calls"], 50)
        self.assertGreater(self.seen(), 60)

    def test_bench_spreads_its_calls_over_connections(self):
        self.measured("-n", "300", "-c", "6", "--connections", "3", "call", self.target(), "s",
                      "echo")
        self.assertEqual(len(self.game.wait_log(r"evpt_bench closed", 3)), 3)

    def test_bench_makes_arguments_of_the_size_it_was_told(self):
        target = self.target()
        self.measured("-n", "200", "-s", "100", "call", target, "s", "echo")
        self.assertEqual(self.game.ask("s", "seen"), [200, 100, 100])
        self.measured("-n", "300", "-s", "40..2Ki", "call", target, "s", "echo")
        _, shortest, longest = self.game.ask("s", "seen")
        self.assertGreaterEqual(shortest, 40)
        self.assertLess(shortest, 100)
        self.assertLessEqual(longest, 2048)
        self.assertGreater(longest, 1900)

    def test_bench_sends_long_messages_too(self):
        report = self.measured("-n", "10", "-c", "3", "-s", "1MiB", "call", self.target(), "s",
                               "echo")
        self.assertEqual(report["result"]["ok"], 10)
        self.assertGreater(report["result"]["bytes_in"], 10 << 20)

    def test_bench_finds_its_target_in_a_node_list(self):
        target = self.target()
        write_file(self.path("list.lua"), 'game_1 = "%s"\nold_1 = false\n' % target)
        report = self.measured("-n", "10", "call", "game_1", "s", "echo", "-f", "list.lua")
        self.assertEqual(report["result"]["ok"], 10)
        self.assertEqual(report["workload"]["target"], "game_1")
        for name in ("old_1", "nobody_1"):
            self.assert_one_line(self.bench("call", name, "s", "echo", "-f", "list.lua"), 1,
                                 "list.lua", name)
        self.assert_one_line(self.bench("call", "game_1", "s", "echo", "-f", "none.lua"), 1,
                             "none.lua")


class OpenLoopTest(BenchCase):
    def test_bench_keeps_to_its_schedule(self):
        report = self.measured("-r", "400", "-d", "1", "-w", "0", "call", self.target(), "s",
                               "echo")
        result = report["result"]
        self.assertEqual(report["workload"]["loop"], "open")
        # every slot of the second was either used or is told to have been missed
        self.assertEqual(result["calls"] + result["missed"], 400)
        self.assertGreater(result["calls"], 390)
        self.assertEqual(result["calls"], self.seen())
        self.assertAlmostEqual(result["calls_per_second"], 400, delta=20)
        self.assertGreaterEqual(result["lag_max_ns"], result["lag_p50_ns"])

    def test_bench_counts_latency_from_the_intended_start(self):
        # The generator itself stands still for 400 ms: 200 of the slots are started late, 50 of
        # them more than 300 ms late, and their latency tells.
        process = self.start_bench("-r", "500", "-n", "500", "--json", "report.json", "call",
                                   self.target(), "s", "echo")
        wait_until(lambda: self.seen() > 50, "the load runs")
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.4)
        process.send_signal(signal.SIGCONT)
        status, out, err = self.end_bench(process)
        self.assertEqual(status, 0, err)
        result = self.report()["result"]
        self.assertEqual(result["ok"], 500)
        self.assertGreater(result["p90_ns"], 200e6)
        self.assertGreater(result["lag_max_ns"], 300e6)
        self.assertIn("warning: the generator is saturated", out)

    def test_bench_does_not_omit_the_calls_that_a_slow_one_holds_up(self):
        # One call holds the service up for 400 ms: a closed loop of one has one slow call; on a
        # schedule of 1000 a second 400 others had to wait for it, 200 of them more than 200 ms.
        open_loop = self.measured("-r", "1k", "-n", "1000", "call", self.target(), "s", "stall")
        self.assertEqual(open_loop["result"]["ok"], 1000)
        self.assertGreater(open_loop["result"]["p90_ns"], 200e6)
        self.game.stop()
        self.game.start()
        closed = self.measured("-c", "1", "-n", "1000", "call", "%s:%d" % self.game.address, "s",
                               "stall")
        self.assertLess(closed["result"]["p99_ns"], 200e6)
        self.assertGreater(closed["result"]["max_ns"], 390e6)

    def test_bench_counts_slots_that_it_could_not_use(self):
        status, out, err = self.bench("-r", "200", "-n", "50", "-c", "5", "--json", "report.json",
                                      "call", self.target(), "s", "slow")
        self.assertEqual(status, 0, err)
        result = self.report()["result"]
        self.assertEqual(result["calls"] + result["missed"], 50)
        self.assertGreaterEqual(result["missed"], 40)
        self.assertIn("warning: %d slots were missed" % result["missed"], out)

    def test_bench_sends_on_a_schedule_too(self):
        report = self.measured("-r", "2k", "-n", "503", "--connections", "2", "send",
                               self.target(), "s", "echo")
        self.assertEqual((report["result"]["calls"], report["result"]["ok"]), (503, 503))
        self.assertEqual(self.seen(), 503)

    def test_bench_says_which_loop_it_is(self):
        target = self.target()
        _, out, _ = self.bench("-n", "5", "call", target, "s", "echo")
        self.assertIn("closed loop: 64 in flight", out)
        _, out, _ = self.bench("-n", "5", "-r", "1k", "call", target, "s", "echo")
        self.assertIn("open loop: 1,000 a second", out)
        self.assertIn("latency counts from the intended start", out)


class OutcomeTest(BenchCase):
    def test_bench_fails_where_no_call_is_answered_with_ok(self):
        target = self.target()
        for method, name in (("fail", "failed"), ("nope", "unknown_method")):
            status, out, err = self.bench("-n", "20", "--json", "report.json", "call", target, "s",
                                          method)
            self.assertEqual((status, err), (1, "evpt-bench: no call was answered with ok\n"))
            self.assertIn("%s 20" % name, out)
            self.assertEqual(self.report()["errors_by_code"], {name: 20})

    def test_bench_counts_timeouts_and_does_not_let_them_flatter(self):
        server = self.fake("game_1")    # takes connections, and answers nothing
        report = self.measured("-n", "30", "-c", "10", "--timeout", "100ms", "call",
                               "%s:%d" % server.address, "s", "echo", status=1)
        result = report["result"]
        self.assertEqual((result["calls"], result["timeouts"], result["errors"]), (30, 30, 30))
        self.assertGreaterEqual(result["p50_ns"], 99e6)

    def test_bench_tells_failed_calls_from_the_others(self):
        report = self.measured("-n", "100", "-c", "1", "call", self.target(), "s", "fail_half")
        self.assertEqual((report["result"]["ok"], report["errors_by_code"]), (50, {"failed": 50}))

    def test_bench_limit_on_p99_decides_the_exit_status(self):
        target = self.target()
        status, _, err = self.bench("-n", "100", "--max-p99", "1ns", "call", target, "s", "echo")
        self.assertEqual(status, 3)
        self.assertRegex(err, r"\Aevpt-bench: --max-p99: [^\n]+1 ns\n\Z")
        self.measured("-n", "100", "--max-p99", "10s", "call", target, "s", "echo")
        # a call that failed was not answered in time, however fast it failed
        self.measured("-n", "100", "--max-p99", "10s", "call", target, "s", "fail_half", status=3)

    def test_bench_opens_a_lost_connection_again(self):
        server = self.fake("game_1")
        process = self.start_bench("-n", "3", "-c", "1", "--json", "report.json", "call",
                                   "%s:%d" % server.address, "s", "echo")
        first = server.accept()
        session, _ = first.message()
        first.send_message(session, wire.pack([wire.REPLY, wire.OK, []]))
        first.message()
        first.close()                   # with the second call unanswered
        second = server.accept()
        session, _ = second.message()
        second.send_message(session, wire.pack([wire.REPLY, wire.OK, []]))
        status, out, err = self.end_bench(process)
        second.close()
        self.assertEqual(status, 0, err)
        report = self.report()
        self.assertEqual((report["result"]["ok"], report["errors_by_code"]),
                         (2, {"disconnected": 1}))
        self.assertEqual(report["result"]["reconnects"], 1)
        self.assertIn("connections were lost", out)

    def test_bench_gives_up_when_the_target_has_gone(self):
        target = self.target()
        process = self.start_bench("-d", "60", "-w", "0", "--timeout", "300ms", "--json",
                                   "report.json", "call", target, "s", "echo")
        wait_until(lambda: self.seen() > 100, "the load runs")
        self.game.kill()
        status, out, err = self.end_bench(process)
        self.assertEqual(status, 1)
        self.assertRegex(err, r"\Aevpt-bench: [^\n]*%s: the target has gone[^\n]*\n\Z"
                         % re.escape(target))
        self.assertIn("disconnected", out)
        self.assertGreater(self.report()["result"]["ok"], 100)

    def test_bench_does_not_take_a_late_answer_for_another_calls(self):
        server = self.fake("game_1")
        process = self.start_bench("-n", "2", "-c", "1", "--timeout", "150ms", "--json",
                                   "report.json", "call", "%s:%d" % server.address, "s", "echo")
        peer = server.accept()
        late, _ = peer.message()
        second, _ = peer.message()      # comes when the first one has timed out
        peer.send_message(late, wire.pack([wire.REPLY, wire.FAILED, ["too late"]]))
        peer.send_message(second, wire.pack([wire.REPLY, wire.OK, []]))
        self.assertEqual(self.end_bench(process)[0], 0)
        peer.close()
        result = self.report()["result"]
        self.assertEqual((result["ok"], result["timeouts"], result["late_answers"]), (1, 1, 1))


class ProgramTest(BenchCase):
    def test_bench_without_a_target_says_so_in_one_line(self):
        started = time.monotonic()
        absent = "%s:%d" % fresh_address()
        self.assert_one_line(self.bench("call", absent, "s", "echo"), 1, absent, "refused")
        self.assertLess(time.monotonic() - started, 5)

    def test_bench_waits_for_a_target_no_longer_than_it_was_told(self):
        self.stuck("game_1")
        stuck = "%s:%d" % self.address("game_1")
        self.assert_one_line(self.bench("--timeout", "200ms", "call", stuck, "s", "echo"), 1, stuck)

    def test_bench_tells_usage_errors_in_one_line(self):
        for args in (["call"], ["-c", "x", "call", "127.0.0.1:1", "s", "m"], ["--local=three"],
                     ["call", "127.0.0.1", "s", "m"]):
            with self.subTest(args):
                self.assert_one_line(self.bench(*args), 2, "see evpt-bench --help")
        status, out, err = self.bench("--nonsense")
        self.assertEqual((status, out), (2, ""), err)
        status, out, err = self.bench("--help")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("usage: evpt-bench [options] call|send TARGET SERVICE METHOD", out)
        self.assertRegex(self.bench("--version")[1], r"\Aevpt-bench \d+\.\d+")

    def test_bench_reports_what_it_has_on_ctrl_c(self):
        process = self.start_bench("-d", "60", "-w", "0", "--json", "report.json", "call",
                                   self.target(), "s", "echo")
        wait_until(lambda: self.seen() > 100, "the load runs")
        process.send_signal(signal.SIGINT)
        status, out, err = self.end_bench(process)
        self.assertEqual((status, err), (0, ""))
        report = self.report()
        self.assertIs(report["interrupted"], True)
        self.assertEqual(report["result"]["calls"], self.seen())
        self.assertIn("interrupted", out)

    def test_bench_does_not_wait_for_answers_after_a_second_ctrl_c(self):
        server = self.fake("game_1")
        process = self.start_bench("-d", "60", "-w", "0", "-c", "4", "--timeout", "60s", "call",
                                   "%s:%d" % server.address, "s", "echo")
        peer = server.accept()
        self.addCleanup(peer.close)
        for _ in range(4):
            peer.message()
        process.send_signal(signal.SIGINT)
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(0.3)           # it does wait for them after the first one
        process.send_signal(signal.SIGINT)
        status, out, _ = self.end_bench(process, patience=5)
        self.assertEqual(status, 1)     # none of them was answered
        self.assertIn("not waited for 4", out)

    def test_bench_shows_its_progress_on_a_terminal(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = self.start_bench("-d", "2500ms", "-w", "0", "call", self.target(), "s", "echo",
                                   stderr=theirs)
        os.close(theirs)
        shown = b""
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    shown += os.read(ours, 4096)
                except OSError:         # the other end has been closed
                    break
        self.assertEqual(self.end_bench(process)[0], 0)
        self.assertEqual(len(re.findall(rb"\d s  [\d,]+/s  p50 [\d.]+ \ws  p99 ", shown)), 2, shown)

    def test_bench_is_bound_to_processors(self):
        target = self.target()
        cpu = min(os.sched_getaffinity(0))
        report = self.measured("-n", "10", "--pin", cpu, "call", target, "s", "echo")
        self.assertEqual(report["environment"]["cpu_count"], 1)
        self.assertEqual(report["workload"]["pinned"], str(cpu))
        self.assert_one_line(self.bench("--pin", "1023", "call", target, "s", "echo"), 1, "1023")


class ReportTest(BenchCase):
    def test_bench_writes_where_and_how_it_was_measured(self):
        target = self.target()
        report = self.measured("-n", "10", "-c", "3", "call", target, "s", "echo")
        where = report["environment"]
        self.assertEqual(where["kernel"].split()[1], os.uname().release)
        self.assertEqual(where["cpu_count"], len(os.sched_getaffinity(0)))
        self.assertTrue(where["command"].endswith("--json report.json -n 10 -c 3 call %s s echo"
                                                  % target), where["command"])
        for key in ("version", "build", "date", "cpu"):
            self.assertTrue(where[key], key)
        self.assertEqual(report["workload"]["in_flight"], 3)
        self.assertEqual(report["workload"]["count"], 10)

    def test_bench_prints_what_it_writes(self):
        status, out, _ = self.bench("-n", "1500", "--json", "report.json", "call", self.target(),
                                    "s", "echo")
        self.assertEqual(status, 0)
        report = self.report()
        self.assertIn("calls     1,500 in ", out)
        self.assertIn("%s/s" % format(round(report["result"]["calls_per_second"]), ","), out)
        for part in ("p50 ", "p90 ", "p99 ", "p99.9 ", "p99.99 ", "max ", "cpu ",
                     report["environment"]["kernel"], report["environment"]["command"]):
            self.assertIn(part, out)

    def test_bench_writes_json_to_stdout_and_nothing_else(self):
        status, out, err = self.bench("-n", "10", "--json", "-", "call", self.target(), "s", "echo")
        self.assertEqual(status, 0)
        self.assertEqual(json.loads(out)["result"]["calls"], 10)
        self.assertIn("calls     10 in ", err)

    def test_bench_appends_lines_to_csv(self):
        target = self.target()
        for count in (10, 20):
            self.bench("-n", count, "--csv", "runs.csv", "call", target, "s", "echo")
        rows = list(csv.DictReader(io.StringIO(read_file(self.path("runs.csv")))))
        self.assertEqual([row["calls"] for row in rows], ["10", "20"])
        for row in rows:
            self.assertNotIn(None, row)             # no line is longer than the heading
            self.assertNotIn(None, row.values())    # nor shorter
            self.assertEqual((row["target"], row["what"], row["lag_p50_ns"]), (target, "call", ""))
            self.assertGreater(float(row["p50_ns"]), 0)

    def test_bench_writes_percentiles_for_the_plotter(self):
        self.bench("-n", "2000", "--hgrm", "run.hgrm", "--json", "report.json", "call",
                   self.target(), "s", "echo")
        lines = read_file(self.path("run.hgrm")).splitlines()
        self.assertEqual(lines[0].split(), ["Value", "Percentile", "TotalCount",
                                            "1/(1-Percentile)"])
        rows = [line.split() for line in lines[1:] if line and not line.startswith("#")]
        self.assertGreater(len(rows), 10)
        for before, after in zip(rows, rows[1:]):
            for column in range(3):
                self.assertLessEqual(float(before[column]), float(after[column]))
        self.assertEqual((float(rows[-1][1]), int(rows[-1][2])), (1.0, 2000))
        self.assertAlmostEqual(float(rows[-1][0]) * 1e6, self.report()["result"]["max_ns"])
        for row in rows[:-1]:           # so many of all values lie at or below this one
            self.assertGreaterEqual(int(row[2]) / 2000 + 1e-9, float(row[1]))
        self.assertEqual(len([line for line in lines if line.startswith("#[")]), 3)

    def test_bench_compares_with_an_earlier_report(self):
        target = self.target()
        old = self.measured("-n", "100", "-c", "4", "call", target, "s", "echo")
        old["result"]["calls_per_second"] = 1
        old["environment"]["kernel"] = "Linux 1.0"
        write_file(self.path("old.json"), json.dumps(old))
        # written to the file that it reads
        status, out, err = self.bench("-n", "100", "-c", "5", "--compare", "old.json", "--json",
                                      "old.json", "call", target, "s", "echo")
        self.assertEqual(status, 0, err)
        self.assertIn("compared with old.json of " + old["environment"]["date"], out)
        self.assertRegex(out, r"calls_per_second +1 +[\d,]+ +\+[\d.]+ %  better")
        self.assertRegex(out, r"\n +p99_ns +[\d.]+ \ws +[\d.]+ \ws ")
        self.assertIn("not the same in_flight: 4 before, 5 now", out)
        self.assertIn("not the same kernel: Linux 1.0 before", out)
        self.assertEqual(json.loads(read_file(self.path("old.json")))["workload"]["in_flight"], 5)

    def test_bench_refuses_to_compare_with_what_is_no_report(self):
        target = self.target()
        for name, text in (("a", "{"), ("b", "{}"), ("c", '{"program": "other"}'), ("d", "")):
            write_file(self.path(name), text)
            done = self.bench("--compare", name, "call", target, "s", "echo")
            self.assert_one_line(done, 1, "--compare: " + name)
        self.assert_one_line(self.bench("--compare", "none", "call", target, "s", "echo"), 1, "none")
        self.assertEqual(self.seen(), 0)

    def test_bench_looks_at_its_files_before_it_measures(self):
        target = self.target()
        for option in ("--json", "--csv", "--hgrm"):
            done = self.bench(option, "no/such/folder", "call", target, "s", "echo")
            self.assert_one_line(done, 1, "no/such/folder")
        self.assertEqual(self.seen(), 0)


class LocalTest(BenchCase):
    def assert_counts(self, report, count):
        result = report["result"]
        self.assertEqual((result["calls"], result["ok"], result["errors"]), (count, count, 0))
        self.assertGreater(result["p50_ns"], 0)
        self.assertLessEqual(result["p99_ns"], result["max_ns"])

    def test_bench_measures_between_two_nodes_of_its_own(self):
        report = self.measured("--local", "-n", "2003")
        self.assert_counts(report, 2003)
        self.assertEqual(report["result"]["bytes_out"], 2003 * 64)
        self.assertEqual(report["result"]["bytes_in"], 2003 * 64)
        self.assertGreater(report["result"]["cpu_bench_a_s"], 0)
        self.assertGreater(report["result"]["cpu_bench_b_s"], 0)
        self.assertEqual(report["workload"]["target"], "local")

    def test_bench_measures_inside_one_node(self):
        report = self.measured("--local=one", "-n", "2003", "--set", "workers=1")
        self.assert_counts(report, 2003)
        self.assertIsNone(report["result"]["cpu_bench_b_s"])

    def test_bench_measures_sends_and_sizes_between_its_nodes(self):
        self.assert_counts(self.measured("--local", "send", "-n", "503", "-s", "1..1k"), 503)
        self.assert_counts(self.measured("--local", "-n", "4", "-c", "2", "-s", "17MiB"), 4)

    def test_bench_measures_its_nodes_on_a_schedule(self):
        for where, what in (("--local", "call"), ("--local=one", "send")):
            report = self.measured(where, what, "-r", "1k", "-n", "203")
            self.assertEqual(report["result"]["calls"] + report["result"]["missed"], 203)
            self.assertGreater(report["result"]["ok"], 150)
            self.assertGreaterEqual(report["result"]["seconds"], 0.2)
            self.assertEqual(report["workload"]["loop"], "open")

    def test_bench_counts_latency_between_its_nodes_from_the_intended_start(self):
        process = self.start_bench("--local=one", "-r", "500", "-n", "500", "--json",
                                   "report.json")
        wait_until(lambda: len(processes_of_session(process.pid)) == 2, "the node has been started")
        time.sleep(0.2)                 # somewhere in the second that the run takes
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.4)
        process.send_signal(signal.SIGCONT)
        status, _, err = self.end_bench(process)
        self.assertEqual(status, 0, err)
        self.assertGreater(self.report()["result"]["p90_ns"], 200e6)

    def test_bench_runs_its_nodes_for_a_time_after_a_warm_up(self):
        report = self.measured("--local=one", "-d", "300ms", "-w", "100ms", "-c", "2")
        self.assertAlmostEqual(report["result"]["seconds"], 0.3, delta=0.05)
        self.assertGreater(report["result"]["ok"], 100)

    def start_watched(self, *args):
        """A run without end whose nodes have consoles."""
        return self.start_bench("--local", "-d", "60", "-w", "0", "--json", "report.json", "--set",
                                "admin=%s/%%s.sock" % self.dir, *args)

    def watch(self, node, verb):
        """What the console of a node says; nothing while there is none."""
        done = subprocess.run([program("evpt-ctl"), "-s", self.path(node + ".sock"), "--json", verb],
                              capture_output=True, text=True, env=environment(), check=False)
        return json.loads(done.stdout) if done.returncode == 0 else []

    def messages(self, node="bench_b"):
        return {entry["name"]: entry["messages"] for entry in self.watch(node, "services")
                if entry["name"].startswith("bench_echo")}

    def end_watched(self, process):
        process.send_signal(signal.SIGINT)
        status, out, err = self.end_bench(process)
        self.assertEqual((status, err), (0, ""))
        return self.report(), out

    def test_bench_calls_each_of_its_services_in_turn(self):
        process = self.start_watched("--services", "5")

        def all_called():
            messages = self.messages()
            return messages if messages and min(messages.values()) > 200 else None
        messages = wait_until(all_called, "calls of each service")
        self.assertEqual(set(messages), {"bench_echo_%d" % i for i in range(1, 6)})
        self.assertLess(max(messages.values()) - min(messages.values()), 64 + 5)  # in flight
        report, out = self.end_watched(process)
        self.assertEqual(report["workload"]["services"], 5)
        self.assertEqual(report["result"]["errors"], 0)
        self.assertIn("to 5 services in turn", out)
        self.assert_counts(self.measured("--local=one", "--services", "7", "-n", "700"), 700)

    def test_bench_keeps_calls_in_flight_to_each_of_its_peers(self):
        process = self.start_watched("--peers", "6", "-c", "12")

        def all_connected():
            nodes = [node for node in self.watch("bench_a", "nodes") if node["name"] != "bench_a"]
            return nodes if nodes and all(n["status"] == "connected" for n in nodes) else None
        nodes = wait_until(all_connected, "a connection to each peer")
        self.assertEqual({node["name"] for node in nodes}, {"bench_b_%d" % i for i in range(1, 7)})
        self.assertLessEqual(max(node["session2context"] for node in nodes), 2)
        self.assertEqual(len({node["address"] for node in nodes}), 6)
        report, out = self.end_watched(process)
        self.assertEqual(report["workload"]["peers"], 6)
        self.assertEqual(report["result"]["errors"], 0)
        self.assertGreaterEqual(report["result"]["ok"], 12)
        self.assertIsNone(report["result"]["cpu_bench_b_s"])
        self.assertIn("to 6 peers", out)
        self.assert_counts(self.measured("--local", "--peers", "3", "-n", "300", "-s", "100k"), 300)

    def test_bench_makes_long_calls_beside(self):
        process = self.start_watched("--beside", "300k", "-c", "1")
        wait_until(lambda: self.messages().get("bench_echo_beside", 0) > 20 and
                   self.messages()["bench_echo"] > 20, "both loads")
        report, out = self.end_watched(process)
        result = report["result"]
        self.assertEqual((report["workload"]["beside"], result["errors"]), (300000, 0))
        self.assertAlmostEqual(result["beside_bytes_per_second"] / 600000,
                               result["beside_calls_per_second"], places=1)
        self.assertGreater(result["beside_calls_per_second"] * result["seconds"], 15)
        self.assertRegex(out, r"beside +[\d,]+ calls/s of 300 kB")
        self.assertIsNone(self.measured("--local", "-n", "10")["result"]["beside_calls_per_second"])

    def test_bench_tells_the_memory_of_its_nodes(self):
        small = self.measured("--local", "-n", "100")["result"]
        large = self.measured("--local", "-n", "100", "--services", "200")["result"]
        grown = large["memory_bench_b_bytes"] - small["memory_bench_b_bytes"]
        if not sanitized():     # 30 KiB each
            self.assertTrue(199 * 10e3 < grown < 199 * 100e3, grown)
        self.assertGreater(small["memory_bench_a_bytes"], 1e6)

    def test_bench_tells_what_its_nodes_did_not_like(self):
        self.assert_one_line(self.bench("--local", "--set", "nonsense=1"), 1, "nonsense")

    def wait_for_nodes(self, process):
        """Until the two nodes are under load; their pids."""
        def children():
            pids = [pid for pid in processes_of_session(process.pid) if pid != process.pid]
            return pids if len(pids) == 2 and all(map(busy, pids)) else None

        def busy(pid):
            stat = read_file("/proc/%d/stat" % pid)
            fields = stat[stat.rindex(")") + 2:].split()
            return int(fields[11]) + int(fields[12]) > 10   # ticks of 10 ms
        return wait_until(children, "two nodes under load")

    def test_bench_stops_its_nodes_on_ctrl_c(self):
        process = self.start_bench("--local", "-d", "60", "-w", "0", "--json", "report.json")
        self.wait_for_nodes(process)
        os.killpg(process.pid, signal.SIGINT)       # what a terminal does
        status, _, err = self.end_bench(process)
        self.assertEqual((status, err), (0, ""))
        report = self.report()
        self.assertIs(report["interrupted"], True)
        self.assertGreater(report["result"]["ok"], 100)

    def test_bench_tells_when_one_of_its_nodes_ends(self):
        process = self.start_bench("--local", "-d", "60", "-w", "0")
        victim = self.wait_for_nodes(process)[0]
        os.kill(victim, signal.SIGKILL)
        status, _, err = self.end_bench(process)
        self.assertEqual(status, 1)
        self.assertRegex(err, r"\Aevpt-bench: --local: [^\n]+\n\Z")

    def test_bench_that_is_killed_leaves_no_process_behind(self):
        process = self.start_bench("--local", "-d", "60", "-w", "0")
        self.wait_for_nodes(process)
        process.kill()
        process.wait()
        wait_until(lambda: processes_of_session(process.pid) == [], "the nodes end too")
        # a folder is what SIGKILL leaves
        for folder in os.listdir(self.path("tmp")):
            self.assertRegex(folder, r"\Aevpt-bench-\w+\Z")


if __name__ == "__main__":
    unittest.main()
