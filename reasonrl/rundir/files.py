"""The file-system calls that a checkpoint is made of, each by itself: what can fail, fails here."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
    with naming(path), path.open("w", encoding="utf-8") as file:
        file.write(text)


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
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink()
        raise


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
    with naming(path), path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as err:
            if err.errno != errno.EINVAL:  # a device
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


def move(source: Path, target: Path) -> None:
    """Rename within one folder, in one step. ``target`` does not exist."""
    source.rename(target)


def delete(path: Path) -> None:
    """Remove a folder with all that it holds, a file, or a link but not what it points to; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
