"""What the tests of the sandbox share: problems, methods that work here, and what a program may leave behind."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from reasonrl_code.inside.launcher import FIRST_USER
from reasonrl_code.inside.processes import descendants
from reasonrl_code.judging import Outcome, judge
from reasonrl_code.limits import Limits
from reasonrl_code.sandbox import METHODS, Launcher, NoSandboxError

GENEROUS = Limits(seconds=20.0)
SMALL = Limits(seconds=1.0, elapsed=1.2, memory_mb=256, files_mb=8, output_kb=64)
THREADS = 4


def working_methods() -> list[str]:
    """Bubblewrap is tested where it is installed, and the others where the system allows them."""
    found = []
    for method in METHODS:
        try:
            Launcher(SMALL, method).close()
        except NoSandboxError:
            continue
        found.append(method)
    return found


def function(tests: Iterable[str], name: str = "f", **more: Any) -> dict[str, Any]:
    info = {"kind": "function", "form": "text", "setup": "", "given": "", "aliases": {}, "names": [name], "entry": name}
    return {**info, "tests": list(tests), **more}


def stdio(tests: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {"kind": "stdio", "form": "text", "entry": "", "tests": [list(pair) for pair in tests]}


def benign_cases() -> dict[tuple[str, str], tuple[dict[str, Any], str]]:
    read = yaml.safe_load((Path(__file__).parent / "benign_programs.yaml").read_text(encoding="utf-8"))
    programs = {("stdio", name): (stdio(case["tests"]), case["program"]) for name, case in read["stdio"].items()}
    lines = "\n".join(map(str, range(20000)))
    programs["stdio", "large input"] = (stdio([("1 " * 50000, "50000")]), "print(sum(map(int, input().split())))")
    programs["stdio", "large output"] = (stdio([("20000", lines)]), "print(*range(int(input())), sep='\\n')")
    functions = {("function", n): (function(case["tests"]), case["program"]) for n, case in read["functions"].items()}
    return programs | functions


def judge_all(
    method: str, limits: Limits, cases: Mapping[Any, tuple[dict[str, Any], str]]
) -> dict[Any, Outcome | BaseException]:
    """Judge programs side by side, in a few threads with a launcher each."""
    waiting, found = list(cases.items()), dict[Any, Outcome | BaseException]()

    def work() -> None:
        with Launcher(limits, method) as launcher:
            while waiting:
                try:
                    key, (info, source) = waiting.pop(0)
                except IndexError:
                    return
                try:
                    found[key] = judge(launcher, limits, info, ["", source])
                except Exception as err:  # noqa: BLE001 - a test shows it
                    found[key] = err

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()
    return found


def processes_of_programs() -> set[int]:
    """Processes that run as the user of a sandbox, in a process namespace that is not ours, or below this one."""
    own = os.readlink("/proc/self/ns/pid")
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {pid for pid in pids if _is_of_program(pid, own)} | descendants(os.getpid())


def _is_of_program(pid: int, own: str) -> bool:
    folder = Path("/proc") / str(pid)
    try:
        return folder.stat().st_uid >= FIRST_USER or os.readlink(folder / "ns" / "pid") != own
    except OSError:  # gone meanwhile, or not ours to see
        return False
