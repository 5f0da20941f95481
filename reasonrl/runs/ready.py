"""Checks that need no model, for ``recipes check`` and before every run. Torch-free."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from reasonrl.contracts.install import install_extra
from reasonrl.data.prompts import PromptLimit
from reasonrl.errors import RecipeError, usable_paths
from reasonrl.model.chat_template import check_chat_template
from reasonrl.observability.trackers import tracker_problem
from reasonrl.recipe.models import find_context, source_of
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe
from reasonrl.recipe.source import SUITES, Keys
from reasonrl.rundir.checkpoints import refuse_damaged
from reasonrl.rundir.folder import refuse_taken, refuse_unwritable
from reasonrl.runs.sources import refuse_missing


def refuse_new_run(resolved: AnyResolved, run_dir: str | Path | None = None, *, is_elsewhere: bool = False) -> None:
    """Refuse what would end a new run before its first step.

    Args:
        is_elsewhere: the run may be on another machine, so packages may be missing here.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        RunDirInUseError: if another process uses the folder.
    """
    with usable_paths():
        refuse_taken(run_dir)
        refuse_unwritable(resolved.recipe.output_dir, run_dir)
        refuse_unready(resolved, is_elsewhere=is_elsewhere)


def refuse_foreign_sharding(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse accelerate's own ways to divide a model, which would leave out the checks of the update.

    Raises:
        RecipeError: if the launcher asks for one.
    """
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true"):
            raise RecipeError(
                f"accelerate's config asks for {name} (ACCELERATE_USE_{name}), which is not supported; remove it there "
                "and set model.sharding=fsdp, which shards with FSDP2"
            )


def refuse_unready(resolved: AnyResolved, *, is_elsewhere: bool = False) -> None:
    """Refuse a recipe that asks for files or packages that are not here. A finished model needs none of them."""
    source, recipe = resolved.source, resolved.recipe
    if problem := tracker_problem(recipe.logging.trackers):
        raise source.error(("logging", "trackers"), f": {problem}")
    for at, text in [] if is_elsewhere else missing_packages(resolved):
        raise source.error(at, f" {text}")
    try:
        check_chat_template(recipe.model)
    except RecipeError as err:
        raise RecipeError(f"{source.where(('model', 'chat_template'))}: {err}") from err
    refuse_missing(resolved)
    refuse_small_context(resolved)
    if Path(resolved.model_path).is_dir():
        base = source_of(resolved.model_path)
        for folder in (Path(base.base), *base.adapters):
            refuse_damaged(folder)


def refuse_small_context(resolved: AnyResolved) -> None:
    """Refuse completions that leave no room for a prompt in the model's context, if its config is here already.

    Raises:
        RecipeError: naming the key. Prompts that are too long are found once they are tokenized.
    """
    recipe = resolved.recipe
    sampling, context = recipe.sampling, find_context(resolved.model_path, recipe.model.revision)
    own = {name: suite.max_completion_tokens for name, suite in recipe.evaluation.suites.items()}
    lengths: dict[Keys, int] = {
        (*SUITES, name, "max_completion_tokens"): tokens for name, tokens in own.items() if tokens is not None
    }
    if isinstance(resolved, ResolvedRecipe) or None in own.values():
        lengths["sampling", "max_completion_tokens"] = sampling.max_completion_tokens
    for at, tokens in lengths.items():
        try:
            PromptLimit(max_prompt_tokens=sampling.max_prompt_tokens, completion_tokens=tokens, context=context)
        except RecipeError as err:
            raise resolved.source.error(at, f": {err}") from None


def missing_packages(resolved: AnyResolved) -> list[tuple[tuple[str, ...], str]]:
    """Keys that ask for a package which is not installed here, each with how to install it."""
    lora = resolved.recipe.model.lora
    wanted = (
        (lora is not None, ("model", "lora"), "peft", "lora"),
        (lora and lora.quantization, ("model", "lora", "quantization"), "bitsandbytes", "low-memory"),
        (resolved.recipe.optimizer.name == "adamw_8bit", ("optimizer", "name"), "bitsandbytes", "low-memory"),
    )
    return [
        (at, f"needs the package {package}: {install_extra(extra)}")
        for is_wanted, at, package, extra in wanted
        if is_wanted and find_spec(package) is None
    ]
