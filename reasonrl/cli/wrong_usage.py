"""Explain a command line that cannot be parsed, in one line."""

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from reasonrl.cli.usage import name_of
from reasonrl.errors import one_line
from reasonrl.text import suggest

MAX_KEYS = 3


def is_wrong_usage(error: BaseException) -> bool:
    """Whether the command-line parser raised it; typer may use click or a vendored copy."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def asks_for_help(error: BaseException) -> bool:
    """Whether a command group was called without a command."""
    return type(error).__name__ == "NoArgsIsHelpError"


def explain(error: Exception, words: Sequence[str]) -> str:
    """Say what is wrong with the command line ``words`` and point to the help."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "reasonrl"
    return one_line(f"{_what(error, ctx, words)}; see `{path} --help`")


def _what(error: Any, ctx: typer.Context | None, words: Sequence[str]) -> str:
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    if ctx is not None and kind == "NoSuchOption":
        return _no_such_option(error.option_name, ctx, words)
    if parameter is not None and kind == "MissingParameter":
        return f"missing {name_of(parameter)}"
    if ctx is not None and parameter is not None and (expected := _expected(ctx, parameter)):
        return f"{name_of(parameter)} must be {expected}{_got(parameter, words)}"
    if kind == "BadOptionUsage":
        return f"{error.option_name} needs a value"
    if ctx is not None and isinstance(ctx.command, TyperGroup) and kind in ("UsageError", "NoSuchCommand"):
        return _no_such_command(ctx, list(ctx.command.commands), words)
    text = str(error.format_message()).replace("Value error, ", "").removesuffix(".")
    extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", text)
    return f"unexpected argument {extra[1]!r}" if extra else text


def _no_such_option(name: str, ctx: typer.Context, words: Sequence[str]) -> str:
    key = name.lstrip("-").replace("-", "_")
    text = f"no option {name}"
    if any(parameter.name == "overrides" for parameter in ctx.command.params):
        value = _value_of(name, words) or "VALUE"
        keys = [dotted for dotted in _recipe_keys() if dotted == key or dotted.endswith(f".{key}")]
        written = [f"{dotted}={value}" for dotted in keys[:MAX_KEYS]]
        if written:
            return f"{text}; write overrides as {' or '.join(written)}"
    options = [opt for parameter in ctx.command.params for opt in parameter.opts if opt.startswith("--")]
    if hint := suggest(name, options):
        return text + hint
    if any(parameter.name == "overrides" for parameter in ctx.command.params):
        return f"{text}; write overrides as section.key=value"
    return text


def _value_of(name: str, words: Sequence[str]) -> str | None:
    """Return the value given to an option, after a space or an equals sign."""
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == name:
            rest = words[position + 1 : position + 2]
            return value if equals else next((word for word in rest if not word.startswith("--")), None)
    return None


def _recipe_keys() -> list[str]:
    from reasonrl.recipe.schema import Recipe, SftRecipe

    return list(dict.fromkeys([*_leaves(Recipe), *_leaves(SftRecipe)]))


def _leaves(cls: type, at: str = "") -> Iterator[str]:
    """Yield every dotted key of a recipe section, without keys inside mappings."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        dotted = f"{at}.{field.name}" if at else field.name
        inner = [part for part in (hints[field.name], *get_args(hints[field.name])) if isinstance(part, type)]
        nested = next((part for part in inner if is_dataclass(part)), None)
        if nested is None:
            yield dotted
        elif get_origin(hints[field.name]) is not dict:
            yield from _leaves(nested, dotted)


def _expected(ctx: typer.Context, parameter: TyperArgument | TyperOption) -> str:
    """Describe what a parameter accepts; empty for free text."""
    assert ctx.command.callback is not None  # whose parameter it is
    function = inspect.unwrap(ctx.command.callback)
    declared = get_type_hints(function, include_extras=True).get(parameter.name)
    hint, info = declared.__origin__, declared.__metadata__[0]  # type: ignore[union-attr]
    kinds = (hint, *get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    low = getattr(info, "min", None)
    for kind, name in ((int, "an integer"), (float, "a number")):
        if kind in kinds:
            return name if low is None else f"{name} >= {low:g}"
    return ""


def _got(parameter: TyperArgument | TyperOption, words: Sequence[str]) -> str:
    value = next((value for opt in parameter.opts if (value := _value_of(opt, words)) is not None), None)
    return "" if value is None else f", got {json.dumps(value, ensure_ascii=False)}"


def _no_such_command(ctx: typer.Context, known: Sequence[str], words: Sequence[str]) -> str:
    depth = len(ctx.command_path.split()) - 1
    given = [word for word in words if not word.startswith("-")][depth : depth + 1]
    if not given:
        return "missing command"
    return f"no command {given[0]!r}{suggest(given[0], known)}"
