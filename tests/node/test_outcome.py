"""Every call gets exactly one outcome (SPEC section 4): each code, with what `executed` tells,
over a connection whose other end a test holds in its hands; then with nodes that are killed."""

import time

import wire
from evptnode import NodeCase, wait_until

GAME = """
local outcomes, started = {}, 0
local function note(key, code, e)
    assert(not outcomes[key], "a second outcome for " .. key)
    outcomes[key] = code == 0 and { 0 } or { code, e.executed, e.name, e.message, tostring(e) }
end
evpt.export {
    -- One call in a coroutine of its own; outcomes() tells what became of it.
    try = function(key, method, timeout, ...)
        local args = table.pack(...)
        evpt.fork(function()
            local target = cluster.proxy("battle_1", "s", timeout and { timeout_ms = timeout })
            local ok, e = pcall(target[method], table.unpack(args, 1, args.n))
            note(key, ok and 0 or e.code, e)
        end)
    end,
    callback = function(key, method, timeout, params)
        cluster.remoteCall("battle_1", "s", method, params, function(_, code, e)
            note(key, code, e)
        end, timeout)
    end,
    many = function(count, method)
        for i = 1, count do
            evpt.fork(function() note("m" .. i, cluster.try("battle_1", "s", method, i)) end)
        end
    end,
    send = function(...)
        local ok, e = cluster.send("battle_1", "s", ...)
        return ok, e and e.code, e and e.executed
    end,
    outcomes = function() return outcomes end,
    codes = function()
        local count = {}
        for _, o in pairs(outcomes) do
            local key = o[1] .. " " .. (o[2] or "-")
            count[key] = (count[key] or 0) + 1
        end
        return count
    end,
    call = function(method, ...) return cluster.call("battle_1", "s", method, ...) end,
    big = function(key, method, size)
        evpt.fork(function() note(key, cluster.try("battle_1", "s", method, ("x"):rep(size))) end)
    end,
}
"""


class OutcomeCase(NodeCase):
    """game_1 is a node, battle_1 a fake server."""

    def start(self, accept=True, stop_timeout_ms=500, **cluster):
        self.server = self.fake("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": cluster,
                                                      "stop_timeout_ms": stop_timeout_ms})
        self.client = self.game.client()
        if accept:
            session = self.client.start("s", "call", "hello")
            self.peer = self.accept()
            key, _ = self.peer.request()
            self.peer.answer(key, "hello")
            self.assertEqual(self.client.reply(session), (wire.OK, ["hello"]))

    def accept(self, **options):
        peer = self.server.accept(**options)
        self.addCleanup(peer.close)
        return peer

    def ask(self, method, *args):
        return self.client.ask("s", method, *args)

    def outcome(self, key):
        return wait_until(lambda: (self.ask("outcomes")[0] or {}).get(key), "the outcome of " + key)

    def assert_outcome(self, key, code, *executed):
        outcome = self.outcome(key)
        self.assertEqual(outcome[0], code, outcome)
        if executed:
            self.assertIn(outcome[1], executed, outcome)
        return outcome

    def codes(self, count):
        """{"code executed": how many} once there are `count` outcomes."""
        wait_until(lambda: len(self.ask("outcomes")[0]) >= count, "%d outcomes" % count)
        self.assertEqual(len(self.ask("outcomes")[0]), count)
        return self.ask("codes")[0]

    def assert_idle(self):
        wait_until(self.game.idle, "empty session2context and requestCache")


