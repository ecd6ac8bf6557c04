"""Mutual TLS between nodes: who gets in, what the others learn, what it costs a node that strangers
knock. The counterparts are other nodes, Python's ssl module, and `openssl s_client` and `s_server`.
"""

import json
import os
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import time
import unittest
import urllib.request

import evptnode
import tls
import wire
from evptnode import LAB, NodeCase, program, wait_until

ECHO = "evpt.export { echo = function(...) return ... end }"
CERTS = None


def setUpModule():
    global CERTS
    if not shutil.which("openssl"):
        raise unittest.SkipTest("no program openssl here")
    if not evptnode.has_tls():
        raise unittest.SkipTest("evpt is built without TLS")
    CERTS = tls.Certificates()


def tearDownModule():
    if CERTS:
        CERTS.close()


class TlsCase(NodeCase):
    def setUp(self):
        super().setUp()
        for name in ("game_1", "battle_1"):
            self.address(name)
        self.folder.addresses["tester"] = False        # known, and listens nowhere

    def tls_node(self, name="game_1", script=ECHO, tls_config=None, **options):
        config = {"tls": tls_config or CERTS.config(name)}
        config.update(options.pop("config", {}))
        return self.node(name, script, config=config, **options)

    def peer(self, node, identity=None, say_hello="tester"):
        client = tls.Client(node.address, CERTS.context(identity or CERTS.of("tester")), say_hello)
        self.addCleanup(client.close)
        return client

    def stats(self, node):
        return json.loads(node.ctl("stat", "--json").stdout)

    def openssl(self, *args):
        made = tls.Program(*args)
        self.addCleanup(made.close)
        return made

    def s_client(self, node, *args, identity=None):
        identity = identity or CERTS.of("tester")
        return self.openssl("s_client", "-connect", "%s:%d" % node.address, "-CAfile", CERTS.ca,
                            "-cert", identity.cert, "-key", identity.key, *args)

    def assert_refused(self, node, identity, reason):
        """The node lets nobody in with this certificate (None: without one), and says why."""
        before = len(node.log_lines("refused: "))
        with self.assertRaises((wire.Closed, ssl.SSLError, ConnectionError)):
            peer = tls.Client(node.address, CERTS.context(identity))
            try:
                peer.call("s", "echo", 1)
            finally:
                peer.close()
        lines = node.wait_log("refused: ", before + 1)
        self.assertRegex(lines[-1], reason)


class FriendsTest(TlsCase):
    def test_two_nodes_call_each_other(self):
        for name in ("game_1", "battle_1"):
            self.tls_node(name, scripts={"lab": LAB})
        game, battle = self.folder.nodes
        for node, other in ((game, "battle_1"), (battle, "game_1")):
            code, text = self.ask_lab(node, """
                local other = ...
                return cluster.try(other, "lab", "run", "return ... .. evpt.node()", "here is ")""",
                                      other)
            self.assertEqual((code, text), (0, "here is " + other))
        for node in (game, battle):
            self.assertEqual(node.log_lines(r" (warn|error) "), [])

    def ask_lab(self, node, text, *args):
        """LAB's run, from a peer over TLS."""
        peer = self.peer(node)
        try:
            return peer.ask("lab", "run", text, *args)
        finally:
            peer.close()

    def test_megabytes_arrive_unchanged_both_ways_and_beside_small_calls(self):
        for name in ("game_1", "battle_1"):
            self.tls_node(name, scripts={"lab": LAB})
        result = self.ask_lab(self.folder.nodes[0], """
            local parts, done, bad = {}, 0, 0
            for i = 1, 4096 do parts[i] = string.char(i % 251):rep(256) end
            local text = table.concat(parts)
            local function check(ok) done = done + 1 if not ok then bad = bad + 1 end end
            for i = 1, 8 do
                evpt.fork(function()
                    local sent = text .. i
                    check(cluster.call("battle_1", "lab", "echo", sent) == sent)
                end)
            end
            for i = 1, 100 do
                evpt.fork(function() check(cluster.call("battle_1", "lab", "echo", i) == i) end)
            end
            eventually(function() return done == 108 end)
            return done, bad, #text""")
        self.assertEqual(result, [108, 0, 1 << 20])

    def test_peer_of_another_make_is_served_with_and_without_hello(self):
        node = self.tls_node()
        for hello in ("tester", None):
            peer = self.peer(node, say_hello=hello)
            self.assertEqual(peer.sock.sock.version(), "TLSv1.3")
            text = "x" * 300000
            self.assertEqual(peer.ask("s", "echo", 1, text), [1, text])

    def test_goaway_and_close_notify_end_a_drained_connection(self):
        node = self.tls_node()
        peer = self.peer(node)
        node.signal(15)
        self.assertEqual(peer.control(wire.GOAWAY)[0], 11)
        peer.wait_closed()      # an end without close_notify would be an SSLError
        self.assertEqual(node.wait_end(), 0)

    def test_address_that_is_not_loopback_needs_no_warning(self):
        with socket.socket() as sock:
            sock.bind(("0.0.0.0", 0))
            port = sock.getsockname()[1]
        self.folder.addresses["game_1"] = ("0.0.0.0", port)
        node = self.tls_node(start=False)
        node.address = ("127.0.0.1", port)
        node.start()
        self.assertEqual(node.log_lines(r"warn.*transport security"), [])


