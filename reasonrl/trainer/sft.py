"""Supervised fine-tuning: imitate completions, loss on completion tokens only."""

import math
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from reasonrl.checkpoint.tensors import OPTIMIZER_FILE, TRAINABLE_FILE
from reasonrl.contracts.data import StepRecord
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.data.collate import pad_rows
from reasonrl.data.demonstrations import Encoder, Example, PairExamples, task_examples
from reasonrl.errors import CheckpointError, RecipeError
from reasonrl.functional.randomness import derive_seed
from reasonrl.model.mode import in_mode, seeded
from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import ResolvedSft
from reasonrl.recipe.schema import SamplingConfig, SftRecipe
from reasonrl.rundir import manifest
from reasonrl.rundir.layout import TRAINER_STATE
from reasonrl.trainer.driver import StepOutcome
from reasonrl.trainer.ending import carry_out
from reasonrl.trainer.microbatch import padded_tokens, plan_microbatches
from reasonrl.trainer.numerics import skip_diagnosis
from reasonrl.trainer.optim import GuardedOptimizer
from reasonrl.trainer.outline import model_title
from reasonrl.trainer.preflight import preflight, prompt_limit
from reasonrl.trainer.result import RunResult
from reasonrl.trainer.runs import OpenRun, RunOptions, make_driver, open_run
from reasonrl.trainer.sources import Tasks, pairs_of
from reasonrl.trainer.suite_runner import evaluate_suites, suite_metrics
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.timing import Timer
from reasonrl.trainer.workbench import (
    Workbench,
    build_backend,
    build_optimizer,
    build_suites,
    open_workbench,
    quiet_libraries,
)

STATE_FILES = (OPTIMIZER_FILE, TRAINABLE_FILE, TRAINER_STATE, manifest.NAME)


def run_sft(
    resolved: ResolvedSft,
    plugins: Plugins,
    options: RunOptions,
    *,
    output: str | Path | None = None,
) -> RunResult:
    """Carry out an SFT recipe; ``output`` receives a copy of the final model folder."""
    quiet_libraries()
    _refuse_output(output)
    recipe = resolved.recipe
    tasks = Tasks(plugins, recipe.seed)
    suites = build_suites(
        resolved.suites,
        tasks=tasks,
        plugins=plugins,
        seed=recipe.seed,
        sampling=recipe.sampling,
        logged=set(),
    )
    options.reporter.waiting(f"loading model {model_title(resolved)}")
    bench = open_workbench(
        recipe.model,
        resolved.model_path,
        seed=recipe.seed,
        device=recipe.device,
        trackers=recipe.logging.trackers,
        logging_dir=str(recipe.output_dir),
    )
    options.reporter.waiting("reading demonstrations")
    examples, lines = open_examples(resolved, tasks, bench)
    options.reporter.waiting("checking prompts")
    checked = preflight(bench, recipe.sampling, suites, data=[*tasks.lines(), *lines])
    backend = build_backend(resolved.rollout_backend, plugins, bench, recipe.sampling)
    run = open_run(resolved, plugins, bench, options, checked)

    def work(backend: Any) -> None:
        trainer = SftTrainer(resolved, bench, run, backend, checked.suites, examples)
        make_driver(trainer, run, bench, resolved, trainer.policy, trainer.optimizer).run()
        _copy_to(output, run.logbook.model_path)

    options.reporter.waiting(f"starting rollout backend {resolved.rollout_backend.name}")
    return carry_out(run, backend, work)


