"""Curves reduced to a few hundred points, each with a band."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from reasonrl.analysis.doctor.curve import Curve

MAX_POINTS = 240
"""More than a chart has pixels to tell apart."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a step, between the ends of its band."""

    step: int
    value: float
    low: float
    high: float


Series = tuple[Point, ...]


def to_series(curve: Curve) -> Series:
    """Reduce a curve; the band is the range of the steps that share a point."""
    return thin(Point(step, value, value, value) for step, value in zip(curve.steps, curve.values, strict=True))


def pool(curves: Sequence[Curve]) -> Series:
    """Average several seeds over the steps that all of them have; the band is their range."""
    if not curves:
        return ()
    if len(curves) == 1:
        return to_series(curves[0])
    tables = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    common = sorted(set(tables[0]).intersection(*tables[1:]))
    columns = ((step, [table[step] for table in tables]) for step in common)
    return thin(Point(step, fmean(values), min(values), max(values)) for step, values in columns)


def thin(points: Iterable[Point], most: int = MAX_POINTS) -> Series:
    """Merge neighbors until at most ``most`` are left: last step, mean value, widest band."""
    given = tuple(points)
    if len(given) <= most:
        return given
    return tuple(map(_merge, _parts(given, -(-len(given) // most))))


def _parts(points: Series, size: int) -> Iterable[Series]:
    for start in range(0, len(points), size):
        yield points[start : start + size]


def _merge(points: Series) -> Point:
    mean = fmean(point.value for point in points)
    return Point(points[-1].step, mean, min(p.low for p in points), max(p.high for p in points))
