"""Checks that need no model, for ``recipes check`` and before every run. Torch-free."""

from importlib.util import find_spec
from pathlib import Path

from reasonrl.contracts.install import install_extra
from reasonrl.errors import RecipeError
from reasonrl.model.chat_template import check_chat_template
from reasonrl.observability.trackers import tracker_problem
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.rundir.folder import refuse_taken, refuse_unwritable
from reasonrl.runs.sources import refuse_missing


def refuse_new_run(resolved: AnyResolved, run_dir: str | Path | None = None) -> None:
    """Refuse what would end a new run before its first step.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        RunDirInUseError: if another process uses the folder.
    """
    refuse_taken(run_dir)
    refuse_unwritable(resolved.recipe.output_dir, run_dir)
    refuse_unready(resolved)


def refuse_unready(resolved: AnyResolved) -> None:
    """Refuse a recipe that asks for files or packages that are not here. A finished model needs none of them."""
    source, recipe = resolved.source, resolved.recipe
    if problem := tracker_problem(recipe.logging.trackers):
        raise source.error(("logging", "trackers"), f": {problem}")
    lora = recipe.model.lora
    for wanted, at, package, extra in (
        (lora is not None, ("model", "lora"), "peft", "lora"),
        (lora and lora.quantization, ("model", "lora", "quantization"), "bitsandbytes", "low-memory"),
        (recipe.optimizer.name == "adamw_8bit", ("optimizer", "name"), "bitsandbytes", "low-memory"),
    ):
        if wanted and find_spec(package) is None:
            raise source.error(at, f" needs the package {package}: {install_extra(extra)}")
    try:
        check_chat_template(recipe.model)
    except RecipeError as err:
        raise RecipeError(f"{source.where(('model', 'chat_template'))}: {err}") from err
    refuse_missing(resolved)
