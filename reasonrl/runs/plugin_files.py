"""Find the plugin and reward files that a run was started with. Torch-free."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from reasonrl.plugins import PluginRecord, Plugins, RunPlugin, load_plugins
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.redact import redacting_logger
from reasonrl.rewards.from_file import RewardFileConfig
from reasonrl.rundir.layout import RUN
from reasonrl.rundir.reading import read_object

log = redacting_logger(__name__)


def record_plugin(record: PluginRecord) -> dict[str, object]:
    """A plugin in ``run.json``; one that was given by ``--plugin`` can be loaded again."""
    plain: dict[str, object] = {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "status": record.status,
    }
    if record.sha256:
        value = record.file if record.value.endswith(".py") else record.value
        plain |= {"value": value, "file": record.file, "sha256": record.sha256, "provides": list(record.provides)}
    return plain


def load_run_plugins(run: Path | None, files: Sequence[str]) -> Plugins:
    """The installed plugins, the given files, and what ``run`` was started with.

    A file of the run's is loaded only from where it was, with the content it had. One that is not is listed as
    broken, and is named if something that it offered is missing.
    """
    return load_plugins(files=files, of_run=[*_recorded(run)] if run is not None else ())


def warn_of_edited_rewards(run: Path, resolved: AnyResolved) -> None:
    """Warn of every reward whose file is not what it was when ``run`` was started."""
    then = _manifest(run).get("recipe")
    rewards = then.get("rewards") if isinstance(then, Mapping) else None
    for name, part in resolved.rewards.items():
        known = rewards.get(name) if isinstance(rewards, Mapping) else None
        if not isinstance(part.config, RewardFileConfig) or not isinstance(known, Mapping):
            continue
        if known.get("sha256") != part.config.sha256:
            log.warning("reward '%s': %s was edited after %s was trained", name, part.config.file, run)


def _recorded(run: Path) -> list[RunPlugin]:
    entries = _manifest(run).get("plugins")
    texts = ("name", "value", "file", "sha256")
    return [
        RunPlugin(
            run=str(run),
            **{key: entry[key] for key in texts},
            provides=tuple(str(item) for item in entry.get("provides", ())),
            obstacle=_obstacle(run, Path(entry["file"])),
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping) and all(isinstance(entry.get(key), str) for key in texts)
    ]


def _manifest(run: Path) -> Mapping[str, object]:
    try:
        return read_object(run / RUN)
    except (OSError, ValueError):  # whoever needs it says so
        return {}


def _obstacle(run: Path, file: Path) -> str:
    """Loading a plugin runs its code: a run folder of another user must not choose it."""
    if not file.is_absolute() or run.resolve() in file.resolve().parents:
        return f"{file} is inside the run folder"
    for path in (run / RUN, file):
        if _is_foreign(path):
            return f"{path} belongs to another user"
    return ""


def _is_foreign(path: Path) -> bool:
    own = getattr(os, "getuid", int)()
    return own != 0 and path.exists() and path.stat().st_uid not in (own, 0)
