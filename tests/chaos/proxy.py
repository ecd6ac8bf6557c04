"""A proxy with faults: what one node sends another, byte by byte.

A Link listens in place of a node, and connects each connection through to it. Each connection has
two Pipes: `up` towards the node that is called, `down` back from it. What a pipe does to its bytes
stands in the Faults of its link and direction, which may change at any time.
"""

import collections
import dataclasses
import errno
import socket
import struct
import time

HELD_MAX = 1 << 18      # bytes in a pipe; more stay with the sender, as on a real path
CHUNK = 1 << 16


@dataclasses.dataclass
class Faults:
    delay_ms: float = 0     # each byte is that late, and up to jitter_ms more; they stay in order
    jitter_ms: float = 0
    split: int = 0          # at most so many bytes are sent at once ...
    pause_ms: float = 0     # ... and then nothing for that long
    corrupt: float = 0      # share of the chunks that get a byte changed
    stall: bool = False     # nothing is read or sent: the sender's queue fills up
    swallow: bool = False   # everything is read and thrown away; healing ends the connection with
                            # a RST, since a stream with a hole in it is what TCP never gives


def reset(sock):
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Pipe:
    """One direction of one connection."""

    def __init__(self, connection, faults, source, sink):
        self.connection, self.link = connection, connection.link
        self.loop, self.rng = self.link.loop, self.link.rng
        self.faults, self.source, self.sink = faults, source, sink
        self.queue = collections.deque()    # [due, bytes]; bytes b"": the end
        self.held = 0
        self.passed = 0                     # bytes sent on, for cut_after
        self.hole = False                   # bytes were swallowed: what follows cannot be passed on
        self.read_end = False               # the source has sent its FIN ...
        self.ended = False                  # ... and it has been passed on
        self.reading = self.writing = False
        self.timer = None
        self.update()

    def update(self):
        """Sends what may go; then reads, or does not, as the faults and the room say."""
        self._send()
        want = not self.faults.stall and self.held < HELD_MAX and not self.read_end
        if want != self.reading:
            self.reading = want
            if want:
                self.loop.add_reader(self.source, self._read)
            else:
                self.loop.remove_reader(self.source)

    def stop(self):
        if self.reading:
            self.loop.remove_reader(self.source)
        if self.writing:
            self.loop.remove_writer(self.sink)
        if self.timer:
            self.timer.cancel()
        self.reading = self.writing = False
        self.timer = None
        self.faults = Faults(stall=True)    # for callbacks that are already under way

    def _read(self):
        if not self.reading:
            return
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.connection.cut("rst")      # what the one side does to us is done to the other
            return
        self.read_end = not data
        if self.faults.swallow or self.hole:
            self.hole = True
            self.link.count("swallowed", len(data))
            self.update()
            return
        if data and self.faults.corrupt and self.rng.random() < self.faults.corrupt:
            data = bytearray(data)
            data[self.rng.randrange(len(data))] ^= self.rng.randrange(1, 256)
            self.link.count("corrupted", 1)
        due = time.monotonic() + self._delay()
        if self.queue:
            due = max(due, self.queue[-1][0])
        self.queue.append([due, memoryview(bytes(data))])
        self.held += len(data)
        self.update()

    def _delay(self):
        return (self.faults.delay_ms + self.rng.random() * self.faults.jitter_ms) / 1000

    def _send(self):
        """All that is due; arranges to be called again for the rest."""
        while self.queue and not self.timer and not self.writing and not self.faults.stall:
            due, data = self.queue[0]
            wait = due - time.monotonic()
            if wait > 0:
                self._later(wait)
            elif not data:
                self.queue.popleft()
                self._pass_end()
            elif not self._send_some(data):
                return

    def _send_some(self, data):
        """False: the connection is no more."""
        size = len(data)
        if self.faults.split:
            size = min(size, self.faults.split)
        limit = self.connection.cut_at(self)
        if limit is not None:
            size = min(size, limit[0] - self.passed)
        try:
            sent = self.sink.send(data[:size])
        except BlockingIOError:
            self.writing = True
            self.loop.add_writer(self.sink, self._writable)
            return True
        except OSError:
            self.connection.cut("rst")
            return False
        self.passed += sent
        self.held -= sent
        if sent < len(data):
            self.queue[0][1] = data[sent:]
        else:
            self.queue.popleft()
        if limit is not None and self.passed >= limit[0]:
            self.connection.cut(limit[1])
            return False
        if self.faults.split and self.queue:
            self.link.count("pieces", 1)
            self._later(self.faults.pause_ms / 1000)
        return True

    def _pass_end(self):
        self.ended = True
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass                            # it has gone altogether; the other pipe finds out
        self.connection.on_end()

    def _later(self, seconds):
        self.timer = self.loop.call_later(seconds, self._again)

    def _again(self):
        self.timer = None
        self.update()

    def _writable(self):
        self.loop.remove_writer(self.sink)
        self.writing = False
        self.update()


