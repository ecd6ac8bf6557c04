"""The wire protocol, written from its description alone (SPEC section 5; PROTOCOL.md), with
nothing but sockets.

Nothing here is derived from evpt's own code, so that the two check each other. Three layers:

    pack(value), unpack(bytes)            MessagePack
    frame(...), split(...), FrameReader   frames and messages
    Client, FakeServer, Peer              one end of a connection, driven by hand from a test

A MessagePack str becomes a Python str, with bytes that are no UTF-8 as surrogates, so that every
string of bytes comes back as it went; bin becomes bytes.
"""

import collections
import math
import os
import select
import socket
import struct
import time

WHOLE, FIRST, MIDDLE, LAST = 0x80, 0x81, 0x82, 0x83
HELLO, PING, PONG, GOAWAY = 0x84, 0x85, 0x86, 0x87
PART = 32768
CALL, SEND, REPLY = 1, 2, 3
CODES = ("ok", "unknown_node", "connect_failed", "disconnected", "timeout", "unknown_service",
         "unknown_method", "failed", "overloaded", "too_large", "bad_message", "stopping", "denied")

OK, UNKNOWN_NODE, CONNECT_FAILED, DISCONNECTED, TIMEOUT, UNKNOWN_SERVICE, UNKNOWN_METHOD, FAILED, \
    OVERLOADED, TOO_LARGE, BAD_MESSAGE, STOPPING = range(12)


# ---- MessagePack ----

class Raw(bytes):
    """Bytes of MessagePack that pack() takes over as they are: for forms that pack() would not
    choose."""


def _pack_head(out, size, fix, fix_max, tag8, tag16, tag32):
    if size <= fix_max:
        out.append(struct.pack(">B", fix | size))
    elif tag8 is not None and size < 1 << 8:
        out.append(struct.pack(">BB", tag8, size))
    elif size < 1 << 16:
        out.append(struct.pack(">BH", tag16, size))
    else:
        out.append(struct.pack(">BI", tag32, size))


def _pack_int(out, value):
    if 0 <= value < 128 or -32 <= value < 0:
        out.append(struct.pack(">b", value))
        return
    forms = ((0xcc, ">BB"), (0xcd, ">BH"), (0xce, ">BI"), (0xcf, ">BQ")) if value >= 0 else \
            ((0xd0, ">Bb"), (0xd1, ">Bh"), (0xd2, ">Bi"), (0xd3, ">Bq"))
    for tag, form in forms:
        try:
            out.append(struct.pack(form, tag, value))
            return
        except struct.error:
            continue
    raise ValueError("integer of more than 64 bits")


def _pack(out, value):
    if isinstance(value, Raw):
        out.append(bytes(value))
    elif value is None:
        out.append(b"\xc0")
    elif value is True or value is False:
        out.append(b"\xc3" if value else b"\xc2")
    elif isinstance(value, int):
        _pack_int(out, value)
    elif isinstance(value, float):
        out.append(struct.pack(">Bd", 0xcb, value))
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        _pack_head(out, len(data), 0xa0, 31, 0xd9, 0xda, 0xdb)
        out.append(data)
    elif isinstance(value, (bytes, bytearray)):
        _pack_head(out, len(value), 0, -1, 0xc4, 0xc5, 0xc6)
        out.append(bytes(value))
    elif isinstance(value, (list, tuple)):
        _pack_head(out, len(value), 0x90, 15, None, 0xdc, 0xdd)
        for element in value:
            _pack(out, element)
    elif isinstance(value, dict):
        _pack_head(out, len(value), 0x80, 15, None, 0xde, 0xdf)
        for key, element in value.items():
            _pack(out, key)
            _pack(out, element)
    else:
        raise TypeError("cannot pack " + type(value).__name__)


def pack(value):
    out = []
    _pack(out, value)
    return b"".join(out)


class _Unpacker:
    FIXED = {0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i",
             0xd3: ">q", 0xca: ">f", 0xcb: ">d"}
    SIZES = {0xd9: ">B", 0xda: ">H", 0xdb: ">I", 0xc4: ">B", 0xc5: ">H", 0xc6: ">I",
             0xdc: ">H", 0xdd: ">I", 0xde: ">H", 0xdf: ">I"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("truncated")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, size):
        return bytes(self.take(size)).decode("utf-8", "surrogateescape")

    def array(self, count):
        return [self.value() for _ in range(count)]

    def map(self, count):
        pairs = {}
        for _ in range(count):
            key = self.value()
            pairs[key] = self.value()
        return pairs

    def value(self):
        tag = self.take(1)[0]
        if tag <= 0x7f:
            return tag
        if tag >= 0xe0:
            return tag - 256
        if tag <= 0x8f:
            return self.map(tag & 15)
        if tag <= 0x9f:
            return self.array(tag & 15)
        if tag <= 0xbf:
            return self.text(tag & 31)
        if tag in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[tag]
        if tag in self.FIXED:
            return self.number(self.FIXED[tag])
        if tag not in self.SIZES:
            raise ValueError("tag 0x%02x" % tag)
        size = self.number(self.SIZES[tag])
        if tag <= 0xc6:
            return bytes(self.take(size))
        if tag <= 0xdb:
            return self.text(size)
        return self.array(size) if tag <= 0xdd else self.map(size)


