"""`reasonrl behaviors`: the table over time, from finished and unfinished runs, and one-line errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import RECIPES, metrics_of, tiny
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.statistics.spacing import pick_evenly


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["behaviors", *map(str, arguments)], prog_name="reasonrl")
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def write(run_dir: Path, step: int, **suites: Any) -> None:
    folder = run_dir / "evals" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (run_dir / "run.json").write_text("{}", encoding="utf-8")
    if suites:
        (folder / "summary.json").write_text(json.dumps(suites), encoding="utf-8")


def suite(accuracy: float, **behavior: float | None) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "length_tokens": 40.25,
        "problems": 256,
        "samples": 1,
        "behavior": behavior,
    }


def test_the_table_by_hand(tmp_path: Path) -> None:
    first = {"attempts": 1.5, "false_yes": 0.25, "keyword_oat_zero_hits": 0.0}
    write(tmp_path, 0, held_out=suite(0.125, keyword_oat_zero=0.0, keyword_r1_zero=0.0, **first))
    write(tmp_path, 1000000, held_out=suite(0.5, gave_up=1.0, attempts=123.4, keyword_r1_zero=0.5))
    write(tmp_path, 20, held_out=suite(0.25, attempts=2.0, false_yes=None, length_tokens_wrong=41.5))
    write(tmp_path, 1000010)  # still going on: no summary yet
    assert run(tmp_path).splitlines() == [
        "held_out: 256 problems x 1",
        "step                      0      20 1000000",
        "accuracy              0.125   0.250   0.500",
        "length_tokens         40.25   40.25   40.25",
        "length_tokens_wrong       -   41.50       -",
        "attempts               1.50    2.00     123",
        "false_yes             0.250       -       -",
        "gave_up                   -       -   1.000",
        "keyword_r1_zero       0.000       -   0.500",
        "keyword lists without a hit: oat_zero",
    ]


def test_many_evaluations_fit_80_columns_with_the_first_and_the_last(tmp_path: Path) -> None:
    long = {"an_unusually_long_name_of_a_behavior_of_a_task": 1e9, "keyword_understand_r1_zero_hits": 0.1}
    for step in range(0, 330, 30):
        write(tmp_path, step, held_out=suite(0.1, **long), greedy=suite(0.2, attempts=1))
    text = run(tmp_path)
    assert max(map(len, text.splitlines())) <= 80
    assert "held_out: 256 problems x 1; 5 more evaluations with --json" in text
    assert text.splitlines()[1].split() == ["step", "0", "60", "120", "180", "240", "300"]
    assert "keyword_understand_r1_zero_hits " in text
    assert "\n\ngreedy: 256 problems x 1" in text
    only = run(tmp_path, "--suite", "greedy")
    assert only.startswith("greedy: ")
    assert "held_out" not in only


def test_json_has_every_evaluation(tmp_path: Path) -> None:
    for step in range(10):
        write(tmp_path, step, held_out=suite(0.1, attempts=step))
    (timeline,) = json.loads(run(tmp_path, "--json"))
    assert timeline["steps"] == list(range(10))
    assert timeline["behaviors"]["attempts"] == list(range(10))
    assert list(timeline) == ["suite", "problems", "samples", "steps", "behaviors"]


def test_columns_keep_both_ends() -> None:
    for count in range(1, 60):
        shown = pick_evenly(count, 6)
        assert (shown[0], shown[-1]) == (0, count - 1)
        assert shown == sorted(set(shown))
        assert len(shown) == min(count, 6)
        assert pick_evenly(count, 1) == [count - 1]


def test_a_narrow_terminal_shows_the_last_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(3):
        write(tmp_path, step, held_out=suite(0.1, a_behavior_with_a_name_of_32_char=step))
    monkeypatch.setenv("COLUMNS", "40")
    assert run(tmp_path).splitlines()[1].split() == ["step", "2"]


def test_errors_are_one_line(tmp_path: Path) -> None:
    assert "is not a run folder" in run(tmp_path / "nowhere", code=2)
    write(tmp_path, 0)
    assert "has no evaluations" in run(tmp_path, code=2)
    write(tmp_path, 10, held_out={"accuracy": 0.1, "problems": 3, "samples": 1})
    assert "an older reasonrl" in run(tmp_path, code=2)
    write(tmp_path, 20, held_out=suite(0.1, attempts=1))
    assert "no suite 'other'; its suites: held_out" in run(tmp_path, "--suite", "other", code=2)
    broken = tmp_path / "evals" / "step_000010" / "summary.json"
    for text in ("{", "[]", '{"held_out": 3}', "\ud800"):
        broken.write_bytes(text.encode("utf-8", "surrogatepass"))
        message = run(tmp_path, code=2)
        assert "cannot read" in message
        assert message.count("\n") == 1


@pytest.mark.parametrize("recipe", ["countdown_grpo"])
def test_a_run_measures_them_from_the_base_model_on(recipe: str, tiny_model: Path, tmp_path: Path) -> None:
    result = reasonrl.run(RECIPES / f"{recipe}.yaml", tiny(tiny_model, "evaluation.every=1"), run_dir=tmp_path / "run")
    assert result.run_dir is not None
    summaries = [
        json.loads((result.run_dir / "evals" / f"step_{step:06d}" / "summary.json").read_text()) for step in range(3)
    ]
    assert all({"attempts", "keyword_oat_zero"} <= s["held_out"]["behavior"].keys() for s in summaries)
    assert [line["behavior/held_out/attempts"] for line in metrics_of(result.run_dir)] == [
        s["held_out"]["behavior"]["attempts"] for s in summaries[1:]
    ]
    text = run(result.run_dir)
    assert text.splitlines()[1].split() == ["step", "0", "1", "2"]
    assert max(map(len, text.splitlines())) <= 80
