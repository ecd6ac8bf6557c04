"""What is done to the nodes. Each scenario is a function that gets a World under load, does harm by
chance, sees to it that the harm has arrived (or it would prove nothing), and returns.

The only sleeps are harm that is time itself: a stall, a pause, a black hole of that length.
"""

import dataclasses
import time

from world import CALLERS, SERVICES, SILENCE_S, descriptors, evptnode, link_name, wire

SCENARIOS = {}
SHORT, LONG = (0.05, SILENCE_S * 0.6), (SILENCE_S * 1.5, SILENCE_S * 2.5)


@dataclasses.dataclass
class Scenario:
    name: str
    act: callable
    names: tuple = ("game_1", "battle_1")
    proxied: bool = True
    needs_machines: bool = False
    cluster: dict = dataclasses.field(default_factory=dict)
    config: dict = dataclasses.field(default_factory=dict)


def scenario(**options):
    def register(act):
        SCENARIOS[act.__name__] = Scenario(act.__name__, act, **options)
        return act
    return register


# ---- helpers ----

def lost(world, caller, callee):
    """How many connections to callee the caller has lost so far."""
    return world.nodes[caller].nodes()[callee]["disconnects"]


class Loses:
    """with Loses(world, caller, callee): what is done in there costs the caller its connection."""

    def __init__(self, world, caller, callee):
        self.world, self.caller, self.callee = world, caller, callee

    def __enter__(self):
        self.before = lost(self.world, self.caller, self.callee)

    def __exit__(self, kind, error, trace):
        if kind is None:
            evptnode.wait_until(lambda: lost(self.world, self.caller, self.callee) > self.before,
                                "%s notices that its connection to %s is gone"
                                % (self.caller, self.callee))


def both(world, caller, callee, **faults):
    for direction in ("up", "down"):
        world.network.stream(link_name(caller, callee), direction, **faults)


def lose_all(world, source, target):
    """Nothing comes from source to target any more; source hears nothing of that."""
    world.network.packets(world.machines[source].ip, world.machines[target].ip, drop=1)


# ---- the connection ----

def cut(world, how):
    for _ in range(8):
        caller, callee = world.pair()
        name = link_name(caller, callee)
        with Loses(world, caller, callee):
            if world.rng.random() < 0.5:
                world.network.cut(name, how)
            else:       # in the middle of a frame, mostly
                world.network.cut_after(name, world.rng.choice(("up", "down")),
                                        world.rng.randrange(1, 20000), how)
        world.count("connections cut")
        world.wait_good(20, caller)


@scenario()
def cut_rst(world):
    cut(world, "rst")


@scenario()
def cut_fin(world):
    cut(world, "fin")


@scenario()
def half_open(world):
    """One side learns that the connection has ended; for the other one it goes on, in silence."""
    for _ in range(4):
        caller, callee = world.pair()
        with Loses(world, caller, callee):
            world.network.cut(link_name(caller, callee), world.rng.choice(
                ("rst_client", "fin_client", "rst_server", "fin_server")))
        world.count("half-open connections")
        world.wait_good(20, caller)


@scenario()
def stall(world):
    """Nothing moves for a while, in one direction or in both; less or more than the silence after
    which a peer is gone."""
    for span in (SHORT, LONG, SHORT, LONG):
        caller, callee = world.pair()
        name = link_name(caller, callee)
        directions = world.rng.choice((("up",), ("down",), ("up", "down")))
        for direction in directions:
            world.network.stream(name, direction, stall=True)
        world.time_passes(*span)
        for direction in directions:
            world.network.stream(name, direction)
        world.count("stalls")
        world.wait_good(20)


@scenario()
def delay(world):
    for _ in range(3):
        caller, callee = world.pair()
        both(world, caller, callee, delay_ms=world.rng.randrange(10, 150),
             jitter_ms=world.rng.randrange(0, 150))
        world.wait_good(30, caller)
        world.count("slow links")
        both(world, caller, callee)


@scenario()
def split(world):
    """Bytes come one by one, or a few at a time; which is slow, so that calls time out as well."""
    for _ in range(3):
        caller, callee = world.pair()
        pieces = world.network.counts().get("pieces", 0)
        both(world, caller, callee, split=world.rng.choice((1, 2, 3, 6, 7, 8, 64)),
             pause_ms=world.rng.choice((0, 0, 0.2)))
        evptnode.wait_until(lambda: world.network.counts().get("pieces", 0) > pieces + 2000,
                            "2000 small pieces")
        both(world, caller, callee)
        world.count("split streams")
        world.wait_good(20)


