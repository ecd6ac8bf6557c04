"""`require "evpt"`, inside one node: calls, coroutines, time, handles, errors, values (SPEC
section 4)."""

import time

import wire
from evptnode import LabCase


class CallTest(LabCase):
    TARGET = """
    local n = 0
    evpt.export { echo = function(...) return ... end, boom = function(e) error(e, 0) end }
    evpt.methods {
        inner = function() return "inner" end,
        none = function() end,
        hold = function() evpt.wait() end,
        inc = function() n = n + 1 return n end,
        unsendable = function() return { list = { 1, 2, print } } end,
        caller_error = function() local x = nil; return x.field end,
    }"""

    def target(self):
        return self.service(self.game, self.TARGET)

    def seen(self, text, *args):
        """The error object that the text raises."""
        ok, error = self.game.lua("return caught(function(...) %s end, ...)" % text, *args)
        self.assertFalse(ok)
        return error

    def test_call_returns_all_results(self):
        name = self.target()
        self.assert_same(self.game.lua("return evpt.call(..., 'echo', 1, 'two', 3.5)", name),
                         [1, "two", 3.5])
        self.assertEqual(self.game.lua("return select('#', evpt.call(..., 'none'))", name), [0])

    def test_call_reaches_methods_and_exports_inside_the_node(self):
        name = self.target()
        self.assertEqual(self.game.lua("return evpt.call(..., 'inner')", name), ["inner"])

    def test_call_takes_a_handle(self):
        name = self.target()
        self.assertEqual(self.game.lua("return evpt.call(evpt.query(...), 'inner')", name),
                         ["inner"])

    def test_call_to_itself_works(self):
        self.assertEqual(self.game.lua("return evpt.call(evpt.self(), 'echo', 5)"), [5])

    def test_call_of_an_unknown_service_raises_unknown_service(self):
        for target in ("'nosuch'", "0", "123456", "2^31|0", "-1", "''"):
            with self.subTest(target):
                self.assert_error(self.seen("evpt.call(%s, 'x')" % target), wire.UNKNOWN_SERVICE,
                                  ["no"])

    def test_call_of_an_unknown_method_raises_unknown_method(self):
        name = self.target()
        for method in ("nosuch", "", "__main__", "print"):
            error = self.seen("local s, m = ... evpt.call(s, m)", name, method)
            self.assert_error(error, wire.UNKNOWN_METHOD, ["no"])
            self.assertEqual((error["service"], error["method"]), (name, method))

    def test_method_that_raises_gives_failed_with_its_message(self):
        name = self.target()
        error = self.seen("evpt.call(..., 'boom', 'out of cheese')", name)
        self.assert_error(error, wire.FAILED, ["yes"])
        self.assertIn("out of cheese", error["message"])
        self.assertEqual([error[key] for key in ("node", "service", "method")],
                         ["game_1", name, "boom"])
        for word in ("out of cheese", name, "boom"):
            self.assertIn(word, error["text"])

    def test_method_that_raises_leaves_a_traceback_in_the_log_and_the_service_goes_on(self):
        name = self.target()
        self.assert_error(self.seen("evpt.call(..., 'caller_error')", name), wire.FAILED)
        lines = self.game.wait_log(r"attempt to index a nil value")
        self.assertTrue(lines)
        self.game.wait_log("stack traceback")
        self.assertEqual(self.game.lua("return evpt.call(..., 'inner')", name), ["inner"])

    def test_method_may_raise_any_value(self):
        name = self.target()
        for value in ("nil", "42", "true", "{}", "{ 1, 2 }", "'two\\nlines'", "('x'):rep(100000)"):
            with self.subTest(value):
                error = self.seen("evpt.call(..., 'boom', %s)" % value, name)
                self.assertEqual((error["code"], type(error["message"])), (wire.FAILED, str))

    def test_result_that_cannot_travel_fails_the_call(self):
        error = self.seen("evpt.call(..., 'unsendable')", self.target())
        self.assertEqual(error["code"], wire.FAILED)
        self.assertIn("list[3]", error["message"])
        self.assertIn("cannot send a function", error["message"])

    def test_try_returns_a_code_and_raises_nothing(self):
        name = self.target()
        self.assertEqual(self.game.lua("return evpt.try(..., 'echo', 1, nil, 3)", name),
                         [wire.OK, 1, None, 3])
        code, error = self.game.lua("local c, e = evpt.try(..., 'boom', 'x') "
                                    "return c, seen(e)", name)
        self.assertEqual(code, wire.FAILED)
        self.assert_error(error, wire.FAILED)
        self.assertEqual(self.game.lua("return (evpt.try('nosuch', 'x'))"), [wire.UNKNOWN_SERVICE])

    def test_send_wants_no_answer_and_keeps_the_order(self):
        name = self.service(self.game, """
            local list = {}
            evpt.methods { add = function(i) list[#list + 1] = i end,
                           list = function() return list end }""")
        self.assertEqual(self.game.lua("""
            local name = ...
            for i = 1, 1000 do assert(evpt.send(name, "add", i) == true) end
            return evpt.call(name, "list")""", name), [list(range(1, 1001))])

    def test_send_to_nobody_returns_nil_and_an_error_object(self):
        sent, error = self.game.lua("local ok, e = evpt.send('nosuch', 'x') return ok, seen(e)")
        self.assertIsNone(sent)
        self.assert_error(error, wire.UNKNOWN_SERVICE, ["no"])

    def test_error_in_a_sent_method_is_logged(self):
        name = self.target()
        self.game.lua("evpt.send(..., 'boom', 'sent and lost')", name)
        self.game.wait_log("sent and lost")

    def test_calls_and_sends_of_one_service_keep_their_order(self):
        name = self.service(self.game, """
            local list = {}
            evpt.methods { add = function(i) list[#list + 1] = i end,
                           list = function() return list end }""")
        self.assertEqual(self.game.lua("""
            local name = ...
            for i = 1, 300 do
                if i % 3 == 0 then evpt.fork(evpt.call, name, "add", i)
                else evpt.send(name, "add", i) end
                if i % 3 == 0 then evpt.sleep(0) end
            end
            return evpt.call(name, "list")""", name), [list(range(1, 301))])

    def test_service_handles_other_messages_while_a_method_waits(self):
        name = self.service(self.game, """
            local co
            evpt.methods { block = function()
                               co = coroutine.running() evpt.wait() return "freed" end,
                           blocked = function() return co ~= nil end,
                           free = function() evpt.wakeup(co) end }""")
        self.assertEqual(self.game.lua("""
            local name, got = ...
            evpt.fork(function() got = evpt.call(name, "block") end)
            assert(eventually(function() return evpt.call(name, "blocked") end))
            evpt.call(name, "free")
            assert(eventually(function() return got end))
            return got""", name), ["freed"])

    def test_services_may_call_each_other_in_turn(self):
        script = """evpt.methods { count = function(other, n)
            if n == 0 then return 0 end
            return 1 + evpt.call(other, "count", evpt.name(), n - 1) end }"""
        a, b = self.service(self.game, script), self.service(self.game, script)
        self.assertEqual(self.game.lua("local a, b = ... return evpt.call(a, 'count', b, 100)",
                                       a, b), [100])

    def test_export_inside_the_node_is_callable_through_methods_table_too(self):
        name = self.service(self.game, """
            evpt.export { a = function() return "a" end }
            evpt.methods { b = function() return "b" end }""")
        self.assertEqual(self.game.lua("local n = ... return evpt.call(n, 'a'), evpt.call(n, 'b')",
                                       name), ["a", "b"])


