"""Merge a recipe with the recipes it extends, as text: comments, order and style are kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from reasonrl.errors import RecipeError
from reasonrl.recipe.source import parse_text, read_source, to_yaml

Entry = tuple[yaml.Node, yaml.Node]
Edit = tuple[int, int, str]
"""Start, end, and the text that replaces what stands between them."""


def merged_text(path: Path) -> str:
    """The text of the recipe ``path``; one with parents becomes the parent's text with its own values in their places.

    The header, the comment above the first key, is its own: a parent's figures are not those of the child.
    """
    text, source = _read(path), read_source(path, [])
    if not source.is_extended:
        return text
    merged = _header(text) + _body(path)
    try:
        if parse_text(path, merged).data == source.data:
            return merged
    except RecipeError:
        pass
    # A style that the edits do not know, such as anchors: right, but without comments below the header.
    return _header(text) + to_yaml(source.data)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _header(text: str) -> str:
    lines = takewhile(lambda line: line.startswith("#") or not line.strip(), text.splitlines(keepends=True))
    return "".join(lines)


def _body(path: Path) -> str:
    """All below the header, parents merged in."""
    own = _read(path)
    own = own[len(_header(own)) :]
    child = parse_text(path, own).data
    parent = child.pop("extends", None)
    if parent is None:
        return own
    above = path.parent / parent
    body, base, target = _body(above), read_source(above, []).data, read_source(path, []).data
    edits = enumerate(_edits(_Part.of(body), base, target, _Part.of(own), child))
    # From the end, so that places stay right; of two insertions at one place the later one belongs behind.
    for _, (start, end, text) in sorted(edits, key=lambda edit: (*edit[1][:2], edit[0]), reverse=True):
        body = body[:start] + text + body[end:]
    return body


@dataclass(frozen=True)
class _Part:
    """A mapping within a text."""

    text: str
    node: yaml.MappingNode

    @classmethod
    def of(cls, text: str) -> "_Part":
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        assert isinstance(node, yaml.MappingNode)  # it was read before
        return cls(text, node)

    @property
    def entries(self) -> dict[str, Entry]:
        return {key.value: (key, value) for key, value in self.node.value}

    @property
    def is_flow(self) -> bool:
        """Written in braces."""
        return bool(self.node.flow_style)

    def below(self, key: str) -> "_Part | None":
        value = self.entries[key][1] if key in self.entries else None
        return _Part(self.text, value) if isinstance(value, yaml.MappingNode) else None

    def end_of(self, entry: Entry) -> int:
        """In a block, the rest of the line belongs to the entry: its comment."""
        end = _end(entry[1])
        return end if self.is_flow else _line_end(self.text, end)

    def comment_above(self, key: str) -> list[str]:
        """The lines of comment that stand directly above an entry of a block."""
        if self.is_flow:
            return []
        above = self.text[: self.entries[key][0].start_mark.index].split("\n")[:-1]
        return list(takewhile(lambda line: line.startswith("#"), map(str.strip, reversed(above))))[::-1]

    def entry_text(self, key: str, column: int) -> str:
        """The entry as it is written, its further lines moved along with the first one to ``column``."""
        entry = self.entries[key]
        first, *rest = self.text[entry[0].start_mark.index : self.end_of(entry)].split("\n")
        moved = column - entry[0].start_mark.column
        return "\n".join([first, *(_moved(line, moved) for line in rest)])


def _edits(
    here: _Part, base: Mapping[str, Any], target: Mapping[str, object], there: _Part | None, child: Mapping[str, object]
) -> Iterator[Edit]:
    """What turns ``here``, whose data are ``base``, into ``target``; texts come from ``child`` if it has them."""
    entries = here.entries
    for key, entry in entries.items():
        if key not in target or target[key] == base[key]:
            continue
        below = here.below(key)
        wanted, given = target[key], child.get(key)
        if below is not None and wanted and isinstance(wanted, dict) and given != wanted:
            inner = there.below(key) if there else None
            yield from _edits(below, base[key], wanted, inner, given if isinstance(given, dict) else {})
        else:
            text = _written(key, target, here, there, child)
            yield entry[0].start_mark.index, here.end_of(entry), text
    kept = [key for key in entries if key in target]
    yield from _removals(here, kept)
    new = [key for key in target if key not in entries]
    if new:
        texts = [_written(key, target, here, there, child) for key in new]
        comments = [there.comment_above(key) if there and key in there.entries else [] for key in new]
        yield _insertion(here, texts, comments, has_others=bool(kept))


def _written(
    key: str, target: Mapping[str, object], here: _Part, there: _Part | None, child: Mapping[str, object]
) -> str:
    """``key: value`` for a place in ``here``."""
    if there is not None and key in there.entries and child.get(key) == target[key]:
        text = there.entry_text(key, here.node.start_mark.column)
        if not here.is_flow or ("\n" not in text and "#" not in text):
            return text
    value = yaml.safe_dump(target[key], default_flow_style=True, sort_keys=False, width=10**6)
    bare = value.removesuffix("...\n").strip()  # the end of a document, behind a single value
    return f"{key}: {bare}"


def _removals(here: _Part, kept: list[str]) -> Iterator[Edit]:
    entries = list(here.entries.items())
    leading = next((i for i, (key, _) in enumerate(entries) if key in kept), len(entries))
    for index, (key, entry) in enumerate(entries):
        if key in kept:
            continue
        if not here.is_flow:
            start = entry[0].start_mark.index - entry[0].start_mark.column
            yield start, min(len(here.text), here.end_of(entry) + 1), ""
        elif index >= leading:
            yield _end(entries[index - 1][1][1]), _end(entry[1]), ""
        else:
            following = entries[index + 1][1][0].start_mark.index if index + 1 < len(entries) else _end(entry[1])
            yield entry[0].start_mark.index, following, ""


def _insertion(here: _Part, new: list[str], comments: list[list[str]], *, has_others: bool) -> Edit:
    if here.is_flow:
        place = _end(here.node) - 1
        return place, place, (", " if has_others else "") + ", ".join(new)
    indent = " " * here.node.start_mark.column
    place = _line_end(here.text, _end(here.node))
    lines = [line for above, text in zip(comments, new, strict=True) for line in (*above, text)]
    return place, place, "".join(f"\n{indent}{line}" for line in lines)


def _end(node: yaml.Node) -> int:
    """Where the text of a value ends; the mark of a block lies at the next token, beyond comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_end(text: str, position: int) -> int:
    found = text.find("\n", position)
    return len(text) if found < 0 else found


def _moved(line: str, columns: int) -> str:
    if columns >= 0:
        return " " * columns + line if line.strip() else line
    return line[min(-columns, len(line) - len(line.lstrip())) :]
