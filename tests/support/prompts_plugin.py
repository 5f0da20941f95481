"""A plugin for tests of prompts: a task with overlong ones where it is told to, and rewards that see the prompt."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from reasonrl import Completion, Message, Problem, RewardSpec, Score, Split, TaskContext, TaskSpec, hookimpl

OPENING = "<think>"


@dataclass(frozen=True)
class PromptsConfig:
    problems: int = field(default=-1, metadata={"help": "size of the train split; -1 = endless"})
    held_out: int = field(default=-1, metadata={"help": "size of the eval split; -1 = endless"})
    long: list[int] = field(default_factory=list, metadata={"help": "indices of overlong prompts; -1 = all"})
    long_tokens: int = field(default=100, metadata={"help": "their length"})
    form: Literal["raw", "chat", "prefix"] = field(
        default="raw", metadata={"help": "prefix: chat with a pre-filled <think>"}
    )
    say: str = field(default="", metadata={"help": "text in every prompt"})


class Prompts:
    """Problem i asks for i; an overlong one is padded with x."""

    def __init__(self, config: PromptsConfig, context: TaskContext) -> None:
        self._config = config

    def size(self, split: Split) -> int | None:
        size = self._config.problems if split == "train" else self._config.held_out
        return None if size < 0 else size

    def problem(self, split: Split, index: int) -> Problem:
        config = self._config
        is_long = index in config.long or -1 in config.long
        text = f"{config.say}{split} {index}" + ("x" * config.long_tokens if is_long else "")
        prompt = (Message(role="system", content="Think first."), Message(role="user", content=text))
        return Problem(
            id=f"prompts/{split}/{index}",
            prompt=text if config.form == "raw" else prompt,
            assistant_prefix=f"Step by step.\n{OPENING}" if config.form == "prefix" else "",
            info={"index": index},
        )

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        return f"{OPENING}\nso it is</think> {problem.info['index']}"


class SeesPrompt:
    """1.0 if the prompt ends inside the reasoning. ``reason`` is the prompt's end."""

    def __init__(self, config: Any, context: Any) -> None:
        del config, context

    def score(self, problem: Problem, completion: Completion) -> Score:
        text = completion.prompt_text
        return Score(value=float(text.rstrip().endswith(OPENING)), reason=text[-40:])


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="prompts", summary="x", config=PromptsConfig, factory=Prompts, default_rewards=("sees",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="sees", summary="In this process.", factory=SeesPrompt)
    yield RewardSpec(name="sees_isolated", summary="In its own.", factory=SeesPrompt, isolation="process")