@scenario(names=("game_1", "battle_1", "chat_1"))
def corrupt(world):
    """Bytes change on one link. Whatever comes of that: its calls end in time, and nobody else
    notices."""
    caller, callee = world.pair()
    world.unsafe.add((caller, callee))
    name = link_name(caller, callee)
    target = world.network.counts().get("corrupted", 0) + 10
    for direction in world.rng.choice((("up",), ("down",), ("up", "down"))):
        world.network.stream(name, direction, corrupt=world.rng.choice((0.1, 0.3, 1)))
    evptnode.wait_until(lambda: world.network.counts().get("corrupted", 0) >= target,
                        "ten changed bytes")
    world.count("bytes changed", 10)


@scenario(proxied=False, needs_machines=True)
def black_hole(world):
    """Everything on one way is lost, in silence; the other way works."""
    for _ in range(3):
        caller, callee = world.pair()
        with Loses(world, caller, callee):
            lose_all(world, *world.rng.choice(((caller, callee), (callee, caller))))
        world.network.heal()
        world.count("one-way black holes")
        world.wait_good(20)


@scenario(proxied=False, needs_machines=True)
def partition(world):
    """No packet either way, for less or more than the silence after which a peer is gone."""
    for span in (SHORT, LONG, SHORT, LONG):
        a, b = world.pair()
        lose_all(world, a, b)
        lose_all(world, b, a)
        world.time_passes(*span)
        world.network.heal()
        world.count("partitions")
        world.wait_good(20)


@scenario()
def swallow(world):
    """The same as black_hole, where a firewall takes the bytes: TCP says that all is well."""
    for _ in range(3):
        caller, callee = world.pair()
        with Loses(world, caller, callee):
            world.network.stream(link_name(caller, callee), world.rng.choice(("up", "down")),
                                 swallow=True)
        world.network.heal()
        world.count("one-way black holes behind a proxy")
        world.wait_good(20)


@scenario(proxied=False, needs_machines=True)
def lossy(world):
    """Packets are lost, come twice, and overtake each other."""
    for source in world.names:
        for target in world.others(source):
            world.network.packets(world.machines[source].ip, world.machines[target].ip,
                                  drop=world.rng.choice((0.01, 0.05)), repeat=0.1,
                                  jitter_ms=world.rng.choice((0, 5, 20)))
    world.wait_good(200)
    world.count("packets lost", world.network.counts()["dropped"])


# ---- the processes ----

@scenario()
def kill(world):
    for _ in range(6):
        world.wait_good(world.rng.randrange(1, 50))
        victims = world.rng.sample(world.names, world.rng.choice((1, 1, 2)))
        for victim in victims:
            world.kill(victim)
        for survivor in world.names:
            if survivor not in victims:
                world.wait_failed(world.rng.randrange(1, 10), survivor)
        for victim in victims:
            world.start_again(victim)


@scenario()
def pause(world):
    """SIGSTOP, and SIGCONT before or after the others have given it up."""
    for span in (SHORT, LONG, SHORT, LONG):
        world.freeze(world.rng.choice(world.names), world.rng.uniform(*span))
        world.wait_good(20)


@scenario()
def restart(world):
    """Stopped in order under load, and started again at the same address."""
    world.allowed.add(wire.STOPPING)
    for _ in range(3):
        victim = world.rng.choice(world.names)
        world.stop(victim)
        world.start_again(victim)
        world.wait_good(20)


@scenario(names=("game_1", "battle_1", "chat_1"))
def dial(world):
    """Everybody loses everybody, and all dial all at once."""
    for _ in range(6):
        if world.rng.random() < 0.3:
            for name in world.names:
                world.kill(name)
            for node in world.nodes.values():
                node.start(wait=False)
            for name in world.names:
                world.nodes[name].wait_ready()
            for name in world.names:
                world.begin(name)
        else:
            how = world.rng.choice(("rst", "fin"))
            for name in world.links():
                world.network.cut(name, how)
            world.count("all connections cut")
        world.wait_good(20)
    others = len(world.names) - 1
    for name in world.names:        # and each has one connection to each in the end
        evptnode.wait_until(lambda: world.stat(name)["connections_out"] == others,
                            "one connection of %s to each other node" % name)


