"""The wire protocol at an accepting node (SPEC section 5): every rule of frames and data, and each
refusal with proof that nobody else notices."""

import itertools
import random
import time
import unittest

import wire
from evptnode import NodeCase, settings, wait_until

SCRIPT = """
local held, hits = {}, 0
evpt.export {
    echo = function(...) return ... end,
    size = function(s) return #s end,
    make = function(size) return ("x"):rep(size) end,
    boom = function() error("boom") end,
    hold = function(key) held[key] = coroutine.running() evpt.wait() return "held " .. key end,
    free = function(key) evpt.wakeup(held[key]) end,
    waits = function(key) return held[key] ~= nil end,
    hit = function() hits = hits + 1 end,
    hits = function() return hits end,
}
"""
MAX = 1 << 20       # message_max of these nodes, where it matters


class FrameCase(NodeCase):
    def start(self, config=None, **cluster):
        self.game = self.node("game_1", SCRIPT, config=dict(config or {}, cluster=cluster,
                                                            stop_timeout_ms=500))
        self.peer = self.game.client()
        return self.peer


class MessageTest(FrameCase):
    def test_a_plain_peer_is_served_and_gets_no_control_frames(self):
        peer = self.start(heartbeat_ms=50)
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))
        time.sleep(0.4)         # eight heartbeats
        self.assertEqual(peer.call("s", "echo", 2), (wire.OK, [2]))
        self.assertEqual(peer.controls, [])

    def test_reply_bears_the_session_of_its_request(self):
        peer = self.start()
        for session in (1, 2 ** 31, 2 ** 32 - 1, 77):
            peer.send_message(session, wire.request("s", "echo", [session]))
            self.assertEqual(peer.message(), (session, wire.pack([3, 0, [session]])))

    def test_messages_are_cut_every_32768_bytes(self):
        peer = self.start()
        for size in (32767, 32768, 32769, 65536, 65537, 98304, 98305):
            # [3, 0, [str]]: 1 + 1 + 1 + 1 bytes and the head of the str
            length = size - 4 - (5 if size - 9 > 65535 else 3)
            session = peer.start("s", "make", length)
            want = wire.split(session, wire.pack([3, 0, ["x" * length]]))
            self.assertEqual(sum(len(frame) - 7 for frame in want), size)
            for frame in want:
                got = peer.frame()
                self.assertEqual(wire.frame(*got), frame)

    def test_98304_bytes_are_exactly_three_frames(self):
        peer = self.start()
        session = peer.start("s", "make", 98304 - 9)
        frames = [peer.frame() for _ in range(3)]
        self.assertEqual([(f.flag, f.session, len(f.data)) for f in frames],
                         [(0x81, session, 32768), (0x82, session, 32768), (0x83, session, 32768)])

    def test_requests_of_every_size_around_the_cut_arrive(self):
        peer = self.start()
        base = len(wire.request("s", "size", ["x" * 70000])) - 70000
        for total in (32767, 32768, 32769, 65536, 65537, 98304, 98305, 131072):
            self.assertEqual(peer.ask("s", "size", "x" * (total - base)), [total - base])

    def test_parts_of_any_size_are_put_together(self):
        peer = self.start()
        data = wire.request("s", "size", ["x" * 1000])
        for cuts in ([500], [0, 0, 500], [1, 2, 3, 1000], [len(data)]):
            ends = cuts + [len(data)]
            parts = [data[a:b] for a, b in zip([0] + cuts, ends)]
            peer.send_frame(wire.FIRST, 9, parts[0])
            for part in parts[1:-1]:
                peer.send_frame(wire.MIDDLE, 9, part)
            peer.send_frame(wire.LAST, 9, parts[-1])
            self.assertEqual(peer.message(), (9, wire.pack([3, 0, [1000]])))

    def test_frames_may_arrive_byte_by_byte(self):
        peer = self.start()
        for byte in wire.frame(wire.WHOLE, 5, wire.request("s", "echo", ["slow"])):
            peer.send(bytes([byte]))
        self.assertEqual(peer.message(), (5, wire.pack([3, 0, ["slow"]])))

    def test_many_requests_may_arrive_at_once(self):
        peer = self.start()
        peer.send(b"".join(wire.frame(wire.WHOLE, i, wire.request("s", "echo", [i]))
                           for i in range(1, 5001)))
        for i in range(1, 5001):        # one sender, one receiver: in order
            self.assertEqual(peer.message(), (i, wire.pack([3, 0, [i]])))

    def test_requests_in_interleaved_parts_arrive(self):
        peer = self.start()
        queues = {s: wire.split(s, wire.request("s", "size", ["x" * (s * 30000)]))
                  for s in range(1, 12)}
        rng = random.Random(1)
        while queues:
            session = rng.choice(sorted(queues))
            peer.send(queues[session].pop(0))
            if not queues[session]:
                del queues[session]
        got = dict(peer.message() for _ in range(11))
        for session in range(1, 12):
            self.assertEqual(wire.unpack(got[session]), [3, 0, [session * 30000]])

    def test_a_small_request_overtakes_the_parts_of_a_large_one(self):
        peer = self.start()
        frames = wire.split(1, wire.request("s", "size", ["x" * 200000]))
        for frame in frames[:-1]:
            peer.send(frame)
        peer.send_message(2, wire.request("s", "echo", ["small"]))
        self.assertEqual(peer.message(), (2, wire.pack([3, 0, ["small"]])))
        peer.send(frames[-1])
        self.assertEqual(peer.message(), (1, wire.pack([3, 0, [200000]])))

    def test_a_small_reply_overtakes_a_large_one(self):
        self.start()
        peer = self.game.client(receive_buffer=65536)
        large = peer.start("s", "make", 12 << 20)
        first = peer.frame()
        self.assertEqual((first.flag, first.session), (wire.FIRST, large))
        peer.assembler.take(first)
        small = peer.start("s", "echo", "small")
        self.assertEqual(peer.message(), (small, wire.pack([3, 0, ["small"]])))
        self.assertIn(large, peer.assembler.partial)        # still on its way
        session, data = peer.message()
        self.assertEqual((session, len(wire.unpack(data)[2][0])), (large, 12 << 20))

    def test_large_replies_of_two_services_take_turns(self):
        self.game = self.node("game_1", scripts={"s": SCRIPT, "s2": SCRIPT})
        peer = self.game.client(receive_buffer=65536)
        sessions = [peer.start(service, "make", 8 << 20) for service in ("s", "s2")]
        for service in ("s", "s2"):     # these answer when both replies are on their way
            self.game.ask(service, "echo")
        ends = {}
        for index in range(10000):
            got = peer.frame()
            peer.assembler.take(got)
            if got.flag == wire.LAST:
                ends[got.session] = index
                if len(ends) == 2:
                    break
        self.assertEqual(sorted(ends), sessions)
        self.assertLess(abs(ends[sessions[0]] - ends[sessions[1]]), 50)     # of 512 parts in all

    def test_a_thousand_partial_messages_at_once_are_served(self):
        peer = self.start()
        for session in range(1, 1025):
            data = wire.request("s", "echo", [session])
            peer.send_frame(wire.FIRST, session, data[:5])
        for session in range(1, 1025):
            data = wire.request("s", "echo", [session])
            peer.send_frame(wire.LAST, session, data[5:])
        got = dict(peer.message() for _ in range(1024))
        self.assertEqual(got, {i: wire.pack([3, 0, [i]]) for i in range(1, 1025)})

    def test_send_is_executed_and_gets_no_reply(self):
        peer = self.start()
        for _ in range(10):
            peer.post("s", "hit")
        peer.post("s", "nosuch")
        peer.post("nosuch", "hit")
        peer.post("s", "boom")
        session = peer.start("s", "hits")
        self.assertEqual(peer.reply(), (session, (wire.OK, [10])))     # and nothing before it

    def test_error_reply_holds_one_message(self):
        peer = self.start()
        for call, code in ((("s", "boom"), wire.FAILED), (("s", "no"), wire.UNKNOWN_METHOD),
                           (("no", "x"), wire.UNKNOWN_SERVICE)):
            reply = peer.call(*call)
            self.assertEqual((reply.code, len(reply.results)), (code, 1))
            self.assertIsInstance(reply.results[0], str)

    def test_unknown_meta_keys_and_trailing_elements_are_ignored(self):
        peer = self.start()
        for data in (wire.pack([1, "s", "echo", [1], {2: "x", "trace": [1, {"a": None}], 1: 5000}]),
                     wire.pack([1, "s", "echo", [1], {}, "more", {"x": [None]}]),
                     wire.pack([1, "s", "echo", [1], {-5: 1, 2 ** 40: 2, 1.5: 3}, None, None])):
            peer.send_message(5, data)
            self.assertEqual(peer.message(), (5, wire.pack([3, 0, [1]])))

    def test_deadline_of_the_request_is_kept(self):
        peer = self.start()
        self.assertEqual(peer.call("s", "echo", 1, meta={1: 60000}).code, wire.OK)
        for ms in (0, -1, 1):       # past or nearly so: executed or not, but never an error of form
            self.assertIn(peer.start("s", "echo", meta={1: ms}) and
                          self.game.ask("s", "echo", ms), ([ms],))
        for reply in peer.replies.values():
            self.assertIn(reply.code, (wire.OK, wire.TIMEOUT))

    def test_values_may_come_in_any_form_of_messagepack(self):
        peer = self.start()
        raw = wire.Raw
        forms = [(raw(b"\xcc\x05"), 5), (raw(b"\xcd\x00\x05"), 5), (raw(b"\xce\0\0\0\x05"), 5),
                 (raw(b"\xcf\0\0\0\0\0\0\0\x05"), 5), (raw(b"\xd0\xff"), -1),
                 (raw(b"\xd1\xff\xff"), -1), (raw(b"\xd2\0\0\0\x05"), 5),
                 (raw(b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff"), -1),
                 (raw(b"\xca\x3f\xc0\0\0"), 1.5), (raw(b"\xd9\x01a"), "a"),
                 (raw(b"\xda\0\x01a"), "a"), (raw(b"\xdb\0\0\0\x01a"), "a"),
                 (raw(b"\xc4\x01a"), "a"), (raw(b"\xc5\0\x01a"), "a"),
                 (raw(b"\xc6\0\0\0\x01a"), "a"), (raw(b"\xdc\0\x01\x05"), [5]),
                 (raw(b"\xdd\0\0\0\x01\x05"), [5]), (raw(b"\xde\0\x01\xa1a\x05"), {"a": 5}),
                 (raw(b"\xdf\0\0\0\x01\xa1a\x05"), {"a": 5})]
        for form, value in forms:
            self.assert_same(peer.ask("s", "echo", form), [value])
        # The envelope too.
        peer.send_message(6, b"\xdc\0\x04\xcc\x01\xd9\x01s\xda\0\x04echo\xdd\0\0\0\x01\xc3")
        self.assertEqual(peer.message(), (6, wire.pack([3, 0, [True]])))

    def test_bad_message_is_answered_and_the_connection_stays(self):
        peer = self.start()
        deep = wire.Raw(b"\x91" * 100 + b"\xc0")
        good = wire.request("s", "echo", [1])
        for data in (b"", b"\xc1", b"\xff", good[:-1], good[:3], wire.pack(5), wire.pack({}),
                     wire.pack([]), wire.pack([1]), wire.pack([1, "s"]),
                     wire.pack([1, "s", "echo"]),
                     wire.pack([9, "s", "echo", []]), wire.pack([0, "s", "echo", []]),
                     wire.pack(["1", "s", "echo", []]), wire.pack([1.0, "s", "echo", []]),
                     wire.pack([1, 5, "echo", []]), wire.pack([1, None, "echo", []]),
                     wire.pack([1, "s", 5, []]), wire.pack([1, "s", "echo", 5]),
                     wire.pack([1, "s", "echo", {}]), wire.pack([1, "s", "echo", None]),
                     wire.pack([1, "s", "echo", [], 5]), wire.pack([1, "s", "echo", [], [1]]),
                     wire.pack([1, "s", "echo", [], {1: "soon"}]),
                     wire.pack([1, "s", "echo", [deep]]), b"\xdd\xff\xff\xff\xff",
                     b"\x94\x01\xa1s\xa4echo\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
                     b"\x94\x01\xdb\xff\xff\xff\xffs", b"\x94\x01\xa1s\xa4echo\x91\xc7\x01\x01x",
                     b"\x94\x01\xa1s\xa4echo\x91\xd4\x01x",
                     wire.pack([1, "s", "echo", []]) + b"\xc1",
                     b"\xc0" * 100000):
            with self.subTest(data[:40]):
                peer.send_message(4, data)
                session, answer = peer.message()
                answer = wire.unpack(answer)
                self.assertEqual((session, answer[:2]), (4, [3, wire.BAD_MESSAGE]))
                self.assertEqual((len(answer[2]), type(answer[2][0])), (1, str))
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))

    def test_tables_64_levels_deep_are_served(self):
        peer = self.start()
        value = 1
        for _ in range(64):
            value = [value]
        self.assertEqual(peer.ask("s", "echo", value), [value])

    def test_two_requests_in_flight_under_one_session_do_no_harm(self):
        peer = self.start()
        for _ in range(2):
            peer.send_message(8, wire.request("s", "echo", [1]))
        self.assertEqual(peer.message()[0], 8)
        other = self.game.client()
        self.assertEqual(other.call("s", "echo", 2), (wire.OK, [2]))


