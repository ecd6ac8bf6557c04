"""Nodes as a test sees them: processes with a folder, a log and an address. Nothing here waits for
a fixed time.

NodeCase    makes a temporary folder, starts nodes in it, and when the test is over stops them and
            checks that each ended in order, that no sanitizer spoke up, and that no process and no
            file stayed behind.
LabCase     two nodes for a whole class, each with the service `lab`, which runs the Lua text that a
            test sends.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import wire

PATIENCE = 20           # seconds after which something that should happen has failed to
HERE = os.path.dirname(os.path.abspath(__file__))
PRELUDE = 'local evpt, cluster = require "evpt", require "evpt.cluster" '
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|: runtime error: |"
                       r"Assertion .* failed")

# What a node logs of each connection that a test has made and closed: nothing to report.
CAME_AND_WENT = re.compile(r"connection from \S+ closed: closed by the peer$")


class settings:         # set by run.py
    build = os.path.join(HERE, "../../build/release")
    long = False


def program(name):
    """The path of a program in the build folder."""
    for folder in ("tools", "."):
        path = os.path.join(settings.build, folder, name)
        if os.path.exists(path):
            return os.path.abspath(path)
    raise FileNotFoundError("%s: no %s there; build first" % (settings.build, name))


def sanitized():
    """True where the node is built with ASan or TSan, whose shadow makes its size meaningless."""
    with open(program("evpt"), "rb") as file:
        return re.search(b"__asan_init|__tsan_init", file.read()) is not None


def has_tls():
    """False where evpt was built without."""
    with tempfile.TemporaryDirectory(prefix="evpt-node-") as folder:
        write_file(os.path.join(folder, "clustername.lua"), 'x = "127.0.0.1:1"')
        done = subprocess.run([program("evpt"), "--check", "-s", "tls.cert=x", "-s", "tls.key=x",
                               "-s", "tls.ca=x", "x"], cwd=folder, capture_output=True, text=True,
                              env=environment(), check=False)
    return "built without TLS" not in done.stderr


def environment():
    """What sanitizers need to know: an error is an exit status that a node never has by itself."""
    env = dict(os.environ, LC_ALL="C")
    env["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=1:abort_on_error=0"
    env["UBSAN_OPTIONS"] = "halt_on_error=1:exitcode=99:print_stacktrace=1"
    env["TSAN_OPTIONS"] = "exitcode=99:halt_on_error=0"
    return env


def wait_until(condition, what, patience=PATIENCE):
    """Polls until condition() is true, and returns what it gave."""
    until = time.monotonic() + patience
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > until:
            raise AssertionError("waited %d s in vain for: %s" % (patience, what))
        time.sleep(0.005)


class Lua(str):
    """A piece of Lua text that lua_literal() takes over as it is."""


def lua_literal(value):
    if isinstance(value, Lua):
        return str(value)
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    if isinstance(value, dict):
        return "{ %s }" % ", ".join("[%s] = %s" % (lua_literal(k), lua_literal(v))
                                    for k, v in value.items())
    return "{ %s }" % ", ".join(map(lua_literal, value))


def lua_globals(values):
    return "".join("%s = %s\n" % (key, lua_literal(value)) for key, value in values.items())


# Each address has an IP of its own (127.0.0.0/8 is all loopback), so that a port which is free now
# cannot be taken as the local end of somebody's outgoing connection before the node listens there.
_address_count = 0


def fresh_address():
    global _address_count
    _address_count += 1
    ip = "127.%d.%d.%d" % (64 + os.getpid() % 128, _address_count // 250, _address_count % 250 + 1)
    with socket.socket() as sock:
        sock.bind((ip, 0))
        return sock.getsockname()


def address_text(address):
    return "%s:%d" % address if address else False


def write_file(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb" if isinstance(text, bytes) else "w") as file:
        file.write(text)


def read_file(path):
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace")


def processes_of_session(session):
    """Pids of the processes in that session: whatever a node might have left behind."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = read_file("/proc/%s/stat" % pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(")") + 2:].split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(pid))
    return found


