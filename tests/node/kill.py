#!/usr/bin/env python3
"""The kill test: battle_1 is killed with SIGKILL under the load of load.py and started again,
several times.

    tests/node/kill.py [--build DIR] [--kills N] [--coroutines N] [--seed N]

battle_1 writes the index of each call that it executes into a file, before it does anything else:
what is in there survives the kill. At the end

- every call has had exactly one outcome, in coroutine style and in callback style;
- a call that succeeded was executed, once, and one whose outcome says "no" was not executed: those
  are the calls that a caller may safely repeat;
- session2context and requestCache are empty.
"""

import argparse
import collections
import random
import struct
import sys

import evptnode
import load
import wire

BATTLE = """
local content = require "content"
local file = assert(io.open("executed", "ab"))
file:setvbuf("no")      -- one write(2) per call
evpt.export { work = function(params)
    local seed, index, bytes = params[1], params[2], params[3]
    file:write(string.pack("<i8", index))
    if bytes ~= content.bytes(seed, index) then error("wrong argument of call " .. index) end
    return { index, content.bytes(seed + 1, index) }
end }
"""

GAME = """
local content = require "content"
local KIND = { no = 0, maybe = 1, yes = 2 }
local started, finished, good, running, stopped, twice, seed = 0, 0, 0, 0, false, 0, 0
local outcomes = {}     -- by index: a byte, 4 * code + executed; 255 a wrong answer

local function note(index, code, r)
    if outcomes[index] then twice = twice + 1 return end
    finished = finished + 1
    local byte
    if code ~= 0 then byte = 4 * code + KIND[r.executed]
    elseif r[1] == index and r[2] == content.bytes(seed + 1, index) then byte, good = 2, good + 1
    else byte = 255 end
    outcomes[index] = string.char(byte)
    return code
end

local function by_coroutine(index, params)
    return note(index, cluster.try("battle_1", "work", "work", params))
end

local function by_callback(index, params)
    local co, got = coroutine.running(), nil
    cluster.remoteCall("battle_1", "work", "work", params, function(_, code, r)
        got = note(index, code, r) or code
        evpt.wakeup(co)
    end)
    while not got do evpt.wait() end
    return got
end

local function caller(number)
    while not stopped do
        started = started + 1
        local index = started
        local call = number % 2 == 0 and by_callback or by_coroutine
        -- While nobody is there, each call fails at once: no reason to spin.
        if call(index, { seed, index, content.bytes(seed, index) }) ~= 0 then evpt.sleep(5) end
    end
    running = running - 1
end

evpt.export {
    start = function(coroutines, with_seed)
        seed, running = with_seed, coroutines
        for i = 1, coroutines do evpt.fork(caller, i) end
    end,
    stop = function() stopped = true end,
    progress = function() return good, finished - good, running, started end,
    outcomes = function(first, last)
        local list = {}
        for i = first, last do list[#list + 1] = outcomes[i] or "\\xfe" end
        return table.concat(list)
    end,
    twice = function() return twice end,
}
"""
ALLOWED = {wire.OK, wire.CONNECT_FAILED, wire.DISCONNECTED}
EXECUTED = ("no", "maybe", "yes", "?")


def judge(outcomes, executed):
    """Facts about the run; LoadFailed where an outcome is not what it may be."""
    counts = collections.Counter()
    for index, byte in enumerate(outcomes, 1):
        if byte >= 254:
            raise load.LoadFailed("call %d: %s" % (index, "no outcome" if byte == 254
                                                   else "a wrong answer"))
        code, kind, times = byte >> 2, EXECUTED[byte & 3], executed[index]
        counts["%s/%s" % (wire.CODES[code], kind) if code else "ok"] += 1
        if code not in ALLOWED:
            raise load.LoadFailed("call %d: outcome %s" % (index, wire.CODES[code]))
        if times > 1:
            raise load.LoadFailed("call %d was executed %d times" % (index, times))
        if code == wire.OK and times != 1:
            raise load.LoadFailed("call %d succeeded and was not executed" % index)
        if code != wire.OK and kind == "no" and times:
            raise load.LoadFailed('call %d was executed, and its outcome says "no"' % index)
    if set(executed) - set(range(1, len(outcomes) + 1)):
        raise load.LoadFailed("a call was executed that nobody made")
    return ", ".join("%d %s" % (count, name) for name, count in sorted(counts.items()))


def run_kills(folder, kills, coroutines, seed):
    config = {"cluster": {"call_timeout_ms": 120000}}
    folder.address("battle_1")
    game = folder.node("game_1", {"content": load.CONTENT, "load": GAME}, services=["load"],
                       config=config)
    battle = folder.node("battle_1", {"content": load.CONTENT, "work": BATTLE}, services=["work"],
                         config=config)
    battle.expected_files.add("executed")
    client = game.client(patience=120)
    rng = random.Random(seed)
    client.ask("load", "start", coroutines, seed)

    def wait_for(which, more):
        """Until that many more calls are good (0) or bad (1)."""
        start = client.ask("load", "progress")[which]
        evptnode.wait_until(lambda: client.ask("load", "progress")[which] >= start + more,
                            "%d more %s calls" % (more, ("good", "failed")[which]), patience=120)

    for _ in range(kills):
        wait_for(0, rng.randrange(200, 3000))
        battle.kill()
        wait_for(1, rng.randrange(1, coroutines))
        battle.start()
    wait_for(0, 1000)
    client.ask("load", "stop")
    evptnode.wait_until(lambda: client.ask("load", "progress")[2] == 0, "the end of all calls", 120)
    evptnode.wait_until(game.idle, "empty session2context and requestCache")

    started = client.ask("load", "progress")[3]
    if client.ask("load", "twice") != [0]:
        raise load.LoadFailed("some calls had two outcomes")
    outcomes = b""
    for first in range(1, started + 1, 1000000):
        text = client.ask("load", "outcomes", first, min(started, first + 999999))[0]
        outcomes += text.encode("utf-8", "surrogateescape")
    if len(outcomes) != started:
        raise load.LoadFailed("%d outcomes of %d calls" % (len(outcomes), started))
    with open(battle.path("executed"), "rb") as file:
        executed = collections.Counter(index for index, in struct.iter_unpack("<q", file.read()))
    return "%d kills, %d calls: %s" % (kills, started, judge(outcomes, executed))


def main():
    parser = argparse.ArgumentParser(description="A node killed under load: one outcome per call.")
    parser.add_argument("--build", default=evptnode.settings.build, help="the build folder")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--coroutines", type=int, default=256)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    options = parser.parse_args()
    evptnode.settings.build = options.build
    print("kill: seed %d, %d kills, %d coroutines"
          % (options.seed, options.kills, options.coroutines), flush=True)
    return load.run("kill", lambda folder: run_kills(folder, options.kills, options.coroutines,
                                                     options.seed))


if __name__ == "__main__":
    sys.exit(main())
