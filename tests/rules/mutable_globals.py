#!/usr/bin/env python3
"""Fails on a mutable global or static variable in the libraries of the floors below tools/.

A loop, a runtime, a clock and a log are handed in, so that many nodes fit into one process. Thread-local buffers and
constants, also those that need relocation (arrays of names), are no state that nodes could share.

    mutable_globals.py BUILD_ROOT           checks lib*.a of each floor
    mutable_globals.py --self-test CC...    checks the checker, with this C compiler
"""

import glob
import os
import subprocess
import sys
import tempfile

import source


def variables(library):
    """(name, type, section) of each symbol; `nm -f sysv` is the form that tells thread-local ones apart."""
    listing = subprocess.run(["nm", "-f", "sysv", library], check=True, capture_output=True,
                             text=True).stdout
    for line in listing.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 7:
            yield columns[0], columns[3], columns[6]


def is_mutable(kind, section):
    if kind == "TLS" or section.startswith(".data.rel.ro"):
        return False
    return section == "*COM*" or section.split(".")[1:2] in (["data"], ["bss"])


def problems(libraries):
    for library in libraries:
        for name, kind, section in variables(library):
            if is_mutable(kind, section):
                yield "%s: %s is mutable (%s)" % (library, name, section)


def floor_libraries(build_root):
    for floor in source.FLOORS[:-1]:  # all but tools/
        libraries = sorted(glob.glob(os.path.join(build_root, floor, "lib*.a")))
        if not libraries:
            sys.exit("no library in %s/%s: build first" % (build_root, floor))
        yield from libraries


def self_test(cc):
    clean = """
        #define CONSTANT(n) static const int n = 1; static const char *const n##_names[] = {"a"};
        CONSTANT(c)
        static const struct { const char *text; } rows[] = {{"a"}};
        static _Thread_local char buffer[8];
        int function(int i);
        int function(int i) { static const char *const t[] = {"x", "y"};
            buffer[i] = 1; return buffer[0] + c + c_names[i][0] + rows[i].text[0] + t[i][0]; }
    """
    planted = {
        "set_static": "static int set_static = 1; int *f1(void); int *f1(void) { return &set_static; }",
        "zero_static": "static int zero_static; int *f2(void); int *f2(void) { return &zero_static; }",
        "visible": "int visible;",
        "inside": "int f3(void); int f3(void) { static int inside; return inside++; }",
        "names": 'const char *names[] = {"a"};',
    }
    with tempfile.TemporaryDirectory() as folder:
        for flags in ([], ["-O2", "-fPIC", "-fcommon", "-fdata-sections"]):
            def check(text):
                path = os.path.join(folder, "a")
                with open(path + ".c", "w", encoding="utf-8") as out:
                    out.write(text)
                subprocess.run(cc + flags + ["-c", path + ".c", "-o", path + ".o"], check=True)
                return list(problems([path + ".o"]))

            assert not check(clean), check(clean)
            for name, text in planted.items():
                found = check(clean + text)
                assert len(found) == 1 and name in found[0], (flags, found)
    assert source.report(["planted, and reported"]) == 1 and source.report([]) == 0


if __name__ == "__main__":
    if sys.argv[1] == "--self-test":
        self_test(sys.argv[2:])
    else:
        sys.exit(source.report(problems(floor_libraries(sys.argv[1]))))
