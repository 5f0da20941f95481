"""The recipes for known GPUs fit them, and their headers say what `reasonrl plan` says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_recipes", ROOT / "scripts" / "plan_recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLANS = script()
RECIPES = [path for path in PLANS.recipes() if path.is_relative_to(ROOT / "recipes")]
SHARE = 0.9
"""Of the GPU's memory: of the recipes that need more, every run of the tests plans the first, the long ones all."""


def header(path: Path) -> str:
    return "".join(re.findall(r"^# Plan for .*$", path.read_text(encoding="utf-8"), re.MULTILINE))


def share(path: Path) -> float:
    """Of the memory, by the header; 1 if it does not say."""
    return next((float(a) / float(b) for a, b in re.findall(r": ([\d.]+) of ([\d.]+) GiB", header(path))), 1.0)


TIGHT = next(path for path in RECIPES if share(path) > SHARE)


def tier(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.slow if path == TIGHT else pytest.mark.long


def test_sizes_tasks_and_classes_are_there() -> None:
    names = {path.relative_to(ROOT / "recipes").as_posix() for path in ROOT.glob("recipes/qwen*/*.yaml")}
    qwen2 = {f"qwen2.5/{size}_{how}.yaml" for size in ("0.5b", "1.5b", "3b", "7b") for how in ("ppo", "grpo")}
    qwen3 = {f"qwen3/{size}_{how}.yaml" for size in ("0.6b", "1.7b", "4b", "8b") for how in ("ppo", "grpo")}
    assert names == qwen2 | qwen3
    for path in PLANS.recipes():
        assert share(path) < 1.0, path
        assert "DOES NOT FIT" not in header(path)
        assert "Not yet run" in path.read_text(encoding="utf-8")
    assert sum(share(path) > SHARE for path in RECIPES) >= 2


@pytest.mark.parametrize("path", [pytest.param(path, marks=tier(path), id=path.stem) for path in RECIPES])
def test_a_recipe_fits_as_its_header_says(path: Path) -> None:
    plan = PLANS.plan_of(path)
    assert plan.fits
    assert PLANS.line_of(plan) == header(path)
    page = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    assert PLANS.row_of(path.read_text(encoding="utf-8"), plan) in page
