"""What a user is told about the data of a recipe, through the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reasonrl.cli.app import app

GOOD = [{"nums": [n, 5, 12], "target": n + 17} for n in range(1, 60)]
BAD = [{"nums": [1, 1, 1], "target": 99}, GOOD[0], {"nums": [200, 1, 2], "target": 28}]
SUMMARY = (
    "nums.jsonl: 62 rows read, 59 kept (52 train, 7 eval), 3 dropped (1 outside the ranges of numbers, number and "
    "target, 1 repeated, 1 without a solution)"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("nums.jsonl", *GOOD, *BAD)
    return tmp_path


def write(name: str, *rows: Any) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe(**sections: Any) -> str:
    data: dict[str, Any] = {
        "name": "mine",
        "model": {"name": "countdown-base"},
        "task": {"name": "countdown", "source": "dataset", "dataset": "nums.jsonl", "template": "compact"},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_completion_tokens": 8},
        "trainer": {"steps": 1, "prompts_per_step": 2},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 4}}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump({k: v for k, v in {**data, **sections}.items() if v is not None}))
    return "mine.yaml"


def run(*arguments: str, code: int = 0) -> str:
    """What the command says, on one line."""
    result = CliRunner().invoke(app, arguments, prog_name="reasonrl", env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return " ".join((result.output if code == 0 else result.stderr).split())


def test_a_check_tells_of_the_rows(folder: Path) -> None:
    assert SUMMARY in run("recipes", "check", recipe())


def test_a_check_says_that_a_suite_asks_for_more_than_there_is(folder: Path) -> None:
    said = run("recipes", "check", recipe(), "evaluation.suites.held_out.problems=9")
    assert "suite held_out: 9 problems requested, 7 available" in said
    assert "asked" not in run("recipes", "check", recipe(), "evaluation.suites.held_out.problems=7")


def test_a_check_refuses_an_empty_held_out_split_and_says_why(folder: Path) -> None:
    write("nums.jsonl", *GOOD[:2])
    said = run("recipes", "check", recipe(), code=2)
    assert (
        "task 'countdown' has no problems in its eval split: nums.jsonl: 2 rows read, 2 kept (2 train, 0 eval)" in said
    )
    assert "a tenth of the problems is held out by their hash; add rows" in said
    other = "evaluation.suites.held_out.task={name: countdown}"
    assert "2 rows read" in run("recipes", "check", recipe(), other)


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_missing_file_is_found_before_anything_slow(command: str, folder: Path) -> None:
    """Found by the recipe's key, before torch is loaded."""
    words = ["recipes", "check"] if command == "check" else ["train"]
    for changes, message in (
        (["task.dataset=num.jsonl"], "task.dataset: num.jsonl: no such file; did you mean 'nums.jsonl'?"),
        (
            ["evaluation.suites.held_out.task={name: countdown, source: dataset, dataset: no/nums.csv}"],
            "evaluation.suites.held_out.task.dataset: no/nums.csv: no such file (there is not a folder no)",
        ),
    ):
        code = "import sys; from reasonrl.cli.app import main; sys.argv[0] = 'reasonrl'\n" + (
            "try:\n    main()\nfinally:\n    print(sorted({'torch', 'datasets'} & set(sys.modules)))"
        )
        command_line = [sys.executable, "-c", code, *words, recipe(), *changes]
        done = subprocess.run(command_line, capture_output=True, text=True, env=os.environ, check=False)
        assert (done.returncode, done.stdout.strip()) == (2, "[]"), done
        assert done.stderr.startswith(f"error: override '{changes[0]}': {message}")
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_check_reads_examples_to_imitate(folder: Path) -> None:
    sections = {
        "task": None, "algorithm": None, "trainer": None, "evaluation": None, "sampling": None,
        "data": {"path": "pairs.jsonl", "prompt": "q", "completion": "a.text"}, "sft": {"max_tokens": 100},
    }  # fmt: skip
    assert "data.path: pairs.jsonl: no such file" in run("recipes", "check", recipe(**sections), code=2)
    write("pairs.jsonl", *[{"q": "1+1=", "a": {"text": "2"}}] * 3)
    assert "pairs.jsonl: 3 examples" in run("recipes", "check", recipe(**sections))
    write("pairs.jsonl", {"q": "1+1=", "a": {"text": "2"}}, {"q": "1+1="})
    refused = run("recipes", "check", recipe(**sections), code=2)
    assert "pairs.jsonl:2: expected non-null columns 'q' and 'a.text'" in refused


def test_a_run_says_what_it_reads_and_how_many_problems_a_suite_has(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = CliRunner().invoke(app, ["train", recipe(), "evaluation.suites.held_out.problems=100"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert f"data {SUMMARY}" in said
    assert "evaluation held_out: 7 problems (100 requested, 7 available) x 1, temperature 1; first, last" in said
    assert "100 problems" not in said
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "suite held_out: 100 problems requested, 7 available"
    ]
    done = CliRunner().invoke(app, ["train", "mine.yaml", "evaluation.suites.held_out.problems=7"])
    assert "held_out: 7 problems x 1" in done.output


def test_a_run_reads_its_data_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reasonrl_countdown import dataset

    calls = []
    read = dataset._read
    monkeypatch.setattr(dataset, "_read", lambda config: calls.append(config) or read(config))
    other = "{problems: 1, task: {name: countdown, template: compact}}"
    suites = f"evaluation.suites={{a: {{problems: 1}}, b: {{problems: 2}}, c: {other}}}"
    done = CliRunner().invoke(app, ["train", recipe(), suites])
    assert done.exit_code == 0, done.output
    assert len(calls) == 1


def test_an_empty_split_is_named_by_every_command(folder: Path) -> None:
    write("nums.jsonl", *GOOD[:2])
    for command in (["train", recipe()], ["eval", "countdown-base", "--recipe", "mine.yaml"]):
        assert "'countdown' has no problems in its eval split: nums.jsonl: 2 rows read" in run(*command, code=2)
    said = run("generate", "countdown-base", "--recipe", "mine.yaml", code=2)
    assert "'countdown' has no problems in its eval split: nums.jsonl: 2 rows read" in said


def test_a_hub_data_set_and_a_large_file_are_not_read_by_a_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reasonrl.runs import sources

    assert "rows read" not in run("recipes", "check", recipe(), "task.dataset=Jiayi-Pan/Countdown-Tasks-3to4")
    monkeypatch.setattr(sources, "MAX_CHEAP_BYTES", 100)
    assert "rows read" not in run("recipes", "check", recipe())
