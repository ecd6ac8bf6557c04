"""`require "evpt.cluster"` between two nodes that behave (SPEC section 4)."""

import socket

import wire
from evptnode import LabCase, NodeCase, wait_until


class RemoteTest(LabCase):
    TARGET = """
    evpt.export {
        echo = function(...) return ... end,
        count = function(...) return select("#", ...) end,
        none = function() end,
        many = function() return 1, nil, "three", nil end,
        boom = function(e) error(e, 0) end,
        hold = function() evpt.sleep(200) end,
        where = function() return evpt.node(), evpt.name() end,
    }
    evpt.methods { inner = function() return "inner" end }
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for node in (cls.game, cls.battle):
            node.script("target", cls.TARGET)
            node.lua("evpt.start('target', { name = 'target' })")

    def seen(self, text, *args):
        ok, error = self.game.lua("return caught(function(...) %s end, ...)" % text, *args)
        self.assertFalse(ok)
        return error

    # -- coroutine style --

    def test_remote_call_returns_all_results(self):
        self.assert_same(self.game.lua("return cluster.call('battle_1', 'target', 'many')"),
                         [1, None, "three", None])
        self.assertEqual(self.game.lua("return cluster.call('battle_1', 'target', 'where')"),
                         ["battle_1", "target"])

    def test_remote_try_returns_code_and_results(self):
        self.assert_same(self.game.lua("return cluster.try('battle_1', 'target', 'echo', 5, nil)"),
                         [wire.OK, 5, None])

    def test_remote_send_style_calls_return_true_and_are_executed_in_order(self):
        self.service(self.battle, """
            local list = {}
            evpt.export { add = function(i) list[#list + 1] = i end,
                          list = function() return list end }
            evpt.register("ordered")""")
        self.assertEqual(self.game.lua("""
            for i = 1, 500 do
                assert(cluster.send("battle_1", "ordered", "add", i) == true)
                if i % 50 == 0 then
                    assert(cluster.remoteSend("battle_1", "ordered", "add", -i) == true)
                end
            end
            local list = cluster.call("battle_1", "ordered", "list")
            local at = 0
            for i = 1, 500 do
                at = at + 1 assert(list[at] == i)
                if i % 50 == 0 then at = at + 1 assert(list[at] == -i) end
            end
            return #list"""), [510])

    def test_messages_of_mixed_size_arrive_in_the_order_sent(self):
        self.service(self.battle, """
            local list = {}
            evpt.export { add = function(i, pad) list[#list + 1] = { i, #pad } end,
                          list = function() return list end }
            evpt.register("mixed")""")
        self.assertEqual(self.game.lua("""
            for i = 1, 200 do
                local size = i % 20 == 0 and 200000 or i % 7 == 0 and 40000 or i
                assert(cluster.send("battle_1", "mixed", "add", i, ("x"):rep(size)))
            end
            local list = cluster.call("battle_1", "mixed", "list")
            for i = 1, 200 do assert(list[i][1] == i, i) end
            return #list"""), [200])

    # -- callback style --

    def test_remote_call_runs_its_callback_once_with_session_code_and_result(self):
        self.assertEqual(self.game.lua("""
            local calls = {}
            local session = cluster.remoteCall("battle_1", "target", "echo", { id = 7 },
                function(...) calls[#calls + 1] = table.pack(...) end)
            assert(#calls == 0)
            assert(eventually(function() return #calls > 0 end))
            evpt.sleep(20)
            local c = calls[1]
            return #calls, math.type(session), c.n, c[1] == session, c[2], c[3].id"""),
                         [1, "integer", 3, True, 0, 7])

    def test_remote_call_hands_over_params_as_the_only_argument(self):
        for params in ("nil", "5", "'text'", "{ 1, 2 }", "false"):
            self.assertEqual(self.game.lua("""
                local got
                cluster.remoteCall("battle_1", "target", "count", %s, function(_, code, n)
                    got = { code, n } end)
                assert(eventually(function() return got end))
                return got""" % params), [[0, 1]], params)

    def test_remote_call_gives_only_the_first_result(self):
        self.assertEqual(self.game.lua("""
            local got
            cluster.remoteCall("battle_1", "target", "many", nil, function(...)
                got = table.pack(...) end)
            assert(eventually(function() return got end))
            return got.n, got[3]"""), [3, 1])

    def test_remote_call_gives_code_and_error_object(self):
        self.assertEqual(self.game.lua("""
            local got = {}
            local function call(key, node, service, method, timeout)
                cluster.remoteCall(node, service, method, "param", function(_, code, e)
                    assert(not got[key])
                    got[key] = { code, e.code, e.executed }
                end, timeout)
            end
            call("node", "nosuch", "target", "echo")
            call("down", "old_1", "target", "echo")
            call("refused", "nobody_1", "target", "echo")
            call("service", "battle_1", "nosuch", "echo")
            call("method", "battle_1", "target", "nosuch")
            call("failed", "battle_1", "target", "boom")
            call("timeout", "battle_1", "target", "hold", 40)
            local function count() local n = 0 for _ in pairs(got) do n = n + 1 end return n end
            assert(eventually(function() return count() == 7 end))
            return got"""), [{"node": [1, 1, "no"], "down": [1, 1, "no"], "refused": [2, 2, "no"],
                              "service": [5, 5, "no"], "method": [6, 6, "no"],
                              "failed": [7, 7, "yes"], "timeout": [4, 4, "maybe"]}])

    def test_callback_never_runs_before_remote_call_has_returned(self):
        for node in ("battle_1", "game_1", "nosuch", "old_1", "nobody_1"):
            self.assertEqual(self.game.lua("""
                local node = ...
                local session, early, done
                session = cluster.remoteCall(node, "target", "echo", 1, function(s)
                    early, done = session == nil, s
                end)
                assert(eventually(function() return done end))
                return early, done == session""", node), [False, True], node)

    def test_sessions_of_remote_calls_differ(self):
        self.assertEqual(self.game.lua("""
            local seen, done = {}, 0
            for i = 1, 1000 do
                local s = cluster.remoteCall("battle_1", "target", "echo", i,
                    function(session, code, r)
                        assert(code == 0 and seen[session] == r)
                        done = done + 1
                    end)
                assert(seen[s] == nil)
                seen[s] = i
            end
            assert(eventually(function() return done == 1000 end))
            return done"""), [1000])

    def test_callback_may_call_and_may_raise(self):
        self.assertEqual(self.game.lua("""
            local got
            cluster.remoteCall("battle_1", "target", "echo", 1, function()
                got = cluster.call("battle_1", "target", "echo", "inside")
            end)
            assert(eventually(function() return got end))
            cluster.remoteCall("battle_1", "target", "echo", 1, function()
                error("callback trouble") end)
            return got"""), ["inside"])
        self.game.wait_log("callback trouble")
        self.assertEqual(self.game.lua("return 1"), [1])

    def test_both_styles_side_by_side_in_one_service(self):
        self.assertEqual(self.game.lua("""
            local sum, done = 0, 0
            for i = 1, 100 do
                cluster.remoteCall("battle_1", "target", "echo", i, function(_, code, r)
                    sum = sum + r done = done + 1
                end)
                evpt.fork(function()
                    local r = cluster.call("battle_1", "target", "echo", i)
                    sum = sum + r done = done + 1
                end)
            end
            assert(eventually(function() return done == 200 end))
            return sum"""), [10100])

    # -- proxy --

    def test_proxy_calls_methods_by_name(self):
        self.assertEqual(self.game.lua("""
            local target = cluster.proxy("battle_1", "target")
            return target.echo(1, "two"), target.where()"""), [1, "battle_1", "target"])

    def test_proxy_raises_error_objects_and_has_a_timeout(self):
        self.assert_error(self.seen("cluster.proxy('battle_1', 'target').boom('x')"), wire.FAILED)
        self.assert_error(self.seen("cluster.proxy('battle_1', 'target').nosuch()"),
                          wire.UNKNOWN_METHOD)
        error = self.seen("cluster.proxy('battle_1', 'target', { timeout_ms = 30 }).hold()")
        self.assert_error(error, wire.TIMEOUT, ["maybe"])

    # -- own node --

    def test_own_node_is_a_target_like_any_other(self):
        self.assertEqual(self.game.lua("""
            local got
            cluster.remoteCall("game_1", "target", "echo", { 5 }, function(_, code, r)
                got = { code, r[1] } end)
            assert(eventually(function() return got end))
            assert(cluster.remoteSend("game_1", "target", "echo", 1) == true)
            assert(cluster.send("game_1", "target", "echo", 1) == true)
            local node = cluster.proxy("game_1", "target").where()
            return got[1], got[2], node, cluster.call("game_1", "target", "echo", 9)"""),
                         [0, 5, "game_1", 9])

    def test_own_node_gives_the_same_errors(self):
        self.assert_error(self.seen("cluster.call('game_1', 'nosuch', 'x')"), wire.UNKNOWN_SERVICE,
                          ["no"])
        self.assert_error(self.seen("cluster.call('game_1', 'target', 'nosuch')"),
                          wire.UNKNOWN_METHOD, ["no"])
        self.assert_error(self.seen("cluster.call('game_1', 'target', 'boom', 'x')"), wire.FAILED,
                          ["yes"])
        error = self.seen("cluster.proxy('game_1', 'target', { timeout_ms = 30 }).hold()")
        self.assert_error(error, wire.TIMEOUT, ["maybe"])

    # -- more than one hop --

    def test_callee_may_call_back_to_the_first_node(self):
        for node in (self.game, self.battle):
            self.service(node, """
                evpt.export { down = function(n)
                    if n == 0 then return evpt.node() end
                    local other = evpt.node() == "game_1" and "battle_1" or "game_1"
                    return cluster.call(other, "pingpong", "down", n - 1)
                end }
                evpt.register("pingpong")""")
        self.assertEqual(self.game.lua("return cluster.call('battle_1', 'pingpong', 'down', 21)"),
                         ["game_1"])

    def test_both_nodes_call_each_other_at_the_same_time(self):
        work = """
            local other, done = ..., 0
            for i = 1, 50 do
                evpt.fork(function()
                    for j = 1, 20 do
                        assert(cluster.call(other, "target", "echo", i * j) == i * j)
                    end
                    done = done + 1
                end)
            end
            assert(eventually(function() return done == 50 end))
            return done"""
        clients = [node.client() for node in (self.game, self.battle)]
        sessions = [clients[0].start("lab", "run", work, "battle_1"),
                    clients[1].start("lab", "run", work, "game_1")]
        for client, session in zip(clients, sessions):
            self.assertEqual(client.reply(session), (wire.OK, [50]))

    # -- errors --

    def test_error_object_tells_where_and_what(self):
        error = self.seen("cluster.call('battle_1', 'target', 'boom', 'no more cheese')")
        self.assert_error(error, wire.FAILED, ["yes"])
        self.assertEqual([error[key] for key in ("node", "service", "method")],
                         ["battle_1", "target", "boom"])
        self.assertIn("no more cheese", error["message"])
        for word in ("battle_1", "target", "boom", "no more cheese"):
            self.assertIn(word, error["text"])

    def test_error_position_of_the_remote_script_arrives(self):
        self.service(self.battle, "evpt.export { f = function()\n\nerror('here') end } "
                     "evpt.register('posn')")
        self.assertRegex(self.seen("cluster.call('battle_1', 'posn', 'f')")["message"], r":3: here")

    def test_error_of_a_nested_call_reaches_the_first_caller(self):
        self.service(self.battle, "evpt.export { via = function() return cluster.call('game_1', "
                     "'target', 'boom', 'deep down') end } evpt.register('via')")
        error = self.seen("cluster.call('battle_1', 'via', 'via')")
        self.assert_error(error, wire.FAILED)
        self.assertIn("deep down", error["message"])

    def test_inner_methods_are_not_reachable_from_the_other_node(self):
        self.assert_error(self.seen("cluster.call('battle_1', 'target', 'inner')"),
                          wire.UNKNOWN_METHOD, ["no"])
        for service in ("launcher", "clusterclient", "clusterserver", "console"):
            self.assert_error(self.seen("cluster.call('battle_1', ..., 'x')", service),
                              wire.UNKNOWN_SERVICE, ["no"])

    def test_send_where_the_loss_is_certain_returns_nil_and_an_error_object(self):
        for call in ("cluster.send('%s', 's', 'm')", "cluster.remoteSend('%s', 's', 'm', {})"):
            for node in ("nosuch", "old_1"):
                sent, error = self.game.lua("local ok, e = %s return ok, seen(e)" % (call % node))
                self.assertIsNone(sent)
                self.assert_error(error, wire.UNKNOWN_NODE, ["no"])

    # -- nodes --

    def test_nodes_tells_address_and_status_of_each(self):
        self.game.lua("cluster.call('battle_1', 'target', 'none')")
        nodes = self.game.lua("return cluster.nodes()")[0]
        self.assertEqual(sorted(nodes), ["battle_1", "game_1", "nobody_1", "old_1"])
        ip, port = self.battle.address
        self.assertEqual(nodes["battle_1"], {"ip": ip, "port": port, "status": "connected"})
        self.assertEqual(nodes["old_1"]["status"], "down")
        self.assertIn(nodes["nobody_1"]["status"], ("disconnect", "connecting"))

    def test_nodes_is_a_copy(self):
        self.assertEqual(self.game.lua("""
            local t = cluster.nodes()
            t.battle_1.port = 1
            t.battle_1 = nil
            return cluster.nodes().battle_1.port"""), [self.battle.address[1]])


class ManyNodesTest(NodeCase):
    def test_ten_nodes_call_each_other(self):
        names = ["n%d" % i for i in range(10)]
        for name in names:
            self.address(name)
        script = """evpt.export {
            who = evpt.node,
            all = function(names)
                local got = {}
                for i, name in ipairs(names) do got[i] = cluster.call(name, "s", "who") end
                return got
            end }"""
        nodes = [self.node(name, script, config={"workers": 1}) for name in names]
        for node in nodes:
            self.assertEqual(node.ask("s", "all", names), [names])

    def test_a_node_of_ipv6_is_reachable(self):
        try:
            with socket.socket(socket.AF_INET6) as sock:
                sock.bind(("::1", 0))
                port = sock.getsockname()[1]
        except OSError:
            self.skipTest("no IPv6 loopback here")
        text = "[::1]:%d" % port
        self.folder.addresses["six_1"] = text
        game = self.node("game_1", """evpt.export { go = function()
            return cluster.call("six_1", "s", "who"), cluster.nodes().six_1.ip end }""")
        six = self.node("six_1", "evpt.export { who = evpt.node }", start=False)
        six.address = ("::1", port)
        six.start()
        self.assertEqual(game.ask("s", "go"), ["six_1", "::1"])


class ChangeTest(NodeCase):
    GAME = """
    local changes = {}
    cluster.on_change(function(node, status) changes[#changes + 1] = node .. " " .. status end)
    evpt.export { changes = function() return changes end,
                  try = function() return (cluster.try("battle_1", "s", "ping")) end }
    """

    def test_on_change_tells_each_status_in_order(self):
        self.address("battle_1")
        game = self.node("game_1", self.GAME)
        battle = self.node("battle_1", "evpt.export { ping = function() end }")
        self.assertEqual(game.ask("s", "try"), [wire.OK])
        wait_until(lambda: len(game.ask("s", "changes")[0]) >= 2, "two changes")
        battle.kill()
        wait_until(lambda: len(game.ask("s", "changes")[0]) >= 3, "three changes")
        self.assertEqual(game.ask("s", "changes")[0][:3],
                         ["battle_1 connecting", "battle_1 connected", "battle_1 disconnect"])

    def test_on_change_tells_a_failed_connect(self):
        self.address("battle_1")
        game = self.node("game_1", self.GAME)
        self.assertEqual(game.ask("s", "try"), [wire.CONNECT_FAILED])
        wait_until(lambda: game.ask("s", "changes")[0][:2] ==
                   ["battle_1 connecting", "battle_1 disconnect"], "connecting, disconnect")
