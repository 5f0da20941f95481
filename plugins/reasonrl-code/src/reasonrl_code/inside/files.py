"""Emptying a folder that a program has filled."""

import contextlib
import os


def empty(folder: str) -> bool:
    """Remove all that is in a folder, however deep and whatever its modes; whether that worked.

    Follows no links. Changes the working folder of this process; no other process may write to the folder meanwhile.
    """
    try:
        _enter(folder)
        _empty_here()
        return not os.listdir(".")
    except OSError:
        return False
    finally:
        os.chdir("/")


def remove(folder: str) -> None:
    """Remove a folder and all that is in it."""
    empty(folder)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _enter(name: str) -> None:
    with contextlib.suppress(OSError):  # of another owner; fine if it can be entered
        os.chmod(name, 0o700)
    os.chdir(name)


def _empty_here() -> None:
    """Go down into the first folder that is not empty, and up again when it is: no depth is too much."""
    entered: list[str] = []
    while True:
        below = _remove_until_folder()
        if below is not None:
            _enter(below)
            entered.append(below)
        elif entered:
            os.chdir("..")
            os.rmdir(entered.pop())
        else:
            return


def _remove_until_folder() -> str | None:
    """Remove what is here up to a folder that is not empty, and return its name; None = all is removed."""
    with os.scandir(".") as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name)
                continue
            try:
                os.rmdir(entry.name)
            except OSError:
                return entry.name
    return None