def open_examples(resolved: ResolvedSft, tasks: Tasks, bench: Workbench) -> tuple[Iterator[Example], list[str]]:
    """The endless examples of this rank, and what to say of them.

    The first one is drawn at once, so that bad data is refused early.
    """
    recipe, ranks = resolved.recipe, bench.ranks
    encode = open_encoder(bench, recipe.sampling)
    lines: list[str] = []
    if resolved.task is not None:
        task = tasks.get(resolved.task)
        stream = task_examples(task, resolved.task.name, encode, seed=recipe.seed, rank=ranks.rank, ranks=ranks.size)
    else:
        assert recipe.data is not None  # the schema has seen to it
        pairs = PairExamples.encode(pairs_of(recipe.data), encode)
        lines.append(f"{recipe.data.path}: {pairs.line()}")
        stream = pairs.stream(seed=recipe.seed, rank=ranks.rank, ranks=ranks.size)
    first = next(stream)
    return _chain(first, stream), lines


def open_encoder(bench: Workbench, sampling: SamplingConfig) -> Encoder:
    """What makes examples for this model."""
    model: Any = bench.policy.model
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return Encoder(
        bench.renderer,
        prompt_limit(bench, sampling, completion_tokens=1),
        max_completion_tokens=sampling.max_completion_tokens,
        ends=ends if isinstance(ends, list | tuple) else [ends] if ends is not None else [],
    )


def _chain(first: Example, rest: Iterator[Example]) -> Iterator[Example]:
    yield first
    yield from rest


