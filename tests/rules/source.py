"""C source as the rules see it: files of the floors, text without comments."""

import os
import re
import sys

# From the ground up: a floor uses only the floors below it.
FLOORS = ("reactor", "cluster", "services", "lua", "tools")

TOKEN = re.compile(
    r"""(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""",
    re.VERBOSE | re.DOTALL)


def files(root, floors=FLOORS):
    """The C files of the floors, as paths relative to the root, in a stable order."""
    for floor in floors:
        for folder, _, names in sorted(os.walk(os.path.join(root, floor))):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def without_comments(text, keep_strings=True):
    """The text with comments (and what is in quotes) blanked out; lines keep their numbers."""

    def blank(match):
        if keep_strings and match.lastgroup == "string":
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return TOKEN.sub(blank, text)


def floor_of(path):
    """Index of the floor that a path begins with, or None."""
    first = path.split("/")[0]
    return FLOORS.index(first) if "/" in path and first in FLOORS else None


def report(problems):
    """Prints them; the exit status."""
    status = 0
    for problem in problems:
        print(problem, file=sys.stderr)
        status = 1
    return status
