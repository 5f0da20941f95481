"""Data summaries of tasks: how many rows were read, dropped and held out."""

from collections.abc import Sequence

from reasonrl.contracts.data import DataSummary, Split
from reasonrl.contracts.protocols import Task
from reasonrl.errors import PluginContractError, RecipeError, plugin_call


def fetch_summaries(task: Task, task_name: str) -> list[DataSummary]:
    """Call ``task.data_summary()`` and validate the result; empty if the task has none."""
    ask = getattr(task, "data_summary", None)
    if ask is None:
        return []
    with plugin_call(f"task {task_name!r}: data_summary()") as call:
        found = ask()
    good = isinstance(found, Sequence) and all(isinstance(summary, DataSummary) for summary in found)
    if not good:
        raise PluginContractError(f"{call} returned {found!r:.80}, expected DataSummary objects")
    return list(found)


def empty_split(task: Task, task_name: str, split: Split, size: int) -> RecipeError:
    """Build the error for an empty split: what was read, and what to do."""
    summaries = fetch_summaries(task, task_name)
    found = "; ".join(map(str, summaries)) or f"size({split!r}) is {size}"
    parts = [f"task {task_name!r} has no problems in its {split} split: {found}"]
    if split == "eval":
        parts += sorted({summary.held_out for summary in summaries} - {""})
        parts += ["add rows, set another task for the suite (evaluation.suites.NAME.task), or remove the suite"]
    else:
        parts += ["add rows"]
    return RecipeError("; ".join(parts))
