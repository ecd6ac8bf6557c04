"""Reload and rewrite of the node list while nodes run (SPEC section 3)."""

import json
import os
import signal

import wire
from evptnode import NodeCase, address_text, fresh_address, lua_globals, read_file, wait_until, \
    write_file

GAME = """
local changes, outcomes = {}, {}
cluster.on_change(function(node, status) changes[#changes + 1] = node .. " " .. status end)
evpt.export {
    try = function(node, method, ...) return (cluster.try(node, "s", method, ...)) end,
    hold = function(node, count)        -- calls that only a loss can end
        for i = 1, count do
            evpt.fork(function()
                local code, e = cluster.try(node, "s", "hold")
                outcomes[#outcomes + 1] = { code, type(e) == "table" and e.executed or "?" }
            end)
        end
    end,
    outcomes = function() return outcomes end,
    changes = function() return table.concat(changes, ", ") end,
    nodes = function() return cluster.nodes() end,
    reload = function() return pcall(cluster.reload) end,
    rewrite = function(text) return pcall(cluster.rewrite, text) end,
}
"""
BATTLE = """evpt.export {
    ping = function() return evpt.node() end,
    hold = function() evpt.wait() end,
}"""
LONG = {"cluster": {"call_timeout_ms": 600000}, "stop_timeout_ms": 300}


class NodeListCase(NodeCase):
    def pair(self):
        self.address("battle_1")
        self.game = self.node("game_1", GAME, config=LONG)
        self.battle = self.node("battle_1", BATTLE, config=LONG)
        self.battle.drains = False      # what it holds, it holds for ever

    def write(self, **changes):
        """The node list of game_1 with these changes; None: the line goes."""
        addresses = dict(self.game.addresses, **changes)
        self.game.write_list({name: address for name, address in addresses.items()
                              if address is not None})

    def reload(self):
        done = self.game.ctl("reload")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def try_(self, node="battle_1", method="ping"):
        return self.game.ask("s", "try", node, method)[0]

    def outcomes(self, count):
        return wait_until(lambda: len(self.game.ask("s", "outcomes")[0]) >= count and
                          self.game.ask("s", "outcomes")[0], "%d outcomes" % count)

    def wait_in_flight(self, count):
        wait_until(lambda: self.game.nodes()["battle_1"]["session2context"] == count,
                   "%d calls in flight" % count)

    def changed(self, call, *args):
        """What reload or rewrite returned in Lua: {added, removed, changed}, each sorted; None:
        refused."""
        results = self.game.ask("s", call, *args)
        if results[0] is not True or len(results) < 2 or results[1] is None:
            self.assertTrue(str(results[1:]))
            return None
        return {key: sorted(results[1][key]) for key in ("added", "removed", "changed")}


