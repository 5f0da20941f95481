"""What each process checks before a run, and tells the others, so that all do the same. Torch-free."""

import platform
from collections.abc import Mapping
from pathlib import Path

from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.rundir.folder import nearest_folder
from reasonrl.runs.identity import build_early_identity
from reasonrl.runs.meeting import Preparation
from reasonrl.runs.ready import refuse_foreign_sharding, refuse_new_run, refuse_unready
from reasonrl.runs.sources import hash_data
from reasonrl.version import __version__, find_version

COMPARED = ("torch", "transformers", "accelerate")


def prepare_new(mine: Preparation, resolved: AnyResolved, plugins: Plugins, run_dir: str | Path | None) -> None:
    """Check a new run, in a folder that all processes see."""
    refuse_foreign_sharding()
    refuse_new_run(resolved, run_dir)
    output_dir = resolved.recipe.output_dir
    place = {"run folder": str(Path(run_dir or output_dir).absolute())}
    mine.facts = {**describe_start(resolved, plugins), "data": hash_data(resolved), **place}
    mine.share(nearest_folder(output_dir, run_dir))


def prepare_resume(mine: Preparation, resolved: AnyResolved, plugins: Plugins, run_dir: Path) -> None:
    """Check a run that is resumed, in a folder that all processes see."""
    refuse_foreign_sharding()
    refuse_unready(resolved)
    place = {"run folder": str(run_dir.absolute())}
    mine.facts = {**describe_start(resolved, plugins), "data": hash_data(resolved), **place}
    mine.share(run_dir)


def describe_start(resolved: AnyResolved, plugins: Plugins) -> dict[str, object]:
    """What all processes of a run must have in common: versions, recipe, plugins, and the model's files."""
    version = ".".join(platform.python_version_tuple()[:2])
    return {
        "versions": {"python": version, "reasonrl": __version__, **{name: find_version(name) for name in COMPARED}},
        **build_early_identity(resolved, plugins),
        "plugin files": {record.name: record.sha256[:12] for record in plugins.records if record.sha256},
        "model files": _sizes(Path(resolved.model_path)),
    }


def _sizes(model: Path) -> Mapping[str, int]:
    """Names and sizes of a model folder's files; nothing for a model on the hub."""
    if not (model.name and model.is_dir()):
        return {}
    return {file.name: file.stat().st_size for file in sorted(model.iterdir()) if file.is_file()}
