"""The accuracy of a suite by the difficulty of its problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reasonrl.contracts.data import Problem, ScoredGroup
from reasonrl.contracts.protocols import Task
from reasonrl.errors import check_returned, plugin_call
from reasonrl.statistics.proportions import accuracy_interval

KEY = "difficulty"
MOST_LEVELS = 12
"""Numbers with more values than this are cut into four ranges."""

Difficulty = str | int | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The accuracy on the problems of one difficulty, with its 95% interval."""

    difficulty: str
    problems: int
    accuracy: float
    ci95: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """The level as ``evals/`` stores it."""
        return {
            "difficulty": self.difficulty,
            "problems": self.problems,
            "accuracy": self.accuracy,
            "ci95": list(self.ci95),
        }


def by_difficulty(
    task: Task, task_name: str, groups: Sequence[ScoredGroup], correct: Sequence[Sequence[bool]]
) -> Iterator[Level]:
    """Yield the levels, easiest first; none if the task states no difficulty or all problems have the same."""
    found = [_difficulty(task, task_name, group.group.request.problem) for group in groups]
    known = [value for value in found if value is not None]
    if len(set(known)) < 2:
        return
    names = _names(known)
    for name in dict.fromkeys(names[value] for value in sorted(set(known), key=_place)):
        rows = [c for value, c in zip(found, correct, strict=True) if value is not None and names[value] == name]
        yield Level(
            difficulty=name,
            problems=len(rows),
            accuracy=sum(map(sum, rows)) / sum(map(len, rows)),
            ci95=accuracy_interval(rows),
        )


def _difficulty(task: Task, task_name: str, problem: Problem) -> Difficulty | None:
    """Return the task's ``difficulty(problem)``, or else ``info["difficulty"]``."""
    rate = getattr(task, KEY, None)
    if rate is None:
        value = problem.info.get(KEY)
        return value if isinstance(value, Difficulty) else None
    with plugin_call(f"task {task_name!r}: difficulty") as call:
        value = rate(problem)
    check_returned(value is None or isinstance(value, Difficulty), call, value, "text, a number or None")
    return value


def _names(values: Sequence[Difficulty]) -> dict[Difficulty, str]:
    """Name every value: as it is, or by its quarter if these are many numbers."""
    distinct = sorted(set(values), key=_place)
    if len(distinct) <= MOST_LEVELS or any(isinstance(value, str) for value in distinct):
        return {value: str(value) for value in distinct}
    ordered = sorted(values, key=_place)
    ends = sorted({ordered[-(-len(ordered) * quarter // 4) - 1] for quarter in (1, 2, 3, 4)}, key=_place)
    names: dict[Difficulty, str] = {}
    for end in ends:
        members = [value for value in distinct if value not in names and _place(value) <= _place(end)]
        names |= dict.fromkeys(members, f"{members[0]:g} to {members[-1]:g}")
    return names


def _place(value: Difficulty) -> tuple[float, str]:
    return (0.0, value) if isinstance(value, str) else (float(value), "")
