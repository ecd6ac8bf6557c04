"""Code update: `evpt-ctl update`, evpt.update."""

import json
import os
import random

import wire
from evptnode import LabCase, NodeCase, wait_until

COUNTER = """
    local count, log = 0, {}
    local function line(n) return "old " .. n end
    evpt.export {
        add = function()
            count = count + 1
            log[#log + 1] = line(count)
            return count
        end,
        log = function() return table.concat(log, ",") end,
    }
"""


class UpdateCase(LabCase):
    """Services with a script of their own each, on game_1."""

    def start(self, text, args=()):
        return self.service(self.game, text, args)

    def update(self, name, *args, text=None, script=None):
        """Writes the script, where a text is given, and updates. What has changed in the first
        service."""
        if text is not None:
            self.game.script(script or name, text)
        done = self.game.ctl("update", name, *args, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["dry_run"], "--dry-run" in args)
        return result["services"][0]

    def refused(self, name, *parts, text=None, script=None):
        """The same, which is to fail in one line with these parts in it."""
        if text is not None:
            self.game.script(script or name, text)
        done = self.game.ctl("update", name)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertRegex(done.stderr, r"\A[^\n]+\n\Z")
        for part in parts:
            self.assertIn(part, done.stderr)

    def one(self, name, method, *args):
        got = self.game.ask(name, method, *args)
        return got[0] if got else None


class StateTest(UpdateCase):
    def test_update_puts_new_code_in_place_and_keeps_the_state(self):
        name = self.start(COUNTER)
        for i in (1, 2):
            self.assertEqual(self.one(name, "add"), i)
        report = self.update(name, text=COUNTER.replace("old", "new"))
        self.assertEqual(report["changed"], ["line"])
        self.assertEqual(report["unchanged"], ["add", "log"])
        self.assertEqual((self.one(name, "add"), self.one(name, "log")), (3, "old 1,old 2,new 3"))

    def test_update_joins_variables_by_name_whatever_their_order(self):
        name = self.start("""
            local a, b, c = 1, 2, 3
            evpt.export {
                set = function(x, y, z) a, b, c = x, y, z end,
                get = function() return a, b, c end,
            }""")
        self.game.ask(name, "set", 10, 20, 30)
        self.update(name, text="""
            local extra = "extra"
            local c, b, a = 3, 2, 1
            evpt.export {
                get = function() return extra, c, a, b end,
                set = function(x, y, z) c, a, b = z, x, y end,
            }""")
        self.assertEqual(self.game.ask(name, "get"), ["extra", 30, 10, 20])
        self.game.ask(name, "set", 4, 5, 6)     # both still share them
        self.assertEqual(self.game.ask(name, "get"), ["extra", 6, 4, 5])

    def test_new_initial_values_do_not_overwrite_state_and_are_told(self):
        name = self.start("""
            local limit, mode <const>, seen = 10, "old", {}
            evpt.export { get = function() return limit, mode, #seen end,
                          see = function() seen[#seen + 1] = true end }""")
        self.game.ask(name, "see")
        report = self.update(name, text="""
            local limit, mode <const>, seen = 20, "new", {}
            evpt.export { get = function() return limit, mode, #seen end,
                          see = function() seen[#seen + 1] = true end }""")
        self.assertEqual(report["kept"], ["limit = 10 (20 in the new code)"])
        self.assertEqual(report["changed"], ["mode"])
        self.assertEqual(self.game.ask(name, "get"), [10, "new", 1])    # <const> is code

    def test_constant_that_is_no_constant_of_the_file_is_state(self):
        script = "local born <const> = evpt.now() evpt.export { born = function() return born end }"
        name = self.start(script)
        born = self.one(name, "born")
        self.game.lua("evpt.sleep(2)")
        self.update(name, text=script.replace("return born", "return -born"))
        self.assertEqual(self.one(name, "born"), -born)

    def test_variable_follows_a_method_that_is_renamed(self):
        name = self.start("""
            local players = { "ada" }
            local function count() return #players end
            evpt.export { size = function() return count() end }""")
        report = self.update(name, text="""
            local players = {}
            evpt.export { total = function() return #players end }""")
        self.assertEqual((report["added"], report["removed"]), (["total"], ["count", "size"]))
        self.assertEqual(self.one(name, "total"), 1)

    def test_variables_of_closures_that_share_a_name_stay_apart(self):
        script = """
            local function counter(n) return function() n = n + 1 return n end end
            evpt.export { one = counter(100), two = counter(200) }"""
        name = self.start(script)
        self.assertEqual((self.one(name, "one"), self.one(name, "two")), (101, 201))
        self.update(name, text=script.replace("n = n + 1 return n", "n = n + 10 return n")
                    .replace("}\n", "}\n").replace("two = counter(200)",
                                                   "two = counter(200), three = counter(300)"))
        self.assertEqual([self.one(name, m) for m in ("one", "two", "three")], [111, 211, 310])

    def test_renamed_closure_does_not_get_the_variables_of_another(self):
        name = self.start("""
            local function counter(n) return function() n = n + 1 return n end end
            evpt.export { one = counter(100) }""")
        self.one(name, "one")
        self.update(name, text="""
            local function counter(n) return function() n = n + 1 return n end end
            evpt.export { two = counter(200) }""")
        self.assertEqual(self.one(name, "two"), 201)

    def test_variable_that_holds_a_function_keeps_what_it_holds(self):
        script = """
            local function idle() return "idle" end
            local function busy() return "busy" end
            local state = idle
            evpt.export {
                work = function() state = busy end,
                rest = function() state = idle end,
                state = function() return state() end,
            }"""
        name = self.start(script)
        self.game.ask(name, "work")
        report = self.update(name, text=script.replace('return "', 'return "still '))
        self.assertEqual(report["changed"], ["busy", "idle"])
        self.assertEqual(self.one(name, "state"), "still busy")

    def test_globals_are_kept_and_main_does_not_run_again(self):
        script = """
            rooms = rooms or {}
            Config = { size = 4, rules = { pvp = true } }
            function __main__() rooms[#rooms + 1] = "main" end
            function doAfterInit() rooms[#rooms + 1] = "after" end
            function describe() return table.concat(rooms, ",") .. Config.size end
            evpt.export { get = function() return describe() end }"""
        name = self.start(script)
        self.game.lua("return evpt.call(...)", name, "get")     # doAfterInit has run by then
        self.update(name, text=script.replace('Config.size', '(Config.size + Config.more)')
                    .replace("size = 4", "size = 5, more = 100"))
        self.assertEqual(self.one(name, "get"), "main,after104")

    def test_update_of_what_has_not_changed_changes_nothing(self):
        name = self.start(COUNTER)
        self.game.ask(name, "add")
        report = self.update(name)
        self.assertEqual((report["changed"], report["added"], report["removed"]), ([], [], []))
        self.assertEqual(report["unchanged"], ["add", "line", "log"])
        self.assertEqual(self.one(name, "add"), 2)

    def test_functions_that_only_moved_are_unchanged_and_their_lines_are_right(self):
        script = 'evpt.export { fail = function() error("no luck") end }'
        name = self.start(script)
        report = self.update(name, text="\n\n\n" + script)
        self.assertEqual((report["changed"], report["unchanged"]), ([], ["fail"]))
        code, results = self.game.client().call(name, "fail")
        self.assertIn("%s.lua:4: no luck" % name, results[0], code)

    def test_many_updates_one_after_the_other(self):
        name = self.start(COUNTER)
        for i in range(1, 20):
            self.update(name, text="-- " * (i % 3) + "\n" * i + COUNTER.replace("old", "v%d" % i))
            self.assertEqual(self.one(name, "add"), i)
        self.assertEqual(self.one(name, "log"), ",".join("v%d %d" % (i, i) for i in range(1, 20)))


