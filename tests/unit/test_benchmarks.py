"""The benchmarks that the documentation names can be started, and the speed benchmarks run to their ends."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
SMALL = {
    "step": "--repeats 1",
    "rollout": "--completions 8 --group 4 --tokens 8 --repeats 1 --only generate generate_batch",
    "scaling": "--only group length size --most 1 --repeats 1",
    "contended": "--rounds 1 --set trainer.prompts_per_step=2 sampling.group_size=2",
    "overlap": "--steps 4 --latency 0.1",
    "gate": "--repeats 1",
    "reward_pool": "--completions 500 --repeats 1",
}
"""Their smallest sizes."""
LIMITED = ("contended", "overlap", "gate")
"""A step this small, or a busy machine, may be slower than their limits: status 1."""


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_finds_its_imports(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path), run_name="imported")["__doc__"]


def test_speed_results_compare_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS[0].parent)
    from gate import LIMITS, is_worse
    from measure import ratio
    from write_tables import newest

    found = ratio([2.0, 8.0], [1.0, 1.0])
    assert found["ratio"] == pytest.approx(4.0)
    assert found["low"] is not None
    assert found["low"] < 1.0, "two rounds that differ by 4 times say little"
    assert ratio([3.0], [1.0])["low"] is None
    for name, (direction, limit) in LIMITS.items():
        changes = {name: 1 + direction * limit * 1.01}, {name: 1 + direction * limit * 0.99}, {name: 1 - direction}
        assert [is_worse(name, change, {name: 1.0}) for change in changes] == [True, False, False]
    lines = [{"benchmark": "step", "subject": s, "threads": 1, "seconds": n} for n, s in enumerate("aba")]
    assert [line["seconds"] for line in newest(lines)] == [2, 1]


@pytest.mark.slow
def test_speed_benchmarks_run_and_fill_the_page(tmp_path: Path) -> None:
    """In a copy, whose results and page they may write."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results"))
    shutil.copytree(ROOT / "docs" / "assets", tmp_path / "docs" / "assets")
    page = Path(shutil.copy(ROOT / "docs" / "performance.md", tmp_path / "docs"))
    for folder in ("plugins", "recipes"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for name, options in {**SMALL, "write_tables": ""}.items():
        command = [sys.executable, str(tmp_path / "benchmarks" / f"{name}.py"), *options.split()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode in ((0, 1) if name in LIMITED else (0,)), (name, done.stderr)
        assert done.stdout.strip(), (name, done.stderr)
        assert "Traceback" not in done.stderr, (name, done.stderr)
    lines = (tmp_path / "benchmarks" / "results" / "speed.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["benchmark"] for line in lines} >= {"step", "rollout", "scaling", "contended", "overlap"}
    assert "8 completions in groups of 4" in page.read_text(encoding="utf-8")