class StrangersTest(TlsCase):
    """What a node does not let in, and that nobody else notices."""

    def test_nobody_gets_in_without_the_right_certificate(self):
        node = self.tls_node()
        friend = self.peer(node)
        cases = (
            (CERTS.of("tester", "strangers"), "unable to get local issuer certificate"),
            (CERTS.make(["tester"], self_signed=True), "self-signed certificate"),
            (CERTS.make(["tester"], days=-1), "certificate has expired"),
            (CERTS.of("outsider"), "no name in the peer's certificate is in the node list"),
            (CERTS.make(["TESTER", "tester.", "test*", "*"]), "no name in the peer's certificate"),
            (CERTS.make([]), "no name in the peer's certificate"),    # a common name is no name
            (CERTS.make(["tester"], usage="serverAuth"), "purpose"),
            (None, "peer did not return a certificate"),
        )
        for identity, reason in cases:
            with self.subTest(reason):
                self.assert_refused(node, identity, reason)
        self.assertEqual(friend.ask("s", "echo", "still here"), ["still here"])
        peer = self.peer(node, CERTS.make(["somebody", "tester"]))     # one name is enough
        self.assertEqual(peer.ask("s", "echo", 1), [1])

    def test_hello_must_say_a_name_that_the_certificate_proves(self):
        node = self.tls_node()
        for name in ("battle_1", "", "Tester", "game_1"):
            peer = self.peer(node, say_hello=None)
            peer.hello(name)
            peer.send_message(1, wire.request("s", "echo", [1]))
            self.assertEqual(self.closes_connection(peer), [])
        node.wait_log("closed: HELLO with a name that the certificate does not prove", 4)

    def test_without_verify_name_every_certificate_of_the_ca_will_do(self):
        node = self.tls_node(tls_config=CERTS.config("game_1", verify_name=False))
        peer = self.peer(node, CERTS.of("outsider"), say_hello="anybody")
        self.assertEqual(peer.ask("s", "echo", 1), [1])
        self.assert_refused(node, CERTS.of("tester", "strangers"), "unable to get local issuer")

    def test_plain_peer_is_not_served(self):
        node = self.tls_node(script="""
            local count = 0
            evpt.export { hit = function() count = count + 1 end, count = function() return count end }
            """)
        for opening in (wire.frame(wire.WHOLE, 1, wire.request("s", "hit")),
                        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 40, b"\x16\x03\x01" + b"\xff" * 80):
            with wire.connect(node.address) as sock:
                sock.sendall(opening)
                try:
                    self.assertNotIn(b"\x80", sock.recv(4096)[:1])     # an alert, or nothing
                    while sock.recv(4096):
                        pass
                except ConnectionError:
                    pass
        node.wait_log("refused: the TLS handshake failed: |refused: more than 16384", 4)
        self.assertEqual(self.peer(node).ask("s", "count"), [0])

    def test_plain_node_gets_nothing_from_a_node_with_tls(self):
        self.tls_node("battle_1")
        game = self.node("game_1", scripts={"lab": LAB})
        code, executed = game.lua("""
            local code, e = cluster.try("battle_1", "s", "echo", 1)
            return code, e.executed""")
        self.assertEqual((wire.CODES[code], executed), ("disconnected", "maybe"))

    def test_node_with_tls_sends_nothing_to_a_plain_node(self):
        battle = self.node("battle_1", scripts={"lab": LAB})
        self.tls_node("game_1", scripts={"lab": LAB})
        seen = self.fails(self.folder.nodes[1])
        self.assertEqual(seen["name"], "connect_failed")
        battle.wait_log("unknown frame flag")
        self.assertEqual(battle.ctl("stat").returncode, 0)

    def fails(self, node):
        """The error object of a call to battle_1, which must fail before it is executed."""
        peer = self.peer(node)
        seen = peer.ask("lab", "run", """
            local code, e = cluster.try("battle_1", "lab", "echo", 1)
            return seen(e)""")[0]
        self.assertEqual(seen["executed"], "no", seen)
        return seen

    def test_caller_learns_that_the_other_node_is_a_stranger(self):
        """A server that has taken battle_1's place: nothing is sent to it."""
        cases = (
            (CERTS.of("battle_1", "strangers"), "unable to get local issuer certificate"),
            (CERTS.of("outsider"), "the peer's certificate is not battle_1's"),
            (CERTS.make(["battle_1"], days=-1), "certificate has expired"),
            (CERTS.make(["battle_1"], self_signed=True), "self-signed certificate"),
            (CERTS.make(["battle_1"], usage="clientAuth"), "purpose"),
        )
        game = self.tls_node("game_1", scripts={"lab": LAB})
        server = self.fake("battle_1")
        server.sock.settimeout(20)
        for identity, reason in cases:
            with self.subTest(reason):
                peer = self.peer(game)
                peer.start("lab", "run", """
                    local code, e
                    repeat
                        code, e = cluster.try("battle_1", "lab", "echo", 1)
                        if e.message:find("just now") then evpt.sleep(5) end
                    until not e.message:find("just now")
                    return seen(e)""")
                sock, _ = server.sock.accept()
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    end = tls.TlsEnd(sock, CERTS.context(identity, server=True), server_side=True)
                    end.sock.recv(1)
                sock.close()
                seen = peer.reply(peer.last_session).results[0]
                self.assertEqual((seen["name"], seen["executed"]), ("connect_failed", "no"), seen)
                self.assertIn(reason, seen["message"])

    def test_caller_learns_that_it_is_a_stranger_itself(self):
        """Its own part of the handshake is done by then, and the call is sent. The other node never
        looks at it."""
        self.tls_node("battle_1", scripts={"lab": LAB})
        game = self.tls_node("game_1", scripts={"lab": LAB},
                             tls_config=CERTS.config("game_1", "strangers"))
        seen = self.fails(game)
        self.assertEqual(seen["name"], "connect_failed", seen)
        self.assertIn("the peer does not accept this node's certificate: unknown CA",
                      seen["message"])
        self.folder.nodes[0].wait_log("refused: the peer's certificate: unable to get local issuer")