class HandleTest(LabCase):
    def test_start_waits_until_main_has_returned(self):
        self.game.script("slowmain", "function __main__() evpt.sleep(20) ready = true end "
                         "evpt.methods { ready = function() return ready end }")
        self.assertEqual(self.game.lua("return evpt.call(evpt.start('slowmain'), 'ready')"), [True])

    def test_start_gives_name_and_arguments(self):
        self.game.script("started", """function __main__(...) args = table.pack(...) end
            evpt.methods { who = function()
                return evpt.name(), args.n, args[1], args[3] end }""")
        self.assertEqual(self.game.lua("""
            local handle = evpt.start("started", { name = "st_1", args = { 1, 2, "x" } })
            assert(handle == evpt.query("st_1"))
            return evpt.call(handle, "who")"""), ["st_1", 3, 1, "x"])

    def test_start_raises_what_the_script_or_its_main_raised(self):
        for name, text, word in (("bad1", "error('in the script')", "in the script"),
                                 ("bad2", "function __main__() error('in main') end", "in main"),
                                 ("bad3", "local = 1", "bad3.lua:1"),
                                 ("bad4", "function __main__() evpt.sleep(2) error({}) end", "")):
            with self.subTest(name):
                self.game.script(name, text)
                ok, error, left = self.game.lua("""
                    local name = ...
                    local ok, error = caught(evpt.start, name, { name = name })
                    return ok, error, eventually(function() return not evpt.query(name) end)
                    """, name)
                self.assertFalse(ok)
                self.assertIn(word, error["text"])
                self.assertTrue(left)

    def test_start_of_a_missing_script_or_a_name_in_use_raises(self):
        ok, error = self.game.lua("return caught(evpt.start, 'nosuch')")
        self.assertFalse(ok)
        self.assertIn("nosuch", error["text"])
        self.game.script("plain", "evpt.methods { x = function() return 'alive' end }")
        ok, error = self.game.lua("evpt.start('plain', { name = 'taken' }) "
                                  "return caught(evpt.start, 'plain', { name = 'taken' })")
        self.assertFalse(ok)
        self.assertIn("taken", error["text"])
        self.assertEqual(self.game.lua("return evpt.call('taken', 'x')"), ["alive"])

    def test_start_cannot_leave_the_path(self):
        for script in ("../evpt", "/etc/passwd", "lab.lua\0", ""):
            ok, _ = self.game.lua("return caught(evpt.start, ...)", script)
            self.assertFalse(ok, script)

    def test_service_started_later_runs_its_do_after_init(self):
        name = self.service(self.game, "function doAfterInit() ready = true end "
                            "evpt.methods { ready = function() return ready end }")
        self.assertEqual(self.game.lua("return eventually(function() "
                                       "return evpt.call('%s', 'ready') end)" % name), [True])

    def test_self_name_node_query_register(self):
        name = self.service(self.game, """evpt.methods { who = function()
            evpt.register("alias_" .. evpt.name())
            return evpt.self() == evpt.query(evpt.name()), evpt.name(), evpt.node(),
                   evpt.query("alias_" .. evpt.name()) == evpt.self(), evpt.query("nosuch") == nil
            end }""")
        self.assertEqual(self.game.lua("return evpt.call(..., 'who')", name),
                         [True, name, "game_1", True, True])
        self.assertEqual(self.game.lua("return (evpt.call('alias_' .. ..., 'who'))", name), [True])

    def test_register_of_a_name_in_use_is_refused(self):
        name = self.service(self.game, "evpt.methods { take = function(name) "
                            "pcall(evpt.register, name) end }")
        for taken in ("lab", "clusterclient", "launcher"):
            self.game.lua("local n, t = ... return evpt.call(n, 'take', t)", name, taken)
            self.assertEqual(self.game.lua("local n, t = ... return evpt.query(t) ~= evpt.query(n)",
                                           name, taken), [True], taken)

    def test_exit_ends_the_service_and_answers_what_waits_for_it(self):
        name = self.service(self.game, """evpt.methods {
            hold = function() evpt.wait() end, quit = function() evpt.exit() end }""")
        count, later, found = self.game.lua("""
            local name, codes = ..., {}
            for i = 1, 5 do
                evpt.fork(function()
                    local code = evpt.try(name, "hold")
                    codes[#codes + 1] = code
                end)
            end
            evpt.sleep(0)
            evpt.try(name, "quit")
            assert(eventually(function() return #codes == 5 end))
            for _, code in ipairs(codes) do assert(code ~= 0) end
            return #codes, (evpt.try(name, "hold")), evpt.query(name) ~= nil""", name)
        self.assertEqual((count, later, found), (5, wire.UNKNOWN_SERVICE, False))

    def test_kill_ends_a_service_and_answers_what_waits_for_it(self):
        name = self.service(self.game, "evpt.methods { hold = function() evpt.wait() end }")
        self.assertEqual(self.game.lua("""
            local name, code = ...
            evpt.fork(function() code = (evpt.try(name, "hold")) end)
            evpt.sleep(5)
            evpt.kill(name)
            assert(eventually(function() return code end))
            return code ~= 0, (evpt.try(name, "hold")), evpt.query(name) == nil""", name),
                         [True, wire.UNKNOWN_SERVICE, True])

    def test_kill_of_a_service_that_waits_for_a_call_loses_nobody_else(self):
        name = self.service(self.game, """evpt.methods { call = function()
            evpt.call("lab", "echo", 1) evpt.sleep(100000) end }""")
        self.game.lua("local n = ... evpt.send(n, 'call') evpt.sleep(5) evpt.kill(n)", name)
        self.assertEqual(self.game.lua("return evpt.call('lab', 'echo', 1)"), [1])

    def test_handle_of_an_ended_service_is_never_reused_by_another(self):
        self.game.script("brief", "evpt.methods { x = function() return 'x' end }")
        self.assertEqual(self.game.lua("""
            local old = evpt.start("brief")
            evpt.kill(old)
            assert(eventually(function() return evpt.try(old, "x") == 5 end))
            for i = 1, 200 do
                local new = evpt.start("brief")
                assert(new ~= old)
                evpt.kill(new)
            end
            return (evpt.try(old, "x"))"""), [wire.UNKNOWN_SERVICE])