# ---- limits ----

@scenario(cluster={"heartbeat_ms": 5000})
def emfile(world):
    """battle_1 has no descriptor left: what is connected goes on; who comes is turned away until
    there are some again."""
    world.allowed.add(wire.OVERLOADED)
    node = world.nodes["battle_1"]
    world.limit_descriptors("battle_1", descriptors(node) + 20)
    hoard = []
    take_all(node, hoard)
    world.wait_good(20)
    for name in world.links():      # game_1 is not let in; battle_1 can open none
        world.network.listen(name, False)
        world.network.cut(name, "rst")
    world.wait_failed(1)
    take_all(node, hoard)
    for name in world.links():
        world.network.listen(name, True)
    world.wait_failed(20)
    for sock in hoard:
        sock.close()
    world.count("descriptors run out")
    world.wait_good(20)


def take_all(node, hoard):
    """Connects until the node turns somebody away for want of a descriptor."""
    refused = len(node.log_lines("Too many open files"))
    hoard += [wire.connect(node.address) for _ in range(25)]
    node.wait_log("Too many open files", refused + 1)


@scenario(cluster={"heartbeat_ms": 5000})
def slow_reader(world):
    """A client asks for 64 MiB and does not read, and a peer does not read the 64 MiB that are sent
    to it. Memory is bounded meanwhile, and comes back; nobody else notices."""
    game, battle = world.nodes["game_1"], world.nodes["battle_1"]
    world.allowed.add(wire.OVERLOADED)
    client = wire.Client(battle.address, receive_buffer=4096)
    before = battle.memory_kib()
    for _ in range(1400):
        client.start("work_2", "big", 65536)
    evptnode.wait_until(lambda: battle.memory_kib() > before + 60000 or evptnode.sanitized(),
                        "64 MiB wait for the client in battle_1")
    world.wait_good(50)
    client.reset()

    name = link_name("game_1", "battle_1")
    world.network.stream(name, "up", stall=True)
    game.ask(CALLERS[0], "flood", "battle_1", 1400, 65536)
    evptnode.wait_until(lambda: game.nodes()["battle_1"]["queued"] > 60 << 20,
                        "64 MiB wait for battle_1 in game_1")
    queued = game.nodes()["battle_1"]["queued"]
    if queued > (64 << 20) + 65536 + 1024:
        raise AssertionError("%d bytes queued, and send_buffer_max is 64 MiB" % queued)
    world.wait_good(50, "battle_1")
    if world.rng.random() < 0.5:
        world.network.cut(name, "rst")
    world.network.stream(name, "up")
    world.count("slow readers", 2)


@scenario()
def idle(world):
    """1000 connections that send nothing."""
    node = world.nodes["battle_1"]
    before = descriptors(node)
    socks = [wire.connect(node.address) for _ in range(1000)]
    evptnode.wait_until(lambda: descriptors(node) >= before + 1000, "1000 connections are taken")
    world.wait_good(100)
    for sock in socks:
        if world.rng.random() < 0.5:
            sock.close()
        else:
            wire.reset(sock)
    world.count("idle connections", 1000)


@scenario(proxied=False, needs_machines=True)
def vanish(world):
    """Connections that have sent nothing, or a HELLO, are closed while the cable is out: the node
    never hears of it, and gives them up all the same."""
    node, hub = world.nodes["battle_1"], world.machines["hub"].ip
    before = descriptors(node)
    clients = [wire.Client(node.address, say_hello=i % 2 == 0) for i in range(100)]
    evptnode.wait_until(lambda: descriptors(node) >= before + 100, "100 connections are taken")
    lose_all(world, "hub", "battle_1")
    lose_all(world, "battle_1", "hub")
    for client in clients:
        client.reset()
    world.time_passes(*SHORT)       # until the packets of that are lost
    world.network.heal()
    world.count("connections that vanished", 100)


@scenario()
def garbage(world):
    """Strangers send noise, good frames with bytes changed, pieces of frames, and good frames that
    make no sense together."""
    for _ in range(200):
        sock = wire.connect(world.nodes[world.rng.choice(world.names)].address)
        try:
            sock.sendall(noise(world.rng))
        except OSError:
            pass                # it has closed already
        if world.rng.random() < 0.5:
            wire.reset(sock)
        else:
            sock.close()
    world.count("garbage senders", 200)
    world.wait_good(50)