class StallTest(TlsCase):
    """A handshake that stops at each of its steps has two seconds, and 16 KiB."""

    def client_hello(self):
        """The first bytes of an honest handshake."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = CERTS.context(CERTS.of("tester"))
        self.handshake = context.wrap_bio(incoming, outgoing), incoming, outgoing
        with self.assertRaises(ssl.SSLWantReadError):
            self.handshake[0].do_handshake()
        return outgoing.read()

    def answer(self, sock):
        """The client's second flight."""
        made, incoming, outgoing = self.handshake
        while True:
            try:
                made.do_handshake()
                return outgoing.read()
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))

    def test_handshake_that_stalls_is_given_up_after_two_seconds(self):
        node = self.tls_node()
        friend = self.peer(node)
        hello = self.client_hello()
        stalled = []
        for opening in (b"", hello[:1], hello[:5], hello[:100], hello):
            sock = wire.connect(node.address)
            self.addCleanup(sock.close)
            sock.sendall(opening)
            stalled.append((time.monotonic(), sock))
        sock.sendall(self.answer(sock)[:50])            # in the middle of the second flight
        self.assertEqual(friend.ask("s", "echo", 1), [1])
        for since, sock in stalled:
            try:
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
            self.assertGreater(time.monotonic() - since, 1.9)
        node.wait_log("refused: it did not say who it is within 2 s", 5)
        self.assertEqual(friend.ask("s", "echo", 2), [2])

    def test_slow_bytes_do_not_buy_time(self):
        node = self.tls_node()
        hello = self.client_hello()
        with wire.connect(node.address) as sock:
            since = time.monotonic()
            sock.settimeout(0.05)
            ended = False
            for byte in hello * 3:
                try:
                    sock.send(bytes([byte]))
                    ended = not sock.recv(1)
                except TimeoutError:
                    continue
                except ConnectionError:
                    ended = True
                if ended:
                    break
            self.assertTrue(ended)
            self.assertLess(time.monotonic() - since, 10)
        node.wait_log("refused: ")

    def test_more_than_16_kib_before_authentication_is_refused(self):
        node = self.tls_node()
        hello = b"\x01\x00\xff\xff" + b"\x03\x03" + b"x" * 70000        # one long handshake message
        records = b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in
                           (hello[at:at + 4000] for at in range(0, len(hello), 4000)))
        with wire.connect(node.address) as sock:
            sock.sendall(records)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
        node.wait_log("refused: more than 16384 bytes before it is known who it is")

    def test_strangers_are_few_at_a_time_and_friends_do_not_notice(self):
        node = self.tls_node(config={"tls": CERTS.config("game_1", handshakes_max=12)})
        friend = self.peer(node)

        def knock(host):
            sock = socket.socket()
            sock.bind((host, 0))
            sock.settimeout(20)
            sock.connect(node.address)
            self.addCleanup(sock.close)
            return sock

        def turned_away(sock):
            try:
                return sock.recv(1) == b""
            except ConnectionError:
                return True

        def is_open(sock):
            return not select.select([sock], [], [], 0)[0]
        waiting = [knock("127.0.0.1") for _ in range(8)]
        self.assertTrue(turned_away(knock("127.0.0.1")))        # 8 from one address
        node.wait_log("refused: tls.handshakes_per_address_max: ")
        waiting += [knock("127.0.0.2") for _ in range(4)]
        self.assertTrue(turned_away(knock("127.0.0.3")))        # 12 in all
        self.assertTrue(all(map(is_open, waiting)))
        self.assertEqual(friend.ask("s", "echo", 1), [1])
        stats = self.stats(node)
        self.assertEqual((stats["handshakes"], stats["handshakes_turned_away"]), (12, 2))
        for sock in waiting:
            sock.close()
        wait_until(lambda: self.stats(node)["handshakes"] == 0, "strangers that have gone")
        self.assertEqual(self.peer(node).ask("s", "echo", 1), [1])

    def test_flood_of_handshakes_leaves_friends_served(self):
        """Every stranger costs the node as much as it may; the friend's calls all come back."""
        node = self.tls_node()
        friend = self.peer(node)
        stranger = CERTS.context(CERTS.of("tester", "strangers"))
        slowest, knocks = 0, 0
        for index in range(150):
            with wire.connect(node.address) as sock:
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    end = stranger.wrap_socket(sock)
                    since = time.monotonic()
                    self.assertEqual(friend.ask("s", "echo", index), [index])
                    slowest = max(slowest, time.monotonic() - since)
                    knocks += 1
                    end.recv(1)
        self.assertEqual(knocks, 150)
        self.assertLess(slowest, 1)
        self.assertGreaterEqual(self.stats(node)["handshakes_refused"], 150)


