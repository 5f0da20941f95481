"""Landlock: restrict a program without a mount namespace to given files. Linux 5.13 or later."""

import os
import stat
import struct
from collections.abc import Iterable

from reasonrl_code.inside.system import PR_SET_NO_NEW_PRIVS, call, number, prctl

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_HANDLED = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_SCOPE_SIGNALS_AND_SOCKETS = 3


def version() -> int:
    """The version of Landlock; 0 = the kernel has none."""
    try:
        return call("syscall", number("landlock"), None, 0, 1)
    except OSError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Restrict this process and all that it starts to these files and folders, for good.

    Raises:
        OSError: if the kernel refuses.
    """
    known = version()
    handled = _HANDLED.get(known, 0xFFFF)
    attributes = struct.pack("=QQQ", handled, 0, _SCOPE_SIGNALS_AND_SOCKETS)
    ruleset = call("syscall", number("landlock"), attributes, 24 if known >= 6 else 8, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, handled)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        call("syscall", number("landlock") + 2, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this system
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        call("syscall", number("landlock") + 1, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)