class ControlTest(FrameCase):
    def test_hello_is_answered_with_hello(self):
        self.start(message_max=MAX)
        peer = self.game.client(say_hello=True)
        version, name, incarnation, message_max = peer.peer_hello[:4]
        self.assertEqual((version, name, message_max), (1, "game_1", MAX))
        self.assertEqual(type(incarnation), int)
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))

    def test_incarnation_differs_after_a_restart_only(self):
        self.start()
        hellos = [self.game.client(say_hello=True).peer_hello for _ in range(2)]
        self.assertEqual(hellos[0], hellos[1])
        self.game.stop()
        self.game.start()
        self.assertNotEqual(self.game.client(say_hello=True).peer_hello[2], hellos[0][2])

    def test_hello_may_hold_more_than_we_know(self):
        self.start()
        peer = self.game.client()
        peer.send_frame(wire.HELLO, 0, wire.pack([2, "later", 2 ** 62, 2 ** 31, {"x": 1}, None]))
        self.assertEqual(peer.control(wire.HELLO)[1], "game_1")

    def test_hello_may_come_after_requests(self):
        peer = self.start()
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))
        peer.hello()
        self.assertEqual(peer.control(wire.HELLO)[1], "game_1")

    def test_connection_that_takes_over_ends_the_earlier_ones_of_the_same_process(self):
        self.start()
        earlier, other, plain = [self.game.client() for _ in range(3)]
        earlier.hello("battle_9", incarnation=7)
        other.hello("battle_9", incarnation=8)
        peers = [earlier, other, plain, self.game.client()]
        last = peers[-1]
        last.hello("battle_9", incarnation=7)
        for peer in peers:                  # two connections at a time are nobody's business
            self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))
        for value in (0, 1, 1):
            self.assertEqual(last.call("s", "echo", 2, meta={4: value}), (wire.OK, [2]))
        self.closes_connection(earlier)
        for peer in (other, plain, last):
            self.assertEqual(peer.call("s", "echo", 3), (wire.OK, [3]))
        plain.call("s", "echo", 4, meta={4: 1})     # without HELLO: it means nothing
        self.assertEqual(other.call("s", "echo", 5), (wire.OK, [5]))

    def test_ping_after_hello_is_answered_with_the_same_data(self):
        self.start()
        peer = self.game.client(say_hello=True)
        for data in (b"", b"x", bytes(range(256)) * 4):
            peer.send_frame(wire.PING, 0, data)
            self.assertEqual(peer.control(wire.PONG), data)

    def test_ping_without_hello_is_ignored(self):
        peer = self.start()
        peer.send_frame(wire.PING, 0, b"x")
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))
        self.assertEqual(peer.controls, [])

    def test_pong_and_goaway_that_nobody_asked_for_do_no_harm(self):
        self.start()
        peer = self.game.client(say_hello=True)
        peer.send_frame(wire.PONG, 0, b"x")
        peer.send_frame(wire.GOAWAY, 0, wire.pack([0, "bye"]))
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))

    def test_malformed_control_data_harms_nobody_else(self):
        peer = self.start()
        for flag in (wire.HELLO, wire.GOAWAY, wire.PING, wire.PONG):
            for data in (b"", b"\xc1", wire.pack(5), wire.pack([1]), wire.pack(["x", 5, "y", []]),
                         wire.pack([1, "x" * 1000, 1, 1]), wire.pack([-1, "", -1, -1]),
                         wire.pack([1, "bad\nname", 1, 0])):
                bad = self.game.client()
                try:
                    bad.send_frame(flag, 0, data)
                    bad.call("s", "echo", 1)
                except wire.Closed:
                    pass
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))
        self.assertFalse(self.game.log_lines("^name"))

    def test_peer_that_said_hello_is_pinged_and_kept_while_it_answers(self):
        self.start(heartbeat_ms=60)
        peer = self.game.client(say_hello=True)
        peer.answer_pings = False
        for _ in range(8):
            peer.send_frame(wire.PONG, 0, peer.control(wire.PING))
        self.assertEqual(peer.call("s", "echo", 1), (wire.OK, [1]))

    def test_peer_that_said_hello_and_fell_silent_is_closed(self):
        plain = self.start(heartbeat_ms=60)
        peer = self.game.client(say_hello=True)
        name = peer.name()
        started = time.monotonic()
        frames = peer.wait_closed()
        self.assertGreater(time.monotonic() - started, 0.1)     # more than one heartbeat
        self.assertIn(wire.PING, [frame.flag for frame in frames])
        self.game.wait_log(name)
        self.assertEqual(plain.call("s", "echo", 1), (wire.OK, [1]))


