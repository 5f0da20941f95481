"""A good task, and tasks that are wrong in one way each. Importable: checks run some of it in another process."""

import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonrl import (
    Completion,
    DataSummary,
    Message,
    Problem,
    RolloutGroup,
    Score,
    Split,
    TaskContext,
    Tools,
    Transcript,
    Turn,
)
from reasonrl.rewards.processes import MARK


@dataclass(frozen=True)
class Config:
    low: int = field(default=1, metadata={"help": "smallest number"})


@dataclass(frozen=True)
class Silent:
    low: int = 1


@dataclass(frozen=True)
class Impossible:
    low: int = field(default=0, metadata={"help": "smallest number"})

    def __post_init__(self) -> None:
        if self.low < 1:
            raise ValueError(f"low must be >= 1, got {self.low}")


class Task:
    """Double a number. Nothing is wrong with it."""

    def __init__(self, config: Any, context: TaskContext) -> None:
        self.seed = context.seed

    def size(self, split: Split) -> int | None:
        return None

    def number(self, split: Split, index: int) -> int:
        drawn = random.Random(f"{self.seed}/{split}/{index}").randrange(10**6)
        return 2 * drawn + (split == "train")

    def problem(self, split: Split, index: int) -> Problem:
        number = self.number(split, index)
        return Problem(id=f"{split}/{index}", prompt=f"{number}*2=", info={"answer": 2 * number})

    def reference(self, problem: Problem) -> str | None:
        return str(problem.info["answer"])

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return str(problem.info["answer"] + rng.randint(0, 1))

    def behaviors(self, problem: Problem, completion_text: str) -> Mapping[str, float]:
        return {"length": float(len(completion_text)), "digits": math.nan}

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        tries = transcript.state.get("tries", 0) + 1
        return (Turn(content="no\n") if tries < 2 else None), {"tries": tries}

    def tools(self) -> Tools:
        return Tools(functions=(twice,))

    def data_summary(self) -> Sequence[DataSummary]:
        return []


def twice(number: int) -> int:
    """Double a number.

    Args:
        number: to double.
    """
    return 2 * number


class NoProblems:
    def __init__(self, config: Any, context: TaskContext) -> None: ...

    def size(self, split: Split) -> int | None:
        return None


class Shrinking(Task):
    made = 0

    def __init__(self, config: Any, context: TaskContext) -> None:
        super().__init__(config, context)
        Shrinking.made += 1
        self._size = 1000 + Shrinking.made

    def size(self, split: Split) -> int | None:
        return self._size


class EmptyPrompt(Task):
    def problem(self, split: Split, index: int) -> Problem:
        return Problem(id=f"{split}/{index}", prompt="")


class TupleInfo(Task):
    def problem(self, split: Split, index: int) -> Problem:
        made = super().problem(split, index)
        return Problem(id=made.id, prompt=made.prompt, info={**made.info, "pair": (1, 2)})


class SameIds(Task):
    def problem(self, split: Split, index: int) -> Problem:
        made = super().problem(split, index)
        return Problem(id=str(index), prompt=made.prompt, info=made.info)


class Forgetful(Task):
    """Counts its own calls: another order gives other problems."""

    calls = 0

    def number(self, split: Split, index: int) -> int:
        self.calls += 1
        return 2 * (super().number(split, index) + self.calls) + (split == "train")


class HashSeeded(Task):
    """Python's ``hash`` of text differs between processes."""

    def number(self, split: Split, index: int) -> int:
        return 2 * abs(hash((str(self.seed), split, index))) + (split == "train")


class Unseeded(Task):
    def number(self, split: Split, index: int) -> int:
        drawn = random.Random(f"{split}/{index}").randrange(10**6)
        return 2 * drawn + (split == "train")


class Leaky(Task):
    def number(self, split: Split, index: int) -> int:
        return super().number("train", index + (7 if split == "eval" else 0))


class Global(Task):
    def number(self, split: Split, index: int) -> int:
        random.seed(f"{self.seed}/{split}/{index}")
        return 2 * random.randrange(10**6) + (split == "train")


class MessagesInText(Task):
    """Replies with messages to a prompt of raw text."""

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        return Turn(content=(Message(role="user", content="no"),)), {}


class Impatient(Task):
    """Loses its patience over the calls of one object."""

    patience = 9

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        self.patience -= 1
        return super().respond(transcript) if self.patience > 0 else (None, {})


class Undocumented(Task):
    def tools(self) -> Tools:
        return Tools(functions=(max,))


class WrongReference(Task):
    def reference(self, problem: Problem) -> str | None:
        return str(problem.info["answer"] + 1)


class MoodyDemonstration(Task):
    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return str(id(self))


class ShoutingBehaviors(Task):
    def behaviors(self, problem: Problem, completion_text: str) -> Mapping[str, float]:
        return {"Number Of Letters": 1.0}


class WrongSummary(Task):
    def data_summary(self) -> Sequence[DataSummary]:
        return [DataSummary(source="rows.jsonl", kept={"train": 5, "eval": 5})]


class Reward:
    """1.0 for the answer, else 0.0. Nothing is wrong with it."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> Any:
        right = completion.text.strip() == str(problem.info["answer"])
        return Score(value=float(right), answer=completion.text[:20], reason="" if right else "wrong")


class NoScore:
    def __init__(self, config: Any, context: Any) -> None: ...


class Slow(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        if "(" * 100 in completion.text:
            time.sleep(600)
        return super().score(problem, completion)


class Raising(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        if completion.text:
            completion.text.encode("utf-8")  # half of a surrogate pair cannot be encoded
        return super().score(problem, completion)


class Text(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        return super().score(problem, completion) if completion.text else "nothing"


class Generous(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        return 2.0 if completion.text == "True" else super().score(problem, completion)


class Local(Reward):
    """Says another thing in another process."""

    def score(self, problem: Problem, completion: Completion) -> Any:
        is_away = MARK in os.environ
        return 0.5 if is_away and completion.text == "nan" else super().score(problem, completion)


class Bored(Reward):
    """Pays the less the more it has seen."""

    def __init__(self, config: Any, context: Any) -> None:
        self.seen = 0

    def score(self, problem: Problem, completion: Completion) -> Any:
        if completion.text == "inf":
            self.seen += 1
            return 1 / (1 + self.seen)
        return super().score(problem, completion)


class Scribbling(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        problem.info["seen"] = True  # type: ignore[index]
        return super().score(problem, completion)


class Strict(Reward):
    """Never pays all."""

    def score(self, problem: Problem, completion: Completion) -> Any:
        return 0.9 * super().score(problem, completion).value


class Constant(Reward):
    def score(self, problem: Problem, completion: Completion) -> Any:
        return 1.0


class Ranking:
    """A group reward: nothing is wrong with it."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def score_group(self, group: RolloutGroup) -> list[float]:
        longest = max(len(completion.text) for completion in group.completions)
        return [1 - len(completion.text) / max(1, longest) for completion in group.completions]
