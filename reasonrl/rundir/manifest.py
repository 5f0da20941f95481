"""``manifest.json``: size and sha256 of every file of a checkpoint, written last. Without it there is no checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypedDict

from reasonrl.errors import CheckpointError
from reasonrl.rundir import files
from reasonrl.rundir.layout import MANIFEST
from reasonrl.rundir.reading import parse_json, read_bytes

SCHEMA = 1


class Entry(TypedDict):
    """A file in a manifest."""

    bytes: int
    sha256: str


def sync_entry(path: Path) -> Entry:
    """Sync a file that is whole, and say what a manifest says of it."""
    files.sync_file(path)
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path)}


def write_manifest(folder: Path, known: Mapping[str, Entry] = MappingProxyType({})) -> None:
    """Sync every file of ``folder``, then list them in a manifest, and sync that and the folders.

    Args:
        known: files by name that are synced and hashed already.
    """
    names = {path.relative_to(folder).as_posix() for path in files.list_files(folder)} | known.keys()
    listed = {name: known.get(name) or sync_entry(folder / name) for name in sorted(names)}
    files.write_text(folder / MANIFEST, _text({"schema": SCHEMA, "files": listed}))
    files.sync_file(folder / MANIFEST)
    for inner in files.list_folders(folder):
        files.sync_folder(inner)


def check_manifest(folder: Path, *, deep: bool = True) -> str | None:
    """What is wrong with a checkpoint, as ``file: reason``; None if it is what was written.

    Args:
        deep: read every file and compare its hash; else sizes only.
    """
    try:
        listed = _read(folder)
        for name, entry in listed.items():
            if problem := _check_file(folder / name, entry, deep=deep):
                return f"{name}: {problem}"
    except OSError as err:
        return f"cannot be read: {err.strerror or err}"
    except _Malformed as err:
        return f"{MANIFEST}: {err}"
    return None


def list_manifest_files(folder: Path) -> list[str]:
    """Names in the manifest. Raises CheckpointError if there is none that can be read."""
    try:
        return sorted(_read(folder))
    except (OSError, _Malformed) as err:
        raise CheckpointError(f"{folder / MANIFEST}: {err}") from err


def _text(manifest: object) -> str:
    return json.dumps(manifest, indent=2) + "\n"


class _Malformed(ValueError):
    """A manifest that says nothing useful."""


def _read(folder: Path) -> dict[str, object]:
    path = folder / MANIFEST
    if not path.is_file():
        raise _Malformed("is missing; the checkpoint was never finished, or an earlier version wrote it")
    try:
        text = read_bytes(path).decode("utf-8")
        manifest = parse_json(text)
    except ValueError as err:
        raise _Malformed("is not JSON") from err
    if text != _text(manifest):
        raise _Malformed("its content changed after it was saved")
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or not listed or manifest.get("schema") != SCHEMA:
        raise _Malformed(f"is not a manifest of schema {SCHEMA}")
    for name in listed:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _Malformed(f"names a file outside of the checkpoint: {name!r}")
    return listed


def _check_file(path: Path, entry: object, *, deep: bool) -> str | None:
    if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
        return "its entry in the manifest is damaged"
    if path.is_symlink() or not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"has {size} bytes, expected {entry['bytes']}"
    if deep and files.sha256(path) != entry["sha256"]:
        return "its content changed after it was saved (sha256 differs)"
    return None
