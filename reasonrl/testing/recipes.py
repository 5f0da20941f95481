"""Shrink recipes for tests."""

from collections.abc import Mapping
from pathlib import Path

import yaml


def shrink_overrides(model: Path, output: Path) -> list[str]:
    """Return overrides that shrink a training recipe to two small steps on the model folder ``model``."""
    return [
        f"output_dir={output}",
        f"model.path={model}",
        "model.name=null",
        "model.dtype=float32",
        "sampling.max_prompt_tokens=1024",
        "sampling.max_completion_tokens=8",
        "trainer.steps=2",
        "trainer.prompts_per_step=4",
        "trainer.minibatches=1",
        "evaluation.every=0",
    ]


def write_recipe(recipe: Mapping[str, object], folder: Path) -> Path:
    """Write a recipe to ``folder``, filling in required keys that a test does not care about."""
    whole = {
        "name": "test",
        "model": {"name": None, "path": "."},
        "trainer": {"steps": 2, "prompts_per_step": 4},
        **recipe,
    }
    path = folder / f"{whole['name']}.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path
