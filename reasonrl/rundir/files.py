"""The file-system calls that a checkpoint is made of, each by itself: what can fail, fails here."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from reasonrl.redact import redact_data

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of what is done to ``path`` inside name it: one of a write, as on a full disk, names no file."""
    try:
        yield
    except OSError as err:
        if err.filename is None:
            err.filename = str(path)
        raise


def make_folder(path: Path) -> None:
    """A new folder, with its parents."""
    path.mkdir(parents=True)


def write_text(path: Path, text: str) -> None:
    """A new file; not synced."""
    with naming(path), open_to_write(path, "w") as file:
        file.write(text)


def open_to_write(path: Path, mode: Literal["a", "w"], *, errors: str | None = None) -> TextIO:
    """Open a text file to write. A FIFO that has taken its place is refused: it may keep a run waiting forever.

    Raises:
        OSError: If it is one, or cannot be opened.
    """
    return open(path, mode, encoding="utf-8", errors=errors, opener=_open_no_fifo)


def _open_no_fifo(path: str, flags: int) -> int:
    try:
        handle = _open_at_once(path, flags)
    except OSError as err:
        if err.errno != errno.ENXIO:  # a FIFO without a reader
            raise
    else:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    raise OSError(errno.EINVAL, "is a FIFO, expected a file", path)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def unlink_shared(path: Path) -> None:
    """Remove a file that is linked to from elsewhere, as in a copy by hard links, where writing would change it."""
    with suppress(FileNotFoundError):
        if path.stat().st_nlink > 1:
            path.unlink()


def unshare(path: Path) -> None:
    """Make a file that is linked to from elsewhere one of its own, with the same content."""
    if path.stat().st_nlink > 1:
        temporary = temporary_path(path)
        shutil.copy2(path, temporary)
        _replace(temporary, path)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet. What is half written is removed.

    Raises:
        FileExistsError: if it is there.
    """
    path.open("x").close()
    try:
        write_text(path, text)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            path.unlink()
        raise


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` in one step; synced. What is half written is removed."""
    temporary = temporary_path(path)
    try:
        write_text(temporary, text)
        sync_file(temporary)
        _replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink()
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Rename; an error names the file that cannot be replaced, not the temporary one."""
    try:
        temporary.replace(path)
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(path)) from err


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Replace ``path`` with ``data`` as JSON, without secrets, in one step; synced."""
    write_atomic(path, json.dumps(redact_data(data), indent=2, ensure_ascii=False) + "\n")


def temporary_path(path: Path) -> Path:
    """Where ``write_atomic`` writes first."""
    return path.with_name(f".{path.name}.tmp")


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """A new safetensors file, of the format that transformers asks for; not synced."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def follow_umask(folder: Path) -> None:
    """Give the files of a folder that was made here the permissions of files made with ``open``.

    safetensors makes its files readable for their owner alone.
    """
    for path in list_files(folder):
        path.chmod(plain_mode(folder))


def plain_mode(folder: Path) -> int:
    """The permissions of a new file in a folder that was made under the present umask."""
    # Asking for the umask itself means to change it, for all threads.
    return folder.stat().st_mode & 0o666


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk, if it is on one."""
    with naming(path), open(path, "rb", opener=_open_at_once) as file:
        try:
            os.fsync(file.fileno())
        except OSError as err:
            if err.errno != errno.EINVAL:  # a device, or a FIFO
                raise


def sync_folder(path: Path) -> None:
    """Wait until the folder's entries are on the disk."""
    if os.name == "nt":
        return  # Windows opens no folders, and its renames need no such help
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_folder(path: Path) -> int | None:
    """A handle that tells the folder from another one in its place; None on Windows, where folders in use stay."""
    return os.open(path, os.O_RDONLY) if os.name != "nt" else None


def is_opened_folder(handle: int | None, path: Path) -> bool:
    """Whether ``path`` is the folder of a handle of ``open_folder``, or any folder if the handle is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    opened = None
    with suppress(OSError):  # a network file system may have dropped the handle
        opened = os.fstat(handle) if handle is not None else None
    return stat.S_ISDIR(found.st_mode) and (opened is None or os.path.samestat(found, opened))


def move(source: Path, target: Path) -> None:
    """Rename within one folder, in one step. ``target`` does not exist."""
    source.rename(target)


def delete(path: Path) -> None:
    """Remove a folder with all that it holds, a file, or a link but not what it points to; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder that was made here, as far as possible; also one that the umask closes to its owner."""
    with suppress(OSError):
        folder.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def list_files(folder: Path) -> list[Path]:
    """Every file below ``folder``, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def list_folders(folder: Path) -> list[Path]:
    """``folder`` and every folder below it, the deepest first."""
    return [*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder]


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
