"""What became of the rows that a task has read, as the task tells it."""

from collections.abc import Sequence

from reasonrl.contracts.data import DataSummary, Split
from reasonrl.contracts.protocols import Task
from reasonrl.errors import PluginContractError, RecipeError, plugin_call


def fetch_summaries(task: Task, task_name: str) -> list[DataSummary]:
    """``task.data_summary()``, checked; empty if the task has none."""
    ask = getattr(task, "data_summary", None)
    if ask is None:
        return []
    with plugin_call(f"task {task_name!r}: data_summary()"):
        found = ask()
    good = isinstance(found, Sequence) and all(isinstance(summary, DataSummary) for summary in found)
    if not good:
        raise PluginContractError(
            f"task {task_name!r}: data_summary() returned {found!r:.80}, expected DataSummary objects"
        )
    return list(found)


def empty_split(task: Task, task_name: str, split: Split, size: int) -> RecipeError:
    """The error about a split without a problem: what was read, and what to do."""
    summaries = fetch_summaries(task, task_name)
    said = "; ".join(map(str, summaries)) or f"size({split!r}) is {size}"
    parts = [f"task {task_name!r} has no problem in its {split} split: {said}"]
    if split == "eval":
        parts += sorted({summary.held_out for summary in summaries} - {""})
        parts += ["add rows, give the suite a task of its own (evaluation.suites.NAME.task), or remove the suite"]
    else:
        parts += ["add rows"]
    return RecipeError("; ".join(parts))
