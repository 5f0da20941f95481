"""The completions of a report: an even selection over steps and suites, shortened, without secrets, compressed."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reasonrl.analysis.doctor.records import UNREADABLE, list_entries, number
from reasonrl.analysis.report.clean import Cleaner, clean
from reasonrl.analysis.report.tokens import FIGURES, Figure, read_tokens
from reasonrl.contracts.specs import Marks
from reasonrl.errors import RAISABLE
from reasonrl.rundir.layout import EVALS, TRANSCRIPTS, find_steps
from reasonrl.rundir.reading import open_regular

DEFAULT_LIMIT = 10_000
MAX_BYTES = 4_200_000
"""Of the compressed completions, so that a page stays under 5 MB."""
HEAD, TAIL, PROMPT = 3000, 1500, 1500
"""Characters of a completion's beginning and end, and of a prompt."""
TOKENS_SHARE = 0.15
"""Of ``MAX_BYTES``, for figures per token even if completions alone would fill the page."""
TRAINING = "training"
CHUNK = 1 << 20
MARK_KINDS = ("right", "failed", "error")
TASK = "task"
"""Kind of the parts that the task wrote."""

MarksOf = Callable[[int, str], Marks | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file of completions. ``name``: a suite, or ``training``."""

    run: int
    name: str
    step: int
    path: Path
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """``packed``: the records as JSON, gzip and base64; ``found`` and ``shown`` by kind of source.

    ``colored`` records have figures per token: ``figures``.
    """

    packed: Markup
    shown: Mapping[str, int]
    found: Mapping[str, int]
    unreadable: int
    figures: Sequence[Figure] = ()
    colored: int = 0
    has_marks: bool = False
    has_turns: bool = False

    @property
    def is_complete(self) -> bool:
        return self.shown == self.found


def collect(run_dirs: Sequence[Path], limit: int | None = None, marks_of: MarksOf | None = None) -> Samples:
    """Select completions evenly over steps and suites, half of them from training if there are enough.

    Args:
        limit: completions, however large the page; None = at most ``DEFAULT_LIMIT`` and ``MAX_BYTES``.
        marks_of: what highlights the completions of a run (by its place) and source, if anything does.
    """
    sources = [source for index, folder in enumerate(run_dirs) for source in find_sources(folder, index)]
    records, unreadable = _read(sources, DEFAULT_LIMIT if limit is None else limit, marks_of)
    packed = pack(records)
    if limit is None and len(packed) > MAX_BYTES:
        records = _color_fewer(records, len(packed))
        packed = pack(records)
    while limit is None and len(packed) > MAX_BYTES and len(records) > 1:
        keep = min(len(records) - 1, int(len(records) * 0.95 * MAX_BYTES / len(packed)))
        records = [records[i] for i in spread(len(records), keep)]
        packed = pack(records)
    return Samples(
        packed=Markup(packed),
        shown=_tally((record["f"], 1) for record in records),
        found=_tally((source.name, source.count) for source in sources),
        unreadable=unreadable,
        has_marks=any(kind != TASK for record in records for *_, kind in record.get("h", ())),
        has_turns=any(kind == TASK for record in records for *_, kind in record.get("h", ())),
        figures=[one for one in FIGURES if any(one.key in record.get("t", ()) for record in records)],
        colored=sum("t" in record for record in records),
    )


def _color_fewer(records: Sequence[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Leave the figures per token out of an even part of the records, whose packed ``size`` is too large."""
    plain = [{key: value for key, value in record.items() if key != "t"} for record in records]
    colored = [place for place, record in enumerate(records) if "t" in record]
    rest = len(pack(plain))
    room = max(MAX_BYTES - rest, TOKENS_SHARE * MAX_BYTES)
    found, size, take = list(records), size - rest, len(colored)
    while size > room and take:
        take = int(take * 0.95 * room / size)
        kept = {colored[i] for i in spread(len(colored), take)}
        found = [record if place in kept else plain[place] for place, record in enumerate(records)]
        size = len(pack(found)) - rest
    return found


def find_sources(run_dir: Path, run: int = 0) -> list[Source]:
    """List every file of completions and count its lines."""
    files = [(TRAINING, step, path) for step, path in find_steps(list_entries(run_dir / TRANSCRIPTS), ".jsonl")]
    for step, folder in find_steps(list_entries(run_dir / EVALS)):
        files += [(path.stem, step, path) for path in sorted(folder.glob("*.jsonl"))]
    counted = (
        Source(run=run, name=clean(name), step=step, path=path, count=_count_lines(path)) for name, step, path in files
    )
    return [source for source in counted if source.count]


def allot(counts: Sequence[int], limit: int) -> list[int]:
    """Divide ``limit`` over sources: all alike, as far as each has enough.

    Example:
        allot([1, 5, 5], 8) -> [1, 3, 4]
    """
    if sum(counts) <= limit:
        return list(counts)
    low, high = 0, max(counts)
    while low < high:  # the largest number that every source can give, or all it has
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(c, middle) for c in counts) <= limit else (low, middle - 1)
    shares = [min(count, low) for count in counts]
    larger = [i for i, count in enumerate(counts) if count > low]
    for place in spread(len(larger), limit - sum(shares)):
        shares[larger[place]] += 1
    return shares


