"""``reasonrl tasks``: look at a task's problems before training on them."""

import json
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reasonrl.cli.table import table

if TYPE_CHECKING:
    from reasonrl.contracts.data import Problem, Split
    from reasonrl.plugins import Plugins
    from reasonrl.rewards.runner import RewardRunner

app = typer.Typer(no_args_is_help=True, help="Look at the problems of a task.")

Files = Annotated[list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load this one too.")]


@app.command(name="list")
def list_tasks(plugin: Files = None) -> None:
    """The tasks that are installed."""
    from reasonrl.plugins import load_plugins

    specs = load_plugins(files=plugin or []).specs("task")
    for line in table(("NAME", "SUMMARY"), [(spec.name, spec.summary) for spec in specs]):
        typer.echo(line)


@app.command()
def preview(
    name: Annotated[str, typer.Argument(help="Task, as in `tasks list`.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value, options of the task.")] = None,
    split: Annotated[Literal["train", "eval"], typer.Option(help="Which problems.")] = "train",
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="How many.")] = 3,
    seed: Annotated[int, typer.Option(help="The recipe's seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Files = None,
) -> None:
    """Show problems, a reference solution of each, and what the task's rewards pay for it."""
    from reasonrl.plugins import load_plugins

    entries = _preview(load_plugins(files=plugin or []), name, options or [], split, num, seed)
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        _print_entry(entry)


def _preview(
    plugins: "Plugins", name: str, options: Sequence[str], split: "Split", num: int, seed: int
) -> list[dict[str, Any]]:
    from reasonrl.contracts.protocols import RewardContext, TaskContext
    from reasonrl.recipe.resolve import resolve_task
    from reasonrl.recipe.source import command_line_source
    from reasonrl.rewards.runner import RewardRunner

    component, rewards = resolve_task(command_line_source("task", name, options), plugins)
    task = plugins.build(component.spec, component.config, TaskContext(seed=seed))
    problems = _problems(task, split, num)
    runner = RewardRunner.build(rewards, plugins, RewardContext(seed=seed))
    return [_entry(problem, _reference(task, problem), runner) for problem in problems]


def _problems(task: Any, split: "Split", num: int) -> "list[Problem]":
    from reasonrl.errors import RecipeError

    size = task.size(split)
    count = num if size is None else min(num, size)
    try:
        return [task.problem(split, index) for index in range(count)]
    except ValueError as err:  # how a task says that its options leave no problems
        raise RecipeError(str(err)) from err


def _reference(task: Any, problem: "Problem") -> str | None:
    reference = getattr(task, "reference", None)
    return None if reference is None else reference(problem)


def _entry(problem: "Problem", reference: str | None, runner: "RewardRunner") -> dict[str, Any]:
    return {
        "id": problem.id,
        "prompt": _prompt(problem),
        "info": dict(problem.info),
        "reference": reference,
        "reference_reward": None if reference is None else _reward(runner, problem, reference),
    }


def _prompt(problem: "Problem") -> str | list[dict[str, str]]:
    """What the model is shown; a pre-filled start of the answer is part of it."""
    if isinstance(problem.prompt, str):
        return problem.prompt + problem.assistant_prefix
    turns = [{"role": m.role, "content": m.content} for m in problem.prompt]
    prefix = [{"role": "assistant", "content": problem.assistant_prefix}] if problem.assistant_prefix else []
    return turns + prefix


def _reward(runner: "RewardRunner", problem: "Problem", text: str) -> float | None:
    from reasonrl.contracts.data import Completion, FinishReason, RolloutGroup, RolloutRequest, SamplingParams

    request = RolloutRequest(problem=problem, prompt_ids=(), group_size=1, sampling=SamplingParams(), seed=0)
    completion = Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS)
    return runner.score(RolloutGroup(request=request, completions=(completion,))).rewards[0].total


def _print_entry(entry: Mapping[str, Any]) -> None:
    prompt = entry["prompt"]
    text = prompt if isinstance(prompt, str) else "\n".join(f"[{m['role']}] {m['content']}" for m in prompt)
    typer.echo(f"{entry['id']}  {json.dumps(entry['info'])}")
    typer.echo(indent(text, "  | "))
    if entry["reference"] is None:
        typer.echo("  no reference")
    else:
        typer.echo(indent(entry["reference"], "  > "))
        typer.echo(f"  reward of the reference: {entry['reference_reward']}")
    typer.echo("")
