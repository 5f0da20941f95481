"""How the command line explains itself: help that fits, and wrong command lines in one line of plain words."""

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.distributions import write_distribution
from typer.main import get_command
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.cli.table import entries, table
from reasonrl.cli.usage import usage_of

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


def cli(*arguments: str, width: int = 80) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="reasonrl", env={"COLUMNS": str(width)})


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command and group below ``reasonrl``."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


ALL = list(commands(get_command(app)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--steps", "3"], "no option --steps; write overrides as trainer.steps=3"),
        (["train", "countdown_ppo", "--steps=3"], "write overrides as trainer.steps=3;"),
        (["train", "x", "--trainer.steps", "3"], "write overrides as trainer.steps=3;"),
        (["train", "x", "--prompts-per-step", "8"], "write overrides as trainer.prompts_per_step=8;"),
        (["resume", "x", "--steps"], "write overrides as trainer.steps=VALUE;"),
        (["sft", "x", "--max_tokens", "9"], "write overrides as sft.max_tokens=9;"),
        (["recipes", "check", "x", "--group_size", "2"], "write overrides as sampling.group_size=2;"),
        (
            ["train", "x", "--learning_rate", "1e-3"],
            "write overrides as critic.learning_rate=1e-3 or optimizer.learning_rate=1e-3;",
        ),
        (["train", "x", "--bogus"], "no option --bogus; write overrides as section.key=value;"),
        (["train", "x", "--plian"], "no option --plian; did you mean '--plain'?;"),
        (["eval", "x", "--stepz", "3"], "no option --stepz; write overrides as section.key=value;"),
        (["behaviors", "x", "--bogus", "3"], "no option --bogus; see `reasonrl behaviors --help`"),
        (["--bogus"], "no option --bogus; see `reasonrl --help`"),
        (["nonsense"], "no command 'nonsense'; see `reasonrl --help`"),
        (
            ["plugins", "chekc", "x"],
            "no command 'chekc'; did you mean 'check'?; see `reasonrl plugins --help`",
        ),
        (["train"], "missing RECIPE; see `reasonrl train --help`"),
        (["generate"], "missing RUN|MODEL;"),
        (["tasks", "preview"], "missing TASK; expected a name from `reasonrl tasks list`, or --recipe RECIPE"),
        (["doctor", "a", "b"], "unexpected argument 'b';"),
        (["train", "x", "--run-dir"], "--run-dir needs a value;"),
        (
            ["plugins", "new", "x", "--kind", "environment"],
            "--kind must be one of task, reward, algorithm, rollout_backend, observer, model, recipes, got "
            '"environment";',
        ),
        (["tasks", "preview", "countdown", "-n", "0"], '--num must be an integer >= 1, got "0";'),
        (["tasks", "preview", "countdown", "--seed", "x"], '--seed must be an integer, got "x";'),
        (["generate", "x", "--temperature=hot"], '--temperature must be a number >= 0, got "hot";'),
        (["generate", "x", "--temperature", "-1"], '--temperature must be a number >= 0, got "-1";'),
    ],
)
def test_a_wrong_command_line_is_one_plain_line(arguments: list[str], said: str) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Value error" not in done.stderr


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_that_fits(path: tuple[str, ...]) -> None:
    for width in (60, 80, 100, 200):
        done = cli(*path, "-h", width=width)
        assert done.exit_code == 0
        assert done.stdout == cli(*path, "--help", width=width).stdout
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= min(width, 100)
        assert not re.search(r"<(str|int|bool|float|list)|TEXT|INTEGER", done.stdout), "metavars are plain"


@pytest.mark.parametrize("path", [path for path in ALL if len(path) < 2], ids=" ".join)
def test_a_group_alone_shows_its_help(path: tuple[str, ...]) -> None:
    command = get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    if not hasattr(command, "commands"):
        return
    done = cli(*path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == cli(*path, "--help").stdout
    for name in command.commands:
        assert re.search(rf"^  {name} ", done.stdout, flags=re.MULTILINE)


def test_the_reference_says_the_same_as_the_help() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    for path in ALL:
        command = get_command(app)
        for name in path:
            command = command.commands[name]  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            continue
        usage = usage_of(command, " ".join(("reasonrl", *path)))
        section = page.partition(f"## reasonrl {' '.join(path)}\n")[2].partition("\n## ")[0]
        shown = cli(*path, "--help", width=200).stdout
        assert usage.line in section
        assert usage.line in shown
        for entry in (*usage.arguments, *usage.options):
            assert entry.help, f"{path}: {entry.name} has no help"
            assert f"  {entry.name} " in shown
            assert entry.name.replace("|", "&#124;") in section


def in_terminal(width: int, *arguments: str, path: Path | None = None) -> str:
    """What the command shows in a real terminal of that many columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "reasonrl", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as child:
        os.close(theirs)
        parts = []
        with os.fdopen(ours, "rb", buffering=0) as stream:
            while True:
                try:
                    part = stream.read(4096)
                except OSError:  # the other side is closed
                    break
                if not part:
                    break
                parts.append(part)
        child.wait(timeout=30)
    return b"".join(parts).decode().replace("\r\n", "\n")


SHOWN = [
    ("train", "x", "--learning_rate", "1e-3"),
    ("plugins", "list"),
    ("recipes", "list"),
    ("recipes", "check", "countdown_ppo"),
    ("plugins", "show", "ppo"),
    ("tasks", "preview", "countdown", "-n", "1", "template=chat"),
]


@pytest.mark.parametrize(
    ("arguments", "width"),
    [*((shown, 60) for shown in SHOWN), *((shown, width) for shown in SHOWN[:2] for width in (80, 100, 200))],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else str(value),
)
def test_nothing_is_broken_within_a_word(arguments: tuple[str, ...], width: int) -> None:
    lines = in_terminal(width, *arguments).splitlines()
    assert lines
    for line in lines:
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)  # of a spinner, on a slow machine
        too_long = len(shown) > width and " " in shown.strip()
        assert not too_long, f"the terminal breaks this line itself: {line!r}"


BROKEN = """
from reasonrl import TaskSpec, hookimpl

@hookimpl
def reasonrl_tasks():
    message = "a mistake that takes many words to say, " * 5
    raise RuntimeError(message)
"""


def test_a_traceback_is_broken_at_words_too(tmp_path: Path) -> None:
    write_distribution(tmp_path, "wordy", BROKEN)
    text = in_terminal(60, "plugins", "show", "wordy", path=tmp_path)
    assert "Traceback (most recent call last):" in text
    assert " ".join(text.split()).count("a mistake that takes many words to say,") >= 5
    assert all(len(line) <= 60 or " " not in line.strip() for line in text.splitlines())


def test_a_table_too_narrow_for_its_last_column_puts_it_below() -> None:
    rows = [("a_long_name", "another_long_one", "what it is about, in some words")]
    lines = list(table(("NAME", "OTHER", "SUMMARY"), rows, width=40))
    assert lines[2].split() == ["a_long_name", "another_long_one"]
    assert lines[3].startswith("    what it is")
    assert max(map(len, lines)) <= 40
    assert list(entries([("--a-very-long-option NAME", "text")], width=40)) == [
        "--a-very-long-option NAME",
        " " * 15 + "text",
    ]