def unpack(data):
    """The one value that `data` holds; ValueError where it is anything else."""
    unpacker = _Unpacker(data)
    value = unpacker.value()
    if unpacker.at != len(data):
        raise ValueError("%d bytes too many" % (len(data) - unpacker.at))
    return value


def same(a, b):
    """Equal, in type too: 1 is not 1.0 and not True; NaN is NaN; -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or \
               (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


# ---- frames ----

Frame = collections.namedtuple("Frame", "flag session data")
Reply = collections.namedtuple("Reply", "code results")


def frame(flag, session, data=b"", length=None):
    """The bytes of one frame; `length` for one that lies about it."""
    return struct.pack(">HBI", len(data) + 7 if length is None else length, flag, session) + data


def split(session, data):
    """The frames of one message, as bytes each."""
    if len(data) <= PART:
        return [frame(WHOLE, session, data)]
    parts = [data[at:at + PART] for at in range(0, len(data), PART)]
    flags = [FIRST] + [MIDDLE] * (len(parts) - 2) + [LAST]
    return [frame(flag, session, part) for flag, part in zip(flags, parts)]


def request(service, method, args=(), meta=None, kind=CALL):
    fields = [kind, service, method, list(args)]
    return pack(fields if meta is None else fields + [meta])


class ProtocolError(Exception):
    """The node broke the protocol."""


class Closed(Exception):
    """The node closed the connection."""


class FrameReader:
    """Bytes in, frames out; checks what a sender owes."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data

    def next(self):
        if len(self.buffer) < 2:
            return None
        length = struct.unpack_from(">H", self.buffer)[0]
        if not 7 <= length <= 7 + PART:
            raise ProtocolError("frame of %d bytes" % length)
        if len(self.buffer) < length:
            return None
        flag, session = struct.unpack_from(">BI", self.buffer, 2)
        data = bytes(self.buffer[7:length])
        del self.buffer[:length]
        if flag > GOAWAY or flag < WHOLE:
            raise ProtocolError("flag 0x%02x" % flag)
        if (session == 0) != (flag >= HELLO):
            raise ProtocolError("session %d with flag 0x%02x" % (session, flag))
        if flag >= HELLO and len(data) > 1024:
            raise ProtocolError("control frame of %d bytes" % len(data))
        return Frame(flag, session, data)


class Assembler:
    """Frames in, messages out; parts may be interleaved."""

    def __init__(self):
        self.partial = {}

    def take(self, got):
        """The whole message that this frame ends, or None."""
        if got.flag == WHOLE:
            if got.session in self.partial:
                raise ProtocolError("whole message amid its parts")
            return got.data
        if got.flag == FIRST:
            if got.session in self.partial:
                raise ProtocolError("second first part")
            self.partial[got.session] = []
        elif got.session not in self.partial:
            raise ProtocolError("part without a first one")
        self.partial[got.session].append(got.data)
        if got.flag != LAST:
            if len(got.data) != PART:
                raise ProtocolError("part of %d bytes" % len(got.data))
            return None
        return b"".join(self.partial.pop(got.session))


def reset(sock):
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Peer:
    """One end of a connection: frames both ways, PINGs answered. Everything waits at most
    `patience` seconds."""

    def __init__(self, sock, patience=20):
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.patience = sock, patience
        self.reader, self.assembler = FrameReader(), Assembler()
        self.controls = []          # control frames that came while we waited for something else
        self.answer_pings = True
        self.peer_hello = None

    def close(self):
        self.sock.close()

    def reset(self):
        reset(self.sock)

    def name(self):
        """This end's address, as the node's log names it."""
        return "%s:%d" % self.sock.getsockname()[:2]

    def _wait(self, read, until):
        left = until - time.monotonic()
        lists = ([self.sock], []) if read else ([], [self.sock])
        if left <= 0 or not any(select.select(*lists, [], left)):
            raise TimeoutError("the node was silent" if read else "the node did not read")

    def send(self, data, patience=None):
        until = time.monotonic() + (patience or self.patience)
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view):]
            except BlockingIOError:
                self._wait(False, until)
            except (ConnectionError, BrokenPipeError) as error:
                raise Closed(str(error)) from error

    def send_frame(self, flag, session, data=b"", length=None):
        self.send(frame(flag, session, data, length))

    def send_message(self, session, data):
        self.send(b"".join(split(session, data)))

    def hello(self, name="tester", incarnation=1, message_max=16777216):
        self.send_frame(HELLO, 0, pack([1, name, incarnation, message_max]))

    def frame(self, patience=None):
        """The next frame, whatever it is. Closed at the end of the connection, TimeoutError."""
        until = time.monotonic() + (self.patience if patience is None else patience)
        while True:
            got = self.reader.next()
            if got is not None:
                return got
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                self._wait(True, until)
                continue
            except ConnectionError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("end of the connection")
            self.reader.feed(data)

    def control(self, flag, patience=None):
        """The next control frame of this kind (its data, decoded unless it is a PING or PONG)."""
        for index, got in enumerate(self.controls):
            if got.flag == flag:
                del self.controls[index]
                break
        else:
            got = self.frame(patience)
            while got.flag != flag:
                if got.flag < HELLO:
                    raise ProtocolError("a message where control frame 0x%02x was due" % flag)
                self._on_control(got)
                got = self.frame(patience)
        return got.data if flag in (PING, PONG) else unpack(got.data)

    def _on_control(self, got):
        if got.flag == PING and self.answer_pings:
            self.send_frame(PONG, 0, got.data)
            return
        if got.flag == HELLO:
            self.peer_hello = unpack(got.data)
        self.controls.append(got)

    def message(self, patience=None):
        """(session, data) of the next whole message."""
        while True:
            got = self.frame(patience)
            if got.flag >= HELLO:
                self._on_control(got)
                continue
            data = self.assembler.take(got)
            if data is not None:
                return got.session, data

    def wait_closed(self, patience=None):
        """Reads until the node closes; returns the frames that came before."""
        frames = []
        try:
            while True:
                frames.append(self.frame(patience))
        except Closed:
            return frames