class FlowTest(UpdateCase):
    SLOW = """
        local open
        local function word() return "old word" end
        evpt.export {
            slow = function() open = coroutine.running() evpt.wait() return "old", word() end,
            release = function() local co = open open = nil return co and evpt.wakeup(co) end,
        }"""

    def release(self, name):
        wait_until(lambda: self.one(name, "release"), "a call waits")

    def test_call_in_flight_finishes_the_old_code_and_new_ones_get_the_new(self):
        name = self.start(self.SLOW)
        client = self.game.client()
        old = client.start(name, "slow")
        client.ask(name, "release")         # one sender, one receiver: it waits by now
        self.assertEqual(client.reply(old).results, ["old", "old word"])
        old = client.start(name, "slow")
        client.ask("lab", "echo")
        self.update(name, text=self.SLOW.replace("old", "new"))
        self.release(name)
        # its body is the old one; what it calls from now on is not
        self.assertEqual(client.reply(old).results, ["old", "new word"])
        new = client.start(name, "slow")
        self.release(name)
        self.assertEqual(client.reply(new).results, ["new", "new word"])

    def test_loop_of_a_fork_calls_the_new_functions(self):
        for how in ("evpt.fork(loop)", "function __main__() evpt.fork(loop) end"):
            script = """
                local steps = {}
                local function step() steps.last = "old" end
                local function loop() while true do step() evpt.sleep(1) end end
                """ + how + " evpt.export { last = function() return steps.last end }"
            name = self.start(script)
            wait_until(lambda: self.one(name, "last") == "old", "the loop runs")
            report = self.update(name, text=script.replace('"old"', '"new"'))
            self.assertEqual(report["changed"], ["step"], how)
            wait_until(lambda: self.one(name, "last") == "new", "it calls the new function")

    def test_timer_runs_the_new_function(self):
        script = """
            local ticks = 0
            local function tick() ticks = ticks + 1 evpt.timeout(1, tick) end
            evpt.timeout(1, tick)
            evpt.export { ping = function() end }"""
        name = self.start(script)
        report = self.update(name, text=script.replace("ticks + 1 ", "ticks + 1e9 ")
                             .replace("end }", "end, ticks = function() return ticks end }"))
        self.assertEqual((report["changed"], report["added"]), (["tick"], ["ticks"]))
        wait_until(lambda: self.one(name, "ticks") > 1e9, "the timer runs the new code")
        self.assertGreater(self.one(name, "ticks") % 1e9, 0, "and has kept its count")

    def test_functions_held_by_the_state_are_replaced_too(self):
        script = """
            local handlers, hits = {}, {}
            local weak = setmetatable({}, { __mode = "v" })
            local function on_hit(n) hits[#hits + 1] = "old " .. n end
            local made = {}
            evpt.export {
                listen = function(id)
                    handlers[id] = { call = on_hit, wrapped = function(n) on_hit(n) end }
                    weak[1] = on_hit
                    local object = setmetatable({ deep = { { on_hit } } }, { hidden = on_hit })
                    made[#made + 1] = function() return object end
                end,
                fire = function(id)
                    hits = {}
                    handlers[id].call(1) handlers[id].wrapped(2) weak[1](3)
                    local object = made[#made]()
                    object.deep[1][1](4) getmetatable(object).hidden(5)
                    return table.concat(hits, ",")
                end,
            }"""
        name = self.start(script)
        self.game.ask(name, "listen", 7)
        self.assertEqual(self.one(name, "fire", 7), "old 1,old 2,old 3,old 4,old 5")
        self.update(name, text=script.replace('"old "', '"new "'))
        self.assertEqual(self.one(name, "fire", 7), "new 1,new 2,new 3,new 4,new 5")

    def test_state_that_only_a_waiting_coroutine_holds_is_reached(self):
        script = """
            local worker, answer
            local function hit() return "old" end
            function __main__()
                evpt.fork(function()
                    local object = { hit = hit }
                    worker = coroutine.running()
                    while true do
                        evpt.wait()
                        answer = object.hit()
                    end
                end)
            end
            evpt.export { go = function()
                evpt.wakeup(worker)
                evpt.sleep(1)
                return answer
            end }"""
        name = self.start(script)
        self.assertEqual(self.one(name, "go"), "old")
        self.update(name, text=script.replace('"old"', '"new"'))
        self.assertEqual(self.one(name, "go"), "new")


