"""Assemble, drive and end an RL or SFT run from a resolved recipe."""

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from reasonrl.contracts.models import generation_eos_ids
from reasonrl.contracts.protocols import AlgorithmContext, RolloutBackend
from reasonrl.data.demonstrations import Encoder, Example, PairExamples, task_examples
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import RecipeError
from reasonrl.observability.reporter import Reporter
from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.redact import redacting_logger
from reasonrl.rundir.layout import STATE_FILES, is_data_of_run
from reasonrl.runs.build import Builder, load_bundle, prepare, quiet_libraries
from reasonrl.runs.connection import explained_connection
from reasonrl.runs.download import tell_download
from reasonrl.runs.drive import Driver
from reasonrl.runs.end import carry_out
from reasonrl.runs.launched import process_timeout
from reasonrl.runs.meeting import meeting
from reasonrl.runs.open import OpenRun, RunOptions, open_run
from reasonrl.runs.outline import format_model
from reasonrl.runs.preflight import Preflight, preflight, prompt_limit
from reasonrl.runs.processes import connect
from reasonrl.runs.result import RunResult
from reasonrl.runs.sources import Tasks, load_pairs
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.evaluator import Evaluator
from reasonrl.trainer.job import Job
from reasonrl.trainer.loop import Trainer
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.rounds import Rounds, sampling_params
from reasonrl.trainer.sft import SftTrainer
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.update import Updater, UpdateSettings

log = redacting_logger(__name__)


def execute_run(
    resolved: AnyResolved, plugins: Plugins, options: RunOptions, *, output: str | Path | None = None
) -> RunResult:
    """Everything that can be refused is refused before the run folder exists.

    Args:
        output: receives a copy of the final model folder.
    """
    quiet_libraries()
    reporter = options.reporter
    connect(resolved.recipe.device)
    with meeting(process_timeout):
        _check_output(output)
        builder = Builder(resolved, plugins)
        setup = (
            _RlSetup(resolved, plugins, builder, reporter)
            if isinstance(resolved, ResolvedRecipe)
            else _SftSetup(resolved, builder, reporter)
        )
        reporter.waiting(f"loading model {format_model(resolved)}")
        with tell_download(resolved.model_path, reporter):
            bundle = load_bundle(resolved, trackers=resolved.recipe.logging.trackers, trains=True)
    with explained_connection():
        checked = setup.check(bundle)
        with bundle.ranks.together():
            backend = builder.build_backend(bundle)
        run = open_run(resolved, plugins, bundle, options, checked)

    def drive(entered: RolloutBackend) -> None:
        job, synced = setup.build_job(run, bundle, entered)
        Driver(job, Evaluator(checked.suites, synced, bundle), run).drive()
        _copy_model(run.checkpointer.model_path, output)

    reporter.waiting(f"starting rollout backend {resolved.rollout_backend.name}")
    return carry_out(run, backend, drive)


def _check_output(output: str | Path | None) -> None:
    """Refuse a place that a model cannot be copied to."""
    if output is not None and is_data_of_run(Path(output)):
        raise RecipeError(f"--output {output} lies among a run's own files; give another path")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise RecipeError(f"--output {output}: is a file, expected a folder; give another path")


class _RlSetup:
    """What is special to reinforcement learning. Made before a model is loaded, so that mistakes show early."""

    def __init__(self, resolved: ResolvedRecipe, plugins: Plugins, builder: Builder, reporter: Reporter) -> None:
        self._resolved, self._tasks, self._reporter = resolved, builder.tasks, reporter
        recipe = resolved.recipe
        reporter.waiting(f"loading task {resolved.task.name}")
        task = builder.tasks.get(resolved.task)
        self._suites = builder.build_suites()
        self._stream = ProblemStream(task, resolved.task.spec.name, "train", seed=recipe.seed)
        self._rewards = builder.build_rewards(resolved.rewards, recipe.sampling.max_completion_tokens)
        self._algorithm = build_algorithm(resolved, plugins)
        check_staleness(resolved, self._algorithm)
        self._dialogue = builder.build_dialogue(resolved.task)

    def check(self, bundle: ModelBundle) -> Preflight:
        with bundle.ranks.together():
            check_divisible(self._resolved, bundle.ranks)
        self._reporter.waiting("checking prompts")
        sampling = self._resolved.recipe.sampling
        checked = preflight(bundle, sampling, self._suites, self._stream, self._tasks.lines(), dialogue=self._dialogue)
        assert checked.source is not None
        self._prompts = checked.source
        return checked

    def build_job(self, run: OpenRun, bundle: ModelBundle, backend: RolloutBackend) -> tuple[Job, SyncedBackend]:
        resolved, recipe = self._resolved, self._resolved.recipe
        if recipe.trainer.offload and bundle.accelerator.device.type == "cpu" and bundle.ranks.is_main:
            log.warning("trainer.offload has no effect on a CPU, which has only the host's memory")
        prepared = prepare(bundle, recipe.optimizer, recipe.critic, has_reference=resolved.needs.reference)
        synced = SyncedBackend(backend, prepared.policy, bundle, run.stop)
        updater = Updater(
            policy=prepared.policy,
            optimizer=prepared.optimizer,
            algorithm=self._algorithm,
            needs=resolved.needs,
            settings=build_update_settings(resolved),
            accelerator=bundle.accelerator,
            ranks=bundle.ranks,
            reference=prepared.reference,
        )
        trainer = Trainer(
            recipe,
            bundle,
            rounds=Rounds(recipe, bundle, self._prompts, synced.background, self._dialogue),
            backend=synced,
            rewards=self._rewards,
            updater=updater,
            reporter=run.reporter,
            stop=run.stop,
        )
        return trainer, synced


