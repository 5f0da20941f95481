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
from reasonrl.recipe.schema import OptimizerConfig
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
    ("kind", "device", "message"),
    [
        (DistributedType.FSDP, "cuda", "whole parameters, but accelerate's config shards them"),
        (DistributedType.NO, "mps", "runs on cpu and cuda, not on mps"),
    ],
)
def test_8_bit_moments_where_they_do_not_work(kind: DistributedType, device: str, message: str) -> None:
    accelerator: Any = SimpleNamespace(distributed_type=kind, device=torch.device(device))
    build._check_optimizer(OptimizerConfig(name="adamw_bf16"), accelerator)
    with pytest.raises(RecipeError, match=message):
        build._check_optimizer(OptimizerConfig(name="adamw_8bit"), accelerator)