class TimeTest(LabCase):
    def test_sleep_takes_at_least_its_time(self):
        for ms in (0, 1, 25):
            took = self.game.lua("local t = evpt.now() evpt.sleep(...) "
                                 "return evpt.now() - t", ms)[0]
            self.assertGreaterEqual(took, ms)

    def test_now_is_monotonic_and_time_is_the_wall_clock(self):
        a, b, wall, kind = self.game.lua("local a = evpt.now() evpt.sleep(2) return a, evpt.now(), "
                                         "evpt.time(), math.type(evpt.time())")
        self.assertGreater(b, a)
        self.assertEqual(kind, "float")
        self.assertLess(abs(wall - time.time()), 5)

    def test_timeouts_fire_in_the_order_of_their_times(self):
        self.assertEqual(self.game.lua("""
            local fired = {}
            for _, ms in ipairs { 30, 10, 20, 1, 10 } do
                evpt.timeout(ms, function() fired[#fired + 1] = ms end)
            end
            assert(eventually(function() return #fired == 5 end))
            return fired"""), [[1, 10, 10, 20, 30]])

    def test_cancelled_timeout_never_fires(self):
        self.assertEqual(self.game.lua("""
            local fired, done = false, false
            local timer = evpt.timeout(10, function() fired = true end)
            evpt.timeout(20, function() done = true end)
            local first, second = evpt.cancel(timer), evpt.cancel(timer)
            assert(eventually(function() return done end))
            return first, second, fired"""), [True, False, False])

    def test_cancel_of_a_timeout_that_has_fired_is_false(self):
        self.assertEqual(self.game.lua("""
            local fired = false
            local timer = evpt.timeout(1, function() fired = true end)
            assert(eventually(function() return fired end))
            return evpt.cancel(timer)"""), [False])

    def test_timeout_callback_may_wait_and_cancel_itself(self):
        self.assertEqual(self.game.lua("""
            local got, timer
            timer = evpt.timeout(1, function()
                local own = evpt.cancel(timer)
                got = { evpt.call("lab", "echo", "waited"), own }
            end)
            assert(eventually(function() return got end))
            return got[1], got[2]"""), ["waited", False])

    def test_error_in_a_timeout_is_logged_and_the_service_goes_on(self):
        self.game.lua("evpt.timeout(0, function() error('late trouble') end)")
        self.game.wait_log("late trouble")
        self.assertEqual(self.game.lua("return 1"), [1])

    def test_ten_thousand_timeouts_fire_once_each(self):
        self.assertEqual(self.game.lua("""
            local fired, cancelled = 0, 0
            for i = 1, 10000 do
                local timer = evpt.timeout(i % 50, function() fired = fired + 1 end)
                if i % 2 == 0 and evpt.cancel(timer) then cancelled = cancelled + 1 end
            end
            assert(eventually(function() return fired + cancelled >= 10000 end))
            evpt.sleep(60)
            return fired, cancelled"""), [5000, 5000])

    def test_bad_arguments_raise_and_name_themselves(self):
        for text in ("evpt.sleep('x')", "evpt.timeout(10)", "evpt.timeout(10, 5)",
                     "evpt.fork()", "evpt.fork(5)", "evpt.cancel()", "evpt.wakeup(5)",
                     "evpt.call()", "evpt.call('lab')", "evpt.call({}, 'x')", "evpt.call('lab', 5)",
                     "evpt.register(5)", "evpt.register('')", "evpt.start()", "evpt.kill()",
                     "evpt.export(5)", "evpt.export { x = 5 }", "evpt.methods('x')",
                     "evpt.on_stop(5)", "cluster.call()", "cluster.call('battle_1')",
                     "cluster.call(5, 's', 'm')", "cluster.remoteCall('battle_1', 's', 'm', {})",
                     "cluster.remoteCall('battle_1', 's', 'm', {}, 5)", "cluster.on_change(5)",
                     "cluster.rewrite()", "cluster.proxy()", "cluster.remoteSend('battle_1')"):
            with self.subTest(text):
                ok, error = self.game.lua("return caught(load(...))",
                                          "local evpt, cluster = require 'evpt', "
                                          "require 'evpt.cluster' " + text)
                self.assertFalse(ok)
                self.assertTrue(error["text"])


