"""tools/bench: what it prints, writes and draws is what it has measured."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

import evptnode
from evptnode import environment, processes_of_session, read_file

BENCH = os.path.join(evptnode.HERE, "../../tools/bench")
sys.path.insert(0, BENCH)
import plot  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


class ToolCase(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix="evpt-bench-tools-")
        self.addCleanup(tmp.cleanup)
        self.dir = tmp.name
        os.mkdir(self.path("tmp"))

    def path(self, name):
        return os.path.join(self.dir, name)

    def run_tool(self, name, *args):
        """Nothing of it may be left behind: (status, stdout, stderr)."""
        env = dict(environment(), TMPDIR=self.path("tmp"))
        with subprocess.Popen(
                [sys.executable, os.path.join(BENCH, name), *args], cwd=self.dir, text=True, env=env,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True) as process:
            try:
                out, err = process.communicate(timeout=6 * evptnode.PATIENCE)
            finally:
                process.kill()
        self.assertEqual(processes_of_session(process.pid), [])
        self.assertEqual(os.listdir(self.path("tmp")), [])
        return process.returncode, out, err

    def measured(self, name, *args):
        """What a quick run prints, and its JSON."""
        status, out, err = self.run_tool(name, "--quick", "--build",
                                         os.path.abspath(evptnode.settings.build), "--json",
                                         self.path("figures.json"), *args)
        self.assertEqual((status, err), (0, ""), out)
        figures = json.loads(read_file(self.path("figures.json")))
        self.assertTrue(any(line.startswith("command ") for line in figures["environment"]))
        return out, figures


def cells(out):
    """The rows of the tables in a text, heads left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in out.splitlines() if line.startswith("|")]
    heads = {at - 1 for at, row in enumerate(rows) if set(row[0]) == {"-"}}
    return [row for at, row in enumerate(rows) if at not in heads and at - 1 not in heads]


class ScaleTest(ToolCase):
    POINTS = {"in-flight": [1, 256], "size": [64, 65536], "services": [1, 100], "peers": [1, 10],
              "workers": [0, 1]}
    SERIES = {"peers": 2, "workers": 2}

    def test_scale_measures_every_sweep(self):
        out, figures = self.measured("scale", "--plots", self.dir)
        sweeps = figures["sweeps"]
        self.assertEqual(set(sweeps), set(self.POINTS))
        for name, points in self.POINTS.items():
            self.assertEqual(len(sweeps[name]), self.SERIES.get(name, 1), name)
            for line in sweeps[name].values():
                self.assertEqual([point["x"] for point in line], points)
                for point in line:
                    self.assert_measured(point)
        self.assert_printed(out, sweeps)
        self.assert_true(sweeps)
        for name in self.POINTS:
            self.assert_drawn(name, sweeps[name])

    def assert_measured(self, point):
        self.assertEqual(len(point["rounds"]), 1)
        self.assertEqual(point["median"], point["rounds"][0])
        for figure in ("calls", "cpu", "p50", "p99", "bytes"):
            self.assertGreater(point["median"][figure], 0, (figure, point))
        self.assertLessEqual(point["median"]["p50"], point["median"]["p99"])

    def assert_printed(self, out, sweeps):
        """Every point has its line in a table, with the calls/s that the file has."""
        rows = cells(out)
        points = [point for lines in sweeps.values() for line in lines.values() for point in line]
        self.assertEqual(len(rows), len(points))
        for row, point in zip(rows, points):    # in the same order
            self.assertIn("{:,.0f}".format(point["median"]["calls"]), row)
        references = [row for row in rows if "1.00" in row]
        self.assertGreaterEqual(len(references), 7)     # one for each line of a sweep

    def assert_true(self, sweeps):
        """What holds on any machine, however busy."""
        def median(name, x, series=0):
            line = list(sweeps[name].values())[series]
            return next(point["median"] for point in line if point["x"] == x)
        # one at a time there is nothing to do together, and a wait for each
        self.assertGreater(median("in-flight", 1)["cpu"], median("in-flight", 256)["cpu"])
        self.assertGreater(median("size", 65536)["cpu"], median("size", 64)["cpu"])
        if not evptnode.sanitized():
            grown = (median("services", 100)["memory_callee"] -
                     median("services", 1)["memory_callee"])
            self.assertTrue(99 * 10e3 < grown < 99 * 150e3, grown)
        self.assertNotIn("memory_callee", median("peers", 10, 0))
        self.assertNotIn("memory_caller", median("peers", 10, 1))

    def assert_drawn(self, name, lines):
        root = ElementTree.parse(self.path("scale-%s.svg" % name)).getroot()
        self.assertEqual(root.tag, SVG + "svg")
        drawn = root.findall(SVG + "polyline")
        self.assertGreaterEqual(len(drawn), 2 * len(lines))     # at least two panels
        width, height = float(root.get("width")), float(root.get("height"))
        for line in drawn:
            points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            self.assertEqual(len(points), 2)
            self.assertLess(points[0][0], points[1][0])
            self.assertTrue(all(0 < x < width and 0 < y < height for x, y in points), points)
        texts = [text.text for text in root.iter(SVG + "text")]
        self.assertIn("calls/s", texts)

    def test_scale_measures_only_what_it_is_told(self):
        out, figures = self.measured("scale", "--only", "workers", "--plots", self.path("plots"),
                                     "--seconds", "0.1", "--rounds", "3")
        self.assertEqual(list(figures["sweeps"]), ["workers"])
        self.assertEqual(os.listdir(self.path("plots")), ["scale-workers.svg"])
        self.assertEqual(len(cells(out)), 4)
        for line in figures["sweeps"]["workers"].values():
            for point in line:
                taken = sorted(figures["calls"] for figures in point["rounds"])
                self.assertEqual((len(taken), point["median"]["calls"]), (3, taken[1]))

    def test_scale_says_what_it_cannot_do_before_it_measures(self):
        status, out, err = self.run_tool("scale", "--build", self.dir, "--json",
                                         self.path("none/figures.json"))
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, r"\A[^\n]*none/figures.json: No such file or directory\n\Z")