class FakeTest(OutcomeCase):
    def test_deadline_travels_with_the_request(self):
        self.start(call_timeout_ms=4000)
        for timeout, most in ((None, 4000), (700, 700), (100000, 100000)):
            self.ask("try", "t%s" % most, "m", timeout)
            _, request = self.peer.request()
            self.assertGreater(request[4][1], most * 0.5)
            self.assertLessEqual(request[4][1], most + 1)       # rounded up

    def test_request_has_the_form_of_the_specification(self):
        self.start()
        self.ask("try", "a", "method", None, 1, None, "x", None)
        session, request = self.peer.request()
        self.assert_same(request[:4], [1, "s", "method", [1, None, "x", None]])
        self.assertNotEqual(session, 0)
        self.assertEqual(self.ask("send", "told", 5), [True, None, None])
        session, request = self.peer.request()
        self.assert_same(request[:4], [2, "s", "told", [5]])
        self.assertNotEqual(session, 0)

    def test_results_arrive_with_their_nils(self):
        self.start()
        session = self.client.start("s", "call", "m")
        key, _ = self.peer.request()
        self.peer.answer(key, 1, None, None)
        self.assert_same(self.client.reply(session).results, [1, None, None])

    def test_every_code_of_a_reply_reaches_the_caller(self):
        self.start()
        for code in range(1, 12):
            self.ask("try", "c%d" % code, "m", None)
            key, _ = self.peer.request()
            self.peer.answer(key, "told by battle_1", code=code)
            outcome = self.assert_outcome("c%d" % code, code)
            self.assertEqual(outcome[2], wire.CODES[code])
            self.assertIn("told by battle_1", outcome[3])
            self.assertIn(wire.CODES[code], outcome[4])
            if code in (5, 6, 8, 10, 11):
                self.assertEqual(outcome[1], "no")
            if code == wire.FAILED:
                self.assertEqual(outcome[1], "yes")

    def test_reply_with_an_unknown_code_or_no_text_is_an_outcome_too(self):
        self.start()
        for index, data in enumerate(([3, 99, ["x"]], [3, 7, []], [3, 7, [None]], [3, 7, [{}]],
                                      [3, -1, []], [3, 2 ** 40, ["x"]], [3, 7, ["x", 2], "more"])):
            self.ask("try", "u%d" % index, "m", None)
            key, _ = self.peer.request()
            self.peer.send_message(key, wire.pack(data))
            self.assertNotEqual(self.outcome("u%d" % index)[0], 0)

    def test_reply_that_does_not_decode_is_an_outcome_at_once(self):
        self.start(call_timeout_ms=60000)
        for index, data in enumerate((b"", b"\xc1", b"\x93\x03", wire.pack(5), wire.pack([3]),
                                      wire.pack([3, 0]), wire.pack([3, 0, 5]),
                                      wire.pack([9, 0, []]),
                                      wire.pack([1, "s", "m", []]), wire.pack(["3", 0, []]),
                                      wire.pack([3, 0, []])[:-1] + b"\xdd\xff\xff\xff\xff",
                                      wire.pack([3, 0, [wire.Raw(b"\xc7\x01\x05x")]]))):
            self.ask("try", "b%d" % index, "m", None)
            key, _ = self.peer.request()
            self.peer.send_message(key, data)
            self.assertIn(self.outcome("b%d" % index)[0],
                          (wire.BAD_MESSAGE, wire.DISCONNECTED), data)
        self.assertEqual(self.ask("outcomes")[0]["b0"][0], wire.BAD_MESSAGE)

    def test_replies_in_any_order_find_their_callers(self):
        self.start()
        sessions = [self.client.start("s", "call", "m", i) for i in range(50)]
        requests = [self.peer.request() for _ in sessions]
        for key, request in reversed(requests):
            self.peer.answer(key, request[3][0] * 10)
        for i, session in enumerate(sessions):
            self.assertEqual(self.client.reply(session).results, [i * 10])

    def test_second_reply_to_one_request_is_tolerated(self):
        self.start()
        self.ask("callback", "a", "m", None, 1)
        key, _ = self.peer.request()
        for _ in range(3):
            self.peer.answer(key, 1)
        self.assert_outcome("a", wire.OK)
        session = self.client.start("s", "call", "m")
        self.peer.answer(self.peer.request()[0], "on")
        self.assertEqual(self.client.reply(session).results, ["on"])

    def test_late_replies_after_a_timeout_are_tolerated(self):
        self.start()
        self.ask("try", "a", "m", 30)
        key, _ = self.peer.request()
        self.assert_outcome("a", wire.TIMEOUT, "maybe")
        self.peer.answer(key, "late")
        session = self.client.start("s", "call", "m")
        self.peer.answer(self.peer.request()[0], "on")
        self.assertEqual(self.client.reply(session).results, ["on"])
        self.assert_idle()

    def test_late_replies_by_the_thousand_are_tolerated(self):
        """More late replies than a connection may carry replies to no request: these had one."""
        self.start(call_timeout_ms=400)
        self.ask("many", 1500, "m")
        keys = [self.peer.request()[0] for _ in range(1500)]
        self.assertEqual(self.codes(1500), {"4 maybe": 1500})
        for key in keys:
            self.peer.answer(key, "late")
        session = self.client.start("s", "call", "m")
        self.peer.answer(self.peer.request()[0], "on")
        self.assertEqual(self.client.reply(session), (wire.OK, ["on"]))

    def test_replies_to_no_request_close_the_connection_after_a_thousand(self):
        self.start()
        for key in range(1000):
            self.peer.answer(0x70000000 + key)
        self.ask("try", "pending", "m", 60000)
        self.peer.request()
        self.peer.send(b"".join(wire.frame(wire.WHOLE, 0x70001000 + key, wire.pack([3, 0, []]))
                                for key in range(10)))
        self.closes_connection(self.peer)
        self.assert_outcome("pending", wire.DISCONNECTED, "maybe")
        self.game.wait_log("%s:%d" % self.server.address)

    def test_peer_that_breaks_the_protocol_is_left_and_its_calls_answered(self):
        part = b"x" * wire.PART
        self.start(accept=False, call_timeout_ms=60000)
        for index, bad in enumerate((wire.frame(wire.WHOLE, 0), b"\0\x03", wire.frame(0x99, 0),
                                     wire.frame(wire.LAST, 5, part), wire.frame(wire.PING, 4),
                                     wire.frame(wire.FIRST, 5, part) * 2)):
            peer, key = None, ""
            while not peer:             # during the back-off a call fails at once
                key += "p%d" % index
                self.ask("try", key, "m", None)
                try:
                    peer = self.accept(patience=0.1)
                except TimeoutError:
                    self.assert_outcome(key, wire.CONNECT_FAILED, "no")
            peer.request()
            peer.send(bad)
            sent = time.monotonic()     # the peer keeps its end open: nobody waits for that
            self.assert_outcome(key, wire.DISCONNECTED, "maybe")
            self.assertLess(time.monotonic() - sent, 0.8)
            self.closes_connection(peer)
        self.assertGreaterEqual(len(self.game.wait_log("%s:%d" % self.server.address, 6)), 6)
        self.assert_idle()

    def test_lost_connection_answers_all_calls_at_once(self):
        self.start(call_timeout_ms=60000)
        self.ask("many", 100, "m")
        for _ in range(100):
            self.peer.request()
        self.peer.reset()
        self.assertEqual(self.codes(100), {"3 maybe": 100})
        self.assert_idle()

    def test_requests_not_handed_to_the_socket_are_certainly_not_executed(self):
        self.start(accept=False, call_timeout_ms=60000)
        self.ask("try", "read", "m", None)
        peer = self.accept(receive_buffer=4096)
        peer.request()
        for index in range(4):      # more than both kernels hold
            self.ask("big", "large%d" % index, "m", 8 << 20)
        wait_until(lambda: self.game.nodes()["battle_1"]["session2context"] == 5, "calls in flight")
        self.ask("try", "behind", "m", None)
        wait_until(lambda: self.game.nodes()["battle_1"]["session2context"] == 6, "six in flight")
        peer.close()
        self.assert_outcome("read", wire.DISCONNECTED, "maybe")
        self.assert_outcome("large3", wire.DISCONNECTED, "no")
        self.assert_outcome("behind", wire.DISCONNECTED, "no")
        self.assert_idle()

    def test_first_call_after_a_loss_connects_again(self):
        self.start()
        self.peer.close()
        wait_until(lambda: self.game.nodes()["battle_1"]["status"] == "disconnect", "disconnect")
        session = self.client.start("s", "call", "again")
        peer = self.accept()
        key, request = peer.request()
        self.assertEqual(request[2], "again")
        peer.answer(key, "yes")
        self.assertEqual(self.client.reply(session), (wire.OK, ["yes"]))

    def test_requests_before_the_connection_are_sent_in_order(self):
        self.start(accept=False)
        for i in range(50):
            self.ask("send", "m", i)
        peer = self.accept()
        self.assertEqual([peer.request()[1][3][0] for _ in range(50)], list(range(50)))

    def test_one_connection_carries_all_calls(self):
        self.start()
        self.ask("many", 200, "m")
        for _ in range(200):
            self.peer.answer(self.peer.request()[0])
        self.codes(200)
        with self.assertRaises(BlockingIOError):
            self.server.accept(patience=0)

    def test_plain_server_that_never_says_hello_is_served(self):
        self.start(accept=False, heartbeat_ms=50)
        session = self.client.start("s", "call", "m")
        peer = self.accept(hello=False)
        self.assertEqual(peer.frame().flag, wire.HELLO)
        time.sleep(0.4)             # far more than three heartbeats of silence
        peer.answer(peer.request()[0], "plain")
        self.assertEqual(self.client.reply(session), (wire.OK, ["plain"]))
        self.assertEqual(peer.controls, [])

    def test_goaway_lets_calls_in_flight_finish_and_brings_no_new_ones(self):
        self.start()
        session = self.client.start("s", "call", "before")
        key, _ = self.peer.request()
        self.peer.send_frame(wire.GOAWAY, 0, wire.pack([wire.STOPPING, "draining"]))
        self.peer.send_frame(wire.PING, 0, b"goaway was read")
        self.assertEqual(self.peer.control(wire.PONG), b"goaway was read")
        self.ask("try", "after", "late", 1000)
        self.peer.answer(key, "finished")
        self.assertEqual(self.client.reply(session), (wire.OK, ["finished"]))
        self.peer.patience = 0.2
        try:
            session, request = self.peer.request()
            self.fail("a new request came after GOAWAY: %r" % (request,))
        except (TimeoutError, wire.Closed):
            pass

    def test_timeout_of_a_call_that_waits_for_the_connection(self):
        self.stuck("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": {"connect_timeout_ms": 60000}})
        self.client = self.game.client()
        self.ask("try", "a", "m", 50)
        self.ask("callback", "b", "m", 50, 1)
        self.assert_outcome("a", wire.TIMEOUT, "no")
        self.assert_outcome("b", wire.TIMEOUT, "no")
        self.assert_idle()

    def test_connect_timeout_is_connect_failed(self):
        self.stuck("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": {"connect_timeout_ms": 50,
                                                                  "call_timeout_ms": 60000}})
        self.client = self.game.client()
        self.ask("many", 20, "m")
        self.assertEqual(self.codes(20), {"2 no": 20})
        self.assert_idle()

    def test_refused_connection_is_connect_failed_at_once(self):
        self.address("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": {"call_timeout_ms": 60000}})
        self.client = self.game.client()
        self.ask("many", 50, "m")
        self.assertEqual(self.codes(50), {"2 no": 50})
        self.ask("try", "next", "m", None)          # within the back-off: refused at once, too
        self.assert_outcome("next", wire.CONNECT_FAILED, "no")

    def test_reply_too_large_for_us_closes_only_that_connection(self):
        self.start(message_max=100000, call_timeout_ms=60000)
        self.ask("try", "a", "m", None)
        key, _ = self.peer.request()
        self.peer.answer(key, "x" * 200000)
        self.assertIn(self.outcome("a")[0], (wire.DISCONNECTED, wire.TOO_LARGE))
        self.game.wait_log("%s:%d" % self.server.address)


