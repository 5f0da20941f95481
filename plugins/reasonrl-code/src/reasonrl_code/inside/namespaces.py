"""A sandbox of namespaces: its own processes, network and mounts, as bubblewrap makes it where it is installed."""

import contextlib
import os
from pathlib import Path
from typing import Any

from reasonrl_code.inside import system

_STAGE = "/tmp"
_NEW = "/new"
_OLD = "/old"


def enter(settings: dict[str, Any]) -> None:
    """Move this process into new namespaces. Its next child is the first process in there.

    Raises:
        OSError: if the system does not allow it.
    """
    flags = system.NEWNS | system.NEWPID | system.NEWIPC | system.NEWUTS
    if not settings["network"]:
        flags |= system.NEWNET
    if os.geteuid() == 0:
        system.call("unshare", flags)
    else:
        _enter_as_user(flags)
    _build(settings)


def _enter_as_user(flags: int) -> None:
    user, group = os.geteuid(), os.getegid()
    system.call("unshare", flags | system.NEWUSER)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"65534 {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"65534 {group} 1", encoding="ascii")


def _build(settings: dict[str, Any]) -> None:
    """Build a root that holds what a program may see, and nothing else."""
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    safe = system.MS_NOSUID | system.MS_NODEV
    system.mount("tmpfs", _STAGE, "tmpfs", safe, "size=1m,mode=755")
    for folder in (_NEW, _OLD):
        os.mkdir(_STAGE + folder)
    system.pivot_root(_STAGE, _STAGE + _OLD)
    os.chdir("/")
    system.mount("tmpfs", _NEW, "tmpfs", safe, "size=1m,mode=755")
    for path in settings["readable"]:
        _bind(path)
    for path in settings["devices"]:
        _bind(path, device=True)
    for path, target in settings["links"].items():
        _make_parent(_NEW + path)
        os.symlink(target, _NEW + path)
    for path in settings["hidden"]:
        system.mount("tmpfs", _NEW + path, "tmpfs", safe | system.MS_RDONLY, "size=4k,mode=755")
    _make_folder(_NEW + settings["work"])
    options = f"size={settings['work_bytes']},nr_inodes={settings['work_files']},mode=777"
    system.mount("tmpfs", _NEW + settings["work"], "tmpfs", safe, options)
    system.call("umount2", _OLD.encode(), system.MNT_DETACH)
    os.chdir(_NEW)
    system.pivot_root(".", ".")
    system.call("umount2", b".", system.MNT_DETACH)
    os.chdir("/")
    system.make_read_only("/", recursive=False)


def _bind(path: str, *, device: bool = False) -> None:
    source, target = Path(_OLD + path), Path(_NEW + path)
    if not source.exists():
        return
    if source.is_dir():
        _make_folder(str(target))
    else:
        _make_parent(str(target))
        target.touch()
    system.mount(str(source), str(target), None, system.MS_BIND | system.MS_REC)
    if not device:
        system.make_read_only(str(target))


def _make_folder(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)


def _make_parent(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
