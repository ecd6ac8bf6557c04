"""The HTTP address of `metrics`: the figures, health and readiness, and clients of all manners.

With promtool and prometheus (Debian's package `prometheus`) in the PATH the format is checked by
promtool and a real Prometheus scrapes; without them those tests say so and are left out."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import unittest
import urllib.request

import wire
from evptnode import NodeCase, PATIENCE, address_text, fresh_address, wait_until, write_file

SCRIPT = """
evpt.export {
    echo = function(...) return ... end,
    sleep = function(ms) evpt.sleep(ms) end,
    spin = function(ms)
        print("spinning")
        local until_ms = evpt.now() + ms
        while evpt.now() < until_ms do end
    end,
    fail = function() error("on purpose") end,
    call = function(node, method, ...) return (cluster.try(node, "s", method, ...)) end,
    log = function(level) evpt.log[level]("said") end,
}
"""

LINE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\d+(?:\.\d+)?)$')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)",?')
MONITORING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/monitoring")


class Page:
    """A page of metrics: every line is understood, and families are in order."""

    def __init__(self, text):
        self.samples, self.types = {}, {}
        family = None
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ")[2]
                assert family not in self.types, "twice: " + family
                assert len(line.split(" ", 3)[3]) > 4, line
            elif line.startswith("# TYPE "):
                assert line.split(" ")[2] == family, line
                self.types[family] = line.split(" ")[3]
            else:
                name, labels, value = LINE.match(line).groups()
                assert name == family or (self.types[family] == "histogram" and name in (
                    family + "_bucket", family + "_sum", family + "_count")), line
                key = name, frozenset(LABEL.findall(labels or ""))
                assert key not in self.samples, line
                self.samples[key] = float(value)

    def get(self, name, **labels):
        return self.samples.get((name, frozenset(labels.items())))

    def names(self):
        return {name for name, _ in self.samples}

    def all(self, name):
        return {tuple(sorted(labels)): value for (n, labels), value in self.samples.items()
                if n == name}


class MetricsCase(NodeCase):
    def watched(self, name="game_1", script=SCRIPT, **options):
        """A node with metrics on an address of its own."""
        self.metrics_address = fresh_address()
        options["config"] = dict(options.get("config", {}),
                                 metrics=address_text(self.metrics_address))
        node = self.node(name, script, **options)
        node.metrics = self.metrics_address
        return node

    def get(self, node, path, method="GET"):
        """(status, body, headers)"""
        connection = http.client.HTTPConnection(*node.metrics, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def page(self, node):
        status, text, headers = self.get(node, "/metrics")
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        return Page(text)

    def raw(self, node, data, patience=PATIENCE):
        """What the server says to these bytes until it closes."""
        with socket.create_connection(node.metrics, timeout=patience) as sock:
            sock.sendall(data)
            got = b""
            while True:
                more = sock.recv(65536)
                if not more:
                    return got
                got += more


class MetricsTest(MetricsCase):
    def test_nothing_listens_unless_it_is_configured(self):
        node = self.node(script=SCRIPT)
        listening = subprocess.run(["cat", "/proc/%d/net/tcp" % node.pid], check=True,
                                   capture_output=True, text=True).stdout
        inodes = {os.readlink("/proc/%d/fd/%s" % (node.pid, fd))
                  for fd in os.listdir("/proc/%d/fd" % node.pid)}
        own = [line.split() for line in listening.splitlines()[1:]
               if "socket:[%s]" % line.split()[9] in inodes and line.split()[3] == "0A"]
        self.assertEqual(len(own), 1, own)      # the cluster's port

    def test_port_0_is_chosen_by_the_system_and_told(self):
        node = self.node(script=SCRIPT, config={"metrics": "127.0.0.1:0"})
        line = node.wait_log(r"metrics on http://127\.0\.0\.1:\d+/metrics")[0]
        with urllib.request.urlopen(re.search(r"http://\S+", line).group(0)) as answer:
            self.assertEqual(answer.status, 200)

    def test_address_in_use_stops_the_start_with_one_line(self):
        with socket.socket() as sock:
            sock.bind(fresh_address())
            sock.listen()
            node = self.node(script=SCRIPT, start=False)
            done = self.evpt("-s", "metrics=%s" % address_text(sock.getsockname()), "game_1",
                             cwd=node.folder)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr, "evpt: evpt.lua: metrics: cannot listen on %s: "
                             "Address already in use\n" % address_text(sock.getsockname()))
            self.assertFalse(os.path.exists(node.admin))

    def test_pages_of_an_idle_node(self):
        node = self.watched()
        page = self.page(node)
        self.assertEqual(page.get("evpt_info", version=self.evpt("--version").stdout.split()[1],
                                  node="game_1"), 1)
        self.assertEqual(page.get("evpt_ready"), 1)
        self.assertEqual(page.get("evpt_cluster_loop_answers"), 1)
        self.assertEqual(page.get("evpt_workers"), 2)
        self.assertEqual(page.get("evpt_services", kind="s"), 1)
        self.assertGreater(page.get("evpt_lua_memory_bytes", kind="s"), 10000)
        self.assertEqual(self.get(node, "/healthz")[:2], (200, "alive\n"))
        self.assertEqual(self.get(node, "/readyz")[:2], (200, "ready\n"))
        self.assertEqual(self.get(node, "/")[0], 404)
        self.assertEqual(self.get(node, "/metrics/")[0], 404)
        self.assertEqual(self.get(node, "/metrics?a=b")[0], 200)

    def test_process_figures_are_those_of_the_system(self):
        node = self.watched()
        page = self.page(node)
        self.assertAlmostEqual(page.get("process_resident_memory_bytes") / 1024,
                               node.memory_kib(), delta=0.2 * node.memory_kib())
        self.assertEqual(page.get("process_threads"),
                         len(os.listdir("/proc/%d/task" % node.pid)))
        fds = len(os.listdir("/proc/%d/fd" % node.pid))
        self.assertIn(page.get("process_open_fds") - fds, (0, 1))   # the scrape's own connection
        self.assertGreater(page.get("process_cpu_seconds_total"), 0)
        started = page.get("process_start_time_seconds")
        self.assertAlmostEqual(started, os.stat("/proc/%d" % node.pid).st_mtime, delta=2)
        self.assertAlmostEqual(self.page(node).get("process_start_time_seconds"), started,
                               delta=0.1)

    def test_calls_are_counted_by_peer_and_outcome(self):
        node = self.watched()
        self.address("absent_1")
        battle = self.node("battle_1", SCRIPT)
        node.write_list(dict(node.addresses, **self.folder.addresses))
        node.ctl("reload")
        for _ in range(7):
            self.assertEqual(node.ask("s", "call", "battle_1", "echo", 1), [0])
        self.assertEqual(node.ask("s", "call", "battle_1", "fail"), [wire.FAILED])
        self.assertEqual(node.ask("s", "call", "battle_1", "sleep", 60), [0])
        self.assertEqual(node.ask("s", "call", "absent_1", "echo"), [wire.CONNECT_FAILED])
        page = self.page(node)
        self.assertEqual(page.get("evpt_calls_total", peer="battle_1", outcome="ok"), 8)
        self.assertEqual(page.get("evpt_calls_total", peer="battle_1", outcome="failed"), 1)
        self.assertEqual(page.get("evpt_calls_total", peer="absent_1", outcome="connect_failed"), 1)
        self.assertEqual(page.get("evpt_call_duration_seconds_count", peer="battle_1"), 9)
        self.assertEqual(page.get("evpt_call_duration_seconds_bucket", peer="battle_1", le="+Inf"),
                         9)
        self.assertLessEqual(page.get("evpt_call_duration_seconds_bucket", peer="battle_1",
                                      le="0.05"), 8)
        self.assertGreaterEqual(page.get("evpt_call_duration_seconds_sum", peer="battle_1"), 0.06)
        self.assertEqual(page.get("evpt_peer_connected", peer="battle_1"), 1)
        self.assertEqual(page.get("evpt_peer_connects_total", peer="battle_1"), 1)
        self.assertEqual(page.get("evpt_peer_connected", peer="absent_1"), 0)
        self.assertEqual(page.get("evpt_peer_connect_failures_total", peer="absent_1"), 1)
        self.assertEqual(page.get("evpt_calls_in_flight", peer="battle_1"), 0)
        self.assertEqual(page.get("evpt_reloads_total", result="applied"), 1)
        self.assertEqual(page.get("evpt_connections", direction="out"), 1)
        battle.stop()
        wait_until(lambda: self.page(node).get("evpt_peer_disconnects_total", peer="battle_1") == 1,
                   "the lost connection")

    def test_calls_in_flight_and_requests_in_progress(self):
        node = self.watched()
        client = node.client()
        session = client.start("s", "sleep", 300)
        wait_until(lambda: self.page(node).get("evpt_requests_in_progress") == 1, "in progress")
        self.assertGreaterEqual(self.page(node).get("evpt_coroutines", kind="s"), 1)
        self.assertEqual(client.reply(session).code, wire.OK)
        self.assertEqual(self.page(node).get("evpt_requests_in_progress"), 0)
        self.assertGreaterEqual(self.page(node).get("evpt_requests_total"), 1)

    def test_handlers_are_timed_by_kind(self):
        node = self.watched(scripts={"s": SCRIPT}, services=[
            {1: "s", "name": "a"}, {1: "s", "name": "b"}], script="")
        for name in "ab":
            for _ in range(5):
                node.ask(name, "echo")
            node.ask(name, "sleep", 120)
            node.ask(name, "spin", 30)
            self.assertEqual(node.client().call(name, "fail").code, wire.FAILED)
        # the last one is counted when its run is over, a moment after its answer
        page = wait_until(lambda: [page for page in [self.page(node)] if page.get(
            "evpt_handler_duration_seconds_count", kind="s") == 16], "16 handlers")[0]

        def below(bound):
            return page.get("evpt_handler_duration_seconds_bucket", kind="s", le=bound)
        life = 2 * 2    # .start and .after_init of each
        self.assertEqual(page.get("evpt_services", kind="s"), 2)
        self.assertEqual(below("+Inf") - below("0.1"), 2)       # sleep
        self.assertGreaterEqual(below("+Inf") - below("0.025"), 4)      # and spin
        self.assertGreaterEqual(below("0.025"), 10)
        self.assertGreaterEqual(page.get("evpt_handler_duration_seconds_sum", kind="s"), 0.3)
        self.assertGreaterEqual(page.get("evpt_messages_total", kind="s"), 16 + life)
        run = page.get("evpt_run_seconds_total", kind="s")
        self.assertGreaterEqual(run, 0.05)                      # spin runs, sleep does not
        self.assertLess(run, page.get("evpt_handler_duration_seconds_sum", kind="s"))

    def test_mailboxes_show_how_full_they_are(self):
        node = self.watched(config={"workers": 1, "mailbox_max": 10})
        client = node.client()
        busy = client.start("s", "spin", 400)
        node.wait_log("spinning")
        calls = [client.start("s", "echo") for _ in range(14)]
        wait_until(lambda: self.page(node).get("evpt_messages_refused_total", kind="s") == 4,
                   "a full mailbox")
        page = self.page(node)
        self.assertEqual(page.get("evpt_mailbox_fullest_messages", kind="s"), 10)
        self.assertEqual(page.get("evpt_mailbox_messages", kind="s"), 10)
        self.assertEqual(page.get("evpt_mailbox_limit_messages"), 10)
        codes = [client.reply(session).code for session in calls]
        self.assertEqual(codes.count(wire.OVERLOADED), 4)
        self.assertEqual(client.reply(busy).code, wire.OK)
        self.assertEqual(self.page(node).get("evpt_mailbox_messages", kind="s"), 0)

    def test_counters_outlive_services_and_only_rise(self):
        node = self.watched(scripts={"s": SCRIPT + """
            evpt.methods { die = function() evpt.exit() end }
            evpt.export { child = function()
                local handle = evpt.start("s")
                for i = 1, 10 do evpt.call(handle, "echo") end
                evpt.kill(handle)
            end }"""}, script="")
        before = self.page(node)
        for _ in range(5):
            node.ask("s", "child")
        wait_until(lambda: self.page(node).get("evpt_services", kind="s") == 1, "the ends")
        after = self.page(node)
        self.assertGreaterEqual(after.get("evpt_handler_duration_seconds_count", kind="s"), 55)
        for (name, labels), value in before.samples.items():
            if name.endswith(("_total", "_bucket", "_count")):
                self.assertGreaterEqual(after.samples[name, labels], value, name)

    def test_log_lines_are_counted_by_level(self):
        node = self.watched()
        before = self.page(node)
        for level in ("debug", "info", "warn", "error", "error"):
            node.ask("s", "log", level)
        page = self.page(node)
        for level, count in (("debug", 0), ("info", 1), ("warn", 1), ("error", 2)):
            self.assertEqual(page.get("evpt_log_lines_total", level=level),
                             before.get("evpt_log_lines_total", level=level) + count, level)

    def test_refused_reloads_are_counted(self):
        node = self.watched()
        write_file(node.path("clustername.lua"), "game_1 = 17\n")
        self.assertEqual(node.ctl("reload").returncode, 1)
        node.signal(signal.SIGHUP)
        wait_until(lambda: self.page(node).get("evpt_reloads_total", result="refused") == 2,
                   "two refusals")
        self.assertEqual(self.page(node).get("evpt_reloads_total", result="applied"), 0)

    def test_loops_are_measured(self):
        node = self.watched(config={"workers": 0})
        node.ask("s", "spin", 60)       # without workers a handler holds up the loop
        page = self.page(node)
        slow = page.get("evpt_loop_iteration_seconds_count", loop="cluster") - \
            page.get("evpt_loop_iteration_seconds_bucket", loop="cluster", le="0.05")
        self.assertGreaterEqual(slow, 1)
        self.assertGreater(page.get("evpt_loop_iteration_seconds_count", loop="main"), 0)

    def test_metrics_and_health_of_a_node_whose_loop_hangs(self):
        node = self.watched(config={"workers": 0, "stop_timeout_ms": 300})
        self.assertEqual(self.get(node, "/healthz")[0], 200)
        node.client().post("s", "spin", 10 ** 9)
        wait_until(lambda: self.get(node, "/healthz")[0] == 503, "the hanging loop")
        page = self.page(node)
        self.assertEqual(page.get("evpt_cluster_loop_answers"), 0)
        self.assertIsNone(page.get("evpt_requests_in_progress"))
        self.assertGreater(page.get("evpt_requests_total"), 0)
        node.drains = False
        node.expected_files.add("run/game_1.sock")

    def test_a_stuck_handler_is_one_services_trouble(self):
        node = self.watched(config={"workers": 1, "stop_timeout_ms": 300})
        node.drains = False
        node.client().post("s", "spin", 10 ** 9)
        wait_until(lambda: self.page(node).get("evpt_mailbox_messages", kind="s") == 0 and
                   self.page(node).get("evpt_requests_total") >= 1, "it spins")
        for _ in range(3):
            self.assertEqual(self.get(node, "/healthz")[0], 200)
        node.expected_files.add("run/game_1.sock")

    def test_ready_only_between_start_and_stop(self):
        node = self.watched(start=False, script="""
            local go = false
            function __main__()
                while not io.open("go") do evpt.sleep(5) end
            end
            evpt.on_stop(function()
                while not io.open("gone") do evpt.sleep(5) end
            end)""")
        node.expected_files |= {"go", "gone"}
        node.start(wait=False)
        node.wait_log("metrics on")
        self.assertEqual(self.get(node, "/readyz")[:2], (503, "starting\n"))
        self.assertEqual(self.get(node, "/healthz")[0], 200)
        self.assertEqual(self.page(node).get("evpt_ready"), 0)
        write_file(node.path("go"), "")
        wait_until(lambda: self.get(node, "/readyz")[0] == 200, "ready")
        node.signal(signal.SIGTERM)
        node.wait_log("draining")
        self.assertEqual(self.get(node, "/readyz")[:2], (503, "draining\n"))
        write_file(node.path("gone"), "")
        self.assertEqual(node.wait_end(), 0)


class HttpTest(MetricsCase):
    def test_each_mistake_gets_its_answer_and_nothing_is_disturbed(self):
        node = self.watched()
        for data, status in (
                (b"nonsense\r\n\r\n", 400), (b"GET /metrics\r\n\r\n", 400),
                (b"GET /metrics HTTP/1.1\r\n\r\n", 400), (b"\0\1\2\3", 400),
                (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405),
                (b"GET /%s HTTP/1.1\r\n" % (b"x" * 3000), 414),
                (b"GET / HTTP/1.1\r\nX: %s\r\n" % (b"x" * 9000), 431),
                (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100, 431),
                (b"GET / HTTP/2.0\r\n\r\n", 505)):
            got = self.raw(node, data).decode()
            self.assertTrue(got.startswith("HTTP/1.1 %d " % status), (data[:40], got[:80]))
            self.assertIn("\r\nConnection: close\r\n", got)
            self.assertEqual(got.count("HTTP/1.1"), 1)
        self.assertEqual(self.get(node, "/metrics")[0], 200)
        self.assertEqual(node.ask("s", "echo", 1), [1])

    def test_slow_client_times_out(self):
        node = self.watched()
        got = self.raw(node, b"GET /metrics HT")
        self.assertTrue(got.startswith(b"HTTP/1.1 408 "), got)

    def test_connections_beyond_the_limit_do_not_pile_up(self):
        node = self.watched()
        before = len(os.listdir("/proc/%d/fd" % node.pid))
        crowd = [socket.create_connection(node.metrics) for _ in range(200)]
        for _ in range(3):      # who comes later is served: resting connections make room
            self.assertEqual(self.get(node, "/readyz")[0], 200)
        self.assertLessEqual(len(os.listdir("/proc/%d/fd" % node.pid)), before + 17)
        for sock in crowd:
            sock.close()

    def test_one_connection_for_many_pages(self):
        node = self.watched()
        connection = http.client.HTTPConnection(*node.metrics, timeout=PATIENCE)
        self.addCleanup(connection.close)
        for path, status in (("/metrics", 200), ("/readyz", 200), ("/no", 404), ("/metrics", 200)):
            connection.request("GET", path)
            sock = connection.sock
            answer = connection.getresponse()
            answer.read()
            self.assertEqual(answer.status, status)
            self.assertIs(connection.sock, sock)
        connection.request("HEAD", "/metrics")
        answer = connection.getresponse()
        self.assertGreater(int(answer.headers["Content-Length"]), 5000)
        self.assertEqual(answer.read(), b"")

    def test_scrapes_do_not_disturb_calls(self):
        node = self.watched()
        self.node("battle_1", SCRIPT)
        node.write_list(self.folder.addresses)
        node.ctl("reload")
        for _ in range(50):
            self.assertEqual(node.ask("s", "call", "battle_1", "echo", 1), [0])
            self.page(node)
        page = self.page(node)
        self.assertEqual(page.get("evpt_calls_total", peer="battle_1", outcome="ok"), 50)


@unittest.skipUnless(shutil.which("promtool") and shutil.which("prometheus"),
                     "no promtool and prometheus here (Debian: apt-get install prometheus)")
class PrometheusTest(MetricsCase):
    def promtool(self, *args, text=None):
        return subprocess.run(["promtool", *args], input=text, capture_output=True, text=True,
                              timeout=60, check=False)

    def test_promtool_finds_nothing_to_complain_of(self):
        node = self.watched()
        self.node("battle_1", SCRIPT)
        node.write_list(self.folder.addresses)
        node.ctl("reload")
        node.ask("s", "call", "battle_1", "fail")
        done = self.promtool("check", "metrics", text=self.get(node, "/metrics")[1])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        bad = self.promtool("check", "metrics", text="evpt_calls 1\n# TYPE x_total gauge\nx_total 1\n")
        self.assertNotEqual(bad.returncode, 0)      # it would have

    def test_rules_are_valid_and_name_metrics_that_there_are(self):
        rules = os.path.join(MONITORING, "evpt.rules.yml")
        done = self.promtool("check", "rules", rules)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = self.promtool("test", "rules", os.path.join(MONITORING, "evpt.rules.test.yml"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_prometheus_scrapes(self):
        node = self.watched()
        node.ask("s", "echo")
        folder = node.path("prometheus")
        web = fresh_address()
        write_file(os.path.join(folder, "prometheus.yml"), """