class LimitTest(OutcomeCase):
    def test_pending_max_refuses_with_overloaded(self):
        self.start(pending_max=10)
        self.ask("many", 25, "m")
        wait_until(lambda: len(self.ask("outcomes")[0]) == 15, "fifteen refused")
        self.assertEqual(self.ask("codes")[0], {"8 no": 15})
        message = [o for o in self.ask("outcomes")[0].values()][0][3]
        self.assertIn("pending_max", message)
        for _ in range(10):
            self.peer.answer(self.peer.request()[0])
        self.assertEqual(self.codes(25), {"8 no": 15, "0 -": 10})

    def test_cache_max_refuses_with_overloaded(self):
        self.stuck("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": {
            "cache_max": 10, "connect_timeout_ms": 60000, "call_timeout_ms": 60000},
            "stop_timeout_ms": 300})
        self.client = self.game.client()
        self.ask("many", 25, "m")
        wait_until(lambda: len(self.ask("outcomes")[0]) == 15, "fifteen refused")
        self.assertEqual(self.ask("codes")[0], {"8 no": 15})
        self.assertIn("cache_max", list(self.ask("outcomes")[0].values())[0][3])
        self.assertEqual(self.game.nodes()["battle_1"]["requestCache"], 10)

    def test_send_buffer_max_refuses_with_overloaded(self):
        self.start(accept=False, send_buffer_max=4 << 20, call_timeout_ms=60000)
        self.ask("try", "first", "m", None)
        peer = self.accept(receive_buffer=4096)
        peer.request()
        for index in range(40):
            self.ask("big", "b%d" % index, "m", 1 << 20)
        self.assert_outcome("b39", wire.OVERLOADED, "no")
        self.assertIn("send_buffer_max", self.outcome("b39")[3])
        self.assertLess(self.game.nodes()["battle_1"]["session2context"], 40)

    def test_own_message_max_refuses_with_too_large(self):
        self.start(message_max=100000)
        self.ask("big", "a", "m", 100001)
        self.assert_outcome("a", wire.TOO_LARGE, "no")
        session = self.client.start("s", "call", "fits", "x" * 90000)
        key, request = self.peer.request()
        self.assertEqual(len(request[3][0]), 90000)
        self.peer.answer(key, "on")
        self.assertEqual(self.client.reply(session).results, ["on"])

    def test_message_max_of_the_peer_refuses_with_too_large(self):
        self.start(accept=False)
        self.ask("try", "first", "m", None)
        peer = self.accept(hello=False)
        peer.control(wire.HELLO)
        peer.hello("fake", message_max=50000)
        peer.answer(peer.request()[0])
        self.assert_outcome("first", wire.OK)
        self.ask("big", "a", "m", 60000)
        self.assert_outcome("a", wire.TOO_LARGE, "no")
        self.ask("big", "b", "m", 40000)
        peer.answer(peer.request()[0])
        self.assert_outcome("b", wire.OK)


