"""Plots as SVG text: panels side by side, each with axes, grid, labels and its lines.

    plot.figure("Title", ["a line of small print"], [
        plot.Panel("calls/s", [1, 10, 100], {"evpt": [(900, 1000, 1100), ...]}, x_title="peers",
                   x_format=str, y_format=str)])

A line is a list of (low, middle, high), one for each x; None leaves the point out, as does a 0
where the axis is logarithmic. A whisker shows low and high.
"""

import math
from xml.sax.saxutils import escape

PANEL_WIDTH, PANEL_HEIGHT = 300, 220
LEFT, RIGHT, GAP = 64, 20, 74           # around and between the panels, with room for y labels
TOP, BOTTOM = 96, 58                    # titles and legends; x labels and small print
SMALL_PRINT = 15                        # height of a line of it
CHAR_WIDTH = 6.2                        # of the labels, about: those that would touch are left out
COLOURS = ("#0b6bb0", "#d1570b", "#0a8a5f", "#a3468f")     # told apart also by the colour-blind

STYLE = """
text { font-family: "Helvetica Neue", Arial, "Liberation Sans", sans-serif; fill: #222 }
.title { font-size: 18px; font-weight: 600 }
.panel { font-size: 13px; font-weight: 600 }
.label { font-size: 11px; fill: #444 }
.small { font-size: 10px; fill: #777 }
.grid { stroke: #e3e6ea; stroke-width: 1 }
.axis { stroke: #8a9099; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.whisker { stroke-width: 1.2; opacity: .55 }
"""


class Scale:
    """From values to pixels, linear from 0 or logarithmic."""

    def __init__(self, values, start, end, log):
        self.log, self.start, self.end = log, start, end
        low, high = min(values), max(values)
        self.ticks = _log_ticks(low, high) if log else _linear_ticks(high)
        self.low, self.high = self._map(self.ticks[0]), self._map(self.ticks[-1])

    def _map(self, value):
        return math.log10(value) if self.log else value

    def __call__(self, value):
        share = (self._map(value) - self.low) / (self.high - self.low or 1)
        return self.start + share * (self.end - self.start)


class PlainScale(Scale):
    """An axis whose ticks are the values themselves, with a little room at both ends."""

    ROOM = 12

    def __init__(self, values, start, end, log):
        self.log, self.ticks = log, values
        self.start, self.end = start + self.ROOM, end - self.ROOM
        self.low, self.high = self._map(min(values)), self._map(max(values))


def _log_ticks(low, high):
    """From one at or below low to one at or above high: round numbers, no more than fit."""
    digits = (1, 2, 5) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 7)
    steps = [digit * 10.0 ** power for power in range(math.floor(math.log10(low)) - 1,
                                                      math.ceil(math.log10(high)) + 2)
             for digit in digits]
    first = max(i for i, step in enumerate(steps) if step <= low * 1.000001)
    last = min(i for i, step in enumerate(steps) if step >= high * 0.999999)
    ticks = steps[first:max(last, first + 1) + 1]
    if len(ticks) > 8:      # decades only, but the ends as they are
        inner = [tick for tick in ticks[1:-1] if abs(math.log10(tick) % 1) < 1e-9]
        ticks = [ticks[0]] + inner + [ticks[-1]]
    return ticks


def _linear_ticks(high):
    power = 10.0 ** math.floor(math.log10(high or 1))
    step = next(power * part for part in (0.2, 0.5, 1, 2) if high / (power * part) <= 6)
    return [step * i for i in range(math.ceil(high / step - 1e-9) + 1)]


class Panel:
    def __init__(self, title, xs, lines, x_title="", x_format=str, y_format=str, x_log=True,
                 y_log=True):
        self.title, self.xs = title, xs
        self.lines = {name: [point if point and (min(point) > 0 or not y_log) else None
                             for point in line] for name, line in lines.items()}
        self.x_title, self.x_format, self.y_format = x_title, x_format, y_format
        self.x_log, self.y_log = x_log, y_log

    def draw(self, out, left, top):
        values = [value for line in self.lines.values() for point in line if point
                  for value in point]
        bottom = top + PANEL_HEIGHT
        x = PlainScale(self.xs, left, left + PANEL_WIDTH, self.x_log)
        y = Scale(values, bottom, top, self.y_log)
        out.append(_text(left, top - 34, "panel", self.title))
        self._draw_axes(out, x, y, left, bottom)
        if len(self.lines) > 1:
            _draw_legend(out, left, top - 14, self.lines)
        for colour, line in zip(COLOURS, self.lines.values()):
            self._draw_line(out, x, y, line, colour)

    def _draw_axes(self, out, x, y, left, bottom):
        right = left + PANEL_WIDTH
        for tick in y.ticks:
            at = y(tick)
            out.append(_line("grid", left, at, right, at))
            out.append(_text(left - 8, at + 4, "label", self.y_format(tick), "end"))
        out.append(_line("axis", left, bottom, right, bottom))
        free_from = -math.inf
        for tick in x.ticks:
            at, label = x(tick), self.x_format(tick)
            out.append(_line("axis", at, bottom, at, bottom + 4))
            half = len(label) * CHAR_WIDTH / 2
            if at - half >= free_from:
                out.append(_text(at, bottom + 17, "label", label, "middle"))
                free_from = at + half + CHAR_WIDTH
        out.append(_text((left + right) / 2, bottom + 36, "label", self.x_title, "middle"))

    def _draw_line(self, out, x, y, line, colour):
        points = [(x(at), [y(value) for value in point]) for at, point in zip(self.xs, line)
                  if point]
        path = " ".join("%.1f,%.1f" % (at, middle) for at, (_, middle, _) in points)
        out.append('<polyline class="line" stroke="%s" points="%s"/>' % (colour, path))
        for at, (low, middle, high) in points:
            if low - high > 3:  # pixels; a shorter one would hide behind its point
                out.append('<line class="whisker" stroke="%s" x1="%.1f" y1="%.1f" x2="%.1f" '
                           'y2="%.1f"/>' % (colour, at, low, at, high))
            out.append('<circle fill="%s" cx="%.1f" cy="%.1f" r="3.2"/>' % (colour, at, middle))


def _draw_legend(out, left, top, names):
    for colour, name in zip(COLOURS, names):
        out.append('<circle fill="%s" cx="%.1f" cy="%.1f" r="4"/>' % (colour, left + 4, top - 4))
        out.append(_text(left + 13, top, "label", name))
        left += 30 + len(name) * CHAR_WIDTH


def _line(style, x1, y1, x2, y2):
    return '<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>' % (style, x1, y1, x2, y2)


def _text(x, y, style, text, anchor="start"):
    return '<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>' % (
        style, x, y, anchor, escape(text))


def figure(title, small_print, panels):
    """The whole picture."""
    width = LEFT + RIGHT + len(panels) * PANEL_WIDTH + (len(panels) - 1) * GAP
    bottom = TOP + PANEL_HEIGHT + BOTTOM
    height = bottom + SMALL_PRINT * len(small_print)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
           'role="img">' % (width, height, width, height),
           "<title>%s</title>" % escape(title), "<style>%s</style>" % STYLE,
           '<rect width="100%" height="100%" fill="#fff"/>',
           _text(LEFT, 32, "title", title)]
    for number, panel in enumerate(panels):
        panel.draw(out, LEFT + number * (PANEL_WIDTH + GAP), TOP)
    for number, line in enumerate(small_print):
        out.append(_text(LEFT, bottom + SMALL_PRINT * number, "small", line))
    out.append("</svg>\n")
    return "\n".join(out)
