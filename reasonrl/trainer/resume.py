"""Reading a run folder to go on with it; torch-free, so that what is refused is refused at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonrl.checkpoint.models import step_dir
from reasonrl.checkpoint.run_dir import refuse_in_use
from reasonrl.errors import RecipeError
from reasonrl.plugins import Plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import AnyResolved, ResolvedSft
from reasonrl.trainer.identity import CHANGEABLE, early_identity, is_changeable, refuse_changes


def read_run(run_dir: Path, overrides: Sequence[str], plugins: Plugins) -> AnyResolved:
    """The recipe of a run folder, as it was when the run started.

    Args:
        overrides: keys that may change, such as ``trainer.steps=N`` to go on for longer; see ``CHANGEABLE``.
    Raises: RecipeError if this is no run folder, or recipe or plugins are not what they were; RunDirInUseError.
    """
    for name in ("run.json", "recipe.yaml"):
        if not (run_dir / name).is_file():
            raise RecipeError(f"{run_dir} is no run folder: it has no {name}")
    refuse_in_use(run_dir)
    for override in overrides:
        if not is_changeable(override.partition("=")[0].strip()):
            raise RecipeError(
                f"override {override!r}: a resumed run keeps its recipe but for {', '.join(CHANGEABLE)}; "
                "start a new run for anything else"
            )
    resolved = load_recipe(run_dir / "recipe.yaml", overrides, plugins)
    now = early_identity(resolved, plugins)
    refuse_changes(run_dir, _identity_then(run_dir, now["plugins"]), now)
    return resolved


def finished_summary(run_dir: Path, steps: int) -> dict[str, Any] | None:
    """``summary.json`` if the run has done all ``steps``; None while it has not."""
    try:
        summary = json.loads((run_dir / "summary.json").read_bytes())
        is_done = summary["outcome"] == "completed" and summary["steps"] >= steps
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or cut off by a full disk; the checkpoints tell
    return summary if is_done else None


def finished_text(run_dir: Path, resolved: AnyResolved, steps: int, newest: int | None) -> str:
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


def _identity_then(run_dir: Path, used: Mapping[str, str]) -> dict[str, Any]:
    try:
        run = json.loads((run_dir / "run.json").read_bytes())
        versions = {record["name"]: record["version"] for record in run["plugins"]}
        return {"recipe": run["recipe"], "plugins": {name: versions.get(name) for name in used}}
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RecipeError(f"{run_dir / 'run.json'}: cannot be read: {err!r}") from err
