#!/usr/bin/env python3
"""The load test: game_1 calls battle_1 from 256 coroutines, with mixed sizes, and every answer is
checked.

    tests/node/load.py [--build DIR] [--calls N] [--coroutines N] [--seed N]

Sizes of arguments and of results, each for itself: most under 1 KiB, one in a hundred up to 64
KiB, one in ten thousand up to 1 MiB. What is in them depends on seed and index, so an answer that
belongs to another call, or has a byte wrong, is noticed on either side. One coroutine in four
calls in callback style.

The calls are made in ten rounds. After each the memory of both nodes is read (resident, and what
Lua holds). What malloc keeps differs from round to round by some large messages, up and down; so
the least of the last three rounds must not be more than the least of the first three.
"""

import argparse
import random
import sys
import time

import evptnode

# Bytes that depend on (seed, index), and sizes that depend on them too: in both nodes.
CONTENT = """
local M = {}
local function mix(x)       -- 64-bit finalizer: every input bit moves every output bit
    x = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
    x = (x ~ (x >> 27)) * 0x94d049bb133111eb
    return x ~ (x >> 31)
end
function M.size(seed, index)
    local h = mix(seed * 0x9e3779b97f4a7c15 + index)
    local kind, fraction = h & 0xffff, h >> 16
    if kind % 10000 == 0 then return 65536 + fraction % (1048576 - 65536 + 1) end
    if kind % 100 == 1 then return 1024 + fraction % (65536 - 1024 + 1) end
    return fraction % 1024
end
function M.bytes(seed, index)
    local size = M.size(seed, index)
    return string.pack("<i8i8", mix(seed ~ index), index):rep(size // 16 + 1):sub(1, size)
end
return M
"""

BATTLE = """
local content = require "content"
evpt.export {
    work = function(seed, index, bytes)
        if bytes ~= content.bytes(seed, index) then error("wrong argument of call " .. index) end
        return index, content.bytes(seed + 1, index)
    end,
    memory = function() collectgarbage() collectgarbage() return collectgarbage("count") end,
}
"""

GAME = """
local content = require "content"
local next_index, last_index, seed, running, done, wrong = 1, 0, 0, 0, 0, {}

local function check(index, code, got_index, bytes)
    done = done + 1
    if code == 0 and got_index == index and bytes == content.bytes(seed + 1, index) then return end
    if #wrong < 10 then
        wrong[#wrong + 1] = ("call %d: code %s, %s"):format(
            index, code, code == 0 and "wrong answer" or tostring(got_index))
    end
end

local function by_callback(index, bytes)
    local co, answer = coroutine.running(), nil
    cluster.remoteCall("battle_1", "pair", "work", { seed, index, bytes }, function(_, code, r)
        assert(not answer, "a second callback")
        answer = { code, r }
        evpt.wakeup(co)
    end)
    while not answer do evpt.wait() end
    local code, r = answer[1], answer[2]
    if code == 0 then check(index, code, r[1], r[2]) else check(index, code, r) end
end

local function caller(number)
    while next_index <= last_index do
        local index = next_index
        next_index = index + 1
        local bytes = content.bytes(seed, index)
        if number % 4 == 0 then by_callback(index, bytes)
        else check(index, cluster.try("battle_1", "work", "work", seed, index, bytes)) end
    end
    running = running - 1
end

evpt.export {
    round = function(coroutines, count, with_seed)
        seed, last_index, running = with_seed, last_index + count, coroutines
        for i = 1, coroutines do evpt.fork(caller, i) end
    end,
    progress = function() return running, done, wrong end,
    memory = function() collectgarbage() collectgarbage() return collectgarbage("count") end,
}
"""
PAIR = """
local content = require "content"
evpt.export { work = function(params)       -- one argument, one result: what remoteCall carries
    local seed, index, bytes = params[1], params[2], params[3]
    if bytes ~= content.bytes(seed, index) then error("wrong argument of call " .. index) end
    return { index, content.bytes(seed + 1, index) }
end }
"""
ROUNDS = 10


class LoadFailed(Exception):
    pass


def memory(game, battle):
    """KiB: resident of each node, and Lua's of the services that work."""
    return {"game_1 resident": game.memory_kib(), "battle_1 resident": battle.memory_kib(),
            "game_1 Lua": game.ask("load", "memory")[0],
            "battle_1 Lua": battle.ask("work", "memory")[0]}


def check_memory(rounds, exact):
    """Growth that is a leak and no fragment: a tenth and 8 MiB of what the system counts, 256 KiB
    in Lua."""
    text = []
    for key in rounds[0]:
        before, after = (min(sample[key] for sample in samples)
                         for samples in (rounds[:3], rounds[-3:]))
        text.append("%s %d -> %d KiB" % (key, before, after))
        slack = 256 if "Lua" in key else before / 10 + 8192
        if after > before + slack and (exact or "Lua" in key):
            raise LoadFailed("memory grew: " + text[-1])
    return ", ".join(text)


def run_rounds(folder, calls, coroutines, seed):
    config = {"cluster": {"call_timeout_ms": 120000}}
    folder.address("battle_1")
    game = folder.node("game_1", {"content": CONTENT, "load": GAME}, services=["load"],
                       config=config)
    battle = folder.node("battle_1", {"content": CONTENT, "work": BATTLE, "pair": PAIR},
                         services=["work", "pair"], config=config)
    client, rounds = game.client(patience=600), []
    started = time.monotonic()
    for number in range(ROUNDS):
        client.ask("load", "round", coroutines, calls // ROUNDS, seed)

        def finished():
            running, done, wrong = client.ask("load", "progress")
            if wrong:
                raise LoadFailed("; ".join(wrong))
            return running == 0 and done or None
        done = evptnode.wait_until(finished, "the end of round %d" % (number + 1), patience=1800)
        if done != (number + 1) * (calls // ROUNDS):
            raise LoadFailed("%d answers to %d calls" % (done, (number + 1) * (calls // ROUNDS)))
        rounds.append(memory(game, battle))
    seconds = time.monotonic() - started
    evptnode.wait_until(game.idle, "empty session2context and requestCache")
    facts = check_memory(rounds, exact=not evptnode.sanitized())
    return "%d calls in %.1f s (%d/s); %s" % (done, seconds, done / seconds, facts)


def run(name, body):
    """Runs body(folder) with a folder of nodes; prints its facts or what was wrong. The exit
    status."""
    folder = evptnode.Folder()
    try:
        facts = body(folder)
    except (LoadFailed, AssertionError, evptnode.wire.RemoteError, evptnode.wire.Closed,
            TimeoutError) as error:
        folder.close()
        print("FAILED  %s: %s\n%s" % (name, error, folder.report))
        return 1
    except BaseException:
        for node in folder.nodes:       # an interrupt: leave nothing behind
            if node.running():
                node.kill()
        folder.close()
        raise
    wrong = folder.close()
    if wrong:
        print("FAILED  %s: %s\n%s" % (name, wrong, folder.report))
        return 1
    print("ok      %s: %s" % (name, facts))
    return 0


def main():
    parser = argparse.ArgumentParser(description="Two nodes under load, every answer checked.")
    parser.add_argument("--build", default=evptnode.settings.build, help="the build folder")
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--coroutines", type=int, default=256)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    options = parser.parse_args()
    evptnode.settings.build = options.build
    print("load: seed %d, %d calls, %d coroutines"
          % (options.seed, options.calls, options.coroutines), flush=True)
    return run("load", lambda folder: run_rounds(folder, options.calls, options.coroutines,
                                                 options.seed))


if __name__ == "__main__":
    sys.exit(main())