class EndTest(TlsCase):
    def test_truncation_is_told_from_an_end(self):
        node = self.tls_node()
        peer = self.peer(node)
        self.assertEqual(peer.ask("s", "echo", 1), [1])
        peer.sock.cut()
        node.wait_log("tester closed: the connection ended without TLS's close_notify")
        peer = self.peer(node)
        peer.sock.end()
        node.wait_log("tester closed: closed by the peer")

    def test_half_a_message_before_a_truncation_is_not_executed(self):
        node = self.tls_node(script="""
            local count = 0
            evpt.export { hit = function() count = count + 1 end, count = function() return count end }
            """)
        peer = self.peer(node)
        whole = wire.frame(wire.WHOLE, 1, wire.request("s", "hit", ["x" * 1000]))
        peer.send(whole[:-1])
        peer.sock.cut()
        node.wait_log("without TLS's close_notify")
        self.assertEqual(self.peer(node).ask("s", "count"), [0])

    def test_calls_of_a_connection_that_is_cut_are_answered(self):
        server = self.fake("battle_1")
        game = self.tls_node("game_1", scripts={"lab": LAB})
        peer = self.peer(game)
        peer.start("lab", "run", """
            local code, e = cluster.try("battle_1", "lab", "echo", 1)
            return seen(e)""")
        other = tls.accept(server, CERTS.context(CERTS.of("battle_1"), server=True))
        other.request()
        other.sock.cut()
        seen = peer.reply(peer.last_session).results[0]
        self.assertEqual((seen["name"], seen["executed"]), ("disconnected", "maybe"))
        self.assertIn("without TLS's close_notify", seen["message"])

    def test_damaged_bytes_end_the_connection(self):
        node = self.tls_node()
        friend, peer = self.peer(node), self.peer(node)
        os.write(peer.sock.fileno(), b"\x17\x03\x03\x00\x30" + b"\x5a" * 48)
        node.wait_log("tester closed: TLS failed: ")
        self.assertEqual(friend.ask("s", "echo", 1), [1])


