"""Creating, naming and locking the folder of a run."""

import logging
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from reasonrl.errors import CheckpointError, RecipeError, RunDirInUseError
from reasonrl.rundir import files
from reasonrl.rundir.jsonl import end_of_lines
from reasonrl.rundir.layout import (
    EVALS,
    FILES,
    FOLDERS,
    LOCK,
    METRICS,
    SUMMARY,
    TRACEBACK,
    TRANSCRIPTS,
    find_steps,
    is_data_of_run,
)
from reasonrl.text import clip

log = logging.getLogger(__name__)

INSIDE_BYTES = 512
"""For the names of a run's folder and of the files in it."""
LOCK_WAIT_S = 0.5
"""Commands that only look whether a run is in use hold its lock for a moment."""


class RunDir:
    """A folder that this process created and holds locked until ``close``."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock
        self._handle = files.open_folder(path)

    @classmethod
    def create(cls, *, output_dir: str | Path, name: str, explicit: str | Path | None = None) -> "RunDir":
        """Make ``explicit``, or the next free ``output_dir/name-<n>``.

        Raises:
            RecipeError: ``explicit`` exists already, or its parent cannot be written.
            RunDirInUseError: ``explicit`` is held by another run.
        """
        _refuse_empty(explicit)
        parent = Path(explicit).absolute().parent if explicit is not None else Path(output_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            hidden = parent / f".{name}-{secrets.token_hex(8)}.tmp"
            hidden.mkdir()
        except OSError as err:
            raise RecipeError(_cannot_create(parent, err)) from err
        lock = _lock_of(hidden)
        try:
            lock.acquire(timeout=0)
            path = _place(hidden, parent, name, Path(explicit) if explicit is not None else None)
        except BaseException as err:
            lock.release()
            files.discard(hidden)
            if isinstance(err, OSError):
                raise RecipeError(_cannot_create(parent, err)) from err
            raise
        return cls(path, lock)

    @classmethod
    def reopen(cls, path: Path) -> "RunDir":
        """Lock an existing run folder; the lock of a process that died is free.

        Raises:
            RunDirInUseError: if another process holds it.
            RecipeError: if it cannot be locked, or holds something odd in place of what a run writes.
        """
        _refuse_odd(path)
        lock = _lock_of(path)
        try:
            lock.acquire(timeout=LOCK_WAIT_S, poll_interval=0.02)
        except Timeout as err:
            raise RunDirInUseError(f"run folder {path} is in use by another run; wait for it, or stop it") from err
        except OSError as err:
            raise RecipeError(
                f"cannot lock the run folder {path}: {err.strerror or err}; copy it to where you may write, and resume "
                "there"
            ) from err
        return cls(path, lock)

    def rewind(self, step: int, metrics_bytes: int) -> None:
        """Forget what was written after the end of ``step``; -1 = everything that a run writes as it goes."""
        metrics = self.path / METRICS
        if metrics.exists():
            if metrics.stat().st_size < metrics_bytes:
                log.warning("%s lost lines of steps up to %d; the run itself is whole", metrics, step)
                metrics_bytes = end_of_lines(metrics)  # to half a line the next one would be added
            files.unshare(metrics)
            os.truncate(metrics, metrics_bytes)
        transcripts = find_steps(self.path.glob(f"{TRANSCRIPTS}/*"), ".jsonl")
        for written, entry in [*transcripts, *find_steps(self.path.glob(f"{EVALS}/*"))]:
            if written > step:
                files.delete(entry)
        for stale in (self.path / SUMMARY, self.path / TRACEBACK):
            stale.unlink(missing_ok=True)
            files.temporary_path(stale).unlink(missing_ok=True)

    def check_there(self) -> None:
        """Raise CheckpointError if the folder was renamed or deleted.

        Written to again, it would be half a run; and another run may be in its place, which this one would destroy.
        """
        if not files.is_opened_folder(self._handle, self.path):
            raise CheckpointError(
                f"the run folder {self.path} was renamed or deleted during the run; to continue a renamed one: "
                "reasonrl resume with its new name"
            )

    def write_json(self, name: str, data: Mapping[str, object]) -> None:
        """Write a JSON file without secrets, atomically."""
        self.check_there()
        files.write_json(self.path / name, data)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file so that it is there whole or not at all."""
        self.check_there()
        files.write_atomic(self.path / name, text)

    def discard(self) -> None:
        """Delete the folder."""
        files.discard(self.path)
        self.close()

    def close(self) -> None:
        """Release the lock. Safe to call twice."""
        self._lock.release()
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None


def _refuse_odd(path: Path) -> None:
    """Refuse a folder where a file belongs, and the reverse; a FIFO would have the run wait forever."""
    expected = {**dict.fromkeys(FILES, "file"), **dict.fromkeys(FOLDERS, "folder")}
    for name, kind in expected.items():
        is_right = os.path.isfile if kind == "file" else os.path.isdir
        if os.path.lexists(path / name) and not is_right(path / name):
            raise RecipeError(f"{path / name} is not a {kind}; move it away, then resume")


