"""Refuse a recipe that does not fit a GPU, for ``reasonrl recipes check --gpu``. Loads torch only to plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasonrl.errors import RecipeError

if TYPE_CHECKING:
    from reasonrl.planning.gpus import Gpu
    from reasonrl.plugins import Plugins
    from reasonrl.recipe.resolved import AnyResolved


def known_gpu(text: str) -> Gpu:
    """A GPU by name or memory.

    Raises:
        RecipeError: naming the known ones.
    """
    from reasonrl.planning.gpus import find_gpu

    return find_gpu(text)


def check_gpu(resolved: AnyResolved, plugins: Plugins, gpu: Gpu, *, asked: str) -> str:
    """A line that says what the recipe needs.

    Raises:
        RecipeError: if that is more than the GPU has.
    """
    from reasonrl.planning.here import find_target
    from reasonrl.planning.plan import make_plan
    from reasonrl.planning.text import memory_line

    plan = make_plan(resolved, plugins, find_target(gpu, 1, "none"))
    if not plan.fits:
        raise RecipeError(
            f"{resolved.path}: {memory_line(plan)} on {gpu.name}; `reasonrl plan {asked}` looks for changes that make "
            "it fit"
        )
    return f"{gpu.name}: {memory_line(plan)}"