def noise(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 100000))
    frames = bytearray()
    for session in range(1, rng.randrange(2, 50)):
        flag = rng.choice((wire.WHOLE, wire.WHOLE, wire.FIRST, wire.MIDDLE, wire.LAST, wire.HELLO,
                           wire.PING, wire.PONG, wire.GOAWAY))
        data = wire.request(rng.choice(SERVICES + ("nobody", "", ".stop", "clusterclient")),
                            rng.choice(("big", "work", "", "x" * 300)), [rng.randrange(100)])
        frames += wire.frame(flag, session if flag < wire.HELLO else 0, data)
    if kind == 1:
        for _ in range(rng.randrange(1, 5)):
            frames[rng.randrange(len(frames))] = rng.randrange(256)
    return bytes(frames[:rng.randrange(1, len(frames) + 1)] if kind == 2 else frames)


# ---- the node list ----

@scenario(names=("game_1", "battle_1", "chat_1"))
def reload(world):
    """The list takes a node away, says that it is down, gives it another address, has a mistake,
    and names it again, under load."""
    world.allowed.add(wire.UNKNOWN_NODE)
    for _ in range(12):
        caller, other = world.pair()
        node, view = world.nodes[caller], dict(world.nodes[caller].view)
        change = world.rng.choice(("remove", "down", "move", "mistake"))
        if change == "remove":
            del view[other]
        elif change == "down":
            view[other] = False
        elif change == "move":
            view[other] = world.address(other)
        else:
            view[other] = "127.0.0.1:0:0"
        node.write_list(view)
        wrong = change == "mistake"
        reloaded(node, refused=wrong)
        world.wait_good(10)
        node.write_list(node.view)
        reloaded(node)
        world.count("node lists refused" if wrong else "node lists changed")
        world.wait_good(10)


def reloaded(node, refused=False):
    answer = node.ctl("reload")
    if (answer.returncode != 0) != refused:
        raise AssertionError("evpt-ctl reload: %d: %s" % (answer.returncode,
                                                         answer.stdout + answer.stderr))


# ---- all at once ----

@scenario(names=("game_1", "battle_1", "chat_1"))
def swarm(world):
    """Harm of several kinds at the same time, as chance has it."""
    world.allowed.update((wire.STOPPING, wire.UNKNOWN_NODE))
    actions = world.rng.sample(SWARM, world.rng.randrange(3, len(SWARM) + 1))
    until = time.monotonic() + 4
    while time.monotonic() < until:
        world.rng.choice(actions)(world, *world.pair())
        world.time_passes(0, 0.3)
    for node in world.nodes.values():
        node.write_list(node.view)
        reloaded(node)
    world.count("swarms")


def swarm_cut(world, caller, callee):
    world.network.cut(link_name(caller, callee), world.rng.choice(
        ("rst", "fin", "rst_client", "fin_client", "rst_server", "fin_server")))


def swarm_cut_after(world, caller, callee):
    world.network.cut_after(link_name(caller, callee), world.rng.choice(("up", "down")),
                            world.rng.randrange(1, 20000), world.rng.choice(("rst", "fin")))


def swarm_stream(world, caller, callee):
    faults = world.rng.choice(({"stall": True}, {"swallow": True}, {"split": 7}, {}, {},
                               {"delay_ms": 100, "jitter_ms": 100}))
    world.network.stream(link_name(caller, callee), world.rng.choice(("up", "down")), **faults)


def swarm_refuse(world, caller, callee):
    world.network.listen(link_name(caller, callee), world.rng.random() < 0.6)


def swarm_kill(world, caller, callee):
    world.kill(callee)
    world.start_again(callee)


def swarm_restart(world, caller, callee):
    world.stop(callee)
    world.start_again(callee)


def swarm_pause(world, caller, callee):
    world.freeze(callee, world.rng.uniform(*world.rng.choice((SHORT, LONG))))


def swarm_reload(world, caller, callee):
    node, view = world.nodes[caller], dict(world.nodes[caller].view)
    if world.rng.random() < 0.5:
        view[callee] = world.rng.choice((False, world.address(callee)))
    node.write_list(view)
    reloaded(node)


def swarm_heal(world, caller, callee):
    world.network.heal()


SWARM = (swarm_cut, swarm_cut_after, swarm_stream, swarm_refuse, swarm_kill, swarm_restart,
         swarm_pause, swarm_reload, swarm_heal)
