"""Builds a reinforcement-learning run from a resolved recipe and carries it out."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reasonrl.checkpoint.run_dir import RunDir
from reasonrl.contracts.data import RunInfo
from reasonrl.contracts.protocols import AlgorithmContext
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import RecipeError
from reasonrl.model.reference import build_reference
from reasonrl.observability.reporter import Reporter, SilentReporter
from reasonrl.observability.trackers import Trackers, check_trackers
from reasonrl.plugins import Plugins
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import ResolvedRecipe
from reasonrl.trainer.describe import describe_run, run_manifest
from reasonrl.trainer.logbook import Logbook
from reasonrl.trainer.loop import Trainer, TrainerParts, sampling_params
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.result import RunResult
from reasonrl.trainer.update import Updater, UpdateSettings
from reasonrl.trainer.workbench import (
    Workbench,
    build_backend,
    build_optimizer,
    build_rewards,
    build_suites,
    build_task,
    open_workbench,
    preflight,
    quiet_libraries,
)

log = logging.getLogger(__name__)


def run_rl(
    resolved: ResolvedRecipe,
    plugins: Plugins,
    *,
    run_dir: str | Path | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Everything that can be refused is refused before the run folder exists."""
    quiet_libraries()
    recipe = resolved.recipe
    check_trackers(recipe.logging.trackers)
    logged: set[tuple[str, str]] = set()
    suites = build_suites(
        resolved.suites, plugins=plugins, seed=recipe.seed, sampling=recipe.sampling, logged=logged
    )
    task = build_task(resolved.task, plugins, recipe.seed)
    stream = ProblemStream(task, resolved.task.spec.name, "train", seed=recipe.seed)
    rewards = build_rewards(
        resolved.rewards, plugins, recipe.seed, recipe.sampling.max_completion_tokens, logged
    )
    algorithm = build_algorithm(resolved, plugins)
    bench = open_workbench(
        recipe.model,
        resolved.model_path,
        seed=recipe.seed,
        critic=recipe.critic,
        trackers=recipe.logging.trackers,
        logging_dir=str(recipe.output_dir),
    )
    check_divisible(resolved, bench.ranks)
    preflight(bench, recipe.sampling, suites, [stream])
    folder = open_run_dir(bench.ranks, recipe.output_dir, recipe.name, run_dir)
    logbook = open_logbook(resolved, plugins, bench, folder, reporter or SilentReporter())

    def start_engine() -> Any:
        return build_backend(
            resolved.rollout, plugins, bench, recipe.sampling, folder.path if folder else None
        )

    def work(entered: Any) -> None:
        parts = _assemble(resolved, algorithm, bench, logbook, entered, stream, rewards, suites)
        Trainer(parts).run()

    return carry_out(logbook, folder, start_engine, work)


def carry_out(
    logbook: Logbook,
    folder: RunDir | None,
    start_engine: Callable[[], Any],
    work: Callable[[Any], None],
) -> RunResult:
    """Run ``work(engine)`` and leave a truthful summary however it ends, also if the engine does not start."""
    outcome = "failed"
    error: BaseException | None = None
    try:
        with start_engine() as engine:
            work(engine)
        outcome = "completed"
    except KeyboardInterrupt as err:
        outcome, error = "interrupted", err
        raise
    except BaseException as err:
        error = err
        raise
    finally:
        summary = logbook.finish(outcome, error)
    return RunResult(
        outcome=outcome,
        run_dir=folder.path if folder else None,
        model_path=logbook.model_path,
        summary=summary,
    )


def _assemble(
    resolved: ResolvedRecipe,
    algorithm: Any,
    bench: Workbench,
    logbook: Logbook,
    backend: Any,
    stream: ProblemStream,
    rewards: Any,
    suites: Any,
) -> TrainerParts:
    recipe, accelerator = resolved.recipe, bench.accelerator
    optimizer = build_optimizer(bench.policy, recipe.optimizer, recipe.critic)
    policy, optimizer = accelerator.prepare(bench.policy, optimizer)
    policy.eval()  # no dropout anywhere: sampler and trainer must agree
    reference = build_reference(bench.policy, policy) if resolved.needs.reference else None
    return TrainerParts(
        recipe=recipe,
        needs=resolved.needs,
        stream=stream,
        rewards=rewards,
        algorithm=algorithm,
        backend=backend,
        policy=policy,
        reference=reference.forward if reference else None,
        tokenizer=bench.tokenizer,
        optimizer=optimizer,
        updater=Updater(
            policy=policy,
            optimizer=optimizer,
            algorithm=algorithm,
            needs=resolved.needs,
            settings=update_settings(resolved),
            accelerator=accelerator,
            ranks=bench.ranks,
        ),
        suites=suites,
        ranks=bench.ranks,
        accelerator=accelerator,
        logbook=logbook,
    )


