"""Runs with ``model.sharding: fsdp`` on two processes: sharded indeed, and with the results of data-parallel ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.processes import on_ranks
from support.resume_runs import assert_same_run, cut_back, resumable_recipe
from support.sharded_runs import Job, carry_out_all

SHARDED = ("model.sharding=fsdp",)
SHORT: dict[str, Any] = {
    # Adam would make steps of the rounding of gradients that are zero, such as those of the keys' biases.
    "optimizer": {"learning_rate": 0.01, "eps": 1e-3},
    "trainer": {"steps": 4, "prompts_per_step": 4, "minibatches": 2},
    "evaluation": {"every": 2, "suites": {"held_out": {"problems": 3}}},
    "checkpoint": {"every": 2, "keep": 9},
}


def on_two(folder: Path, *jobs: Job) -> str:
    done = on_ranks(2, carry_out_all, jobs, folder)
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    return done.stderr


def weights_of(run: Path, step: int = 4) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step_{step:06d}"
    own = folder / "trainable.safetensors"
    return {**load_file(folder / "model.safetensors"), **(load_file(own) if own.exists() else {})}


@pytest.mark.slow
def test_a_sharded_run_learns_what_a_replicated_one_does(tiny_model: Path, tmp_path: Path) -> None:
    """Sampled by the trainer's own model; saved, resumed bit by bit, evaluated on the way."""
    recipe = resumable_recipe(tmp_path, tiny_model, **SHORT)
    runs = {name: tmp_path / name for name in ("replicated", "sharded")}
    on_two(tmp_path, (recipe, runs["replicated"], ()), (recipe, runs["sharded"], SHARDED))
    replicated, sharded = (weights_of(run) for run in runs.values())
    assert replicated.keys() == sharded.keys()
    assert "lm_head.weight" not in sharded  # tied
    for name, tensor in replicated.items():
        torch.testing.assert_close(sharded[name], tensor, rtol=0.0, atol=1e-5, msg=name)
    for rank in range(2):
        share = json.loads((tmp_path / f"sharded-{rank}.json").read_text())["policy"]
        assert share["units"] == 3  # two layers, and the rest
        assert share["here"] < 0.51 * share["whole"]
    again = cut_back(runs["sharded"], tmp_path / "again", 2)
    on_two(tmp_path, (None, again, ()))
    assert_same_run(runs["sharded"], again)
