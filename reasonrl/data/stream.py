"""The order of training problems. Its only state is the number of prompts taken."""

import json
import random
from collections.abc import Collection, Sequence
from copy import deepcopy

from reasonrl.contracts.data import Problem, Split, is_message
from reasonrl.contracts.protocols import Task
from reasonrl.data.summary import empty_split
from reasonrl.data.tools import with_tools
from reasonrl.errors import PluginContractError, check_returned, plugin_call

REDRAW_STRIDE = 2**32
"""Distance between the indices that one position of an endless task may draw."""


class ProblemStream:
    """Problems of one split by position: 0, 1, 2, ... A finite split is reshuffled each epoch, by seed and epoch."""

    def __init__(self, task: Task, task_name: str, split: Split, *, seed: int) -> None:
        self._task = task
        self.task_name = task_name
        self._split: Split = split
        self._seed = seed
        self._size = fetch_size(task, task_name, split)
        self._epoch = -1
        self._order: Sequence[int] = ()
        self._left_out: Collection[int] = frozenset()
        if self._size is not None and self._size <= 0:
            raise empty_split(task, task_name, split, self._size)

    @property
    def size(self) -> int | None:
        """Problems of the split; None = unbounded."""
        return self._size

    def leave_out(self, indices: Collection[int]) -> None:
        """Exclude problems of a finite split; the others keep their order."""
        self._left_out, self._epoch = frozenset(indices), -1

    def fetch(self, index: int) -> Problem:
        """Return the problem at ``index`` of the split, independent of the order."""
        return fetch_problem(self._task, self.task_name, self._split, index)

    def problem(self, position: int, attempt: int = 0) -> Problem:
        """Return the problem at ``position`` >= 0 of the stream; ``attempt`` selects others of an endless task."""
        return self.fetch(self._index(position, attempt))

    def _index(self, position: int, attempt: int) -> int:
        if self._size is None:
            return position + attempt * REDRAW_STRIDE
        epoch, offset = divmod(position, self._size - len(self._left_out))
        if epoch != self._epoch:
            order = list(range(self._size))
            random.Random(f"{self._seed}/{self._split}/{epoch}").shuffle(order)
            self._epoch, self._order = epoch, [index for index in order if index not in self._left_out]
        return self._order[offset]


def fetch_size(task: Task, task_name: str, split: Split) -> int | None:
    """Call ``task.size(split)`` and validate the result."""
    with plugin_call(f"task {task_name!r}: size({split!r})") as call:
        size = task.size(split)
    is_number = isinstance(size, int) and not isinstance(size, bool)
    check_returned(size is None or is_number, call, size, "an int or None")
    return size


def fetch_problem(task: Task, task_name: str, split: Split, index: int) -> Problem:
    """Call ``task.problem(split, index)`` and validate the result."""
    with plugin_call(f"task {task_name!r}: problem({split!r}, {index})") as call:
        problem = task.problem(split, index)
        check_returned(isinstance(problem, Problem), call, problem, "a Problem")
        _check_fields(call, problem)
        try:
            json.dumps(deepcopy(dict(problem.info)))  # rewards get copies
        except (TypeError, ValueError, RecursionError) as err:
            raise PluginContractError(
                f"task {task_name!r}: info of problem({split!r}, {index}) must hold JSON values only: {err}"
            ) from err
    return with_tools(task, task_name, problem)


def _check_fields(call: str, problem: Problem) -> None:
    prompt = problem.prompt
    is_chat = isinstance(prompt, tuple) and bool(prompt) and all(map(is_message, prompt))
    check_returned(isinstance(problem.id, str), f"{call}: the id", problem.id, "text")
    check_returned(
        isinstance(prompt, str) or is_chat,
        f"{call}: the prompt",
        prompt,
        "text, or a tuple of Message with text of the roles system, user, assistant and tool",
    )
    prefix = problem.assistant_prefix
    check_returned(isinstance(prefix, str), f"{call}: the assistant_prefix", prefix, "text")
