"""One step of supervised fine-tuning (SFT), with the loss over completion tokens only."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.contracts.metrics import resolve
from reasonrl.data.collate import pad_rows
from reasonrl.data.demonstrations import Example
from reasonrl.errors import CheckpointError
from reasonrl.functional.randomness import derive_seed
from reasonrl.model.mode import seeded
from reasonrl.observability.reporter import Reporter
from reasonrl.recipe.schema import SftRecipe
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.job import StepOutcome, read_count
from reasonrl.trainer.microbatch import Cutting, Microbatch, accumulate_gradients, work_metrics
from reasonrl.trainer.numerics import diagnose_skips
from reasonrl.trainer.optim import GuardedOptimizer
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.timing import Timer
from reasonrl.trainer.work import RowShape, SamplingWork, work_of


class SftTrainer:
    """One optimizer step per ``tokens_per_batch`` tokens."""

    carried: Sequence[ScoredGroup] = ()

    def __init__(
        self,
        recipe: SftRecipe,
        bundle: ModelBundle,
        *,
        policy: nn.Module,
        optimizer: Optimizer,
        examples: Iterator[Example],
        reporter: Reporter,
    ) -> None:
        self._recipe, self._bundle, self._ranks = recipe, bundle, bundle.ranks
        self.policy, self.optimizer = policy, optimizer
        self._guard = GuardedOptimizer(optimizer, recipe.optimizer.max_grad_norm)
        self._examples, self._reporter = examples, reporter
        self._work = work_of(bundle.policy, SamplingWork(), bundle.accelerator.device, bundle.precision, None)
        self._num_taken = 0
        self.policy_version = 0

    def progress(self) -> dict[str, object]:
        """JSON: how many examples each rank has taken, the policy's version, and the guard's count."""
        return {
            "examples": self._ranks.gather([self._num_taken]),
            "policy_version": self.policy_version,
            "consecutive_skips": self._guard.consecutive_skips,
        }

    def pending(self, *, is_alone: bool = False) -> Sequence[ScoredGroup]:
        """Nothing is sampled."""
        return ()

    def restore(
        self, progress: Mapping[str, Any], carried: Sequence[ScoredGroup] = (), pending: Sequence[ScoredGroup] = ()
    ) -> None:
        """Take the examples again that were taken, without training on them."""
        self.policy_version = read_count(progress, "policy_version")
        self._guard.consecutive_skips = read_count(progress, "consecutive_skips")
        self._num_taken = read_taken(progress, self._ranks)[self._ranks.rank]
        deque(islice(self._examples, self._num_taken), maxlen=0)

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun."""
        return self._guard.begun

    def step(self, step: int) -> StepOutcome:
        """One optimizer step."""
        timer = Timer(self._ranks.device)
        self._work.start()
        with timer("step_s"), self._work.observed():
            metrics = self._step(step, timer)
        metrics["throughput/train_tokens_per_s"] = metrics["batch/train_tokens"] / timer.seconds["step_s"]
        metrics |= self._work.metrics(self._ranks, timer.seconds["step_s"])
        metrics |= self._ranks.resolve([timer.memory()])
        skips = self._guard.consecutive_skips
        return StepOutcome(
            record=StepRecord(step=step, metrics=metrics, timing_s=timer.metrics()),
            diagnosis=diagnose_skips(metrics, skips) if self._guard.is_stuck else "",
        )

    def _step(self, step: int, timer: Timer) -> dict[str, float]:
        self._reporter.phase("updating")
        ranks = self._ranks
        with timer("collate_s"), ranks.together():
            batch = self._next_batch()
        with timer("update_s"):
            return self._learn(step, batch)

    def _learn(self, step: int, batch: Sequence[Example]) -> dict[str, float]:
        ranks = self._ranks
        self._work.rows = [
            RowShape(number, len(e.prompt_ids), e.num_tokens, e.num_trained) for number, e in enumerate(batch)
        ]
        self._work.trained(range(len(batch)))
        cutting = Cutting.of(self._work.rows, self.policy)
        plan = cutting.plan(range(len(batch)), self._recipe.sft.max_tokens_per_microbatch)
        count = ranks.sums([sum(example.num_trained for example in batch)])[0]

        def compute_loss(micro: Microbatch) -> torch.Tensor:
            seed = derive_seed(self._recipe.seed, "dropout", step, micro.position, ranks.rank)
            with seeded(seed, self._bundle.accelerator.device):
                return self._loss([batch[row] for row in micro.rows], is_dummy=micro.is_dummy) / count

        accelerator = self._bundle.accelerator
        loss = accumulate_gradients(self.policy, plan, compute_loss, spare_row=0, accelerator=accelerator, ranks=ranks)
        metrics = self._apply(ranks.sums([loss])[0])
        self.policy_version = step
        real, computed = ranks.sums(cutting.count(plan))
        metrics["batch/train_tokens"] = real
        metrics |= resolve(work_metrics(real, computed))
        metrics["batch/cut_completions"] = ranks.sums([sum(example.is_cut for example in batch)])[0]
        return metrics

    def _next_batch(self) -> list[Example]:
        """This rank's examples of one optimizer step: at least one, about ``tokens_per_batch`` over all ranks."""
        budget = self._recipe.sft.tokens_per_batch / self._ranks.size
        batch, tokens = [], 0
        while tokens < budget:
            example = next(self._examples)
            batch.append(example)
            tokens += example.num_tokens
        self._num_taken += len(batch)
        return batch

    def _loss(self, examples: Sequence[Example], *, is_dummy: bool) -> torch.Tensor:
        """Sum of negative log-likelihoods over the tokens to write (0 for a dummy)."""
        device = self._bundle.accelerator.device
        width = max(example.num_tokens for example in examples)
        rows = [[*e.prompt_ids, *e.completion_ids] for e in examples]
        ids = torch.from_numpy(pad_rows(rows, self._bundle.tokenizer.pad_token_id, int, width)).to(device)
        columns = torch.arange(width, device=device)[None, :]
        ends = torch.tensor([e.num_tokens for e in examples], device=device)[:, None]
        attention = columns < ends
        trained = [[*[False] * len(e.prompt_ids), *e.trained] for e in examples]
        response = torch.from_numpy(pad_rows(trained, False, bool, width)).to(device) & (not is_dummy)
        out = self.policy(ids, attention, response, temperature=1.0)
        return -out.logprobs.sum()

    def _apply(self, loss: float) -> dict[str, float]:
        is_finite = math.isfinite(loss)
        result = self._guard.step(is_finite=is_finite)
        return {
            "loss/sft": loss,
            "optim/grad_norm": result.norms["policy"],
            "optim/learning_rate": self.optimizer.param_groups[0]["lr"],
            "optim/skipped_updates": float(not result.is_taken),
            "numerics/nonfinite_losses": float(not is_finite),
            "numerics/nonfinite_gradients": float(not result.has_finite_gradient),
        }


def read_taken(progress: Mapping[str, Any], ranks: Ranks) -> list[int]:
    """How many examples each rank had taken at a checkpoint.

    Raises:
        CheckpointError: if the number of processes differs: each has a stream of its own.
        ValueError: if one is not a count.
    """
    taken = progress["examples"]
    if len(taken) != ranks.size:
        raise CheckpointError(f"supervised runs resume on as many processes as before: {len(taken)}, got {ranks.size}")
    return [read_count({"examples": count}, "examples") for count in taken]
