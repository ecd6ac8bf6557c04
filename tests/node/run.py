#!/usr/bin/env python3
"""Runs the black-box suite: real nodes, real sockets, and nothing known of the inside.

    tests/node/run.py [--build DIR] [--long] [--list] [-k PATTERN]...

A line per test, and a count at the end. Exit status 1 where any failed.
"""

import argparse
import os
import sys
import time
import unittest

import evptnode

HERE = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TestResult):
    """Prints each test as it ends; what its nodes logged only where it failed."""

    def __init__(self):
        super().__init__()
        self.passed = self.failed = self.skipped_count = 0
        self.problems, self.started = [], 0.0

    def startTest(self, test):
        super().startTest(test)
        self.problems, self.started, self.reason = [], time.monotonic(), None

    def addFailure(self, test, err):
        self.problems.append(self._exc_info_to_string(err, test))
        if not isinstance(test, unittest.TestCase):     # setUpClass or tearDownClass
            self.failed += 1
            print("FAILED  %s\n%s" % (test, self.problems[-1]), flush=True)

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.addFailure(test, err)
            self.problems[-1] = "with %s\n%s" % (subtest._subDescription(), self.problems[-1])

    def addSkip(self, test, reason):
        self.reason = reason

    def stopTest(self, test):
        seconds = time.monotonic() - self.started
        name = "%s.%s" % (type(test).__module__, test.id().split(".")[-1])
        if self.problems:
            self.failed += 1
            print("FAILED  %s (%.2f s)" % (name, seconds))
            print("\n".join(self.problems) + getattr(test, "diagnosis", ""), flush=True)
        elif self.reason:
            self.skipped_count += 1
            print("skipped %s: %s" % (name, self.reason), flush=True)
        else:
            self.passed += 1
            print("ok      %s (%.2f s)" % (name, seconds), flush=True)


def tests_of(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def main():
    parser = argparse.ArgumentParser(description="Black-box tests of evpt.")
    parser.add_argument("--build", default=evptnode.settings.build, help="the build folder")
    parser.add_argument("--long", action="store_true", help="with the test that takes 30 s")
    parser.add_argument("--list", action="store_true", help="print the names only")
    parser.add_argument("-k", action="append", metavar="PATTERN", help="only names that hold it")
    options = parser.parse_args()
    evptnode.settings.build = options.build
    evptnode.settings.long = options.long

    sys.path.insert(0, HERE)
    loader = unittest.TestLoader()
    if options.k:
        loader.testNamePatterns = [p if "*" in p else "*%s*" % p for p in options.k]
    suite = loader.discover(HERE, "test_*.py", HERE)
    if options.list:
        for test in tests_of(suite):
            print(test.id())
        return 0
    for name in ("evpt", "evpt-ctl"):
        evptnode.program(name)
    result = Result()
    suite.run(result)
    skipped = ", %d skipped" % result.skipped_count if result.skipped_count else ""
    print("node: %d passed, %d failed%s" % (result.passed, result.failed, skipped))
    if result.passed + result.failed == 0:
        print("node: no test has such a name", file=sys.stderr)
    return 0 if result.passed and not result.failed else 1


if __name__ == "__main__":
    sys.exit(main())
