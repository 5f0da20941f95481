"""Markdown of the generated documentation: tables, and the rows of a config class in them."""

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def text(value: object) -> str:
    """Plain text as Markdown that shows it literally, also inside a table; ``code`` stays code."""
    parts = " ".join(str(value).split()).replace("``", "`").split("`")
    return "`".join(part if index % 2 else _literal(part) for index, part in enumerate(parts))


def _literal(words: str) -> str:
    for char, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("*", "&#42;")):
        words = words.replace(char, escaped)
    return words


def code(value: object) -> str:
    """A code span that a bar inside does not break out of a table cell."""
    return f"<code>{_literal(str(value))}</code>" if "|" in str(value) else f"`{value}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, or nothing without rows."""
    body = ["| " + " | ".join(row) + " |" for row in rows]
    if body:
        yield "| " + " | ".join(header) + " |"
        yield "|" + "---|" * len(header)
        yield from body
        yield ""


def option_rows(cls: type, prefix: str, *, is_flat: bool = False) -> Iterator[tuple[str, str, str, str]]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint, help_text = hints[field.name], text(field.metadata.get("help", ""))
        if isinstance(hint, type) and is_dataclass(hint) and not is_flat:
            yield from option_rows(hint, f"{prefix}{field.name}.")
        else:
            name = code(prefix + field.name)
            yield name, text(type_name(hint)), _field_default(field), help_text


def type_name(hint: Any) -> str:
    """A type as a reader of YAML says it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in parts)
    if origin is dict or (isinstance(hint, type) and is_dataclass(hint)):
        return "mapping"
    if origin is list:
        return f"list of {type_name(parts[0])}"
    names = {str: "text", int: "int", float: "number", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def _field_default(field: "Field[Any]") -> str:
    if field.default_factory is not MISSING:
        made = field.default_factory()
        return "its defaults" if is_dataclass(made) else code(_flow(made))
    return "required" if field.default is MISSING else code(_flow(field.default))


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) or '""'
