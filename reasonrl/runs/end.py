"""End a run: shut down the backend, write the summary, turn an error into one line."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.errors import (
    RAISABLE,
    PluginContractError,
    ProcessError,
    ReasonRLError,
    TrainingError,
    UnexpectedError,
    describe,
    is_out_of_memory,
    with_notes,
)
from reasonrl.runs.connection import explain_lost, is_lost
from reasonrl.runs.open import OpenRun
from reasonrl.runs.out_of_memory import explain_out_of_memory
from reasonrl.runs.result import RunResult
from reasonrl.trainer.ranks import Ranks

log = logging.getLogger(__name__)


def carry_out(run: OpenRun, backend: RolloutBackend, work: Callable[[RolloutBackend], None]) -> RunResult:
    """Start the backend, run ``work(backend)``, and leave a truthful summary however they end.

    Raises:
        KeyboardInterrupt: if a signal stopped the run.
        ReasonRLError: whatever of this kind ``work`` raises.
        UnexpectedError: for anything else.
    """
    try:
        run.stop.allow()
        with _enter(backend, run.checkpointer.ranks) as running:
            work(running)
    except BaseException as err:
        run.stop.defer()  # a signal from here on must not tear the summary
        final = _final_error(err, run)
        try:
            run.finish("interrupted" if isinstance(err, KeyboardInterrupt) else "failed", err)
        except Exception as second:  # noqa: BLE001 - what ended the run is the error to report
            log.error("cannot write the summary of the run: %s", describe(second))
        if final is err:
            raise
        raise final from err
    run.stop.defer()
    try:
        summary = run.finish("completed")
    except OSError as err:
        raise _final_error(err, run) from err
    return RunResult(outcome="completed", run_dir=run.path, model_path=run.checkpointer.model_path, summary=summary)


@contextmanager
def _enter(backend: RolloutBackend, ranks: Ranks) -> Iterator[RolloutBackend]:
    """The backend. An error of its shutdown does not hide an earlier error."""
    running: RolloutBackend | None = None
    try:
        with ranks.together():
            running = backend.__enter__()
        yield running
    except BaseException as err:
        try:
            if running is not None:
                backend.__exit__(type(err), err, err.__traceback__)
        except RAISABLE as second:
            log.error("the rollout backend failed to shut down: %s", describe(second))
        raise
    backend.__exit__(None, None, None)


def _final_error(error: BaseException, run: OpenRun) -> BaseException:
    """``error``, or UnexpectedError for one that is not ours; its notes name the saved step and the traceback."""
    if isinstance(error, KeyboardInterrupt):
        return error
    is_foreseen = isinstance(error, ReasonRLError)
    text, changes = "", ""
    if run.path is not None and isinstance(error, OSError) and _is_of_run(error, run.path):
        text = f"cannot write {error.filename}: {error.strerror}; make room if the disk is full"
        return _with_ways_on(TrainingError(text), run)
    if isinstance(error, ProcessError) or is_lost(error):
        return _with_ways_on(error if is_foreseen else explain_lost(error), run)
    if not is_foreseen:
        text, changes = _unexpected_text(error, run)
    final = error if is_foreseen else UnexpectedError(text)
    if is_foreseen and not isinstance(error, PluginContractError):
        return final
    _with_ways_on(final, run, changes)
    if kept := run.writer.keep_traceback(error):
        final.add_note(f"traceback: {kept}")
    return final


def _is_of_run(error: OSError, run_dir: Path) -> bool:
    """Whether a file of the run could not be written. The message says all; a traceback would add nothing."""
    return error.strerror is not None and isinstance(error.filename, str) and run_dir in Path(error.filename).parents


def _with_ways_on(final: BaseException, run: OpenRun, changes: str = "") -> BaseException:
    """``final``, which says what is saved and how to continue."""
    if run.path is not None:
        saved = run.checkpointer.model_path
        final.add_note(f"saved: {saved.name if saved else 'nothing yet'}")
        final.add_note(" ".join(["to continue: reasonrl resume", str(run.path), *changes.split()]))
    return final


def _unexpected_text(error: BaseException, run: OpenRun) -> tuple[str, str]:
    """The error in one line, and what a resumed run is to change."""
    if not is_out_of_memory(error):
        return with_notes(describe(error), error), ""
    checkpointer = run.checkpointer
    text, changes = explain_out_of_memory(error, checkpointer.identity["recipe"], checkpointer.ranks.device)
    return with_notes(text, error), changes
