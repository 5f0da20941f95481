"""A task and rewards whose effects are easy to see, and counters of what a run computes. Loaded with ``--plugin``.

At the end of a run ``probe.json`` in its folder holds the counters: calls and rows of the model's layers, apart for
sampling (no gradients) and training, calls of the fused attention kernel, and the peak memory of the process.
"""

import json
import os
import random
import sys
import time
from dataclasses import dataclass, field

from reasonrl import (
    Completion,
    FinishReason,
    Message,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    RolloutGroup,
    Score,
    TaskSpec,
    Tools,
    Turn,
    hookimpl,
)

COUNTS = {"layer_calls": 0, "layer_rows": 0, "sampling_calls": 0, "sampling_rows": 0, "sdpa": 0}


@dataclass(frozen=True)
class TaskConfig:
    words: int = field(default=2, metadata={"help": "words of a prompt"})
    chat: bool = field(default=False, metadata={"help": "a conversation, not text"})
    some_long: bool = field(default=False, metadata={"help": "every fourth prompt has 30 words"})


class ProbeTask:
    """Prompts of a few words; the completion to imitate is the first one, repeated."""

    def __init__(self, config, context):
        self.config, self.seed = config, context.seed

    def size(self, split):
        return None

    def problem(self, split, index):
        rng = random.Random(f"{self.seed}/{split}/{index}")
        count = 30 if self.config.some_long and (index + (index >> 32)) % 4 == 3 else self.config.words
        words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 5))) for _ in range(count)]
        text = " ".join(words) + ":"
        return Problem(
            id=f"{split}/{index}",
            prompt=(Message(role="user", content=text),) if self.config.chat else text,
            info={"word": words[0], "index": index},
        )

    def reference(self, problem):
        return ""

    def demonstration(self, problem, rng):
        return problem.info["word"] * rng.randint(1, 3)


class TalkTask(ProbeTask):
    """Says "more" to every message."""

    def respond(self, transcript):
        return Turn(content=(Message(role="user", content="more"),) if self.config.chat else "more"), {}


class SlowTask(TalkTask):
    """Takes 0.3 s for each reply of an evaluation."""

    def respond(self, transcript):
        time.sleep(0.3 if transcript.problem.id.startswith("eval") else 0.0)
        return super().respond(transcript)


def nap(seconds: str) -> str:
    """Sleep.

    Args:
        seconds: How long.
    """
    time.sleep(float(seconds))
    return "slept"


class NapTask(ProbeTask):
    """Offers a slow tool."""

    def tools(self):
        return Tools(functions=(nap,), style="tag")


class Caller:
    """A rollout backend: every message of the model is the same call."""

    TEXT = "<nap>0.3</nap>"

    def __init__(self, config, context):
        self.ids, self.version = tuple(context.tokenizer.encode(self.TEXT)), 0

    def __enter__(self):
        return self

    def __exit__(self, *error): ...

    def sync_weights(self, weights, *, policy_version):
        self.version = policy_version

    def generate(self, requests):
        said = Completion(
            token_ids=self.ids,
            logprobs=(-5.0,) * len(self.ids),
            text=self.TEXT,
            finish_reason=FinishReason.STOP_STRING,
            policy_version=self.version,
        )
        return [RolloutGroup(request=r, completions=(said,) * r.group_size) for r in requests]


class Beside(Caller):
    """The same with a word, and without the trainer's model: it can sample while that is updated."""

    TEXT = "beside"


@dataclass(frozen=True)
class RewardConfig:
    seconds: float = field(default=0.0, metadata={"help": "how long the first problem's first sample takes"})
    mebibytes: int = field(default=0, metadata={"help": "how much memory it takes"})


class Letters:
    """The share of even characters: differs from completion to completion. ``inline``: judged beside the trainer?"""

    def __init__(self, config, context):
        self.config = config

    def score(self, problem, completion):
        if problem.info["index"] == 0:
            time.sleep(self.config.seconds)
            assert len(b"x" * (self.config.mebibytes << 20)) >= 0
        text = completion.text
        value = sum(ord(char) % 2 == 0 for char in text) / max(1, len(text))
        return Score(value=value, answer=text[:1] or None, metrics={"inline": float("torch" in sys.modules)})


class Early:
    """Right is what the weights of one optimizer step wrote: accuracy is best there and falls."""

    def __init__(self, config, context): ...

    def score(self, problem, completion):
        return float(completion.policy_version == 1)


@hookimpl
def reasonrl_tasks():
    for name, task in (("probe", ProbeTask), ("talk", TalkTask), ("slow", SlowTask), ("nap", NapTask)):
        yield TaskSpec(name=name, summary="Words.", factory=task, config=TaskConfig, default_rewards=("letters",))


@hookimpl
def reasonrl_rollout_backends():
    yield RolloutBackendSpec(name="caller", summary="Calls a tool.", factory=Caller)
    yield RolloutBackendSpec(
        name="beside", summary="Says a word.", factory=Beside, samples_during_update=lambda config: True
    )


@hookimpl
def reasonrl_rewards():
    yield RewardSpec(name="letters", summary="Even characters.", factory=Letters, config=RewardConfig)
    yield RewardSpec(name="early", summary="Written by the second policy.", factory=Early)


@hookimpl
def reasonrl_run_started(run):
    import torch

    def called(module, *args, **kwargs):  # a hook would keep `hf` from its fused decoding
        if type(module).__name__.endswith("MLP"):  # one in each layer, inside of what is recomputed
            kind = "layer" if torch.is_grad_enabled() else "sampling"
            COUNTS[f"{kind}_calls"] += 1
            COUNTS[f"{kind}_rows"] += args[0].shape[0]
        return call(module, *args, **kwargs)

    def attention(*args, **kwargs):
        COUNTS["sdpa"] += 1
        return fused(*args, **kwargs)

    fused = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = attention
    call = torch.nn.Module.__call__
    torch.nn.Module.__call__ = called


@hookimpl
def reasonrl_run_finished(run, outcome, error):
    counts = {**COUNTS, "pid": os.getpid()}
    (run.run_dir / "probe.json").write_text(json.dumps(counts))