class OpensslTest(TlsCase):
    """Against the programs that everybody has."""

    def test_s_client_is_served(self):
        node = self.tls_node()
        client = self.s_client(node, "-tls1_3", "-verify_return_error", "-ign_eof")
        client.read_until(lambda out: b"Verify return code: 0 (ok)" in out)
        client.write(wire.frame(wire.WHOLE, 7, wire.request("s", "echo", ["hello"])))
        reply = wire.frame(wire.WHOLE, 7, wire.pack([wire.REPLY, 0, ["hello"]]))
        client.read_until(lambda out: reply in out)
        self.assertIn(b"TLSv1.3", client.output)
        self.assertIn(b"Acceptable client certificate CA names\nCN = evpt development CA",
                      client.output)
        self.assertNotIn(b"New Session Ticket", client.output)
        self.assertIn(b"Early data was not sent", client.output)
        self.assertIn(b"Compression: NONE", client.output)

    def test_older_versions_are_refused(self):
        node = self.tls_node()
        for version in ("-tls1_2", "-tls1_1"):
            client = self.s_client(node, version, "-cipher", "DEFAULT@SECLEVEL=0")
            self.assertIn(b"Cipher is (NONE)", client.wait_end())
        node.wait_log("refused: the TLS handshake failed: unsupported protocol", 2)

    def test_renegotiation_has_no_effect_and_keys_may_be_updated(self):
        node = self.tls_node()
        client = self.s_client(node, "-tls1_3")
        client.read_until(lambda out: b"Verify return code: 0 (ok)" in out)
        for index, (command, says) in enumerate(((b"K\n", b"KEYUPDATE"), (b"k\n", b"KEYUPDATE"),
                                                 (b"R\n", b"RENEGOTIATING"))):
            client.write(command)
            client.read_until(lambda out, says=says: says in out)
            client.output = b""
            if command == b"R\n":       # s_client gives up by itself: TLS 1.3 has no such thing
                client.wait_end()
                self.assertNotIn(b"Verify return code: 0", client.output)
                continue
            client.write(wire.frame(wire.WHOLE, index + 1, wire.request("s", "echo", [index])))
            reply = wire.frame(wire.WHOLE, index + 1, wire.pack([wire.REPLY, 0, [index]]))
            client.read_until(lambda out, reply=reply: reply in out)
        self.assertEqual(self.peer(node).ask("s", "echo", 1), [1])

    def test_session_cannot_be_resumed(self):
        node = self.tls_node()
        saved = os.path.join(self.folder.path, "session")
        for flag in ("-sess_out", "-sess_in"):
            client = self.s_client(node, "-tls1_3", flag, saved)
            client.read_until(lambda out: b"Verify return code: 0 (ok)" in out)
            self.assertIn(b"New, TLSv1.3", client.output)
            client.write(b"Q\n")
            client.wait_end()
            if not os.path.exists(saved):       # nothing was given to be resumed
                return
        self.assertNotIn(b"Reused", client.output)

    def test_node_calls_s_server(self):
        ip, port = self.address("battle_1")
        identity = CERTS.of("battle_1")
        server = self.openssl("s_server", "-accept", "%s:%d" % (ip, port), "-CAfile", CERTS.ca,
                              "-cert", identity.cert, "-key", identity.key, "-Verify", "1",
                              "-verify_return_error", "-quiet")
        game = self.tls_node("game_1", scripts={"lab": LAB})
        peer = self.peer(game)

        def listens():
            with open("/proc/net/tcp") as table:
                return ":%04X 00000000:0000 0A" % port in table.read()
        wait_until(listens, "s_server")
        peer.start("lab", "run", 'return cluster.call("battle_1", "far", "away", "xyzzy")')
        out = server.read_until(lambda out: out if b"xyzzy" in out else None)
        self.assertIn(b"game_1", out)                   # HELLO
        at = out.rindex(b"\x80", 0, out.index(b"\xa3far"))
        session = struct.unpack(">I", out[at + 1:at + 5])[0]
        server.write(wire.frame(wire.WHOLE, session, wire.pack([wire.REPLY, 0, ["from afar"]])))
        self.assertEqual(peer.reply(peer.last_session), (0, ["from afar"]))

    def test_s_server_with_another_certificate_is_refused(self):
        ip, port = self.address("battle_1")
        identity = CERTS.of("battle_1", "strangers")
        server = self.openssl("s_server", "-accept", "%s:%d" % (ip, port), "-cert", identity.cert,
                              "-key", identity.key, "-quiet")
        game = self.tls_node("game_1", scripts={"lab": LAB})
        peer = self.peer(game)
        seen = peer.ask("lab", "run", """
            local code, e
            eventually(function()
                code, e = cluster.try("battle_1", "far", "away", "xyzzy")
                return e.message:find("certificate")
            end)
            return seen(e)""")[0]
        self.assertEqual((seen["name"], seen["executed"]), ("connect_failed", "no"))
        self.assertIn("unable to get local issuer certificate", seen["message"])
        server.read_until(lambda out: b"unknown ca" in out)
        self.assertNotIn(b"xyzzy", server.output)


