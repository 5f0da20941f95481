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

from reasonrl.errors import RecipeError
from reasonrl.runs.ready import refuse_foreign_sharding

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
    changed = cut_back(runs["replicated"], tmp_path / "changed", 2)
    on_two(tmp_path, (None, again, ()), (None, changed, SHARDED))
    assert_same_run(runs["sharded"], again)
    for name, tensor in weights_of(changed).items():
        torch.testing.assert_close(tensor, sharded[name], rtol=0.0, atol=1e-5, msg=name)
    told = json.loads((changed / "run.json").read_text())["resumed"][-1]
    assert told["changed"] == {"model.sharding": '"none" -> "fsdp"'}


VARIANTS: dict[str, dict[str, Any]] = {
    "adapters": {
        "algorithm": {"name": "grpo", "kl": {"coef": 0.05}},
        "critic": None,
        "lora": {"rank": 2},
    },
    "critic": {
        "algorithm": {"name": "ppo", "kl": {"coef": 0.05, "placement": "loss", "estimator": "k3"}},
        "critic": {"kind": "separate"},
    },
}


@pytest.mark.slow
def test_sharded_adapters_critics_and_references_learn_the_same(tiny_model: Path, tmp_path: Path) -> None:
    """With gradient checkpointing, and in bfloat16 with outputs in float32."""
    jobs: list[Job] = []
    for name, sections in VARIANTS.items():
        (tmp_path / f"{name}_recipe").mkdir()
        given = {**SHORT, "rollout_backend": {"name": "script"}, **sections}
        recipe = resumable_recipe(tmp_path / f"{name}_recipe", tiny_model, **given)
        more = ("model.gradient_checkpointing=true", *SHARDED)
        jobs += [(recipe, tmp_path / f"{name}-replicated", ()), (recipe, tmp_path / f"{name}-sharded", more)]
        jobs.append((recipe, tmp_path / f"{name}-low", (*more, "model.dtype=bfloat16")))
    on_two(tmp_path, *jobs)
    for name in VARIANTS:
        replicated, sharded = (weights_of(tmp_path / f"{name}-{how}") for how in ("replicated", "sharded"))
        assert replicated.keys() == sharded.keys()
        for key, tensor in replicated.items():
            torch.testing.assert_close(sharded[key], tensor, rtol=0.0, atol=1e-5, msg=f"{name} {key}")
        seen = json.loads((tmp_path / f"{name}-low-0.json").read_text())
        assert {dtype for output in seen["outputs"] for dtype in output} == {"torch.float32"}
    reference = seen["reference"]
    assert reference["here"] < 0.51 * reference["whole"]


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_the_sharding_of_accelerate_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"asks for {name} .* set model.sharding=fsdp"):
        refuse_foreign_sharding({f"ACCELERATE_USE_{name}": "true"})
    refuse_foreign_sharding({f"ACCELERATE_USE_{name}": "false"})
