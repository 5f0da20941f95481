"""What of this machine a program sees: the system's libraries and Python's standard library, read-only."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from reasonrl_code.limits import MIB, Limits

WORK = "/sandbox"
MAX_FILES = 4096
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_FOR_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ca-certificates")
_HOME_OF_PACKAGE = "/reasonrl"
_INSIDE = Path(__file__).resolve().parent / "inside"
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from reasonrl_code.inside.{module} import main; "
    "del sys.path[0]; main({argument})"
)
_FLAGS = ("-s", "-S", "-P", "-c")


def environment(home: str = WORK) -> dict[str, str]:
    """All variables that a program has."""
    names = {"HOME": home, "TMPDIR": home, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    return {**names, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def python() -> str:
    """The interpreter without the packages of its environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def launcher_command(descriptor: int) -> list[str]:
    """Command of the process that starts sandboxes."""
    boot = _BOOT.format(module="launcher", argument="int(sys.argv[1])")
    return [python(), *_FLAGS, boot, str(_INSIDE.parents[1]), str(descriptor)]


def settings(method: str, limits: Limits, work: str) -> dict[str, Any]:
    """All that the processes of a sandbox need to know."""
    wants_seccomp = method != "none"
    return {
        "method": method,
        "work": work,
        "work_bytes": limits.files_mb * MIB,
        "work_files": MAX_FILES,
        "readable": readable(limits),
        "devices": list(DEVICES),
        "hidden": hidden(),
        "links": links(),
        "seconds": limits.seconds,
        "wall": limits.wall_s,
        "memory_bytes": limits.memory_mb * MIB,
        "file_bytes": limits.files_mb * MIB,
        "output_bytes": limits.output_kb * 1024,
        "processes": limits.processes,
        "network": limits.allow_network,
        "shared": method == "process",
        "seccomp": wants_seccomp,
        "landlock": False,
    }


def readable(limits: Limits) -> list[str]:
    """Existing files and folders that a program may read; links are listed by ``links``."""
    own = [os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix, os.path.dirname(python()))]
    paths = [*_SYSTEM, *own, "/etc/ld.so.cache", "/etc/localtime", *(_FOR_NETWORK if limits.allow_network else ())]
    found: list[str] = []
    for path in paths:
        is_new = not any(path == other or path.startswith(other + "/") for other in found)
        if path != "/" and is_new and os.path.exists(path) and not (path in _SYSTEM and os.path.islink(path)):
            found.append(path)
    return found


def links() -> dict[str, str]:
    """Links among the folders of the system, such as /lib."""
    return {path: os.readlink(path) for path in _SYSTEM if os.path.islink(path)}


def hidden() -> list[str]:
    """Folders of installed packages among what is readable: this one may be there, with its examples."""
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    folders = {os.path.realpath(paths[name]) for name in ("purelib", "platlib")}
    folders |= {str(path) for root in {sys.base_prefix, "/usr", "/usr/local"} for path in _package_folders(root)}
    return sorted(folder for folder in folders if os.path.isdir(folder))


def _package_folders(root: str) -> list[Path]:
    lib = Path(os.path.realpath(root)) / "lib"
    return [path for name in ("site-packages", "dist-packages") for path in lib.glob(f"python3*/{name}")]


def bubblewrap_command(limits: Limits, method_settings: dict[str, Any], *, as_root: bool) -> list[str]:
    """The command line of bubblewrap; the settings of the supervisor follow it.

    Raises:
        OSError: if bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise OSError("bubblewrap is not installed")
    command = [bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox"]
    if not limits.allow_network:
        command.append("--unshare-net")
    if as_root:
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    bound = f"{_HOME_OF_PACKAGE}/reasonrl_code/inside"
    for folder in _parents([*method_settings["readable"], *method_settings["devices"], bound]):
        command += ["--perms", "0755", "--dir", folder]
    for path in method_settings["readable"]:
        command += ["--ro-bind", path, path]
    for path in method_settings["devices"]:
        command += ["--dev-bind-try", path, path]
    for path, target in method_settings["links"].items():
        command += ["--symlink", target, path]
    for path in method_settings["hidden"]:
        command += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
    command += ["--ro-bind", str(_INSIDE), bound]
    command += ["--perms", "0777", "--size", str(method_settings["work_bytes"]), "--tmpfs", WORK]
    command += ["--remount-ro", "/", "--chdir", WORK, "--clearenv"]
    for name, value in environment().items():
        command += ["--setenv", name, value]
    boot = _BOOT.format(module="supervisor", argument="")
    return [*command, "--", python(), *_FLAGS, boot, _HOME_OF_PACKAGE]


def _parents(paths: list[str]) -> list[str]:
    """All folders above these, outermost first; bubblewrap would make them for its own user alone."""
    return sorted({str(folder) for path in paths for folder in Path(path).parents if str(folder) != "/"})
