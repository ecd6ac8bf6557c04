"""What broke once, or could: promises of SPEC section 4 under scripts, peers and limits that nobody
plans for. Each test is a fault that a review found, or looked for and did not find."""

import collections
import json
import os
import random
import re
import signal
import subprocess
import time

import wire
from evptnode import (LAB, LabCase, NodeCase, environment, program, read_file, sanitized,
                      wait_until, write_file)

ECHO = "evpt.export { echo = function(...) return ... end }"


def ignores(pid, number):
    """Does the process ignore this signal?"""
    mask = re.search(r"^SigIgn:\t(\w+)", read_file("/proc/%d/status" % pid), re.M).group(1)
    return bool(int(mask, 16) >> (number - 1) & 1)


def stat(node):
    return json.loads(node.ctl("stat", "--json").stdout)


class ScriptTest(LabCase):
    def test_call_after_a_long_computation_has_its_whole_timeout(self):
        for target in ("battle_1", "game_1"):
            got = self.game.lua("""
                local started = evpt.now()
                while evpt.now() - started < 400 do end
                local code, e = pcall(cluster.proxy(..., "lab", { timeout_ms = 300 }).echo, 7)
                return code, e""", target)
            self.assertEqual(got, [True, 7], target)

    def test_coroutine_that_waits_survives_being_resumed_by_somebody_else(self):
        # with an answer out of thin air, with nothing, and closed: its own call fails, no more
        for code in ("coroutine.resume(co, 7, 'x', 123456789)", "coroutine.resume(co)",
                     "coroutine.resume(co, 0)", "coroutine.close(co)"):
            self.game.lua("""
                local co = coroutine.create(function()
                    return cluster.call("battle_1", "lab", "run", "evpt.sleep(30)")
                end)
                evpt.fork(function() coroutine.resume(co) end)
                evpt.sleep(5)
                load("local co = ... " .. ..., "=t")(co)
                local task
                evpt.fork(function()
                    task = coroutine.running()
                    cluster.call("battle_1", "lab", "run", "evpt.sleep(30)")
                end)
                evpt.sleep(5)
                load("local co = ... " .. ..., "=t")(task)
                evpt.sleep(60)""", code)
        self.assertEqual(self.game.ask("lab", "echo", 1), [1])

    def test_cancel_of_a_timer_that_fired_long_ago_cancels_no_other(self):
        # ten timers at a time take all places of the past ones, again and again
        self.assertEqual(self.game.lua("""
            local fired = evpt.timeout(1, function() end)
            evpt.sleep(10)
            for i = 1, 9000 do
                local timers = {}
                for j = 1, 10 do timers[j] = evpt.timeout(1e6, function() end) end
                if evpt.cancel(fired) then return "cancelled another at " .. i end
                for j = 1, 10 do assert(evpt.cancel(timers[j])) end
            end"""), [])

    def test_node_name_with_a_zero_byte_is_unknown(self):
        for name in ("game_1", "battle_1"):
            got = self.game.lua(r'return caught(cluster.call, ... .. "\0x", "lab", "echo", 1)',
                                name)
            self.assert_error(got[1], wire.UNKNOWN_NODE, ("no",))

    def test_start_that_cannot_wait_or_whose_arguments_cannot_travel_leaves_no_service(self):
        self.game.script("leaf", ECHO)
        ok, text, left = self.game.lua("""
            local ok, e = pcall(string.gsub, "a", "a", function()
                evpt.start("leaf", { name = "leaf_1" })
            end)
            return ok, tostring(e), evpt.query("leaf_1")""")
        self.assertEqual((ok, left), (False, None))
        self.assertIn("cannot wait here", text)
        ok, text, left = self.game.lua("""
            local ok, e = pcall(evpt.start, "leaf", { name = "leaf_2", args = { 1, { x = print } } })
            return ok, tostring(e), evpt.query("leaf_2")""")
        self.assertEqual((ok, left), (False, None))
        self.assertIn("args[2].x: cannot send a function", text)

    def test_name_of_a_killed_service_is_free_at_once(self):
        self.game.script("phoenix", ECHO + """
            evpt.methods { spin = function()
                local started = evpt.now()
                while evpt.now() - started < 200 do end
            end }""")
        self.game.script("stillborn", "error('no')")
        self.assertEqual(self.game.lua("""
            evpt.start("phoenix", { name = "phoenix" })
            for i = 1, 50 do
                evpt.kill("phoenix")
                evpt.start("phoenix", { name = "phoenix" })
            end
            evpt.send("phoenix", "spin")
            evpt.sleep(20)              -- it spins
            evpt.kill("phoenix")
            local gone = evpt.query("phoenix")
            pcall(evpt.start, "stillborn", { name = "phoenix" })
            evpt.start("phoenix", { name = "phoenix" })
            local first = evpt.call("phoenix", "echo", 1)
            evpt.sleep(300)             -- the old one ends: that is not the new one's end
            return gone, first, evpt.call("phoenix", "echo", 2)"""), [None, 1, 2])


