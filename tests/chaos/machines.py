"""Machines of their own for the nodes, as far as TCP can tell: network namespaces, each with one
address on a tun device. What one machine sends comes out of its device as IP packets, and
network.py carries them to the others, or loses them: so a black hole is silence, and not a
connection that somebody has closed.

The runner moves into a namespace of its own as well (the hub), where the proxies listen and from
where the nodes are asked. Root may do all that, and so may others where the system lets them make
user namespaces and open /dev/net/tun. Where it cannot be had, the nodes live on loopback.
"""

import ctypes
import fcntl
import os
import socket
import struct

HUB = "hub"
MTU = 9000              # each packet costs the carrier in Python the same, so few large ones
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR = 0x8913, 0x8914, 0x8916
SIOCSIFNETMASK, SIOCSIFMTU, IFF_UP = 0x891c, 0x8922, 0x1


class NoMachines(Exception):
    """This system gives us none; the text says why."""


class Machine:
    """A namespace: its address, its tun device, and what starts a program in it."""

    def __init__(self, name, ip):
        self.name, self.ip = name, ip
        self.namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"cable", IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for request, ip_address in ((SIOCSIFADDR, ip), (SIOCSIFNETMASK, "255.255.255.0")):
                fcntl.ioctl(sock, request, struct.pack("16sH2x4s8x", b"cable", socket.AF_INET,
                                                       socket.inet_aton(ip_address)))
            fcntl.ioctl(sock, SIOCSIFMTU, struct.pack("16si12x", b"cable", MTU))
            for name in (b"cable", b"lo"):
                flags, = struct.unpack_from("H", fcntl.ioctl(sock, SIOCGIFFLAGS,
                                                             struct.pack("16s16x", name)), 16)
                fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", name, flags | IFF_UP))

    def prefix(self):
        """In front of a command: runs it in here, under the same process id."""
        return ["nsenter", "--net=/proc/%d/fd/%d" % (os.getpid(), self.namespace)]


def _libc(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, "%s: %s" % (name, os.strerror(error)))


def _leave_home():
    """Into the hub; without root's rights, into a user namespace first where we have them."""
    try:
        _libc("unshare", CLONE_NEWNET)
        return
    except PermissionError:
        uid, gid = os.getuid(), os.getgid()
    _libc("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % uid),
                       ("gid_map", "0 %d 1" % gid)):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)


def make(names):
    """{name: Machine}, the hub among them, in which this process is from now on. NoMachines where
    that cannot be done: then everything is as it was."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    machines = {}
    try:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise PermissionError("/dev/net/tun cannot be opened")
        _leave_home()
        machines[HUB] = Machine(HUB, "10.77.0.254")
        for number, name in enumerate(names, 1):
            _libc("unshare", CLONE_NEWNET)
            machines[name] = Machine(name, "10.77.0.%d" % number)
        _libc("setns", machines[HUB].namespace, CLONE_NEWNET)
    except OSError as error:
        for machine in machines.values():
            os.close(machine.namespace)
            os.close(machine.tun)
        _libc("setns", home, CLONE_NEWNET)
        raise NoMachines(str(error)) from error
    finally:
        os.close(home)
    return machines
