"""`accelerate launch --num_processes 2` really trains on two processes, also without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.kl import adapted
from safetensors.torch import load_file
from support.processes import command_on_ranks
from support.resume_runs import SCRIPTED, assert_same_run, cut_back, go, resumable_recipe
from support.scripted_plugin import is_picked
from support.small_recipes import PLUGIN, cli, recipe, summary_of
from support.tiny_runs import metrics_of

from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.carried import read_groups
from reasonrl.runs.state import read_state

HIDDEN = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


TESTS = Path(__file__).parents[1]
FRAGILE = str(TESTS / "support" / "fragile_backend.py")
TRAPS = ("support.traps_plugin",)


def launch(
    folder: Path, *arguments: object, plugins: tuple[str, ...] = (PLUGIN, FRAGILE)
) -> subprocess.CompletedProcess[str]:
    """``reasonrl`` in two processes."""
    more = {"HF_HOME": str(folder / "home")}
    return command_on_ranks(2, *arguments, *(f"--plugin={plugin}" for plugin in plugins), more=more)


@pytest.mark.slow
def test_accelerate_launch_starts_two_processes(tiny_model: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    environ = {k: v for k, v in os.environ.items() if k not in HIDDEN and not k.startswith("ACCELERATE_")}
    environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(TESTS)}
    words = ["train", recipe(tmp_path, tiny_model), f"--run-dir={tmp_path / 'run'}", f"--plugin={PLUGIN}"]
    command = [*launcher, "-m", "reasonrl", *map(str, words)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["machine"]["processes"] == 2
    assert summary_of(tmp_path / "run")["outcome"] == "completed"
    assert len(metrics_of(tmp_path / "run")) == 2
    assert done.stdout.count("completed after 2 steps") == 1


@pytest.mark.slow
def test_eval_on_two_processes_finds_what_one_finds(tiny_model: Path, tmp_path: Path) -> None:
    """Same figures and, problem by problem, the same completions; the first process prints and saves them once."""
    sampled = {"problems": 3, "samples": 2, "temperature": 1.0}
    suites = {"greedy": {"problems": 5, "temperature": 0.0}, "sampled": sampled, "few": {"problems": 1}}
    path = recipe(tmp_path, tiny_model, evaluation={"every": 0, "suites": suites})
    words = ("eval", tiny_model, "--recipe", path)
    one = cli(*words, "--output", tmp_path / "one")
    two = launch(tmp_path, *words, "--output", tmp_path / "two", plugins=(PLUGIN,))
    assert one.exit_code == two.returncode == 0, one.output + two.stdout + two.stderr
    assert two.stdout == one.stdout.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert two.stderr.count("loading tasks") == 1
    assert {file.name for file in (tmp_path / "two").iterdir()} == {"results.json", *(f"{s}.jsonl" for s in suites)}
    for suite in suites:
        files = [(tmp_path / name / f"{suite}.jsonl").read_bytes() for name in ("one", "two")]
        assert files[0] == files[1]
    found = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert found[0]["results"] == found[1]["results"]
    refused = launch(tmp_path, *words, "--output", tmp_path / "two", plugins=(PLUGIN,))
    assert refused.returncode != 0
    assert "is not empty; name a new folder" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "call"), [("generate", 3), pytest.param("sync", 2, marks=pytest.mark.long)])
def test_a_backend_that_fails_in_one_process_ends_both(fails: str, call: int, tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    backend = {"name": "fragile", "while_exists": str(tmp_path / "broken"), "fails": fails, "call": call}
    path = recipe(tmp_path, tiny_model, rollout_backend={**backend, "rank": 1})
    (tmp_path / "broken").touch()
    done = launch(tmp_path, "train", path, "--run-dir", run)
    assert done.returncode != 0
    assert "the backend has gone" in done.stdout + done.stderr
    assert [folder.name for folder in (run / "checkpoints").glob("step_*")] == ["step_000001"]
    assert summary_of(run)["outcome"] == "failed"
    (tmp_path / "broken").unlink()
    done = launch(tmp_path, "resume", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in metrics_of(run)] == [1, 2]


def trapped_recipe(folder: Path, model: Path, **trap: Any) -> Path:
    return resumable_recipe(
        folder,
        model,
        algorithm={"name": "trap", "file": str(folder / "armed"), **trap},
        critic=None,
        rollout_backend={"name": "script"},
        trainer={"steps": 4, "prompts_per_step": 4, "minibatches": 2},
        checkpoint={"every": 0},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "error", "call", "rank", "unfinished"),
    [
        pytest.param("keep", "key", 5, 1, 0, marks=pytest.mark.long),  # all processes learn of it
        ("compute_loss", "gpu memory", 5, 1, 0),  # the other one waits for this one's gradients
        pytest.param("backward", "key", 6, 0, 1, marks=pytest.mark.long),
    ],
)
def test_an_error_in_one_process_ends_both_with_the_last_step_saved(
    site: str, error: str, call: int, rank: int, unfinished: int, tiny_model: Path, tmp_path: Path
) -> None:
    path = trapped_recipe(tmp_path, tiny_model, site=site, error=error, call=call, rank=rank)
    (tmp_path / "armed").touch()
    run = tmp_path / "run"
    done = launch(tmp_path, "train", path, "--run-dir", run, plugins=TRAPS)
    (tmp_path / "armed").unlink()
    assert done.returncode != 0
    assert [folder.name for folder in (run / "checkpoints").glob("step_*")] == ["step_000002"], done.stderr
    assert summary_of(run)["outcome"] == "failed"
    state = json.loads((run / "checkpoints" / "step_000002" / "trainer_state.json").read_text())
    assert state["unfinished"] == unfinished
    done = launch(tmp_path, "resume", run, plugins=TRAPS)
    assert done.returncode == 0, done.stdout + done.stderr
    if site == "compute_loss":
        done = launch(tmp_path, "train", path, "--run-dir", tmp_path / "whole", plugins=TRAPS)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(run / "checkpoints" / "step_000002")
        assert_same_run(tmp_path / "whole", run)


@pytest.mark.slow
def test_groups_that_one_process_keeps_are_shared(tiny_model: Path, tmp_path: Path) -> None:
    """Of every round the first of four problems is kept, and the first process samples it."""
    path = recipe(tmp_path, tiny_model, algorithm={"name": "sabotage", "keep_every": 4})
    done = launch(tmp_path, "train", path, "--run-dir", tmp_path / "two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cli("train", path, "--run-dir", tmp_path / "one").exit_code == 0
    lines = [metrics_of(tmp_path / name) for name in ("one", "two")]
    for key in ("group/trained", "group/sampling_rounds", "group/discarded_frac"):
        assert [line[key] for line in lines[0]] == [line[key] for line in lines[1]], key
    weights = [load_file(tmp_path / name / "checkpoints/step_000002/model.safetensors") for name in ("one", "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0.0, atol=1e-5, msg=key)
    done = launch(tmp_path, "train", path, "trainer.max_sampling_rounds=3", "--run-dir", tmp_path / "few")
    assert done.returncode == 1
    assert "has kept 3 of the 4 groups that a step needs" in done.stderr


@pytest.mark.slow
def test_two_processes_train_on_every_kept_group_once(tiny_model: Path, tmp_path: Path) -> None:
    path = resumable_recipe(
        tmp_path,
        tiny_model,
        algorithm={"name": "picky"},
        critic=None,
        trainer={"steps": 5, "prompts_per_step": 4, "minibatches": 2},
        checkpoint={"every": 1, "keep": 9},
    )
    run = tmp_path / "run"
    done = launch(tmp_path, "train", path, "--run-dir", run, plugins=(SCRIPTED,))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [*read_jsonl(run / "trained.jsonl"), *read_jsonl(tmp_path / "runs" / "trained.jsonl")]
    assert [len(line["trained"]) for line in lines] == [2] * 10
    waiting = [waiting_in(run, step) for step in range(6)]
    state = read_state(run / "checkpoints" / "step_000005")
    kept = [n for n in range(state.progress["position"]) if is_picked(n)]  # type: ignore[call-overload]
    assert sorted([*(n for line in lines for n in line["trained"]), *waiting[5]]) == kept
    step = next(step for step in range(1, 5) if waiting[step])
    again = cut_back(run, tmp_path / "again", step)
    done = launch(tmp_path, "resume", again, plugins=(SCRIPTED,))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(run, again)
    alone = cut_back(run, tmp_path / "alone", step)
    (alone / "trained.jsonl").unlink()
    assert go(None, alone).outcome == "completed"
    assert next(read_jsonl(alone / "trained.jsonl"))["trained"][: len(waiting[step])] == waiting[step]


def waiting_in(run: Path, step: int) -> list[int]:
    """The problems of the groups that a checkpoint carries."""
    groups = read_groups(run / "checkpoints" / f"step_{step:06d}" / "carried.jsonl")
    return [group.group.request.problem.info["n"] for group in groups]


@pytest.mark.slow
def test_two_processes_find_the_same_overlong_prompts(tiny_model: Path, tmp_path: Path) -> None:
    """Each measures half of the split; both leave out what either found, or end in one line."""
    task = {"name": "counting", "problems": 7, "long_at": 5}
    path = recipe(
        tmp_path,
        tiny_model,
        task=task,
        trainer={"steps": 3, "prompts_per_step": 2},
        evaluation={"suites": {}},
        logging={"transcripts_per_step": 99},
    )
    refused = launch(tmp_path, "train", path)
    assert refused.returncode != 0
    assert "train: 1 of 7 prompts are over sampling.max_prompt_tokens=20; the longest, of problem" in refused.stderr
    assert not (tmp_path / "runs").exists()
    done = launch(tmp_path, "train", path, "sampling.overlong_prompts=drop", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("train: 7 checked, 1 over 20 tokens and dropped, 6 left") == 1
    steps = sorted((tmp_path / "run" / "transcripts").glob("step_*.jsonl"))
    asked = {json.loads(line)["problem_id"] for step in steps for line in step.read_text().splitlines()}
    assert len(asked) == 3  # one of two prompts of every step is the first process's
    assert "counting/train/5" not in asked
    first, *_ = [json.loads(line) for line in steps[0].read_text().splitlines()]
    assert len(first["tokens"]["entropy"]) == first["completion_tokens"], "of the first process's own rows"


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_hold_one_kl_coefficient(tiny_model: Path, tmp_path: Path) -> None:
    """The metric is the mean over processes, which is that of each only if both hold the same."""
    kl = {"coef": 0.3, "target": 1e-3, "horizon": 2.0}
    path = resumable_recipe(
        tmp_path,
        tiny_model,
        algorithm={"name": "grpo", "kl": kl},
        critic=None,
        trainer={"steps": 4, "prompts_per_step": 4},
        checkpoint={"every": 1, "keep": 9},
    )
    run = tmp_path / "run"
    done = launch(tmp_path, "train", path, "--run-dir", run, plugins=(SCRIPTED,))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = metrics_of(run)
    coefs = [line["policy/kl_coef"] for line in lines]
    assert coefs == pytest.approx(adapted(0.3, [line["policy/kl_ref_k3"] for line in lines], 1e-3, 0.5)[:-1], rel=1e-12)
    assert len(set(coefs)) == 4
    again = cut_back(run, tmp_path / "again", 2)
    done = launch(tmp_path, "resume", again, plugins=(SCRIPTED,))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(run, again)
