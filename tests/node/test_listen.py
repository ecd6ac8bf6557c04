"""What a node opens to the world (SPEC section 6)."""

import os
import re
import socket

import wire
from evptnode import NodeCase, read_file, wait_until

ECHO = "evpt.export { echo = function(...) return ... end }"


def listening_sockets(pid):
    """Addresses, as /proc/net tells them, and paths where this process listens."""
    inodes = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            inodes.update(re.findall(r"socket:\[(\d+)\]", target))
        except FileNotFoundError:
            continue
    found = []
    for file in ("tcp", "tcp6", "udp", "udp6"):
        for line in read_file("/proc/net/" + file).splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (file.startswith("udp") or fields[3] == "0A"):
                found.append(fields[1])
    for line in read_file("/proc/net/unix").splitlines()[1:]:
        fields = line.split()
        if fields[6] in inodes and fields[3] == "00010000":
            found.append(fields[7] if len(fields) > 7 else "unnamed")
    return found


class ListenTest(NodeCase):
    def test_node_listens_on_its_own_address_only(self):
        node = self.node(script=ECHO)
        ip, port = node.address
        self.assertEqual(node.ask("s", "echo", 1), [1])
        for other in ("127.0.0.1", "127.0.0.2"):
            with self.assertRaises(ConnectionRefusedError):
                wire.connect((other, port))
        raw = socket.inet_aton(ip)[::-1].hex().upper()
        self.assertEqual(sorted(listening_sockets(node.pid)),
                         sorted(["%s:%04X" % (raw, port), "run/game_1.sock"]))

    def test_node_listens_before_it_says_so_and_not_before_its_services_are_there(self):
        """A client that gets through finds the service, however early it comes."""
        node = self.node(scripts={"slow": "function __main__() evpt.sleep(200) end " + ECHO},
                         start=False)
        node.start(wait=False)
        while True:
            try:
                sock = wire.connect(node.address)
                break
            except ConnectionRefusedError:
                self.assertTrue(node.running())
        sock.close()
        self.assertEqual(node.client().call("slow", "echo", 1), (wire.OK, [1]))

    def test_loopback_address_needs_no_warning(self):
        node = self.node(script=ECHO)
        self.assertEqual(node.log_lines(r"(?i)\bwarn"), [])

    def test_other_address_without_transport_security_is_warned_about(self):
        with socket.socket() as sock:
            sock.bind(("0.0.0.0", 0))
            port = sock.getsockname()[1]
        self.folder.addresses["game_1"] = ("0.0.0.0", port)
        node = self.node(script=ECHO, start=False)
        node.address = ("127.0.0.1", port)
        node.start()
        self.assertEqual(node.ask("s", "echo", 1), [1])
        node.wait_log(r"(?i)\bwarn.*0\.0\.0\.0:%d" % port)

    def test_a_restarted_node_gets_its_address_back_at_once(self):
        node = self.node(script=ECHO)
        for _ in range(5):
            client = node.client()
            self.assertEqual(client.call("s", "echo", 1), (wire.OK, [1]))
            node.kill()
            node.start()
        self.assertEqual(node.ask("s", "echo", 1), [1])

    def test_descriptors_do_not_grow_with_connections_that_came_and_went(self):
        node = self.node(script=ECHO)
        self.assertEqual(node.ask("s", "echo", 1), [1])

        def open_descriptors():
            return len(os.listdir("/proc/%d/fd" % node.pid))
        before = open_descriptors()
        for _ in range(200):
            client = wire.Client(node.address)
            self.assertEqual(client.ask("s", "echo", 1), [1])
            client.close()
        wait_until(lambda: open_descriptors() <= before + 1, "closed descriptors")
