#!/usr/bin/env python3
"""Every row of ARCHITECTURE.md's seed table names code and a test that exist.

    seed_table.py ROOT        reads ROOT/ARCHITECTURE.md
    seed_table.py --self-test
"""
import pathlib
import re
import sys
import tempfile

ROW = re.compile(r"^\| (.+?) \| `([^`]+)`: `([^`]+)` \| `([^`]+)` \|$")
ROWS_MIN = 80  # the seed has about that many classes, fields and functions: fewer means that a part was lost


def tests_of(root):
    names = set()
    for path in root.glob("tests/**/*"):
        if path.suffix == ".c":
            names |= set(re.findall(r"START_TEST\((test_\w+)\)", path.read_text()))
        elif path.suffix == ".py":
            names |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    return names


def problems(root, rows_min):
    tests, count, found = tests_of(root), 0, []
    text = (root / "ARCHITECTURE.md").read_text()
    table = text[text.find("| seed |"):].splitlines()[2:]
    for line in table:
        row = ROW.match(line)
        if not row:
            found.append("not a row of the table: " + line)
            continue
        count += 1
        seed, file, symbol, test = row.groups()
        path = root / file
        if not path.is_file():
            found.append("%s: no file %s" % (seed, file))
        elif symbol not in path.read_text():
            found.append("%s: nothing called %r in %s" % (seed, symbol, file))
        if test not in tests:
            found.append("%s: no test %s" % (seed, test))
    if count < rows_min:
        found.append("only %d rows, expected at least %d" % (count, rows_min))
    return found


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "tests").mkdir()
        (root / "a.c").write_text("int thing;")
        (root / "tests/t.c").write_text("START_TEST(test_thing)")
        head = "| seed | file: what to look for | test |\n|---|---|---|\n"
        good = "| Thing | `a.c`: `thing` | `test_thing` |\n"
        for rows, expected in [(good, 0), ("| Thing | `b.c`: `thing` | `test_thing` |\n", 1),
                               ("| Thing | `a.c`: `gone` | `test_thing` |\n", 1),
                               ("| Thing | `a.c`: `thing` | `test_gone` |\n", 1),
                               (good + "| broken\n", 1), ("", 1)]:
            (root / "ARCHITECTURE.md").write_text(head + rows)
            got = problems(root, 1)
            if len(got) != expected:
                sys.exit("expected %d problems in %r, got %r" % (expected, rows, got))


if sys.argv[1] == "--self-test":
    self_test()
else:
    bad = problems(pathlib.Path(sys.argv[1]), ROWS_MIN)
    if bad:
        sys.exit("\n".join(bad))
