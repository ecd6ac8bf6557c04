#!/usr/bin/env python3
"""Writes the inputs that fuzzing begins with into corpus/TARGET/seed-*: one or a few good ones of
each kind, so that the fuzzers need not find out by themselves what a frame or a node list is.

    tests/fuzz/seeds.py [FOLDER]

The targets read what is fed from the front and what decides how from the back, so the last byte
written here is the first that decides.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "node"))
from wire import (CALL, FIRST, GOAWAY, HELLO, LAST, MIDDLE, PING, PONG, REPLY, SEND, WHOLE,
                  frame, pack)


def decide(*what):
    """Bytes that are read one after the other, from the back."""
    return bytes(reversed(bytes(what)))


# ---- sessions ----

def hello(name="there", message_max=1 << 20):
    return frame(HELLO, 0, pack([1, name, 99, message_max]))


REQUEST = pack([CALL, "room", "join", [1, "two", [3.5]], {1: 500, 3: 77}])

STREAMS = {
    "hello": hello(),
    "whole": frame(WHOLE, 1, REQUEST) + frame(WHOLE, 2, b""),
    "parts": hello() + frame(FIRST, 1, b"a" * 300) + frame(FIRST, 2, b"b") +
             frame(MIDDLE, 1, b"c" * 300) + frame(LAST, 2, b"d") + frame(LAST, 1, b"e"),
    "control": hello() + frame(PING, 0, b"12345678") + frame(PONG, 0, b"12345678") +
               frame(GOAWAY, 0, pack([11, "draining"])),
    "hello_twice": hello() + hello("other"),
    "bad_length": frame(WHOLE, 1, b"good") + b"\x00\x06",
    "bad_flag": frame(WHOLE, 1, b"good") + b"\x00\x08\x77\x00\x00\x00\x01x",
    "session_0": b"\x00\x08\x80\x00\x00\x00\x00x",
    "middle_first": frame(MIDDLE, 5, b"x"),
}


def session_seeds():
    for name, stream in STREAMS.items():
        for role in (0, 1):
            yield f"{name}_{role}_cut", stream + decide(role, *[6] * (len(stream) // 7 + 1))
    feed = [8 * 16 + 8] * 4
    sends = [1, 0, 1, 7, 1, 8 + 5, 1, 8 + 6, 5]
    yield "long", frame(FIRST, 9, b"x" * 32768) + frame(LAST, 9, b"y") + decide(1, 254, 252, 9, 250)
    yield "too_long", frame(WHOLE, 1, b"x" * 1025) + decide(2, 249)
    yield "too_long_in_parts", hello() + frame(FIRST, 1, b"x" * 600) + frame(LAST, 1, b"y" * 425) + decide(2, 200, 249)
    for name, stream in STREAMS.items():
        yield f"{name}_sends", stream + decide(0x80, *feed, *sends, 2, 200, *feed, 5)
    both = STREAMS["control"] + STREAMS["parts"] + STREAMS["whole"]
    for hostile in (1, 2, 3, 4, 5, 7):
        for where in range(3):
            yield f"hostile_{hostile}_{where}", both + decide(0x81, 0, where, hostile, *feed, 5, 2, 9)
    yield "no_memory", both + decide(0x80, 4, *feed, 0x34, *feed, 0x74, 1, 7, *feed)
    yield "short_writes", both + decide(0x80, 0x13, 1, 7, 1, 6, 5, *feed, 5, 2, 100)


# ---- values, requests ----

def nested(depth):
    return b"\x91" * depth + b"\xc0"


def value_seeds():
    values = [[], [None, True, False], [0, 127, 128, 255, 256, 65535, 65536, -1, -32, -33, -128, -129],
              [1 << 31, 1 << 32, (1 << 63) - 1, -(1 << 63)], [1.5, float("inf"), float("nan"), -0.0],
              ["", "a" * 31, "b" * 32, "c" * 256], [{}, {"k": 1}, {1: 2, 2: 3}, {1.5: [{}]}],
              [[1, [2, [3, [4]]]], {"a": {"b": {"c": None}}}], list(range(20)), [{i: i for i in range(20)}]]
    for i, value in enumerate(values):
        yield f"good_{i}", pack(value) + decide(0, 0)
        yield f"no_memory_{i}", pack(value) + decide(140, 0)
    yield "short", pack(values[8]) + decide(0, 15)
    yield "deep", nested(65) + decide(0, 0)
    yield "too_deep", nested(66) + decide(0, 0)
    for i, raw in enumerate([b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\x01\x01", b"\x91\xc1",
                             b"\x91\xd4\x01\x01", b"\x91\xcf" + b"\xff" * 8, b"\x91\xca\x7f\xc0\x00\x00",
                             b"\x91\x81\xc0\x01", b"\x91\x81\xca\x7f\xc0\x00\x00\x01", b"\x91\xc4\x03abc",
                             b"\x91\x82\x01\x01\x01\x02", b"\x91\x81\x90\x01"]):
        yield f"raw_{i}", raw + decide(0, 0)


def request_seeds():
    values = [[CALL, "room", "join", []], [SEND, "room", "join", [1, [2], {"x": 1}], {}],
              [CALL, "s", "m", [], {1: 1000}], [CALL, "s", "m", [], {1: 1 << 50}],
              [CALL, "s", "m", [], {1: -1, 2: [1, 2], 3: 9, 4: 1, "x": None}], [CALL, "", "", [], {}, 1, "two"],
              [REPLY, 0, []], [REPLY, 7, ["text"]], [REPLY, 0, [1, 2, {"a": [3]}], "more"],
              [REPLY, 65535, []], [REPLY, -1, []], [CALL, "s", "m", {}], [4, "s", "m", []], [CALL, "s", "m"], 1]
    for i, value in enumerate(values):
        yield f"{i}", pack(value) + decide(i * 17)
    yield "twice", pack(values[0]) * 2 + decide(0)
    yield "no_memory", pack(values[1]) + decide(64 + 40)


# ---- Lua files ----

CONFIGS = [
    "",
    'workers = 2\nadmin = "run/%s.sock"\nclustername = "names.lua"\npath = "a/?.lua;b/?.lua"\ncpath = "?.so"\n',
    'log = {level = "debug", file = "x.log", format = "json"}\nlua_memory_max = 1 << 24\nmailbox_max = 10\n',
    "cluster = {call_timeout_ms = 1, connect_timeout_ms = 2, heartbeat_ms = 100, message_max = 1 << 20,\n"
    "  pending_max = 1, cache_max = 1, send_buffer_max = 65536}\nstop_timeout_ms = 0\n",
    'services = {"a", {"b", name = "c", args = {1, "x", {y = {2.5, true}}}}, {script = "d"}}\n',
    "admin = nil\nlog = {file = false}\nlua_memory_max = false\n",
    "workers = -1\nnonsense = 1\ncluster = {heartbeat = 5}\nlog = 7\nservices = {1, {}, {{}}}\n",
    "while true do end", 'x = "a" for i = 1, 40 do x = x .. x end', "syntax error here", "\x1bLua", "\ufeffworkers = 1",
    "workers = 1 // 0\n", "_ENV[1] = 2\n_ENV[{}] = 3\n", "goto x ::x:: workers = 0x10",
]
OVERRIDES = ["workers=3", "log.level=warn", "admin=nil", "services={'a',{'b',args={1}}}", "cluster.message_max=2000",
             "nonsense=1", "=", "log.file='x y'", "path=[[?.lua]]", "workers"]


def config_seeds():
    for i, text in enumerate(CONFIGS):
        yield f"{i}", text.encode("utf-8", "surrogateescape") + decide(0)
    for i, text in enumerate(OVERRIDES):
        yield f"set_{i}", b"workers = 1\0" + text.encode() + b"\0" + decide(0)
    for nth in (1, 5, 20, 60):
        yield f"no_memory_{nth}", CONFIGS[4].encode() + decide(127 + nth)


def node_list_seeds():
    texts = ['n1 = "127.0.0.1:7001"\nn2 = "127.0.0.1:7002"\nn3 = false\n', 'n1 = "[::1]:7001"\nn2 = "[fe80::1]:65535"\n',
             'n1 = "1.2.3.4:0"', 'n1 = "1.2.3.4:99999"', 'n1 = "nonsense"', "n1 = 7", "n2 = false",
             'a = "1.1.1.1:1" b = "1.1.1.1:1"', 'for i = 1, 30 do _ENV["n" .. i] = "1.2.3.4:" .. 1000 + i end',
             '_ENV["bad name"] = false', f'{"n" * 65} = false', "n1 = nil", '_ENV["n\\0"] = false', "\n\n\nn1 = = 1",
             'n1 = "[::ffff:1.2.3.4]:5" n2 = "[0:0:0:0:0:ffff:102:304]:5"']
    for i, text in enumerate(texts):
        yield f"{i}", text.encode() + decide(0, i % 2)
    yield "no_memory", texts[8].encode() + decide(150, 0)


# ---- the console ----

def admin_seeds():
    def ask(verb, *arguments, json=False):
        return frame(WHOLE, 7, pack([CALL, "console", verb, [*arguments, {"json": json}], {1: 1000}]))
    verbs = [ask(verb, json=json) for verb in ("nodes", "services", "stat", "reload", "help", "stop") for json in (False, True)]
    verbs += [ask("nodse"), ask("nodes", "too", "many"), ask("rewrite"), ask("rewrite", 'n1 = "127.0.0.1:7001" n9 = false'),
              ask("rewrite", "n1 = 1"), ask("rewrite", 5), frame(WHOLE, 1, pack([CALL, "clusterclient", "reload", []])),
              frame(WHOLE, 1, pack([SEND, "console", "stat", []])), frame(WHOLE, 1, pack([CALL, "console", "", []])),
              frame(WHOLE, 1, pack([CALL, "console", ".start", ["x"]])), frame(WHOLE, 1, b"\xc1")]
    for i, verb in enumerate(verbs):
        yield f"{i}", verb + decide(240)
    yield "several", hello() + b"".join(verbs[:8]) + decide(9, 99, 200, 240)
    parts = pack([CALL, "console", "rewrite", ["x" * 200, {}]])
    yield "parts", frame(FIRST, 3, parts[:100]) + frame(LAST, 3, parts[100:]) + decide(50, 240)


def control_seeds():
    listed = [{"n1": "127.0.0.1:7001", "n2": False}, {"n1": "127.0.0.1:7001"}, {"n2": "[::1]:80"}, {"bad name": False}, {"n1": "x"}, 7]
    for i, value in enumerate(listed):
        args = pack([value])
        yield f"apply_{i}", args + decide(128, len(args))
    first, second = pack([listed[0]]), pack([listed[2]])
    yield "reload", first + second + decide(0, len(first), 128, len(second), 2, 0, 3, 0)
    yield "drain", pack([]) * 4 + decide(4, 1, 4, 1, 128 + 5, 1, 128 + 4, 1)
    yield "drain_waits", pack([]) * 2 + decide(0xf9, 128 + 4, 1, 128 + 4, 1, 0xf8)
    yield "listen_twice", pack([]) * 2 + decide(6, 1, 6, 1)
    yield "observe", pack([1]) * 2 + decide(1, 2, 2, 1, 7, 0)
    for nth in range(1, 9):
        yield f"no_memory_{nth}", first + decide(0xf0, nth, 128, len(first), 128 + 2, 0, 0xf0, nth, 3, 0)


# ---- the reactor ----

def reactor_seeds():
    turn, quiet = (13, 0), (13, 1)
    yield "watch", decide(*(0, 3), *(0, 2), *turn, 0, *quiet, *(0, 3), *quiet, *(0, 4), *quiet, *(0, 0), *quiet)
    yield "siblings", decide(*(0, 3), *(16, 3), *(32, 3), *turn, 3, 0, 0, 16, 0, 32, 0, *quiet, *(0, 1), *quiet)
    yield "timers", decide(*(4, 6), 30, *(20, 10), 40, *(36, 14), 50, *(12, 1), *turn, *(12, 4), *quiet, *(12, 7), *quiet)
    yield "timer_in_timer", decide(*(4, 6), 20, *(12, 4), *turn, 2, *(4, 6), 20, *(20, 6), 21, *quiet, *(12, 5), *quiet)
    yield "deferred", decide(*(6, 2), *(22, 2), *turn, 2, *(22, 0), *(6, 2), *quiet, *quiet)
    yield "hooks", decide(*(8, 0), *(24, 0), *turn, 2, *(24, 0), *(8, 0), *quiet)
    yield "wakes", decide(*(9, 1), *(9, 1), *turn, 1, *(9, 1), *quiet, *(9, 0), *quiet)
    yield "pair", decide(*(10, 1), *(10, 1), *(10, 1), *turn, 2, *(10, 1), *(10, 0), *quiet)
    yield "no_memory", decide(*(11, 1), *(0, 3), *(11, 1), *(9, 1), *(11, 2), *(10, 1), *quiet)


def stream_seeds():
    turn = (3, 0)
    yield "write", decide(*(0, 0), 0, 0, 6, 0, 12, 13, *turn, 0, 10 + 12, *turn)
    for size in range(8):
        yield f"reference_{size}", decide(*(0, 3), 0, 0, size, 0, 24, size, 0, 1, size, *turn, 0, 130, *turn)
    yield "echo", decide(*(0, 0), 0, 8, 3, *turn, 0, 1, 0, 0, 2, *turn, 0, 10, *turn)
    yield "rest", decide(*(0, 0), 0, 8, 4, *turn, 200, 0, 0, 8, 4, *turn, 0, 0)
    yield "close", decide(*(0, 0), 0, 12, 7, 0, 6 + 132, *turn, 0, 130, *turn, 0, *turn)
    yield "finish_inside", decide(*(0, 0), 4, 0, 0, 8, 3, 4, 8, 3, *turn, 0, 2, 0, 7, 4, 7, *turn)
    yield "peer_closes", decide(*(0, 0), 0, 12, 7, 0, 11, *turn, 0, *turn, 0)
    yield "half_closed", decide(*(0, 0), 0, 12, 3, 0, 131, *turn, 0, *turn, 0)
    yield "no_memory", decide(*(0, 0), 2, 4, 0, 12, 7, 0, 8, 6, *turn, 200, 0, *turn)
    yield "paused", decide(*(0, 0), 0, 5 + 132, 0, 8, 5, *turn, 0, 5, *turn, 0, 0)


TARGETS = {"session": session_seeds, "value": value_seeds, "request": request_seeds, "config": config_seeds,
           "node_list": node_list_seeds, "admin": admin_seeds, "control": control_seeds, "reactor": reactor_seeds,
           "stream": stream_seeds}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "corpus")
    for target, seeds in TARGETS.items():
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        for name, content in seeds():
            with open(os.path.join(folder, target, "seed-" + name), "wb") as file:
                file.write(content)


main()
