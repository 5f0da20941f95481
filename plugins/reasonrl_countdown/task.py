"""The countdown task: problems, reference solutions and demonstrations."""

import random
from collections.abc import Mapping

from reasonrl import DataSummary, Problem, Split, TaskContext, Tools
from reasonrl_countdown.behaviors import behaviors
from reasonrl_countdown.calculator import RESULT, calc, without_tags
from reasonrl_countdown.config import MAX_NUMBERS, MAX_VALUE, CountdownConfig
from reasonrl_countdown.dataset import Dataset
from reasonrl_countdown.demonstration import demonstrate
from reasonrl_countdown.generator import Generator, Instance
from reasonrl_countdown.solver import solve
from reasonrl_countdown.templates import render


class CountdownTask:
    """Reach the target with all given numbers. ``info`` is ``{"numbers": [...], "target": int}``."""

    def __init__(self, config: CountdownConfig, context: TaskContext) -> None:
        self._config = config
        self._source: Generator | Dataset = (
            Generator(config, context.seed) if config.source == "generated" else Dataset(config)
        )

    def size(self, split: Split) -> int | None:
        """None for generated problems; the number of rows of that split for a data set."""
        return self._source.size(split) if isinstance(self._source, Dataset) else None

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index``; held-out problems are distinct.

        Raises:
            ValueError: when the ranges hold too few problems.
            IndexError: beyond a data set's end.
        """
        if index < 0:
            raise IndexError(f"countdown: problem index must be >= 0, got {index}")
        return self._problem(f"countdown/{split}/{index}", self._source.instance(split, index))

    def data_summary(self) -> list[DataSummary]:
        """Summarize the rows of the dataset; empty for generated problems."""
        return [self._source.summary] if isinstance(self._source, Dataset) else []

    def problem_from_fields(self, fields: Mapping[str, str]) -> Problem:
        """Build a problem from ``{"numbers": "3,5,8", "target": "16"}``; raise ValueError for anything else."""
        if set(fields) != {"numbers", "target"}:
            raise ValueError(f"countdown needs numbers and target, got {', '.join(sorted(fields)) or 'nothing'}")
        numbers = tuple(_integer("numbers", part) for part in fields["numbers"].split(","))
        if not 1 <= len(numbers) <= MAX_NUMBERS:
            raise ValueError(f"numbers must hold 1 to {MAX_NUMBERS} integers, got {len(numbers)}")
        instance = Instance(numbers, _integer("target", fields["target"]))
        return self._problem(f"countdown/custom/{instance.key}", instance)

    def tools(self) -> Tools | None:
        """The calculator, if the config has it."""
        if self._config.calculator != "tool":
            return None
        return Tools(functions=(calc,), style="tag", timeout_s=2.0, max_chars=100, result=RESULT)

    def reference(self, problem: Problem) -> str | None:
        """Return a correct completion; None if no expression uses every number exactly once."""
        instance = _instance(problem)
        solutions = solve(instance.numbers, instance.target, limit=1)
        if not solutions:
            return None
        lead = render(self._config.template, instance).lead
        return f"{lead}{solutions[0]} = {instance.target}\n</think>\n<answer>{solutions[0]}</answer>"

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        """Return the completion of a poor searcher, right only by luck; see ``demonstration.py``."""
        instance = _instance(problem)
        lead = render(self._config.template, instance).lead
        return lead + demonstrate(instance, rng, self._config)

    def behaviors(self, problem: Problem, completion_text: str) -> dict[str, float]:
        """Measure the trace of a completion: attempts, verdicts, backtracking; see ``behaviors.py``."""
        instance = _instance(problem)
        text = completion_text if self._config.calculator == "none" else without_tags(completion_text)
        return behaviors(text, instance.numbers, instance.target)

    def difficulty(self, problem: Problem) -> str:
        """Return how many numbers there are."""
        count = len(problem.info["numbers"])
        return f"{count} number{'s' * (count != 1)}"

    def _problem(self, problem_id: str, instance: Instance) -> Problem:
        rendered = render(self._config.template, instance)
        return Problem(
            id=problem_id,
            prompt=rendered.prompt,
            assistant_prefix=rendered.assistant_prefix,
            info={"numbers": list(instance.numbers), "target": instance.target},
        )


def _instance(problem: Problem) -> Instance:
    return Instance(tuple(problem.info["numbers"]), problem.info["target"])


def _integer(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= MAX_VALUE):
        raise ValueError(f"{name} must be whole numbers from 0 to {MAX_VALUE}, got {text[:40]!r}")
    return int(text)