def build_algorithm(resolved: ResolvedRecipe, plugins: Plugins) -> Any:
    recipe = resolved.recipe
    context = AlgorithmContext(
        sampling=sampling_params(recipe),
        group_size=recipe.sampling.group_size,
        total_steps=recipe.trainer.steps,
    )
    return plugins.build(resolved.algorithm.spec, resolved.algorithm.config, context)


def update_settings(resolved: ResolvedRecipe) -> UpdateSettings:
    recipe = resolved.recipe
    return UpdateSettings(
        minibatches=recipe.trainer.minibatches,
        update_epochs=recipe.trainer.update_epochs,
        max_tokens_per_microbatch=recipe.trainer.max_tokens_per_microbatch,
        max_grad_norm=recipe.optimizer.max_grad_norm,
        temperature=recipe.sampling.temperature,
        critic_warmup_steps=recipe.critic.warmup_steps if recipe.critic else 0,
    )


def check_divisible(resolved: ResolvedRecipe, ranks: Ranks) -> None:
    """Every rank gets the same share of every minibatch."""
    trainer = resolved.recipe.trainer
    parts = trainer.minibatches * ranks.size
    if trainer.prompts_per_step % parts:
        raise RecipeError(
            f"trainer.prompts_per_step={trainer.prompts_per_step} must be divisible by trainer.minibatches x processes "
            f"= {trainer.minibatches} x {ranks.size} = {parts}"
        )


def open_run_dir(ranks: Ranks, output_dir: str, name: str, explicit: str | Path | None) -> RunDir | None:
    """Rank 0 creates and holds the folder; the others write nothing."""
    return RunDir.create(output_dir=output_dir, name=name, explicit=explicit) if ranks.is_main else None


def open_logbook(
    resolved: Any, plugins: Plugins, bench: Workbench, folder: RunDir | None, reporter: Reporter
) -> Logbook:
    """Write what is known at the start, say it, and tell observers. A failure leaves a summary and a free folder."""
    try:
        return _open_logbook(resolved, plugins, bench, folder, reporter)
    except BaseException as err:
        if folder is not None:
            outcome = "interrupted" if isinstance(err, KeyboardInterrupt) else "failed"
            with suppress(OSError):  # on a full disk; the first error is the one to report
                folder.write_json("summary.json", nothing_done(outcome))
            folder.close()
        raise


def nothing_done(outcome: str) -> dict[str, Any]:
    """The summary of a run that ended before its first step."""
    return {"outcome": outcome, "steps": 0, "wall_s": 0.0, "eval": {"first": {}, "last": {}}}


def _open_logbook(
    resolved: Any, plugins: Plugins, bench: Workbench, folder: RunDir | None, reporter: Reporter
) -> Logbook:
    recipe = resolved.recipe
    plan = describe_run(resolved, plugins, bench, folder.path if folder else None)
    plain = render_plain(resolved)
    info = RunInfo(
        name=recipe.name,
        run_dir=folder.path if folder else Path(recipe.output_dir),
        seed=recipe.seed,
        total_steps=plan.total_steps,
        recipe=plain,
    )
    if folder is not None:
        folder.write_text("recipe.yaml", resolved.source_yaml)
        folder.write_json("run.json", run_manifest(resolved, plugins, bench, plain))
        reporter.planned(plan)
    plugins.observe("reasonrl_run_started", run=info)
    trackers = Trackers(bench.accelerator, recipe.logging.trackers)
    trackers.start(recipe.name, folder.path if folder else None)
    return Logbook(
        run_dir=folder,
        info=info,
        reporter=reporter,
        plugins=plugins,
        total_steps=plan.total_steps,
        transcripts_per_step=recipe.logging.transcripts_per_step,
        trackers=trackers,
    )