class FilesTest(TlsCase):
    def test_bad_configurations_are_told_in_one_line(self):
        self.tls_node(start=False)
        folder = self.folder.nodes[0].folder
        good = CERTS.config("game_1")
        other = CERTS.config("battle_1")
        expired = CERTS.make(["game_1"], days=-1)
        cases = (
            (dict(good, cert="nowhere.crt"), "tls: ", "nowhere.crt: No such file or directory"),
            (dict(good, key=other["key"]), "tls: ", "is not the key of the certificate in"),
            (dict(good, ca="evpt.lua"), "tls: ", "evpt.lua: expected certificates (PEM)"),
            (other, "tls: ", "the certificate does not name game_1"),
            (dict(cert=expired.cert, key=expired.key, ca=good["ca"]), "tls: ",
             "the certificate has expired"),
            ({"cert": good["cert"], "key": good["key"]}, "tls.ca: expected a path, got nothing", ""),
            (dict(good, verify_name="yes"), "tls.verify_name: expected true or false", ""),
            (dict(good, ciphers="x"), "tls.ciphers: unknown key", ""),
            ("yes", "tls: expected a table or false", ""),
        )
        for config, *parts in cases:
            with self.subTest(parts):
                evptnode.write_file(os.path.join(folder, "evpt.lua"),
                                    evptnode.lua_globals({"tls": config}))
                for args in (("--check",), ()):
                    done = self.evpt(*args, "game_1", cwd=folder)
                    self.assertEqual(done.returncode, 1)
                    self.one_line(done.stderr, *parts)

    def test_encrypted_key_is_refused(self):
        config = CERTS.config("game_1")
        encrypted = os.path.join(CERTS.folder, "encrypted.key")
        tls.run("openssl", "pkey", "-in", config["key"], "-aes128", "-passout", "pass:x", "-out",
                encrypted)
        node = self.tls_node(tls_config=dict(config, key=encrypted), start=False)
        done = self.evpt("--check", "game_1", cwd=node.folder)
        self.one_line(done.stderr, "encrypted.key: the key is encrypted, and a node cannot ask")

    def test_name_of_the_node_stands_for_s(self):
        folder = os.path.join(CERTS.folder, "friends")
        node = self.tls_node(tls_config={"cert": folder + "/%s.crt", "key": folder + "/%s.key",
                                         "ca": CERTS.ca})
        self.assertEqual(self.peer(node).ask("s", "echo", 1), [1])


