"""Help texts and the CLI reference in ``docs/``, generated from the command definitions."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from reasonrl.cli.table import entries, terminal_width, wrap

MAX_WIDTH = 100
HELP_NAMES = ("-h", "--help")

PluginFiles = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="Also load this plugin, from a file or module.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An argument, an option with its metavar, or a command."""

    name: str
    help: str
    default: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """The usage of one command. ``line`` is its synopsis."""

    line: str
    text: str
    arguments: tuple[Entry, ...] = ()
    options: tuple[Entry, ...] = ()
    commands: tuple[Entry, ...] = ()
    epilog: str = ""


def usage_of(command: TyperCommand | TyperGroup, path: str) -> Usage:
    """Describe ``command``, called as ``path``, such as ``reasonrl plugins new``."""
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [p for p in shown if isinstance(p, TyperArgument)]
    options = [p for p in shown if isinstance(p, TyperOption) and not set(p.opts) & set(HELP_NAMES)]
    commands = command.commands if isinstance(command, TyperGroup) else {}
    tail = ["COMMAND"] if commands else [_argument_in_line(argument) for argument in arguments]
    return Usage(
        line=" ".join([path, "[OPTIONS]", *tail]),
        text=" ".join(inspect.cleandoc(command.help or "").split()),
        arguments=tuple(Entry(name=name_of(a), help=a.help or "") for a in arguments),
        options=tuple(Entry(name=_option_name(o), help=o.help or "", default=_default(o.default)) for o in options),
        commands=tuple(Entry(name=name, help=_first_sentence(sub.help or "")) for name, sub in commands.items()),
        epilog=command.epilog or "",
    )


def name_of(parameter: TyperArgument | TyperOption) -> str:
    """Return the name of a parameter in help and errors: ``RECIPE``, ``--run-dir``."""
    if isinstance(parameter, TyperArgument):
        return parameter.metavar or str(parameter.name).upper()
    return max(parameter.opts, key=len)


def _argument_in_line(argument: TyperArgument) -> str:
    name = name_of(argument)
    return (name if argument.required else f"[{name}]") + ("..." if argument.nargs == -1 else "")


def _option_name(option: TyperOption) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    return names if option.is_flag else f"{names} {option.metavar or 'VALUE'}"


def _default(value: object) -> str:
    return "" if value is None or isinstance(value, bool) or callable(value) else str(value)


def _first_sentence(text: str) -> str:
    """Return the first sentence."""
    flat = " ".join(inspect.cleandoc(text).split())
    head, stop, _ = flat.partition(". ")
    return head + "." if stop else flat


def _lines(usage: Usage, width: int) -> Iterator[str]:
    yield wrap(usage.line, lead="Usage: ", indent=" " * 7, width=width)
    yield ""
    yield wrap(usage.text, indent="  ", width=width)
    options = (*usage.options, Entry(name=", ".join(HELP_NAMES), help="Show this help."))
    for heading, listed in (("Arguments", usage.arguments), ("Commands", usage.commands), ("Options", options)):
        if listed:
            yield ""
            yield typer.style(f"{heading}:", bold=True)
            rows = [(f"  {entry.name}", _help(entry)) for entry in listed]
            yield from entries(rows, width=width)
    if usage.epilog:
        yield ""
        yield wrap(usage.epilog, indent="  ", width=width)


def _help(entry: Entry) -> str:
    return f"{entry.help.removesuffix('.')} (default {entry.default})." if entry.default else entry.help


def _write_help(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    width = min(terminal_width(), MAX_WIDTH)
    formatter.write("\n".join(_lines(usage_of(command, ctx.command_path), width)))


class Command(TyperCommand):
    """A command with plain help, the same as in ``docs/reference/cli.md``."""

    format_help = _write_help


class Group(TyperGroup):
    """A command group with the same help."""

    format_help = _write_help


class Commands(typer.Typer):
    """A command group that shows its help when called without a command."""

    def __init__(self, **options: Any) -> None:
        group = options.pop("cls", Group)
        super().__init__(
            cls=group,
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": list(HELP_NAMES)},
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Any:
        return super().command(name, cls=Command, **options)
