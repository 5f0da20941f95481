"""The tokens of a completion on the page: how much of the shown text is theirs, and their figures in whole numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from reasonrl.analysis.doctor.records import number
from reasonrl.analysis.report.clean import left_out
from reasonrl.text import sanitize

MOST = 10**6
"""A larger figure is shown as this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What can color a token. ``low`` and ``high`` name the ends of its scale; without ``low`` it begins at 0.

    ``unit``: the page stores whole multiples of 1/unit. ``least``: the scale of a completion ends no lower, so that
    noise stays pale.
    """

    key: str
    title: str
    unit: int
    least: float
    high: str
    low: str = ""


FIGURES = (
    Figure(
        key="logprob_gap",
        title="log-prob gap",
        unit=1000,
        least=0.05,
        low="less likely for the trainer than for the sampler",
        high="more likely",
    ),
    Figure(key="advantage", title="advantage", unit=100, least=0.5, low="made less likely", high="made more likely"),
    Figure(key="entropy", title="entropy", unit=100, least=0.5, high="nats: more alternatives"),
)


def read_tokens(data: Mapping[str, Any], shown: str, head: int, tail: int) -> dict[str, Any] | None:
    """Return the tokens of a transcript for the page; None if it has no figures, or none that fit ``shown``.

    ``n`` holds the length of each shown token as JavaScript counts it. The text itself is in ``shown`` alone, without
    secrets; where one was redacted, tokens have no place in it.

    Args:
        shown: the completion as the page shows it: its first ``head`` and last ``tail`` characters.
    """
    tokens = data.get("tokens")
    if not isinstance(tokens, Mapping):
        return None
    text, lengths = data["completion"], tokens.get("lengths")
    if not isinstance(lengths, list) or not all(type(one) is int and one >= 0 for one in lengths):
        return None
    if sum(lengths) > len(text):
        return None
    pieces = list(_pieces(text, lengths, head, tail))
    texts = [sanitize(text) for _, text in pieces]
    if "".join(texts) != shown:
        return None
    places = [place for place, _ in pieces]
    figures = {one.key: _column(tokens.get(one.key), one.unit, places, len(lengths)) for one in FIGURES}
    known = {key: column for key, column in figures.items() if column is not None}
    return {"n": [_utf16(text) for text in texts], **known} if known else None


def _pieces(text: str, lengths: Sequence[int], head: int, tail: int) -> Iterator[tuple[int | None, str]]:
    """Cut the shown text into tokens; None where it is not that of a token with figures."""
    ends = list(accumulate(lengths, initial=0))
    spans = [*((place, ends[place], ends[place + 1]) for place in range(len(lengths))), (None, ends[-1], len(text))]
    is_whole = len(text) <= head + tail
    windows = [(0, len(text))] if is_whole else [(0, head), (len(text) - tail, len(text))]
    for begin, stop in windows:
        if begin:
            yield None, left_out(len(text) - head - tail)
        for place, start, end in spans:
            if piece := text[max(start, begin) : max(0, min(end, stop))]:
                yield place, piece


def _column(values: object, unit: int, places: Sequence[int | None], count: int) -> list[int | None] | int | None:
    """Return one figure of the shown tokens; a number if it is the same for all, None if it is missing."""
    if not isinstance(values, list):
        same = _whole(values, unit)
        return same if same is None or None not in places else [None if place is None else same for place in places]
    if len(values) != count:
        return None
    return [None if place is None else _whole(values[place], unit) for place in places]


def _whole(value: object, unit: int) -> int | None:
    if type(value) is float and -MOST < value < MOST:  # nearly all of a few million
        return round(value * unit)
    known = number(value)
    return None if known is None else round(max(-MOST, min(MOST, known)) * unit)


def _utf16(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
