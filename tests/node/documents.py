"""Runs what the documents show: a document's fenced blocks, from the first to the last, in a
folder of its own.

In front of each block stands a comment that says what it is:

    <!-- file: PATH -->         the block is this file
    <!-- run -->                `$ ` is typed, `> ` continues it, the rest is what comes out.
                                `evpt ... NODE &` goes on running: the lines below it are the
                                first of its log
    <!-- run, numbers vary -->  the same; words of digits stand for any number
    <!-- log: NODE -->          the next lines of that node's log. Services run in threads, so
                                only the lines of one service have an order
    <!-- lua -->                runs in a service of game_1 beside a running battle_1; what it
                                prints stands behind --> (`...` there is any text)
    <!-- not run: REASON -->

Times, durations and the ports of callers stand for any; 127.0.0.1:PORT becomes an address that is
free.
"""

import os
import re
import signal
import subprocess
import time

import evptnode
import wire

FENCE = re.compile(r"^<!-- (?P<mark>.*?) -->\n```[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
ASKS = re.compile(r"^evpt-ctl( -\S+ \S+)* (nodes|services|stat)\b")     # may be asked again
BACKGROUND = re.compile(r"^evpt\b.* (\w+) &$")

EXAMPLES = """
local evpt, cluster = require "evpt", require "evpt.cluster"
evpt.export { run = function(text, count)
    local lines = {}
    local env = setmetatable({ evpt = evpt, cluster = cluster }, { __index = _G })
    function env.print(...)
        local parts = table.pack(...)
        for i = 1, parts.n do parts[i] = tostring(parts[i]) end
        lines[#lines + 1] = table.concat(parts, " ")
    end
    assert(load(text, "=example", "t", env))()
    local from = evpt.now()
    while #lines < count and evpt.now() - from < 4000 do evpt.sleep(2) end
    return lines
end }
"""


class Wrong(AssertionError):
    """What a document says is not what happens."""


def blocks(text):
    """[(mark, text, line)] of all fenced blocks; Wrong where one has no mark."""
    found = [(match["mark"], match["text"], text.count("\n", 0, match.start()) + 2)
             for match in FENCE.finditer(text)]
    fences = len(re.findall(r"^```", text, re.M))
    if fences != 2 * len(found):
        raise Wrong("%d fences, but %d marked blocks" % (fences, len(found)))
    return found


def commands(text):
    """[(command, [line of output, ...])] of a block that is run."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif line.startswith("> "):
            found[-1][0] += "\n" + line[2:]
        elif found:
            found[-1][1].append(line)
        else:
            raise Wrong("output before the first command: " + line)
    return found


def normal(line, numbers_vary=False):
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", line)
    line = re.sub(r"\b\d+ ms\b", "N ms", line)
    line = re.sub(r"connection from \S+", "connection from CALLER", line)
    if numbers_vary:
        line = re.sub(r"(?<!\S)\d+(?!\S)", "N", line)
    return " ".join(line.split())


def by_service(lines):
    """The lines, those of one service (the fourth word) together, in their order."""
    def service(line):
        return (line.split() + ["", "", "", ""])[3]
    return sorted(map(normal, lines), key=service)


def matches(pattern, line):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), line, re.S) is not None


class Job:
    """A node in the background."""

    def __init__(self, command, folder, log_path, env):
        self.log_path, self.shown = log_path, 0
        self.stopping = self.killed = False     # by a command of the document
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(["bash", "-c", "exec " + command.rstrip("& ")],
                                            cwd=folder, env=env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def lines(self):
        return evptnode.read_file(self.log_path).split("\n")[:-1]

    def expect(self, want):
        """The next lines of the log are these."""
        def there():
            return len(self.lines()) >= self.shown + len(want) or self.process.poll() is not None
        until(there, lambda: "%d more lines; the log is\n%s" % (len(want),
                                                                "\n".join(self.lines())))
        got = self.lines()[self.shown:self.shown + len(want)]
        self.shown += len(want)
        compare(by_service(got), by_service(want))

    def end(self):
        if not self.stopping and self.process.poll() is None:    # a second TERM would be harsh
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(evptnode.PATIENCE)
        log = evptnode.read_file(self.log_path)
        if evptnode.SANITIZER.search(log) or (status != 0 and not self.killed):
            raise Wrong("a node ended with status %s:\n%s" % (status, log))


def until(condition, what):
    limit = time.monotonic() + evptnode.PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise Wrong("waited in vain for " + what())
        time.sleep(0.005)


def compare(got, want):
    if got != want:
        raise Wrong("expected\n    %s\ngot\n    %s" % ("\n    ".join(want), "\n    ".join(got)))


class Runner:
    """Runs the blocks of one document; close() ends what it has started. `tools`: where the
    programs are."""

    def __init__(self, folder, tools=None):
        self.home = self.folder = os.path.abspath(folder)
        self.hidden = os.path.join(self.home, ".documents")     # what the reader has no part in
        os.makedirs(self.hidden)
        self.addresses, self.jobs, self.status, self.client = {}, {}, 0, None
        tools = tools or os.path.dirname(evptnode.program("evpt"))
        self.env = dict(evptnode.environment(), HOME=self.home,
                        PATH=tools + ":" + os.environ["PATH"])

    def run(self, text):
        problems = []
        for mark, block, line in blocks(text):
            try:
                self._block(mark, self._with_addresses(block))
            except Wrong as error:
                problems.append("line %d (%s): %s" % (line, mark, error))
                if mark != "lua":       # what follows rests on it
                    break
        if problems:
            raise Wrong("\n".join(problems))

    def close(self):
        if self.client:
            self.client.close()
        problems = []
        for job in self.jobs.values():
            try:
                job.end()
            except (Wrong, subprocess.TimeoutExpired) as error:
                problems.append(str(error))
        if problems:
            raise Wrong("\n".join(problems))

    def _with_addresses(self, text):
        def address(match):
            if match[0] not in self.addresses:
                self.addresses[match[0]] = evptnode.address_text(evptnode.fresh_address())
            return self.addresses[match[0]]
        return re.sub(r"127\.0\.0\.1:\d+", address, text)

    def _block(self, mark, text):
        kind, _, argument = mark.partition(": ")
        if kind == "file":
            evptnode.write_file(os.path.join(self.folder, argument), text)
        elif kind in ("run", "run, numbers vary"):
            for command, output in commands(text):
                self._command(command, output, kind != "run")
            if self.status:
                raise Wrong("exit status %d" % self.status)
        elif kind == "log":
            self.jobs[argument].expect(text.splitlines())
        elif kind == "lua":
            self._lua(text)
        elif kind != "not run" or not argument:
            raise Wrong("no such kind of block")

    def _command(self, command, output, numbers_vary):
        background = BACKGROUND.match(command)
        if background:
            self._start(background[1], command)
            self.jobs[background[1]].expect(output)
            return
        if self.status and command != "echo $?":
            raise Wrong("exit status %d before: %s" % (self.status, command))
        want = [normal(line, numbers_vary) for line in output]
        limit = time.monotonic() + evptnode.PATIENCE
        while True:
            got = [normal(line, numbers_vary) for line in self._shell(command)]
            if got == want or not ASKS.match(command) or time.monotonic() > limit:
                break
        self._note_end(command)
        try:
            compare(got, want)
        except Wrong as error:
            raise Wrong("$ %s\n%s" % (command, error)) from None

    def _note_end(self, command):
        """Remembers which nodes a command has stopped or killed: those it names, or all."""
        names = set(re.findall(r"\w+", command)) & set(self.jobs) or set(self.jobs)
        for name in names:
            self.jobs[name].stopping |= bool(re.search(r"evpt-ctl\b.* stop\b|kill -(9|KILL|TERM|INT) ", command))
            self.jobs[name].killed |= bool(re.search(r"kill -(9|KILL) ", command))

    def _shell(self, command):
        where = os.path.join(self.hidden, "pwd")
        script = "(exit %d)\n%s\nstatus=$?\npwd >'%s'\nexit $status" % (self.status, command, where)
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, env=self.env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False)
        self.status = done.returncode
        self.folder = evptnode.read_file(where).strip()
        return done.stdout.splitlines()

    def _start(self, name, command):
        if name in self.jobs:
            if not self.jobs[name].stopping:
                raise Wrong("%s runs already" % name)
            self.jobs[name].end()
        log_path = os.path.join(self.hidden, "%s.%d" % (name, len(os.listdir(self.hidden))))
        self.jobs[name] = Job(command, self.folder, log_path, self.env)

    def _lua(self, text):
        if not self.client:
            self._start_examples()
        want = re.findall(r"--> ?(.*)$", text, re.M)
        if not want:
            raise Wrong("nothing that could be compared")
        reply = self.client.call("examples", "run", text, len(want))
        if reply.code != wire.OK:
            raise Wrong(str(reply.results[0]))
        got = reply.results[0] or []
        if len(got) != len(want) or not all(map(matches, want, got)):
            compare(got, want)

    def _start_examples(self):
        """battle_1 as it is configured, and game_1 with the service `examples` in addition."""
        services = re.search(r"^services = \{(.*)\}$",
                             evptnode.read_file(os.path.join(self.folder, "evpt.lua")), re.M)[1]
        evptnode.write_file(os.path.join(self.folder, "services/examples.lua"), EXAMPLES)
        self._start("battle_1", "evpt battle_1 &")
        self._wait_for("battle_1")
        self._start("game_1", "evpt -s 'services={%s,\"examples\"}' game_1 &" % services)
        self._wait_for("game_1")
        listed = evptnode.read_file(os.path.join(self.folder, "clustername.lua"))
        ip, port = re.search(r'game_1\s*=\s*"(.*):(\d+)"', listed).groups()
        self.client = wire.Client((ip, int(port)))

    def _wait_for(self, name):
        job = self.jobs[name]
        until(lambda: any("started in" in line for line in job.lines()) or job.process.poll(),
              lambda: name)
        if job.process.poll() is not None:
            raise Wrong("\n".join(job.lines()))
