"""The network between the nodes, in a process of its own, so that its timing does not depend on
what the runner does. It has two floors.

Proxies (proxy.py) stand between two nodes and see a stream of bytes: cut, stalled, delayed, split,
corrupted, swallowed. The carrier moves IP packets between machines (machines.py), and loses,
delays, repeats and reorders them. Either is told what to do by a line of JSON, and answers with
one.

As a module: Network, which starts that process and speaks to it.
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys

import proxy


class Carrier:
    """Packets from one tun device to the other, by their destination. `faults` by (from, to):
    drop, repeat: 0..1; delay_ms, jitter_ms."""

    def __init__(self, loop, rng, tuns):
        self.loop, self.rng = loop, rng
        self.tuns = {ip: tun for ip, tun in tuns}
        self.faults = {}
        self.counts = {"carried": 0, "dropped": 0, "repeated": 0, "delayed": 0}
        for ip, tun in tuns:
            loop.add_reader(tun, self._take, ip, tun)

    def _take(self, ip, tun):
        for _ in range(64):         # then the others get their turn
            try:
                packet = os.read(tun, 65536)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._carry(ip, socket.inet_ntoa(packet[16:20]), packet)

    def _carry(self, source, target, packet):
        faults = self.faults.get((source, target))
        if target not in self.tuns:
            return                  # multicast, and who is not there
        if not faults:
            self._give(target, packet)
            return
        if self.rng.random() < faults.get("drop", 0):
            self.counts["dropped"] += 1
            return
        times = 1
        if self.rng.random() < faults.get("repeat", 0):
            self.counts["repeated"] += 1
            times = 2
        for _ in range(times):
            delay_ms = faults.get("delay_ms", 0) + self.rng.random() * faults.get("jitter_ms", 0)
            if delay_ms:
                self.counts["delayed"] += 1
                self.loop.call_later(delay_ms / 1000, self._give, target, packet)
            else:
                self._give(target, packet)

    def _give(self, target, packet):
        self.counts["carried"] += 1
        try:
            os.write(self.tuns[target], packet)
        except OSError:             # its queue is full: a packet lost, as on any wire
            self.counts["dropped"] += 1


class Commands:
    """What the runner may say; each method is a command and returns what it answers."""

    def __init__(self, loop, rng, tuns):
        self.loop = loop
        self.carrier = Carrier(loop, rng, tuns)
        self.rng = rng
        self.links = {}

    def link(self, name, ip, target):
        self.links[name] = proxy.Link(self.loop, self.rng, ip, tuple(target))
        return self.links[name].address

    def unlink(self):
        """All of them go: the next scenario makes its own."""
        for link in self.links.values():
            link.close()
        self.links = {}

    def stream(self, name, direction, **faults):
        self.links[name].set_faults(direction, faults)

    def cut(self, name, how):
        return self.links[name].cut(how)

    def cut_after(self, name, direction, count, how):
        self.links[name].cut_after(direction, count, how)

    def listen(self, name, on):
        self.links[name].listen(on)

    def packets(self, source, target, **faults):
        self.carrier.faults[source, target] = faults

    def heal(self):
        self.carrier.faults = {}
        for link in self.links.values():
            link.heal()

    def counts(self):
        total = dict(self.carrier.counts)
        for link in self.links.values():
            for key, value in link.counts.items():
                total[key] = total.get(key, 0) + value
        return total


async def serve(control, seed, tuns):
    loop = asyncio.get_running_loop()
    commands = Commands(loop, random.Random(seed), tuns)
    reader, writer = await asyncio.open_connection(sock=control)
    while True:
        line = await reader.readline()
        if not line:
            return
        name, args, options = json.loads(line)
        try:
            answer = {"result": getattr(commands, name)(*args, **options)}
        except OSError as error:
            answer = {"error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()


class NetworkFailed(Exception):
    pass


class Network:
    """The other side: `network.cut(...)` is the command of that name."""

    def __init__(self, seed, machines):
        ours, theirs = socket.socketpair()
        tuns = [(machine.ip, machine.tun) for machine in machines.values()]
        self.control = ours.makefile("rw", encoding="ascii")
        ours.close()
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__),
             json.dumps([theirs.fileno(), seed, tuns])],
            pass_fds=[theirs.fileno()] + [tun for _, tun in tuns], stdin=subprocess.DEVNULL)
        theirs.close()

    def __getattr__(self, name):
        def command(*args, **options):
            self.control.write(json.dumps([name, args, options]) + "\n")
            self.control.flush()
            line = self.control.readline()
            answer = json.loads(line) if line else {"error": "the network has ended"}
            if "error" in answer:
                raise NetworkFailed("%s%r: %s" % (name, args, answer["error"]))
            return answer["result"]
        return command

    def close(self):
        self.control.close()
        self.process.wait()


def main():
    control, seed, tuns = json.loads(sys.argv[1])
    asyncio.run(serve(socket.socket(fileno=control), seed, tuns))


if __name__ == "__main__":
    main()
