"""What saves memory and is not to be had here is refused in one line that names the key."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small_recipes import cli, recipe

from reasonrl.errors import RecipeError
from reasonrl.recipe.schema import CriticConfig, LoraConfig, OptimizerConfig, Recipe
from reasonrl.runs import build, ready


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.name=adamw_8bit",
            "optimizer.name needs the package bitsandbytes: `pip install -e '.[low-memory]'`",
        ),
    ],
)
def test_a_package_that_is_missing(
    override: str, message: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    path = recipe(tmp_path, tiny_model)
    done = cli("train", path, override)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    checked = cli("recipes", "check", path, override)  # the run may be on another machine
    assert checked.exit_code == 0, checked.output
    assert f"note: {message}" in " ".join(checked.output.split())


@pytest.mark.parametrize(
    ("optimizer", "quantization", "key"),
    [
        ("adamw_8bit", None, "optimizer.name: adamw_8bit"),
        ("adamw_bf16", "nf4", "model.lora.quantization: nf4"),
    ],
)
def test_bitsandbytes_where_it_does_not_work(optimizer: Any, quantization: Any, key: str) -> None:
    def check(optimizer: Any, quantization: Any, device: str, sharding: str) -> None:
        lora = LoraConfig(quantization=quantization)
        recipe: Any = SimpleNamespace(
            optimizer=OptimizerConfig(name=optimizer),
            model=SimpleNamespace(lora=lora, sharding=sharding),
            rollout_backend={"name": "vllm"},
        )
        accelerator: Any = SimpleNamespace(device=torch.device(device))
        build._check_device(recipe, accelerator)

    check(optimizer, quantization, "cuda", "none")
    check("adamw_bf16", None, "mps", "fsdp")
    with pytest.raises(RecipeError, match=f"{key} needs whole weights, but model.sharding: fsdp divides them"):
        check(optimizer, quantization, "cuda", "fsdp")
    with pytest.raises(RecipeError, match=f"{key} runs on cpu and cuda, not on mps"):
        check(optimizer, quantization, "mps", "none")


@pytest.mark.parametrize(
    ("kind", "lora", "message"),
    [
        ("separate", "{quantization: nf4}", "critic.kind must be shared or adapter with model.lora.quantization"),
        ("adapter", "null", "critic.kind must be shared or separate without model.lora"),
    ],
)
def test_critics_that_do_not_fit(kind: str, lora: str, message: str, tiny_model: Path, tmp_path: Path) -> None:
    done = cli("train", recipe(tmp_path, tiny_model), f"model.lora={lora}", f"critic={{kind: {kind}}}")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"critic": CriticConfig(kind="adapter")}, r"critic\.kind: adapter needs whole weights"),
        ({"trainer": SimpleNamespace(offload=["optimizer"])}, r"trainer\.offload needs whole weights"),
    ],
)
def test_what_is_not_sharded(changed: dict[str, Any], message: str) -> None:
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"))

    def check(sharding: str) -> None:
        recipe: Any = object.__new__(Recipe)
        model = SimpleNamespace(lora=None, sharding=sharding)
        plain = {"optimizer": OptimizerConfig(), "model": model, "critic": None}
        for name, value in {**plain, "trainer": SimpleNamespace(offload=[]), **changed}.items():
            object.__setattr__(recipe, name, value)
        build._check_device(recipe, accelerator)

    check("none")
    with pytest.raises(RecipeError, match=message):
        check("fsdp")
