"""The documents say what is true: every example in them runs, and every function, key and option is in them."""

import os
import re
import subprocess
import tempfile
import unittest

import documents
import evptnode
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
        try:
            run_document(document(name))
        except documents.Wrong as error:
            self.fail("%s: %s" % (name, error))

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
