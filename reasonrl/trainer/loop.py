"""The training loop: prompts -> rollouts -> scores -> tensors -> advantages -> update -> record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from reasonrl.contracts.batch import StepContext, TrainBatch, UpdateOutput
from reasonrl.contracts.data import RolloutRequest, SamplingParams, ScoredGroup, StepRecord
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.contracts.specs import Needs
from reasonrl.data.collate import collate
from reasonrl.data.prompts import Drawn, PromptSource
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import TrainingError
from reasonrl.evaluation.suites import Suite
from reasonrl.functional.randomness import derive_seed
from reasonrl.recipe.schema import AnyRecipe, Recipe
from reasonrl.rewards.runner import RewardRunner
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.driver import StepOutcome
from reasonrl.trainer.logbook import Logbook
from reasonrl.trainer.microbatch import local_prompt_indices
from reasonrl.trainer.numerics import skip_diagnosis
from reasonrl.trainer.optim import MAX_CONSECUTIVE_SKIPS
from reasonrl.trainer.policy_eval import evaluate_policy
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.rollout_metrics import rollout_metrics, unscored_by_reward
from reasonrl.trainer.schedule import Schedule
from reasonrl.trainer.signals import StopSignals
from reasonrl.trainer.staleness import GapWatch
from reasonrl.trainer.suite_runner import EvaluationWatch, evaluate_suites, suite_metrics
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.timing import Timer
from reasonrl.trainer.update import Updater

MAX_UNSCORED_FRAC = 0.2
MAX_REFILLS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerParts:
    """What the loop works with, built by ``rl.py``."""

    recipe: Recipe
    needs: Needs
    prompts: PromptSource
    rewards: RewardRunner
    algorithm: AlgorithmCalls
    backend: SyncedBackend
    policy: Any
    reference: Any | None
    tokenizer: Any
    optimizer: Any
    schedule: Schedule
    updater: Updater
    suites: Sequence[Suite]
    watch: EvaluationWatch
    renderer: PromptRenderer
    ranks: Ranks
    accelerator: Accelerator
    logbook: Logbook
    stop: StopSignals


class Trainer:
    """Takes the steps. Its state is the parameters, the optimizer and what ``progress`` tells."""

    def __init__(self, parts: TrainerParts) -> None:
        self._p = parts
        self._sampling = sampling_params(parts.recipe)
        self._gap_watch = GapWatch(is_float32=parts.accelerator.mixed_precision == "no")
        self.position = 0
        """Prompts taken from the stream."""
        self._unscored_since: dict[str, int] = {}

    def progress(self) -> dict[str, Any]:
        """JSON: where the stream, the policy and the algorithm's controllers stand after the last step."""
        return {
            "position": self.position,
            "policy_version": self._p.updater.policy_version,
            "consecutive_skips": self._p.updater.consecutive_skips,
            "algorithm": self._p.algorithm.state_dict(),
            "plans": self._p.schedule.to_json(),
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Take over what ``progress`` told in another process."""
        self.position = progress["position"]
        self._p.updater.policy_version = progress["policy_version"]
        self._p.updater.consecutive_skips = progress["consecutive_skips"]
        self._p.algorithm.load_state_dict(progress["algorithm"])

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun."""
        return self._p.updater.optimizer_steps

    def step(self, step: int) -> StepOutcome:
        """One step: sample, score, update. Until the update begins it can be dropped."""
        p, timer = self._p, Timer()
        self._set_learning_rate(step)
        with timer("step_s"):
            with p.stop.interruptible():
                groups, metrics, tokens, position = self._collect(step, timer)
            with timer("collate_s"), p.ranks.together():
                batch = collate(groups, pad_id=p.tokenizer.pad_token_id, device=p.accelerator.device)
            update = self._learn(step, batch, timer)
            self.position = position
        metrics.update(update.metrics)
        if p.ranks.is_main:
            self._gap_watch.look(step, update.metrics)
        metrics["optim/skipped_updates"] = float(update.num_skipped)
        metrics["optim/learning_rate"] = p.optimizer.param_groups[0]["lr"]
        metrics["policy/version"] = float(update.policy_version)
        metrics.update(self._throughput(tokens, metrics, timer))
        stuck = update.num_consecutive_skips >= MAX_CONSECUTIVE_SKIPS
        return StepOutcome(
            record=StepRecord(step=step, metrics=metrics, timing_s=timer.metrics()),
            groups=groups,
            diagnosis=skip_diagnosis(update.metrics, update.num_consecutive_skips) if stuck else "",
        )

    def _collect(self, step: int, timer: Timer) -> tuple[list[ScoredGroup], dict[str, float], int, int]:
        """This rank's groups to train on, metrics of all that was sampled on any rank, this rank's sampled tokens,
        and the position in the stream behind them.

        An algorithm's ``keep`` may ask for further prompts.
        """
        p = self._p
        p.logbook.phase("sampling")
        quota = p.recipe.trainer.prompts_per_step // p.ranks.size
        sampled: list[ScoredGroup] = []
        kept: list[ScoredGroup] = []
        enough, position, redraws = False, self.position, 0
        with timer("sync_s"):
            backend = p.backend.at(p.updater.policy_version)
        for _ in range(MAX_REFILLS):
            with timer("rollout_s"), p.accelerator.autocast(), p.ranks.together():
                drawn = self._draw(position)
                groups = backend.generate([self._request(*pair) for pair in drawn])
            redraws += sum(prompt.redraws for _, prompt in drawn)
            with timer("reward_s"), p.ranks.together():
                scored = p.rewards.score_all(groups)
                kept += [group for group in scored if p.algorithm.keep(group)]
            sampled += scored
            position += p.recipe.trainer.prompts_per_step
            enough = p.ranks.max(quota - len(kept)) <= 0
            if enough:
                break
        metrics = self._sampled_metrics(sampled, quota, redraws)
        with p.ranks.together():
            # First: an algorithm may well keep nothing of what could not be scored.
            self._check_scored(step, metrics, sampled)
            if not enough:
                raise TrainingError(
                    f"step {step}: after {MAX_REFILLS} rounds of sampling the algorithm kept only {len(kept)} of the "
                    f"{quota} groups it needs; the task is too easy or too hard for it, or its keep() is too strict"
                )
        tokens = sum(len(c.token_ids) for g in sampled for c in g.group.completions)
        return kept[:quota], metrics, tokens, position

    def _sampled_metrics(self, sampled: Sequence[ScoredGroup], quota: int, redraws: int) -> dict[str, float]:
        """Metrics of all that was sampled: those of the kept groups alone would flatter the policy."""
        metrics = rollout_metrics(sampled)
        if self._p.algorithm.filters_groups:
            metrics["group/discarded_frac"] = mean(max(len(sampled) - quota, 0), len(sampled))
        if self._p.prompts.redraws:
            metrics["prompt/overlong_dropped"] = Metric(redraws, reduction="sum")
        return self._p.ranks.resolve([metrics])

    def _draw(self, position: int) -> list[tuple[int, Drawn]]:
        """This rank's positions of the round that begins at ``position``, with what the stream gives there."""
        p, trainer = self._p, self._p.recipe.trainer
        local = local_prompt_indices(trainer.prompts_per_step, trainer.minibatches, p.ranks.size, p.ranks.rank)
        return [(position + index, p.prompts.draw(position + index)) for index in local]

    def _request(self, position: int, drawn: Drawn) -> RolloutRequest:
        """The rollout request of the prompt at ``position`` of the stream; its seed makes it repeatable."""
        recipe = self._p.recipe
        return RolloutRequest(
            problem=drawn.problem,
            prompt_ids=drawn.prompt.ids,
            prompt_text=drawn.prompt.text,
            group_size=recipe.sampling.group_size,
            sampling=self._sampling,
            seed=derive_seed(recipe.seed, "train", position),
        )

    def _learn(self, step: int, batch: TrainBatch, timer: Timer) -> UpdateOutput:
        p, trainer = self._p, self._p.recipe.trainer
        p.logbook.phase("updating")
        ctx = StepContext(
            step=step,
            total_steps=trainer.steps,
            policy_version=p.updater.policy_version,
            reduce=p.ranks.reduce,
        )
        with timer("policy_eval_s"):
            evals = evaluate_policy(
                p.policy,
                p.reference,
                batch,
                needs=p.needs,
                used_once=trainer.minibatches == 1 and trainer.update_epochs == 1,
                temperature=self._sampling.logprob_temperature,
                max_tokens=trainer.max_tokens_per_microbatch,
                ranks=p.ranks,
            )
        with timer("advantage_s"):
            advantages = p.algorithm.compute_advantages(batch, evals, ctx)
        with timer("update_s"):
            return p.updater.update(batch, evals, advantages, ctx)

    def evaluate(self, step: int) -> dict[str, float]:
        """Run every suite; returns ``eval/<suite>/...`` metrics."""
        p = self._p
        if not p.suites:
            return {}
        p.logbook.phase("evaluating")
        with p.accelerator.autocast():
            backend = p.backend.at(p.updater.policy_version)
            results = evaluate_suites(p.suites, backend, p.renderer, p.ranks, p.watch)
        p.logbook.evaluated(step, results)
        return suite_metrics(results)

    def _set_learning_rate(self, step: int) -> None:
        factor = self._p.schedule.factor(step)
        for group in self._p.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _check_scored(self, step: int, metrics: dict[str, float], sampled: Sequence[ScoredGroup]) -> None:
        unscored = metrics.get("train/unscored_frac", 1.0)
        missing = unscored_by_reward(sampled)
        self._unscored_since = {name: self._unscored_since.get(name, step) for name in missing}
        if unscored > MAX_UNSCORED_FRAC:
            who = "".join(
                f"; reward {name!r} gave no score {text}, since step {self._unscored_since[name]}"
                for name, text in missing.items()
            )
            raise TrainingError(
                f"{unscored:.0%} of the batch could not be scored, over the limit of {MAX_UNSCORED_FRAC:.0%}{who}; "
                "the log holds the first traceback of each reward"
            )

    def _throughput(self, tokens: int, metrics: dict[str, float], timer: Timer) -> dict[str, float]:
        sampled = self._p.ranks.sums([tokens])[0]
        training_s = timer.seconds["policy_eval_s"] + timer.seconds["update_s"]
        return {
            "throughput/rollout_tokens_per_s": sampled / max(timer.seconds["rollout_s"], 1e-9),
            "throughput/train_tokens_per_s": metrics["batch/train_tokens"] / max(training_s, 1e-9),
        }


def sampling_params(recipe: AnyRecipe) -> SamplingParams:
    """The recipe's sampling section as the backends see it."""
    return SamplingParams(
        temperature=recipe.sampling.temperature,
        max_completion_tokens=recipe.sampling.max_completion_tokens,
        stop=tuple(recipe.sampling.stop),
    )
