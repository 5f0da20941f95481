"""What is imitated, as token ids: a task's demonstrations, or the pairs of a file."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reasonrl.contracts.data import Problem
from reasonrl.contracts.protocols import Task
from reasonrl.data.pairs import Pair
from reasonrl.data.prompts import PromptLimit
from reasonrl.data.render import PromptRenderer
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import PluginContractError, RecipeError, plugin_call

MAX_EMPTY_DEMONSTRATIONS = 1000


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt and of the completion that follows it, EOS included."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


class Encoder:
    """Problem and completion text -> Example, within the limits of the sampling section."""

    def __init__(
        self, renderer: PromptRenderer, *, max_prompt_tokens: int, max_completion_tokens: int
    ) -> None:
        self._renderer = renderer
        self._tokenizer = renderer.tokenizer
        self._limit = PromptLimit(
            max_prompt_tokens=max_prompt_tokens, completion_tokens=max_completion_tokens
        )

    def __call__(self, problem: Problem, completion: str) -> Example:
        """A completion over its limit loses its end, and so its EOS: it teaches no false ending."""
        prompt = self._renderer.render(problem)
        self._limit.check(problem, len(prompt.ids))
        text = self._renderer.completion_after(prompt, problem, completion)
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        self._renderer.refuse_tokens(ids, f"the completion of problem {problem.id!r}")
        ids = [*ids, self._tokenizer.eos_token_id][: self._limit.completion_tokens]
        return Example(prompt.ids, tuple(ids))


def task_examples(
    task: Task, task_name: str, encode: Encoder, *, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[Example]:
    """Endless demonstrations; rank r of R takes every R-th problem of the stream.

    Raises: RecipeError if the task cannot demonstrate, PluginContractError if it never does or does it wrongly.
    """
    demonstrate = getattr(task, "demonstration", None)
    if demonstrate is None:
        raise RecipeError(f"task {task_name!r} has no demonstrations to imitate; give data.path instead")
    stream = ProblemStream(task, task_name, "train", seed=seed)
    position, empty = rank, 0
    while True:
        problem = stream.problem(position)
        text = _demonstration(
            demonstrate, task_name, problem, random.Random(f"{seed}/demonstration/{position}")
        )
        position += ranks
        if text is not None:
            empty = 0
            yield encode(problem, text)
            continue
        empty += 1
        if empty >= MAX_EMPTY_DEMONSTRATIONS:
            raise PluginContractError(
                f"task {task_name!r} gave no demonstration for {empty} problems in a row"
            )


def _demonstration(
    demonstrate: Callable[..., Any], task_name: str, problem: Problem, rng: random.Random
) -> str | None:
    where = f"task {task_name!r}: demonstration of problem {problem.id!r}"
    with plugin_call(where):
        text = demonstrate(problem, rng)
    if text is not None and not isinstance(text, str):
        raise PluginContractError(f"{where} returned {type(text).__name__}, expected text or None")
    return text


def pair_examples(
    pairs: Sequence[Pair], encode: Encoder, *, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[Example]:
    """Endless examples of the given pairs, reshuffled each epoch. All are encoded on first use.

    Raises: RecipeError naming file and line of the first pair that cannot be an example.
    """
    # All at once, so that a prompt over its limit is refused before the training and not in the middle of it.
    examples = [encode(pair.problem, pair.completion) for pair in pairs]
    epoch = 0
    while True:
        order = list(range(len(examples)))
        random.Random(f"{seed}/sft/{epoch}").shuffle(order)
        for index in order[rank::ranks] or order:
            yield examples[index]
        epoch += 1
