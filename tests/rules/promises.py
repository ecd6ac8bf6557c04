#!/usr/bin/env python3
"""Every promise of SECURITY.md names a test that exists.

    promises.py ROOT        reads ROOT/SECURITY.md
    promises.py --self-test
"""
import pathlib
import re
import sys
import tempfile

HEAD = "| promise | test |"
PROMISES_MIN = 25  # about as many as there are: fewer means that a part was lost


def tests_of(root):
    names = set()
    for path in root.glob("tests/**/*"):
        if path.suffix == ".c":
            names |= set(re.findall(r"START_TEST\((test_\w+)\)", path.read_text()))
        elif path.suffix == ".py":
            names |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    return names


def rows(text):
    """(promise, [test, ...]) of every table under HEAD."""
    for table in text.split(HEAD + "\n")[1:]:
        for line in table.splitlines()[1:]:
            if not line.startswith("|"):
                break
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield cells[0], re.findall(r"`(\w+)`", cells[-1]) if len(cells) == 2 else []


def problems(root, promises_min):
    known, count = tests_of(root), 0
    for promise, tests in rows((root / "SECURITY.md").read_text()):
        count += 1
        if not tests:
            yield "%s: no test" % promise
        for test in tests:
            if test not in known:
                yield "%s: no test %s" % (promise, test)
    if count < promises_min:
        yield "only %d promises, expected at least %d" % (count, promises_min)


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "tests").mkdir()
        (root / "tests/t.c").write_text("START_TEST(test_thing)")
        good = "| it holds | `test_thing` |\n"
        for lines, expected in [(good, 0), ("| it holds | `test_gone` |\n", 1), ("| it holds | |\n", 1),
                                (good + "| also | `test_thing`, `test_gone` |\n", 1), ("", 1),
                                ("| it | holds | `test_thing` |\n", 1)]:
            (root / "SECURITY.md").write_text("# S\n\n%s\n|---|---|\n%s\nwords\n" % (HEAD, lines))
            got = list(problems(root, 1))
            if len(got) != expected:
                sys.exit("expected %d problems in %r, got %r" % (expected, lines, got))


if sys.argv[1] == "--self-test":
    self_test()
else:
    bad = list(problems(pathlib.Path(sys.argv[1]), PROMISES_MIN))
    if bad:
        sys.exit("\n".join(bad))
