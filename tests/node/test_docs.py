"""The documents say what is true: every example in them runs, and every function, key and option is
in them."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import documents
import evptnode
import wire
from evptnode import LabCase, NodeCase, environment, program, read_file

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))

def document(name):
    return read_file(os.path.join(TOP, name))


def run_document(text):
    with tempfile.TemporaryDirectory(prefix="evpt-docs-") as folder:
        runner = documents.Runner(folder)
        try:
            runner.run(text)
        finally:
            runner.close()


class ExampleTest(unittest.TestCase):
    def check(self, name):
        problem = None
        try:
            run_document(document(name))
        except documents.Wrong as error:
            problem = "%s: %s" % (name, error)
        self.assertIsNone(problem)

    def test_readme(self):
        self.check("README.md")

    def test_readme_in_chinese(self):
        self.check("README.zh-CN.md")

    def test_guide(self):
        self.check("docs/guide.md")

    def test_guide_in_chinese(self):
        self.check("docs/guide.zh-CN.md")

    def test_lua_api(self):
        self.check("docs/lua-api.md")

    def test_configuration(self):
        self.check("docs/configuration.md")

    def test_operations(self):
        self.check("docs/operations.md")

    def test_security(self):
        if not shutil.which("openssl") or not evptnode.has_tls():
            self.skipTest("needs TLS, and the program openssl")
        self.check("docs/security.md")

    def test_code_update(self):
        self.check("docs/code-update.md")

    def test_coming_from_skynet(self):
        self.check("docs/coming-from-skynet.md")


def declared(text, module):
    """{name: "a, b, ..."} of the functions in an annotation file."""
    return dict(re.findall(r"^function %s\.([\w.]+)\((.*)\) end$" % module, text, re.M))


class AnnotationTest(LabCase):
    """Annotations and reference against what a service really finds in the two modules."""

    FILES = {"evpt": "lua/annotations/evpt.lua", "cluster": "lua/annotations/evpt/cluster.lua"}

    def exported(self, module):
        """Names of the module's functions; `core` is evpt's own."""
        return set(self.game.lua("""
            local names = {}
            local function collect(t, prefix)
                for key, value in pairs(t) do
                    if type(value) == "function" then names[#names + 1] = prefix .. key
                    elseif key ~= "core" then collect(value, key .. ".") end
                end
            end
            collect((...) == "evpt" and evpt or cluster, "")
            return names""", module)[0])

    def test_every_function_has_an_annotation_and_the_other_way_round(self):
        for module, name in self.FILES.items():
            self.assertEqual(set(declared(document(name), module)), self.exported(module), name)

    def test_every_function_is_in_the_reference_with_the_same_arguments(self):
        text = document("docs/lua-api.md")
        for module, name in self.FILES.items():
            headings = dict(re.findall(r"^### `%s\.([\w.]+)\((.*?)\)" % module, text, re.M))
            self.assertEqual(headings, declared(document(name), module))

    def test_functions_that_wait_are_marked_in_both(self):
        for module, name in self.FILES.items():
            marked = set(re.findall(r"---@async\n(?:---.*\n)*function %s\.([\w.]+)" % module,
                                    document(name)))
            told = {function for function, text in re.findall(
                r"^### `%s\.([\w.]+)\([^\n]*\n\n(.*?)(?=^#|^```|\Z)" % module,
                document("docs/lua-api.md"), re.M | re.S) if re.search(r"\*\*[Ww]aits?\*\*", text)}
            told -= {"queue", "proxy"}      # what they return waits
            self.assertEqual(told, marked)

    def test_annotations_are_lua(self):
        for name in self.FILES.values():
            text = document(name)
            self.assertTrue(text.startswith("---@meta "))
            self.assertEqual(self.game.lua("return load(...) ~= nil", text), [True])

    def test_codes_are_the_same_in_annotations_and_reference(self):
        codes = re.findall(r"^---\| (\d+) # (\w+)$", document(self.FILES["evpt"]), re.M)
        rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", document("docs/lua-api.md"), re.M)
        self.assertEqual(codes, rows)
        self.assertEqual(codes, [(str(code), name) for code, name in enumerate(wire.CODES)])


class ConfigurationTest(unittest.TestCase):
    """The table of keys against the loader's own table, and what it says of wrong values."""

    def setUp(self):
        text = document("docs/configuration.md")
        self.rows = {key: (default, what) for key, default, what in re.findall(
            r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|", text, re.M)}
        loader = document("lua/config_load.c")
        self.table = loader[loader.index("rows[] = {"):loader.index("#define ROWS")]

    def test_every_key_is_there_and_no_other(self):
        keys = re.findall(r'\{"([\w.]+)", (\w+)', self.table)
        self.assertEqual(set(self.rows), {key for key, read in keys if read != "read_section"})

    def test_integer_defaults_are_those_of_the_loader(self):
        found = re.findall(r'\{"([\w.]+)", read_(?:integer|limit), .*?, \S+, [^,]+,\s+([\d <]+)\}',
                           self.table)
        self.assertGreater(len(found), 8)
        for key, default in found:
            if key != "workers":
                number, _, shift = default.partition(" << ")
                self.assertEqual(self.rows[key][0], "`%d`" % (int(number) << int(shift or 0)), key)

    def test_each_key_says_what_may_stand_there(self):
        wrong = {"clustername": "5", "path": "5", "cpath": "5", "services": "5", "log.file": "5",
                 "admin": "5", "tls.cert": "5", "tls.key": "5", "tls.ca": "5"}
        for key, (_, what) in self.rows.items():
            with self.subTest(key):
                done = subprocess.run(
                    [program("evpt"), "--check", "-s", "%s=%s" % (key, wrong.get(key, "x")),
                     "nobody"], cwd="/", capture_output=True, text=True, env=environment(),
                    check=False)
                self.assertIn("--set: %s: expected %s, got " % (key, what), done.stderr)

    def test_ranges_are_those_that_the_program_takes(self):
        with tempfile.TemporaryDirectory(prefix="evpt-docs-") as folder:
            evptnode.write_file(os.path.join(folder, "clustername.lua"), 'n = "127.0.0.1:1"')
            checked = 0
            for key, (_, what) in self.rows.items():
                limits = re.search(r"an integer from (\d+) to (\d+)", what)
                if not limits:
                    continue
                low, high = map(int, limits.groups())
                for value, status in ((low, 0), (high, 0), (low - 1, 1), (high + 1, 1)):
                    done = subprocess.run(
                        [program("evpt"), "--check", "-s", "%s=%d" % (key, value), "n"],
                        cwd=folder, capture_output=True, text=True, env=environment(), check=False)
                    self.assertEqual(done.returncode, status, (key, value, done.stderr))
                    checked += 1
            self.assertGreater(checked, 40)


class TranslationTest(unittest.TestCase):
    def test_translations_show_the_same_examples(self):
        for name, translation in (("README.md", "README.zh-CN.md"),
                                  ("docs/guide.md", "docs/guide.zh-CN.md")):
            shown, translated = (
                [(mark, text) for mark, text, _ in documents.blocks(document(each))]
                for each in (name, translation))
            self.assertEqual(translated, shown, translation)


class LinkTest(unittest.TestCase):
    def test_links_between_the_documents_lead_somewhere(self):
        names = [name for name in os.listdir(os.path.join(TOP, "docs")) if name.endswith(".md")]
        count = 0
        for name in ["README.md", "README.zh-CN.md"] + ["docs/" + name for name in names]:
            for path, anchor in re.findall(r"\]\(([\w./-]*\w)(?:#([\w-]+))?\)", document(name)):
                count += 1
                target = os.path.normpath(os.path.join(os.path.dirname(name), path))
                self.assertTrue(os.path.exists(os.path.join(TOP, target)), (name, path))
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", document(target), re.M)
                    self.assertIn(anchor, [h.lower().replace(" ", "-") for h in headings])
        self.assertGreater(count, 20)


def options_of(name):
    """Every option that the program's --help names."""
    text = subprocess.run([program(name), "--help"], capture_output=True, text=True,
                          env=environment(), check=True).stdout
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


def tools_environment():
    """The environment of somebody whose PATH has the programs in it."""
    path = os.path.dirname(program("evpt")) + ":" + os.environ["PATH"]
    return dict(environment(), PATH=path)


def complete(name, *words, cwd="/"):
    """What bash offers for the last word."""
    script = """source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$(($# - 2))
        %s; printf '%%s\\n' "${COMPREPLY[@]}" """ % ("_" + name.replace("-", "_"))
    done = subprocess.run(["bash", "-c", script, "bash", os.path.join(TOP, "completions", name),
                           name, *words], cwd=cwd, capture_output=True, text=True,
                          env=tools_environment(), check=True)
    if done.stderr:
        raise AssertionError(done.stderr)
    return set(done.stdout.split())


class ProgramDocumentTest(unittest.TestCase):
    """Man pages and completions name every option of the programs, and no other."""

    PROGRAMS = ("evpt", "evpt-ctl", "evpt-bench", "evpt-certs")

    def setUp(self):
        self.words = {name: options_of(name) for name in self.PROGRAMS}
        for name in self.PROGRAMS:
            self.assertGreater(len(self.words[name]), 5, name)

    def test_man_pages_name_every_option(self):
        for name, words in self.words.items():
            items = re.findall(r"^\.It (Fl .*)$", document("man/%s.1" % name), re.M)
            found = {"-" + word for item in items for word in re.findall(r"Fl (-?[\w-]+)", item)}
            self.assertEqual(found, words, name)

    def test_man_pages_are_without_warnings(self):
        for name in self.PROGRAMS:
            path = os.path.join(TOP, "man", name + ".1")
            try:
                done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", path],
                                      capture_output=True, text=True, env=environment(), check=True)
            except FileNotFoundError:
                self.skipTest("no man here")
            self.assertEqual(done.stderr, "")
            self.assertIn("EXIT STATUS", re.sub(".\b", "", done.stdout))       # no overstriking

    def test_completions_offer_every_option(self):
        for name, words in self.words.items():
            self.assertEqual(complete(name, "-") - {"--local=one"}, words, name)
            self.assertEqual(complete(name, "--he"), {"--help"})

    def test_completion_of_set_offers_every_key(self):
        table = document("docs/configuration.md")
        keys = {key + "=" for key in re.findall(r"^\| `([\w.]+)` \|", table, re.M)}
        self.assertEqual(complete("evpt", "-s", ""), keys)

    def test_completion_offers_the_nodes_of_the_list(self):
        with tempfile.TemporaryDirectory(prefix="evpt-docs-") as folder:
            evptnode.write_file(os.path.join(folder, "clustername.lua"),
                                '-- x = 1\ngame_1 = "127.0.0.1:1"\n  battle_1=false\n')
            self.assertEqual(complete("evpt", "", cwd=folder), {"game_1", "battle_1"})
            self.assertEqual(complete("evpt", "--check", "g", cwd=folder), {"game_1"})


class RunningCompletionTest(NodeCase):
    def test_completion_offers_running_nodes_and_their_verbs(self):
        node = self.node()
        self.assertEqual(complete("evpt-ctl", "-n", "", cwd=node.folder), {"game_1"})
        self.assertEqual(complete("evpt-ctl", "-C", node.folder, "-n", ""), {"game_1"})
        verbs = set(json.loads(node.ctl("help", "--json").stdout))
        self.assertEqual(complete("evpt-ctl", "", cwd=node.folder), verbs)
        self.assertEqual(complete("evpt-ctl", "-C", node.folder, "-n", "game_1", "ser"),
                         {"services"})
        self.assertIn("clustername.lua",
                      complete("evpt-ctl", "rewrite", "clu", cwd=node.folder))

    def test_verbs_offered_without_a_node_and_documented_are_those_of_a_node(self):
        verbs = set(json.loads(self.node().ctl("help", "--json").stdout))
        with tempfile.TemporaryDirectory(prefix="evpt-docs-") as folder:
            self.assertEqual(complete("evpt-ctl", "", cwd=folder), verbs)
        page = document("man/evpt-ctl.1")
        self.assertEqual(set(re.findall(r"^\.It Cm (\w+)", page, re.M)), verbs)


def man_examples(name):
    """The commands of a man page's EXAMPLES."""
    text = document("man/%s.1" % name).split(".Sh EXAMPLES\n")[1].split("\n.Sh ")[0]
    return [line for block in re.findall(r"^\.Bd.*?\n(.*?)^\.Ed", text, re.M | re.S)
            for line in block.splitlines()]


class ManExampleTest(NodeCase):
    """The commands in the man pages, typed in the folder of a node that runs."""

    def type(self, node, command):
        done = subprocess.run(["bash", "-c", command], cwd=node.folder, env=tools_environment(),
                              text=True, capture_output=True, timeout=evptnode.PATIENCE * 2,
                              check=False)
        self.assertEqual(done.returncode, 0, command + "\n" + done.stdout + done.stderr)

    def test_examples_of_evpt(self):
        node = self.node("battle_1", start=False)
        check, run = man_examples("evpt")
        self.type(node, check)
        node.expected_files.add("battle_1.log")
        self.assertRegex(run, r"^nohup evpt .* battle_1 &$")
        node.start(*run[len("nohup evpt "):-len(" battle_1 &")].split())
        evptnode.wait_until(lambda: "started in" in read_file(node.path("battle_1.log")), "a log")

    def test_examples_of_evpt_ctl(self):
        node = self.node()
        evptnode.write_file(node.path("new-clustername.lua"),
                            read_file(node.path("clustername.lua")))
        node.expected_files.add("new-clustername.lua")
        for command in man_examples("evpt-ctl"):
            self.type(node, command.replace("/srv/game", node.folder))

    def test_examples_of_evpt_bench(self):
        node = self.node(scripts={"echo": "evpt.export { echo = function(...) return ... end }"})
        for command in man_examples("evpt-bench"):
            address = evptnode.address_text(node.address)
            self.type(node, command.replace("127.0.0.1:8002", address))


class InstallTest(unittest.TestCase):
    """`meson install` into a folder; what is there works."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="evpt-install-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        done = subprocess.run(["meson", "install", "-C", evptnode.settings.build, "--no-rebuild",
                               "--destdir", self.folder], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.files = {}
        for where, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(where, name)
                self.files[os.path.relpath(path, self.folder)] = path

    def find(self, ending):
        found = [path for name, path in self.files.items() if ("/" + name).endswith("/" + ending)]
        self.assertEqual(len(found), 1, (ending, found))
        return found[0]

    def test_everything_is_in_its_place(self):
        for name in ("evpt", "evpt-ctl", "evpt-bench", "evpt-certs"):
            self.assertTrue(os.access(self.find("bin/" + name), os.X_OK))
            self.find("share/man/man1/%s.1" % name)
            self.find("share/bash-completion/completions/" + name)
        self.find("lib/systemd/system/evpt@.service")
        self.find("share/evpt/annotations/evpt.lua")
        self.find("share/evpt/annotations/evpt/cluster.lua")
        for name in os.listdir(os.path.join(TOP, "docs")):
            if name.endswith(".md"):
                self.find("share/doc/evpt/docs/" + name)

    def test_installed_programs_run_the_first_cluster_of_the_readme(self):
        bin_folder = os.path.dirname(self.find("bin/evpt"))
        with tempfile.TemporaryDirectory(prefix="evpt-docs-") as folder:
            runner = documents.Runner(folder, bin_folder)
            try:
                runner.run(document("README.md"))
            finally:
                runner.close()


class DocumentCheckerTest(unittest.TestCase):
    """documents.py itself: it passes what is right, and only that."""

    START = """
<!-- file: clustername.lua -->
```lua
game_1 = "127.0.0.1:8001"
battle_1 = "127.0.0.1:8002"
```
<!-- file: evpt.lua -->
```lua
services = { "hello" }
```
<!-- file: services/hello.lua -->
```lua
print("hello", ...)
```
"""

    LOG = ("2026-11-22T20:25:03.114Z info game_1 hello hello\n"
           "2026-11-22T20:25:03.114Z info game_1 clusterserver listening on 127.0.0.1:8001\n"
           "2026-11-22T20:25:03.114Z info game_1 main started in 4 ms\n")

    def block(self, mark, text):
        return "%s\n<!-- %s -->\n```\n%s```\n" % (self.START, mark, text)

    def wrong(self, text, message):
        with self.assertRaises(documents.Wrong) as caught:
            run_document(text)
        self.assertIn(message, str(caught.exception))

    def test_right_output_passes(self):
        run_document(self.block("run", "$ echo one; echo two\none\ntwo\n"
                                       "$ cd / && pwd\n/\n$ pwd\n/\n"))
        run_document(self.block("run", "$ evpt game_1 &\n" + self.LOG))
        run_document(self.block("lua", "print(1, 'x')  --> 1 x\nprint('abc') --> a...c\n"))

    def test_wrong_output_is_found(self):
        self.wrong(self.block("run", "$ echo one\ntwo\n"), "echo one")
        self.wrong(self.block("run", "$ echo one\n"), "one")
        self.wrong(self.block("run", "$ echo one\none\ntwo\n"), "two")
        self.wrong(self.block("run", "$ evpt game_1 &\n" + self.LOG.replace("hello\n", "hallo\n")),
                   "hallo")
        self.wrong(self.block("lua", "print(1)  --> 2\n"), "2")
        self.wrong(self.block("lua", "print('abc') --> a...d\n"), "a...d")

    def test_numbers_vary_only_where_it_is_said(self):
        run_document(self.block("run, numbers vary", "$ echo 17 ms 4\n18 ms 5\n"))
        self.wrong(self.block("run", "$ echo 17 x\n18 x\n"), "18")

    def test_a_command_that_fails_is_found(self):
        self.wrong(self.block("run", "$ false\n"), "exit status 1")
        self.wrong(self.block("run", "$ false\n$ echo on\non\n"), "exit status 1")
        run_document(self.block("run", "$ false\n$ echo $?\n1\n"))

    def test_a_node_that_does_not_start_is_found(self):
        self.wrong(self.block("run", "$ evpt moon_1 &\n" + self.LOG), "moon_1")

    def test_a_block_without_a_mark_is_found(self):
        self.wrong("```lua\nprint(1)\n```\n", "fences")
        self.wrong(self.block("whatever", "x\n"), "no such kind")
        self.wrong(self.block("not run", "x\n"), "no such kind")

    def test_an_example_that_raises_or_compares_nothing_is_found(self):
        self.wrong(self.block("lua", "error('no luck')  --> x\n"), "no luck")
        self.wrong(self.block("lua", "print(1)\n"), "nothing that could be compared")