def _lock_of(folder: Path) -> FileLock:
    # Told the permissions, since older versions of filelock do not follow the umask.
    return FileLock(folder / LOCK, mode=files.plain_mode(folder) | 0o600)


def _place(hidden: Path, parent: Path, name: str, explicit: Path | None) -> Path:
    """Give the locked folder its name in one step, so that a racing run never meets one not yet locked."""
    while True:
        path = explicit if explicit is not None else _next_free(parent, name)
        if not os.path.lexists(path):  # a rename would replace an empty folder
            try:
                # Every run folder holds its lock file, and a rename onto a folder that is not empty fails.
                hidden.rename(path)
                return path
            except OSError:
                if not os.path.lexists(path):
                    raise
        if explicit is not None:
            _refuse_existing(explicit)


def _refuse_empty(explicit: str | Path | None) -> None:
    if explicit is not None and not str(explicit).strip():
        raise RecipeError("--run-dir is empty; name a folder, or omit it for a numbered one")


def _cannot_create(parent: Path, err: OSError) -> str:
    found = next((p for p in (parent, *parent.parents) if os.path.lexists(p)), parent)
    reason = (err.strerror or str(err)) if found.is_dir() else f"{found} is not a folder"
    return f"cannot create a run folder in {parent}: {reason}; choose another place"


def refuse_taken(explicit: str | Path | None) -> None:
    """Refuse early what ``RunDir.create`` would refuse after the model was loaded."""
    _refuse_empty(explicit)
    if explicit is not None and Path(explicit).exists():
        _refuse_existing(Path(explicit))


def refuse_in_use(path: Path) -> None:
    """Raises RunDirInUseError if another process holds the run folder now."""
    if (path / LOCK).exists():
        RunDir.reopen(path).close()


def refuse_unwritable(output_dir: str | Path, explicit: str | Path | None) -> None:
    """Refuse early a place where ``RunDir.create`` could make no folder.

    Raises:
        RecipeError: . Leaves nothing behind; what lies between is made by ``RunDir.create`` only.
    """
    place = Path(output_dir if explicit is None else explicit)
    if is_data_of_run(place):
        raise RecipeError(f"{place} lies among a run's own files; choose another folder")
    parent = _parent(output_dir, explicit)
    existing = nearest_folder(output_dir, explicit)
    _refuse_too_long(parent, existing)
    try:
        # Asking for permissions is not enough: read-only and virtual file systems refuse in their own ways.
        os.rmdir(tempfile.mkdtemp(prefix=".reasonrl-", dir=existing))
    except OSError as err:
        raise RecipeError(_cannot_create(parent, err)) from err


def nearest_folder(output_dir: str | Path, explicit: str | Path | None) -> Path:
    """What exists of the path in which ``RunDir.create`` makes a folder."""
    parent = _parent(output_dir, explicit)
    return next(p for p in (parent, *parent.parents) if os.path.lexists(p))


def _parent(output_dir: str | Path, explicit: str | Path | None) -> Path:
    return Path(explicit).absolute().parent if explicit is not None else Path(output_dir).absolute()


def _refuse_too_long(parent: Path, existing: Path) -> None:
    """Folders that do not exist yet, and the files of a run in them, must fit the limits of the file system."""
    try:
        name, path = os.pathconf(existing, "PC_NAME_MAX"), os.pathconf(existing, "PC_PATH_MAX")
    except (OSError, ValueError, AttributeError):  # unknown there
        return
    longest = max((len(os.fsencode(part)) for part in parent.parts), default=0)
    if longest > name or len(os.fsencode(parent)) + INSIDE_BYTES > path:
        raise RecipeError(
            f"cannot create a run folder in {clip(str(parent), 200)}: name too long; choose another place"
        )


def _refuse_existing(path: Path) -> NoReturn:
    with suppress(RecipeError):  # another user's lock: whether it is held cannot be known, that the folder exists can
        refuse_in_use(path)
    raise RecipeError(
        f"run folder {path} already exists; choose another --run-dir, or continue with `reasonrl resume {path}`"
    )


def _next_free(parent: Path, name: str) -> Path:
    taken = re.compile(re.escape(name) + r"-(\d+)")
    numbers = [int(m.group(1)) for entry in parent.iterdir() if (m := taken.fullmatch(entry.name))]
    return parent / f"{name}-{max(numbers, default=0) + 1}"


def is_locked(run_dir: Path) -> bool | None:
    """Whether a process holds the folder's lock; None where that cannot be known. Changes nothing."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        handle = os.open(run_dir / LOCK, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO in its place would wait forever
    except OSError as err:
        return False if isinstance(err, FileNotFoundError) else None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False
