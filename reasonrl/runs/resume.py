"""Reading a run folder to go on with it; torch-free, so that what is refused is refused at once."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from reasonrl.errors import PluginError, RecipeError
from reasonrl.plugins import Plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.models import find_model, is_at_hand
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.rundir.folder import refuse_in_use
from reasonrl.rundir.layout import RECIPE, RUN, SUMMARY, step_dir
from reasonrl.runs.identity import CHANGEABLE, build_early_identity, is_changeable, refuse_changes

log = logging.getLogger(__name__)


class Manifest(TypedDict, total=False):
    """What is read again of ``run.json``."""

    recipe: Mapping[str, object]
    model_path: str
    plugins: list[Mapping[str, str]]
    resumed: list[Mapping[str, object]]


def read_run(run_dir: Path, overrides: Sequence[str], plugins: Plugins) -> AnyResolved:
    """The recipe of a run folder, as it was when the run started.

    Args:
        overrides: keys that may change, such as ``trainer.steps=N`` to go on for longer; see ``CHANGEABLE``.

    Raises:
        RecipeError: if this is not a run folder, or recipe or plugins are not what they were.
        RunDirInUseError: if another process uses the folder.
    """
    for name in (RUN, RECIPE):
        if not (run_dir / name).is_file():
            raise RecipeError(f"{run_dir} is not a run folder: it has no {name}")
    refuse_in_use(run_dir)
    for override in overrides:
        if not is_changeable(override.partition("=")[0].strip()):
            raise RecipeError(
                f"override {override!r}: a resumed run keeps its recipe but for {', '.join(CHANGEABLE)}; "
                "start a new run for anything else"
            )
    # Its model is looked for below, in more places.
    resolved = load_recipe(run_dir / RECIPE, overrides, plugins, model_path="")
    now = build_early_identity(resolved, plugins)
    then = read_manifest(run_dir)
    refuse_changes(run_dir, _identity_then(then, now["plugins"]), now)
    return replace(resolved, model_path=_starting_model(run_dir, resolved, plugins, str(then["model_path"])))


def _starting_model(run_dir: Path, resolved: AnyResolved, plugins: Plugins, recorded: str) -> str:
    """The recipe's model, as long as it is there; else the newest checkpoint, if it holds all that the model gave.

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
        log.warning("%s is not here; model, tokenizer and configuration come from %s", _name_model(resolved), folder)
        return str(folder)
    if named and not os.path.isabs(recorded) and os.environ.get("HF_HUB_OFFLINE", "0") == "0":
        return named  # on the hub
    raise RecipeError(
        f"cannot resume {run_dir}: {_name_model(resolved)} is not found, and "
        f"{needs or 'no step is saved yet'}; put it back"
    )


def _needs_its_start(resolved: AnyResolved) -> str:
    """What a run still needs its starting model for, once it has a checkpoint; empty = nothing."""
    if resolved.recipe.model.lora is not None:
        return "model.lora trains adapters on top of it, which a checkpoint does not hold"
    if isinstance(resolved, ResolvedRecipe) and resolved.needs.reference:
        return f"algorithm {resolved.algorithm.name!r} compares the policy with it (KL)"
    return ""


def _name_model(resolved: AnyResolved) -> str:
    model = resolved.recipe.model
    is_secret = ("model", "path") in resolved.interpolated  # the environment is the user's own business
    return "the starting model" if is_secret else f"the starting model {model.name or model.path!r}"


def find_finished_summary(run_dir: Path, steps: int) -> dict[str, Any] | None:
    """``summary.json`` if the run has done all ``steps``; None while it has not."""
    try:
        summary = json.loads((run_dir / SUMMARY).read_bytes())
        is_done = summary["outcome"] == "completed" and summary["steps"] >= steps
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or cut off by a full disk; the checkpoints tell
    return summary if is_done else None


def describe_finished(run_dir: Path, resolved: AnyResolved, steps: int, newest: int | None) -> str:
    """What there is of a finished run whose newest checkpoint is that of step ``newest``, and how to go on."""
    if isinstance(resolved, ResolvedSft):
        key, length = "sft.max_tokens", resolved.recipe.sft.max_tokens
    else:
        key, length = "trainer.steps", steps
    command = f"reasonrl resume {run_dir} {key}="
    if newest == steps:
        model = step_dir(run_dir, newest)
        return f"{run_dir} is finished: {steps} steps, model in {model}; to go on for longer: {command}{2 * length}"
    if newest is None:
        return (
            f"{run_dir} is finished: {steps} steps, but its checkpoints are gone; to train it again from its start: "
            f"{command}{length}"
        )
    return (
        f"{run_dir} is finished: {steps} steps, but the checkpoint of step {steps} is gone; the newest is step "
        f"{newest}, {step_dir(run_dir, newest)}; to train the rest again from there: {command}{length}"
    )


def read_manifest(run_dir: Path) -> Manifest:
    """``run.json`` as the last start wrote it.

    Raises:
        RecipeError: if it is damaged.
    """
    path = run_dir / RUN
    try:
        run: Manifest = json.loads(path.read_bytes())
        run["plugins"] = [dict(record) for record in run["plugins"]]
        return {"recipe": run["recipe"], "model_path": run["model_path"], **run}
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RecipeError(f"{path}: cannot be read: {err!r}") from err


def _identity_then(run: Manifest, used: Iterable[str]) -> dict[str, object]:
    versions = {record.get("name"): record.get("version") for record in run["plugins"]}
    return {"recipe": run["recipe"], "plugins": {name: versions.get(name) for name in used}}
