"""SFT examples as token ids: from a task's demonstrations or the pairs of a file."""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from reasonrl.contracts.data import Problem
from reasonrl.contracts.protocols import Task
from reasonrl.data.both_sides import CONVERSATION, BothSides, Conversation, is_conversation
from reasonrl.data.pairs import Pair
from reasonrl.data.prompts import CHUNK, DROP, PromptLimit
from reasonrl.data.render import PromptRenderer, RenderedPrompt, check_encodable
from reasonrl.data.stream import ProblemStream
from reasonrl.data.turns import History
from reasonrl.errors import PluginContractError, RecipeError, check_returned, plugin_call

MAX_EMPTY_DEMONSTRATIONS = 1000


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of a prompt and its completion, EOS included unless the completion is truncated.

    ``trained_mask`` says which tokens of the completion the model is to write; None = all of them.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    is_cut: bool = False
    trained_mask: tuple[bool, ...] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def trained(self) -> tuple[bool, ...]:
        """Which tokens of the completion have a loss."""
        return (True,) * len(self.completion_ids) if self.trained_mask is None else self.trained_mask

    @property
    def num_trained(self) -> int:
        """Tokens with a loss."""
        return sum(self.trained)


class Encoder:
    """Encodes problem and completion text as an Example, within the sampling limits and the model's context.

    A prompt over its limit, or one that fills the context, is overlong: it stops the run or its example is dropped, as
    ``limit`` says. A completion is truncated at its limit or at the end of the context; it then has no EOS, so
    that the model learns no false ending. A completion that already ends in an EOS gets no second one.

    A completion may be a conversation: the model's messages and those between them. It becomes the tokens that sampling
    would have made, and only the model's are trained on.

    Args:
        limit: The prompt limit, with room for a completion of one token.
        ends: Token ids that end a completion, besides the tokenizer's EOS.
        stop: Strings that end a message in a conversation; where one does, no EOS follows.
        history: Refuses or keeps what a chat template changes of earlier messages.
    """

    def __init__(
        self,
        renderer: PromptRenderer,
        limit: PromptLimit,
        *,
        max_completion_tokens: int,
        ends: Collection[int] = (),
        stop: Sequence[str] = (),
        history: History = "stop",
    ) -> None:
        self._renderer = renderer
        self._tokenizer = renderer.tokenizer
        self.limit = limit
        self._max_completion = max_completion_tokens
        self._ends = {self._tokenizer.eos_token_id, *ends}
        self._both_sides = BothSides(renderer, self._with_eos, stop=stop, history=history)
        self.num_ended = 0
        """Completions so far that already ended in an EOS."""

    def __call__(self, problem: Problem, completion: str | Conversation) -> Example | None:
        """Encode one pair. None if the prompt is overlong and such examples are dropped.

        Raises:
            RecipeError: If an overlong prompt stops the run.
        """
        return self.encode_all([(problem, completion)])[0]

    def encode_all(self, pairs: Sequence[tuple[Problem, str | Conversation]]) -> list[Example | None]:
        """Encode several pairs, texts tokenized together."""
        prompts = self._renderer.render_all([problem for problem, _ in pairs])
        texts = iter(self._encode_texts(prompts, pairs))
        return [
            self._example(problem, prompt.ids, *self._both_sides.encode(problem, prompt, completion))
            if is_conversation(completion)
            else self._example(problem, prompt.ids, self._with_eos(next(texts)))
            for (problem, completion), prompt in zip(pairs, prompts, strict=True)
        ]

    def _encode_texts(
        self, prompts: Sequence[RenderedPrompt], pairs: Sequence[tuple[Problem, str | Conversation]]
    ) -> list[list[int]]:
        """Return the token ids of the completions that are texts."""
        chosen = [
            (problem, self._renderer.completion_after(prompt, problem, completion))
            for prompt, (problem, completion) in zip(prompts, pairs, strict=True)
            if isinstance(completion, str)
        ]
        if not chosen:
            return []
        for problem, text in chosen:
            check_encodable(f"the completion of problem {problem.id!r}", text)
        encoded: list[list[int]] = self._tokenizer(
            [text for _, text in chosen], add_special_tokens=False, return_attention_mask=False
        )["input_ids"]
        for (problem, _), ids in zip(chosen, encoded, strict=True):
            self._renderer.check_tokens(ids, f"the completion of problem {problem.id!r}")
        return encoded

    def _example(
        self, problem: Problem, prompt: tuple[int, ...], ids: list[int], mask: list[bool] | None = None
    ) -> Example | None:
        if len(prompt) > self.limit.tokens:
            if self.limit.overlong == "drop":
                return None
            self.limit.check(problem, len(prompt), or_else=f"; or skip such examples with {DROP}")
        room = self._max_completion
        if self.limit.context is not None:
            room = min(room, self.limit.context - len(prompt))
        trained = None if mask is None else tuple(mask[:room])
        return Example(prompt, tuple(ids[:room]), is_cut=len(ids) > room, trained_mask=trained)

    def _with_eos(self, ids: list[int]) -> list[int]:
        """Return ``ids`` with exactly one EOS at the end, dropping blank text after an existing one."""
        last = max((at for at, token in enumerate(ids) if token in self._ends), default=-1)
        if last < 0 or self._tokenizer.decode(ids[last + 1 :]).strip():
            return [*ids, self._tokenizer.eos_token_id]
        self.num_ended += 1
        while last > 0 and ids[last - 1] in self._ends:
            last -= 1
        return ids[: last + 1]