class LifeTest(NodeCase):
    def test_service_may_exit_in_main_and_in_do_after_init(self):
        node = self.node(scripts={
            "a": "function __main__() evpt.exit() end",
            "b": "function doAfterInit() evpt.sleep(1) evpt.exit() end",
            "c": "evpt.exit()",
            "s": "evpt.export { query = function(name) return evpt.query(name) end }"})
        self.assertEqual([node.ask("s", "query", name)[0] for name in "abc"], [None] * 3)

    def test_message_max_does_not_limit_node_list_and_console(self):
        node = self.node(script=ECHO, start=False, config={
            "cluster": {"message_max": 1024, "call_timeout_ms": 1}})
        nodes = {"n%d" % i: ("127.5.0.%d" % (i + 1), 7) for i in range(200)}
        node.write_list({"game_1": node.address, **nodes})
        node.start()
        self.assertEqual(len(node.nodes()), 201)
        self.assertEqual(node.ctl("reload").returncode, 0)
        self.assertEqual(node.ask("s", "echo", "x" * 900), ["x" * 900])

    def test_reload_and_log_rotation_asked_for_before_the_node_can_take_them_do_not_kill_it(self):
        node = self.node(script=ECHO, start=False)
        config = node.path("evpt.lua")
        write_file(config, read_file(config) + "for i = 1, 2000000 do end\n")
        node.start(wait=False)
        wait_until(lambda: ignores(node.pid, signal.SIGPIPE), "main has begun")
        node.signal(signal.SIGHUP)
        node.signal(signal.SIGUSR1)
        node.wait_ready()
        self.assertEqual(node.ask("s", "echo", 7), [7])

    def test_log_that_nobody_reads_does_not_keep_a_node_from_stopping(self):
        node = self.node(start=False, script="""evpt.export { flood = function()
            for i = 1, 5000 do evpt.log.info("%d %s", i, ("x"):rep(100)) end
        end }""")
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        process = subprocess.Popen([program("evpt"), "game_1"], cwd=node.folder, stderr=writer,
                                   env=environment(), start_new_session=True)
        self.addCleanup(process.kill)
        os.close(writer)

        def listens():
            try:
                return wire.Client(node.address)
            except ConnectionRefusedError:
                return None
        client = wait_until(listens, "the node listens")
        self.assertEqual(client.ask("s", "flood"), [])
        client.close()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)

    def test_names_that_come_and_go_leave_no_memory_behind(self):
        if sanitized():
            self.skipTest("the memory of a sanitizer says nothing")
        node = self.node(script=ECHO)

        def reload(first):
            names = {"n%d" % i: ("127.5.%d.%d" % (i // 200 % 200, i % 200 + 1), 7)
                     for i in range(first, first + 1000)}
            node.write_list({"game_1": node.address, **names})
            self.assertEqual(node.ctl("reload").returncode, 0)
        for turn in range(10):
            reload(turn * 1000)
        before = node.memory_kib()
        for turn in range(10, 40):
            reload(turn * 1000)
        self.assertLess(node.memory_kib(), before + 4096)   # 30,000 names kept would be 13 MiB


STUCK = """
evpt.export {
    spin = function(ms)
        local started = evpt.now()
        while evpt.now() - started < ms do end
    end,
    block = function(ms) os.execute("sleep " .. ms / 1000) end,
    echo = function(...) return ... end,
}"""


class StuckTest(NodeCase):
    def served_meanwhile(self, workers, stuck, method):
        node = self.node("w%d_%d_%s" % (workers, stuck, method), config={"workers": workers},
                         scripts={"quick": ECHO, **{"s%d" % i: STUCK for i in range(stuck)}})
        client, other = node.client(), node.client()
        for i in range(100):                        # until it is known to be quick
            client.ask("quick", "echo", i)
        started = time.monotonic()
        sessions = [other.start("s%d" % i, method, 1000) for i in range(stuck)]
        for i in range(20):
            self.assertEqual(client.ask("quick", "echo", i), [i])
        took = time.monotonic() - started
        for session in sessions:
            self.assertEqual(other.reply(session).code, wire.OK)
        node.stop()
        return took

    def test_as_many_stuck_services_as_workers_do_not_stop_the_others(self):
        for workers in (1, 2):
            for method in ("spin", "block"):
                with self.subTest(workers=workers, method=method):
                    self.assertLess(self.served_meanwhile(workers, workers, method), 0.8)

    def test_request_whose_deadline_passed_behind_a_slow_one_is_not_executed(self):
        for workers in (0, 1, 2):
            node = self.node("late_%d" % workers, config={"workers": workers}, script="""
                local ran = 0
                evpt.export {
                    slow = function() os.execute("sleep 0.3") end,
                    run = function() ran = ran + 1 end,
                    ran = function() return ran end,
                }""")
            client = node.client()
            for _ in range(100):
                client.ask("s", "ran")              # the service is known to be quick
            slow = wire.frame(wire.WHOLE, 1001, wire.request("s", "slow"))
            client.send(slow + b"".join(
                wire.frame(wire.WHOLE, 1002 + i, wire.request("s", "run", meta={1: 100}))
                for i in range(10)))
            self.assertEqual(client.reply(1001).code, wire.OK)
            for i in range(10):
                self.assertEqual(client.reply(1002 + i).code, wire.TIMEOUT)
            self.assertEqual(client.ask("s", "ran"), [0])


class MemoryTest(NodeCase):
    """game_1 has little memory for its services, battle_1 has enough."""

    def setUp(self):
        super().setUp()
        self.address("battle_1")
        self.game = self.node("game_1", config={"lua_memory_max": 3000000}, script="""
            local target = { "battle_1", "lab", "run", "return ('y'):rep(...)" }
            local function note(outcomes, code, e)
                local key = code == 0 and "ok" or e.name .. " " .. e.executed
                outcomes[key] = (outcomes[key] or 0) + 1
                outcomes.all = (outcomes.all or 0) + 1
            end
            local function wait_for_all(outcomes, count)
                local started = evpt.now()
                while (outcomes.all or 0) < count and evpt.now() - started < 5000 do evpt.sleep(10) end
                return outcomes
            end
            evpt.export {
                one = function(size)
                    local ok, e = pcall(cluster.call, "battle_1", "lab", "big", size)
                    return ok, ok and #e or { e.name, e.executed }
                end,
                calls = function(count, size)
                    local outcomes = {}
                    for i = 1, count do
                        evpt.fork(function()
                            local code, e = cluster.try("battle_1", "lab", "big", size)
                            note(outcomes, code, e)
                            while outcomes.all < count do evpt.sleep(10) end    -- and keeps it
                            return e
                        end)
                    end
                    return wait_for_all(outcomes, count)
                end,
                callbacks = function(count, size)
                    local outcomes, kept = {}, {}
                    for i = 1, count do
                        cluster.remoteCall("battle_1", "lab", "big", size, function(_, code, e)
                            note(outcomes, code, e)
                            kept[i] = code == 0 and e or nil
                        end)
                    end
                    return wait_for_all(outcomes, count)
                end,
            }""")
        self.node("battle_1", scripts={
            "lab": "evpt.export { big = function(size) return ('y'):rep(size) end }"})

    def test_answer_without_memory_for_it_is_an_error_that_a_pcall_catches(self):
        self.assertEqual(self.game.ask("s", "one", 100), [True, 100])
        ok, (name, executed) = self.game.ask("s", "one", 8000000)
        self.assertEqual((ok, name), (False, "overloaded"))
        self.assertIn(executed, ("maybe", "yes"))
        self.assertEqual(self.game.ask("s", "one", 100), [True, 100])

    def test_every_call_and_callback_has_one_outcome_where_memory_is_short(self):
        for method in ("calls", "callbacks"):
            outcomes = self.game.ask("s", method, 40, 200000)[0]
            self.assertEqual(outcomes.pop("all"), 40, (method, outcomes))
            outcomes.pop("ok", None)
            self.assertTrue(outcomes, "nothing was refused: the test tests nothing")
            for key in outcomes:
                self.assertRegex(key, "^overloaded (maybe|yes)$")


class PeerTest(NodeCase):
    def test_late_answer_for_a_closed_connection_reaches_nobody_else(self):
        node = self.node(script="""
            local waiting
            evpt.export {
                secret = function() waiting = coroutine.running() evpt.wait() return "secret" end,
                echo = function(...) return ... end,
                hold = function() evpt.sleep(20) return "held" end,
                release = function() evpt.wakeup(waiting) end,
            }""")
        for between in (0, 1, 62, 63, 64, 126, 127, 128, 252, 253, 254, 255, 256):
            gone, client = node.client(), node.client()
            gone.start("s", "secret")
            gone.ask("s", "echo", 1)
            gone.close()
            wait_until(lambda: stat(node)["connections_in"] == 1, "the connection to be gone")
            for i in range(between):
                client.ask("s", "echo", i)
            held = client.start("s", "hold")
            client.post("s", "release")
            self.assertEqual(client.reply(held), (wire.OK, ["held"]), between)
            client.close()
            wait_until(lambda: stat(node)["connections_in"] == 0, "the connection to be gone")

    def test_node_that_stands_still_is_given_up_also_after_it_was_reached_again(self):
        self.address("battle_1")
        game = self.node("game_1", config={"cluster": {"heartbeat_ms": 100}}, scripts={"lab": LAB})
        battle = self.node("battle_1", scripts={"lab": LAB})
        game.lua('return cluster.call("battle_1", "lab", "echo", 1)')
        battle.signal(signal.SIGSTOP)
        try:
            for _ in range(2):          # its system takes connections all the same
                name, executed = game.lua("""
                    local code, e
                    repeat
                        code, e = cluster.try("battle_1", "lab", "echo", 1)
                        evpt.sleep(10)
                    until e.name ~= "connect_failed"    -- until it is tried again
                    return e.name, e.executed""")
                self.assertEqual((name, executed), ("disconnected", "maybe"))
        finally:
            battle.signal(signal.SIGCONT)
        self.assertEqual(game.lua("""
            local code, e
            repeat code, e = cluster.try("battle_1", "lab", "echo", 5) until code == 0
            return e"""), [5])

    def test_sends_that_a_lost_connection_takes_with_it_are_counted(self):
        server = self.fake("battle_1")
        node = self.node(script="""evpt.export { send = function(count, size)
            for i = 1, count do assert(cluster.send("battle_1", "s", "m", ("x"):rep(size))) end
        end }""")
        for size in (10000, 100000):            # in one frame, and in parts
            before = stat(node)["lost_sends"]
            node.ask("s", "send", 400, size)
            peer = server.accept(receive_buffer=4096)
            peer.request()
            peer.reset()
            wait_until(lambda: stat(node)["lost_sends"] - before > 50, "lost sends to be counted")
            self.assertLess(stat(node)["lost_sends"] - before, 400)

    def test_executed_no_is_true_where_large_messages_meet_reloads_and_kills(self):
        seed = random.randrange(1 << 32)
        print("seed %d" % seed, flush=True)
        dice = random.Random(seed)
        self.address("battle_1")
        game = self.node("game_1", script="""
            local outcomes = {}
            evpt.export {
                go = function(id, size)
                    evpt.fork(function()
                        local code, e = cluster.try("battle_1", "s", "mark", id, ("x"):rep(size))
                        assert(not outcomes[id], "two outcomes")
                        outcomes[id] = code == 0 and "ok" or e.executed
                    end)
                end,
                outcomes = function()
                    local list = {}
                    for id, outcome in pairs(outcomes) do list[#list + 1] = { id, outcome } end
                    return list
                end,
            }""")
        marks = os.path.join(self.folder.path, "marks")
        battle = self.node("battle_1", script="""
            local file = io.open(%r, "a")
            file:setvbuf("no")
            evpt.export { mark = function(id) file:write(id .. "\\n") end }""" % marks)
        everybody = dict(self.folder.addresses)
        nobody = {"game_1": everybody["game_1"]}
        count = 0
        for _ in range(8):
            for _ in range(dice.randrange(1, 30)):
                count += 1
                game.ask("s", "go", count, dice.choice([10, 1000, 40000, 3000000, 9000000]))
            what = dice.choice(["reload", "kill", "stop", "freeze"])
            if what in ("kill", "stop"):
                getattr(battle, what)()
                battle.start()
                continue
            if what == "freeze":
                battle.signal(signal.SIGSTOP)
                for _ in range(10):
                    count += 1
                    game.ask("s", "go", count, dice.choice([10, 300000, 3000000]))
            for nodes in (nobody, everybody):
                game.write_list(nodes)
                self.assertEqual(game.ctl("reload").returncode, 0)
            battle.signal(signal.SIGCONT)
        wait_until(lambda: len(game.ask("s", "outcomes")[0]) == count, "every outcome")
        battle.stop()                           # what it has taken in is executed by then
        with open(marks, encoding="ascii") as file:
            ran = collections.Counter(map(int, file.read().split()))
        for number, outcome in game.ask("s", "outcomes")[0]:
            self.assertIn(ran[number], {"ok": (1,), "no": (0,), "maybe": (0, 1)}[outcome],
                          (number, outcome))
