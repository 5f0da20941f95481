"""LoRA runs leave a PEFT adapter, and an adapter folder is a model wherever one is asked for."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support.small_recipes import cli, recipe, sft_recipe
from transformers import AutoModelForCausalLM

from reasonrl.rundir.manifest import check_manifest
from reasonrl.testing.models import Architecture, tiny_model_folder

IDS = torch.arange(40, 60)[None]


def go(*arguments: object, code: int = 0) -> Any:
    done = cli(*arguments)
    assert done.exit_code == code, done.output
    return done


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def load(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def adapted(folder: Path, base: Path, *more: str, run: str = "run") -> Path:
    """The last checkpoint of a LoRA run on ``base``."""
    go("train", recipe(folder, base), "model.lora={rank: 4}", *more, "--run-dir", folder / run)
    return folder / run / "checkpoints" / "step_000002"


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "llama"])
def test_peft_loads_what_a_run_leaves(architecture: Architecture, tmp_path: Path) -> None:
    base = tiny_model_folder(tmp_path / "base", architecture=architecture)
    saved = adapted(tmp_path, base)
    assert check_manifest(saved) is None
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= json.loads(
        (saved / "manifest.json").read_text()
    )["files"].keys()
    config = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    on_top = peft.PeftModel.from_pretrained(load(base), str(saved / "adapter"))
    merged = logits(load(saved))
    torch.testing.assert_close(logits(on_top), merged, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(load(saved / "adapter")), merged, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(load(base)), merged, atol=1e-3)


def test_a_run_without_lora_leaves_none(tiny_model: Path, tmp_path: Path) -> None:
    go("train", recipe(tmp_path, tiny_model), "--run-dir", tmp_path / "run")
    assert not list((tmp_path / "run").rglob("adapter*"))


def test_an_adapter_is_measured_and_asked_like_the_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    saved = adapted(tmp_path, tiny_model)
    asked = [go("eval", target, "--json").stdout for target in (saved, saved / "adapter")]
    assert asked[0] == asked[1]
    answers = [go("generate", target).output for target in (saved / "adapter", saved)]
    assert answers[0].replace("/adapter", "") == answers[1]


@pytest.mark.parametrize("command", ["train", "sft"])
def test_training_starts_from_the_adapter_merged(command: str, tiny_model: Path, tmp_path: Path) -> None:
    saved = adapted(tmp_path, tiny_model)
    make = recipe if command == "train" else sft_recipe
    trained = []
    for name, path in (("merged", saved), ("adapter", saved / "adapter")):
        go(command, make(tmp_path, path), "--run-dir", tmp_path / name)
        checkpoint = tmp_path / name / "checkpoints" / "step_000002"
        trained.append(logits(load(checkpoint)))
        assert (tmp_path / name / "evals" / "step_000000" / "held_out.jsonl").is_file()
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(trained[0], logits(load(saved)), atol=1e-3)


def test_new_adapters_belong_on_top_of_the_old_ones(tiny_model: Path, tmp_path: Path) -> None:
    first = adapted(tmp_path, tiny_model)
    second = adapted(tmp_path, first / "adapter", run="second")
    config = json.loads((second / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(first / "adapter")
    asked = [go("eval", target, "--json").stdout for target in (second, second / "adapter")]
    assert asked[0] == asked[1]
    go("resume", tmp_path / "second", "trainer.steps=3")


def test_a_base_that_is_not_there_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    saved = adapted(tmp_path, base)
    shutil.rmtree(base)
    asked = [
        ("recipes", "check", recipe(tmp_path, saved / "adapter")),
        ("train", recipe(tmp_path, saved / "adapter")),
        ("eval", saved / "adapter"),
    ]
    for arguments in asked:
        lines = go(*arguments, code=2).output.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1
        assert f"adapter {saved / 'adapter'}: its base model '{base}' is not found; restore it" in errors[0]
    assert go("eval", saved).exit_code == 0, "the merged model needs no base"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "has no base_model_name_or_path; expected a PEFT adapter"),
        ("[]", "has no base_model_name_or_path; expected a PEFT adapter"),
        ('{"base_model_name_or_path": null}', "its base model None is not found"),
        ('{"base_model_name_or_path": "a b"}', "its base model 'a b' is not found"),
        ('{"base_model_name_or_path": "BASE"}', "cannot load its adapter"),
        ('{"base_model_name_or_path": "BASE", "peft_type": "LORA", "r": 2}', "cannot load its adapter"),
        ('{"base_model_name_or_path": "SELF"}', "its base model is the adapter itself"),
    ],
)
def test_a_broken_adapter_is_one_line(text: str, said: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(text.replace("BASE", str(tiny_model)).replace("SELF", str(folder)))
    done = go("train", recipe(tmp_path, folder), code=2)
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in done.output
    assert not (tmp_path / "runs").exists()
