"""Rounds of sampling: draw prompts from the stream and sample completions, at once or during the update."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from reasonrl.contracts.data import RolloutGroup, RolloutRequest, SamplingParams, ScoredGroup
from reasonrl.contracts.models import base_model
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.conversations.loop import Alone, Dialogue, Together, converse
from reasonrl.data.prompts import PromptSource
from reasonrl.errors import CheckpointError
from reasonrl.functional.randomness import derive_seed
from reasonrl.model.flops import Amount
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.recipe.schema import Recipe
from reasonrl.trainer.background import Background
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.microbatch import list_local_prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """This rank's groups. ``work``: what the backend says it has computed. ``seconds``: 0 if not sampled here."""

    groups: Sequence[RolloutGroup]
    seconds: float = 0.0
    work: Amount | None = None


@dataclass(slots=True)
class Round:
    """This rank's prompts of the round that begins at ``position`` of the stream, sampled or being sampled."""

    position: int
    redraws: int
    sampling: "Future[Sampled]"
    scored: Sequence[ScoredGroup] | None = None
    """None until its groups are scored."""


class Rounds:
    """Samples the rounds of a run on this rank.

    ``background``: where a round is sampled during the update. ``dialogue``: how the task replies, if it does.
    """

    def __init__(
        self,
        recipe: Recipe,
        bundle: ModelBundle,
        prompts: PromptSource,
        background: Background[Sampled],
        dialogue: Dialogue | None = None,
    ) -> None:
        self._recipe, self._bundle, self._ranks = recipe, bundle, bundle.ranks
        self._prompts, self._background, self._dialogue = prompts, background, dialogue
        self._sampling = sampling_params(recipe.sampling)

    @property
    def redraws(self) -> bool:
        """Whether overlong prompts are replaced while drawing."""
        return self._prompts.redraws

    def sample(self, backend: RolloutBackend, position: int) -> Round:
        """Sample a round. Every rank calls it."""
        requests, redraws = self._draw(position)
        done: Future[Sampled] = Future()
        with self._bundle.accelerator.autocast():
            done.set_result(self._work(backend, requests, self._ranks)())
        return Round(position, redraws, done)

    def start(self, backend: RolloutBackend, position: int) -> Round:
        """Start to sample a round in the background. Every rank calls it."""
        requests, redraws = self._draw(position)
        return Round(position, redraws, self._background.submit(self._work(backend, requests, Alone())))

    def restore(self, position: int, scored: Sequence[ScoredGroup]) -> Round:
        """The round of a checkpoint, whose groups of all ranks are ``scored``."""
        own = [scored[index] for index in self._local()]
        done: Future[Sampled] = Future()
        done.set_result(Sampled(groups=[one.group for one in own]))
        return Round(position, self._draw(position)[1], done, own)

    def gather(self, scored: Sequence[ScoredGroup]) -> list[ScoredGroup]:
        """A round's groups of all ranks in the order of the stream, on every rank."""
        everywhere = self._ranks.gather(list(zip(self._local(), scored, strict=True)))
        return [group for _, group in sorted(everywhere, key=lambda pair: pair[0])]

    def _local(self) -> list[int]:
        """Places of this rank's prompts in a round."""
        trainer, ranks = self._recipe.trainer, self._ranks
        return list_local_prompts(trainer.prompts_per_step, trainer.minibatches, ranks.size, ranks.rank)

    def _draw(self, position: int) -> tuple[list[RolloutRequest], int]:
        """This rank's requests of the round, and how many overlong prompts were replaced for them."""
        with self._ranks.together():
            drawn = [(position + index, self._prompts.draw(position + index)) for index in self._local()]
            requests = [
                RolloutRequest(
                    problem=prompt.problem,
                    prompt_ids=prompt.prompt.ids,
                    prompt_text=prompt.prompt.text,
                    group_size=self._recipe.sampling.group_size,
                    sampling=self._sampling,
                    seed=derive_seed(self._recipe.seed, "train", place),
                )
                for place, prompt in drawn
            ]
        return requests, sum(prompt.redraws for _, prompt in drawn)

    def _work(
        self, backend: RolloutBackend, requests: Sequence[RolloutRequest], ranks: Together
    ) -> Callable[[], Sampled]:
        bundle, dialogue = self._bundle, self._dialogue

        def work() -> Sampled:
            bundle.sampling_work.take()  # what evaluations have sampled since
            started = time.perf_counter()
            groups = converse(backend, requests, bundle.renderer, ranks, dialogue)
            seconds = time.perf_counter() - started
            return Sampled(groups=groups, seconds=seconds, work=bundle.sampling_work.take())

        return work


def sampling_params(sampling: SamplingConfig) -> SamplingParams:
    """The recipe's sampling section as the backends see it."""
    return SamplingParams(
        temperature=sampling.temperature,
        max_completion_tokens=sampling.max_completion_tokens,
        stop=tuple(sampling.stop),
    )


def refuse_foreign_groups(
    recipe: Recipe, bundle: ModelBundle, carried: Sequence[ScoredGroup], pending: Sequence[ScoredGroup]
) -> None:
    """Check the groups of a checkpoint.

    Raises:
        CheckpointError: if those that were sampled ahead are not as many as a round has.
        ValueError: if one holds a token id that the model does not have.
    """
    wanted = recipe.trainer.prompts_per_step
    if pending and len(pending) != wanted:
        raise CheckpointError(
            f"the checkpoint holds {len(pending)} groups that were sampled ahead, expected {wanted} "
            "(trainer.prompts_per_step); use an earlier checkpoint"
        )
    groups = [one.group for one in (*carried, *pending)]
    if not groups:
        return
    vocabulary = base_model(bundle.policy.model).config.get_text_config().vocab_size
    for group in groups:
        rows = (group.request.prompt_ids, *(one.token_ids for one in group.completions))
        largest = max(max(row, default=0) for row in rows)
        if largest >= vocabulary:
            where = group.request.problem.id
            raise ValueError(f"problem {where!r} has token id {largest}, but the model has {vocabulary} tokens")
