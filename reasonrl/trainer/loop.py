"""One step of the training loop: prompts -> rollouts -> scores -> tensors -> advantages -> update -> record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from reasonrl.contracts.batch import StepContext, TrainBatch, UpdateOutput
from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.contracts.metric_keys import MAX_CONSECUTIVE_SKIPS, MAX_UNSCORED_FRAC
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.data.collate import collate
from reasonrl.errors import TrainingError
from reasonrl.observability.reporter import Reporter
from reasonrl.recipe.schema import Recipe
from reasonrl.rewards.runner import RewardRunner
from reasonrl.signals import StopSignals
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.job import StepOutcome, read_count
from reasonrl.trainer.numerics import diagnose_skips
from reasonrl.trainer.offload import OPTIMIZER, REFERENCE
from reasonrl.trainer.policy_eval import evaluate_policy
from reasonrl.trainer.rollout_metrics import count_failed, explain_unscored, rollout_metrics, staleness_metrics
from reasonrl.trainer.rounds import Round, Rounds, sampling_params
from reasonrl.trainer.sharing import share_out
from reasonrl.trainer.staleness import GapWatch
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.timing import Timer
from reasonrl.trainer.token_figures import Figures, TokenFigures
from reasonrl.trainer.update import Updater
from reasonrl.trainer.work import shapes_of, work_of


@dataclass(slots=True)
class Collected:
    """This rank's scored groups of one step. ``carried`` and ``metrics`` are those of all ranks."""

    position: int
    """In the stream of prompts, behind the last one drawn."""
    sampled: list[ScoredGroup] = field(default_factory=list)
    kept: list[ScoredGroup] = field(default_factory=list)
    """Those to train on, carried ones first."""
    carried: Sequence[ScoredGroup] = ()
    """Kept beyond the need of this step, for the next one."""
    rounds: int = 0
    refused: int = 0
    """Sampled groups that are trained on in no step."""
    redraws: int = 0
    sampling_s: float = 0.0
    """Of this rank's rounds, ``ahead_s`` included; 0 if that is not known."""
    ahead_s: float = 0.0
    """What a round that was sampled during the update before took."""
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Sampled tokens, those of groups that are not kept included."""
        return sum(c.sampled_tokens for g in self.sampled for c in g.group.completions)


class Trainer:
    """Takes the steps of a reinforcement-learning run. Its state: the tensors and what ``progress`` returns."""

    def __init__(
        self,
        recipe: Recipe,
        bundle: ModelBundle,
        *,
        rounds: Rounds,
        backend: SyncedBackend,
        rewards: RewardRunner,
        updater: Updater,
        reporter: Reporter,
        stop: StopSignals,
    ) -> None:
        self._recipe, self._bundle, self._ranks = recipe, bundle, bundle.ranks
        self._rounds, self._backend, self._rewards = rounds, backend, rewards
        self._updater, self._reporter, self._stop = updater, reporter, stop
        logging = recipe.logging
        figures = min(logging.token_figures_per_step, logging.transcripts_per_step) if self._ranks.is_main else 0
        self._token_figures = TokenFigures(bundle.tokenizer, figures)
        updater.see = self._token_figures.see
        frozen = updater.reference.weights if updater.reference is not None else None
        self._work = work_of(bundle.policy, bundle.sampling_work, bundle.accelerator.device, bundle.precision, frozen)
        updater.trained = self._work.trained
        self._temperature = sampling_params(recipe.sampling).logprob_temperature
        self._gap_watch = GapWatch(is_float32=bundle.accelerator.mixed_precision == "no")
        self._unscored_since: dict[str, int] = {}
        self._names: set[str] = set()
        self.position = 0
        """Prompts taken from the stream, less those of ``ahead``."""
        self.ahead: Round | None = None
        """The first round of the next step, sampled during the last update."""
        self.carried: Sequence[ScoredGroup] = ()
        """Of all ranks: kept in the last step beyond its need, to be trained on in the next one."""

    @property
    def policy(self) -> nn.Module:
        """The trained model."""
        return self._updater.policy

    @property
    def optimizer(self) -> Optimizer:
        """Its optimizer."""
        return self._updater.optimizer

    @property
    def policy_version(self) -> int:
        """Optimizer steps behind the weights."""
        return self._updater.policy_version

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun."""
        return self._updater.guard.begun

    def progress(self) -> dict[str, object]:
        """JSON: position in the stream, policy version, state of the algorithm's controllers after the last step."""
        return {
            "position": self.position,
            "policy_version": self._updater.policy_version,
            "consecutive_skips": self._updater.guard.consecutive_skips,
            "algorithm": self._updater.algorithm.state_dict(),
        }

    def pending(self, *, is_alone: bool = False) -> Sequence[ScoredGroup]:
        """Groups of the next step that were sampled ahead, those of all ranks on each, once they are there."""
        if self.ahead is None:
            return ()
        if is_alone:
            raise TrainingError("the other processes have theirs")
        with self._ranks.together():
            scored = self._score(self.ahead)
        return self._rounds.gather(scored)

    def restore(
        self, progress: Mapping[str, Any], carried: Sequence[ScoredGroup] = (), pending: Sequence[ScoredGroup] = ()
    ) -> None:
        """Load what ``progress``, ``carried`` and ``pending`` were in another process."""
        self.position, self.carried = read_count(progress, "position"), carried
        self.ahead = self._rounds.restore(self.position, pending) if pending else None
        self._updater.policy_version = read_count(progress, "policy_version")
        self._updater.guard.consecutive_skips = read_count(progress, "consecutive_skips")
        self._updater.algorithm.load_state_dict(progress["algorithm"])

    def step(self, step: int) -> StepOutcome:
        """One step: collect scored groups, make a batch of them, learn from it. Droppable until the update begins."""
        timer = Timer(self._ranks.device)
        self._work.start()
        with timer("step_s"):
            with self._stop.interruptible():
                collected = self._collect(step, timer)
            ahead = self._start_ahead(step, collected.position, timer)
            with timer("collate_s"), self._ranks.together():
                pad_id, device = self._bundle.tokenizer.pad_token_id, self._bundle.accelerator.device
                batch = collate(collected.kept, pad_id=pad_id, device=device)
            with self._work.observed():
                update, figures = self._learn(step, collected.kept, batch, timer)
            with self._ranks.together():
                self._updater.algorithm.after_step({**collected.metrics, **update.metrics})
            self.position, self.carried, self.ahead = collected.position, collected.carried, ahead
        skips, timing = update.num_consecutive_skips, timer.metrics()
        if collected.ahead_s:
            timing["time/rollout_ahead_s"] = collected.ahead_s
        return StepOutcome(
            record=StepRecord(step=step, metrics=self._step_metrics(step, collected, update, timer), timing_s=timing),
            groups=collected.kept,
            token_figures=figures,
            diagnosis=diagnose_skips(update.metrics, skips) if skips >= MAX_CONSECUTIVE_SKIPS else "",
        )

    def _collect(self, step: int, timer: Timer) -> Collected:
        """Sample and score in rounds until the algorithm has kept enough groups, or no round is left."""
        self._reporter.phase("sampling")
        self._updater.offload.park()
        trainer, ranks = self._recipe.trainer, self._ranks
        collected = Collected(position=self.position, kept=list(self.carried[ranks.rank :: ranks.size]))
        num_kept = self._take(self.ahead, collected, timer) if self.ahead is not None else 0
        collected.ahead_s = collected.sampling_s
        with timer("sync_s"):
            backend = self._backend.sync(self.policy_version)
        while num_kept < trainer.prompts_per_step and collected.rounds < trainer.max_sampling_rounds:
            with timer("rollout_s"):
                sampled = self._rounds.sample(backend, collected.position)
            num_kept = self._take(sampled, collected, timer)
        if not self._goes_ahead(step):
            with timer("rollout_s"):
                self._backend.release()
        if self._updater.algorithm.filters_groups:
            collected.kept, left = share_out(
                collected.kept, ranks, wanted=trainer.prompts_per_step, minibatches=trainer.minibatches
            )
            if trainer.carry_groups:
                collected.carried = left
            elif ranks.is_main:
                collected.refused += len(left)
        collected.metrics = self._sampled_metrics(collected)
        with ranks.together():
            # First: an algorithm may well keep nothing of what could not be scored.
            self._check_scored(step, collected)
            self._check_enough(step, collected.rounds, num_kept)
        return collected

    def _take(self, sampled: Round, collected: Collected, timer: Timer) -> int:
        """Wait for the samples of a round, score them, and let the algorithm choose; how many are kept by all ranks."""
        with timer("rollout_s"), self._ranks.together():
            found = sampled.sampling.result()
        with timer("reward_s"), self._ranks.together():
            scored = self._score(sampled)
            kept = [group for group in scored if self._updater.algorithm.keep(group)]
        self._work.sampled(scored, found.work)
        collected.sampled += scored
        collected.kept += kept
        collected.refused += len(scored) - len(kept)
        collected.rounds += 1
        collected.redraws += sampled.redraws
        collected.sampling_s += found.seconds
        collected.position += self._recipe.trainer.prompts_per_step
        return int(self._ranks.sums([len(collected.kept)])[0])

    def _score(self, sampled: Round) -> Sequence[ScoredGroup]:
        """Score a round once, in the main thread: rewards may set timers, or be unsafe in threads."""
        if sampled.scored is None:
            sampled.scored = self._rewards.score_all(sampled.sampling.result().groups)
        return sampled.scored

    def _goes_ahead(self, step: int) -> bool:
        """Whether the prompts of the step after ``step`` are sampled during its update."""
        return self._recipe.trainer.max_staleness > 0 and step < self._recipe.trainer.steps

    def _start_ahead(self, step: int, position: int, timer: Timer) -> Round | None:
        if not self._goes_ahead(step):
            return None
        with timer("rollout_s"):
            return self._rounds.start(self._backend.sync(self.policy_version), position)

    def _learn(
        self, step: int, groups: Sequence[ScoredGroup], batch: TrainBatch, timer: Timer
    ) -> tuple[UpdateOutput, list[Figures | None]]:
        """Log-probabilities and values of the batch, then advantages, then the optimizer steps."""
        self._reporter.phase("updating")
        trainer, updater, work = self._recipe.trainer, self._updater, self._work
        work.rows = shapes_of(groups)
        work.evaluated(reference=updater.needs.reference, critic=updater.needs.critic)
        ctx = StepContext(
            step=step, total_steps=trainer.steps, policy_version=updater.policy_version, reduce=self._ranks.reduce
        )
        with timer("policy_eval_s"), updater.offload.loaded(REFERENCE):
            evals = evaluate_policy(
                updater.policy,
                updater.reference,
                batch,
                needs=updater.needs,
                used_once=trainer.minibatches == 1 and trainer.update_epochs == 1,
                temperature=self._temperature,
                max_tokens=trainer.max_tokens_per_microbatch,
                ranks=self._ranks,
            )
        with timer("advantage_s"):
            advantages = updater.algorithm.compute_advantages(batch, evals, ctx)
        with timer("update_s"), updater.offload.loaded(OPTIMIZER):
            update = updater.update(batch, evals, advantages, ctx)
        return update, self._token_figures.take(groups, batch, evals, advantages, ctx.policy_version)

    def _step_metrics(self, step: int, collected: Collected, update: UpdateOutput, timer: Timer) -> dict[str, float]:
        if self._ranks.is_main:
            self._gap_watch.look(step, update.metrics)
        training_s = timer.seconds["policy_eval_s"] + timer.seconds["update_s"]
        sampled = self._ranks.sums([collected.tokens])[0]
        return {
            **collected.metrics,
            **update.metrics,
            "optim/skipped_updates": float(update.num_skipped),
            "optim/learning_rate": self.optimizer.param_groups[0]["lr"],
            "policy/version": float(update.policy_version),
            "throughput/train_tokens_per_s": update.metrics["batch/train_tokens"] / max(training_s, 1e-9),
            **({"throughput/rollout_tokens_per_s": sampled / collected.sampling_s} if collected.sampling_s else {}),
            **self._work.metrics(self._ranks, timer.seconds["step_s"]),
            **self._ranks.resolve([timer.memory()]),
        }

    def _sampled_metrics(self, collected: Collected) -> dict[str, float]:
        """Metrics of all that was sampled: those of the kept groups alone would flatter the policy."""
        metrics = rollout_metrics(collected.sampled, self._names)
        if self._updater.algorithm.filters_groups:
            seeds = {group.group.request.seed for group in self.carried}
            metrics["group/discarded_frac"] = mean(collected.refused, len(collected.sampled))
            is_old = [group.group.request.seed in seeds for group in collected.kept]
            metrics["group/carried_frac"] = mean(sum(is_old), len(is_old))
            metrics["group/sampling_rounds"] = Metric(collected.rounds, reduction="max")
            metrics["group/trained"] = Metric(len(collected.kept), reduction="sum")
        if self._recipe.trainer.max_staleness or self._updater.algorithm.filters_groups:
            metrics |= staleness_metrics(collected.kept, self.policy_version)
        if self._rounds.redraws:
            metrics["prompt/overlong_dropped"] = Metric(collected.redraws, reduction="sum")
        return self._ranks.resolve([metrics])

    def _check_enough(self, step: int, rounds: int, num_kept: int) -> None:
        trainer, name = self._recipe.trainer, self._recipe.algorithm["name"]
        least, wanted, way_out = trainer.prompts_per_step, "a step needs", " or set trainer.too_few_groups=train"
        if trainer.too_few_groups == "train":
            least, wanted, way_out = (
                trainer.minibatches * self._ranks.size,
                "the smallest step needs (trainer.minibatches x processes)",
                "",
            )
        if num_kept < least:
            raise TrainingError(
                f"step {step}: after {rounds} rounds of sampling (trainer.max_sampling_rounds) {name} has kept "
                f"{num_kept} of the {least} groups that {wanted}; the problems are too easy or too hard for the "
                f"policy: raise that limit{way_out}, then resume, or start a new run with other problems"
            )

    def _check_scored(self, step: int, collected: Collected) -> None:
        unscored = collected.metrics.get("train/unscored_frac", 1.0)
        missing = explain_unscored(collected.sampled)
        self._unscored_since = {name: self._unscored_since.get(name, step) for name in missing}
        if unscored > MAX_UNSCORED_FRAC:
            who = "".join(
                f"; reward {name!r} gave no score {text}, since step {self._unscored_since[name]}"
                for name, text in missing.items()
            )
            if failed := count_failed(collected.sampled):
                who += f"; {failed} ended in an error of the backend or of the task's reply, which the log shows"
            raise TrainingError(
                f"{unscored:.0%} of the batch could not be scored, over the limit of {MAX_UNSCORED_FRAC:.0%}{who}; "
                "a reward that is changed needs a new run"
            )
