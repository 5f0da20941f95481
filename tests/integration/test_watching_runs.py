"""What is seen of a run: at once, in order, with the progress of evaluations, and again after a resume."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.resume_runs import SCRIPTED, cut_back, go, resumable_recipe, whole_run
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.cli.console import ConsoleReporter
from reasonrl.cli.live import LiveReporter
from reasonrl.observability.reporter import EvaluationProgress, SilentReporter

TRAINER = {"steps": 4, "prompts_per_step": 4}
EVALUATION = {"every": 2, "suites": {"held_out": {"problems": 4}, "greedy": {"problems": 3, "samples": 2}}}


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with all its checkpoints and the backend ``hf``."""
    folder = tmp_path_factory.mktemp("watched")
    return whole_run(folder, tiny_model, trainer=TRAINER, evaluation=EVALUATION)


class Recorder(SilentReporter):
    """What it was told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def starting(self, outline: Any) -> None:
        self.told.append(("starting", outline.title))

    def waiting(self, what: str) -> None:
        self.told.append(("waiting", what))

    def planned(self, plan: Any) -> None:
        self.told.append(("planned", plan.past.step if plan.past else None))

    def phase(self, phase: Any) -> None:
        if phase == "evaluating":
            self.told.append(("phase", phase))

    def stepped(self, record: Any, total_steps: int, groups: Any) -> None:
        self.told.append(("stepped", record.step))

    def evaluating(self, progress: EvaluationProgress) -> None:
        self.told.append(progress)

    def evaluated(self, step: int, results: Any) -> None:
        self.told.append(("evaluated", step))


def test_a_step_is_told_before_its_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    watcher = Recorder()
    recipe = resumable_recipe(tmp_path, tiny_model, trainer=TRAINER, evaluation=EVALUATION)
    go(recipe, tmp_path / "run", reporter=watcher)
    events = [event for event in watcher.told if not isinstance(event, EvaluationProgress)]
    waits = [what for kind, what in events if kind == "waiting"]
    assert waits == [
        "loading torch and transformers",
        "loading task numbers",
        f"loading model {tiny_model}",
        "checking prompts",
        "starting rollout backend hf",
        "writing the report",
    ]
    assert events[0][0] == "starting"
    rest = [event for event in events[1:] if event[0] not in ("waiting", "planned")]
    evaluated = {step: [("phase", "evaluating"), ("evaluated", step)] for step in (0, 2, 4)}
    stepped = {step: ("stepped", step) for step in range(1, 5)}
    assert rest == [
        *evaluated[0],
        stepped[1],
        stepped[2],
        *evaluated[2],
        stepped[3],
        stepped[4],
        *evaluated[4],
    ]


def test_an_evaluation_counts_its_problems(tiny_model: Path, tmp_path: Path) -> None:
    watcher = Recorder()
    recipe = resumable_recipe(tmp_path, tiny_model, trainer={**TRAINER, "steps": 1}, evaluation=EVALUATION)
    go(recipe, tmp_path / "run", reporter=watcher)
    progress = [event for event in watcher.told if isinstance(event, EvaluationProgress)]
    again = progress.index(progress[-1]) + 1  # the second evaluation begins there
    first = progress[:again]
    assert {p.total for p in first} == {7}
    assert [p.done for p in first] == sorted(p.done for p in first)
    assert (first[0].suite, first[0].done) == ("greedy", 0)
    assert (first[-1].suite, first[-1].done) == ("held_out", 7)
    assert EvaluationProgress(suite="greedy", done=3, total=7) in first, "the backend counts what is finished"


def test_plain_output_of_the_command_is_in_order(tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, trainer={**TRAINER, "steps": 2}, evaluation=EVALUATION)
    arguments = ["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--plugin", SCRIPTED]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    heads = [
        "reasonrl 0",
        "  task        numbers",
        "loading torch and transformers ...",
        "loading model",
        "  model       ",
        "evaluating 7 problems ...",
        "eval at 0: greedy",
        "step 1/2",
        "step 2/2",
        "evaluating 7 problems ...",
        "eval at 2: greedy",
        "eval at 2: held_out",
        "before (step 0) and after (step 2)",
    ]
    assert done.stdout.count("evaluating 7 problems") == 2
    lines = iter(done.stdout.splitlines())
    for head in heads:
        assert any(line.startswith(head) for line in lines), f"{head!r} is missing, or too early"


def test_the_live_view_of_a_resumed_run_shows_where_it_stands(finished: Path, tmp_path: Path) -> None:
    copy = cut_back(finished, tmp_path / "copy", 2)
    out = io.StringIO()
    console = Console(file=out, width=80, height=40, force_terminal=True, _environ={"TERM": "xterm"})
    plain = ConsoleReporter(Console(file=io.StringIO(), width=80))
    reporter = LiveReporter(console, refresh_s=0.0, plain=plain)
    go(None, copy, reporter=reporter)
    reporter.close()
    pictures = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).split("reasonrl 0")
    first = next(picture for picture in pictures if "step 2/4" in picture)
    assert "reward " in first, "the curves hold the steps before"
    assert re.search(r"accuracy +at step 2 \(95%\) +at step 0", first)
    assert "step 0/4" not in out.getvalue()


STOPPED_AT_TORCH = """
import os, sys

class AtTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(77)

sys.meta_path.insert(0, AtTorch())
from reasonrl.cli.app import main
sys.argv = ["reasonrl", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train", "countdown_grpo"], ["countdown_grpo", "48 prompts x 8 = 384 completions", "plugins "]),
        (["sft", "countdown_base_sft"], ["countdown_base_sft", "demonstrations of countdown"]),
        (["eval", "countdown-base"], ["countdown-base", "held_out: 1024 problems"]),
        (["eval", "countdown-base", "--json"], ["countdown-base"]),
        (["generate", "countdown-base"], ["generate", "countdown-base"]),
        (["resume", "RUN", "trainer.steps=5"], ["broken", "4 prompts x 2 = 8 completions"]),
    ],
)
def test_something_is_shown_before_torch_is_imported(
    arguments: list[str], shown: list[str], finished: Path, tmp_path: Path
) -> None:
    if "RUN" in arguments:
        shutil.copytree(finished, tmp_path / "copy")
        arguments = [*(str(tmp_path / "copy") if a == "RUN" else a for a in arguments), "--plugin", SCRIPTED]
    command = [sys.executable, "-c", STOPPED_AT_TORCH, *arguments]
    environ = {**os.environ, "REASONRL_PLUGINS": "reasonrl"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ, check=False)
    assert done.returncode == 77, done.stderr
    text = done.stdout + done.stderr
    assert "loading torch and transformers ..." in text
    for part in shown:
        assert part in text
    if "--json" in arguments:
        assert not done.stdout, "standard output is for the result"