class ReloadTest(TlsCase):
    def copies(self, name="game_1", ca="friends"):
        """Files of its own, that a test may change."""
        made = {}
        for key, source in CERTS.config(name, ca).items():
            made[key] = os.path.join(self.folder.path, key + ".pem")
            shutil.copy(source, made[key])
        return made

    def test_new_certificates_hold_for_new_connections(self):
        files = self.copies()
        node = self.tls_node(tls_config=files)
        before = self.peer(node)
        stranger = CERTS.of("tester", "strangers")
        self.assert_refused(node, stranger, "unable to get local issuer certificate")
        for key, source in CERTS.config("game_1", "strangers").items():
            if key != "ca":
                shutil.copy(source, files[key])
        shutil.copy(os.path.join(CERTS.folder, "strangers/ca.crt"), files["ca"])
        done = node.ctl("reload")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(before.ask("s", "echo", "old"), ["old"])
        self.assertEqual(self.peer(node, stranger).ask("s", "echo", "new"), ["new"])
        self.assert_refused(node, CERTS.of("tester"), "unable to get local issuer certificate")

    def test_bad_file_leaves_the_old_ones_in_force_and_is_reported(self):
        files = self.copies()
        node = self.tls_node(tls_config=files)
        self.address("new_1")
        cases = (("key", CERTS.of("battle_1").key, "is not the key of the certificate in"),
                 ("cert", CERTS.of("battle_1").cert, "does not name game_1"),
                 ("ca", CERTS.of("battle_1").key, "expected certificates"))
        for key, source, words in cases:
            good = evptnode.read_file(files[key])
            shutil.copy(source, files[key])
            node.write_list(self.folder.addresses)       # with a new node: all or nothing
            done = node.ctl("reload")
            self.assertEqual(done.returncode, 1)
            self.assertIn("tls: ", done.stderr)
            self.assertIn(words, done.stderr)
            self.assertNotIn("new_1", node.nodes())
            self.assertEqual(self.peer(node).ask("s", "echo", 1), [1])
            evptnode.write_file(files[key], good)
        node.signal(1)
        node.wait_log("node list reloaded: added new_1")
        os.unlink(files["cert"])
        node.signal(1)
        node.wait_log(r"reload refused, everything stays as it was: tls: .*No such file")
        self.assertEqual(self.peer(node).ask("s", "echo", 1), [1])

    def test_node_that_leaves_the_list_loses_its_connections(self):
        node = self.tls_node()
        peer, other = self.peer(node), self.peer(node, CERTS.of("battle_1"), "battle_1")
        del self.folder.addresses["tester"]
        node.write_list(self.folder.addresses)
        self.assertEqual(node.ctl("reload").returncode, 0)
        self.closes_connection(peer)
        node.wait_log("tester closed: the node list no longer has it")
        self.assertEqual(other.ask("s", "echo", 1), [1])
        self.assert_refused(node, CERTS.of("tester"), "is in the node list")


