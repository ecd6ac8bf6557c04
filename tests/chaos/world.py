"""A cluster that things are done to: nodes under load, the network between them, and what must
hold.

A scenario gets a World whose nodes call each other already, does harm, and returns. Then the world
is settled: everything heals, calls must work again, the load ends, and settle() looks whether
everything is where it was: tables, descriptors, memory; and whether the journals keep the promise.
"""

import collections
import json
import os
import random
import re
import resource
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../node"))

import evptnode
import journal
import load
import machines
import wire

SERVICES = ("work_1", "work_2")
CALLERS = ("load_1", "load_2")
HEARTBEAT_MS = 200
SILENCE_S = 3 * HEARTBEAT_MS / 1000     # after which a peer is gone
TIMEOUT_MS = 2000
MEMORY_SLACK_KIB = 8192 # what tables and pools take up with more load than before the harm

# What a node logs of a call that fails as it should, and of who comes and goes: nothing to report.
DULL = re.compile(r"as it should$|^stack traceback:$|^\t|connection from .* closed: ")

# Fast, so that a scenario sees each of these limits in a few seconds.
CLUSTER = {"heartbeat_ms": HEARTBEAT_MS, "connect_timeout_ms": 500, "call_timeout_ms": TIMEOUT_MS}


def script(name):
    with open(os.path.join(HERE, "services", name + ".lua")) as file:
        return file.read()


