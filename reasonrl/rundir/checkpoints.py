"""``checkpoints/step_000020/``: a Hugging Face model folder and the state of the run, there whole or not at all."""

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError

from reasonrl.errors import CheckpointError
from reasonrl.rundir import files
from reasonrl.rundir.holds import claim, hold
from reasonrl.rundir.layout import (
    CHECKPOINTS,
    MANIFEST,
    TRAINER_STATE,
    find_leftovers,
    find_steps,
    is_run,
    step_dir,
)
from reasonrl.rundir.manifest import Entry, check_manifest, write_manifest

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"


def list_saved_steps(run_dir: Path) -> list[int]:
    """Steps that have a folder of a checkpoint, damaged or not, oldest first."""
    folder = run_dir / CHECKPOINTS
    return [step for step, path in find_steps(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


@contextmanager
def new_checkpoint(
    run_dir: Path,
    step: int,
    *,
    keep: int,
    best: int | None = None,
    known: Mapping[str, Entry] = MappingProxyType({}),
) -> Iterator[Path]:
    """A temporary folder to write into; when the block ends it is synced, hashed and moved into place in one step.

    Then all but the last ``keep`` of the steps up to this one, and ``best``, are deleted. ``known``: at the end of the
    block, the files that are synced and hashed already.

    Raises:
        CheckpointError: when the disk refuses; earlier checkpoints are untouched.
    """
    final = step_dir(run_dir, step)
    temporary = final.with_name(f"{_TEMPORARY}{final.name}")
    try:
        with explain_failure(final):
            files.delete(temporary)
            if not os.path.isdir(run_dir):
                raise OSError("the run folder was renamed or deleted")
            files.make_folder(temporary)
            yield temporary
            files.follow_umask(temporary)
            write_manifest(temporary, known)
            _put_in_place(temporary, final)
            if problem := check_manifest(final, deep=False):
                raise OSError(f"the written checkpoint is incomplete: {problem}")
    finally:
        with suppress(OSError):  # moved away if all went well; else the first error is the one to report
            files.delete(temporary)
    _prune(run_dir, step, keep, {best} if best is not None else set())


@contextmanager
def explain_failure(folder: Path) -> Iterator[None]:
    """Raise what fails inside as a CheckpointError that names the checkpoint, and says what to do.

    Args:
        folder: the checkpoint, or its temporary folder.
    """
    final = folder.with_name(folder.name.removeprefix(_TEMPORARY))
    try:
        yield
    except (OSError, SafetensorError, CheckpointError) as err:  # a full disk reaches us as any of them
        cause = err.__cause__ if isinstance(err, CheckpointError) and err.__cause__ else err
        reason = getattr(cause, "strerror", None) or cause
        raise CheckpointError(
            f"cannot save checkpoint {final}: {reason}; earlier checkpoints are kept; make room if the disk is full, "
            f"then `reasonrl resume {final.parent.parent}`"
        ) from err


def _put_in_place(temporary: Path, final: Path) -> None:
    """A checkpoint of the same step makes room only for the moment of the move."""
    replaced = final.with_name(f".old-{final.name}")
    files.delete(replaced)
    if os.path.lexists(final):
        files.move(final, replaced)
    try:
        files.move(temporary, final)
    except OSError:
        if os.path.lexists(replaced):
            files.move(replaced, final)
        raise
    files.sync_folder(final.parent)
    files.sync_folder(final.parent.parent)  # the first checkpoint brings the folder of checkpoints along
    files.delete(replaced)


def _prune(run_dir: Path, step: int, keep: int, spared: Collection[int]) -> None:
    """Delete old checkpoints; each vanishes in one step. A failure costs space, not the run.

    Folders that are no whole checkpoint do not count, so that as many as asked can be resumed from. One that a command
    reads stays until the next save.
    """
    try:
        saved = [at for at in list_saved_steps(run_dir) if at <= step]
        done = [at for at in saved if check_manifest(step_dir(run_dir, at), deep=False) is None]
        for old in done[:-keep]:
            if old not in spared:
                _delete(step_dir(run_dir, old))
    except OSError as err:
        log.warning("cannot delete old checkpoints of %s: %s", run_dir, err.strerror or err)


def _delete(folder: Path) -> None:
    gone = folder.with_name(f".gone-{folder.name}")
    with claim(folder) as is_free:
        if is_free:
            files.move(folder, gone)
    files.delete(gone)


def clear_leftovers(run_dir: Path) -> None:
    """Remove what a killed save or deletion left behind; bring back what it had moved aside."""
    folder = run_dir / CHECKPOINTS
    for entry in find_leftovers(folder.iterdir()) if folder.is_dir() else ():
        kind, _, name = entry.name[1:].partition("-")
        if kind == "old" and not os.path.lexists(folder / name):
            files.move(entry, folder / name)
        else:
            files.delete(entry)


def find_newest_valid(run_dir: Path, *, strict: bool = False) -> Path | None:
    """The newest checkpoint that is what was written; None if the run has none at all. It is held, see ``holds``.

    A corrupted one is skipped with a warning that names the file.

    Raises:
        CheckpointError: if all are corrupted, or with ``strict`` the newest one.
    """
    steps = list_saved_steps(run_dir)
    for step in reversed(steps):
        folder = step_dir(run_dir, step)
        hold(folder)
        problem = check_manifest(folder)
        if problem is None:
            return folder
        if not os.path.lexists(folder):  # a run that trains has deleted it, and saved others
            return find_newest_valid(run_dir, strict=strict)
        if strict:
            raise CheckpointError(f"{folder}: {problem}; without --strict, the newest intact checkpoint is used")
        log.warning("skipping corrupted checkpoint %s: %s", folder, problem)
    if steps:
        raise CheckpointError(
            f"all checkpoints of {run_dir} are corrupted ({len(steps)}); to start over from step 0, "
            f"remove {run_dir / CHECKPOINTS}"
        )
    return None


def refuse_damaged(folder: Path) -> None:
    """Verify a folder if it is a checkpoint, or inside one; other model folders have nothing to compare them with.

    It is held, see ``holds``.

    Raises:
        CheckpointError: if it is not what was written.
    """
    for path in (folder, folder.parent):
        hold(path)
        if _is_checkpoint(path) and (problem := check_manifest(path)):
            raise CheckpointError(f"{path}: {problem}; it is not what was saved: use another checkpoint, or restore it")


def _is_checkpoint(folder: Path) -> bool:
    if (folder / MANIFEST).is_file() and (folder / TRAINER_STATE).is_file():
        return True
    above = folder.absolute().parent
    return above.name == CHECKPOINTS and bool(find_steps([folder.absolute()])) and is_run(above.parent)


def set_aside_later(run_dir: Path, step: int) -> None:
    """Rename checkpoints of later steps: damaged ones, which are in the way of those to come."""
    for later in [saved for saved in list_saved_steps(run_dir) if saved > step]:
        folder = step_dir(run_dir, later)
        number = 1
        while os.path.lexists(aside := folder.with_name(f"damaged-{folder.name}-{number}")):
            number += 1
        files.move(folder, aside)
