"""Runs with ``model.sharding: fsdp`` on two processes: sharded indeed, and with the results of data-parallel ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.processes import command_on_ranks, on_ranks
from support.resume_runs import SCRIPTED, assert_same_run, cut_back, go, resumable_recipe
from support.sharded_runs import Job, carry_out_all, carry_out_unseen
from transformers import AutoModelForCausalLM

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
    paths = [*folder.glob("model*.safetensors"), *folder.glob("trainable*.safetensors")]
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


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
        for here, whole in (share["gradients"], share["moments"]):
            assert here < 0.51 * whole
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


@pytest.mark.slow
def test_a_run_goes_on_sharded_or_not_on_any_number_of_processes(tiny_model: Path, tmp_path: Path) -> None:
    """1 -> 2 sharded -> 1 -> 2 replicated: the same weights as on one process, up to rounding."""
    recipe = resumable_recipe(tmp_path, tiny_model, **{**SHORT, "checkpoint": {"every": 1, "keep": 9}})
    go(recipe, tmp_path / "one")
    sharded = cut_back(tmp_path / "one", tmp_path / "sharded", 1)
    on_two(tmp_path, (None, sharded, SHARDED))
    alone = cut_back(sharded, tmp_path / "alone", 2)
    assert go(None, alone, "model.sharding=none").outcome == "completed"
    replicated = cut_back(alone, tmp_path / "replicated", 3)
    on_two(tmp_path, (None, replicated, ()))
    expected = weights_of(tmp_path / "one")
    for run in (sharded, alone, replicated):
        found = weights_of(run)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0.0, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_supervised_run_is_sharded_and_its_model_used_anywhere(tiny_model: Path, tmp_path: Path) -> None:
    """Trained and resumed on two processes, evaluated on one and on two, exported on one."""
    sections = {key: value for key, value in SHORT.items() if key not in ("trainer", "checkpoint")}
    more: dict[str, Any] = {"sft": {"max_tokens": 400, "tokens_per_batch": 50}, "checkpoint": {"every": 2, "keep": 9}}
    nothing: dict[str, Any] = dict.fromkeys(("algorithm", "critic", "trainer"))
    recipe = resumable_recipe(tmp_path, tiny_model, **sections, **more, **nothing)
    runs = {name: tmp_path / name for name in ("replicated", "sharded")}
    on_two(tmp_path, (recipe, runs["replicated"], ()), (recipe, runs["sharded"], SHARDED))
    last = max(int(path.name[-6:]) for path in (runs["sharded"] / "checkpoints").iterdir())
    found = weights_of(runs["sharded"], last)
    for name, tensor in weights_of(runs["replicated"], last).items():
        torch.testing.assert_close(found[name], tensor, rtol=0.0, atol=1e-5, msg=name)
    again = cut_back(runs["sharded"], tmp_path / "again", 2)
    on_two(tmp_path, (None, again, ()))
    assert_same_run(runs["sharded"], again)
    for processes in (1, 2):
        words = ("eval", runs["sharded"], "--output", tmp_path / f"eval-{processes}", f"--plugin={SCRIPTED}")
        done = command_on_ranks(processes, *words)
        assert done.returncode == 0, done.stderr[-3000:]
    texts = [(tmp_path / f"eval-{processes}" / "held_out.jsonl").read_text() for processes in (1, 2)]
    assert texts[0] == texts[1]
    done = command_on_ranks(1, "export", runs["sharded"], "--to", tmp_path / "exported")
    assert done.returncode == 0, done.stderr[-3000:]
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in found.items())


@pytest.mark.slow
def test_a_run_folder_that_not_every_process_sees_is_refused_at_once(tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, **SHORT)
    done = on_ranks(2, carry_out_unseen, recipe, tmp_path / "run")
    assert done.returncode != 0
    assert "model.sharding: every process saves its share of the model in" in done.stderr
    assert "put the run folder on a disk that all machines share" in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_the_sharding_of_accelerate_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"asks for {name} .* set model.sharding=fsdp"):
        refuse_foreign_sharding({f"ACCELERATE_USE_{name}": "true"})
    refuse_foreign_sharding({f"ACCELERATE_USE_{name}": "false"})
