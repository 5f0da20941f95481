"""Draw a chart as SVG. Colors are classes, so that the style sheet decides them for light and dark."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reasonrl.analysis.report.charts import Chart, Line
from reasonrl.analysis.report.clean import clean
from reasonrl.analysis.report.series import Point, Series

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
MAX_TICKS = 5
MAX_DOTS = 60
MOST = 1e300
"""The difference of larger numbers may be infinite."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{self.start + share * (self.end - self.start):.1f}"


def draw(chart: Chart) -> Markup:
    """Return the chart as an SVG element with a title for screen readers."""
    points = _points(chart)
    x_ticks, x = _steps_axis(points)
    y_ticks, y = _axis([end for p in points for end in (p.low, p.high)], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(clean(_describe(chart)))}">',
        *(f'<path class="grid" d="M{LEFT} {y(t)}H{WIDTH - RIGHT}"/>' for t in y_ticks),
        *(f'<text class="y" x="{LEFT - 5}" y="{y(t)}">{escape(figure(t, chart.unit))}</text>' for t in y_ticks),
        *(f'<text class="x" x="{x(t)}" y="{HEIGHT - 6}">{int(t)}</text>' for t in x_ticks),
        *(part for line in chart.lines for part in _line(line, x, y, has_dots=chart.has_dots)),
        f'<path class="cursor" d="M0 {TOP}V{HEIGHT - BOTTOM}"/></svg>',
    ]
    return Markup("".join(parts))


def points_of(chart: Chart) -> Markup:
    """Return what the page needs to read values off the chart: pixel, step, and figures by line."""
    x = _steps_axis(_points(chart))[1]
    lines = [
        {"c": line.color, "p": [[float(x(p.step)), p.step, _value(p, chart.unit)] for p in line.series]}
        for line in chart.lines
    ]
    return escape(json.dumps(lines, separators=(",", ":")))


def figure(value: float, unit: str) -> str:
    """Format a value in the unit of its metric."""
    if unit == "fraction":
        digits = 0 if value in (0, 1) or abs(value * 100 - round(value * 100)) < 1e-9 else 1
        return f"{value:.{digits}%}"
    if value == 0:
        return "0"
    if abs(value) >= 999.5:  # with three digits it would read 1e+03
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def _points(chart: Chart) -> list[Point]:
    return [point for line in chart.lines for series in (line.series, *line.faint) for point in series]


def _steps_axis(points: Sequence[Point]) -> tuple[list[float], Scale]:
    return _axis([float(point.step) for point in points], LEFT, WIDTH - RIGHT, whole=True)


def _value(point: Point, unit: str) -> str:
    text = figure(point.value, unit)
    is_banded = point.high > point.low
    return f"{text} ({figure(point.low, unit)} to {figure(point.high, unit)})" if is_banded else text


def _describe(chart: Chart) -> str:
    ends = [
        f"{line.label} from {figure(line.series[0].value, chart.unit)} at step {line.series[0].step} to "
        f"{figure(line.series[-1].value, chart.unit)} at step {line.series[-1].step}"
        for line in chart.lines
        if line.series
    ]
    return f"{chart.title}: {'; '.join(ends) or 'the runs have no step in common'}"


def _line(line: Line, x: Scale, y: Scale, *, has_dots: bool) -> list[str]:
    color = f"c{line.color}"
    parts = [f'<path class="faint {color}" d="{_path(series, x, y)}"/>' for series in line.faint if series]
    if any(point.high > point.low for point in line.series):
        above = [(point.step, point.high) for point in line.series]
        below = [(point.step, point.low) for point in reversed(line.series)]
        outline = "L".join(f"{x(step)} {y(value)}" for step, value in (*above, *below))
        parts.append(f'<path class="band {color}" d="M{outline}Z"/>')
    if line.series:
        parts.append(f'<path class="line {color}" d="{_path(line.series, x, y)}"/>')
    if len(line.series) == 1 or (has_dots and len(line.series) <= MAX_DOTS):
        parts += [f'<circle class="dot {color}" cx="{x(p.step)}" cy="{y(p.value)}" r="2.2"/>' for p in line.series]
    return parts


def _path(series: Series, x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(point.step)} {y(point.value)}" for point in series)


def _axis(values: Sequence[float], start: float, end: float, *, whole: bool = False) -> tuple[list[float], Scale]:
    """Return round ticks that enclose the values, and the scale between the outer ones."""
    low, high = max(-MOST, min(values, default=0.0)), min(MOST, max(values, default=1.0))
    if low == high:
        pad = abs(low) / 2 or 0.5
        low, high = (max(0.0, low - 1), low + 1) if whole else (low - pad, high + pad)
    step = _round_up((high - low) / MAX_TICKS)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [i * step for i in range(first, last + 1)]
    if whole:  # the curve begins at the edge
        return [tick for tick in ticks if low <= tick <= high], Scale(low, high, start, end)
    return ticks, Scale(ticks[0], ticks[-1], start, end)


def _round_up(raw: float) -> float:
    """Return the next of 1, 2, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
