"""The sandbox against programs that want more than they get, and with programs that are right."""

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from hostile_programs import PROGRAMS
from sandboxes import (
    GENEROUS,
    SMALL,
    benign_cases,
    function,
    judge_all,
    processes_of_programs,
    stdio,
    working_methods,
)

from reasonrl_code import layout, sandbox
from reasonrl_code.inside import seccomp
from reasonrl_code.limits import Limits
from reasonrl_code.sandbox import Launcher, NoSandboxError

METHODS = working_methods()
NUMBERS = (3, 11, 40)
HOSTILE_FUNCTION = function([f"assert answer({n}) == {n * n + 1}" for n in NUMBERS], "answer")
HOSTILE_STDIO = stdio([(f"{n}\n", f"{n * n + 1}\n") for n in NUMBERS])
NEEDS_NO_NAMESPACE = (
    "fork bomb", "fork bomb of sessions", "daemon by a double fork", "a child that outlives it", "signals to all",
    "limits of other processes", "writes the memory of other processes", "reads the tests from the disk",
    "rewrites the package", "symlinks out of the folder", "files elsewhere", "deep folders", "sockets", "more rights",
    "folders without permissions", "many files", "sleeps", "ignores signals",
)  # fmt: skip
"""What namespaces would have prevented, and other means must where there are none."""


def left_files() -> set[Path]:
    folders = map(Path, {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/root", "/", "/run", os.getcwd()})
    names = ("reasonrl-code-*", "reasonrl-hostile-*")
    return {path for folder in folders for name in names if os.access(folder, os.R_OK) for path in folder.glob(name)}


def package_files() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(layout.__file__).parent.rglob("*.py")}


def test_the_corpus_is_large() -> None:
    assert len(PROGRAMS) >= 30
    assert len(benign_cases()) >= 30
    assert METHODS, "no sandbox works on this system"


@pytest.mark.parametrize("method", METHODS)
def test_no_hostile_program_is_paid_or_leaves_anything(method: str, alone: None) -> None:
    """None is paid for a single test; all are judged; no process, file or connection is left."""
    names = PROGRAMS if method == METHODS[0] else NEEDS_NO_NAMESPACE
    before, files, package = processes_of_programs(), left_files(), package_files()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        sources = {name: PROGRAMS[name].replace("PORT", str(server.getsockname()[1])) for name in names}
        cases = {(name, "stdio"): (HOSTILE_STDIO, source) for name, source in sources.items()}
        cases |= {(name, "function"): (HOSTILE_FUNCTION, s) for name, s in sources.items() if "def answer" in s}
        found = judge_all(method, SMALL, cases)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert {case: outcome for case, outcome in found.items() if isinstance(outcome, BaseException)} == {}
    assert {case: outcome for case, outcome in found.items() if outcome.passed} == {}  # type: ignore[union-attr]
    assert len(found) == len(cases)
    assert processes_of_programs() - before == set()
    assert left_files() - files == set()
    assert package_files() == package


@pytest.mark.parametrize("method", METHODS)
def test_every_benign_program_is_paid(method: str) -> None:
    found = judge_all(method, GENEROUS, benign_cases())
    assert {case: outcome for case, outcome in found.items() if getattr(outcome, "reason", outcome) != "right"} == {}


@pytest.mark.parametrize("method", METHODS)
def test_a_program_sees_nothing_of_the_host(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONRL_SECRET", "swordfish")
    secret = tmp_path / "secret.txt"
    secret.write_text("swordfish")
    secret.chmod(0o666)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(0o755)
    source = f"""
import os
print(os.environ)
own = '/proc/{os.getpid()}/environ'
for path in ({str(secret)!r}, own, '/proc/self/environ', '/proc/1/environ', '/etc/passwd', '/etc/shadow'):
    try: print(open(path).read())
    except OSError: pass
try: open({str(secret)!r}, 'w').write('changed')
except OSError: pass
print(os.listdir('.'), os.getuid() != 0)
"""
    with Launcher(GENEROUS, method) as launcher, launcher.open() as box:
        ran = box.run(source)
    assert "swordfish" not in ran.stdout
    assert "root:" not in ran.stdout
    assert ran.stdout.strip().endswith("[] True") or os.geteuid() != 0
    assert secret.read_text() == "swordfish"


def test_a_program_does_not_find_what_the_one_before_left() -> None:
    with Launcher(GENEROUS) as launcher, launcher.open() as box:
        for _ in range(2):
            ran = box.run("import os\nprint(os.listdir('.'))\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()")
            assert ran.stdout.strip() == "[]"


def test_the_limits_are_those_that_were_asked_for() -> None:
    names = "r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE"
    source = f"import resource as r\nprint(*(r.getrlimit(n)[0] for n in ({names})))"
    with Launcher(Limits(seconds=7, memory_mb=100, files_mb=3)) as launcher, launcher.open() as box:
        assert box.run(source).stdout.split() == ["7", str(100 * 2**20), str(3 * 2**20), "64"]


IPC = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.semget(0, 1, 0o1600), libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600))
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_program_gets_nothing_that_outlives_all_processes(method: str) -> None:
    """Semaphores, shared memory and queues of System V stay until somebody removes them."""
    with Launcher(GENEROUS, method) as launcher, launcher.open() as box:
        assert box.run(IPC).stdout == "-1 -1 -1\n"


def test_the_network_is_there_only_when_it_is_allowed() -> None:
    connect = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), timeout=5)\n    print('open')\n"
    source = connect + "except OSError:\n    print('cut')"
    with socket.create_server(("127.0.0.1", 0)) as server:
        for allowed in (False, True):
            with Launcher(Limits(seconds=20, allow_network=allowed)) as launcher, launcher.open() as box:
                ran = box.run(source.format(port=server.getsockname()[1]))
            assert ran.stdout.strip() == ("open" if allowed else "cut")


def test_a_system_that_cannot_cut_the_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system without namespaces and without a filter of system calls."""
    real = layout.settings
    monkeypatch.setattr(layout, "settings", lambda *a: {**real(*a), "seccomp": False})
    sandbox._choose.cache_clear()
    try:
        with pytest.raises(NoSandboxError, match=r"process: the network cannot be cut off.*set allow_network=true"):
            Launcher(Limits(), "process")
        with Launcher(Limits(allow_network=True), "process") as launcher, launcher.open() as box:
            assert box.run("print(1)").stdout == "1\n"
    finally:
        sandbox._choose.cache_clear()


def test_the_filter_knows_its_machines() -> None:
    """Every jump lands inside of the filter, on each of them."""
    for machine in seccomp.MACHINES:
        seccomp_machine, seccomp.machine = seccomp.machine, lambda machine=machine: machine
        try:
            code = seccomp.program(network=False, shared=True, pid=7)
        finally:
            seccomp.machine = seccomp_machine
        steps = [code[i : i + 8] for i in range(0, len(code), 8)]
        jumps = [(i, max(step[2], step[3])) for i, step in enumerate(steps) if step[0] & 7 == 5]
        assert all(i + jump + 1 < len(steps) for i, jump in jumps)


def test_a_lost_launcher_ends_its_sandboxes(alone: None) -> None:
    """The trainer may be killed at any time."""
    before = processes_of_programs()
    launcher = Launcher(GENEROUS)
    box = launcher.open()
    box.tell({"kind": "run", "source": "import time\ntime.sleep(1000)", "stdin": ""})
    time.sleep(0.2)
    assert processes_of_programs() - before
    box._control.close()  # as the kernel does when this process ends
    box._channel.close()
    launcher.close()
    deadline = time.monotonic() + 20
    while processes_of_programs() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of_programs() - before == set()