class ShapeTest(UpdateCase):
    """Kinds of code that a script consists of."""

    def test_objects_get_the_new_methods_of_their_class(self):
        script = """
            local Base = {} Base.__index = Base
            function Base:kind() return "old base" end
            local Room = setmetatable({}, { __index = Base, __call = function(class, n)
                return setmetatable({ n = n }, class) end })
            Room.__index = Room
            function Room.__eq() return true end
            function Room:name() return "old " .. self.n end
            local rooms = {}
            evpt.export {
                open = function(n) rooms[#rooms + 1] = Room(n) end,
                names = function()
                    local names = {}
                    for i, room in ipairs(rooms) do names[i] = room:name() .. room:kind() end
                    return table.concat(names, ",")
                end,
            }"""
        name = self.start(script)
        self.game.ask(name, "open", "a")
        report = self.update(name, text=script.replace("old", "new").replace(
            "local rooms", "function Room:size() return 9 end local rooms").replace(
            "room:name()", "room:size() .. room:name()"))
        self.assertEqual((report["changed"], report["added"]),
                         (["Base.kind", "Room.name", "names"], ["Room.size"]))
        self.game.ask(name, "open", "b")
        self.assertEqual(self.one(name, "names"), "9new anew base,9new bnew base")

    def test_table_of_commands_loses_and_gains(self):
        script = """
            local command = { [1001] = function() return "move" end }
            function command.GET() return "get" end
            function command.SET() return "set" end
            function _msg_dispatch_(source, session, name, ...)
                local fn = command[name] or command[math.tointeger(name)]
                if fn then evpt.reply(source, session, 0, fn(...))
                else evpt.reply(source, session, 6, "none") end
            end
            local runtime = {}
            function __main__() command.LATER = function() return "later" end end"""
        name = self.start(script)
        new = script.replace("function command.SET()", "function command.DEL()").replace(
            '"get"', '"got"').replace("[1001]", "[1002] = function() return 'jump' end, [1001]")
        report = self.update(name, text=new)
        self.assertEqual((report["changed"], report["added"], report["removed"]),
                         (["command.GET"], ["command.DEL", "command[1002]"], ["command.SET"]))
        got = self.game.lua("""
            local name, got = ..., {}
            for _, method in ipairs { "GET", "SET", "DEL", "1001", "1002", "LATER" } do
                local code, text = evpt.try(name, method)
                got[#got + 1] = code == 0 and text or code
            end
            return got""", name)
        self.assertEqual(got[0], ["got", 6, "set", "move", "jump", "later"])

    def test_exports_and_methods_come_and_go(self):
        name = self.start("""
            local function shared() return 1 end
            evpt.export { stay = function() return "old" end, go = shared }
            evpt.methods { inner = shared }""")
        report = self.update(name, text="""
            local function shared() return 1 end
            evpt.export { stay = function() return "new" end, come = function() return 3 end }
            evpt.methods { inner = shared, more = function() return 4 end }""")
        self.assertEqual((report["added"], report["removed"]), (["come", "more"], ["go"]))
        client = self.game.client()
        self.assertEqual([client.call(name, m).code for m in ("stay", "come", "go", "more")],
                         [wire.OK, wire.OK, wire.UNKNOWN_METHOD, wire.UNKNOWN_METHOD])
        inner = "local s = ... return evpt.call(s, 'more'), evpt.call(s, 'inner')"
        self.assertEqual(self.game.lua(inner, name), [4, 1])

    def test_who_may_call_changes_with_the_file(self):
        script = """
            local function hit() return "hit" end
            evpt.export({ a = hit, b = hit }, { from = { "game_*" } })
            evpt.export { c = hit }"""
        name = self.start(script)
        friend, stranger = self.game.client(), self.game.client()
        friend.hello("game_7")
        stranger.hello("mallory")

        def codes(client):
            return [client.call(name, method).code for method in "abcd"]

        denied, unknown = wire.CODES.index("denied"), wire.UNKNOWN_METHOD
        self.assertEqual(codes(friend), [0, 0, 0, unknown])
        self.assertEqual(codes(stranger), [denied, denied, 0, unknown])
        new = """
            local function hit() return "hit" end
            evpt.export({ b = hit, d = hit }, { from = { "game_*" } })
            evpt.export({ c = hit }, { from = { "battle_1" } })
            evpt.export { a = hit }"""
        report = self.update(name, "--dry-run", text=new)
        self.assertEqual((report["changed"], report["added"]), (["a", "c"], ["d"]))
        self.assertEqual(codes(stranger), [denied, denied, 0, unknown])
        self.update(name)
        self.assertEqual(codes(friend), [0, 0, denied, 0])
        self.assertEqual(codes(stranger), [0, denied, denied, denied])
        self.refused(name, "from[1]: expected a node's name", text=new.replace("battle_1", "b-1"))
        self.assertEqual(codes(stranger), [0, denied, denied, denied])

    def test_service_without_exports_gets_its_first_ones_and_a_dispatcher(self):
        name = self.start("local n = 1 function touch() n = n + 1 end")
        self.update(name, text="""
            local n = 1 function touch() n = n + 1 end
            evpt.export { n = function() return n end }""")
        self.assertEqual(self.one(name, "n"), 1)
        self.update(name, text="""
            evpt.export { n = function() end }
            function _msg_dispatch_(source, session, method)
                evpt.reply(source, session, 0, "all " .. method)
            end""")
        self.assertEqual(self.one(name, "n"), "all n")
        self.update(name, text="evpt.export { n = function() return 'back' end }")
        self.assertEqual(self.one(name, "n"), "back")

    def test_libraries_that_the_script_has_extended(self):
        script = """
            function string.shout(s) return s:upper() .. "!" end
            table.count = function(t) return #t end
            getmetatable("").__mod = function(s, n) return s .. n end
            evpt.export { say = function(s)
                return s:shout() .. table.count({ 1, 2 }) .. "x" % 7
            end }"""
        name = self.start(script)
        self.assertEqual(self.one(name, "say", "hey"), "HEY!2x7")
        new = script.replace('"!"', '"!!"').replace("#t", "#t * 2").replace("s .. n", "n .. s")
        self.assertEqual(self.update(name, text=new)["changed"],
                         ["metatable of strings.__mod", "string.shout", "table.count"])
        self.assertEqual(self.one(name, "say", "hey"), "HEY!!47x")

    def test_hooks(self):
        node = self.game
        script = """
            local seen = ...
            evpt.on_stop(function() hooks = (hooks or "") .. "a" end)
            evpt.export { hooks = function() return hooks end }
            cluster.on_change(function(node, status) changes = (changes or "") .. "old" end)"""
        name = self.start(script)
        report = self.update(name, text=script.replace('"a"', '"b"').replace('"old"', '"new"') + """
            evpt.on_stop(function() hooks = (hooks or "") .. "c" end)
            cluster.on_change(function() end)""")
        self.assertEqual(report["changed"], ["on_change[1]", "on_stop[1]"])
        self.assertEqual(report["added"], ["on_change[2]", "on_stop[2]"])
        report = self.update(name, text=script)
        self.assertEqual(report["removed"], ["on_change[2]", "on_stop[2]"])
        del node

    def test_function_becomes_one_of_lua_and_back(self):
        export = " evpt.export { join = function(t) return join(t) end }"
        name = self.start("local join = table.concat" + export)
        self.update(name, text='local function join(t) return "own " .. #t end' + export)
        self.assertEqual(self.one(name, "join", ["a", "b"]), "own 2")
        self.update(name, text="local join = table.concat" + export)
        self.assertEqual(self.one(name, "join", ["a", "b"]), "ab")

    def test_queue_and_other_things_of_evpt_that_the_script_holds(self):
        script = """
            local queue, room, call = evpt.queue(), cluster.proxy("game_1", "lab"), evpt.call
            local log = evpt.log
            evpt.export { go = function()
                return queue(function() return "old " .. room.echo(1) .. call("lab", "echo", 2) end)
            end }"""
        name = self.start(script)
        self.assertEqual(self.one(name, "go"), "old 12")
        report = self.update(name, text=script.replace('"old "', '"new "'))
        self.assertEqual(report["changed"], ["go"])
        self.assertEqual(self.one(name, "go"), "new 12")
        # the same for what only the new code has
        new = script.replace('"old "', 'other("lab", "echo", "newer ") .. two.echo(0)')
        self.update(name, text=new.replace(
            "local log", 'local other, two = evpt.call, cluster.proxy("game_1", "lab") local log'))
        self.assertEqual(self.one(name, "go"), "newer 012")

    def test_tables_that_are_deep_and_tables_that_are_large(self):
        script = """
            local chain, wide = {}, {}
            do
                local at = chain
                for i = 1, 2000 do at.next = { value = i } at = at.next end
                for i = 1, 20000 do wide["k" .. i] = { i } end
            end
            evpt.export { last = function()
                local at = chain
                while at.next do at = at.next end
                return "old", at.value, wide.k20000[1]
            end }"""
        name = self.start(script)
        self.update(name, text=script.replace('"old"', '"new"').replace("2000 ", "2001 "))
        self.assertEqual(self.game.ask(name, "last"), ["new", 2001, 20000])

    def test_script_with_an_environment_of_its_own(self):
        script = """
            local _ENV = setmetatable({}, { __index = _G })
            count = 0
            function bump() count = count + 1 return "old " .. count end
            evpt.export { bump = function() return bump() end }"""
        name = self.start(script)
        self.assertEqual(self.one(name, "bump"), "old 1")
        self.update(name, text=script.replace('"old "', '"new "'))
        self.assertEqual(self.one(name, "bump"), "new 2")