class Node:
    """One node: its folder with evpt.lua, clustername.lua and services/, and while it runs its
    process."""

    def __init__(self, folder, name, addresses, scripts, services, config):
        self.folder, self.name, self.addresses = folder, name, addresses
        self.address = addresses.get(name)
        self.process = None
        self.prefix = []                # a command in front that becomes evpt, such as prlimit
        self.status = None              # the exit status of the last run
        self.runs = 0
        self.expected_files = set()     # that may be there afterwards, below folder
        self.environment = {}           # what the process gets beside environment()
        self.drains = True              # False: its services hold calls for ever, a stop times out
        self.clients = []
        self.talker = None              # the connection of ask()
        write_file(self.path("services/.keep"), "")
        for script, text in scripts.items():
            self.script(script, text)
        values = {"services": list(scripts) if services is None else services, "workers": 2}
        values.update(config)
        self.has_console = "admin" not in config
        write_file(self.path("evpt.lua"), lua_globals(values))
        self.write_list(addresses)

    def path(self, name):
        return os.path.join(self.folder, name)

    def script(self, name, text):
        """Writes the script of a service; `evpt` and `cluster` are there in it."""
        write_file(self.path("services/%s.lua" % name),
                   text if isinstance(text, bytes) else PRELUDE + text)

    def write_list(self, addresses):
        write_file(self.path("clustername.lua"),
                   lua_globals({name: value if isinstance(value, str) else address_text(value)
                                for name, value in addresses.items()}))

    # -- the process --

    def start(self, *args, wait=True):
        self.runs += 1
        self.log_path = self.path("stderr.%d" % self.runs)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, program("evpt"), *args, self.name], cwd=self.folder,
                env=dict(environment(), **self.environment),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        """Until it listens, and its console answers: then every service has been started."""
        wait_until(self._listens, "%s listens" % self.name)
        if self.has_console:
            wait_until(lambda: self.ctl("nodes").returncode == 0, "the console of %s" % self.name)

    def _listens(self):
        if self.process.poll() is not None:
            raise AssertionError("%s ended with status %s:\n%s"
                                 % (self.name, self.wait_end(), self.log()))
        try:
            wire.connect(self.address).close()
            return True
        except ConnectionRefusedError:
            return False

    @property
    def pid(self):
        return self.process.pid

    @property
    def admin(self):
        return self.path("run/%s.sock" % self.name)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait_end(self, patience=PATIENCE):
        """Waits for the process to end by itself; its exit status."""
        pid = self.process.pid
        try:
            self.status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("%s did not stop within %d s" % (self.name, patience)) from None
        self.process = None
        self.close_clients()
        left = processes_of_session(pid)
        if left:
            raise AssertionError("%s left processes behind: %s" % (self.name, left))
        return self.status

    def stop(self):
        """Stops it in order."""
        if self.process is None:
            return
        self.close_clients()
        if self.running():
            self.signal(signal.SIGTERM)
        status = self.wait_end()
        if status != 0 and (self.drains or status != 1):
            raise AssertionError("%s stopped with status %s" % (self.name, status))

    def kill(self):
        """SIGKILL: what happens then is what the others see. Its socket file stays behind."""
        self.process.kill()
        self.process.wait()
        self.process = None
        self.close_clients()
        self.expected_files.add("run/%s.sock" % self.name)

    # -- what it says --

    def log(self):
        return read_file(self.log_path)

    def log_lines(self, pattern):
        return [line for line in self.log().splitlines() if re.search(pattern, line)]

    def wait_log(self, pattern, count=1):
        """Waits for `count` lines that match; returns them."""
        def found():
            lines = self.log_lines(pattern)
            return lines if len(lines) >= count else None
        return wait_until(found, "%d line(s) /%s/ in the log of %s" % (count, pattern, self.name))

    def memory_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", read_file("/proc/%d/status" % self.pid)).group(1))

    # -- talking to it --

    def client(self, **options):
        """A new connection of a plain peer, closed when the node stops."""
        client = wire.Client(self.address, **options)
        self.clients.append(client)
        return client

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients, self.talker = [], None

    def ask(self, service, method, *args, patience=None):
        """One call: the results."""
        if self.talker is None:
            self.talker = self.client()
        try:
            return self.talker.ask(service, method, *args, patience=patience)
        except (wire.Closed, TimeoutError):
            self.talker = None
            raise

    def lua(self, text, *args, patience=None):
        """Runs the text in the node's service `lab`; its results. Arguments are `...`."""
        return self.ask("lab", "run", text, *args, patience=patience)

    def ctl(self, *args, stdin=None, timeout=60):
        return subprocess.run(
            [program("evpt-ctl"), "-n", self.name, "-C", self.folder, *args], input=stdin,
            capture_output=True, text=True, env=environment(), timeout=timeout, check=False)

    def nodes(self):
        """What `evpt-ctl nodes --json` tells: {name: {...}}."""
        done = self.ctl("nodes", "--json")
        if done.returncode != 0:
            raise AssertionError("evpt-ctl nodes: " + done.stderr)
        rows = json.loads(done.stdout)
        if isinstance(rows, dict) and isinstance(rows.get("nodes"), (list, dict)):
            rows = rows["nodes"]
        if isinstance(rows, dict):
            return {name: dict(row, name=name) for name, row in rows.items()}
        return {row["name"]: row for row in rows}

    def idle(self):
        """No call is in flight to any node, and none waits for a connection."""
        return all(row.get("session2context", 0) == 0 and row.get("requestCache", 0) == 0
                   for row in self.nodes().values())


