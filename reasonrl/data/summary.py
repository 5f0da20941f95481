"""What became of the rows that a task has read, as the task tells it."""

from collections.abc import Sequence

from reasonrl.contracts.data import DataSummary, Split
from reasonrl.contracts.protocols import Task
from reasonrl.errors import RAISABLE, PluginContractError, ReasonRLError, RecipeError


def fetch_summaries(task: Task, task_name: str) -> list[DataSummary]:
    """``task.data_summary()``, checked; empty if the task has none."""
    ask = getattr(task, "data_summary", None)
    if ask is None:
        return []
    try:
        found = ask()
    except ReasonRLError:
        raise
    except RAISABLE as err:  # a plugin may raise anything; the user learns which one it was
        raise PluginContractError(
            f"task {task_name!r} failed at data_summary(): {type(err).__name__}: {err}"
        ) from err
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
        parts += [
            "add rows, give the suite a task of its own (evaluation.suites.NAME.task), or remove the suite"
        ]
    else:
        parts += ["add rows"]
    return RecipeError("; ".join(parts))
