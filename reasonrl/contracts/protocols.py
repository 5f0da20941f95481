"""The whole surface that a plugin author implements, and the contexts that factories receive. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from reasonrl.contracts.data import Completion, Problem, RolloutGroup, RolloutRequest, SamplingParams, Score, Split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reasonrl.contracts.batch import (
        AdvantageOutput,
        LossInput,
        LossNormalizer,
        LossOutput,
        PolicyEval,
        StepContext,
        TrainBatch,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """``seed`` is the recipe's; a task derives all its randomness from it, the split and the index."""

    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardContext:
    """What a reward may know about the run."""

    seed: int = 0
    max_completion_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AlgorithmContext:
    """What an algorithm may know about the run."""

    sampling: SamplingParams
    group_size: int
    total_steps: int
    reward_weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of each reward of ``TrainBatch.component_rewards`` in the total."""


def _ignore(completions: int) -> None:
    """Nobody listens."""


def _ignore_computed(tokens: int, scored: int, pairs: float) -> None:
    """Nobody counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutContext:
    """What a backend gets.

    ``policy`` is the trainer's ``PolicyModule`` (a backend in the same process may share ``policy.model``);
    ``model_path`` the folder or hub name of the starting model; ``device`` a torch device; ``precision`` that of the
    trainer's forward passes: float32 or bfloat16. The factory runs before the run folder exists, and refuses there what
    it can; memory and processes are taken when the backend is entered.

    A backend may call ``on_finished(n)`` while ``generate`` works: ``n`` completions of this call are finished so far.
    Evaluations show it as their progress.

    A backend that knows what it computes calls ``on_computed(tokens, scored, pairs)`` for its forward passes: tokens
    through the layers, padding included; positions whose logits were computed; pairs of a query and a key in attention.
    The metrics ``perf/*`` need it; without it, sampling counts as the least that it takes.
    """

    policy: Any
    tokenizer: Any
    sampling: SamplingParams
    device: torch.device
    model_path: str
    max_prompt_tokens: int
    precision: str = "float32"
    on_finished: Callable[[int], None] = _ignore
    on_computed: Callable[[int, int, float], None] = _ignore_computed


@runtime_checkable
class Task(Protocol):
    """A pure, index-addressed source of problems: the same (seed, split, index) gives the same problem everywhere.

    Optional methods, found by name:
        ``reference(problem) -> str | None``: a completion that must earn the maximum.
        ``demonstration(problem, rng: random.Random) -> str | tuple[Message, ...] | None``: a completion to imitate, not
        necessarily right; of a task that replies, the messages after the prompt, of which the model's are imitated.
        ``behaviors(problem, completion_text: str) -> Mapping[str, float]``: figures of one completion, called for
        every completion of every suite and averaged as ``behavior/<suite>/<name>``. A name that is absent, or NaN,
        does not apply to the completion: it is left out of that mean. Names are lower-case words with underscores.
        ``difficulty(problem) -> str | int | float | None``: how hard a problem is; evaluations list the accuracy by it.
        Without this method, ``problem.info["difficulty"]`` counts, if it is there.
        ``problem_from_fields(fields: Mapping[str, str]) -> Problem``: a problem from command line fields, as in
        ``reasonrl generate ... --numbers 3,5,8 --target 16``; raise ValueError with a message for bad fields.
        ``respond(transcript: Transcript) -> tuple[Turn | None, state]``: the reply to the model's last message, after
        which the model continues; None ends the conversation. ``state`` is JSON: it comes back as ``transcript.state``
        and goes to the rewards as ``Completion.state``. Pure, like ``problem``: it depends on the transcript alone.
        ``tools() -> Tools``: functions that the model may call. The core finds the calls in its messages, runs them in
        worker processes and replies with the results; ``respond`` is asked about messages without a call.
        ``data_summary() -> Sequence[DataSummary]``: what became of the rows of each file that was read. Runs, ``tasks
        preview`` and ``recipes check`` show it.
    """

    def size(self, split: Split) -> int | None:
        """Number of problems; None = unbounded."""
        ...

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index`` >= 0 of ``split``; train and eval are disjoint."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Judges one completion. A plain float is a Score; None is unscored. Raising means unscored too, and is counted."""

    def score(self, problem: Problem, completion: Completion) -> Score | float | None:
        """Return the reward of one completion; None = unscored."""
        ...


@runtime_checkable
class GroupReward(Protocol):
    """Judges the completions of one prompt together; returns one score each, in order."""

    def score_group(self, group: RolloutGroup) -> Sequence[Score | float | None]:
        """Return one reward a completion, in order; None = unscored."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """A learning rule over tensors aligned to ``input_ids`` (see batch.py).

    Optional methods, found by name:
        ``counts(batch, advantages) -> dict[str, float]``: summed over ranks into ``normalizer.extra``.
        ``keep(group: ScoredGroup) -> bool``: False = sample further prompts until the batch is full.
        ``after_step(metrics: Mapping[str, float])``: called once when a step is finished, with its metrics over all
        processes, the same in each; times are not among them. A controller, such as that of an adaptive KL, moves here
        and nowhere else, so that every process holds the same.
        ``state_dict() -> JSON``, ``load_state_dict(state)``: what ``after_step`` has changed, saved with every
        checkpoint and loaded when the run is resumed. JSON alone: numbers, text, lists, mappings.
    """

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        """Return advantages ``[B, T]``, 0 outside ``response_mask``."""
        ...

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        """This micro-batch's share; the shares of an optimizer step sum to the full-batch loss."""
        ...


@runtime_checkable
class RolloutBackend(Protocol):
    """A context manager that owns whatever it samples with."""

    def __enter__(self) -> RolloutBackend: ...

    def __exit__(self, *exc: object) -> None: ...

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """This rank's requests, answered in order."""
        ...

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], *, policy_version: int) -> None:
        """Take over Hugging Face named weights. A backend that shares the module may ignore the lazy iterator."""
        ...

    # Optional: ``release() -> bool``, called when sampling is over until the next ``sync_weights``. A backend may free
    # memory then; it returns whether it needs the weights again, even if they have not changed.
    # Optional: ``weights_dtype``, a torch dtype or None: what floating-point weights are cast to before they go to
    # ``sync_weights``, so that those of a sharded policy are gathered in it.
