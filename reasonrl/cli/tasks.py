"""``reasonrl tasks``: look at a task's problems before training on them."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reasonrl.cli.table import for_terminal, table
from reasonrl.cli.usage import Commands

if TYPE_CHECKING:
    from reasonrl.contracts.data import Problem, Split
    from reasonrl.plugins import Plugins
    from reasonrl.rewards.runner import RewardRunner

app = Commands(help="Look at the problems of a task.")

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
    name: Annotated[str, typer.Argument(metavar="TASK", help="Task, as in `tasks list`.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Options of the task, such as template=chat."),
    ] = None,
    split: Annotated[
        Literal["train", "eval"], typer.Option("--split", metavar="SPLIT", help="train or eval.")
    ] = "train",
    num: Annotated[int, typer.Option("--num", "-n", min=1, metavar="N", help="How many problems.")] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The recipe's seed.")] = 0,
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
    problems = _problems(task, component.name, split, num)
    with RewardRunner.build(rewards, plugins, RewardContext(seed=seed)) as runner:
        return [_entry(problem, _reference(task, component.name, problem), runner) for problem in problems]


def _problems(task: Any, name: str, split: "Split", num: int) -> "list[Problem]":
    from reasonrl.data.stream import fetch_problem, fetch_size

    size = fetch_size(task, name, split)
    count = num if size is None else min(num, size)
    return [fetch_problem(task, name, split, index) for index in range(count)]


def _reference(task: Any, name: str, problem: "Problem") -> str | None:
    from reasonrl.errors import PluginContractError, plugin_call

    reference = getattr(task, "reference", None)
    if reference is None:
        return None
    call = f"task {name!r}: reference of problem {problem.id!r}"
    with plugin_call(call):
        text = reference(problem)
    if text is not None and not isinstance(text, str):
        raise PluginContractError(f"{call} returned {type(text).__name__}, expected text or None")
    return text


def _entry(problem: "Problem", reference: str | None, runner: "RewardRunner") -> dict[str, Any]:
    from reasonrl.observability.transcripts import plain_prompt

    return {
        "id": problem.id,
        "prompt": plain_prompt(problem),
        "info": dict(problem.info),
        "reference": reference,
        "reference_reward": None if reference is None else _reward(runner, problem, reference),
    }


def _reward(runner: "RewardRunner", problem: "Problem", text: str) -> float | None:
    from reasonrl.contracts.data import Completion, FinishReason, RolloutGroup, RolloutRequest, SamplingParams
    from reasonrl.observability.transcripts import as_turns, plain_prompt

    request = RolloutRequest(problem=problem, prompt_ids=(), group_size=1, sampling=SamplingParams(), seed=0)
    completion = Completion(
        token_ids=(),
        logprobs=None,
        text=text,
        finish_reason=FinishReason.EOS,
        prompt_text=as_turns(plain_prompt(problem)),  # no model, no chat template
    )
    return runner.score(RolloutGroup(request=request, completions=(completion,))).rewards[0].total


def _print_entry(entry: Mapping[str, Any]) -> None:
    from reasonrl.observability.transcripts import as_turns

    _say(f"{entry['id']}  {json.dumps(entry['info'])}")
    _say(as_turns(entry["prompt"]), "  | ")
    if entry["reference"] is None:
        typer.echo("  no reference")
    else:
        _say(entry["reference"], "  > ")
        typer.echo(f"  reward of the reference: {entry['reference_reward']}")
    typer.echo("")


def _say(text: str, margin: str = "") -> None:
    """A task's data set may hold anything; the terminal must not obey it."""
    from reasonrl.cli.live_text import harmless

    typer.echo(for_terminal(harmless(text), margin))