class ReloadTest(NodeListCase):
    def test_reload_makes_an_added_node_reachable(self):
        self.pair()
        address = fresh_address()
        self.folder.addresses["battle_2"] = address
        self.assertEqual(self.try_("battle_2"), wire.UNKNOWN_NODE)
        self.node("battle_2", BATTLE)
        self.write(battle_2=address)
        self.assertIn("battle_2", self.reload())
        self.assertEqual(self.try_("battle_2"), wire.OK)

    def test_reload_from_lua_returns_the_difference(self):
        self.pair()
        self.write(battle_1=None, new_1=fresh_address(), new_2=False)
        self.assertEqual(self.changed("reload"),
                         {"added": ["new_1", "new_2"], "removed": ["battle_1"], "changed": []})
        self.write(battle_1=None, new_1=fresh_address(), new_2=fresh_address())
        self.assertEqual(self.changed("reload"),
                         {"added": [], "removed": [], "changed": ["new_1", "new_2"]})

    def test_reload_without_a_difference_keeps_calls_in_flight(self):
        self.pair()
        self.game.ask("s", "hold", "battle_1", 1)
        self.wait_in_flight(1)
        self.assertEqual(self.changed("reload"), {"added": [], "removed": [], "changed": []})
        self.write(new_1=fresh_address())
        self.reload()
        self.assertEqual(self.game.nodes()["battle_1"]["session2context"], 1)
        self.assertFalse(self.game.ask("s", "outcomes")[0])

    def test_removed_node_answers_its_pending_requests_at_once(self):
        self.pair()
        self.assertEqual(self.try_(), wire.OK)
        self.game.ask("s", "hold", "battle_1", 100)
        self.wait_in_flight(100)
        self.write(battle_1=None)
        self.reload()
        outcomes = self.outcomes(100)
        self.assertEqual(len(outcomes), 100)
        for code, executed in outcomes:
            self.assertIn(code, (wire.UNKNOWN_NODE, wire.DISCONNECTED))
            self.assertEqual(executed, "maybe")
        self.assertEqual(self.try_(), wire.UNKNOWN_NODE)
        self.assertNotIn("battle_1", self.game.nodes())

    def test_removed_node_answers_requests_that_wait_for_a_connection(self):
        self.stuck("battle_1")
        self.game = self.node("game_1", GAME, config=LONG)
        self.game.ask("s", "hold", "battle_1", 20)
        wait_until(lambda: self.game.nodes()["battle_1"]["requestCache"] == 20, "waiting requests")
        self.write(battle_1=None)
        self.reload()
        for code, executed in self.outcomes(20):
            self.assertIn(code, (wire.UNKNOWN_NODE, wire.DISCONNECTED, wire.CONNECT_FAILED))
            self.assertEqual(executed, "no")

    def test_removed_node_is_told_to_on_change(self):
        self.pair()
        self.assertEqual(self.try_(), wire.OK)
        self.write(battle_1=None)
        self.reload()
        wait_until(lambda: "battle_1 connected" in self.game.ask("s", "changes")[0] and
                   not self.game.ask("s", "changes")[0].endswith("battle_1 connected"),
                   "on_change after the removal")

    def test_changed_address_moves_the_node(self):
        self.pair()
        self.assertEqual(self.try_(), wire.OK)
        self.game.ask("s", "hold", "battle_1", 5)
        self.wait_in_flight(5)
        server = wire.FakeServer(fresh_address())
        self.addCleanup(server.close)
        self.write(battle_1=server.address)
        self.reload()
        self.assertEqual(len(self.outcomes(5)), 5)
        client = self.game.client()
        session = client.start("s", "try", "battle_1", "moved")
        peer = server.accept()
        self.addCleanup(peer.close)
        key, request = peer.request()
        self.assertEqual(request[2], "moved")
        peer.answer(key)
        self.assertEqual(client.reply(session), (wire.OK, [wire.OK]))

    def test_node_set_to_false_is_down(self):
        self.pair()
        self.assertEqual(self.try_(), wire.OK)
        self.write(battle_1=False)
        self.reload()
        self.assertEqual(self.try_(), wire.UNKNOWN_NODE)
        self.assertEqual(self.game.nodes()["battle_1"]["status"], "down")
        self.assertEqual(self.game.ask("s", "nodes")[0]["battle_1"]["status"], "down")

    def test_node_that_reappears_works_again(self):
        self.pair()
        for away in (None, False):
            self.assertEqual(self.try_(), wire.OK)
            self.write(battle_1=away)
            self.reload()
            self.assertEqual(self.try_(), wire.UNKNOWN_NODE)
            self.write()
            self.reload()
        self.assertEqual(self.try_(), wire.OK)

    def test_reload_closes_the_connection_of_a_removed_node_only(self):
        fakes = {name: self.fake(name) for name in ("one_1", "two_1")}
        self.game = self.node("game_1", GAME, config=LONG)
        peers = {}
        for name, server in fakes.items():
            self.game.ask("s", "hold", name, 1)
            peers[name] = server.accept()
            self.addCleanup(peers[name].close)
            peers[name].request()
        self.write(one_1=None)
        self.reload()
        self.closes_connection(peers["one_1"])
        peers["two_1"].send_frame(wire.PING, 0, b"alive")
        self.assertEqual(peers["two_1"].control(wire.PONG), b"alive")

    def assert_refused(self, text, *words):
        """The file now holds `text`: reload says why not, in one line, and nothing has changed."""
        before = self.game.nodes()
        write_file(self.game.path("clustername.lua"), text)
        done = self.game.ctl("reload")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual((done.stdout, len(done.stderr.splitlines())), ("", 1), done.stderr)
        for word in ("clustername.lua",) + words:
            self.assertIn(word, done.stderr)
        self.assertIsNone(self.changed("reload"))
        self.assertEqual(sorted(self.game.nodes()), sorted(before))
        self.assertEqual(self.try_(), wire.OK)

    def test_reload_refuses_a_list_with_any_error_and_keeps_the_old_one(self):
        self.pair()
        good = read_file(self.game.path("clustername.lua"))
        for text, word in (("game_1 = = 1", "clustername"), (good + "x_1 = 17\n", "x_1"),
                           (good + "os.exit()\n", "os"),
                           (good + "while true do end\n", "clustername"),
                           (good + "battle_1 = 'y'\n", "battle_1"), ("", "game_1")):
            with self.subTest(text):
                self.assert_refused(text, word)

    def test_reload_refuses_a_list_without_the_own_line_or_with_another_address(self):
        self.pair()
        battle = lua_globals({"battle_1": address_text(self.battle.address)})
        for own in ("", "game_1 = false\n", lua_globals({"game_1": address_text(fresh_address())})):
            with self.subTest(own):
                self.assert_refused(battle + own, "game_1")

    def test_reload_refuses_a_missing_file(self):
        self.pair()
        os.rename(self.game.path("clustername.lua"), self.game.path("services/away"))
        self.assertNotEqual(self.game.ctl("reload").returncode, 0)
        self.assertEqual(self.try_(), wire.OK)

    def test_reload_in_json(self):
        self.pair()
        self.write(new_1=fresh_address())
        done = self.game.ctl("reload", "--json")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(json.loads(done.stdout)["added"], ["new_1"])

    def test_reloads_from_all_sides_at_once_do_no_harm(self):
        self.pair()
        client = self.game.client()
        for round_number in range(30):
            self.write(**{"n%d" % i: ("127.0.0.1", 1 + i) for i in range(round_number % 3)})
            self.game.signal(signal.SIGHUP)
            client.start("s", "reload")
            if round_number % 10 == 0:
                self.assertEqual(self.game.ctl("reload").returncode, 0)
        self.assertEqual(self.try_(), wire.OK)