BATTLE = """
n = 0
evpt.export {
    ping = function() return "pong" end,
    hold = function() evpt.wait() end,
    big = function(size) return ("x"):rep(size) end,
    spin = function(ms) local t = evpt.now() while evpt.now() - t < ms do end end,
    hit = function() n = n + 1 end,
    hits = function() return n end,
}
"""


class TwoNodesTest(NodeCase):
    def pair(self, game=None, battle=None):
        self.address("battle_1")
        self.game = self.node("game_1", GAME, config={"cluster": game or {}})
        self.battle = self.node("battle_1", BATTLE, config={"cluster": battle or {},
                                                            "stop_timeout_ms": 500})
        self.battle.drains = False      # some hold for ever
        self.client = self.game.client()

    ask, outcome, assert_outcome, codes, assert_idle = (
        OutcomeCase.ask, OutcomeCase.outcome, OutcomeCase.assert_outcome, OutcomeCase.codes,
        OutcomeCase.assert_idle)

    def test_expired_work_is_not_executed(self):
        self.pair()
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        self.ask("send", "spin", 400)
        for index in range(20):
            self.ask("try", "t%d" % index, "hit", 50)
        self.assertEqual(self.codes(20), {"4 maybe": 20})
        self.assertEqual(self.ask("call", "hits"), [0])

    def test_plain_peer_with_an_expired_deadline_is_not_executed(self):
        self.pair()
        client = self.battle.client()
        client.post("s", "spin", 300)
        sessions = [client.start("s", "hit", meta={1: 20}) for _ in range(10)]
        self.assertEqual(client.ask("s", "hits"), [0])
        for session in sessions:
            if session in client.replies:
                self.assertEqual(client.replies[session].code, wire.TIMEOUT)

    def test_callee_with_a_smaller_message_max_gives_too_large(self):
        self.pair(battle={"message_max": 100000})
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        self.ask("big", "a", "ping", 150000)
        self.assert_outcome("a", wire.TOO_LARGE, "no")
        self.assertEqual(self.ask("call", "ping"), ["pong"])

    def test_result_too_large_is_one_outcome_and_the_connection_stays(self):
        self.pair(battle={"message_max": 100000})
        self.ask("try", "a", "big", None, 150000)
        self.assertIn(self.outcome("a")[0], (wire.FAILED, wire.TOO_LARGE))
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        self.assertFalse(self.game.log_lines("battle_1.*(closed|lost|disconnect)"))

    def test_killed_node_answers_a_thousand_pending_calls_once_each(self):
        self.pair(game={"call_timeout_ms": 60000})
        self.ask("many", 1000, "hold")
        wait_until(lambda: self.game.nodes()["battle_1"]["session2context"] == 1000,
                   "calls in flight")
        self.assertEqual(self.ask("call", "ping"), ["pong"])        # so all have been read
        self.battle.kill()
        self.assertEqual(self.codes(1000), {"3 maybe": 1000})
        self.assert_idle()

    def test_first_call_after_a_restart_works(self):
        self.pair()
        for _ in range(3):
            self.assertEqual(self.ask("call", "ping"), ["pong"])
            self.battle.kill()
            self.battle.start()
            # The loss may be noticed by this very call; it is retried by nobody but us.
            wait_until(lambda: self.client.call("s", "call", "ping").code == wire.OK,
                       "a good call", 5)

    def test_stopped_node_is_connect_failed_until_it_is_back(self):
        self.pair()
        self.battle.stop()
        wait_until(lambda: self.game.nodes()["battle_1"]["status"] == "disconnect", "disconnect")
        self.ask("try", "away", "ping", None)
        self.assert_outcome("away", wire.CONNECT_FAILED, "no")
        self.battle.start()
        wait_until(lambda: self.client.call("s", "call", "ping").code == wire.OK, "a good call", 5)

    def test_draining_node_refuses_new_calls_as_stopping_or_not_reached(self):
        self.address("battle_1")
        self.game = self.node("game_1", GAME)
        self.client = self.game.client()
        self.battle = self.node("battle_1", """
            evpt.export { hold = function() evpt.sleep(500) return 1 end,
                          ping = function() return "pong" end }""")
        self.ask("try", "held", "hold", None)
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        self.battle.signal(15)
        self.battle.wait_log("draining")
        self.ask("try", "late", "ping", None)
        late = self.outcome("late")
        self.assertIn(late[0], (wire.STOPPING, wire.CONNECT_FAILED))
        self.assertEqual(late[1], "no")
        self.assert_outcome("held", wire.OK)
        self.assertEqual(self.battle.wait_end(), 0)

    def test_heartbeats_keep_an_idle_connection_and_notice_a_silent_peer(self):
        # SIGSTOP: the process is there, and answers nothing.
        self.pair(game={"heartbeat_ms": 50, "call_timeout_ms": 60000}, battle={"heartbeat_ms": 50})
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        time.sleep(0.5)
        self.assertEqual(self.game.nodes()["battle_1"]["status"], "connected")
        self.ask("try", "a", "hold", None)
        self.assertEqual(self.ask("call", "ping"), ["pong"])
        self.battle.signal(19)      # SIGSTOP
        try:
            self.assert_outcome("a", wire.DISCONNECTED, "maybe")
        finally:
            self.battle.signal(18)  # SIGCONT

    def test_large_messages_both_ways_at_once(self):
        self.pair()
        sessions = [self.client.start("s", "call", "big", 4 << 20) for _ in range(6)]
        small = self.client.start("s", "call", "ping")
        self.assertEqual(self.client.reply(small).results, ["pong"])
        for session in sessions:
            self.assertEqual(len(self.client.reply(session).results[0]), 4 << 20)