class _SftSetup:
    """The same of SFT."""

    def __init__(self, resolved: ResolvedSft, builder: Builder, reporter: Reporter) -> None:
        self._resolved, self._tasks, self._reporter = resolved, builder.tasks, reporter
        self._suites = builder.build_suites()

    def check(self, bundle: ModelBundle) -> Preflight:
        self._reporter.waiting("reading demonstrations")
        with bundle.ranks.together():
            self._examples, lines = open_examples(self._resolved, self._tasks, bundle)
        self._reporter.waiting("checking prompts")
        sampling = self._resolved.recipe.sampling
        return preflight(bundle, sampling, self._suites, data=[*self._tasks.lines(), *lines])

    def build_job(self, run: OpenRun, bundle: ModelBundle, backend: RolloutBackend) -> tuple[Job, SyncedBackend]:
        recipe = self._resolved.recipe
        prepared = prepare(bundle, recipe.optimizer)
        trainer = SftTrainer(
            recipe,
            bundle,
            policy=prepared.policy,
            optimizer=prepared.optimizer,
            examples=self._examples,
            reporter=run.reporter,
        )
        return trainer, SyncedBackend(backend, prepared.policy, bundle, run.stop)


def build_algorithm(resolved: ResolvedRecipe, plugins: Plugins) -> AlgorithmCalls:
    """The recipe's algorithm from its plugin, with every call checked."""
    recipe, spec = resolved.recipe, resolved.algorithm.spec
    context = AlgorithmContext(
        sampling=sampling_params(recipe.sampling),
        group_size=recipe.sampling.group_size,
        total_steps=recipe.trainer.steps,
        reward_weights={name: component.weight for name, component in resolved.rewards.items()},
    )
    return AlgorithmCalls(plugins.build(spec, resolved.algorithm.config, context), plugins.label(spec))


def build_update_settings(resolved: ResolvedRecipe) -> UpdateSettings:
    """What the updater needs of the recipe."""
    recipe = resolved.recipe
    return UpdateSettings(
        minibatches=recipe.trainer.minibatches,
        update_epochs=recipe.trainer.update_epochs,
        max_tokens_per_microbatch=recipe.trainer.max_tokens_per_microbatch,
        max_grad_norm=recipe.optimizer.max_grad_norm,
        temperature=recipe.sampling.temperature,
        critic_warmup_steps=recipe.critic.warmup_steps if recipe.critic else 0,
        correction=recipe.rollout_correction,
        offload=tuple(recipe.trainer.offload),
    )


def check_staleness(resolved: ResolvedRecipe, algorithm: AlgorithmCalls) -> None:
    """Refuse to carry groups that were sampled ahead: they would be two steps stale."""
    trainer = resolved.recipe.trainer
    if trainer.max_staleness and trainer.carry_groups and algorithm.filters_groups:
        raise RecipeError(
            f"trainer.carry_groups must be false with trainer.max_staleness={trainer.max_staleness}: "
            f"{resolved.algorithm.name} keeps surplus groups for the next step, which would then be two steps stale"
        )


def check_divisible(resolved: ResolvedRecipe, ranks: Ranks) -> None:
    """Every rank gets the same share of every minibatch."""
    trainer = resolved.recipe.trainer
    parts = trainer.minibatches * ranks.size
    if trainer.prompts_per_step % parts:
        raise RecipeError(
            f"trainer.prompts_per_step={trainer.prompts_per_step} must be a multiple of "
            f"trainer.minibatches x processes = {trainer.minibatches} x {ranks.size} = {parts}"
        )


def open_examples(resolved: ResolvedSft, tasks: Tasks, bundle: ModelBundle) -> tuple[Iterator[Example], list[str]]:
    """The endless examples of this rank, and what to say of them.

    The first one is drawn at once, so that bad data is refused early.
    """
    recipe, ranks = resolved.recipe, bundle.ranks
    encode = open_encoder(bundle, recipe.sampling)
    lines: list[str] = []
    if resolved.task is not None:
        task = tasks.get(resolved.task)
        stream = task_examples(task, resolved.task.name, encode, seed=recipe.seed, rank=ranks.rank, ranks=ranks.size)
    else:
        assert recipe.data is not None  # the schema has seen to it
        pairs = PairExamples.encode(load_pairs(recipe.data), encode)
        lines.append(f"{recipe.data.path}: {pairs.line()}")
        stream = pairs.stream(seed=recipe.seed, rank=ranks.rank, ranks=ranks.size)
    return chain([next(stream)], stream), lines


def open_encoder(bundle: ModelBundle, sampling: SamplingConfig) -> Encoder:
    """What makes examples for this model."""
    return Encoder(
        bundle.renderer,
        prompt_limit(bundle, sampling, completion_tokens=1),
        max_completion_tokens=sampling.max_completion_tokens,
        ends=generation_eos_ids(bundle.policy.model),
        stop=sampling.stop,
        history=sampling.rewritten_history,
    )


def _copy_model(model_path: Path | None, output: str | Path | None) -> None:
    """The model alone: what only a resumed run needs stays behind."""
    if output is None or model_path is None:
        return
    try:
        shutil.copytree(model_path, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*STATE_FILES))
    except OSError as err:
        raise RecipeError(f"cannot copy the model to --output {output}: {err}; the model is in {model_path}") from err