class RewriteTest(NodeListCase):
    def setUp(self):
        super().setUp()
        self.pair()
        self.file = self.game.path("clustername.lua")
        self.game.expected_files.add("new.lua")

    def rewrite(self, text):
        write_file(self.game.path("new.lua"), text)
        return self.game.ctl("rewrite", self.game.path("new.lua"))

    def text(self, **changes):
        values = dict(self.game.addresses, **changes)
        return "-- " + "x" * 100 + "\n" + lua_globals(
            {name: address_text(value) for name, value in values.items() if value is not None})

    def test_rewrite_replaces_the_file_and_reloads(self):
        text = self.text(new_1=fresh_address())
        done = self.rewrite(text)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("new_1", done.stdout)
        self.assertEqual(read_file(self.file), text)
        self.assertIn("new_1", self.game.nodes())
        self.assertEqual(self.try_(), wire.OK)

    def test_rewrite_replaces_the_file_in_one_step(self):
        before = os.stat(self.file)
        self.assertEqual(self.rewrite(self.text(new_1=False)).returncode, 0)
        self.assertNotEqual(os.stat(self.file).st_ino, before.st_ino)       # a rename, not a write

    def test_rewrite_from_standard_input(self):
        text = self.text(new_1=False)
        done = self.game.ctl("rewrite", "-", stdin=text)
        self.assertEqual((done.returncode, read_file(self.file)), (0, text))

    def test_rewrite_from_lua_returns_the_difference(self):
        text = self.text(battle_1=None, new_1=False)
        self.assertEqual(self.changed("rewrite", text),
                         {"added": ["new_1"], "removed": ["battle_1"], "changed": []})
        self.assertEqual(read_file(self.file), text)

    def test_rewrite_with_a_bad_text_changes_nothing_on_disk(self):
        before, stat = read_file(self.file), os.stat(self.file)
        for text, word in (("game_1 = = 1", "clustername"), (self.text() + "x_1 = 17\n", "x_1"),
                           ("", "game_1"), (self.text(game_1=None), "game_1"),
                           (self.text(game_1=fresh_address()), "game_1"),
                           (self.text(game_1=False), "game_1"), ("\x1bLua", "clustername"),
                           (self.text() + "while true do end", "clustername")):
            with self.subTest(text):
                done = self.rewrite(text)
                self.assertNotEqual(done.returncode, 0)
                self.assertEqual((done.stdout, len(done.stderr.splitlines())), ("", 1), done.stderr)
                self.assertIn(word, done.stderr)
                self.assertIsNone(self.changed("rewrite", text))
                self.assertEqual(read_file(self.file), before)
                self.assertEqual(os.stat(self.file).st_ino, stat.st_ino)
                self.assertEqual(self.try_(), wire.OK)

    def test_rewrite_of_a_large_list_arrives_whole(self):
        text = self.text() + "".join('n%d = "10.1.%d.%d:80"\n' % (i, i // 250, i % 250 + 1)
                                     for i in range(3000))
        done = self.rewrite(text)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(read_file(self.file), text)
        self.assertEqual(len(self.game.nodes()), 3002)

    def test_rewrite_survives_a_restart(self):
        text = self.text(new_1=False)
        self.assertEqual(self.rewrite(text).returncode, 0)
        self.game.stop()
        self.game.start()
        self.assertIn("new_1", self.game.nodes())
