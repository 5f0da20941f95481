"""The order of training problems. Its whole state is one integer: how many prompts were taken."""

import json
import random
from collections.abc import Sequence

from reasonrl.contracts.data import Problem, Split
from reasonrl.contracts.protocols import Task
from reasonrl.errors import RAISABLE, PluginContractError, ReasonRLError, RecipeError


class ProblemStream:
    """Problems of one split by position: 0, 1, 2, ... A finite split is reshuffled each epoch, by seed and epoch."""

    def __init__(self, task: Task, task_name: str, split: Split, *, seed: int) -> None:
        self._task = task
        self._name = task_name
        self._split: Split = split
        self._seed = seed
        self._size = fetch_size(task, task_name, split)
        self._epoch = -1
        self._order: Sequence[int] = ()
        if self._size is not None and self._size <= 0:
            raise RecipeError(
                f"task {task_name!r} has no problems in its {split!r} split: its data set is empty"
            )

    @property
    def size(self) -> int | None:
        """Problems of the split; None = unbounded."""
        return self._size

    def problem(self, position: int) -> Problem:
        """The problem at ``position`` >= 0 of the endless stream."""
        return fetch_problem(self._task, self._name, self._split, self._index(position))

    def _index(self, position: int) -> int:
        if self._size is None:
            return position
        epoch, offset = divmod(position, self._size)
        if epoch != self._epoch:
            order = list(range(self._size))
            random.Random(f"{self._seed}/{self._split}/{epoch}").shuffle(order)
            self._epoch, self._order = epoch, order
        return self._order[offset]


def fetch_size(task: Task, task_name: str, split: Split) -> int | None:
    """``task.size(split)``, checked."""
    try:
        size = task.size(split)
    except ReasonRLError:
        raise
    except RAISABLE as err:  # a plugin may raise anything; the user learns which one it was
        raise PluginContractError(
            f"task {task_name!r} failed at size({split!r}): {type(err).__name__}: {err}"
        ) from err
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise PluginContractError(
            f"task {task_name!r}: size({split!r}) returned {type(size).__name__}, expected an int or None"
        )
    return size


def fetch_problem(task: Task, task_name: str, split: Split, index: int) -> Problem:
    """``task.problem(split, index)``, checked: a plugin's mistake is named, not met deep in the trainer."""
    try:
        problem = task.problem(split, index)
    except ReasonRLError:
        raise
    except RAISABLE as err:  # a plugin may raise anything; the user learns which one it was
        raise PluginContractError(
            f"task {task_name!r} failed at problem({split!r}, {index}): {type(err).__name__}: {err}"
        ) from err
    if not isinstance(problem, Problem):
        raise PluginContractError(
            f"task {task_name!r}: problem({split!r}, {index}) returned {type(problem).__name__}, expected a Problem"
        )
    try:
        json.dumps(dict(problem.info))
    except (TypeError, ValueError) as err:
        raise PluginContractError(
            f"task {task_name!r}: info of problem({split!r}, {index}) must hold JSON values only: {err}"
        ) from err
    return problem
