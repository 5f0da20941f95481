"""``reasonrl chat``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from reasonrl.cli.fields import parse_fields
from reasonrl.cli.speakers import speaker
from reasonrl.errors import ReasonRLError, RecipeError, one_line
from reasonrl.importing import without_collection
from reasonrl.rundir.holds import holding
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.targets import find_run, find_target, locate
from reasonrl.signals import StopRequested
from reasonrl.text import sanitize

if TYPE_CHECKING:
    from reasonrl.contracts.data import Problem, Turn
    from reasonrl.runs.chat import Chat

HELP = """\
/problem             draw the next held-out problem of the task, answer it and judge the answer
/problem --KEY VALUE the same for a problem that the task's options describe
/reset               start a new conversation
/system TEXT         start a new conversation with this system message
/help                show this
/exit                end; so do Ctrl-D, and Ctrl-C between two answers
"""


@holding()
def run_chat(
    target: str, recipe: str | None, plugin_files: Sequence[str], overrides: Sequence[str], strict: bool, **options: Any
) -> None:
    """Load the model, then answer line after line of standard input until it ends."""
    from reasonrl.cli.waiting import open_reporting

    plugins = load_run_plugins(find_run(target), plugin_files)
    model_path, own_recipe = locate(target, plugins, strict=strict)
    located = model_path, own_recipe
    found = find_target(target, recipe, plugins, overrides, located=located) if recipe or own_recipe else None
    with open_reporting() as reporter:
        reporter.waiting("loading torch and transformers")
        with without_collection():
            from reasonrl.runs.chat import ChatOptions, open_chat

        chat = open_chat(model_path, found, plugins, ChatOptions(**options), reporter)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        typer.echo(_greet(chat), err=True)
    for line in read_lines(is_terminal):
        try:
            if not answer(chat, line):
                return
        except ReasonRLError as err:
            if not is_terminal:
                raise
            typer.echo(f"error: {one_line(err)}", err=True)


def _greet(chat: Chat) -> str:
    how = "continues each text by itself (no chat template)" if chat.is_raw else "answers in a conversation"
    task = f"; /problem draws a problem of {chat.task_name}" if chat.task_name else ""
    return f"The model {how}{task}; /help shows the commands, Ctrl-D ends."


def read_lines(is_terminal: bool) -> Iterator[str]:
    """Read one turn per line, without blank ones, until the end of the input or Ctrl-C."""
    if is_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401 - gives input() a history
    while True:
        try:
            line = input("> ") if is_terminal else sys.stdin.readline()
        except StopRequested:
            raise
        except (EOFError, KeyboardInterrupt):
            typer.echo("", err=True)
            return
        if not line and not is_terminal:
            return
        if line.strip():
            yield line.rstrip("\r\n")


def answer(chat: Chat, line: str) -> bool:
    """Carry out a command, or answer a turn; False = the chat is over.

    Raises:
        RecipeError: If the command is unknown, or the turn cannot be answered.
    """
    word, _, rest = line.strip().partition(" ")
    if word in ("/exit", "/quit"):
        return False
    if word == "/help":
        typer.echo(HELP, err=True, nl=False)
    elif word in ("/reset", "/system"):
        chat.reset(rest if word == "/system" else "")
    elif word == "/problem":
        _solve(chat, rest)
    elif word.startswith("/") and word[1:].isalpha():
        raise RecipeError(f"unknown command {word}; /help shows the commands")
    else:
        chat.say(line, _emit)
        typer.echo("")
    return True


def _solve(chat: Chat, rest: str) -> None:
    from reasonrl.cli.console import format_verdict

    try:
        words = shlex.split(rest)
    except ValueError as err:
        raise RecipeError(f"/problem: {err}") from err
    problem = chat.draw(parse_fields(words))
    typer.echo(typer.style(sanitize(_shown(problem)), dim=True))
    if chat.task_replies:
        _emit(f"{speaker('assistant')}: ")
    scored = chat.solve(problem, _emit, _tell)
    typer.echo("")
    verdict = format_verdict(scored.group.completions[0], scored.rewards[0])
    typer.echo(typer.style(sanitize(verdict), bold=True))


def _shown(problem: Problem) -> str:
    from reasonrl.observability.transcripts import as_turns, plain_prompt

    return as_turns(plain_prompt(problem))


def _tell(turn: Turn) -> None:
    """Show what the task replies, apart from what the model writes before and after it."""
    said = [("user", turn.content)] if isinstance(turn.content, str) else [(m.role, m.content) for m in turn.content]
    text = "\n".join(f"{speaker(role)}: {content.rstrip()}" for role, content in said)
    typer.echo(f"\n{typer.style(sanitize(text), dim=True)}\n{speaker('assistant')}: ", nl=False)


def _emit(piece: str) -> None:
    typer.echo(sanitize(piece), nl=False)