class World:
    """What a scenario may use: `rng`, `nodes`, `network`, `machines` (empty where there are none),
    the methods below, and count(), which says what was done."""

    def __init__(self, lab, seed, names, proxied, cluster, config):
        self.lab, self.network, self.machines = lab, lab.network, lab.machines
        self.rng = random.Random(seed)
        self.seed = self.rng.randrange(1 << 30)
        self.names, self.proxied = names, proxied
        self.folder = evptnode.Folder()
        self.folder.dull = DULL
        self.nodes, self.lives, self.current = {}, {}, {}
        self.done = collections.Counter()       # what a scenario did, by name
        self.allowed = {0, 2, 3, 4, 7}          # outcomes: see journal.judge
        self.unsafe = set()         # (calling node, called node): bytes changed on the way
        config = dict({"workers": self.rng.choice((0, 1, 2, 2))}, **config,
                      cluster={**CLUSTER, **cluster})
        for name in names:
            self.address(name)
        for name in names:
            self._make(name, config)

    # -- nodes --

    def address(self, name):
        """Where a node listens: on its machine, or on loopback."""
        if name not in self.folder.addresses:
            machine = self.machines.get(name)
            address = evptnode.fresh_address() if machine is None else (machine.ip, 8000)
            self.folder.addresses[name] = address
        return self.folder.addresses[name]

    def _make(self, name, config):
        number = self.names.index(name) + 1
        services = [{**entry, "name": service} for service, entry in
                    [(s, {1: "work", "args": [number << 4 | i]}) for i, s in enumerate(SERVICES)] +
                    [(s, {1: "load"}) for s in CALLERS]]
        scripts = {"content": load.CONTENT, "journal": script("journal"), "work": script("work"),
                   "load": script("load")}
        node = self.folder.node(name, scripts, services=services, config=config, start=False)
        node.expected_files.add("journal")
        node.drains = False         # callers without end: a stop gives up on what they wait for
        node.number = number
        node.view = {other: self._seen_from(name, other) for other in self.names}
        node.write_list(node.view)
        if name in self.machines:
            node.prefix = self.machines[name].prefix()
        self.nodes[name] = node

    def _seen_from(self, name, other):
        """The address in the list of `name`: that of a proxy, where there are proxies."""
        if other == name or not self.proxied:
            return self.address(other)
        hub = self.machines.get(machines.HUB)
        return tuple(self.network.link(link_name(name, other), hub.ip if hub else "127.0.0.1",
                                       self.address(other)))

    def links(self):
        return [link_name(a, b) for a in self.names for b in self.names if a != b]

    def start(self):
        """Starts everything, and the load, and notes what the nodes need when all is well."""
        for node in self.nodes.values():
            node.start()
        for name in self.names:
            self.begin(name)
        self.wait_good(20)
        self.reach_all()
        self.end_load()
        self.collect()
        self.usual = {name: (descriptors(node), node.memory_kib())
                      for name, node in self.nodes.items()}
        for name in self.names:
            self.begin(name)
        self.wait_good(5)

    def others(self, name):
        return [other for other in self.names if other != name]

    def begin(self, name):
        """New lives for the callers of a node."""
        node = self.nodes[name]
        targets = [{"node": other, "service": service,
                    "number": self.nodes[other].number << 4 | i}
                   for other in self.others(name) for i, service in enumerate(SERVICES)]
        for service in CALLERS:
            life = journal.Life(len(self.lives) + 1, "%s/%s" % (name, service))
            self.lives[life.number] = life
            self.current[name, service] = life
            node.ask(service, "begin", {
                "base": life.base, "seed": self.seed, "coroutines": 16, "think_ms": 10,
                "timeout_ms": TIMEOUT_MS, "targets": targets})

    def _lives_of(self, name):
        return [self.current[name, service] for service in CALLERS]

    def kill(self, name):
        self._end_lives(name)
        self.nodes[name].kill()
        self.count("kills")

    def stop(self, name):
        """In order. Its callers do not mind, so the node may have to give up on some of them."""
        self._end_lives(name)
        self.nodes[name].stop()
        self.count("stops in order")

    def start_again(self, name):
        self.nodes[name].start()
        self.begin(name)

    def _end_lives(self, name):
        for life in self._lives_of(name):
            life.ended = True

    def freeze(self, name, seconds):
        """SIGSTOP, and SIGCONT that much later."""
        node, started = self.nodes[name], time.monotonic()
        node.signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            node.signal(signal.SIGCONT)
        self.still(name, time.monotonic() - started)
        self.count("pauses")

    def still(self, name, seconds):
        """So late its callers may be, since their node did not run."""
        for life in self._lives_of(name):
            life.still_ms = max(life.still_ms, seconds * 1000)

    def limit_descriptors(self, name, most):
        resource.prlimit(self.nodes[name].pid, resource.RLIMIT_NOFILE, (most, most))

    # -- load --

    def progress(self, name):
        """good, failed and running calls of a node's callers."""
        total = collections.Counter()
        for service in CALLERS:
            total.update(self.nodes[name].ask(service, "progress")[0])
        return total

    def _wait_more(self, which, more, names):
        for name in names:
            before = self.progress(name)[which]
            evptnode.wait_until(lambda: self.progress(name)[which] >= before + more,
                                "%d more %s calls of %s" % (more, which, name))

    def wait_good(self, more, *names):
        self._wait_more("good", more, names or self.names)

    def wait_failed(self, more, *names):
        self._wait_more("failed", more, names or self.names)

    def reach_all(self):
        """Each node has an answer from each other one."""
        for name in self.names:
            for other in self.others(name):
                evptnode.wait_until(
                    lambda: self.nodes[name].ask(CALLERS[0], "reach", other)[0] == 0,
                    "%s reaches %s" % (name, other))

    def end_load(self):
        """Each call ends by its deadline by itself, so all of them have ended then."""
        for name in self.names:
            for service in CALLERS:
                self.nodes[name].ask(service, "stop")
        for name in self.names:
            evptnode.wait_until(lambda: self.progress(name)["running"] == 0,
                                "the end of all calls of " + name,
                                (TIMEOUT_MS + journal.LATE_MS) / 1000 + evptnode.PATIENCE)

    def collect(self):
        """Garbage in Lua goes when Lua next needs memory, and counts until then."""
        for node in self.nodes.values():
            for service in SERVICES + CALLERS:
                node.ask(service, "collect")

    # -- harm --

    def count(self, what, times=1):
        self.done[what] += times

    def time_passes(self, least, most):
        """For harm that is time itself: a stall, a black hole."""
        time.sleep(self.rng.uniform(least, most))

    def pair(self):
        return self.rng.sample(self.names, 2)

    # -- the end --

    def settle(self):
        """Everything as it was; the counts of what happened."""
        self.network.heal()
        for name, node in self.nodes.items():
            if not node.running():
                node.wait_end()
                raise AssertionError("%s ended by itself" % name)
        self.reach_all()
        self.wait_good(20)
        self.end_load()
        evptnode.wait_until(lambda: all(map(self._tables_empty, self.names)), "empty tables: %s"
                            % ", ".join("%s %r" % (name, self.tables(name)) for name in self.names))
        self.collect()
        for name, node in self.nodes.items():
            self._check_usual(name, node)
            for life in self._lives_of(name):
                life.in_order = not any(row.get("disconnects") for row in node.nodes().values())
        for life in self.lives.values():
            life.in_order &= not life.ended
        return self._judge()

    def stat(self, name):
        return json.loads(self.nodes[name].ctl("stat", "--json").stdout)

    def tables(self, name):
        node, stat = self.nodes[name], self.stat(name)
        table = {key: stat[key] for key in ("pending", "serving")}
        for other, row in node.nodes().items():
            for key in ("session2context", "requestCache", "queued"):
                table["%s of %s" % (key, other)] = row[key]
        return table

    def _tables_empty(self, name):
        return not any(self.tables(name).values())

    def _check_usual(self, name, node):
        usual_fds, usual_kib = self.usual[name]
        evptnode.wait_until(lambda: descriptors(node) <= usual_fds,
                            "%d descriptors of %s, as before" % (usual_fds, name))
        if not evptnode.sanitized():
            most = usual_kib * 1.1 + MEMORY_SLACK_KIB
            evptnode.wait_until(lambda: node.memory_kib() <= most,
                                "%s needs %d KiB at most, after %d before; it has %d"
                                % (name, most, usual_kib, node.memory_kib()))

    def _judge(self):
        journals = {}
        for name, node in self.nodes.items():
            with open(node.path("journal"), "rb") as file:
                journals[name] = file.read()
        unsafe = {(life.number, self.nodes[called].number) for calling, called in self.unsafe
                  for life in self.lives.values() if life.name.startswith(calling + "/")}
        return journal.judge(journals, self.lives, self.allowed, unsafe)

    def close(self):
        """Stops all; what was wrong, in words."""
        self.network.heal()
        wrong = self.folder.close()
        self.network.unlink()
        return wrong


def link_name(caller, callee):
    return "%s>%s" % (caller, callee)


def descriptors(node):
    return len(os.listdir("/proc/%d/fd" % node.pid))