class RandomTest(UpdateCase):
    """Scripts made by chance, updated into others made by chance, against a model of what every
    function and variable has to be."""

    HEAD = """
        local class, deep, held = {}, { er = { list = {} } }, {}
        class.__index = class
        local object = setmetatable({}, class)
        local function wrap(f) return function(...) return f(...) end end
        local function hold(name, f) held[name] = held[name] or f return held[name] end
        """
    # Where a method NAME has its BODY: "(...) ... end", in a function of its own or in the method.
    KINDS = {
        "plain": ("", "function BODY"),
        "wrapped": ("", "wrap(function BODY)"),
        "local": ("local function NAME_f BODY", "function(...) return NAME_f(...) end"),
        "global": ("function NAME_f BODY", "function(...) return NAME_f(...) end"),
        "field": ("function class.NAME_f BODY", "function(...) return class.NAME_f(...) end"),
        "deep": ("function deep.er.NAME_f BODY", "function(...) return deep.er.NAME_f(...) end"),
        "object": ("function class:NAME_f BODY", "function(...) return object:NAME_f(...) end"),
        "state": ("local function NAME_f BODY",
                  "function(...) return hold('NAME', NAME_f)(...) end"),
    }

    def make(self, rng, names, variables, version):
        """(text, {method: (variable, step)}): each method adds to a variable."""
        lines = ["-- a line" for _ in range(rng.randrange(4))]
        lines += ["local %s = 0" % name for name in rng.sample(sorted(variables), len(variables))]
        lines.append(self.HEAD)
        model, methods = {}, []
        for name in names:
            kind = "state" if name in self.held else rng.choice(sorted(self.KINDS))
            if kind == "state":         # what the state holds it goes on to hold
                self.held.add(name)
            variable, step = rng.choice(sorted(variables)), rng.randrange(1, 100)
            model[name] = (variable, step)
            body = "(...) VAR = VAR + %d return VAR, %d end" % (step, version)
            function, method = (part.replace("BODY", body.replace("VAR", variable))
                                .replace("NAME", name) for part in self.KINDS[kind])
            lines.append(function)
            methods.append("%s = %s" % (name, method))
        rng.shuffle(methods)
        half = len(methods) // 2
        lines += ["evpt.export { %s }" % ", ".join(methods[:half]),
                  "evpt.methods { %s }" % ", ".join(methods[half:])]
        return "\n".join(lines), model

    def test_scripts_made_by_chance_agree_with_a_model(self):
        seed = int(os.environ.get("EVPT_TEST_SEED", "0"), 0) or random.randrange(1 << 32)
        print("seed %d" % seed)
        rng = random.Random(seed)
        for _ in range(8):
            self.held = set()
            variables = {"v%d" % i: 0 for i in range(4)}
            names = ["m%d" % i for i in range(8)]
            text, model = self.make(rng, names, variables, 0)
            service = self.start(text)
            for version in range(1, 12):
                self.play(rng, service, model, variables, version - 1)
                names = [name for name in names if rng.random() < 0.8]
                names += ["m%d_%d" % (version, i) for i in range(rng.randrange(3))]
                used = {variable for variable, _ in model.values()}
                text, model = self.make(rng, names, variables, version)
                self.update(service, text=text)
                for name in variables:      # what no function used is nowhere
                    if name not in used:
                        variables[name] = 0
            self.play(rng, service, model, variables, version)

    def play(self, rng, service, model, variables, version):
        calls = [rng.choice(sorted(model)) for _ in range(10)] if model else []
        got = self.game.lua("""
            local service, calls = ...
            local got = {}
            for i, name in ipairs(calls) do got[i] = { evpt.call(service, name) } end
            return got""", service, calls)[0]
        for name, (value, of_version) in zip(calls, got):
            variable, step = model[name]
            variables[variable] += step
            self.assertEqual((value, of_version), (variables[variable], version), name)