class AccessTest(TlsCase):
    SCRIPT = """
        evpt.export { open = function() return "open" end }
        evpt.export({ match = function() return "match" end, again = function() return 1 end },
                    { from = { "battle_*", "tester" } })
        evpt.export({ admin = function() return "admin" end }, { from = { "gm_1" } })
        evpt.export({ free = function() return evpt.call("s", "admin") end })
        """

    def outcomes(self, peer):
        return [wire.CODES[peer.call("s", method).code]
                for method in ("open", "match", "admin", "free", "nothing")]

    def test_method_is_for_those_that_it_was_exported_to(self):
        node = self.tls_node(script=self.SCRIPT)
        peer = self.peer(node)
        allowed = ["ok", "ok", "denied", "ok", "unknown_method"]
        self.assertEqual(self.outcomes(peer), allowed)
        self.assertEqual(self.outcomes(self.peer(node, say_hello=None)), allowed)  # by certificate
        self.assertEqual(self.outcomes(self.peer(node, CERTS.of("battle_1"), "battle_1")), allowed)
        reply = peer.call("s", "admin")
        self.assertEqual(reply.results, ["s.admin is not for tester"])
        node.wait_log(r"warn.*denied: s\.admin is not for tester \(127\.")
        self.assertEqual(self.stats(node)["denied_requests"], 4)

    def test_caller_gets_an_error_object_and_nothing_is_executed(self):
        self.tls_node("battle_1", scripts={"s": self.SCRIPT})
        self.tls_node("game_1", scripts={"lab": LAB})
        peer = self.peer(self.folder.nodes[1])
        seen = peer.ask("lab", "run", """
            local code, e = cluster.try("battle_1", "s", "match")
            return seen(e)""")[0]
        self.assertEqual((seen["code"], seen["name"], seen["executed"]), (12, "denied", "no"))
        self.assertEqual(seen["text"],
                         "battle_1/s.match: denied: s.match is not for game_1 (executed: no)")

    def test_without_tls_the_name_is_that_of_hello(self):
        node = self.node(script=self.SCRIPT)
        peer = wire.Client(node.address)
        self.addCleanup(peer.close)
        self.assertEqual(self.outcomes(peer), ["ok", "denied", "denied", "ok", "unknown_method"])
        self.assertEqual(peer.call("s", "match").results,
                         ["s.match is not for a caller without a name"])
        peer.hello("battle_7")
        self.assertEqual(self.outcomes(peer), ["ok", "ok", "denied", "ok", "unknown_method"])

    def test_export_again_changes_the_rule(self):
        node = self.node(script="""
            local function two() return 2 end
            evpt.export({ two = two }, { from = { "a*b" } })
            evpt.export { change = function(from)
                evpt.export({ two = two }, from and { from = from })
            end }""")
        peer = wire.Client(node.address)
        self.addCleanup(peer.close)
        peer.hello("a_x_b")
        self.assertEqual(peer.ask("s", "two"), [2])
        peer.ask("s", "change", ["a*c", "b"])
        self.assertEqual(peer.call("s", "two").code, 12)
        peer.ask("s", "change", ["x", "*"])
        self.assertEqual(peer.ask("s", "two"), [2])
        peer.ask("s", "change", ["x"])
        self.assertEqual(peer.call("s", "two").code, 12)
        peer.ask("s", "change", None)
        self.assertEqual(peer.ask("s", "two"), [2])

    def test_wrong_options_of_export_raise(self):
        node = self.node(scripts={"lab": LAB})
        cases = {
            "{ form = { 'x' } }": "form: unknown option",
            "{}": "from: expected a list of patterns, got a nil",
            "{ from = 'x' }": "from: expected a list of patterns, got a string",
            "{ from = {} }": "from: expected 1 to 256 patterns, got 0",
            "{ from = { 'a', 5 } }": "from[2]: expected a node's name, in which * stands",
            "{ from = { 'a b' } }": "from[1]: expected a node's name",
            "{ from = { '' } }": "from[1]: expected a node's name",
            "{ from = { 'a\\0b' } }": "from[1]: expected a node's name",
            "5": "table expected, got number",
        }
        for options, words in cases.items():
            ok, text = node.lua("return pcall(evpt.export, { bad = print }, %s)" % options)
            self.assertFalse(ok)
            self.assertIn(words, text)
        self.assertEqual(node.client().call("lab", "bad").code, 6)


class MetricsTest(TlsCase):
    def test_strangers_and_denials_are_in_the_metrics(self):
        address = evptnode.fresh_address()
        node = self.tls_node(script='evpt.export({ echo = print }, { from = { "gm_1" } })',
                             config={"metrics": evptnode.address_text(address)})
        for _ in range(3):
            self.assertEqual(self.peer(node).call("s", "echo").code, 12)
        self.assert_refused(node, None, "did not return a certificate")
        with urllib.request.urlopen("http://%s:%d/metrics" % address, timeout=20) as answer:
            page = answer.read().decode()
        self.assertIn("\nevpt_requests_denied_total 3\n", page)
        refused = re.search(r"^evpt_handshakes_refused_total (\d+)$", page, re.M)
        self.assertEqual(int(refused[1]), self.stats(node)["handshakes_refused"])
        self.assertGreaterEqual(int(refused[1]), 1)
        self.assertIn("\nevpt_handshakes_turned_away_total 0\n", page)


class AdminTest(NodeCase):
    @unittest.skipUnless(os.geteuid() == 0, "needs root, to become somebody else")
    def test_socket_is_for_the_users_own_processes_whatever_its_mode(self):
        node = self.node(script=ECHO)
        for path in (os.path.dirname(self.folder.path), self.folder.path, node.folder,
                     os.path.dirname(node.admin)):
            if path.startswith(self.folder.path):
                os.chmod(path, 0o755)
        os.chmod(node.admin, 0o666)
        code = ("import socket, os; os.setuid(65534); s = socket.socket(socket.AF_UNIX)\n"
                "s.connect(%r); s.settimeout(20)\n"
                "try: s.sendall(b'x'); print(len(s.recv(1)))\n"
                "except ConnectionError: print(0)" % node.admin)
        done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=False,
                              timeout=60)
        self.assertEqual(done.stdout, "0\n", done.stderr)
        node.wait_log("warn.*connection to the admin socket refused: it runs as another user")
        self.assertEqual(node.ctl("nodes").returncode, 0)
