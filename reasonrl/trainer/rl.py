"""Builds a reinforcement-learning run from a resolved recipe and carries it out."""

from typing import Any

from reasonrl.contracts.protocols import AlgorithmContext
from reasonrl.data.stream import ProblemStream
from reasonrl.errors import RecipeError
from reasonrl.model.reference import build_reference
from reasonrl.plugins import Plugins
from reasonrl.recipe.resolved import ResolvedRecipe
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.ending import carry_out
from reasonrl.trainer.loop import Trainer, TrainerParts, sampling_params
from reasonrl.trainer.outline import model_title
from reasonrl.trainer.preflight import Preflight, preflight
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.result import RunResult
from reasonrl.trainer.runs import OpenRun, RunOptions, make_driver, open_run
from reasonrl.trainer.sources import Tasks
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.update import Updater, UpdateSettings
from reasonrl.trainer.workbench import (
    Workbench,
    build_backend,
    build_optimizer,
    build_rewards,
    build_suites,
    open_workbench,
    quiet_libraries,
)


def run_rl(
    resolved: ResolvedRecipe,
    plugins: Plugins,
    options: RunOptions,
) -> RunResult:
    """Everything that can be refused is refused before the run folder exists."""
    quiet_libraries()
    recipe = resolved.recipe
    logged: set[tuple[str, str]] = set()
    options.reporter.waiting(f"loading task {resolved.task.name}")
    tasks = Tasks(plugins, recipe.seed)
    task = tasks.get(resolved.task)
    suites = build_suites(
        resolved.suites,
        tasks=tasks,
        plugins=plugins,
        seed=recipe.seed,
        sampling=recipe.sampling,
        logged=logged,
    )
    stream = ProblemStream(task, resolved.task.spec.name, "train", seed=recipe.seed)
    rewards = build_rewards(resolved.rewards, plugins, recipe.seed, recipe.sampling.max_completion_tokens, logged)
    algorithm = build_algorithm(resolved, plugins)
    options.reporter.waiting(f"loading model {model_title(resolved)}")
    bench = open_workbench(
        recipe.model,
        resolved.model_path,
        seed=recipe.seed,
        device=recipe.device,
        critic=recipe.critic,
        trackers=recipe.logging.trackers,
        logging_dir=str(recipe.output_dir),
    )
    check_divisible(resolved, bench.ranks)
    options.reporter.waiting("checking prompts")
    checked = preflight(bench, recipe.sampling, suites, stream, tasks.lines())
    backend = build_backend(resolved.rollout_backend, plugins, bench, recipe.sampling)
    run = open_run(resolved, plugins, bench, options, checked)

    def work(entered: Any) -> None:
        parts = _assemble(resolved, algorithm, bench, run, entered, rewards, checked)
        make_driver(Trainer(parts), run, bench, resolved, parts.policy, parts.optimizer).run()

    options.reporter.waiting(f"starting rollout backend {resolved.rollout_backend.name}")
    return carry_out(run, backend, work)


def _assemble(
    resolved: ResolvedRecipe,
    algorithm: AlgorithmCalls,
    bench: Workbench,
    run: OpenRun,
    backend: Any,
    rewards: Any,
    checked: Preflight,
) -> TrainerParts:
    recipe, accelerator = resolved.recipe, bench.accelerator
    assert checked.source is not None
    optimizer = build_optimizer(bench.policy, recipe.optimizer, recipe.critic)
    policy, optimizer = accelerator.prepare(bench.policy, optimizer)
    policy.eval()  # train mode is the update's alone
    reference = build_reference(bench.policy, policy) if resolved.needs.reference else None
    return TrainerParts(
        recipe=recipe,
        needs=resolved.needs,
        prompts=checked.source,
        rewards=rewards,
        algorithm=algorithm,
        backend=SyncedBackend(backend, policy, bench, run.stop),
        policy=policy,
        reference=reference.forward if reference else None,
        tokenizer=bench.tokenizer,
        optimizer=optimizer,
        schedule=run.schedule,
        updater=Updater(
            policy=policy,
            optimizer=optimizer,
            algorithm=algorithm,
            needs=resolved.needs,
            settings=update_settings(resolved),
            accelerator=accelerator,
            ranks=bench.ranks,
        ),
        suites=checked.suites,
        renderer=bench.renderer,
        watch=bench.watch,
        ranks=bench.ranks,
        accelerator=accelerator,
        logbook=run.logbook,
        stop=run.stop,
    )


def build_algorithm(resolved: ResolvedRecipe, plugins: Plugins) -> AlgorithmCalls:
    recipe, spec = resolved.recipe, resolved.algorithm.spec
    context = AlgorithmContext(
        sampling=sampling_params(recipe),
        group_size=recipe.sampling.group_size,
        total_steps=recipe.trainer.steps,
    )
    return AlgorithmCalls(plugins.build(spec, resolved.algorithm.config, context), plugins.label(spec))


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
            f"trainer.prompts_per_step={trainer.prompts_per_step} must be a multiple of "
            f"trainer.minibatches x processes = {trainer.minibatches} x {ranks.size} = {parts}"
        )