class LargeTest(ToolCase):
    def test_large_measures_long_calls_and_small_ones_beside_them(self):
        out, figures = self.measured("large")
        median = figures["median"]
        self.assertEqual(set(median), {"bare", "long", "small", "beside"})
        for name in ("bare", "long"):
            self.assertGreater(median[name]["bytes"], 2e6)      # several of 1 MiB
        for name in ("small", "beside"):
            self.assertLessEqual(median[name]["p50"], median[name]["p99"])
        self.assertGreater(median["beside"]["beside"], 2e6)
        long, beside = [row for row in cells(out) if "call" in row[0]]
        self.assertEqual(long[2], "%.2f" % (median["long"]["bytes"] / median["bare"]["bytes"]))
        self.assertEqual(beside[3], "%.2f" % (median["beside"]["p99"] / median["small"]["p99"]))


class ReactorTest(ToolCase):
    def test_reactor_bench_runs_every_workload_and_names_what_is_missing(self):
        out, figures = self.measured("reactor/run", "--rounds", "1")
        rows = figures["rows"]
        self.assertEqual({row["workload"] for row in rows}, {"pipes", "timers", "messages", "echo"})
        self.assertEqual([row[0] for row in cells(out)], [row["row"] for row in rows])
        self.assertEqual(len(rows), 4 + 3 + 3 + 2 * 6)
        for row in rows:
            for library, taken in row["ns"].items():
                self.assertEqual(len(taken), 1)
                self.assertGreater(taken[0], 0, (library, row))
        left_out = re.findall(r"left out: (.*)", out)
        missing = set(left_out[0].split(", ")) if left_out else set()
        self.assertEqual(set(rows[0]["ns"]) | missing, {"evpt", "libevent", "libev", "libuv"})
        self.assertIn("evpt", rows[0]["ns"])


class PlotTest(unittest.TestCase):
    def test_ticks_reach_from_below_the_least_to_above_the_greatest(self):
        for low, high in ((1, 1), (1, 10), (3, 7), (0.02, 4e9), (999, 1001), (1e-9, 1e-3)):
            scale = plot.Scale([low, high], 0, 100, True)
            self.assertLessEqual(scale.ticks[0], low * 1.001)
            self.assertGreaterEqual(scale.ticks[-1], high * 0.999)
            self.assertEqual(scale.ticks, sorted(set(scale.ticks)))
            self.assertLessEqual(len(scale.ticks), 20)
            self.assertTrue(0 <= scale(low) <= scale(high) <= 100.01)
        for high in (0.03, 1, 7, 999, 123456):
            scale = plot.Scale([0, high], 0, 100, False)
            self.assertEqual((scale.ticks[0], scale(0)), (0, 0))
            self.assertGreaterEqual(scale.ticks[-1], high * 0.999)
            self.assertTrue(2 <= len(scale.ticks) <= 8)

    def test_a_logarithmic_axis_is_logarithmic(self):
        scale = plot.Scale([1, 100], 0, 100, True)
        self.assertAlmostEqual(scale(10), 50)

    def test_points_that_are_missing_are_left_out(self):
        panel = plot.Panel("a < b", [1, 10, 100], {"one": [(1, 2, 3), None, (4, 5, 6)],
                                                   "two": [(0, 0, 0), (7, 8, 9), (7, 8, 9)]})
        root = ElementTree.fromstring(plot.figure("<&>", ["small & print"], [panel]))
        lines = [line.get("points").split() for line in root.findall(SVG + "polyline")]
        self.assertEqual([len(line) for line in lines], [2, 2])
        self.assertEqual(root.find(SVG + "title").text, "<&>")
        self.assertIn("a < b", [text.text for text in root.iter(SVG + "text")])
