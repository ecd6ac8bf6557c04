"""What the benches in this folder share: building, where they ran, medians, tables."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD_PACKAGES = "gcc libc6-dev meson ninja-build pkg-config liblua5.4-dev"


def run(main):
    """Ctrl-C ends a bench without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def fail(text):
    sys.exit("%s: %s" % (os.path.relpath(os.path.abspath(sys.argv[0]), ROOT), text))


# ---- building ----

def build(name, *options):
    """Builds the tree into build/NAME, as tools/setup.sh does; the folder."""
    folder = os.path.join(ROOT, "build", name)
    steps = [["ninja", "--quiet", "-C", folder]]
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        steps.insert(0, ["meson", "setup", folder, ROOT, "--buildtype=release", "-Dtests=false",
                         *options])
    show_progress("building %s" % os.path.relpath(folder))
    for step in steps:
        try:
            done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False)
        except FileNotFoundError:
            fail("%s is missing: apt-get install %s" % (step[0], BUILD_PACKAGES))
        if done.returncode:
            fail("could not build (needs %s)\n%s" % (BUILD_PACKAGES, done.stdout[-4000:]))
    show_progress("")
    return folder


# ---- running ----

def allow_descriptors(wanted):
    """Lets this process and its children open so many, or as many as it may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = wanted
    for limit in (max(hard, wanted), hard):  # to raise the hard one needs a privilege
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(min(limit, wanted), soft), limit))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def output_of(command, timeout_s):
    """What it prints; the bench ends where it fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        fail("%s has not ended after %d s" % (" ".join(command), timeout_s))
    except KeyboardInterrupt:
        process.wait()  # it has got the signal, too, and removes what it has made
        raise
    finally:
        process.kill()
    if process.returncode:
        fail("%s: status %d\n%s" % (" ".join(command), process.returncode, err or out))
    return out


def evpt_bench(folder, *arguments, timeout_s=300):
    """The report of a run in which every call was answered; `folder` as from build()."""
    program = os.path.join(folder, "tools", "evpt-bench")
    command = [program, *map(str, arguments), "--json", "-"]
    report = json.loads(output_of(command, timeout_s))
    if report["result"]["errors"]:
        fail("%s: not every call was answered: %s" % (" ".join(command), report["errors_by_code"]))
    return report


# ---- where and with what ----

def _first_line(path, key=""):
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[-1].strip() if key else line.strip()
    except OSError:
        pass
    return "?"


def _buildtype(folder):
    """As meson knows it: figures of a debug build are none."""
    try:
        with open(os.path.join(folder, "meson-info", "intro-buildoptions.json")) as file:
            return next(o["value"] for o in json.load(file) if o["name"] == "buildtype")
    except (OSError, ValueError, StopIteration):
        return "?"


def environment(folder):
    """Lines that say where and with what the figures were taken."""
    log = os.path.join(folder, "meson-logs", "meson-log.txt")
    revision = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False).stdout.strip()
    program = os.path.relpath(os.path.abspath(sys.argv[0]), ROOT)
    return [
        "command   %s" % " ".join([program] + sys.argv[1:]),
        "date      %s" % time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "revision  %s" % (revision or "?"),
        "processor %s, %d cores" % (_first_line("/proc/cpuinfo", "model name"), cores()),
        "system    %s %s" % (platform.system(), platform.release()),
        "build     %s, %s" % (_buildtype(folder),
                              _first_line(log, "C compiler for the host machine")),
        "load      %.2f at the start" % os.getloadavg()[0],
    ]


def cores():
    return len(os.sched_getaffinity(0))


def load_at_end(start):
    """A line about the load at the end; more than two busy programs: others ran beside ours."""
    line = "load      %.2f at the end" % os.getloadavg()[0]
    if max(start, os.getloadavg()[0] - 2) > cores() / 2:
        line += "; the machine was not idle: read the ratios, not the figures"
    return line


# ---- telling ----

def median(values):
    return statistics.median(values)


def show_progress(text):
    """In one line of the terminal, if there is one; an empty text takes it away."""
    if sys.stderr.isatty():
        print("\r\033[K" + text, end="", file=sys.stderr, flush=True)


def table(head, rows):
    """A table in Markdown, with the columns aligned for those who read it as it is."""
    cells = [head] + rows
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| %s |" % " | ".join(cell.ljust(width) for cell, width in zip(row, widths))
             for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def format_bytes(count):
    for divisor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= divisor:
            return "%.3g %s" % (count / divisor, unit)
    return "%.0f B" % count


def format_ns(ns):
    for divisor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= divisor:
            return "%.3g %s" % (ns / divisor, unit)
    return "%.3g ns" % ns


def check_writable(*paths):
    """Before anything is measured: an hour later would be late."""
    for path in filter(None, paths):
        try:
            with open(path, "a", encoding="utf-8"):
                pass
        except OSError as error:
            fail("%s: %s" % (path, error.strerror))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
