"""The benchmarks that the documentation names can be started: what they import is there."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


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
