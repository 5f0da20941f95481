"""Read a run folder to resume it. Torch-free, so that refusals are immediate."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from reasonrl.errors import PluginError, RecipeError, one_line
from reasonrl.plugins import Plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.models import find_model, is_at_hand
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.rundir.folder import refuse_in_use
from reasonrl.rundir.layout import RECIPE, RUN, SUMMARY, list_members, step_dir
from reasonrl.rundir.reading import UnreadableError, read_object
from reasonrl.runs.identity import CHANGEABLE, build_early_identity, is_changeable, refuse_changes, with_new_keys
from reasonrl.runs.state import Identity

log = logging.getLogger(__name__)


class Manifest(TypedDict, total=False):
    """What is read again of ``run.json``."""

    recipe: Mapping[str, object]
    model_path: str
    plugins: list[Mapping[str, str]]
    resumed: list[Mapping[str, object]]


def read_run(run_dir: Path, overrides: Sequence[str], plugins: Plugins) -> AnyResolved:
    """The recipe that the run of a folder was started with.

    Args:
        overrides: keys that may change, such as ``trainer.steps=N`` to train longer; see ``CHANGEABLE``.

    Raises:
        RecipeError: if this is not a run folder, or recipe or plugins have changed.
        RunDirInUseError: if another process uses the folder.
    """
    for name in (RUN, RECIPE):
        if not os.path.isfile(run_dir / name):
            is_sweep = bool(list_members(run_dir))
            hint = "; it holds runs; resume one of them, or repeat the command of the sweep" if is_sweep else ""
            raise RecipeError(f"{run_dir} is not a run folder: it has no {name}{hint}")
    refuse_in_use(run_dir)
    for override in overrides:
        if not is_changeable(override.partition("=")[0].strip()):
            raise RecipeError(
                f"override {override!r}: this key cannot change when resuming, only {', '.join(CHANGEABLE)}; "
                "start a new run to change anything else"
            )
    # Its model is looked for below, in more places.
    resolved = load_recipe(run_dir / RECIPE, overrides, plugins, model_path="")
    now = build_early_identity(resolved, plugins)
    then = read_manifest(run_dir)
    refuse_changes(run_dir, _identity_then(then, now, resolved), now)
    return replace(resolved, model_path=_starting_model(run_dir, resolved, plugins, str(then["model_path"])))


def _starting_model(run_dir: Path, resolved: AnyResolved, plugins: Plugins, recorded: str) -> str:
    """The recipe's model if it exists; else the newest checkpoint, if it contains all that the run needs of the model.

    Raises:
        RecipeError: if the run needs a model that is gone.
    """
    model = resolved.recipe.model
    try:
        named = find_model(model, plugins)
    except (ValueError, PluginError):
        named = ""
    for path in filter(None, (named, recorded)):
        if is_at_hand(path, model.revision):
            return path
    needs = _needs_its_start(resolved)
    folder = None if needs else find_newest_valid(run_dir)
    if folder is not None:
        log.warning(
            "%s is not found; loading model, tokenizer and configuration from %s", _name_model(resolved), folder
        )
        return str(folder)
    if named and not os.path.isabs(recorded) and os.environ.get("HF_HUB_OFFLINE", "0") == "0":
        return named  # on the hub
    raise RecipeError(
        f"cannot resume {run_dir}: {_name_model(resolved)} is not found, and "
        f"{needs or 'no checkpoint is saved yet'}; restore it"
    )


def _needs_its_start(resolved: AnyResolved) -> str:
    """What a run still needs its starting model for, once it has a checkpoint; empty = nothing."""
    if resolved.recipe.model.lora is not None:
        return "model.lora trains adapters on top of it (checkpoints do not contain it)"
    if isinstance(resolved, ResolvedRecipe) and resolved.needs.reference:
        return f"algorithm {resolved.algorithm.name!r} needs it as the reference of its KL penalty"
    return ""


def _name_model(resolved: AnyResolved) -> str:
    model = resolved.recipe.model
    is_secret = ("model", "path") in resolved.interpolated  # the environment is the user's own business
    return "the starting model" if is_secret else f"the starting model {model.name or model.path!r}"


def find_finished_summary(run_dir: Path, steps: int) -> dict[str, Any] | None:
    """``summary.json`` if the run has done all ``steps``; None while it has not."""
    try:
        summary = read_object(run_dir / SUMMARY)
        is_done = summary["outcome"] == "completed" and summary["steps"] >= steps
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or cut off by a full disk; the checkpoints tell
    return summary if is_done else None


def describe_finished(run_dir: Path, resolved: AnyResolved, steps: int, newest: int | None) -> str:
    """What is left of a finished run, whose newest checkpoint is that of step ``newest``, and how to continue it."""
    if isinstance(resolved, ResolvedSft):
        key, length = "sft.max_tokens", resolved.recipe.sft.max_tokens
    else:
        key, length = "trainer.steps", steps
    command = f"reasonrl resume {run_dir} {key}="
    done = f"{run_dir} is finished: {steps} step{'s' * (steps != 1)}"
    if newest == steps:
        model = step_dir(run_dir, newest)
        return f"{done}, model in {model}; to train longer: {command}{2 * length}"
    if newest is None:
        return f"{done}, but its checkpoints are missing; to retrain from the start: {command}{length}"
    return (
        f"{done}, but the checkpoint of step {steps} is missing or damaged; the newest "
        f"is step {newest}, {step_dir(run_dir, newest)}; to retrain the steps after it: {command}{length}"
    )


def read_manifest(run_dir: Path) -> Manifest:
    """``run.json`` as the last start wrote it.

    Raises:
        RecipeError: if it is damaged.
    """
    path = run_dir / RUN
    try:
        run = read_object(path)
        right = {
            "recipe": isinstance(run.get("recipe"), dict),
            "model_path": isinstance(run.get("model_path"), str),
            "plugins": _are_records(run.get("plugins")),
            "resumed": _are_records(run.get("resumed", [])),
        }
        if wrong := [key for key, is_right in right.items() if not is_right]:
            raise UnreadableError(f"{', '.join(wrong)} missing or damaged")
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or one_line(err)
        raise RecipeError(f"{path}: cannot be read: {reason}; restore it from a backup") from err
    return Manifest(
        recipe=run["recipe"], model_path=run["model_path"], plugins=run["plugins"], resumed=run.get("resumed", [])
    )


def _are_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _identity_then(run: Manifest, now: Identity, resolved: AnyResolved) -> Identity:
    versions = {str(record.get("name")): str(record.get("version")) for record in run["plugins"]}
    recipe = with_new_keys(run["recipe"], now["recipe"], resolved.source.data)
    return {"recipe": recipe, "plugins": {name: versions.get(name, "") for name in now["plugins"]}}