class Folder:
    """A temporary folder and the nodes in it. Used by NodeCase, and by load.py and kill.py on
    their own."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="evpt-node-")
        self.nodes = []
        self.addresses = {}
        self.report = ""
        self.dull = CAME_AND_WENT       # lines that the report leaves out

    def address(self, name):
        """The address of a node (real or fake), always the same; in every node list from now on."""
        if name not in self.addresses:
            self.addresses[name] = fresh_address()
        return self.addresses[name]

    def node(self, name, scripts, services=None, config=None, start=True, args=()):
        self.address(name)
        node = Node(os.path.join(self.path, name), name, dict(self.addresses), scripts, services,
                    config or {})
        self.nodes.append(node)
        if start:
            node.start(*args)
        return node

    def close(self):
        """Stops everything. Returns what was wrong, in words."""
        wrong = []
        for node in self.nodes:
            node.close_clients()
        for node in self.nodes:
            try:
                node.stop()
            except AssertionError as error:
                wrong.append(str(error))
        for node in self.nodes:
            for run in range(1, node.runs + 1):
                if SANITIZER.search(read_file(node.path("stderr.%d" % run))):
                    wrong.append("%s: a sanitizer or an assertion spoke up" % node.name)
            left = self._files(node) - node.expected_files
            if left:
                wrong.append("%s left files behind: %s" % (node.name, sorted(left)))
        self.report = self.logs()
        shutil.rmtree(self.path)
        return "\n".join(wrong)

    @staticmethod
    def _files(node):
        """Files below the node's folder that no test put there."""
        found = set()
        for folder, _, names in os.walk(node.folder):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), node.folder)
                if not re.fullmatch(r"stderr\.\d+|evpt\.lua|clustername\.lua|services/.*", path):
                    found.add(path)
        return found

    def logs(self):
        """The end of each node's log, for the report of a failure."""
        text = ""
        for node in self.nodes:
            for run in range(1, node.runs + 1):
                lines = read_file(node.path("stderr.%d" % run)).splitlines()
                text += "--- %s, run %d: %d lines\n" % (node.name, run, len(lines))
                lines = [line for line in lines if not self.dull.search(line)]
                text += "".join("    %s\n" % line[:400] for line in lines[-40:])
        return text


class NodeCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = Folder()
        self.addCleanup(self._close_folder)

    def _close_folder(self):
        wrong = self.folder.close()
        self.diagnosis = self.folder.report
        if wrong:
            self.fail(wrong)

    def address(self, name):
        return self.folder.address(name)

    def node(self, name="game_1", script="", **options):
        """A started node, with `script` as its service `s`."""
        options.setdefault("scripts", {"s": script} if script else {})
        return self.folder.node(name, **options)

    def fake(self, name="battle_1", **options):
        """A fake server at that node's address."""
        server = wire.FakeServer(self.address(name), **options)
        self.addCleanup(server.close)
        return server

    def stuck(self, name="battle_1"):
        """Makes that node's address one that never answers a connection attempt."""
        address = wire.StuckAddress(fresh_address()[0])
        self.addCleanup(address.close)
        self.folder.addresses[name] = address.address
        return address

    def evpt(self, *args, cwd=None, timeout=PATIENCE):
        """Runs `evpt` to its end."""
        return subprocess.run([program("evpt"), *args], cwd=cwd or self.folder.path,
                              capture_output=True, text=True, errors="replace", env=environment(),
                              timeout=timeout, check=False)

    def one_line(self, text, *parts):
        """`text` is one line, from evpt, and has all the parts in it."""
        self.assertRegex(text, r"\Aevpt(-ctl)?: [^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, text)

    def assert_same(self, got, want):
        self.assertTrue(wire.same(got, want), "%r is not %r" % (got, want))

    def closes_connection(self, peer):
        """Waits for the node to close it; the frames that came before."""
        return peer.wait_closed()


LAB = """
local env = setmetatable({ evpt = evpt, cluster = cluster }, { __index = _G })
-- An error object as plain data, with its text.
function env.seen(e)
    if type(e) ~= "table" then return { text = tostring(e), plain = true } end
    return { code = e.code, name = e.name, message = e.message, node = e.node, service = e.service,
             method = e.method, executed = e.executed, text = tostring(e) }
end
-- Runs fn; false and what it raised, as seen() tells it, or true and its results.
function env.caught(fn, ...)
    local function after(ok, first, ...)
        if ok then return true, first, ... end
        return false, env.seen(first)
    end
    return after(pcall(fn, ...))
end
-- Waits until what() is true, a turn of the service at a time; false after five seconds.
function env.eventually(what)
    local started = evpt.now()
    while not what() do
        if evpt.now() - started > 5000 then return false end
        evpt.sleep(2)
    end
    return true
end
evpt.export {
    run = function(text, ...)
        return assert(load(text, "=test", "t", env))(...)
    end,
    echo = function(...) return ... end,
}
"""


class LabCase(unittest.TestCase):
    """Two nodes, game_1 and battle_1, for all tests of a class. A test that needs a service of its
    own uses service(), which writes a script of a name that no other test uses."""

    maxDiff = None
    config = {}
    count = 0

    @classmethod
    def setUpClass(cls):
        cls.folder = Folder()
        try:
            for name in ("game_1", "battle_1", "nobody_1"):     # nobody_1 never runs
                cls.folder.address(name)
            cls.folder.addresses["old_1"] = False
            cls.game = cls.folder.node("game_1", {"lab": LAB}, config=cls.config)
            cls.battle = cls.folder.node("battle_1", {"lab": LAB}, config=cls.config)
        except BaseException as error:
            wrong = cls.folder.close()
            raise AssertionError("%s\n%s\n%s" % (error, wrong, cls.folder.report)) from None

    @classmethod
    def tearDownClass(cls):
        wrong = cls.folder.close()
        if wrong:
            raise AssertionError(wrong + "\n" + cls.folder.report)

    def setUp(self):
        self.diagnosis = ""
        self.addCleanup(self._keep_logs)

    def _keep_logs(self):
        self.diagnosis = self.folder.logs()

    def service(self, node, text, args=()):
        """Starts a service with this script under a name of its own, which is returned."""
        LabCase.count += 1
        name = "t%d" % LabCase.count
        node.script(name, text)
        node.lua("local name, args = ... evpt.start(name, { name = name, args = args })", name,
                 list(args))
        return name

    def assert_same(self, got, want):
        self.assertTrue(wire.same(got, want), "%r is not %r" % (got, want))

    def assert_error(self, seen, code, executed=None):
        """An error object, as the lab's seen() tells it."""
        self.assertEqual((seen.get("code"), seen.get("name")), (code, wire.CODES[code]), seen)
        if executed is not None:
            self.assertIn(seen.get("executed"), executed, seen)
        self.assertNotIn("\n", seen["text"])
        self.assertIn(wire.CODES[code], seen["text"])