class CoroutineTest(LabCase):
    def test_fork_runs_with_its_arguments(self):
        self.assert_same(self.game.lua("""
            local got
            evpt.fork(function(...) got = table.pack(...) end, 1, nil, "x", nil)
            assert(eventually(function() return got end))
            return got.n, got[1], got[2], got[3]"""), [4, 1, None, "x"])

    def test_error_in_a_fork_is_logged_with_its_traceback(self):
        self.game.lua("evpt.fork(function() error('fork trouble') end)")
        self.game.wait_log("fork trouble")

    def test_wait_goes_on_at_wakeup(self):
        self.assertEqual(self.game.lua("""
            local steps, co = {}, nil
            evpt.fork(function()
                co = coroutine.running()
                steps[#steps + 1] = "waits"
                evpt.wait()
                steps[#steps + 1] = "goes on"
            end)
            assert(eventually(function() return co end))
            steps[#steps + 1] = "wakes"
            evpt.wakeup(co)
            assert(eventually(function() return #steps == 3 end))
            return steps"""), [["waits", "wakes", "goes on"]])

    def test_wakeup_of_a_coroutine_that_waits_for_something_else_does_no_harm(self):
        self.assertEqual(self.game.lua("""
            local got, co
            evpt.fork(function()
                co = coroutine.running()
                evpt.sleep(20)
                got = evpt.call("lab", "echo", "right answer")
            end)
            evpt.sleep(1)
            pcall(evpt.wakeup, co)
            pcall(evpt.wakeup, co)
            assert(eventually(function() return got end))
            return got"""), ["right answer"])

    def test_wakeup_of_a_dead_coroutine_does_no_harm(self):
        self.assertEqual(self.game.lua("""
            local co
            evpt.fork(function() co = coroutine.running() end)
            assert(eventually(function() return co end))
            pcall(evpt.wakeup, co)
            pcall(evpt.wakeup, coroutine.create(print))
            return "alive" """), ["alive"])

    def test_queue_lets_one_in_at_a_time_and_in_order(self):
        self.assertEqual(self.game.lua("""
            local lock, inside, most, order = evpt.queue(), 0, 0, {}
            for i = 1, 20 do
                evpt.fork(lock, function()
                    inside = inside + 1
                    most = math.max(most, inside)
                    evpt.sleep(i % 3)
                    inside = inside - 1
                    order[#order + 1] = i
                end)
            end
            assert(eventually(function() return #order == 20 end))
            return most, order"""), [1, list(range(1, 21))])

    def test_queue_passes_arguments_and_results_and_survives_an_error(self):
        self.assertEqual(self.game.lua("""
            local lock = evpt.queue()
            local ok = pcall(lock, function() evpt.sleep(1) error("inside") end)
            return ok, lock(function() evpt.sleep(1) return 1, 2 end)"""), [False, 1, 2])

    def test_queue_may_be_entered_again_by_the_coroutine_that_is_inside(self):
        self.assertEqual(self.game.lua("""
            local lock = evpt.queue()
            local got
            evpt.fork(function() lock(function() lock(function() got = "inner" end) end) end)
            return eventually(function() return got end), got"""), [True, "inner"])

    def test_coroutines_of_the_script_itself_still_work(self):
        self.assertEqual(self.game.lua("""
            local list = {}
            for v in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do
                list[#list + 1] = v
            end
            return list"""), [[1, 2, 3]])

    def test_coroutines_of_the_script_itself_may_wait(self):
        self.assertEqual(self.game.lua("""
            local function steps(first)
                evpt.sleep(1)
                local second = coroutine.yield(first + 1)
                evpt.sleep(1)
                return second + 1, evpt.name()
            end
            local co = coroutine.create(steps)
            local list = { select(2, coroutine.resume(co, 1)) }
            list[2], list[3] = select(2, coroutine.resume(co, 10))
            local outer = coroutine.wrap(function() return coroutine.wrap(steps)(5) end)
            list[4] = outer()
            return list, coroutine.status(co), select("#", coroutine.resume(co)),
                coroutine.resume(co)"""),
            [[2, 11, "lab", 6], "dead", 2, False, "cannot resume dead coroutine"])

    def test_wakeup_finds_a_coroutine_of_the_script_itself(self):
        self.assertEqual(self.game.lua("""
            local co = coroutine.create(function() evpt.wait() return "awake" end)
            local got
            evpt.fork(function() got = select(2, coroutine.resume(co)) end)
            evpt.sleep(1)
            local first, second = evpt.wakeup(co), evpt.wakeup(co)
            return first, second, eventually(function() return got end), got"""),
            [True, False, True, "awake"])

    def test_coroutine_that_waits_is_resumed_by_nobody_else(self):
        self.assertEqual(self.game.lua("""
            local nested = coroutine.create(function() evpt.wait() return "by wakeup" end)
            local task, got
            evpt.fork(function()
                task = coroutine.running()
                got = { coroutine.resume(nested) }
            end)
            assert(eventually(function() return task end))
            local refused = { coroutine.resume(nested, "by force") }
            local task_refused = coroutine.resume(task)
            evpt.wakeup(nested)
            return refused, task_refused, eventually(function() return got end), got"""),
            [[False, "cannot resume a coroutine that waits for evpt"], False, True,
             [True, "by wakeup"]])

    def test_coroutine_inside_of_what_cannot_be_suspended_is_told_so(self):
        ok, message, after = self.game.lua("""
            local ok, message
            table.sort({ 1, 2 }, function()
                ok, message = coroutine.resume(coroutine.create(function() evpt.sleep(1) end))
                return false
            end)
            return ok, message, coroutine.wrap(function() evpt.sleep(1) return "waits" end)()""")
        self.assertEqual([ok, after], [False, "waits"])
        self.assertIn("cannot wait here", message)

    def test_error_out_of_a_wrapped_coroutine_closes_what_it_held(self):
        self.assertEqual(self.game.lua("""
            local closed
            local f = coroutine.wrap(function()
                local held <close> = setmetatable({}, { __close = function() closed = true end })
                evpt.sleep(1)
                error({ "what it raised" })
            end)
            local ok, problem = pcall(f)
            return ok, problem[1], closed, (pcall(f))"""), [False, "what it raised", True, False])

    def test_ten_thousand_coroutines_wait_at_once(self):
        self.assertEqual(self.game.lua("""
            local done = 0
            for i = 1, 10000 do
                evpt.fork(function() evpt.sleep(20) done = done + 1 end)
            end
            assert(eventually(function() return done == 10000 end))
            return done"""), [10000])