class SftTrainer:
    """One optimizer step per ``tokens_per_batch`` tokens."""

    def __init__(
        self,
        resolved: ResolvedSft,
        bench: Workbench,
        run: OpenRun,
        backend: RolloutBackend,
        suites: Sequence[Any],
        examples: Iterator[Example],
    ) -> None:
        self._recipe: SftRecipe = resolved.recipe
        self._bench = bench
        self._logbook = run.logbook
        self._suites = suites
        self._examples = examples
        self._num_taken = 0
        self._schedule = run.schedule
        optimizer = build_optimizer(bench.policy, self._recipe.optimizer, None)
        self.policy, self.optimizer = bench.accelerator.prepare(bench.policy, optimizer)
        self._backend = SyncedBackend(backend, self.policy, bench, run.stop)
        self._guard = GuardedOptimizer(self.optimizer, self._recipe.optimizer.max_grad_norm)
        self.policy.eval()

    def progress(self) -> dict[str, Any]:
        """JSON: how many examples each rank has taken, and the guard's count."""
        return {
            "examples": self._bench.ranks.gather([self._num_taken]),
            "consecutive_skips": self._guard.consecutive_skips,
            "plans": self._schedule.to_json(),
        }

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Take the examples again that were taken, without training on them.

        Raises:
            CheckpointError: if the number of processes differs: each has a stream of its own.
        """
        ranks, taken = self._bench.ranks, progress["examples"]
        if len(taken) != ranks.size:
            raise CheckpointError(
                f"supervised runs resume on as many processes as before: {len(taken)}, got {ranks.size}"
            )
        self._guard.consecutive_skips = progress["consecutive_skips"]
        self._num_taken = taken[ranks.rank]
        deque(islice(self._examples, self._num_taken), maxlen=0)

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun."""
        return self._guard.begun

    def step(self, step: int) -> StepOutcome:
        """One optimizer step."""
        timer = Timer()
        with timer("step_s"):
            metrics = self._step(step)
        metrics["throughput/train_tokens_per_s"] = metrics["batch/train_tokens"] / timer.seconds["step_s"]
        skips = self._guard.consecutive_skips
        return StepOutcome(
            record=StepRecord(step=step, metrics=metrics, timing_s=timer.metrics()),
            diagnosis=skip_diagnosis(metrics, skips) if self._guard.is_stuck else "",
        )

    def _step(self, step: int) -> dict[str, float]:
        self._logbook.phase("updating")
        with self._bench.ranks.together():
            batch = self._next_batch()
        lengths = [example.num_tokens for example in batch]
        plan = plan_microbatches(lengths, range(len(batch)), self._recipe.sft.max_tokens_per_microbatch)
        ranks, accelerator = self._bench.ranks, self._bench.accelerator
        count = ranks.sums([sum(len(example.completion_ids) for example in batch)])[0]
        schedule = plan + [[]] * (ranks.max(len(plan)) - len(plan))
        total = 0.0
        for position, rows in enumerate(schedule):
            last = position == len(schedule) - 1
            chosen = [batch[row] for row in rows] or batch[:1]
            with (
                nullcontext() if last or ranks.size == 1 else accelerator.no_sync(self.policy),
                in_mode(self.policy, training=True),
                seeded(derive_seed(self._recipe.seed, "dropout", step, position, ranks.rank), accelerator.device),
            ):
                loss = self._loss(chosen, is_dummy=not rows) / count
                accelerator.backward(loss * ranks.size)
            total += float(loss.detach())
        metrics = self._apply(step, ranks.sums([total])[0])
        tokens = ranks.sums([sum(lengths), padded_tokens(lengths, plan)])
        metrics["batch/train_tokens"] = tokens[0]
        metrics["batch/padding_frac"] = 1.0 - tokens[0] / tokens[1]
        metrics["batch/cut_completions"] = ranks.sums([sum(example.is_cut for example in batch)])[0]
        return metrics

    def _next_batch(self) -> list[Example]:
        """This rank's examples of one optimizer step: at least one, about ``tokens_per_batch`` over all ranks."""
        budget = self._recipe.sft.tokens_per_batch / self._bench.ranks.size
        batch, tokens = [], 0
        while tokens < budget:
            example = next(self._examples)
            batch.append(example)
            tokens += example.num_tokens
        self._num_taken += len(batch)
        return batch

    def _loss(self, examples: Sequence[Example], *, is_dummy: bool) -> torch.Tensor:
        """Sum of negative log-likelihoods over completion tokens (0 for a dummy)."""
        device = self._bench.accelerator.device
        width = max(example.num_tokens for example in examples)
        rows = [[*e.prompt_ids, *e.completion_ids] for e in examples]
        ids = torch.from_numpy(pad_rows(rows, self._bench.tokenizer.pad_token_id, int, width)).to(device)
        columns = torch.arange(width, device=device)[None, :]
        starts = torch.tensor([len(e.prompt_ids) for e in examples], device=device)[:, None]
        ends = torch.tensor([e.num_tokens for e in examples], device=device)[:, None]
        attention = columns < ends
        response = attention & (columns >= starts) & (not is_dummy)
        out = self.policy(ids, attention, response, temperature=1.0)
        return -out.logprobs.sum()

    def _apply(self, step: int, loss: float) -> dict[str, float]:
        rate = self._recipe.optimizer.learning_rate * self._schedule.factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        is_finite = math.isfinite(loss)
        result = self._guard.step(is_finite=is_finite)
        return {
            "loss/sft": loss,
            "optim/grad_norm": result.norms["policy"],
            "optim/learning_rate": rate,
            "optim/skipped_updates": float(not result.is_taken),
            "numerics/nonfinite_losses": float(not is_finite),
            "numerics/nonfinite_gradients": float(not result.has_finite_gradient),
        }

    def evaluate(self, step: int) -> dict[str, float]:
        """Run every suite; returns ``eval/<suite>/...`` metrics."""
        if not self._suites:
            return {}
        self._logbook.phase("evaluating")
        backend = self._backend.at(step)
        with self._bench.accelerator.autocast():
            results = evaluate_suites(self._suites, backend, self._bench.renderer, self._bench.ranks, self._bench.watch)
        self._logbook.evaluated(step, results)
        return suite_metrics(results)


def _refuse_output(output: str | Path | None) -> None:
    """Hours of training are a bad time to learn that the copy has no place."""
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise RecipeError(f"--output {output}: is a file, expected a folder; give another path")


def _copy_to(output: str | Path | None, model_path: Path | None) -> None:
    """The model alone: what only a resumed run needs stays behind."""
    if output is None or model_path is None:
        return
    try:
        shutil.copytree(model_path, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*STATE_FILES))
    except OSError as err:
        raise RecipeError(f"cannot copy the model to --output {output}: {err}; it lies in {model_path}") from err