class RefusalTest(UpdateCase):
    """What is wrong is one line, exit status 1, and nothing has changed."""

    def check(self, text, *parts, script=COUNTER):
        name = self.start(script)
        self.game.ask(name, "add")
        self.refused(name, *parts, text=text)
        self.assertEqual((self.one(name, "add"), self.one(name, "log")), (2, "old 1,old 2"))
        self.assertEqual(self.update(name, text=script)["changed"], [])     # and goes on to work
        return name

    def test_syntax_error(self):
        self.check("local x = = 1", ".lua:1: unexpected symbol near '='")

    def test_error_in_the_new_main_chunk(self):
        self.check(COUNTER.replace("old", "new") + "error('not today')", ".lua:12: not today")
        self.check(COUNTER.replace("old", "new") + "error({})", "table: ")

    def test_endless_loop_in_the_new_main_chunk(self):
        self.check(COUNTER.replace("old", "new") + "while true do end",
                   ".lua:12: stopped, it runs too long")

    def test_waiting_in_the_new_main_chunk(self):
        self.check(COUNTER + "coroutine.yield()", "yield")

    def test_bad_exports(self):
        self.check(COUNTER + "evpt.export { 1 }",
                   "expected a table of functions by name, got [1] = number")
        self.check(COUNTER + "evpt.export { ['.x'] = print }",
                   "names that begin with a dot are evpt's own")
        self.check(COUNTER + "evpt.on_stop(7)", "function expected, got number")

    def test_state_that_would_have_another_type(self):
        told = "%s is a %s in the running service and a %s in the new code"
        self.check(COUNTER.replace("0, {}", "0, 0"), told % ("log", "table", "number"))
        line = 'local function line(n) return "old " .. n end'
        self.check(COUNTER.replace(line, "local line = {}"),
                   told % ("line", "function", "table"))
        count = "local function count() end local log ="
        self.check(COUNTER.replace("local count, log = 0,", count),
                   told % ("count", "number", "function"))

    def test_result_of_what_is_not_run(self):
        self.check(COUNTER + "local db = evpt.start('db') function _G.use() return db end",
                   "evpt.start", "does not run")
        self.check(COUNTER + "local who = evpt.call('lab', 'echo', 'x') .. '!'",
                   ".lua:12:", "evpt.call", "does not run it")
        for make in ("create", "wrap"):
            keep = "local co = coroutine.%s(print) function use() return co end" % make
            self.check(COUNTER + keep, "a coroutine that")

    def test_missing_module(self):
        self.check(COUNTER + "require 'no_such_module'", "module 'no_such_module' not found")

    def test_binary_chunk(self):
        self.check(b"\x1bLua", "attempt to load a binary chunk")

    def test_file_that_is_gone(self):
        name = self.start(COUNTER)
        os.remove(self.game.path("services/%s.lua" % name))
        self.refused(name, "services/%s.lua" % name)
        self.assertEqual(self.one(name, "add"), 1)

    def test_top_level_of_a_refused_update_leaves_no_trace(self):
        name = self.start(COUNTER + """
            shared = { n = 1 }
            evpt.methods { look = function()
                return shared.n, rawget(_G, "leaked"), rawget(string, "leaked"),
                    package.loaded.leaked, evpt.leaked, getmetatable("").leaked,
                    package.path:find("leaked")
            end }""")
        top_level = COUNTER + """
            leaked, string.leaked, package.loaded.leaked, evpt.leaked = 1, 2, 3, 4
            getmetatable("").leaked = 5
            package.path = package.path .. ";leaked/?.lua"
            shared = { n = 2 }
            _G.shared.n = 3 rawset(_G, "leaked", 6)
            evpt.send("lab", "run", "leaked = true")
            evpt.timeout(0, function() leaked = 7 end)
            evpt.register("leaked")
            os.remove("evpt.lua")
            """
        self.refused(name, "not today", text=top_level + "error('not today')")
        self.refused(name, "what io.open returns", text=top_level + "io.open('mark', 'w'):close()")
        self.assertFalse(os.path.exists(self.game.path("mark")))
        self.assertTrue(os.path.exists(self.game.path("evpt.lua")))
        self.assertEqual(self.game.lua("return evpt.call(..., 'look')", name), [1] + [None] * 6)
        self.assertEqual(self.game.lua("return evpt.query('leaked'), rawget(_G, 'leaked')"),
                         [None, None])

    def test_debug_library_of_the_update_is_out_of_reach(self):
        self.check(COUNTER + "debug.getregistry()[1] = nil", "debug.getregistry", "does not run")
        self.check(COUNTER + "require 'update.world'", "module 'update.world' not found")
        script = "debug, package.loaded.debug = nil, nil " + COUNTER + """
            evpt.methods { has = function() return debug or package.loaded.debug end }"""
        name = self.start(script)
        self.update(name, text=script.replace("old", "new"))
        self.assertEqual(self.game.lua("return evpt.call(..., 'has')", name), [None])

    def test_unknown_names(self):
        self.refused("nobody", "nothing runs here that is called nobody")
        self.refused("clusterclient", "clusterclient is built in")
        self.refused("launcher", "launcher is built in")
        self.refused("999999999", "nothing runs here that is called 999999999")

    def test_usage(self):
        for args in ((), ("a", "b", "c")):
            done = self.game.ctl("update", *args)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
        done = self.game.ctl("update", "lab", "--dryrun")
        self.assertEqual(done.returncode, 1)
        self.assertIn('unknown option "--dryrun"', done.stderr)

    def test_dry_run_tells_and_changes_nothing(self):
        name = self.start(COUNTER)
        self.game.ask(name, "add")
        new = COUNTER.replace("old", "new").replace("local count", "local extra local count") + """
            evpt.timeout(0, function() leaked = true end)
            evpt.export { more = function() return nosuch(extra) end }"""
        report = self.update(name, "--dry-run", text=new)
        self.assertEqual((report["changed"], report["added"], report["not_run"]),
                         (["line"], ["more"], ["evpt.timeout"]))
        self.assertEqual(report["missing"], ["nosuch (services/%s.lua:14)" % name])
        self.assertEqual(self.one(name, "log"), "old 1")
        self.assertEqual(self.game.client().call(name, "more").code, wire.UNKNOWN_METHOD)
        done = self.game.ctl("update", name, "--dry-run")
        self.assertEqual(done.stdout.split("\n")[:3], [
            "services/%s.lua could be updated in: %s" % (name, name),
            "  changed   line", "  added     more"])
        self.assertEqual(self.update(name)["changed"], ["line"])


