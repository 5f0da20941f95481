"""The reasoning_gym task."""

import random

from reasonrl import Message, Problem, Split, TaskContext
from reasonrl_reasoning_gym.config import ReasoningGymConfig
from reasonrl_reasoning_gym.extraction import wrap
from reasonrl_reasoning_gym.plain import NotPlainError, from_plain, to_plain
from reasonrl_reasoning_gym.references import solve
from reasonrl_reasoning_gym.source import Entry, Source

_OPENING = "<think>"


class ReasoningGymTask:
    """Questions of one or several datasets. ``info`` holds what the dataset's scorer needs.

    Endless: both splits are generated. A quarter of all questions, by their text, is held out.
    """

    def __init__(self, config: ReasoningGymConfig, context: TaskContext) -> None:
        self._config = config
        self._source = Source(config, context.seed)

    def size(self, split: Split) -> int | None:
        """None: endless."""
        return None

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index``.

        Raises:
            ValueError: when a dataset has too few different questions.
            IndexError: for a negative index.
        """
        if index < 0:
            raise IndexError(f"reasoning_gym: problem index must be >= 0, got {index}")
        entry = self._source.entry(split, index)
        prompt, prefix = self._rendered(entry.question)
        return Problem(
            id=f"reasoning_gym/{entry.dataset}/{split}/{index}",
            prompt=prompt,
            assistant_prefix=prefix,
            info=self._info(entry),
        )

    def reference(self, problem: Problem) -> str | None:
        """The dataset's own answer in its tag; one that is worked out for the few datasets without an answer."""
        answer = problem.info["answer"]
        if answer is None and problem.info["metadata"] is not None:
            answer = solve(problem.info["dataset"], from_plain(problem.info["metadata"]))
        if answer is None:
            return None
        lead = "\n</think>\n" if problem.assistant_prefix.endswith(_OPENING) else ""
        return lead + wrap(answer, self._config.answer_tag)

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        """The same: the datasets give answers and no reasoning."""
        del rng
        return self.reference(problem)

    def _rendered(self, question: str) -> tuple[str | tuple[Message, ...], str]:
        if self._config.template == "bare":
            return f"{question}\n", ""
        if self._config.template == "base":
            introduction = f"A question and its answer. {self._instruction()}"
            return f"{introduction}\n\nQuestion: {question}\n\nAnswer:", f" {_OPENING}"
        messages = (
            Message(role="system", content=self._instruction()),
            Message(role="user", content=question),
        )
        return messages, ""

    def _instruction(self) -> str:
        text = "Reason first, inside <think> </think> tags; "
        if not self._config.answer_tag:
            return text + "after them give the answer and nothing else."
        sample = wrap("...", self._config.answer_tag)
        return f"{text}then give the answer alone, once, as {sample}, in the form that the question asks for."

    def _info(self, entry: Entry) -> dict[str, object]:
        try:
            metadata = to_plain(entry.metadata)
        except NotPlainError:
            metadata = None
        return {
            "dataset": entry.dataset,
            "options": dict(entry.options),
            "seed": entry.seed,
            "position": entry.position,
            "question": entry.question,
            "answer": entry.answer,
            "answer_tag": self._config.answer_tag,
            "metadata": metadata,
        }
