"""The service manager: what the node tells it, on a real socket, and when; the unit for systemd.

What systemd does with it is sd_notify(3)'s and systemd.service(5)'s: here the test holds the socket."""

import os
import select
import shutil
import signal
import socket
import subprocess
import time

import wire
from evptnode import NodeCase, PATIENCE, address_text, program, read_file, write_file

SPIN = """
evpt.export {
    spin = function() print("spinning") while true do end end,
    echo = function(...) return ... end,
}
"""
# Waits in __main__ until the test makes a file.
HELD = """
function __main__()
    print("held")
    while not io.open("go") do evpt.sleep(5) end
end
"""
UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                    "../../contrib/systemd/evpt@.service.in")


class Manager:
    """The manager's end of the socket."""

    def __init__(self, name):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self.name = name

    def message(self, patience=PATIENCE):
        """The next one as {key: value}; None where none comes."""
        if not select.select([self.sock], [], [], patience)[0]:
            return None
        text = self.sock.recv(65536).decode()
        lines = text.split("\n")
        assert all("=" in line for line in lines), text
        return dict(line.split("=", 1) for line in lines)

    def until(self, key, value="1"):
        """Skips signs of life until a message says so; returns it."""
        while True:
            message = self.message()
            assert message is not None, "waited in vain for %s=%s" % (key, value)
            if message.get(key) == value:
                return message
            assert message == {"WATCHDOG": "1"}, message

    def close(self):
        self.sock.close()
        if not self.name.startswith("@"):
            os.unlink(self.name)


class ManagerCase(NodeCase):
    def managed(self, script=SPIN, name="game_1", socket_name=None, watchdog_usec=None, **options):
        """A node, not started yet, and its manager."""
        manager = Manager(socket_name or os.path.join(self.folder.path, "notify_" + name))
        self.addCleanup(manager.close)
        node = self.node(name, script, start=False, **options)
        node.environment["NOTIFY_SOCKET"] = manager.name
        if watchdog_usec:
            node.environment["WATCHDOG_USEC"] = str(watchdog_usec)
        return node, manager


