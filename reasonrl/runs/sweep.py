"""Plan a sweep: which runs its folder holds, which are left to do, and the command of each. Torch-free."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reasonrl.errors import PluginError, RecipeError, RunDirInUseError, one_line
from reasonrl.importing import module_command
from reasonrl.plugins import Plugins
from reasonrl.recipe.grid import Point, as_one_list, grid, short_names
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved, ResolvedSft
from reasonrl.rundir.differences import differences
from reasonrl.rundir.folder import RunDir, is_locked
from reasonrl.rundir.layout import LOCK, RECIPE, SUMMARY, is_run
from reasonrl.runs.identity import refuse_changes, total_steps, with_new_keys
from reasonrl.runs.ready import refuse_new_run
from reasonrl.runs.resume import find_finished_summary, read_manifest
from reasonrl.runs.sources import describe_data

State = Literal["missing", "unfinished", "finished", "running"]
LEFTOVERS = {LOCK, RECIPE, SUMMARY}
"""All that a run leaves which died before it was one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRun:
    """The run of a point. ``number``: from 1 to ``total``, in the order of the points. ``command``: what trains it."""

    number: int
    total: int
    point: Point
    folder: Path
    state: State
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.point.name

    @property
    def log(self) -> Path:
        """What the run prints, beside its folder."""
        return self.folder.with_name(f"{self.name}.log")

    def clear(self) -> bool:
        """Make room for the run: remove what one that died at its start has left.

        Returns:
            False if another sweep has started the run since this one was planned.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.state != "missing" or not self.folder.exists():
            return True
        try:
            held = RunDir.reopen(self.folder)
        except RunDirInUseError:
            return False
        try:
            if not _has_only_leftovers(self.folder):
                return False
            shutil.rmtree(self.folder)
        finally:
            held.close()
        return True


def plan_sweep(
    recipe: str,
    words: Sequence[str],
    plugins: Plugins,
    *,
    folder: str | Path | None = None,
    plugin_files: Sequence[str] = (),
    only: int | None = None,
) -> tuple[Path, list[SweepRun]]:
    """Check every point as ``recipes check`` does; return the sweep's folder and runs. Changes nothing.

    Args:
        words: overrides; a key with several values, separated by commas, is varied.
        folder: of the sweep; None = ``<output_dir>/<name>-<keys>``.
        plugin_files: for the commands.
        only: the number of a single point.

    Raises:
        RecipeError: If a point is wrong, or the folder holds runs of other settings.
        PluginError: If a point is wrong.
    """
    numbered = list(enumerate(grid(words), start=1))
    total = len(numbered)
    if only is not None:
        if only > total:
            raise RecipeError(f"--only {only}: the sweep has {total} points; --dry-run lists them")
        numbered = numbered[only - 1 : only]
    checked = [(number, point, _load(recipe, point, words, plugins)) for number, point in numbered]
    home = Path(folder) if folder is not None else _default_folder(checked[0][2], checked[0][1])
    seen: set[str] = set()
    runs = []
    for number, point, resolved in checked:
        with _about(point):
            state, command = _plan_run(point, resolved, home / point.name, recipe, plugin_files)
            run = SweepRun(
                number=number, total=total, point=point, folder=home / point.name, state=state, command=command
            )
            if run.state == "missing":
                refuse_new_run(resolved, None if run.folder.exists() else run.folder)
                _check_data(resolved, plugins, seen)
        runs.append(run)
    return home, runs


@contextmanager
def _about(point: Point) -> Iterator[None]:
    """Name the point in errors."""
    try:
        yield
    except (RecipeError, PluginError) as err:
        raise type(err)(one_line(f"{point.name}: {err}")) from err


def _load(recipe: str, point: Point, words: Sequence[str], plugins: Plugins) -> AnyResolved:
    with _about(point):
        try:
            return load_recipe(recipe, point.overrides, plugins)
        except RecipeError as err:
            for key in point.values:
                if _is_accepted(recipe, as_one_list(point, key, words), plugins):
                    raise RecipeError(
                        f"{err}; {key} takes a list: write {key}=[a,b] for one list, {key}=[a],[b] to vary it"
                    ) from err
            raise


def _is_accepted(recipe: str, overrides: Sequence[str], plugins: Plugins) -> bool:
    try:
        load_recipe(recipe, overrides, plugins)
    except (RecipeError, PluginError):
        return False
    return True


def _default_folder(resolved: AnyResolved, point: Point) -> Path:
    keys = "-".join(short_names(list(point.values)).values())
    return Path(resolved.recipe.output_dir) / f"{resolved.recipe.name}-{keys}"


def _check_data(resolved: AnyResolved, plugins: Plugins, seen: set[str]) -> None:
    """Read what is cheap to read, once for all points that read the same."""
    plain = render_plain(resolved)
    what = json.dumps([plain.get("task"), plain["evaluation"]["suites"], plain.get("data")], sort_keys=True)
    if what not in seen:
        seen.add(what)
        list(describe_data(resolved, plugins))


def _plan_run(
    point: Point, resolved: AnyResolved, folder: Path, recipe: str, plugin_files: Sequence[str]
) -> tuple[State, tuple[str, ...]]:
    """The state of a run, and the command that trains it."""
    state = _state(folder, total_steps(resolved))
    program = module_command("reasonrl")
    options = ("--plain", *(word for file in plugin_files for word in ("--plugin", file)))
    if is_run(folder):
        now = json.loads(json.dumps(render_plain(resolved)))
        then = with_new_keys(read_manifest(folder)["recipe"], now, resolved.source.data)
        refuse_changes(folder, then, now, remedy="undo the change, or start another sweep with --dir")
        rest = ("resume", str(folder), *_changed(resolved, then, now))
    else:
        kind = "sft" if isinstance(resolved, ResolvedSft) else "train"
        rest = (kind, recipe, *point.overrides, "--run-dir", str(folder))
    return state, (*program, *rest, *options)


def _state(folder: Path, steps: int) -> State:
    if is_locked(folder):
        return "running"
    if is_run(folder):
        return "unfinished" if find_finished_summary(folder, steps) is None else "finished"
    if folder.is_dir() and not _has_only_leftovers(folder):
        raise RecipeError(f"{folder} exists and is not a run; remove it, or start another sweep with --dir")
    return "missing"


def _has_only_leftovers(folder: Path) -> bool:
    return {entry.name for entry in folder.iterdir()} <= LEFTOVERS


def _changed(resolved: AnyResolved, then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """Overrides with which a run resumes whose recipe has changed since, in keys that may."""
    for key, _, value in differences(then, now):
        yield f"{key}={json.dumps(_written(resolved.source.data, key, value))}"


def _written(data: Mapping[str, Any], key: str, default: object) -> object:
    """The value as the recipe writes it, with its references to the environment; ``default`` if it is left out."""
    value: Any = data
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value