class Connection:
    """Two sockets and the pipes between them."""

    def __init__(self, link, client):
        self.link, self.client = link, client
        self.server = socket.socket()
        self.pipes = {}
        self.limits = {}                    # direction -> (bytes, how)
        for sock in (client, self.server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self.server.connect_ex(link.target)
        if error not in (0, errno.EINPROGRESS):
            self.cut("rst")
            return
        link.loop.add_writer(self.server, self._on_connect)

    def _on_connect(self):
        self.link.loop.remove_writer(self.server)
        if self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cut("rst")
            return
        self.limits = dict(self.link.limits)
        self.link.limits = {}
        self.pipes = {"up": Pipe(self, self.link.faults["up"], self.client, self.server)}
        self.pipes["down"] = Pipe(self, self.link.faults["down"], self.server, self.client)

    def cut_at(self, pipe):
        return self.limits.get("up" if pipe is self.pipes.get("up") else "down")

    def update(self):
        for direction, pipe in list(self.pipes.items()):
            pipe.faults = self.link.faults[direction]
            pipe.update()

    def on_end(self):
        if len(self.pipes) == 2 and all(pipe.ended for pipe in self.pipes.values()):
            self.cut("fin")

    def cut(self, how):
        """rst, fin: both sides; rst_client and so on: only that side, the other one is held open
        and hears nothing more (half-open) until the link heals."""
        how, _, side = how.partition("_")
        close = reset if how == "rst" else socket.socket.close
        for pipe in self.pipes.values():
            pipe.stop()
        self.link.loop.remove_writer(self.server)   # while it was still connecting
        self.pipes = {}
        self.link.connections.discard(self)
        for name, sock in (("client", self.client), ("server", self.server)):
            if side in ("", name):
                close(sock)
            else:
                self.link.held.append(sock)


class Link:
    """Stands in place of the node at `target`."""

    def __init__(self, loop, rng, ip, target):
        self.loop, self.rng, self.target = loop, rng, target
        self.faults = {"up": Faults(), "down": Faults()}
        self.limits = {}
        self.connections = set()
        self.held = []                      # the other ends of half-open connections
        self.counts = collections.Counter()
        self.listener = None
        self.address = (ip, 0)
        self.listen(True)

    def listen(self, on):
        if self.listener:
            self.loop.remove_reader(self.listener)
            self.listener.close()
            self.listener = None
        if on:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(self.address)
            self.listener.listen(128)
            self.listener.setblocking(False)
            self.address = self.listener.getsockname()
            self.loop.add_reader(self.listener, self._accept)

    def count(self, key, more):
        self.counts[key] += more

    def _accept(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        self.count("connections", 1)
        self.connections.add(Connection(self, client))

    def set_faults(self, direction, faults):
        self.faults[direction] = Faults(**faults)
        self._update()

    def _update(self):
        for connection in list(self.connections):
            connection.update()

    def cut(self, how):
        """Returns how many connections that hit."""
        hit = list(self.connections)
        for connection in hit:
            connection.cut(how)
        self.count("cut", len(hit))
        return len(hit)

    def cut_after(self, direction, count, how):
        """Cuts each connection after so many more bytes; where there is none, the next one."""
        if not self.connections:
            self.limits[direction] = (count, how)
        for connection in self.connections:
            pipe = connection.pipes.get(direction)
            if pipe:
                connection.limits[direction] = (pipe.passed + count, how)

    def heal(self):
        self.faults = {"up": Faults(), "down": Faults()}
        self.limits = {}
        for connection in list(self.connections):
            connection.limits = {}
            if any(pipe.hole for pipe in connection.pipes.values()):
                connection.cut("rst")
        for sock in self.held:
            reset(sock)
        self.held = []
        if not self.listener:
            self.listen(True)
        self._update()

    def close(self):
        self.heal()
        self.listen(False)
        self.cut("fin")