def spread(count: int, take: int) -> list[int]:
    """Pick ``take`` of ``count`` positions at even distances."""
    return [(2 * i + 1) * count // (2 * take) for i in range(take)]


def pack(records: Sequence[Mapping[str, Any]]) -> str:
    """Compress records; the result has no character that HTML knows."""
    text = json.dumps(records, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(gzip.compress(text.encode("ascii"), 6, mtime=0)).decode("ascii")


def _read(sources: Sequence[Source], limit: int, marks_of: MarksOf | None) -> tuple[list[dict[str, Any]], int]:
    training = [source for source in sources if source.name == TRAINING]
    held_out = [source for source in sources if source.name != TRAINING]
    total, other = sum(s.count for s in training), sum(s.count for s in held_out)
    of_training = min(total, max(limit // 2, limit - other))
    records: list[dict[str, Any]] = []
    reader, unreadable = _Reader(), 0
    for group, most in ((training, of_training), (held_out, limit - of_training)):
        for source, take in zip(group, allot([s.count for s in group], most), strict=True):
            marks = marks_of(source.run, source.name) if marks_of else None
            for line in _lines(source, take):
                record = reader.record(line, source, marks)
                unreadable += record is None
                records += [] if record is None else [record]
    return records, unreadable


def _lines(source: Source, take: int) -> Iterator[bytes]:
    # Begins with the first line: the first completions of a step have figures per token, and an evaluation's first
    # problem can be followed over the steps.
    wanted = {i * source.count // take for i in range(take)}
    if not wanted:
        return
    try:
        with open_regular(source.path) as file:
            yield from (line for place, line in enumerate(file) if place in wanted)
    except UNREADABLE:  # a resumed run deletes later steps
        return


class _Reader:
    """Reduces transcripts to what a page shows."""

    def __init__(self) -> None:
        self._cleaner = Cleaner()

    def record(self, line: bytes, source: Source, marks: Marks | None = None) -> dict[str, Any] | None:
        """Return one record; None if the line is no transcript."""
        try:
            data = json.loads(line)
            is_transcript = isinstance(data, dict) and isinstance(data.get("completion"), str)
            return self._reduce(data, source, marks) if is_transcript else None
        except UNREADABLE:  # or nested too deeply
            return None

    def _reduce(self, data: Mapping[str, Any], source: Source, marks: Marks | None) -> dict[str, Any]:
        answer, sample = data.get("answer"), data.get("sample")
        completion = self._cleaner.shorten(data["completion"], HEAD, TAIL)
        record = {
            "r": source.run,
            "f": source.name,
            "s": source.step,
            "i": self._text(data.get("problem_id"), 200),
            "n": sample if isinstance(sample, int) else 0,
            "p": self._text(data.get("prompt_text") or data.get("prompt"), PROMPT),
            "c": completion,
            "a": None if answer is None else self._text(answer, 500),
            "w": number(data.get("reward")),
            "k": data.get("correct") is True,
            "m": {name: number(value) for name, value in self._mapping(data.get("components")).items()},
            "y": self._mapping(data.get("reasons")),
            "l": number(data.get("completion_tokens")),
            "e": self._text(data.get("finish_reason"), 40),
            "o": self._text(self._mapping(data.get("info")), 1000),
        }
        tokens = read_tokens(data, completion, HEAD, TAIL)
        # Positions hold only if nothing was escaped, and JavaScript counts other characters twice.
        is_as_written = completion == data["completion"] and max(completion, default="") <= "\uffff"
        parts = (_mark(marks, data) if marks else []) or _replies(data) if is_as_written else []
        return record | ({"t": tokens} if tokens else {}) | ({"h": parts} if parts else {})

    def _text(self, value: object, most: int) -> str:
        if value is None:
            return ""
        return self._cleaner.shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), most)

    def _mapping(self, value: object) -> dict[str, Any]:
        cleaned = self._cleaner.data(value)
        return cleaned if isinstance(cleaned, dict) else {}


def _replies(data: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """Find what the task wrote in a conversation; nothing if the messages do not lie in the text."""
    found: list[tuple[int, int, str]] = []
    messages, text, at = data.get("messages"), data["completion"], 0
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or (start := text.find(content, at)) < 0:
            return []
        at = start + len(content)
        if message.get("role") != "assistant" and content:
            found.append((start, at, TASK))
    return found


def _mark(marks: Marks, data: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """Call a plugin's function; what it cannot mark stays plain."""
    try:
        found = [(int(start), int(end), kind) for start, end, kind in marks(data.get("info") or {}, data["completion"])]
    except RAISABLE:
        return []
    ends = [0, *(end for _, end, _ in found)]
    are_apart = all(before <= start < end for before, (start, end, _) in zip(ends, found, strict=False))
    is_known = all(kind in MARK_KINDS for _, _, kind in found)
    return found if are_apart and is_known and ends[-1] <= len(data["completion"]) else []


def _tally(pairs: Iterator[tuple[str, int]]) -> dict[str, int]:
    found = {"training": 0, "evaluation": 0}
    for name, count in pairs:
        found["training" if name == TRAINING else "evaluation"] += count
    return found


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    try:
        with open_regular(path) as file:
            while chunk := file.read(CHUNK):
                count += chunk.count(b"\n")
                last = chunk[-1:]
    except UNREADABLE:
        return 0
    return count + (last != b"\n")