class ModuleTest(UpdateCase):
    def module(self, text):
        LabCase.count += 1
        name = "m%d" % LabCase.count
        self.game.script(name, text)
        return name

    def test_module_is_updated_in_every_service_that_has_loaded_it(self):
        text = """
            local M, uses = { limit = 10 }, 0
            local function mark() return "old" end
            function M.use() uses = uses + 1 return mark(), uses end
            return M"""
        module = self.module(text)
        export = "evpt.export { use = function() return %s end }"
        first = self.start("local m = require '%s' " % module + export % "m.use()")
        later = self.start(export % ("require('%s').use()" % module))
        other = self.start(export % ("package.loaded['%s']" % module))
        for name in (first, later):
            self.assertEqual(self.game.ask(name, "use"), ["old", 1])
        self.game.script(module, text.replace('"old"', '"new"').replace(
            "return M", "function M.more() return uses end return M"))
        done = self.game.ctl("update", module, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        reports = json.loads(done.stdout)["services"]
        self.assertEqual([report["name"] for report in reports], [first, later])
        for report in reports:
            self.assertEqual((report["changed"], report["added"]), (["mark"], ["M.more"]))
        for name in (first, later):
            self.assertEqual(self.game.ask(name, "use"), ["new", 2])
        self.assertEqual(self.game.ask(other, "use"), [None])

    def test_module_goes_on_to_be_the_one_that_the_script_uses(self):
        module = self.module("""
            local M = { listeners = {} }
            function M.listen(name, fn) M.listeners[name] = fn end
            function M.fire(name) return M.listeners[name]() end
            function M.counter() local n = 0 return function() n = n + 1 return n end end
            return M""")
        script = """
            local m = require '%s'
            local count = m.counter()
            m.listen("a", function() return "old " .. count() end)
            evpt.export { fire = function(name) return m.fire(name) end }""" % module
        name = self.start(script)
        self.assertEqual(self.one(name, "fire", "a"), "old 1")
        new = script.replace('"old "', '"new "').replace("evpt.export", """
            local fire, late = m.fire, m.counter()
            m.listen("b", function() return "b" .. late() .. fire("a") end)
            evpt.export""")
        report = self.update(name, text=new)
        self.assertEqual(report["changed"], ["m.listeners.a"])
        self.assertEqual(self.one(name, "fire", "b"), "b1new 2")
        self.update(module, text="""
            local M = { listeners = {} }
            function M.listen(name, fn) M.listeners[name] = fn end
            function M.fire(name) return "fire " .. M.listeners[name]() end
            function M.counter() local n = 0 return function() n = n + 100 return n end end
            return M""")
        # the closures that the script holds are of the inner function that changed
        self.assertEqual(self.one(name, "fire", "b"), "fire b101fire new 102")

    def test_new_code_may_load_a_new_module(self):
        module = self.module("local n = 0 return { next = function() n = n + 1 return n end }")
        name = self.start("evpt.export { go = function() return 'old' end }")
        new = "local m = require '%s' evpt.export { go = function() return m.next() end }" % module
        self.update(name, "--dry-run", text=new)
        self.assertEqual(self.game.lua("return evpt.call(...)", name, "go"), ["old"])
        self.update(name)
        self.assertEqual([self.one(name, "go") for _ in range(2)], [1, 2])
        self.update(name, text=new.replace("m.next()", "m.next() + require('%s').next()" % module))
        self.assertEqual(self.one(name, "go"), 3 + 4)
        self.update(module, text="local n = 0 return { next = function() n = n - 1 return n end }")
        self.assertEqual(self.one(name, "go"), 3 + 2)

    def test_module_with_a_mistake_changes_nothing_anywhere(self):
        module = self.module("return { f = function() return 1 end }")
        name = self.start("local m = require '%s' evpt.export { f = function() return m.f() end }"
                          % module)
        for text, part in (("return {", ":1: unexpected symbol near <eof>"),
                           ("error('no')", ":1: no"), ("return 7", "in the new code")):
            self.refused(module, part, text=text)
            self.assertEqual(self.one(name, "f"), 1)

    def test_modules_of_the_program_are_not_updated(self):
        for name in ("evpt", "evpt.json", "string"):
            self.refused(name, "nothing runs here that is called " + name)


class RolloutTest(UpdateCase):
    """Which services are meant, and that all get it or none."""

    def two(self, text=COUNTER):
        """Two services of one script: its name, and theirs."""
        script = self.start(text)
        names = [script + "_a", script + "_b"]
        self.game.lua("""
            local script, names = ...
            for _, name in ipairs(names) do evpt.start(script, { name = name }) end""",
                      script, names)
        return script, names

    def test_script_means_all_its_services_and_service_only_itself(self):
        script, names = self.two()
        self.game.script(script, COUNTER.replace("old", "new"))
        done = self.game.ctl("update", names[1], "--json")
        self.assertEqual([s["name"] for s in json.loads(done.stdout)["services"]], [names[1]])
        done = self.game.ctl("update", script)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, (
            "services/{0}.lua updated in: {0} {0}_a\n"
            "  changed   line\n"
            "  unchanged add log\n"
            "services/{0}.lua updated in: {0}_b\n"
            "  unchanged add line log\n").format(script))
        for name in [script] + names:
            self.game.ask(name, "add")
            self.assertEqual(self.one(name, "log"), "new 1")

    def test_service_can_be_named_by_its_handle(self):
        script, names = self.two()
        self.game.script(script, COUNTER.replace("old", "new"))
        handle = self.game.lua("return evpt.query(...)", script)[0]
        done = self.game.ctl("update", str(handle), "--json")
        self.assertEqual([s["name"] for s in json.loads(done.stdout)["services"]], [script])

    def test_name_of_a_service_and_of_another_script_is_ambiguous(self):
        script = self.start(COUNTER)
        inner = self.start("evpt.register(%r) evpt.export { f = print }" % (script + "_x"))
        self.game.script(script + "_x", COUNTER)
        self.game.lua("evpt.start(...)", script + "_x")
        self.refused(script + "_x", "both a service, of script %s, and a script" % inner)

    def test_one_that_cannot_be_updated_keeps_all_from_it(self):
        script, names = self.two("""
            local state
            evpt.export { set = function(v) state = v end,
                          get = function() return "old", state end }""")
        self.game.ask(names[0], "set", {"a": 1})
        self.refused(script, names[0] + ": state is a table in the running service", text="""
            local function state() return 7 end
            evpt.export { set = print, get = function() return "new", state() end }""")
        for name in [script] + names:
            self.assertEqual(self.game.ask(name, "get")[0], "old")

    def test_service_that_does_not_come_to_its_messages_is_not_updated(self):
        script, names = self.two(
            COUNTER + "evpt.export { block = function() os.execute('sleep 7') end }")
        self.game.client().post(names[1], "block")
        self.refused(script, names[1] + ": ", "deadline", text=COUNTER.replace("old", "new"))
        for name in [script] + names:
            self.game.ask(name, "add")
            self.assertEqual(self.one(name, "log"), "old 1")

    def test_from_lua(self):
        script = COUNTER + """
            evpt.export { renew = function(options)
                return evpt.update(evpt.name(), options)
            end }"""
        name = self.start(script)
        self.game.script(name, script.replace("old", "new"))
        dry = self.one(name, "renew", {"dry_run": True})
        self.assertEqual((dry["dry_run"], dry["services"][0]["changed"]), (True, ["line"]))
        self.game.ask(name, "add")
        done = self.one(name, "renew", {})      # a service may update itself
        self.assertEqual((done["dry_run"], done["services"][0]["changed"]), (False, ["line"]))
        self.game.ask(name, "add")
        self.assertEqual(self.one(name, "log"), "old 1,new 2")
        for arguments, part in (("'nobody'", "nothing runs here that is called nobody"),
                                ("{}", "got a table"),
                                ("'lab', { dryrun = true }", "dryrun: unknown option"),
                                ("'lab', { dry_run = true, x = 1 }", "x: unknown option"),
                                ("'lab', 7", "expected a table of options")):
            got = self.game.lua("return caught(evpt.update, %s)" % arguments)
            self.assertIn(part, got[1]["text"])
            self.assertFalse(got[0])

    def test_service_started_from_another_is_known_by_its_script(self):
        script = self.start(COUNTER)
        handle = self.game.lua("return evpt.start(...)", script)[0]
        self.game.script(script, COUNTER.replace("old", "new"))
        done = json.loads(self.game.ctl("update", script, "--json").stdout)
        self.assertEqual([s["name"] for s in done["services"]], [script, str(handle)])