global: { scrape_interval: 200ms, scrape_timeout: 200ms }
rule_files: [ %s ]
scrape_configs:
  - job_name: evpt
    static_configs: [ { targets: [ "%s" ] } ]
""" % (os.path.join(MONITORING, "evpt.rules.yml"), address_text(node.metrics)))
        server = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
             "--web.listen-address=" + address_text(web), "--log.level=warn"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def stop():
            server.terminate()
            server.wait()
            shutil.rmtree(folder)
        try:
            def query(text):
                try:
                    with urllib.request.urlopen("http://%s/api/v1/query?query=%s" % (
                            address_text(web), urllib.request.quote(text)), timeout=5) as answer:
                        return json.load(answer)["data"]["result"]
                except (OSError, ValueError):
                    return []
            wait_until(lambda: query("up == 1"), "a scrape that went well", patience=60)
            got = wait_until(lambda: query('evpt_handler_duration_seconds_count{kind="s"}'),
                             "a histogram", patience=60)
            self.assertEqual(got[0]["value"][1], "1")
            got = wait_until(lambda: query("histogram_quantile(0.99, sum by (le) (rate("
                                           "evpt_loop_iteration_seconds_bucket[5s])))"),
                             "a quantile", patience=60)
            self.assertGreater(float(got[0]["value"][1]), 0)
        finally:
            stop()


class DashboardTest(MetricsCase):
    """Dashboard and rules ask only for what a node tells."""

    def asked(self, text):
        return {re.sub("_(bucket|sum|count)$", "", name)
                for name in re.findall(r"\b((?:evpt|process)_[a-z_]+)", text)} - {"evpt_rules"}

    def test_expressions_name_metrics_that_there_are(self):
        node = self.watched()
        self.node("battle_1", SCRIPT)
        node.write_list(self.folder.addresses)
        node.ctl("reload")
        node.ask("s", "call", "battle_1", "fail")
        told = set(self.page(node).types)
        with open(os.path.join(MONITORING, "evpt-dashboard.json"), encoding="utf-8") as file:
            dashboard = json.load(file)
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 15)
        self.assertLessEqual(self.asked("\n".join(expressions)), told)
        with open(os.path.join(MONITORING, "evpt.rules.yml"), encoding="utf-8") as file:
            asked = self.asked("\n".join(line for line in file if "expr:" in line))
        self.assertGreater(len(asked), 8)
        self.assertLessEqual(asked, told)

    def test_every_metric_is_documented_and_no_other(self):
        node = self.watched()
        told = set(self.page(node).types)
        with open(os.path.join(MONITORING, "../operations.md"), encoding="utf-8") as file:
            text = file.read()
        table = text[text.index("## Metrics"):text.index("\n## ", text.index("## Metrics") + 5)]
        documented = set(re.findall(r"`((?:evpt|process)_[a-z_]+)", table))
        self.assertEqual(documented, told)


if __name__ == "__main__":
    unittest.main()
