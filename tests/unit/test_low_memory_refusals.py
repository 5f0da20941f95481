"""What saves memory and is not to be had here is refused in one line that names the key."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from support.small_recipes import cli, recipe

from reasonrl.errors import RecipeError
from reasonrl.recipe.schema import LoraConfig, OptimizerConfig
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


@pytest.mark.parametrize(
    ("optimizer", "quantization", "key"),
    [
        ("adamw_8bit", None, "optimizer.name: adamw_8bit"),
        ("adamw_bf16", "nf4", "model.lora.quantization: nf4"),
    ],
)
def test_bitsandbytes_where_it_does_not_work(optimizer: Any, quantization: Any, key: str) -> None:
    def check(optimizer: Any, quantization: Any, device: str, kind: DistributedType) -> None:
        lora = LoraConfig(quantization=quantization)
        recipe: Any = SimpleNamespace(optimizer=OptimizerConfig(name=optimizer), model=SimpleNamespace(lora=lora))
        accelerator: Any = SimpleNamespace(distributed_type=kind, device=torch.device(device))
        build._check_bitsandbytes(recipe, accelerator)

    check(optimizer, quantization, "cuda", DistributedType.MULTI_GPU)
    check("adamw_bf16", None, "mps", DistributedType.FSDP)
    with pytest.raises(RecipeError, match=f"{key} needs whole weights, but accelerate's config shards them"):
        check(optimizer, quantization, "cuda", DistributedType.FSDP)
    with pytest.raises(RecipeError, match=f"{key} runs on cpu and cuda, not on mps"):
        check(optimizer, quantization, "mps", DistributedType.NO)


def test_a_separate_critic_on_a_quantized_base(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    done = cli("train", path, "model.lora={quantization: nf4}", "critic={kind: separate}")
    assert done.exit_code == 2
    assert "critic.kind must be shared with model.lora.quantization" in " ".join(done.output.split())