class RefusalTest(FrameCase):
    """Each refusal closes that connection, logs one line with peer and reason, and harms nobody
    else."""

    def setUp(self):
        super().setUp()
        self.goaways = 0
        self.start(message_max=MAX)
        self.bystander = self.game.client()
        self.held = self.bystander.start("s", "hold", "a")
        wait_until(lambda: self.bystander.ask("s", "waits", "a") == [True], "a held call")

    def assert_refused(self, *cases):
        """Each of the cases (bytes) is refused, whether the peer has said HELLO or not."""
        refused = []
        for data, hello in itertools.product(cases, (False, True)):
            bad = self.game.client(say_hello=hello)
            refused.append((bad, bad.name(), hello))
            try:
                bad.send(data)
            except wire.Closed:
                pass                # closed while we were still writing
        for bad, name, hello in refused:
            controls = [frame for frame in bad.wait_closed() if frame.flag >= wire.HELLO]
            goaways = [wire.unpack(frame.data) for frame in controls if frame.flag == wire.GOAWAY]
            if not hello:
                self.assertEqual(controls, [])
            elif goaways:           # a reset connection may lose it; what comes has to be right
                self.assertEqual([type(item) for item in goaways[0][:2]], [int, str])
            self.goaways += len(goaways)
            line, = self.game.wait_log(r"(?<!\d)%s(?!\d)" % name.replace(".", r"\."))
            self.assertRegex(line.split(name)[1], "[a-z]{4}", "a reason: " + line)
        self.assertEqual(self.bystander.ask("s", "echo", "on"), ["on"])

    def tearDown(self):
        self.bystander.ask("s", "free", "a")
        self.assertEqual(self.bystander.reply(self.held), (wire.OK, ["held a"]))

    def test_length_out_of_range_is_refused(self):
        self.assert_refused(*[wire.frame(wire.WHOLE, 1, b"x" * 9, length=length)
                              for length in (0, 1, 2, 6, 32776, 40000, 65535)])

    def test_bad_length_is_refused_before_its_frame_is_there(self):
        self.assert_refused(b"\0\x06", b"\xff\xff")

    def test_unknown_flag_is_refused(self):
        self.assert_refused(*[wire.frame(flag, session, b"x") for session in (0, 1)
                              for flag in (0, 1, 0x7f, 0x88, 0x90, 0xff)])

    def test_session_0_on_a_message_is_refused(self):
        self.assert_refused(*[wire.frame(flag, 0, wire.request("s", "hit"))
                              for flag in (wire.WHOLE, wire.FIRST, wire.MIDDLE, wire.LAST)])
        self.assertEqual(self.bystander.ask("s", "hits"), [0])

    def test_session_on_a_control_frame_is_refused(self):
        self.assert_refused(*[wire.frame(flag, 1, wire.pack([1, "x", 1, MAX]))
                              for flag in (wire.HELLO, wire.PING, wire.PONG, wire.GOAWAY)])

    def test_control_frame_over_1024_bytes_is_refused(self):
        self.assert_refused(*[wire.frame(flag, 0, b"x" * 1025)
                              for flag in (wire.HELLO, wire.PING, wire.PONG, wire.GOAWAY)])

    def test_part_without_its_first_one_is_refused(self):
        self.assert_refused(wire.frame(wire.MIDDLE, 5, b"x"),
                            wire.frame(wire.LAST, 5, wire.request("s", "hit")),
                            wire.frame(wire.FIRST, 4, b"x") + wire.frame(wire.LAST, 5, b"x"))
        self.assertEqual(self.bystander.ask("s", "hits"), [0])

    def test_part_after_the_last_one_is_refused(self):
        frames = wire.split(5, wire.request("s", "echo", ["x" * 40000]))
        self.assert_refused(b"".join(frames) + wire.frame(wire.MIDDLE, 5, b"x"))

    def test_second_first_part_is_refused(self):
        self.assert_refused(wire.frame(wire.FIRST, 5, b"x") * 2)

    def test_whole_message_amid_the_parts_of_its_session_is_refused(self):
        self.assert_refused(wire.frame(wire.FIRST, 5, b"x") +
                            wire.frame(wire.WHOLE, 5, wire.request("s", "hit")))
        self.assertEqual(self.bystander.ask("s", "hits"), [0])

    def test_message_over_message_max_is_refused(self):
        part = b"x" * wire.PART
        self.assert_refused(wire.frame(wire.FIRST, 5, part) + wire.frame(wire.MIDDLE, 5, part) * 40)

    def test_message_of_exactly_message_max_is_served(self):
        base = len(wire.request("s", "size", ["x" * 100000])) - 100000
        self.assertEqual(self.bystander.ask("s", "size", "x" * (MAX - base)), [MAX - base])
        longer = wire.request("s", "size", ["x" * (MAX - base + 1)])
        self.assert_refused(b"".join(wire.split(5, longer)))

    def test_more_than_1024_partial_messages_are_refused(self):
        self.assert_refused(b"".join(wire.frame(wire.FIRST, i, b"x") for i in range(1, 1026)))

    def test_refusal_of_a_peer_that_said_hello_comes_with_a_goaway(self):
        self.assert_refused(wire.frame(0x99, 1), wire.frame(wire.WHOLE, 0),
                            wire.frame(wire.LAST, 5))
        self.assertEqual(self.goaways, 3)       # nothing unread was left, so none is lost

    def test_calls_of_a_refused_connection_are_executed_and_their_replies_dropped(self):
        bad = self.game.client()
        bad.start("s", "hit")
        bad.start("s", "hold", "b")
        self.assertEqual(bad.ask("s", "waits", "b"), [True])
        bad.send(b"\0\0")
        bad.wait_closed()
        self.bystander.ask("s", "free", "b")
        self.assertEqual(self.bystander.ask("s", "hits"), [1])

    def test_random_bytes_close_only_their_own_connection(self):
        seed = random.randrange(1 << 32)
        print("        seed %d" % seed)
        rng = random.Random(seed)
        good = wire.frame(wire.WHOLE, 3, wire.request("s", "echo", ["x" * 50]))
        for _ in range(300):
            bad = self.game.client()
            if rng.random() < 0.5:
                data = rng.randbytes(rng.randrange(1, 400))
            else:                       # a good frame with a few bytes changed
                data = bytearray(good * rng.randrange(1, 4))
                for _ in range(rng.randrange(1, 5)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                bad.send(bytes(data))
                if rng.random() < 0.5:
                    bad.reset()
            except wire.Closed:
                pass
        self.assertEqual(self.bystander.ask("s", "echo", "on"), ["on"])

    def test_peers_that_stop_in_the_middle_of_a_frame_harm_nobody(self):
        data = b"".join(wire.split(3, wire.request("s", "echo", ["x" * 40000])))
        for end in (1, 2, 6, 7, 8, 100, 32775, 32776, len(data) - 1):
            for reset in (False, True):
                bad = self.game.client()
                bad.send(data[:end])
                if reset:
                    bad.reset()
                else:
                    bad.close()
        self.assertEqual(self.bystander.ask("s", "echo", "on"), ["on"])

    def test_peer_that_does_not_read_harms_nobody(self):
        greedy = self.game.client(receive_buffer=4096)
        for _ in range(100):
            greedy.start("s", "make", 500000)
        started = time.monotonic()
        for _ in range(50):
            self.assertEqual(self.bystander.ask("s", "echo", "on"), ["on"])
        self.assertLess(time.monotonic() - started, 10)

    def test_four_hundred_connections_are_served(self):
        clients = [self.game.client() for _ in range(400)]
        sessions = [client.start("s", "echo", i) for i, client in enumerate(clients)]
        for i, (client, session) in enumerate(zip(clients, sessions)):
            self.assertEqual(client.reply(session), (wire.OK, [i]))

    @unittest.skipUnless(settings.long, "takes half a minute: --long")
    def test_partial_message_without_progress_is_refused_after_30_s(self):
        good, bad = self.game.client(), self.game.client()
        name = bad.name()
        for peer in (good, bad):
            peer.send_frame(wire.FIRST, 5, b"x")
        started = time.monotonic()
        while time.monotonic() - started < 24:      # the good one makes progress now and then
            time.sleep(6)
            good.send_frame(wire.MIDDLE, 5, b"x")
        self.assertEqual(bad.wait_closed(), [])
        self.assertGreater(time.monotonic() - started, 27)
        self.assertLess(time.monotonic() - started, 45)
        self.game.wait_log(name)
        good.send_frame(wire.LAST, 5, b"x")
        self.assertEqual(good.message()[0], 5)


if __name__ == "__main__":
    unittest.main()