class NotifyTest(ManagerCase):
    def test_ready_comes_when_the_port_is_open_and_not_before(self):
        node, manager = self.managed(HELD)
        node.expected_files.add("go")
        node.start(wait=False)
        self.assertIsNone(manager.message(0.3))     # it waits in __main__
        write_file(node.path("go"), "")
        message = manager.message()
        wire.connect(node.address).close()          # at once, without a second attempt
        self.assertEqual(message, {"READY": "1",
                                   "STATUS": "listening on " + address_text(node.address)})
        node.stop()
        self.assertEqual(manager.message(), {"STOPPING": "1", "STATUS": "draining"})
        self.assertIsNone(manager.message(0))

    def test_abstract_socket(self):
        node, manager = self.managed(socket_name="@evpt-test-%d" % os.getpid())
        node.start(wait=False)
        self.assertEqual(manager.message()["READY"], "1")
        node.stop()
        self.assertEqual(manager.message()["STOPPING"], "1")

    def test_stop_by_the_console_is_told_before_services_stop(self):
        node, manager = self.managed("evpt.on_stop(function()"
                                     " while not io.open('go') do evpt.sleep(5) end end)")
        node.expected_files.add("go")
        node.start()
        manager.until("READY")
        self.assertEqual(node.ctl("stop").returncode, 0)
        manager.until("STOPPING")
        self.assertTrue(node.running())
        write_file(node.path("go"), "")
        self.assertEqual(node.wait_end(), 0)

    def test_reload_is_told_with_its_time_and_its_end(self):
        node, manager = self.managed()
        node.start()
        manager.until("READY")
        for text in (None, "game_1 = 17\n"):        # a good list, and one that is refused
            if text:
                write_file(node.path("clustername.lua"), text)
            before = time.monotonic_ns() // 1000
            node.signal(signal.SIGHUP)
            message = manager.until("RELOADING")
            self.assertLessEqual(before, int(message["MONOTONIC_USEC"]))
            self.assertLessEqual(int(message["MONOTONIC_USEC"]), time.monotonic_ns() // 1000)
            self.assertNotIn("READY", message)
            manager.until("READY")
        self.assertEqual(len(node.wait_log("reload refused")), 1)

    def test_reload_before_the_start_is_over_does_not_say_ready(self):
        node, manager = self.managed(HELD)
        node.expected_files.add("go")
        node.start(wait=False)
        node.wait_log("held")
        node.signal(signal.SIGHUP)
        node.wait_log("node list reloaded")
        self.assertIsNone(manager.message(0))
        write_file(node.path("go"), "")
        self.assertEqual(manager.message()["READY"], "1")
        self.assertIsNone(manager.message(0))

    def test_failed_start_is_a_status_and_never_ready(self):
        node, manager = self.managed("error('not today')")
        done = subprocess.run([program("evpt"), "game_1"], cwd=node.folder, capture_output=True,
                              env=dict(os.environ, **node.environment), timeout=PATIENCE,
                              check=False)
        self.assertEqual(done.returncode, 1)
        message = manager.message()
        self.assertEqual(list(message), ["STATUS"])
        self.assertIn("not today", message["STATUS"])
        self.assertIsNone(manager.message(0))

    def test_a_socket_that_nobody_reads_costs_one_warning(self):
        for name in ("/nosuch/folder/notify", "@nobody-%d" % os.getpid(), "@", "x" * 200):
            with self.subTest(name):
                node = self.node("game_%d" % len(name), start=False)
                node.environment["NOTIFY_SOCKET"] = name
                node.start()
                node.signal(signal.SIGHUP)
                node.wait_log("node list reloaded")
                node.stop()
                self.assertEqual(len(node.log_lines("cannot tell the service manager")), 1)

    def test_without_a_manager_nothing_is_said(self):
        node = self.node()
        node.stop()
        self.assertEqual(node.log_lines("service manager"), [])

    def test_what_services_start_does_not_inherit_the_socket(self):
        node, _ = self.managed("""evpt.export { env = function()
            local pipe = io.popen("env") local text = pipe:read("a") pipe:close() return text
        end }""", watchdog_usec=10 ** 7)
        node.environment["MARK"] = "here"
        node.start()
        text, = node.ask("s", "env")
        self.assertIn("MARK=here", text)
        self.assertNotIn("NOTIFY_SOCKET", text)
        self.assertNotIn("WATCHDOG", text)


class WatchdogTest(ManagerCase):
    def signs(self, manager, seconds):
        """How many signs of life came in that time, and the longest time without one."""
        count, longest, began = 0, 0, time.monotonic()
        last = began
        while time.monotonic() < began + seconds:
            if manager.message(began + seconds - time.monotonic()) == {"WATCHDOG": "1"}:
                count += 1
                longest = max(longest, time.monotonic() - last)
                last = time.monotonic()
        return count, longest

    def test_signs_of_life_come_twice_in_the_time(self):
        for workers in (0, 2):
            node, manager = self.managed(name="game_%d" % workers, watchdog_usec=400000,
                                         config={"workers": workers})
            node.start(wait=False)
            manager.until("READY")
            count, longest = self.signs(manager, 2)
            self.assertGreaterEqual(count, 5)       # ten at best, on a machine that has time
            self.assertLessEqual(count, 12)
            self.assertLess(longest, 1)

    def test_a_stuck_handler_does_not_stop_them(self):
        node, manager = self.managed(watchdog_usec=200000,
                                     config={"workers": 1, "stop_timeout_ms": 300})
        node.drains = False
        node.expected_files.add("run/game_1.sock")
        node.start()
        manager.until("READY")
        node.client().post("s", "spin")
        node.wait_log("spinning")
        self.signs(manager, 0.3)                    # that were on their way
        self.assertGreaterEqual(self.signs(manager, 1)[0], 3)

    def test_they_end_where_nobody_is_served_any_more(self):
        node, manager = self.managed(watchdog_usec=200000,
                                     config={"workers": 0, "stop_timeout_ms": 300})
        node.drains = False
        node.expected_files.add("run/game_1.sock")
        node.start()
        manager.until("READY")
        manager.until("WATCHDOG")
        node.client().post("s", "spin")
        node.wait_log("workers hang", count=2)
        while manager.message(0):                   # what came before
            pass
        self.assertIsNone(manager.message(0.5))
        node.wait_log("workers hang", count=4)

    def test_a_watchdog_for_another_process_is_not_ours(self):
        node, manager = self.managed(watchdog_usec=100000)
        node.environment["WATCHDOG_PID"] = "1"
        node.start()
        manager.until("READY")
        self.assertIsNone(manager.message(0.5))

    def test_a_watchdog_that_names_us_is_ours(self):
        node, manager = self.managed(watchdog_usec=200000)
        log = open(node.path("stderr.1"), "ab")
        node.runs, node.log_path = 1, node.path("stderr.1")
        node.process = subprocess.Popen(
            ["sh", "-c", "WATCHDOG_PID=$$ exec '%s' game_1" % program("evpt")], cwd=node.folder,
            env=dict(os.environ, **node.environment), stdout=log, stderr=log,
            start_new_session=True)
        log.close()
        manager.until("READY")
        manager.until("WATCHDOG")

    def test_nonsense_is_no_watchdog(self):
        for i, text in enumerate(("0", "-1", "5s", "", "99999999999999999999999")):
            with self.subTest(text):
                node, manager = self.managed(name="game_%d" % i)
                node.environment["WATCHDOG_USEC"] = text
                node.start()
                manager.until("READY")
                self.assertIsNone(manager.message(0.2))


class UnitTest(NodeCase):
    def verify(self, folder):
        """systemd's opinion of the unit, with that folder as the place of the program."""
        unit = os.path.join(self.folder.path, "units", "evpt@.service")
        write_file(unit, read_file(UNIT).replace("@bindir@", folder))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit.replace("@", "@game_1")],
            capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, [line for line in done.stderr.splitlines() if "evpt" in line]

    def test_systemd_understands_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze here")
        self.assertEqual(self.verify(os.path.dirname(program("evpt"))), (0, []))
        status, complaints = self.verify("/nosuch/folder")
        self.assertNotEqual((status, complaints), (0, []))      # it does look

    def test_command_of_the_unit_starts_a_node(self):
        """ExecStart, with what systemd puts in, run as systemd would."""
        node = self.node(script=SPIN, start=False)
        line = [line for line in read_file(UNIT).splitlines() if line.startswith("ExecStart=")][0]
        command = line[len("ExecStart="):].replace("@bindir@", os.path.dirname(program("evpt")))
        command = command.replace("/run/evpt-%i/", node.path("run/")).replace("%i", "game_1")
        command = command.replace("%%", "%")
        name, *args = command.split()
        self.assertEqual(name, program("evpt"))
        node.start(*args[:-1])
        self.assertEqual(node.ask("s", "echo", 1), [1])
        node.stop()
