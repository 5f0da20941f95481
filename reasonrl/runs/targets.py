"""Find the model that `eval` and `generate` use: of a run, a folder, a plugin or the hub. Torch-free."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasonrl.errors import PluginNotFoundError, RecipeError
from reasonrl.plugins import Plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.models import ADAPTER_CONFIG, is_adapter
from reasonrl.recipe.places import is_hub_name
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe
from reasonrl.rundir.checkpoints import find_newest_valid, refuse_damaged
from reasonrl.rundir.layout import RECIPE, is_run
from reasonrl.runs.launched import is_first_process
from reasonrl.runs.plugin_files import warn_of_edited_rewards


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A model and the recipe that says how to ask it."""

    model_path: str
    resolved: AnyResolved


def find_run(target: str) -> Path | None:
    """The run folder that ``target`` is or lies in; None for anything else."""
    folder = Path(target)
    if is_run(folder):
        return folder
    if not _is_model(folder):
        return None
    return next((p for p in folder.resolve().parents if is_run(p)), None)


def find_target(
    target: str,
    recipe: str | None,
    plugins: Plugins,
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
    located: tuple[str, str | None] | None = None,
) -> Target:
    """Find model and recipe of ``target``.

    A run brings its own recipe; a model inside a run folder too; a named model the one it was made for.

    Args:
        strict: refuse a run whose newest checkpoint is damaged.
        located: what ``locate`` returned, if it was called before: to verify a large checkpoint takes time.

    Raises:
        RecipeError: saying what is missing.
        CheckpointError: if a checkpoint is damaged, and there is no intact one to use instead.
    """
    model_path, own_recipe = located or locate(target, plugins, strict=strict)
    chosen = recipe or own_recipe
    if chosen is None:
        what = "a model folder" if os.path.exists(target) else "no such folder, and a hub model"
        raise RecipeError(f"{target}: {what} does not come with a recipe; pass --recipe RECIPE")
    run = find_run(target) if recipe is None else None
    # The tokenizer that a run saves carries its chat template; the file may be gone.
    asked = [*overrides, *(["model.chat_template=null"] if run else [])]
    resolved = load_recipe(chosen, asked, plugins, model_path=model_path)
    if run is not None and is_first_process():
        warn_of_edited_rewards(run, resolved)
    return Target(model_path=model_path, resolved=_with_model(resolved, model_path))


def _with_model(resolved: AnyResolved, model_path: str) -> AnyResolved:
    """A saved model is complete: adapters are merged, nothing is initialized randomly, no critic is needed."""
    model = replace(resolved.recipe.model, path=model_path, name=None, init="pretrained", lora=None)
    if isinstance(resolved, ResolvedRecipe):
        recipe = replace(resolved.recipe, model=model, critic=None)
        return replace(resolved, recipe=recipe, model_path=model_path)
    return replace(resolved, recipe=replace(resolved.recipe, model=model), model_path=model_path)


def locate(target: str, plugins: Plugins, *, strict: bool = False) -> tuple[str, str | None]:
    """Folder or hub name of the model, and the recipe that it comes with. A checkpoint is verified.

    Raises:
        RecipeError: saying what is missing.
        CheckpointError: as ``find_target``.
    """
    folder = Path(target)
    run = find_run(target)
    own_recipe = str(run / RECIPE) if run else None
    if run == folder:
        return str(_newest_model(run, strict=strict)), own_recipe
    if _is_model(folder):
        refuse_damaged(folder)
        return str(folder), own_recipe
    if os.path.exists(folder):
        raise RecipeError(
            f"{target} is neither a run folder (run.json) nor a model folder (config.json) nor an adapter folder "
            f"({ADAPTER_CONFIG})"
        )
    try:
        spec = plugins.get("model", target)
    except PluginNotFoundError:
        if not is_hub_name(target) or target.count("/") != 1:
            known = ", ".join(sorted(s.name for s in plugins.specs("model"))) or "none"
            raise RecipeError(
                f"no run folder, model folder or model {target!r}; models that plugins ship: {known}"
            ) from None
        return target, None
    return str(spec.path), spec.recipe


def _is_model(folder: Path) -> bool:
    return os.path.isfile(folder / "config.json") or is_adapter(folder)


def _newest_model(run: Path, *, strict: bool) -> Path:
    newest = find_newest_valid(run, strict=strict)
    if newest is None:
        raise RecipeError(f"run {run} has saved no model yet")
    return newest
