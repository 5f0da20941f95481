"""`reasonrl compare`: differences on the same problems by hand, pooled seeds, cost, recipes, one-line errors."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.statistics.paired import compare_blocks, compare_problems, compare_seeds
from reasonrl.statistics.proportions import wilson_interval

Samples = Mapping[str, Sequence[bool]]


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)], prog_name="reasonrl")
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def as_json(*arguments: object) -> Any:
    return json.loads(invoke(*arguments, "--json"))


def solved(pattern: str, shift: int = 0) -> Samples:
    """``"1.1"``: problems 0 and 2 are solved."""
    return {str(i + shift): [mark == "1"] for i, mark in enumerate(pattern)}


def records(samples: Samples, prompt: str) -> str:
    lines = [
        {"problem_id": f"t/{i}", "sample": n, "prompt": f"{prompt} {i}", "info": {"number": i}, "correct": ok}
        for i, oks in samples.items()
        for n, ok in enumerate(oks)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_run(
    folder: Path, evaluations: Mapping[int, Samples], *, seed: int = 0, prompt: str = "p", **recipe: Any
) -> Path:
    """A run with the suite ``s``; every step samples 100 tokens and takes 3 s, 2 of them for sampling."""
    folder.mkdir(parents=True)
    data = {"recipe": {"name": folder.name, "seed": seed, "optimizer": {"learning_rate": 0.1}, **recipe}}
    (folder / "run.json").write_text(json.dumps(data))
    line = {"throughput/rollout_tokens_per_s": 50.0, "time/rollout_s": 2.0, "time/step_s": 3.0}
    last = max(evaluations)
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, **line}) + "\n" for step in range(1, last + 1))
    )
    for step, samples in evaluations.items():
        at = folder / "evals" / f"step_{step:06d}"
        at.mkdir(parents=True)
        (at / "s.jsonl").write_text(records(samples, prompt))
        accuracy = sum(map(sum, samples.values())) / sum(map(len, samples.values()))
        (at / "summary.json").write_text(json.dumps({"s": {"accuracy": accuracy}}))
    return folder


A, B = "11.1..1.11", "111111..11"


def test_two_runs_by_hand(tmp_path: Path) -> None:
    """A solves 6 of 10, B 8: one only by A, three only by B. Two-sided: 2 * (1 + 4) / 16."""
    a = write_run(tmp_path / "a", {0: solved("." * 10), 4: solved(A)}, prompt="chat", optimizer={"learning_rate": 0.1})
    b = write_run(tmp_path / "b", {0: solved("." * 10), 2: solved(B), 4: solved(B)}, optimizer={"learning_rate": 0.2})
    found = as_json(a, b)
    (one,) = found["suites"]["s"]
    expected = compare_problems(np.array([m == "1" for m in A], float), np.array([m == "1" for m in B], float))
    assert (one["accuracy_a"], one["accuracy_b"], one["problems"]) == (0.6, 0.8, 10)
    assert (one["only_a"], one["only_b"], one["method"]) == (1, 3, "mcnemar")
    assert one["p_value"] == 0.625
    assert one["difference"] == pytest.approx(0.2)
    assert one["ci95"] == [expected.low, expected.high]
    cost = found["cost"]
    assert (cost["suite"], cost["level"]) == ("s", 0.6)
    assert cost["pools"]["A"] == [{"step": 4, "tokens": 400, "seconds": 12.0}]
    assert cost["pools"]["B"] == [{"step": 2, "tokens": 200, "seconds": 6.0}]
    assert found["recipes"]["B"] == [{"key": "optimizer.learning_rate", "A": "0.1", "B": "0.2"}]
    assert as_json(a, b, "--level", 0.9)["cost"]["pools"] == {"A": [None], "B": [None]}


def test_the_text(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {4: solved(A)})
    b = write_run(tmp_path / "b", {4: solved(B)}, algorithm={"name": "ppo"})
    low, high = wilson_interval(6, 10)
    text = invoke(a, b, "--level", 0.7)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"  A      60.0% ({low:.1%} to {high:.1%})" in lines
    assert "+20.0 points" in text
    assert "1 solved only by A, 3 only by B" in " ".join(text.split())
    assert "McNemar's exact test" in text
    assert lines[lines.index("cost to reach 70.0% on s") + 1 :][:2] == [
        "  A  not reached",
        "  B  step 4, 400 tokens sampled, 12 s of training",
    ]
    assert '  algorithm  null -> {"name": "ppo"}' in lines


def test_before_and_after(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {0: solved("1..."), 4: solved("11.1")})
    (one,) = as_json(f"{run}@0", run)["suites"]["s"]
    assert (one["accuracy_a"], one["accuracy_b"]) == (0.25, 0.75)
    assert "recipes, A -> B: no difference" in invoke(f"{run}@0", run)


def test_lost_completions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [write_run(tmp_path / name, {4: solved(A)}) for name in "ab"]
    for run in runs:
        summary = {"s": {"accuracy": 0.6, "problems": 10, "samples": 1}}
        (run / "evals" / "step_000004" / "summary.json").write_text(json.dumps(summary))
    invoke(*runs)
    assert "has lost" not in caplog.text
    file = runs[1] / "evals" / "step_000004" / "s.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:7]))
    assert as_json(*runs)["suites"]["s"][0]["problems"] == 7
    assert f"{file} has lost 3 of 10 completions; only the rest is compared" in caplog.text


def test_several_completions_a_problem(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {1: {"0": [True, False], "1": [False, False], "2": [True, True]}}, k=1)
    b = write_run(tmp_path / "b", {1: {"0": [True, True], "1": [True, False], "2": [True, True]}}, k=2)
    (one,) = as_json(a, b)["suites"]["s"]
    assert (one["accuracy_a"], one["accuracy_b"]) == pytest.approx((0.5, 5 / 6))
    assert (one["method"], one["only_a"]) == ("sign-flip", None)


def test_only_problems_of_both_count_also_repeated_ones(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {1: solved("1..1")}, k=1)
    b = write_run(tmp_path / "b", {1: solved("1.1111", shift=1)}, k=2)
    again = (
        (a / "evals/step_000001/s.jsonl")
        .read_text()
        .replace('"t/0"', '"t/9"')
        .replace('"number": "0"', '"number": "3"')
    )
    (a / "evals/step_000001/s.jsonl").write_text(again)  # the content of problem 3 twice, first solved, then too
    (one,) = as_json(a, b)["suites"]["s"]
    assert one["problems"] == 3


@pytest.mark.parametrize("nested", [False, True])
def test_seeds_are_pooled(nested: bool, tmp_path: Path) -> None:
    """All seeds on the same problems, or each on its own."""
    first, second = ["11.1..1.", "1..1.11.", "11......"], ["1111..1.", "1.11.111", "11.1...."]
    runs = []
    for name, patterns, rate in (("a", first, 0.1), ("b", second, 0.2)):
        for seed, pattern in enumerate(patterns):
            at = {4: solved(pattern, shift=100 * seed * nested)}
            runs.append(write_run(tmp_path / f"{name}{seed}", at, seed=seed, optimizer={"learning_rate": rate}))
    found = as_json(*runs)
    assert [[one["seed"] for one in members] for members in found["pools"].values()] == [[0, 1, 2]] * 2
    (one,) = found["suites"]["s"]
    a, b = (np.array([[m == "1" for m in p] for p in patterns], float) for patterns in (first, second))
    expected = compare_blocks([0.125, 0.25, 0.125]) if nested else compare_seeds(a, b)
    assert one["method"] == ("blocks" if nested else "seeds")
    assert one["problems"] == (24 if nested else 8)
    assert (one["difference"], *one["ci95"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert len(found["cost"]["pools"]["A"]) == 3
    apart = as_json(*runs[:2], runs[3], "--no-pool") if not nested else as_json(*runs[:1], runs[3], "--no-pool")
    assert all(len(members) == 1 for members in apart["pools"].values())
    if nested:
        (fewer,) = as_json(*runs[:3], *runs[3:5])["suites"]["s"]
        assert fewer["left_out"] == [str(runs[2])]


def test_seeds_of_one_setting_are_compared_with_each_other(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a{seed}", {4: solved(A)}, seed=seed) for seed in (0, 1, 2)]
    found = as_json(*runs)
    assert list(found["pools"]) == ["A", "B", "C"]
    assert [one["p_value"] for one in found["suites"]["s"]] == [1.0, 1.0]


def test_a_folder_of_runs_stands_for_its_runs(tmp_path: Path) -> None:
    """In the order of their numbers, without what has no evaluation; a run named first is what the others are
    compared with."""
    for rate in (3e-4, 1e-4):
        for seed in (10, 9):
            folder = tmp_path / "sweep" / f"learning_rate={rate:g}_seed={seed}"
            write_run(folder, {4: solved(A)}, seed=seed, optimizer={"learning_rate": rate})
    young = tmp_path / "sweep" / "young"
    young.mkdir()
    (young / "run.json").write_text("{}")
    (tmp_path / "sweep" / "young.log").touch()
    names = [f"learning_rate={rate}_seed={seed}" for rate in ("0.0001", "0.0003") for seed in (9, 10)]
    found = as_json(tmp_path / "sweep")
    pools = {name: [Path(one["path"]).name for one in members] for name, members in found["pools"].items()}
    assert pools == {"A": names[:2], "B": names[2:]}
    assert found["not_evaluated"] == [str(young)]
    assert f"left out, not evaluated yet: {young}" in " ".join(invoke(tmp_path / "sweep").split())
    found = as_json(tmp_path / "sweep" / names[3], tmp_path / "sweep")
    assert [Path(one["path"]).name for one in found["pools"]["A"]] == [names[3], names[2]]
    assert sum(map(len, found["pools"].values())) == 4


def broken(folder: Path, content: str) -> Path:
    run = write_run(folder, {1: solved("1.")})
    (run / "evals/step_000001/s.jsonl").write_text(content)
    return run


def test_a_cost_is_unknown_unless_every_step_was_read(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {0: solved("."), 3: solved("1")}) for name in "abc"]
    for run, second in zip(
        runs, ('{"step": 2, "time/step_s": 1' + 400 * "0" + "}", "[2]", '{"step": "2"}'), strict=True
    ):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        (run / "metrics.jsonl").write_text("\n".join([lines[0], second, lines[2], ""]))
    costs = as_json(*runs, "--no-pool")["cost"]["pools"]
    assert [cost for costs in costs.values() for cost in costs] == [{"step": 3, "tokens": None, "seconds": None}] * 3


def test_a_run_of_someone_else_moves_no_cursor(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {1: solved("1.")}, **{"key\x1b[2J": name}) for name in "ab"]
    assert "\x1b" not in invoke(*runs)


ERRORS = [
    (lambda d: [d / "run"], "compare needs two or more runs"),
    (lambda d: [d / "run", d / "none"], "none is not a run or a saved evaluation: there is no such folder"),
    (lambda d: [d / "run", d / "run" / "evals"], "it holds neither run.json nor results.json"),
    (lambda d: [d / "run", f"{d / 'run'}@7"], "has no evaluation at step 7; its steps: 1"),
    (lambda d: [d / "run", d / "run", "--suite", "x"], "no suite 'x' in all of them: "),
    (lambda d: [d / "run", d / "other"], "were asked different problems; evaluate both with one recipe"),
    (lambda d: [d / "run", broken(d / "torn", "{\n{}\n")], "s.jsonl: not the completions of an evaluation"),
    (lambda d: [d / "run", broken(d / "odd", "[1]\n")], "s.jsonl: not the completions of an evaluation"),
    (lambda d: [d / "run", broken(d / "empty", "")], "were asked different problems"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_a_comparison_that_cannot_be_made(arguments: Any, message: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", {1: solved("1.")})
    write_run(tmp_path / "other", {1: solved("1.", shift=5)})
    error = invoke(*arguments(tmp_path), code=2)
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, {1: solved(pattern)}) for name, pattern in (("a", A), ("b", B)))
    probe = (
        "import sys; from reasonrl.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", probe, "compare", str(a), str(b)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "+20.0 points" in done.stdout
