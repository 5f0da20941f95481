"""The section ``sampling`` of a recipe."""

# ruff: noqa: RUF009 - ``option`` only wraps ``dataclasses.field``

import re
from dataclasses import dataclass
from typing import Literal

from reasonrl.contracts.options import require
from reasonrl.recipe import fields
from reasonrl.recipe.fields import MANY, at_least, at_most, option, positive

ESCAPES = re.compile(r"(\\[nrt])+")
"""A backslash and a letter, which single quotes leave as two characters."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How training completions are sampled, with every rollout backend."""

    group_size: int = option("completions per prompt", 1)
    temperature: float = option("0.001 to 1000; also applied in the trainer's log-probabilities", 1.0)
    max_prompt_tokens: int = option("longest prompt allowed; see overlong_prompts", 256)
    overlong_prompts: Literal["stop", "drop"] = option(
        "whether a prompt over max_prompt_tokens, or one that leaves no room for a completion in the model's context, "
        "stops the run or is dropped",
        "stop",
    )
    max_completion_tokens: int = option(
        "completions are truncated at this length, and still scored; of a conversation, all tokens after the prompt, "
        "those of the task included",
        1024,
    )
    stop: list[str] = option("strings that end a completion", factory=list)
    max_turns: int = option("of tasks that reply: messages of the model in a conversation, at most", 8)
    respond_timeout_s: float = option("of tasks that reply: seconds for one reply; a later one is not scored", 5.0)
    tool_timeout_s: float | None = option("seconds for one tool call; null = as the task says", None)
    rewritten_history: Literal["stop", "keep"] = option(
        "of tasks that reply, where the chat template changes the model's earlier messages once another one follows, "
        "such as Qwen3's, which drops their thinking: stop refuses the run, keep trains with every message as it was "
        "sampled",
        "stop",
    )

    def __post_init__(self) -> None:
        at_least(self, 1, "group_size", "max_prompt_tokens", "max_completion_tokens", "max_turns")
        at_most(self, 1 << 16, "group_size")
        at_most(self, MANY, "max_prompt_tokens", "max_completion_tokens", "max_turns")
        fields.temperature(self.temperature)
        positive(self, "respond_timeout_s", "tool_timeout_s")
        require(all(self.stop), "stop", "a list of non-empty strings", self.stop)
        for text in self.stop:
            if ESCAPES.fullmatch(text):
                raise ValueError(
                    f'stop must be written ["{text}"] with double quotes, got a backslash and the letter {text[1]}'
                )
