"""Evaluate a finished model on its recipe's suites, or sample completions of one problem."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from reasonrl.contracts.data import Problem, RolloutRequest, ScoredGroup
from reasonrl.contracts.protocols import Task
from reasonrl.conversations.loop import Dialogue, converse
from reasonrl.conversations.replies import PersonReplies
from reasonrl.data.stream import ProblemStream
from reasonrl.data.tools import with_tools
from reasonrl.data.turns import refuse_rewriting
from reasonrl.errors import RecipeError, check_returned, plugin_call
from reasonrl.evaluation.suites import Suite, SuiteResult
from reasonrl.functional.randomness import derive_seed
from reasonrl.model.export import iter_hf_weights
from reasonrl.observability.reporter import Reporter
from reasonrl.plugins import Plugins
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import ResolvedSft
from reasonrl.runs.build import Builder, load_bundle, quiet_libraries
from reasonrl.runs.connection import explained_connection
from reasonrl.runs.download import tell_download
from reasonrl.runs.launched import process_timeout
from reasonrl.runs.meeting import meeting
from reasonrl.runs.out_of_memory import explained
from reasonrl.runs.outline import format_model
from reasonrl.runs.preflight import preflight, prompt_limit
from reasonrl.runs.processes import connect
from reasonrl.runs.ready import refuse_small_context
from reasonrl.runs.targets import Target
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.evaluator import evaluate_suites
from reasonrl.trainer.rounds import sampling_params

log = logging.getLogger(__name__)


def evaluate_model(target: Target, plugins: Plugins, reporter: Reporter) -> Sequence[SuiteResult]:
    """Every suite of the target's recipe."""
    recipe = target.resolved.recipe
    connect(recipe.device)
    with meeting(process_timeout):
        refuse_small_context(target.resolved)
        reporter.waiting("loading tasks")
        builder = Builder(target.resolved, plugins)
        suites = builder.build_suites()
        bundle = _open(target, reporter)
    with explained_connection():
        return _evaluate(target, builder, suites, bundle, reporter)


def _evaluate(
    target: Target, builder: Builder, suites: Sequence[Suite], bundle: ModelBundle, reporter: Reporter
) -> Sequence[SuiteResult]:
    recipe = target.resolved.recipe
    bundle.watch.tell = reporter.evaluating
    reporter.waiting("checking prompts")
    checked = preflight(bundle, recipe.sampling, suites)
    for check in checked.checks:
        if check.overlong and bundle.ranks.is_main:
            log.warning("%s", check.line())
    with bundle.ranks.together():
        prepared = builder.build_backend(bundle)
    reporter.waiting(f"starting rollout backend {target.resolved.rollout_backend.name}")
    with explained("evaluation_s", render_plain(target.resolved), bundle.accelerator.device), prepared as backend:
        backend.sync_weights(iter_hf_weights(bundle.policy), policy_version=0)
        with bundle.accelerator.autocast():
            return evaluate_suites(checked.suites, backend, bundle.renderer, bundle.ranks, bundle.watch)


def generate(
    target: Target,
    plugins: Plugins,
    fields: Mapping[str, str],
    reporter: Reporter,
    *,
    num: int,
    temperature: float | None,
    play: Callable[[str], str | None] | None = None,
) -> ScoredGroup:
    """``num`` scored completions of one problem: the one that ``fields`` describe, or the first held-out one.

    Args:
        play: replies to the model's messages instead of the task; None ends the conversation.
    """
    resolved = target.resolved
    if isinstance(resolved, ResolvedSft) and resolved.task is None:
        raise RecipeError("this recipe has no task to take a problem from; pass --recipe RECIPE")
    recipe = resolved.recipe
    assert resolved.task is not None
    reporter.waiting(f"loading task {resolved.task.name}")
    builder = Builder(resolved, plugins)
    task = builder.tasks.get(resolved.task)
    problem = find_problem(task, resolved.task.name, fields)
    bundle = _open(target, reporter)
    sampling = sampling_params(recipe.sampling)
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    prompt = bundle.renderer.render(problem)
    prompt_limit(bundle, recipe.sampling, sampling.max_completion_tokens).check(problem, len(prompt.ids))
    request = RolloutRequest(
        problem=problem,
        prompt_ids=prompt.ids,
        prompt_text=prompt.text,
        group_size=num,
        sampling=sampling,
        seed=derive_seed(recipe.seed, "generate"),
    )
    rewards = builder.build_rewards(resolved.rewards, sampling.max_completion_tokens)
    dialogue = (
        builder.build_dialogue(resolved.task)
        if play is None
        else Dialogue(responder=PersonReplies(play), max_turns=recipe.sampling.max_turns)
    )
    if dialogue is not None:
        refuse_rewriting(bundle.renderer, recipe.sampling.rewritten_history, problem, dialogue.role)
    prepared = builder.build_backend(bundle)
    reporter.waiting(f"starting rollout backend {resolved.rollout_backend.name}")
    with explained("rollout_s", render_plain(resolved), bundle.accelerator.device), prepared as backend:
        backend.sync_weights(iter_hf_weights(bundle.policy), policy_version=0)
        reporter.waiting(f"sampling {num} completion{'s' if num > 1 else ''}")
        with bundle.accelerator.autocast():
            (group,) = converse(backend, [request], bundle.renderer, bundle.ranks, dialogue)
        return rewards.score(group)


def _open(target: Target, reporter: Reporter) -> ModelBundle:
    quiet_libraries()
    reporter.waiting(f"loading model {format_model(target.resolved)}")
    with tell_download(target.model_path, reporter):
        return load_bundle(target.resolved)


def find_problem(task: Task, name: str, fields: Mapping[str, str], index: int = 0) -> Problem:
    """The problem that ``fields`` describe; without any, the held-out one at ``index``.

    Raises:
        RecipeError: if the task cannot make one.
    """
    if not fields:
        return ProblemStream(task, name, "eval", seed=0).fetch(index)
    make = getattr(task, "problem_from_fields", None)
    if make is None:
        raise RecipeError(f"task {name!r} cannot make a problem from {', '.join(f'--{k}' for k in fields)}")
    with plugin_call(f"task {name!r}: problem_from_fields", invalid=f"task {name!r}") as call:
        problem: Problem = make(fields)
    check_returned(isinstance(problem, Problem), call, problem, "a Problem")
    return with_tools(task, name, problem)
