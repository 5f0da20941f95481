"""Every error of a command as one line and an exit code."""

import errno
import sys
from collections.abc import Sequence
from typing import Any

import typer

from reasonrl.cli.libraries import explain_library, is_panic
from reasonrl.cli.streams import redacted_output
from reasonrl.cli.table import for_terminal
from reasonrl.cli.usage import Group
from reasonrl.cli.wrong_usage import asks_for_help, explain, is_wrong_usage
from reasonrl.errors import ReasonRLError, describe_os_error, is_left_to_first, one_line, with_notes
from reasonrl.redact import REDACTED, redact_traceback
from reasonrl.signals import end_by, exit_status, raise_signals

EXIT_INTERRUPTED = 130
UNUSABLE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EROFS)
"""An argument that names no file that could be read or written."""


class OneLineErrors(Group):
    """Print usage errors and ``ReasonRLError`` as one redacted line, with their exit code."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> object:
        words = list(sys.argv[1:] if args is None else args)
        with raise_signals(), redacted_output(has_json="--json" in words):
            return self._main(words, *rest, **options)

    def _main(self, words: list[str], *rest: Any, **options: Any) -> object:
        is_alone = options.pop("standalone_mode", True)
        options["standalone_mode"] = False
        try:
            result = self._explaining_usage(words, *rest, **options)
            if result == EXIT_INTERRUPTED:  # also typer's, for a signal that came while one was handled
                result = exit_status(EXIT_INTERRUPTED)
            sys.stdout.flush()  # as the interpreter would at its end, with a traceback if the disk is full
        except OSError as err:
            if err.strerror is None:
                raise
            _print_error(describe_os_error(err), err)
            result = 1
        if is_alone:
            sys.exit(result if isinstance(result, int) else 0)
        return result

    def _explaining_usage(self, words: list[str], *rest: Any, **options: Any) -> object:
        try:
            return super().main(words, *rest, **options)
        except Exception as err:
            if not is_wrong_usage(err):
                raise
            return _handle_usage_error(err, words)

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except ReasonRLError as err:
            _print_error(with_notes(one_line(err), err), err)
            # A plugin may raise one of its own, with any exit code.
            raise typer.Exit(err.exit_code if err.exit_code in (1, 2, 3) else 1) from err
        except KeyboardInterrupt as err:
            status = end_by(err, EXIT_INTERRUPTED)
            typer.echo("interrupted", err=True)
            raise typer.Exit(status) from err
        except OSError as err:  # of the disk or a file; a wrong program raises others
            if isinstance(err, BrokenPipeError) or err.strerror is None:
                raise
            _print_error(describe_os_error(err), err)
            raise typer.Exit(2 if err.filename is not None and err.errno in UNUSABLE_PATH else 1) from err
        except BaseException as err:
            if not isinstance(err, Exception) and not is_panic(err):
                raise
            if explained := explain_library(err):
                _print_error(explained[0], err)
                raise typer.Exit(explained[1]) from err
            text = redact_traceback(err)
            is_shown = REDACTED in text or sys.stderr.isatty()
            if hasattr(err, "exit_code") or not is_shown:  # typer's own, or nothing to redact or wrap
                raise
            typer.echo(for_terminal(text, stream=sys.stderr), err=True, nl=False)
            raise typer.Exit(1) from None


def _handle_usage_error(err: Exception, words: Sequence[str]) -> int:
    if asks_for_help(err):
        typer.echo(err.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    _print_error(explain(err, words), err)
    return 2


def _print_error(text: str, error: BaseException) -> None:
    """Print one error line, wrapped at words in a terminal, unless another process does."""
    if not is_left_to_first(error):
        typer.echo(for_terminal(f"error: {text}", stream=sys.stderr), err=True)
