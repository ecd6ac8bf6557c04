"""Certificates of friends and strangers, and peers that speak TLS: Python's ssl module, and the
program openssl. A helper of test_tls.py."""

import os
import queue
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

import evptnode
import wire

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def run(*args, **options):
    return subprocess.run(args, check=True, capture_output=True, text=True,
                          env=evptnode.environment(), **options)


class Identity:
    """A certificate and its key."""

    def __init__(self, folder, name):
        self.cert = os.path.join(folder, name + ".crt")
        self.key = os.path.join(folder, name + ".key")


class Certificates:
    """Two CAs, `friends` and `strangers`, each with a folder that evpt-certs has made."""

    NODES = ("game_1", "battle_1", "tester", "outsider")

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="evpt-certs-")
        for ca in ("friends", "strangers"):
            run(os.path.join(TOP, "tools/evpt-certs"), "-C", os.path.join(self.folder, ca),
                *self.NODES)
        self.ca = os.path.join(self.folder, "friends/ca.crt")
        self.count = 0

    def close(self):
        shutil.rmtree(self.folder)

    def of(self, name, ca="friends"):
        return Identity(os.path.join(self.folder, ca), name)

    def make(self, names, days=10, self_signed=False, usage="serverAuth, clientAuth"):
        """One that evpt-certs would not make."""
        self.count += 1
        made = Identity(self.folder, "made%d" % self.count)
        extensions = "%s/made%d.ext" % (self.folder, self.count)
        evptnode.write_file(extensions, "basicConstraints = critical, CA:FALSE\n"
                            "extendedKeyUsage = %s\n%s" % (usage, "subjectAltName = %s\n" % ", ".join(
                                "DNS:" + name for name in names) if names else ""))
        run("openssl", "req", "-new", *CURVE, "-subj", "/CN=battle_1", "-keyout", made.key,
            "-out", made.cert + ".csr")
        by = ["-signkey", made.key] if self_signed else \
            ["-CA", self.ca, "-CAkey", self.ca.replace(".crt", ".key"), "-set_serial", "7"]
        run("openssl", "x509", "-req", "-in", made.cert + ".csr", *by, "-days", str(days),
            "-extfile", extensions, "-out", made.cert)
        return made

    def config(self, name, ca="friends", **more):
        """`tls` of a node's configuration."""
        identity = self.of(name, ca)
        return dict({"cert": identity.cert, "key": identity.key, "ca": self.ca}, **more)

    def context(self, identity, server=False):
        """For a peer that checks nothing itself: it is the node that is tested."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        if not server:
            context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED if server else ssl.CERT_NONE
        if server:
            context.load_verify_locations(self.ca)
        if identity:
            context.load_cert_chain(identity.cert, identity.key)
        return context


class TlsEnd:
    """A socket as wire.Peer wants it, over TLS."""

    def __init__(self, sock, context, **options):
        self.sock = context.wrap_socket(sock, **options)
        self.family = self.sock.family
        for name in ("fileno", "setsockopt", "getsockname", "close", "setblocking"):
            setattr(self, name, getattr(self.sock, name))

    def _call(self, function, *args):
        try:
            return function(*args)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except ssl.SSLError as error:       # an alert, a truncation
            raise ConnectionError(error.reason) from error

    def recv(self, size):
        return self._call(self.sock.recv, size)

    def send(self, data):
        return self._call(self.sock.send, data)

    def end(self):
        """close_notify, and the socket stays open."""
        self.sock.setblocking(True)
        return self.sock.unwrap()

    def cut(self):
        """Ends the socket without a word of TLS."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Client(wire.Client):
    def __init__(self, address, context, say_hello=None, patience=20):
        wire.Peer.__init__(self, TlsEnd(wire.connect(address), context), patience)
        self.last_session, self.replies = 0, {}
        if say_hello:
            self.hello(say_hello)
            self.peer_hello = self.control(wire.HELLO)


def accept(server, context, name="battle_1"):
    """The next connection of a wire.FakeServer, over TLS, with HELLO both ways."""
    server.sock.settimeout(20)
    sock, _ = server.sock.accept()
    peer = wire.FakeConnection(TlsEnd(sock, context, server_side=True))
    peer.peer_hello = peer.control(wire.HELLO)
    peer.hello(name)
    return peer


class Program:
    """`openssl s_client` or `s_server`: what goes in and out of it is what goes over TLS, and what it
    says about TLS itself it says on stderr or between."""

    def __init__(self, *args):
        self.process = subprocess.Popen(["openssl", *args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.output, self.chunks = b"", queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        while True:
            chunk = self.process.stdout.read(65536)
            self.chunks.put(chunk)
            if not chunk:
                return

    def write(self, data):
        self.process.stdin.write(data)

    def read_until(self, found, patience=20):
        """Reads until found(output) is true, and returns what it gave. AssertionError where the
        program ends before."""
        while not found(self.output):
            try:
                chunk = self.chunks.get(timeout=patience)
            except queue.Empty:
                raise AssertionError("openssl said no more than %r" % self.output) from None
            if not chunk:
                raise AssertionError("openssl ended, having said %r" % self.output)
            self.output += chunk
        return found(self.output)

    def wait_end(self, patience=20):
        """All that it says until it ends."""
        self.process.wait(patience)
        self.reader.join()
        while not self.chunks.empty():
            self.output += self.chunks.get()
        return self.output

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.reader.join()
        self.process.stdout.close()
