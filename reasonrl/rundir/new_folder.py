"""Make a folder that is there whole, or not at all."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from reasonrl.errors import CheckpointError
from reasonrl.rundir import files
from reasonrl.signals import interruptible, uninterrupted


@contextmanager
def new_folder(target: Path | None) -> Iterator[Path]:
    """Yield a temporary folder whose content is moved to ``target`` when the block ends well, and deleted otherwise.

    ``target``: a new folder or an empty one; None to keep nothing.
    """
    made: list[Path] = []
    temporary: Path | None = None
    with uninterrupted():
        try:
            place = _find_place(target, made)
            temporary = Path(tempfile.mkdtemp(prefix=".reasonrl-", dir=place))
            folder = temporary / "content"  # not as private as the temporary one
            folder.mkdir()
            with interruptible():
                yield folder
            if target is not None:
                _move(folder, target, is_there=place == target)
        finally:
            _clear(temporary, made)


@contextmanager
def explain_failure(target: Path | None, *, what: str, flag: str) -> Iterator[None]:
    """Turn what the file system refuses inside the block into one line.

    Args:
        target: the folder; ``what``: name of its content; ``flag``: the option that chooses the folder.

    Raises:
        CheckpointError: for an error of the file system.
    """
    try:
        yield
    except (OSError, SafetensorError) as err:  # a full disk reaches us as either
        where = f" to {target}" if target is not None else ""
        raise CheckpointError(
            f"cannot write the {what}{where}: {getattr(err, 'strerror', None) or err}; make room if the disk is full, "
            f"or choose another folder with {flag}"
        ) from err


def _find_place(target: Path | None, made: list[Path]) -> Path | None:
    """Where to write first: on the same file system, so inside of a folder that may be a mount point."""
    if target is None or target.is_dir():
        return target
    parent = target.absolute().parent
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        made.insert(0, folder)
    return parent


def _move(folder: Path, target: Path, *, is_there: bool) -> None:
    if not is_there:
        folder.rename(target)  # fails if somebody else has put something there meanwhile
        return
    for entry in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):  # what was written last marks it
        entry.rename(target / entry.name)


def _clear(temporary: Path | None, made: Sequence[Path]) -> None:
    if temporary is not None:
        files.discard(temporary)
    for folder in made:
        with suppress(OSError):  # it is in use
            folder.rmdir()
