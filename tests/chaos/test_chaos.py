#!/usr/bin/env python3
"""The tools of tests/chaos are checked themselves: each rule of journal.py has a journal that breaks
it, and each fault of the proxy does what it says."""

import os
import socket
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import journal
import network
from journal import CALL, DAMAGED, EXECUTED, MAYBE, NO, OUTCOME, SEND, UNSENT, YES

TARGET = 0x21
BASE = 1 << journal.LIFE_SHIFT


def record(kind, index, code=0, how=0, who=TARGET, ms=0):
    return journal.RECORD.pack(kind, code, how, who, ms, BASE + index)


def call(index, code=0, how=YES, times=1, late_ms=0):
    """Records of a call as it should be: made, executed, ended."""
    records = [record(CALL, index, ms=100)] + [record(EXECUTED, index)] * times
    return b"".join(records + [record(OUTCOME, index, code, how, ms=late_ms)])


class JournalTest(unittest.TestCase):
    def judge(self, *records, **options):
        life = journal.Life(1, "game_1/load_1")
        for name, value in options.pop("life", {}).items():
            setattr(life, name, value)
        return journal.judge({"game_1": b"".join(records)}, {1: life}, **options)

    def broken(self, text, *records, **options):
        with self.assertRaisesRegex(journal.PromiseBroken, text):
            self.judge(*records, **options)

    def test_what_should_be_is_counted(self):
        counts, latest = self.judge(call(1), call(2, 7), call(3, 3, MAYBE), call(4, 3, NO, times=0),
                                    record(SEND, 5), record(EXECUTED, 5), record(SEND, 6),
                                    record(UNSENT, 6, 2, NO), call(7, 4, MAYBE, late_ms=5))
        self.assertEqual(latest, 5)
        self.assertEqual(counts["calls"], 5)
        self.assertEqual(counts["sends"], 2)
        self.assertEqual(counts["executed"], 5)
        self.assertEqual(counts["ok/yes"], 1)
        self.assertEqual(counts["disconnected/maybe"], 1)

    def test_every_call_has_one_outcome(self):
        self.broken("no outcome", record(CALL, 1))
        self.broken("a second outcome", call(1), record(OUTCOME, 1, 0, YES))
        self.judge(record(CALL, 1), life={"ended": True})
        self.broken("a second outcome", call(1), record(OUTCOME, 1), life={"ended": True})

    def test_an_outcome_comes_by_the_deadline(self):
        self.judge(call(1, late_ms=journal.LATE_MS))
        self.broken("after its deadline", call(1, late_ms=journal.LATE_MS + 1))
        self.judge(call(1, late_ms=journal.LATE_MS + 50), life={"still_ms": 50})

    def test_an_outcome_is_one_of_the_table_and_expected(self):
        self.broken("no such pair", call(1, 2, MAYBE, times=0))
        self.broken("no such pair", call(1, 0, NO))
        self.broken("not expected", call(1, 5, NO, times=0))
        self.judge(call(1, 5, NO, times=0), allowed={5})
        self.broken("the answer is not", call(1, journal.WRONG_ANSWER))

    def test_nothing_is_executed_twice_or_astray_or_from_nowhere(self):
        self.broken("executed twice", call(1, times=2))
        self.broken("executed twice", record(SEND, 1), record(EXECUTED, 1), record(EXECUTED, 1))
        self.broken("by another service", record(CALL, 1), record(EXECUTED, 1, who=TARGET + 1),
                    record(OUTCOME, 1, 0, YES))
        self.broken("nobody made it", record(EXECUTED, 1))

    def test_executed_is_what_happened(self):
        self.broken("outcome says no", call(1, 3, NO))
        self.broken("outcome says no", record(OUTCOME, 1, 2, NO), record(CALL, 1),
                    record(EXECUTED, 1))       # in whatever order it was written down
        self.broken("outcome says yes", call(1, times=0))

    def test_order_holds_within_a_connection(self):
        late = (call(2), call(1))
        self.broken("executed after 2", *late)
        self.broken("executed after 2", call(2), record(SEND, 1), record(EXECUTED, 1))
        counts, _ = self.judge(call(2), record(SEND, 1), record(EXECUTED, 1), call(3, 3, MAYBE))
        self.assertEqual(counts["overtaken by a reconnect"], 1)
        self.broken("executed after 2", *late, call(3, 3, MAYBE))   # 1 had its answer

    def test_changed_bytes_excuse_one_link_only(self):
        self.broken("other arguments", call(1), record(DAMAGED, 0))
        twice = call(1, times=2)
        self.judge(twice, record(DAMAGED, 0), unsafe={(1, TARGET >> 4)})
        self.broken("executed twice", twice, unsafe={(1, (TARGET >> 4) + 1)})
        self.broken("no outcome", record(CALL, 1), unsafe={(1, TARGET >> 4)})


