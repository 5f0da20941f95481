"""The checkpoint that an export reads, verified, and what the run says of it. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl.errors import CheckpointError, RecipeError
from reasonrl.rundir.checkpoints import find_newest_valid, list_saved_steps
from reasonrl.rundir.holds import hold
from reasonrl.rundir.layout import ADAPTER, RUN, find_steps, is_run, is_state_file, step_dir
from reasonrl.rundir.manifest import check_manifest, list_manifest_files
from reasonrl.rundir.reading import read_object


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A verified checkpoint of a run. ``manifest``: what ``run.json`` holds."""

    run: Path
    step: int
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def model_files(self) -> list[str]:
        """Names of the files of the model folder, without state and adapter."""
        listed = list_manifest_files(self.folder)
        return [name for name in listed if not is_state_file(name) and not name.startswith(f"{ADAPTER}/")]

    @property
    def has_adapter(self) -> bool:
        """Whether the run trained adapters."""
        return (self.folder / ADAPTER).is_dir()

    @property
    def precision(self) -> str:
        """The precision that the run computed in."""
        return str(self.manifest.get("machine", {}).get("precision", "float32"))


def open_source(run: Path, step: int | None = None, *, strict: bool = False) -> Source:
    """Find a checkpoint of ``run``, the newest valid one unless ``step`` is given, and verify every file of it.

    Raises:
        RecipeError: If this is not a run folder, or it has no such checkpoint.
        CheckpointError: If the checkpoint is corrupted.
    """
    if not is_run(run):
        raise RecipeError(f"{run} is not a run folder: it has no {RUN}; to choose a checkpoint, pass --step")
    folder = find_newest_valid(run, strict=strict) if step is None else _folder_of(run, step)
    if folder is None:
        raise RecipeError(f"run {run} has saved no model yet")
    try:
        manifest = read_object(run / RUN)
    except (OSError, ValueError) as err:
        raise RecipeError(f"{run / RUN}: {err}; restore it from a backup") from err
    _refuse_incomplete(run / RUN, manifest)
    return Source(run=run, step=find_steps([folder])[0][0], folder=folder, manifest=manifest)


def _refuse_incomplete(path: Path, manifest: Mapping[str, Any]) -> None:
    recipe, machine = manifest.get("recipe"), manifest.get("machine")
    is_whole = isinstance(machine, Mapping) and isinstance(recipe, Mapping) and isinstance(recipe.get("model"), Mapping)
    if not is_whole or not all(isinstance(manifest.get(key), str) for key in ("name", "model_path", "reasonrl")):
        raise RecipeError(f"{path}: lacks what a run writes into it; restore it from a backup")


def _folder_of(run: Path, step: int) -> Path:
    saved = list_saved_steps(run)
    if step not in saved:
        steps = ", ".join(map(str, saved)) or "none"
        raise RecipeError(f"--step {step}: {run} has no checkpoint of this step; saved: {steps}")
    folder = step_dir(run, step)
    hold(folder)
    if problem := check_manifest(folder):
        raise CheckpointError(f"{folder}: {problem}; choose another --step; saved: {', '.join(map(str, saved))}")
    return folder
