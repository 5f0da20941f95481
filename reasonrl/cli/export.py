"""``reasonrl export``."""

import shlex
from pathlib import Path
from typing import Any

import typer

from reasonrl.cli.waiting import open_reporting
from reasonrl.export.model import Exported, export
from reasonrl.export.request import Request


def run_export(run: str, to: str | None, push: str | None, **options: Any) -> None:
    """Export a model, show the progress, and say where it is and how to use it."""
    folder = Path(to).expanduser() if to is not None else None
    request = Request(run=Path(run), to=folder, push=push, **options)
    with open_reporting() as reporter:
        done = export(request, reporter.waiting)
    for line in describe(done, request):
        typer.echo(line)


def describe(done: Exported, request: Request) -> list[str]:
    """Say what was exported and what to do with it."""
    what = f"step {done.source.step} of {done.source.run} as {request.format} in {done.precision}"
    lines = [f"exported {what}, {done.size / 1e6:,.1f} MB"]
    if done.folder is not None:
        lines.append(f"folder: {done.folder}")
    if done.url is not None:
        lines.append(f"hub: {done.url}")
    elif request.format != "gguf":
        lines.append(f"to try it: reasonrl chat {shlex.quote(str(done.folder))}")
    return lines