class ProxyTest(unittest.TestCase):
    def setUp(self):
        self.network = network.Network(1, {})
        self.addCleanup(self.network.close)
        self.listener = socket.socket()
        self.addCleanup(self.listener.close)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.address = tuple(self.network.link("link", "127.0.0.1", self.listener.getsockname()))

    def connect(self):
        client = socket.create_connection(self.address, 10)
        self.addCleanup(client.close)
        server, _ = self.listener.accept()
        self.addCleanup(server.close)
        server.settimeout(10)
        client.sendall(b"-")        # the proxy has both ends now
        self.assertEqual(server.recv(1), b"-")
        return client, server

    def receive(self, sock, size):
        data = b""
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                break
            data += more
        return data

    def silent(self, sock, seconds=0.1):
        sock.settimeout(seconds)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        sock.settimeout(10)

    def test_bytes_pass_unchanged_and_an_end_as_well(self):
        data = os.urandom(3 << 20)
        for faults in ({}, {"delay_ms": 1, "jitter_ms": 3}, {"split": 40000, "pause_ms": 0.1}):
            client, server = self.connect()
            self.network.stream("link", "up", **faults)
            client.setblocking(False)
            sent, got = 0, b""
            while len(got) < len(data):     # more than all buffers hold, so both ends in turn
                try:
                    sent += client.send(data[sent:sent + 65536])
                except BlockingIOError:
                    pass
                if len(got) < sent:
                    got += server.recv(1 << 20)
            self.assertEqual(got, data)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(server.recv(1), b"")
            server.sendall(b"the other way is open still")
            client.settimeout(10)
            self.assertEqual(client.recv(3), b"the")

    def test_small_pieces_are_small(self):
        client, server = self.connect()
        self.network.stream("link", "up", split=3, pause_ms=20)
        client.sendall(b"abcdefg")
        self.assertEqual([server.recv(10), server.recv(10), server.recv(10)],
                         [b"abc", b"def", b"g"])

    def test_delay_is_that_long(self):
        client, server = self.connect()
        self.network.stream("link", "down", delay_ms=100)
        began = time.monotonic()
        server.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")
        self.assertGreaterEqual(time.monotonic() - began, 0.1)

    def test_stalled_bytes_come_later_and_swallowed_ones_never(self):
        client, server = self.connect()
        self.network.stream("link", "up", stall=True)
        client.sendall(b"x")
        self.silent(server)
        self.network.stream("link", "up")
        self.assertEqual(server.recv(1), b"x")
        self.network.stream("link", "up", swallow=True)
        client.sendall(b"y")
        self.silent(server)
        self.network.heal()
        with self.assertRaises(ConnectionResetError):
            server.recv(1)

    def test_corruption_changes_bytes(self):
        client, server = self.connect()
        self.network.stream("link", "up", corrupt=1)
        client.sendall(b"x" * 100)
        got = self.receive(server, 100)
        self.assertEqual(len(got), 100)
        self.assertNotEqual(got, b"x" * 100)
        self.assertGreaterEqual(self.network.counts()["corrupted"], 1)

    def test_a_cut_is_seen_as_ordered(self):
        for how, error in (("rst", ConnectionResetError), ("fin", None)):
            client, server = self.connect()
            self.assertEqual(self.network.cut("link", how), 1)
            for sock in (client, server):
                if error:
                    self.assertRaises(error, sock.recv, 1)
                else:
                    self.assertEqual(sock.recv(1), b"")

    def test_half_open_is_half_open(self):
        client, server = self.connect()
        self.network.cut("link", "rst_client")
        self.assertRaises(ConnectionResetError, client.recv, 1)
        server.sendall(b"x")
        self.silent(server)
        self.network.heal()
        self.assertRaises(ConnectionResetError, server.recv, 1)

    def test_a_cut_after_so_many_bytes_is_exact(self):
        client, server = self.connect()
        self.network.cut_after("link", "up", 1000, "fin")
        client.sendall(b"x" * 1500)
        self.assertEqual(len(self.receive(server, 1500)), 1000)

    def test_who_does_not_listen_refuses(self):
        self.network.listen("link", False)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, self.address)
        self.network.listen("link", True)
        self.connect()


if __name__ == "__main__":
    unittest.main()
