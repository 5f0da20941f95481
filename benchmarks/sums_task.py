"""A short task for a chat model: sums of two numbers up to 20, with the answer begun."""

import random
import re

from reasonrl import Message, Problem, RewardSpec, Score, TaskSpec, hookimpl

PAIRS = [(a, b) for a in range(21) for b in range(21)]
random.Random(0).shuffle(PAIRS)
SPLITS = {"eval": PAIRS[:200], "train": PAIRS[200:]}


class Sums:
    """Every sum is in one split only."""

    def __init__(self, config, context) -> None: ...

    def size(self, split):
        return len(SPLITS[split])

    def problem(self, split, index):
        a, b = SPLITS[split][index % len(SPLITS[split])]
        asked = Message(role="user", content=f"What is {a} + {b}?")
        return Problem(id=f"{a}+{b}", prompt=(asked,), assistant_prefix="The answer is", info={"sum": a + b})


class Right:
    """1 if the completion begins with the sum."""

    def __init__(self, config, context) -> None: ...

    def score(self, problem, completion):
        found = re.match(r"\s*(\d{1,4})\b", completion.text)
        right = found is not None and int(found[1]) == problem.info["sum"]
        return Score(value=float(right), answer=found[1] if found else None)


@hookimpl
def reasonrl_tasks():
    yield TaskSpec(name="sums", summary="Sums up to 20 + 20.", factory=Sums, default_rewards=("right",))


@hookimpl
def reasonrl_rewards():
    yield RewardSpec(name="right", summary="The right sum.", factory=Right)
