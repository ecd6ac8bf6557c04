"""The documents say what is true: every example in them runs, and every function, key and option is in them."""

import os
import re
import subprocess
import tempfile
import unittest

import documents
import evptnode
import wire
from evptnode import LabCase, environment, program, read_file

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
    """The table of keys against the loader's own table, and against what it says of wrong values."""

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
        found = re.findall(r'\{"([\w.]+)", read_(?:integer|limit), .*?, (?:\S+), (?:[^,]+),\s+([\d <]+)\}',
                           self.table)
        self.assertGreater(len(found), 8)
        for key, default in found:
            if key != "workers":
                number, _, shift = default.partition(" << ")
                self.assertEqual(self.rows[key][0], "`%d`" % (int(number) << int(shift or 0)), key)

    def test_each_key_says_what_may_stand_there(self):
        wrong = {"clustername": "5", "path": "5", "cpath": "5", "services": "5", "log.file": "5",
                 "admin": "5"}
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
