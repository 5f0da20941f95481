"""System calls that Python 3.11 has no function for. Linux."""

import contextlib
import ctypes
import os
import platform
import struct
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 36, 38, 22
AT_RECURSIVE, ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x8000, 1, 2, 4
NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "mount_setattr": 442, "landlock": 444},
    "aarch64": {"pivot_root": 41, "capset": 91, "mount_setattr": 442, "landlock": 444},
}
"""Numbers of system calls that the C library has no function for, by machine."""

PR_SET_KEEPCAPS, PR_CAP_AMBIENT, AMBIENT_RAISE, CAP_DAC_READ_SEARCH = 8, 47, 2, 2
_CAPABILITIES_V3 = 0x20080522


def machine() -> str:
    """The architecture, as the kernel names it."""
    return platform.machine()


def number(name: str) -> int:
    """Return the number of a system call.

    Raises:
        OSError: on a machine that the table does not have.
    """
    try:
        return NUMBERS[machine()][name]
    except KeyError:
        raise OSError(f"{name}: unknown on {machine()}") from None


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library.

    Raises:
        OSError: if it fails, or there is none such.
    """
    try:
        result = int(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments))
    except AttributeError:
        raise OSError(f"{name}: not on this system") from None
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, value: Any, third: Any = 0) -> None:
    """Set an attribute of this process."""
    call("prctl", option, value, third, 0, 0)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or bind a path."""
    call("mount", source.encode(), target.encode(), kind and kind.encode(), flags, options.encode() or None)


def make_read_only(target: str, *, recursive: bool = True) -> None:
    """Make a mount and those below it read-only, without set-user-id programs and devices."""
    attributes = struct.pack("=QQQQ", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    call("syscall", number("mount_setattr"), -100, target.encode(), flags, attributes, len(attributes))


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root and move the old root to ``old``."""
    call("syscall", number("pivot_root"), new.encode(), old.encode())


def keep_capabilities() -> None:
    """Have the next change of user leave the capabilities that are permitted."""
    prctl(PR_SET_KEEPCAPS, 1)


def drop_capabilities(but: int | None = None) -> None:
    """Give up every capability of this process and of what it starts, or every one ``but`` this."""
    bits = 0 if but is None else 1 << but
    header, data = struct.pack("=Ii", _CAPABILITIES_V3, 0), struct.pack("=6I", bits, bits, bits, 0, 0, 0)
    call("syscall", number("capset"), header, data)
    if but is not None:
        prctl(PR_CAP_AMBIENT, AMBIENT_RAISE, but)


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process ``signal`` when its parent ends."""
    with contextlib.suppress(OSError):
        prctl(PR_SET_PDEATHSIG, signal)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends."""
    with contextlib.suppress(OSError):
        prctl(PR_SET_CHILD_SUBREAPER, 1)
