"""What the benches in this folder share: building, where they ran, medians, tables."""

import glob
import os
import platform
import statistics
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def fail(text):
    sys.exit("%s: %s" % (os.path.basename(sys.argv[0]), text))


def build(name, *options):
    """Builds the tree into build/NAME, as tools/setup.sh does; the folder."""
    folder = os.path.join(ROOT, "build", name)
    steps = [["ninja", "--quiet", "-C", folder]]
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        steps.insert(0, ["meson", "setup", folder, ROOT, "--buildtype=release", "-Dtests=false", *options])
    for step in steps:
        try:
            done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        except FileNotFoundError:
            fail("%s is missing: apt-get install meson ninja-build" % step[0])
        if done.returncode:
            fail("could not build\n" + done.stdout[-4000:])
    return folder


def _first_line(path, key=""):
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[-1].strip() if key else line.strip()
    except OSError:
        pass
    return "?"


def environment(folder):
    """Lines that say where and with what the figures were taken."""
    cores = len(os.sched_getaffinity(0))
    compiler = "?"
    for path in glob.glob(os.path.join(folder, "meson-logs", "meson-log.txt")):
        compiler = _first_line(path, "C compiler for the host machine")
    revision = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    return [
        "command   %s" % " ".join([os.path.relpath(os.path.abspath(sys.argv[0]), ROOT)] + sys.argv[1:]),
        "date      %s" % time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "revision  %s" % (revision or "?"),
        "processor %s, %d cores" % (_first_line("/proc/cpuinfo", "model name"), cores),
        "system    %s %s" % (platform.system(), platform.release()),
        "build     release, %s" % compiler,
        "load      %.2f at the start" % os.getloadavg()[0],
    ]


def load_at_end(start):
    """A line about the load at the end; more than one busy program of ours means that others ran too."""
    cores = len(os.sched_getaffinity(0))
    line = "load      %.2f at the end" % os.getloadavg()[0]
    if max(start, os.getloadavg()[0] - 2) > cores / 2:
        line += "; the machine was not idle: read the ratios, not the figures"
    return line


def median(values):
    return statistics.median(values)


def table(head, rows):
    """A table in Markdown, with the columns aligned for those who read it as it is."""
    cells = [head] + rows
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
