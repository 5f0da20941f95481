"""The data that a recipe names: whether it is there, and what is in it. Torch-free."""

from collections.abc import Iterator, Mapping
from typing import Any

from reasonrl.contracts.protocols import Task, TaskContext
from reasonrl.contracts.specs import TaskSpec
from reasonrl.data.pairs import Pair, read_pairs
from reasonrl.data.stream import ProblemStream
from reasonrl.data.summary import fetch_summaries
from reasonrl.datafiles import local_size
from reasonrl.errors import PluginContractError, plugin_call
from reasonrl.plugins import Plugins, missing_modules
from reasonrl.recipe.resolved import AnyResolved, Component, ResolvedSft, ResolvedSuite
from reasonrl.recipe.schema import DataConfig

MAX_CHEAP_BYTES = 32 * 2**20
"""Data up to this size is read by a mere check."""


def refuse_missing(resolved: AnyResolved) -> None:
    """Look for every file that the recipe reads, before anything slow is loaded. Raises: RecipeError."""
    for key, task in _tasks(resolved).items():
        _bytes_of(key, task)
    if isinstance(resolved, ResolvedSft) and resolved.recipe.data is not None:
        local_size(resolved.recipe.data.path, key="data.path")


def data_lines(resolved: AnyResolved, plugins: Plugins) -> Iterator[str]:
    """What is in the data that is cheap to read: a line a file. Raises: RecipeError, PluginError."""
    for key, task in _tasks(resolved).items():
        size = _bytes_of(key, task)
        if size is not None and 0 < size <= MAX_CHEAP_BYTES and not missing_modules(task.spec):
            built = build_task(task, plugins, resolved.recipe.seed)
            yield from map(str, fetch_summaries(built, task.name))
            for name, suite in resolved.suites.items():
                if suite.task == task and held_out(suite, built) < suite.config.problems:
                    yield too_few(name, suite, held_out(suite, built))
    data = resolved.recipe.data if isinstance(resolved, ResolvedSft) else None
    if data is not None:
        size = local_size(data.path, key="data.path")
        if size is not None and size <= MAX_CHEAP_BYTES:
            yield f"{data.path}: {len(pairs_of(data)):,} examples"


def pairs_of(data: DataConfig) -> list[Pair]:
    """What an SFT recipe's ``data`` section names. Raises: RecipeError naming file and line."""
    return read_pairs(
        data.path, prompt=data.prompt, completion=data.completion, subset=data.subset, split=data.split
    )


def build_task(component: Component, plugins: Plugins, seed: int) -> Task:
    """The task, checked against its protocol."""
    task = plugins.build(component.spec, component.config, TaskContext(seed=seed))
    if not isinstance(task, Task):
        raise PluginContractError(
            f"task {component.spec.name!r}: its factory returned {type(task).__name__}, "
            "which lacks size(split) or problem(split, index)"
        )
    return task


def held_out(suite: ResolvedSuite, task: Task) -> int:
    """How many problems the suite has: as many as it asks for, if they are there. Raises: RecipeError without any."""
    size = ProblemStream(task, suite.task.name, "eval", seed=0).size
    return suite.config.problems if size is None else min(size, suite.config.problems)


def too_few(name: str, suite: ResolvedSuite, count: int) -> str:
    """Said where a suite has fewer problems than it asks for."""
    return f"suite {name}: {suite.config.problems:,} problems asked, {count:,} there"


def _tasks(resolved: AnyResolved) -> dict[str, Component]:
    """Every different task of the recipe, by the key of its slot."""
    found = {"task": resolved.task} if resolved.task else {}
    for name, suite in resolved.suites.items():
        if suite.task not in found.values():
            found[f"evaluation.suites.{name}.task"] = suite.task
    return found


def _bytes_of(key: str, task: Component) -> int | None:
    """Bytes of all files that the task reads; None if it reads other data too. Raises: RecipeError."""
    sizes = [local_size(name, key=f"{key}.{option}") for option, name in _reads(task).items() if name]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _reads(task: Component) -> Mapping[str, str]:
    assert isinstance(task.spec, TaskSpec)
    if task.spec.reads is None:
        return {}
    with plugin_call(f"task {task.name!r}: reads(config)"):
        found: Any = task.spec.reads(task.config)
    if not isinstance(found, Mapping) or not all(
        isinstance(text, str) for pair in found.items() for text in pair
    ):
        raise PluginContractError(
            f"task {task.name!r}: reads(config) returned {found!r:.80}, expected option -> file or hub name"
        )
    return found
