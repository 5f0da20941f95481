"""Find and summarize the data files of a recipe. Torch-free."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from reasonrl.contracts.protocols import Task, TaskContext
from reasonrl.contracts.specs import TaskSpec
from reasonrl.data.pairs import Pair, read_pairs
from reasonrl.data.stream import ProblemStream
from reasonrl.data.summary import fetch_summaries
from reasonrl.datafiles import local_size
from reasonrl.errors import PluginContractError, RecipeError, plugin_call, usable_paths
from reasonrl.plugins import Component, Plugins, missing_modules
from reasonrl.recipe.resolved import AnyResolved, ResolvedSft, ResolvedSuite
from reasonrl.recipe.schema import DataConfig
from reasonrl.redact import hide_values
from reasonrl.rundir import files

MAX_CHEAP_BYTES = 32 * 2**20
"""``recipes check`` reads data up to this size."""


def refuse_missing(resolved: AnyResolved) -> None:
    """Look for every file that the recipe reads, before anything slow is loaded."""
    for key, task in _tasks(resolved).items():
        _bytes_of(resolved, key, task)
    if isinstance(resolved, ResolvedSft) and resolved.recipe.data is not None:
        _size(resolved, resolved.recipe.data.path, "data.path")


def describe_data(resolved: AnyResolved, plugins: Plugins) -> Iterator[str]:
    """What is in the data that is cheap to read: a line a file."""
    tasks = Tasks(plugins, resolved.recipe.seed)
    cheap = [task for key, task in _tasks(resolved).items() if _is_cheap(resolved, key, task)]
    for task in cheap:
        tasks.get(task)
    yield from tasks.lines()
    for name, suite in resolved.suites.items():
        if suite.task in cheap and (there := count_problems(suite, tasks.get(suite.task))) < suite.config.problems:
            yield f"suite {describe_shortage(name, suite.config.problems, there)}"
    data = resolved.recipe.data if isinstance(resolved, ResolvedSft) else None
    if data is not None:
        size = _size(resolved, data.path, "data.path")
        if size is not None and size <= MAX_CHEAP_BYTES:
            yield f"{data.path}: {len(load_pairs(data)):,} examples"


def load_pairs(data: DataConfig) -> list[Pair]:
    """What an SFT recipe's ``data`` section names.

    Raises:
        RecipeError: naming file and line.
    """
    return read_pairs(
        data.path,
        prompt=data.prompt,
        completion=data.completion,
        subset=data.subset,
        split=data.split,
        train_on=data.train_on,
    )


def hash_data(resolved: AnyResolved) -> dict[str, str]:
    """The key of every local data file of the recipe, and its sha256."""
    found = {
        f"{key}.{option}": name
        for key, task in _tasks(resolved).items()
        for option, name in _reads(task).items()
        if name
    }
    if isinstance(resolved, ResolvedSft) and resolved.recipe.data is not None:
        found["data.path"] = resolved.recipe.data.path
    local = {key: name for key, name in found.items() if _size(resolved, name, key) is not None}
    with usable_paths():
        return {key: files.sha256(Path(name).expanduser()) for key, name in local.items()}


class Tasks:
    """The tasks of one recipe. What several slots name alike is built once: its data is read once."""

    def __init__(self, plugins: Plugins, seed: int) -> None:
        self._plugins, self._seed = plugins, seed
        self._built: list[tuple[Component, Task]] = []

    def get(self, component: Component) -> Task:
        """The task of that slot."""
        for known, task in self._built:
            if known == component:
                return task
        task = _build(component, self._plugins, self._seed)
        self._built.append((component, task))
        return task

    def lines(self) -> list[str]:
        """How the tasks so far have used the rows that they read."""
        return [str(s) for component, task in self._built for s in fetch_summaries(task, component.name)]


def _build(component: Component, plugins: Plugins, seed: int) -> Task:
    """The task, checked against its protocol."""
    task = plugins.build(component.spec, component.config, TaskContext(seed=seed))
    if not isinstance(task, Task):
        raise PluginContractError(
            f"task {component.spec.name!r}: its factory returned {type(task).__name__}, "
            "which lacks size(split) or problem(split, index)"
        )
    return task


def count_problems(suite: ResolvedSuite, task: Task) -> int:
    """How many problems the suite has: as many as it asks for, if they are there.

    Raises:
        RecipeError: without any.
    """
    size = ProblemStream(task, suite.task.name, "eval", seed=0).size
    return suite.config.problems if size is None else min(size, suite.config.problems)


def describe_shortage(name: str, asked: int, there: int) -> str:
    """Said where a suite has fewer problems than it asks for."""
    return f"{name}: {asked:,} problems requested, {there:,} available"


def _tasks(resolved: AnyResolved) -> dict[str, Component]:
    """Every different task of the recipe, by the key of its slot."""
    found = {"task": resolved.task} if resolved.task else {}
    for name, suite in resolved.suites.items():
        if suite.task not in found.values():
            found[f"evaluation.suites.{name}.task"] = suite.task
    return found


def _is_cheap(resolved: AnyResolved, key: str, task: Component) -> bool:
    """Whether the task reads small files, and nothing else."""
    size = _bytes_of(resolved, key, task)
    return size is not None and 0 < size <= MAX_CHEAP_BYTES and not missing_modules(task.spec)


def _size(resolved: AnyResolved, name: str, key: str) -> int | None:
    """Bytes of a file; None for other data.

    Raises:
        RecipeError: that says where the recipe names it.
    """
    keys = tuple(key.split("."))
    try:
        with usable_paths():
            return local_size(name, key=key)
    except RecipeError as err:
        hidden = {name: "its value"} if keys in resolved.interpolated else {}
        raise RecipeError(f"{resolved.source.where(keys)}: {hide_values(str(err), hidden)}") from None


def _bytes_of(resolved: AnyResolved, key: str, task: Component) -> int | None:
    """Bytes of all files that the task reads; None if it reads other data too."""
    sizes = [_size(resolved, name, f"{key}.{option}") for option, name in _reads(task).items() if name]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _reads(task: Component) -> Mapping[str, str]:
    assert isinstance(task.spec, TaskSpec)
    if task.spec.reads is None:
        return {}
    with plugin_call(f"task {task.name!r}: reads(config)") as call:
        found = task.spec.reads(task.config)
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise PluginContractError(f"{call} returned {found!r:.80}, expected a mapping of option to file or hub name")
    return found