class DispatchTest(LabCase):
    SCRIPT = """
    local log = {}
    function _msg_dispatch_(source, session, method, ...)
        log[#log + 1] = { method, session ~= 0, select("#", ...) }
        if method == "log" then return evpt.reply(source, session, 0, log) end
        if method == "echo" then return evpt.reply(source, session, 0, ...) end
        if method == "fail" then return evpt.reply(source, session, 7, "by hand") end
        if method == "later" then
            return evpt.fork(function() evpt.sleep(5) evpt.reply(source, session, 0, "late") end)
        end
        if method == "twice" then
            evpt.reply(source, session, 0, 1)
            return pcall(evpt.reply, source, session, 0, 2)
        end
        if method == "source" then return evpt.reply(source, session, 0, source) end
        if method == "raise" then error("in dispatch") end
    end"""

    def low(self, text, *args):
        name = self.service(self.game, self.SCRIPT)
        return self.game.lua("local low = '%s' %s" % (name, text), *args)

    def test_dispatch_gets_every_message_and_answers_with_reply(self):
        self.assert_same(self.low("return evpt.call(low, 'echo', 1, nil, 'x')"), [1, None, "x"])
        log = self.low("evpt.send(low, 'one', 1) evpt.send(low, 'two') "
                       "evpt.call(low, 'echo') return evpt.call(low, 'log')")[0]
        self.assertEqual(log, [["one", False, 1], ["two", False, 0], ["echo", True, 0],
                               ["log", True, 0]])

    def test_dispatch_knows_the_source(self):
        self.assertEqual(self.low("return evpt.call(low, 'source') == evpt.self()"), [True])

    def test_dispatch_may_answer_later_and_with_an_error(self):
        self.assertEqual(self.low("return evpt.call(low, 'later')"), ["late"])
        code, error = self.low("local c, e = evpt.try(low, 'fail') return c, seen(e)")
        self.assertEqual(code, wire.FAILED)
        self.assertIn("by hand", error["message"])

    def test_dispatch_that_answers_twice_answers_once(self):
        self.assertEqual(self.low("return evpt.call(low, 'twice'), evpt.call(low, 'echo', 3)"),
                         [1, 3])

    def test_dispatch_that_raises_is_logged_and_the_service_goes_on(self):
        self.low("evpt.send(low, 'raise') return evpt.call(low, 'echo')")
        self.game.wait_log("in dispatch")

    def test_dispatch_that_raises_fails_the_call(self):
        self.assertEqual(self.low("return (evpt.try(low, 'raise'))"), [wire.FAILED])