def connect(address, receive_buffer=None):
    """A connected socket: (ip, port), or the path of a local socket."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(20)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


class RemoteError(Exception):
    def __init__(self, reply):
        super().__init__("%s: %r" % (CODES[reply.code] if reply.code < len(CODES) else reply.code,
                                     reply.results))
        self.code = reply.code
        self.message = reply.results[0] if reply.results else None


class Client(Peer):
    """Sends requests. Says HELLO only where it is told to."""

    def __init__(self, address, say_hello=False, patience=20, receive_buffer=None):
        super().__init__(connect(address, receive_buffer), patience)
        self.last_session = 0
        self.replies = {}
        if say_hello:
            self.hello()
            self.peer_hello = self.control(HELLO)

    def next_session(self):
        self.last_session += 1
        return self.last_session

    def start(self, service, method, *args, meta=None):
        """Sends a request; returns its session."""
        session = self.next_session()
        self.send_message(session, request(service, method, args, meta))
        return session

    def post(self, service, method, *args):
        """Sends a request that wants no answer."""
        self.send_message(self.next_session(), request(service, method, args, kind=SEND))

    def reply(self, session=None, patience=None):
        """The reply to `session`; None: whichever comes next, as (session, Reply)."""
        while session not in self.replies:
            key, data = self.message(patience)
            value = unpack(data)
            if not isinstance(value, list) or len(value) < 3 or value[0] != REPLY \
                    or type(value[1]) is not int or not isinstance(value[2], list):
                raise ProtocolError("not a reply: %r" % (value,))
            reply = Reply(value[1], value[2])
            if session is None:
                return key, reply
            if key in self.replies:
                raise ProtocolError("a second reply to session %d" % key)
            self.replies[key] = reply
        return self.replies.pop(session)

    def call(self, service, method, *args, meta=None, patience=None):
        """A Reply, whatever its code."""
        return self.reply(self.start(service, method, *args, meta=meta), patience)

    def ask(self, service, method, *args, patience=None):
        """The results; RemoteError for a code other than 0."""
        reply = self.call(service, method, *args, patience=patience)
        if reply.code != OK:
            raise RemoteError(reply)
        return reply.results


class FakeServer:
    """Takes the place of a node: a listening socket whose connections a test drives by hand."""

    def __init__(self, address, backlog=16):
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket(socket.AF_INET)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(address)
        self.sock.listen(backlog)
        self.address = address

    def accept(self, patience=20, hello=True, receive_buffer=None):
        """The next connection. hello: reads the node's HELLO and answers it, else leaves it to the
        test."""
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(patience)
        sock, _ = self.sock.accept()
        peer = FakeConnection(sock)
        if hello:
            peer.peer_hello = peer.control(HELLO)
            peer.hello("fake")
        return peer

    def close(self):
        self.sock.close()
        if isinstance(self.address, str) and os.path.exists(self.address):
            os.unlink(self.address)


class FakeConnection(Peer):
    """What a fake server has accepted: reads requests, writes replies."""

    def request(self, patience=None):
        """(session, [kind, service, method, args, meta])"""
        session, data = self.message(patience)
        return session, unpack(data)

    def answer(self, session, *results, code=OK):
        self.send_message(session, pack([REPLY, code, list(results)]))


class StuckAddress:
    """An address where connecting neither succeeds nor fails: its listen queue is full and nobody
    accepts."""

    def __init__(self, ip):
        self.listener = socket.socket()
        self.listener.bind((ip, 0))
        self.listener.listen(0)
        self.address = self.listener.getsockname()
        self.fill = []
        while True:                      # a queue of 0 still takes one or two
            sock = socket.socket()
            sock.settimeout(0.2)
            self.fill.append(sock)
            try:
                sock.connect(self.address)
            except TimeoutError:
                return
            if len(self.fill) > 64:
                raise RuntimeError("the listen queue does not fill up")

    def close(self):
        for sock in self.fill + [self.listener]:
            sock.close()