class FolderTest(NodeCase):
    def test_file_that_is_found_in_another_folder_by_now(self):
        node = self.node(script=COUNTER, config={"path": "services/?.lua;services/more/?.lua"})
        node.ask("s", "add")
        os.remove(node.path("services/s.lua"))
        node.script("more/s", COUNTER.replace("old", "new"))
        done = json.loads(node.ctl("update", "s", "--json").stdout)
        self.assertEqual((done["file"], done["services"][0]["changed"]),
                         ("services/more/s.lua", ["line"]))
        self.assertEqual((node.ask("s", "add"), node.ask("s", "log")), ([2], ["old 1,new 2"]))
        node.script("more/s", COUNTER.replace("old", "newer"))
        done = json.loads(node.ctl("update", "s", "--json").stdout)
        self.assertEqual(done["services"][0]["changed"], ["line"])


class LoadTest(NodeCase):
    SCRIPT = """
        local count, players = 0, {}
        local function name(id) return "version %d: " .. id end
        evpt.export {
            join = function(id)
                count = count + 1
                players[id] = name(id)
                if id %% 7 == 0 then evpt.sleep(1) end
                local got = players[id]
                players[id] = nil
                return id, got
            end,
            count = function() return count end,
            memory = function()
                collectgarbage()
                collectgarbage()
                return collectgarbage("count")
            end,
        }"""

    def test_a_thousand_updates_under_load_lose_no_call_and_leak_no_memory(self):
        node = self.node(scripts={
            "s": self.SCRIPT % 0,
            "updater": "evpt.export { update = function() evpt.update('s') end }"})
        clients = [node.client() for _ in range(4)]
        sent = received = 0
        memory = []
        for version in range(1, 1001):
            # two texts in turn: what an update of one leaves behind would add up
            node.script("s", self.SCRIPT % (version % 2))
            calls = []
            for client in clients:
                for _ in range(5):
                    sent += 1
                    calls.append((client, sent, client.start("s", "join", sent)))
            node.ask("updater", "update")
            for client, number, session in calls:
                reply = client.reply(session)
                self.assertEqual((reply.code, reply.results[0]), (wire.OK, number))
                self.assertIn(reply.results[1], ("version %d: %d" % (v, number) for v in (0, 1)))
                received += 1
            if version in (10, 11, 1000):
                memory.append(node.ask("s", "memory")[0])
        self.assertEqual((sent, received), (20000, 20000))
        self.assertEqual(node.ask("s", "count"), [20000])
        self.assertLess(memory[2], max(memory[:2]) + 1, memory)     # KiB