class ValueTest(LabCase):
    """What travels, inside the node and between nodes."""

    def echo(self, *values):
        """The values through the lab of game_1, of battle_1, and back: over two connections, four
        times packed."""
        return self.game.lua("return cluster.call('battle_1', 'lab', 'echo', ...)", *values)

    def test_values_of_every_kind_come_back_as_they_went(self):
        values = [None, True, False, 0, 1, -1, 127, 128, 255, 256, 65536, 2 ** 31, 2 ** 32,
                  2 ** 53 + 1, 2 ** 63 - 1, -2 ** 63, -32, -33, -129, 0.0, -0.0, 1.0, 1.5, 1e300,
                  5e-324, float("inf"), float("-inf"), float("nan"), "", "x", "x" * 31, "x" * 32,
                  "x" * 255, "x" * 256, "x" * 65535, "x" * 65536, "ä€😀", "\0",
                  bytes(range(256)).decode("utf-8", "surrogateescape"), [1, 2, 3], [[1], [2, [3]]],
                  {"a": 1, "b": [True]}, {"x": {"y": {"z": "deep"}}}, None]
        self.assert_same(self.echo(*values), values)

    def test_integers_and_floats_stay_distinct(self):
        self.assertEqual(self.game.lua("""
            local a, b, c = cluster.call("battle_1", "lab", "echo", 1, 1.0, { 2, 2.0, [2^53] = 1 })
            return math.type(a), math.type(b), math.type(c[1]), math.type(c[2])"""),
                         ["integer", "float", "integer", "float"])

    def test_nils_of_arguments_and_results_are_kept(self):
        for values in ([], [None], [None, None], [1, None], [None, 1], [None, 1, None, None]):
            for call in ("cluster.call('battle_1', 'lab', 'echo', ...)",
                         "cluster.call('game_1', 'lab', 'echo', ...)",
                         "evpt.call('lab', 'echo', ...)"):
                self.assertEqual(self.game.lua("return select('#', %s)" % call, *values),
                                 [len(values)])
                self.assert_same(self.game.lua("return " + call, *values), values)

    def test_a_thousand_arguments_and_results_travel(self):
        values = list(range(1000))
        self.assert_same(self.echo(*values), values)

    def test_tables_keep_their_keys(self):
        self.assertEqual(self.game.lua("""
            local t = { [1] = "a", [2] = "b", [4] = "d", [-1] = "m", [0] = "z", x = "x",
                        [true] = "t", [1.5] = "f", [1 << 40] = "big" }
            local r = cluster.call("battle_1", "lab", "echo", t)
            for k, v in pairs(t) do assert(r[k] == v, tostring(k)) end
            for k, v in pairs(r) do assert(t[k] == v, tostring(k)) end
            for k in pairs(r) do if k == 1 then assert(math.type(k) == "integer") end end
            return "same" """), ["same"])

    def test_tables_with_holes_keep_their_values(self):
        self.assertEqual(self.game.lua("""
            for _, t in ipairs { { 1, nil, 3 }, { nil, 2 }, { n = 2, 1, nil, nil, 4 },
                                 { [1000] = 1 }, {} } do
                local r = cluster.call("battle_1", "lab", "echo", t)
                for k, v in pairs(t) do assert(r[k] == v, tostring(k)) end
                for k, v in pairs(r) do assert(t[k] == v, tostring(k)) end
            end
            return "same" """), ["same"])

    def test_a_table_may_occur_twice_but_not_inside_itself(self):
        self.assertEqual(self.game.lua("""
            local t = { 1 }
            local a = cluster.call("battle_1", "lab", "echo", { t, t })
            return a[1][1], a[2][1]"""), [1, 1])

    DEEP = "local t = {} local top = t for i = 2, %d do t[1] = {} t = t[1] end "

    def test_tables_travel_64_levels_deep(self):
        self.assertEqual(self.game.lua(self.DEEP % 64 + """
            local r = cluster.call("battle_1", "lab", "echo", top)
            local n = 0 while r do n = n + 1 r = r[1] end return n"""), [64])

    def unsendable(self, text, *words):
        """Every way to send what the text gives raises at the caller and names kind and place."""
        for call in ("cluster.call('battle_1', 'lab', 'echo', v)",
                     "cluster.try('battle_1', 'lab', 'echo', v)",
                     "cluster.send('battle_1', 'lab', 'echo', v)",
                     "cluster.remoteSend('battle_1', 'lab', 'echo', v)",
                     "cluster.remoteCall('battle_1', 'lab', 'echo', v, print)",
                     "cluster.call('game_1', 'lab', 'echo', v)",
                     "cluster.proxy('battle_1', 'lab').echo(v)",
                     "evpt.call('lab', 'echo', v)", "evpt.send('lab', 'echo', v)"):
            with self.subTest((text, call)):
                ok, error = self.game.lua("%s; return caught(function() return %s end)"
                                          % (text if "local v" in text else "local v = " + text,
                                             call))
                self.assertFalse(ok)
                for word in words:
                    self.assertIn(word, error["text"])

    def test_what_cannot_travel_raises_at_the_caller_and_names_the_place(self):
        self.unsendable("{ list = { 1, 2, print } }", "list[3]", "cannot send a function")
        self.unsendable("{ a = { b = { c = coroutine.create(print) } } }", "a.b.c",
                        "cannot send a ")
        self.unsendable("{ file = io.stdout }", "file", "cannot send a userdata")
        self.unsendable("function() end", "cannot send a function")
        self.unsendable("{ [print] = 1 }", "cannot send a function")

    def test_a_cycle_or_too_deep_a_table_raises_at_the_caller(self):
        self.unsendable("local v = {} v.me = { v }", "me")
        self.unsendable(self.DEEP % 65 + "local v = top", "deep")
        self.unsendable(self.DEEP % 100000 + "local v = top", "deep")

    def test_params_of_remote_call_are_named_as_in_the_specification(self):
        for call in ("cluster.remoteCall('battle_1', 'lab', 'echo', v, print)",
                     "cluster.remoteSend('battle_1', 'lab', 'echo', v)"):
            ok, error = self.game.lua("local v = { list = { 1, 2, print } } "
                                      "return caught(function() return %s end)" % call)
            self.assertFalse(ok)
            self.assertIn("params.list[3]: cannot send a function", error["text"])

    def test_metatables_run_no_code_while_a_table_is_packed(self):
        self.assertEqual(self.game.lua("""
            local t = setmetatable({ 1 }, { __index = function() error("index") end,
                __len = function() error("len") end, __pairs = function() error("pairs") end })
            return cluster.call("battle_1", "lab", "echo", t)[1]"""), [1])

    def test_large_values_travel(self):
        for size in (32768, 98304, 1 << 20, 10 << 20):
            self.assertEqual(self.game.lua("""
                local t = {}
                for i = 1, ... // 8 do t[i] = ("%08x"):format(i) end
                local s = table.concat(t)
                local r = cluster.call("battle_1", "lab", "echo", s)
                return #r, r == s""", size), [size, True])

    def test_a_hundred_thousand_small_values_travel(self):
        self.assertEqual(self.game.lua("""
            local t = {} for i = 1, 100000 do t[i] = { id = i, name = "n" .. i } end
            local r = cluster.call("battle_1", "lab", "echo", t)
            for i = 1, #t do assert(r[i].id == i and r[i].name == t[i].name) end
            return #r"""), [100000])
