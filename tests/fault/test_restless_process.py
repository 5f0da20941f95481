"""A plugin that changes the process, and a clock that jumps: the run is where and what it is without them."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from support.resume_runs import assert_same_run

from reasonrl.runs import start

PLUGIN = """
import os
import random

import numpy
import torch

from reasonrl import Problem, RewardSpec, TaskSpec, hookimpl


def change(where):
    if folder := os.environ.get("RESTLESS"):
        os.makedirs(folder + "/" + where, exist_ok=True)
        os.chdir(folder + "/" + where)
        for seed in (random.seed, numpy.random.seed, torch.manual_seed):
            seed(len(where))
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(1 + len(where))
        torch.use_deterministic_algorithms(True)


class Task:
    def __init__(self, config, context):
        change("task")

    def size(self, split):
        change("size")

    def problem(self, split, index):
        change("problem")
        return Problem(id=f"t/{split}/{index}", prompt=f"{index}+1=", info={"n": index})


class Reward:
    def __init__(self, config, context):
        change("reward")

    def score(self, problem, completion):
        change("score")
        return (len(completion.text) % 5) / 4


@hookimpl
def reasonrl_tasks():
    change("hook")
    yield TaskSpec(name="restless", summary="x", factory=Task, default_rewards=("restless",))


@hookimpl
def reasonrl_rewards():
    yield RewardSpec(name="restless", summary="x", factory=Reward)


@hookimpl
def reasonrl_step_finished(run, record, groups):
    change("step")


change("import")
"""
RECIPE = {
    "name": "restless",
    "task": {"name": "restless"},
    "algorithm": {"name": "ppo"},
    "critic": {"kind": "separate"},
    "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4},
    "trainer": {"steps": 3, "prompts_per_step": 4, "minibatches": 2},
    "evaluation": {"every": 2, "suites": {"held_out": {"problems": 2}}},
    "logging": {"report": False},
}


@pytest.mark.fault
def test_changes_by_a_plugin_and_jumps_of_the_clock_do_not_reach_the_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**RECIPE, "model": {"path": str(tiny_model), "init": "random", "lora": {"rank": 2}}}
    (tmp_path / "restless_plugin.py").write_text(PLUGIN)
    real, jumps = time.time, iter(range(10**9))
    for name, folder in (("restless", str(tmp_path / "elsewhere")), ("calm", "")):
        home = tmp_path / name
        home.mkdir()
        (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        with monkeypatch.context() as patch:
            patch.chdir(home)
            patch.setenv("RESTLESS", folder)
            if folder:  # a day forward, a day back
                patch.setattr(time, "time", lambda: real() + 86400 * (next(jumps) % 3 - 1))
            start.train("recipe.yaml", plugin_files=["../restless_plugin.py"])
            assert os.getcwd() == str(home)
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    runs = [tmp_path / name / "runs" / "restless-1" for name in ("calm", "restless")]
    assert_same_run(*runs)
    lines = [json.loads(line) for line in (runs[1] / "metrics.jsonl").read_text().splitlines()]
    times = [value for line in lines for key, value in line.items() if key.startswith(("time/", "throughput/"))]
    assert times
    assert min(times) >= 0
    assert 0 <= json.loads((runs[1] / "summary.json").read_text())["wall_s"] < 3600
