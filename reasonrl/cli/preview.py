"""``reasonrl tasks preview``: the problems of a task or a recipe, as the model sees them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
import yaml

from reasonrl.cli.streams import print_json
from reasonrl.cli.table import for_terminal, wrap

if TYPE_CHECKING:
    from reasonrl.contracts.data import Problem, Split
    from reasonrl.contracts.protocols import Task
    from reasonrl.data.render import PromptRenderer
    from reasonrl.plugins import Component, Plugins, RewardComponent
    from reasonrl.recipe.resolved import AnyResolved
    from reasonrl.rewards.runner import RewardRunner


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What to preview. ``resolved`` and ``renderer`` are None without a recipe."""

    task: "Component"
    rewards: "Mapping[str, RewardComponent]"
    seed: int
    resolved: "AnyResolved | None" = None
    renderer: "PromptRenderer | None" = None


def run_preview(
    task: str | None,
    options: Sequence[str],
    recipe: str | None,
    split: "Split",
    num: int,
    seed: int | None,
    as_json: bool,
    plugin_files: Sequence[str],
) -> None:
    """Print the first problems. Loads torch only for a recipe's tokenizer."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin_files)
    if recipe is None:
        asked = _task_alone(plugins, task, options, seed or 0)
    else:
        asked = _of_recipe(plugins, recipe, [task, *options] if task else options, seed)
    entries, data = _entries(plugins, asked, split, num)
    if as_json:
        print_json(entries)
        return
    if asked.resolved is not None:
        _print_head(asked.resolved, asked.task)
    for entry in entries:
        _print_entry(entry, asked.resolved)
    for line in data:
        _print_text(line)


def _task_alone(plugins: "Plugins", name: str | None, options: Sequence[str], seed: int) -> _Asked:
    from reasonrl.errors import RecipeError
    from reasonrl.recipe.resolve import resolve_task
    from reasonrl.recipe.source import command_line_source

    if name is None:
        raise RecipeError("missing TASK; expected a name from `reasonrl tasks list`, or --recipe RECIPE")
    component, rewards = resolve_task(command_line_source("task", name, options), plugins)
    return _Asked(task=component, rewards=rewards, seed=seed)


def _of_recipe(plugins: "Plugins", recipe: str, overrides: Sequence[str], seed: int | None) -> _Asked:
    from reasonrl.errors import RecipeError
    from reasonrl.recipe.load import check_recipe

    if stray := next((word for word in overrides if "=" not in word), None):
        raise RecipeError(f"--recipe sets the task; expected overrides such as task.template=chat, got {stray!r}")
    resolved = check_recipe(recipe, overrides, plugins)
    if resolved.task is None:
        raise RecipeError(f"{resolved.path} has no task to preview; it trains on the file in data.path")
    return _Asked(
        task=resolved.task,
        rewards=resolved.rewards,
        seed=resolved.recipe.seed if seed is None else seed,
        resolved=resolved,
        renderer=_renderer(resolved),
    )


def _renderer(resolved: "AnyResolved") -> "PromptRenderer":
    from reasonrl.cli.waiting import open_waiting

    with open_waiting("loading the tokenizer"):
        from reasonrl.data.render import PromptRenderer
        from reasonrl.model.chat_template import set_chat_template
        from reasonrl.model.load import load_tokenizer

        model = resolved.recipe.model
        tokenizer = load_tokenizer(
            resolved.model_path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
        set_chat_template(tokenizer, model)
    return PromptRenderer(tokenizer)


def _entries(plugins: "Plugins", asked: _Asked, split: "Split", num: int) -> tuple[list[dict[str, object]], list[str]]:
    """Build the entries, and the summary lines of the data that the task read."""
    from reasonrl.cli.waiting import open_spinner
    from reasonrl.contracts.protocols import RewardContext, TaskContext
    from reasonrl.data.summary import fetch_summaries
    from reasonrl.rewards.runner import RewardRunner

    name = asked.task.name
    with open_spinner(f"loading task {name}"):
        task = plugins.build(asked.task.spec, asked.task.config, TaskContext(seed=asked.seed))
        problems = _problems(task, name, split, num)
    with RewardRunner.build(asked.rewards, plugins, RewardContext(seed=asked.seed)) as runner:
        judge = runner if asked.rewards else None  # without rewards every completion would earn a sum of 0
        entries = [_entry(problem, _reference(task, name, problem), judge, asked.renderer) for problem in problems]
    return entries, list(map(str, fetch_summaries(task, name)))


def _problems(task: "Task", name: str, split: "Split", num: int) -> "list[Problem]":
    from reasonrl.data.stream import fetch_problem, fetch_size

    size = fetch_size(task, name, split)
    count = num if size is None else min(num, size)
    return [fetch_problem(task, name, split, index) for index in range(count)]


def _reference(task: "Task", name: str, problem: "Problem") -> str | None:
    from reasonrl.errors import check_returned, plugin_call

    reference = getattr(task, "reference", None)
    if reference is None:
        return None
    with plugin_call(f"task {name!r}: reference of problem {problem.id!r}") as call:
        text: str | None = reference(problem)
    check_returned(text is None or isinstance(text, str), call, text, "text or None")
    return text


def _entry(
    problem: "Problem", reference: str | None, runner: "RewardRunner | None", renderer: "PromptRenderer | None"
) -> dict[str, object]:
    from reasonrl.observability.transcripts import as_turns, plain_prompt

    prompt = plain_prompt(problem)
    entry: dict[str, object] = {"id": problem.id, "prompt": prompt, "info": dict(problem.info), "reference": reference}
    shown = as_turns(prompt)  # without a model there is no chat template
    if renderer is not None:
        rendered = renderer.render(problem)
        shown = rendered.text
        tokens = None
        if reference is not None:
            reference = renderer.completion_after(rendered, problem, reference)
            tokens = len(renderer.tokenizer.encode(reference, add_special_tokens=False))
        entry |= {"prompt_text": shown, "reference": reference}
        entry |= {"prompt_tokens": len(rendered.ids), "reference_tokens": tokens}
    paid = None if reference is None or runner is None else _reward(runner, problem, reference, shown)
    return {**entry, "reference_reward": paid}


def _reward(runner: "RewardRunner", problem: "Problem", text: str, prompt_text: str) -> float | None:
    from reasonrl.contracts.data import Completion, FinishReason, RolloutGroup, RolloutRequest, SamplingParams

    request = RolloutRequest(problem=problem, prompt_ids=(), group_size=1, sampling=SamplingParams(), seed=0)
    completion = Completion(
        token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS, prompt_text=prompt_text
    )
    return runner.score(RolloutGroup(request=request, completions=(completion,))).rewards[0].total


def _print_head(resolved: "AnyResolved", task: "Component") -> None:
    """Print the recipe, its task with the options it sets, and the model whose tokenizer renders the prompts."""
    written = yaml.safe_load(resolved.source_yaml).get("task", {})
    options = ", ".join(f"{key}={value}" for key, value in written.items() if key != "name")
    model = resolved.recipe.model.name or resolved.model_path
    asked = f"{task.name}: {options or 'default options'}"
    for label, text in (("recipe", str(resolved.path)), ("task", asked), ("model", model)):
        typer.echo(wrap(text, lead=f"{label:<8}", indent=" " * 8))
    typer.echo("")


def _print_entry(entry: Mapping[str, Any], resolved: "AnyResolved | None") -> None:
    from reasonrl.observability.transcripts import as_turns

    _print_text(f"{entry['id']}  {json.dumps(entry['info'])}")
    _print_text(entry.get("prompt_text") or as_turns(entry["prompt"]), "  | ")
    if entry["reference"] is None:
        typer.echo("  no reference")
    else:
        _print_text(entry["reference"], "  > ")
        paid = entry["reference_reward"]
        typer.echo(f"  reward of the reference: {'none, no reward scored it' if paid is None else format(paid, '.4g')}")
    if resolved is not None:
        sampling = resolved.recipe.sampling
        text = f"tokens: prompt {entry['prompt_tokens']} of {sampling.max_prompt_tokens}"
        if entry["reference_tokens"] is not None:
            text += f", reference {entry['reference_tokens']} of {sampling.max_completion_tokens}"
        typer.echo(wrap(text, lead="  ", indent="    "))
    typer.echo("")


def _print_text(text: str, margin: str = "") -> None:
    """Print text from a data set, with control characters escaped."""
    from reasonrl.text import sanitize

    typer.echo(for_terminal(sanitize(text), margin))
