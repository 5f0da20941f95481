"""Two processes sample with the engine ``vllm`` what one does: each with its engine, or one copy of the model spread
over both."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.tiny_runs import RECIPES, REPOSITORY, metrics_of, sampled

pytestmark = pytest.mark.vllm
TESTS = Path(__file__).resolve().parents[1]
BASE = REPOSITORY / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
SMALL = (
    "rollout_backend.name=vllm",
    "trainer.steps=2",
    "trainer.prompts_per_step=8",
    "optimizer.schedule=constant",
    "logging.transcripts_per_step=64",
    "checkpoint.every=0",
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=9",
    "evaluation.suites.four_numbers.problems=3",
    "evaluation.suites.greedy.problems=1",  # the second process has none
    "seed=0",
)


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def call(command: Sequence[str]) -> str:
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train(run_dir: Path, processes: int, *overrides: str) -> Path:
    recipe = str(RECIPES / "countdown_grpo.yaml")
    start = LAUNCHER if processes > 1 else LAUNCHER[:1]
    call([*start, "-m", "reasonrl", "train", recipe, *SMALL, *overrides, "--run-dir", str(run_dir)])
    return run_dir


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("alone") / "run", 1)


@pytest.mark.parametrize(
    ("spread", "sharding"), [pytest.param(1, "none", marks=pytest.mark.long), (2, "none"), (1, "fsdp")]
)
def test_two_processes_sample_what_one_does(spread: int, sharding: str, alone: Path, tmp_path: Path) -> None:
    own = (f"rollout_backend.tensor_parallel_size={spread}", f"model.sharding={sharding}")
    both = train(tmp_path / "run", 2, *own)
    one, two = metrics_of(alone), metrics_of(both)
    assert [line["rollout/logprob_gap_max"] < 1e-4 for line in two] == [True, True]
    for figure, tolerance in (("train/reward", 0.05), ("train/length_tokens", 5.0)):
        assert [line[figure] for line in two] == pytest.approx([line[figure] for line in one], abs=tolerance)
    for all_rows, of_the_first in zip(sampled(alone), sampled(both), strict=True):
        assert (len(all_rows), len(of_the_first)) == (64, 32)  # transcripts are the first process's
        same = sum(all_rows[sample] == text for sample, text in of_the_first.items())
        assert same >= 30  # a rounding may tip a token


@pytest.mark.long
def test_two_processes_evaluate_what_one_does(tmp_path: Path) -> None:
    told = {}
    for name, start in (("one", LAUNCHER[:1]), ("two", LAUNCHER)):
        words = ["eval", str(BASE), "--recipe", str(RECIPES / "countdown_grpo.yaml"), *SMALL]
        told[name] = call([*start, "-m", "reasonrl", *words, "--output", str(tmp_path / name)])
    assert told["two"].count("saved to") == 1
    for suite in ("held_out", "four_numbers", "greedy"):
        one, two = (
            [json.loads(line) for line in (tmp_path / name / f"{suite}.jsonl").read_text().splitlines()]
            for name in ("one", "two")
        )
        assert [row["problem_id"] for row in one] == [row["problem_id"] for row in two]
        differ = sum(a["completion"] != b["completion"] for a, b in zip(one, two, strict=True))
        assert differ <= 1  # a rounding may tip a token


@pytest.mark.long
def test_engines_follow_each_other_and_the_processes_stay_connected(tmp_path: Path) -> None:
    call([*LAUNCHER, str(TESTS / "support" / "vllm_ranks_worker.py"), str(BASE), str(tmp_path)])
    for rank in range(2):
        *gaps, connected = [float(value) for value in (tmp_path / f"{rank}.txt").read_text().split()]
        assert len(gaps) == 3
        assert max(gaps) < 1e-4
        assert connected == 2
