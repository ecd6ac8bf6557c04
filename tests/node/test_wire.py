"""The protocol client checks itself: without this, a fault in it could pass for one in the node."""

import socket
import unittest

import wire


class WireTest(unittest.TestCase):
    def pair(self):
        ends = socket.socketpair()
        peers = [wire.Peer(end, patience=2) for end in ends]
        for peer in peers:
            self.addCleanup(peer.close)
        return peers

    def test_wire_packs_every_kind_of_value_and_reads_it_back(self):
        values = [None, True, False, 0, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32,
                  2 ** 63 - 1, -1, -32, -33, -128, -129, -32768, -32769, -2 ** 31 - 1, -2 ** 63,
                  0.0, -0.0, 1.5, float("inf"), float("nan"), "", "a" * 31, "a" * 32, "a" * 256,
                  "a" * 65536, "\udcff\udc80", b"", b"\xff" * 300, [], list(range(16)), [[[]]],
                  list(range(70000)), {}, {"a": {1: [None]}}, {i: i for i in range(20)}]
        for value in values:
            self.assertTrue(wire.same(wire.unpack(wire.pack(value)), value), repr(value)[:80])

    def test_wire_packs_as_the_format_says(self):
        self.assertEqual(wire.pack([1, "echo", {"a": None}, -1, 1.0, 300]),
                         b"\x96\x01\xa4echo\x81\xa1a\xc0\xff\xcb\x3f\xf0\0\0\0\0\0\0\xcd\x01\x2c")

    def test_wire_refuses_what_does_not_decode(self):
        for data in (b"", b"\xc1", b"\x91", b"\xa2a", b"\x01\x01", b"\xcd\x01",
                     b"\xc7\x01\x01\x01"):
            with self.assertRaises(ValueError, msg=data):
                wire.unpack(data)

    def test_wire_tells_values_of_different_type_apart(self):
        for a, b in ((1, 1.0), (1, True), ("a", b"a"), (0.0, -0.0), ([1], [1.0]), ({1: 1}, {1: 2})):
            self.assertFalse(wire.same(a, b), (a, b))

    def test_wire_frame_is_length_flag_session_data(self):
        self.assertEqual(wire.frame(wire.WHOLE, 0x01020304, b"ab"), b"\0\x09\x80\x01\x02\x03\x04ab")

    def test_wire_cuts_a_message_every_32768_bytes(self):
        for size, flags in ((0, [0x80]), (32768, [0x80]), (32769, [0x81, 0x83]),
                            (98304, [0x81, 0x82, 0x83]), (98305, [0x81, 0x82, 0x82, 0x83])):
            frames = wire.split(7, b"x" * size)
            self.assertEqual([frame[2] for frame in frames], flags)
            self.assertEqual(sum(map(len, frames)), size + 7 * len(flags))

    def test_wire_puts_interleaved_messages_together(self):
        a, b = self.pair()
        one, two = b"1" * 70000, b"2" * 100000
        frames = [wire.split(1, one), wire.split(2, two)]
        while any(frames):
            for queue in frames:
                if queue:
                    a.send(queue.pop(0))
        self.assertEqual([b.message(), b.message()], [(1, one), (2, two)])

    def test_wire_notices_a_node_that_breaks_the_rules(self):
        part = b"x" * wire.PART
        for bad in (wire.frame(wire.WHOLE, 1, length=6), wire.frame(wire.WHOLE, 0),
                    wire.frame(wire.PING, 1), wire.frame(0x88, 0), wire.frame(wire.MIDDLE, 1, part),
                    wire.frame(wire.FIRST, 1, part) * 2, wire.frame(wire.FIRST, 1, b"short"),
                    wire.frame(wire.FIRST, 1, part) + wire.frame(wire.WHOLE, 1)):
            a, b = self.pair()
            a.send(bad)
            with self.assertRaises(wire.ProtocolError, msg=bad[:10]):
                b.message()

    def test_wire_answers_a_ping_and_keeps_other_control_frames(self):
        a, b = self.pair()
        a.hello()
        a.send_frame(wire.PING, 0, b"data")
        a.send_message(5, b"\xc0")
        self.assertEqual(b.message(), (5, b"\xc0"))
        self.assertEqual(a.frame(), (wire.PONG, 0, b"data"))
        self.assertEqual(b.control(wire.HELLO), [1, "tester", 1, 16777216])

    def test_wire_client_and_fake_server_understand_each_other(self):
        server = wire.FakeServer(("127.0.0.1", 0))
        self.addCleanup(server.close)
        client = wire.Client(server.sock.getsockname(), patience=2)
        self.addCleanup(client.close)
        first, second = client.start("s", "m", 1, None), client.start("s", "m", "x" * 50000)
        peer = server.accept(hello=False)
        self.addCleanup(peer.close)
        self.assertEqual(peer.request(), (first, [1, "s", "m", [1, None]]))
        self.assertEqual(peer.request()[0], second)
        peer.answer(second, "b")
        peer.answer(first, "no", code=wire.FAILED)
        self.assertEqual(client.reply(first), (wire.FAILED, ["no"]))
        self.assertEqual(client.reply(second), (wire.OK, ["b"]))

    def test_wire_stuck_address_takes_no_connection(self):
        stuck = wire.StuckAddress("127.0.0.1")
        self.addCleanup(stuck.close)
        with socket.socket() as sock:
            sock.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                sock.connect(stuck.address)