def task_examples(
    task: Task, task_name: str, encode: Encoder, *, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[Example]:
    """Yield demonstrations endlessly; rank r of R takes every R-th problem of the stream.

    Raises:
        RecipeError: If the task has no demonstrations, or all prompts are overlong.
        PluginContractError: If the task returns none for many problems, or an invalid one.
    """
    demonstrate = getattr(task, "demonstration", None)
    if demonstrate is None:
        raise RecipeError(f"task {task_name!r} has no demonstrations for SFT; set data.path instead")
    stream = ProblemStream(task, task_name, "train", seed=seed)
    position, empty = rank, 0
    while True:
        problem = stream.problem(position)
        text = _demonstration(demonstrate, task_name, problem, random.Random(f"{seed}/demonstration/{position}"))
        position += ranks
        example = None if text is None else encode(problem, text)
        if example is not None:
            empty = 0
            yield example
            continue
        empty += 1
        if empty >= MAX_EMPTY_DEMONSTRATIONS and text is None:
            raise PluginContractError(f"task {task_name!r} returned no demonstration for {empty} consecutive problems")
        if empty >= MAX_EMPTY_DEMONSTRATIONS:
            raise RecipeError(
                f"task {task_name!r}: {empty} consecutive problems have no demonstration or a prompt over "
                f"{encode.limit.describe()}; raise the limit"
            )


def _demonstration(
    demonstrate: Callable[[Problem, random.Random], str | Conversation | None],
    task_name: str,
    problem: Problem,
    rng: random.Random,
) -> str | Conversation | None:
    with plugin_call(f"task {task_name!r}: demonstration of problem {problem.id!r}") as call:
        shown = demonstrate(problem, rng)
    is_valid = shown is None or isinstance(shown, str) or is_conversation(shown)
    check_returned(is_valid, call, shown, f"text, {CONVERSATION}, or None")
    return shown


@dataclass(frozen=True, kw_only=True, slots=True)
class PairExamples:
    """The examples of a file, and how many pairs were dropped or changed."""

    examples: Sequence[Example]
    num_pairs: int
    num_repeated: int
    num_ended: int
    limit: PromptLimit

    @classmethod
    def encode(cls, pairs: Sequence[Pair], encode: Encoder) -> "PairExamples":
        """Encode all pairs up front, so that bad data is rejected before training starts.

        Raises:
            RecipeError: If a pair is invalid (names file and line), or if none is left.
        """
        found: list[Example | None] = []
        for start in range(0, len(pairs), CHUNK):
            found += encode.encode_all([(p.problem, p.completion) for p in pairs[start : start + CHUNK]])
        examples = [example for example in found if example is not None]
        if not examples:
            over = encode.limit.describe()
            raise RecipeError(f"data.path: all {len(pairs):,} prompts are over {over}; raise the limit")
        return cls(
            examples=examples,
            num_pairs=len(pairs),
            num_repeated=len(examples) - len(set(examples)),
            num_ended=encode.num_ended,
            limit=encode.limit,
        )

    def line(self) -> str:
        """Summarize the data for the header of a run."""
        dropped = self.num_pairs - len(self.examples)
        cut = sum(example.is_cut for example in self.examples)
        counts = [
            (dropped, f"dropped (prompt over {self.limit.tokens:,} tokens)"),
            (self.num_repeated, "duplicates (kept)"),
            (cut, "truncated, without EOS"),
            (self.num_ended, "already ended in EOS"),
        ]
        text = f"{self.num_pairs:,} rows read, {len(self.examples):,} kept"
        return ", ".join([text, *(f"{count:,} {what}" for count, what in counts if count)])

    def stream(self, *, seed: int, rank: int = 0, ranks: int = 1) -> Iterator[Example]:
        """Yield examples endlessly, reshuffled each epoch."""
        epoch = 0
        while True:
            order = list(range(len(self.examples)))
            random.Random(f"{seed}/sft/{epoch}").shuffle(order)
            for index in order[rank::ranks] or order:
                yield self.examples[index]
            epoch += 1
