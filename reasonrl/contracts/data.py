"""What the stages exchange on the host: frozen, torch-free, picklable.

A later stage gets a new type, never a half-filled one:
``Problem -> RolloutRequest -> RolloutGroup[Completion] -> ScoredGroup[RewardOutput] -> (tensors, see batch.py)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a conversation; a tuple of them goes through the model's chat template.

    A template that does not know the role ``tool`` gets the message as one of ``user``.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str


ROLES = ("system", "user", "assistant", "tool")


def is_message(value: object) -> bool:
    """Whether it is a message with text and a role that there is."""
    return isinstance(value, Message) and isinstance(value.content, str) and value.role in ROLES


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem of a task.

    ``id`` is stable and unique within the task. A ``str`` prompt is raw text, used verbatim; messages go through
    the chat template. ``assistant_prefix`` is pre-filled text: part of the prompt, never of the completion.
    ``info`` is what rewards need and the model never sees; it holds JSON values only. ``tools`` are the JSON schemas
    that the chat template shows; the core fills them in from the task's ``tools()``.
    """

    id: str
    prompt: str | tuple[Message, ...]
    assistant_prefix: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The task's reply to the model's last message; the model continues after it.

    ``content`` has the form of the problem's prompt: raw text, used verbatim, or messages for the chat template.
    """

    content: str | tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """The conversation so far, as text.

    ``messages`` begin with the problem's prompt (raw text: one ``user`` message) and end with the model's last message,
    whose content is what the model sampled, without the EOS. ``state`` is JSON owned by the task: what ``respond``
    returned last, at first empty.
    """

    problem: Problem
    messages: tuple[Message, ...]
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the model wrote last."""
        return self.messages[-1].content

    @property
    def replies(self) -> tuple[str, ...]:
        """All that the model wrote, message by message."""
        start = 1 if isinstance(self.problem.prompt, str) else len(self.problem.prompt)
        return tuple(message.content for message in self.messages[start:] if message.role == "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSummary:
    """What became of the rows of one file or hub data set: kept in a split, or dropped for a reason.

    ``dropped`` counts by reason, in a few words such as ``"outside the ranges"``; ``held_out`` says how the eval split
    is chosen and what changes it, for a message when it is empty.
    """

    source: str
    kept: Mapping[Split, int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    held_out: str = ""

    @property
    def rows(self) -> int:
        """The rows that were read."""
        return sum(self.kept.values()) + sum(self.dropped.values())

    def __str__(self) -> str:
        kept = ", ".join(f"{count:,} {split}" for split, count in self.kept.items())
        text = f"{self.source}: {self.rows:,} rows read, {sum(self.kept.values()):,} kept ({kept})"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
        return f"{text}, {sum(self.dropped.values()):,} dropped ({reasons})" if reasons else text


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How completions are drawn.

    ``temperature`` 0.0 means greedy; log-probabilities are then those at temperature 1. ``stop`` strings end a
    completion and stay in its text.

    Evaluations may truncate the distribution: after the temperature, ``top_k`` keeps the k most likely tokens, then
    ``top_p`` the fewest of these whose probabilities, renormalized, sum to it. In training both are off: the loss
    divides by the probabilities of the full distribution.
    """

    temperature: float = 1.0
    max_completion_tokens: int = 256
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_k: int | None = None

    @property
    def is_truncated(self) -> bool:
        """Whether ``top_k`` or ``top_p`` removes tokens."""
        return self.top_k is not None or self.top_p < 1.0

    def line(self) -> str:
        """Describe the sampling in a few words."""
        if self.is_greedy:
            return "greedy"
        top_p = f", top_p {self.top_p:g}" if self.top_p < 1.0 else ""
        top_k = f", top_k {self.top_k}" if self.top_k is not None else ""
        return f"temperature {self.temperature:g}{top_p}{top_k}"

    @property
    def is_greedy(self) -> bool:
        """Whether every token is the most likely one: temperature 0."""
        return self.temperature == 0.0

    @property
    def logprob_temperature(self) -> float:
        """The temperature at which log-probabilities are stated."""
        return self.temperature or 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRequest:
    """Sample ``group_size`` completions of one prompt. ``seed`` (64 bit) and sample index fix every random draw.

    ``prompt_text`` is the rendered prompt that ``prompt_ids`` encode, without the special tokens that the tokenizer
    adds to raw text.
    """

    problem: Problem
    prompt_ids: tuple[int, ...]
    group_size: int
    sampling: SamplingParams
    seed: int
    prompt_text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinueRequest(RolloutRequest):
    """A request in the middle of a conversation: ``prompt_ids`` are the tokens so far and those of the task's turn.

    ``tokens_before``: how many of them follow the problem's prompt; they count toward the completion's limit, so
    ``sampling.max_completion_tokens`` is what is left of it.
    """

    tokens_before: int


class FinishReason(StrEnum):
    """Why a completion ended. ABORT and ERROR completions are never scored."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What the policy sampled.

    ``token_ids`` includes the EOS token when ``finish_reason`` is EOS; ``text`` is ``token_ids`` decoded without
    that EOS, special tokens kept. ``logprobs`` are the sampler's natural-log probabilities after temperature
    (greedy: at temperature 1), one a token; None = the backend cannot say. ``policy_version`` counts the finished
    optimizer steps of the weights that sampled it.

    In a conversation ``token_ids`` and ``text`` hold both sides, and ``sampled_mask`` says of each token whether the
    policy sampled it; None = all of them. ``logprobs`` of the task's tokens are 0.0 and mean nothing. ``messages`` are
    those after the prompt, the model's first; ``state`` is what the task's ``respond`` returned last; ``tool_calls``
    counts calls by outcome.

    ``prompt_text`` is the text that the completion continues: the rendered prompt, chat template and assistant prefix
    included. A reward that judges form reads its end, for a template may have opened the reasoning already. The core
    fills it in; a backend leaves it empty.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    text: str
    finish_reason: FinishReason
    policy_version: int = 0
    sampled_mask: tuple[bool, ...] | None = None
    prompt_text: str = ""
    messages: tuple[Message, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: Mapping[str, int] = field(default_factory=dict)

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return len(self.token_ids) if self.sampled_mask is None else sum(self.sampled_mask)

    @property
    def turn_ends(self) -> tuple[int, ...]:
        """Position of the last token of each of the model's messages, where ``token_values`` may place credit."""
        mask = (True,) * len(self.token_ids) if self.sampled_mask is None else self.sampled_mask
        return tuple(at for at, here in enumerate(mask) if here and not (at + 1 < len(mask) and mask[at + 1]))

    @property
    def replies(self) -> tuple[str, ...]:
        """What the model wrote, message by message."""
        if not self.messages:
            return (self.text,)
        return tuple(message.content for message in self.messages if message.role == "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutGroup:
    """One request and its ``group_size`` completions, in sample order."""

    request: RolloutRequest
    completions: tuple[Completion, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What one reward says of one completion.

    ``value`` None = unscored: masked, left out of the group statistics, counted; never 0. ``correct`` defaults to
    "reached the top of the reward's range". ``answer`` is what maj@k votes on (and its presence is the ``format``
    metric). ``token_values`` optionally adds a reward per completion token. ``reason`` is a short code for humans.
    """

    value: float | None
    correct: bool | None = None
    answer: str | None = None
    token_values: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardOutput:
    """All rewards of one completion, combined by the core. ``total`` None = unscored by at least one reward."""

    total: float | None
    components: Mapping[str, float | None]
    correct: bool | None = None
    answer: str | None = None
    token_values: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredGroup:
    """A rollout group and one ``RewardOutput`` for each of its completions."""

    group: RolloutGroup
    rewards: tuple[RewardOutput, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is known of a finished step: the line of ``metrics.jsonl``."""

    step: int
    metrics: Mapping[str, float]
    timing_s: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """What observers are told about the run. ``recipe`` is the resolved recipe as plain data, secrets redacted."""

    name: str
    run_dir: Path
    seed: int
    total_steps: int
    recipe: Mapping[str, Any]
