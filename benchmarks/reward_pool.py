"""What a process of its own costs a reward: completions per second inline and through the pool.

    python benchmarks/reward_pool.py [--completions 2000] [--repeats 5]

Three rewards: the shipped ``countdown`` verifier on a short and on a long completion, and one that computes for 2 ms.
The best of the repeats counts, after one that does not. Nothing is asserted and nothing is written.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl import (
    Completion,
    FinishReason,
    NoConfig,
    Problem,
    RewardContext,
    RewardSpec,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
)
from reasonrl.rewards.pool import default_size
from reasonrl.rewards.runner import RewardRunner

GROUP = 8
SHORT = "3+5 = 8\n8+8 = 16\nyes\n</think>\n<answer>3+5+8</answer>"
LONG = "3+5 = 8\n" * 500 + SHORT


class Busy:
    """Computes for 2 ms."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> float:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return 1.0


@dataclass(frozen=True)
class Slot:
    spec: RewardSpec
    config: Any = NoConfig()  # noqa: RUF009 - frozen
    weight: float = 1.0


class Direct:
    """Builds an inline reward."""

    def build(self, spec: Any, config: Any, context: Any) -> Any:
        module, _, name = spec.factory.partition(":")
        return getattr(__import__(module, fromlist=[name]), name)(config, context)


def groups_of(text: str, completions: int) -> list[RolloutGroup]:
    ids = tuple(range(len(text) // 3))
    row = Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason=FinishReason.EOS)
    problem = Problem(id="p", prompt="Numbers: 3 5 8.", info={"numbers": [3, 5, 8], "target": 16})
    request = RolloutRequest(
        problem=problem, prompt_ids=(1, 2), group_size=GROUP, sampling=SamplingParams(), seed=0
    )
    return [RolloutGroup(request=request, completions=(row,) * GROUP)] * (completions // GROUP)


def best_s(work: Callable[[], object], repeats: int) -> float:
    took = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took[1:])


def measure(factory: str, isolation: Any, text: str, completions: int, repeats: int) -> tuple[float, float]:
    """(completions per second, seconds until the reward is built)."""
    spec = RewardSpec(name="r", summary="r", factory=factory, isolation=isolation)
    started = time.perf_counter()
    with RewardRunner.build({"r": Slot(spec)}, Direct(), RewardContext()) as runner:
        built_s = time.perf_counter() - started
        groups = groups_of(text, completions)
        return len(groups) * GROUP / best_s(lambda: runner.score_all(groups), repeats), built_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--completions", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    countdown, busy = "reasonrl_countdown.rewards:CountdownReward", f"{Path(__file__).stem}:Busy"
    print(f"{default_size()} workers; best of {options.repeats} x {options.completions} completions")  # noqa: T201
    for name, factory, text in (
        ("countdown, short", countdown, SHORT),
        ("countdown, long", countdown, LONG),
        ("2 ms of work", busy, SHORT),
    ):
        count = options.completions // (10 if factory == busy else 1)
        inline, _ = measure(factory, "inline", text, count, options.repeats)
        pooled, built_s = measure(factory, "process", text, count, options.repeats)
        cost_us = (1 / pooled - 1 / inline) * 1e6
        print(  # noqa: T201
            f"{name:18} inline {inline:8.0f}/s   pool {pooled:8.0f}/s   {cost_us:+7.0f} us a completion   "
            f"first worker after {built_s:.2f} s"
        )


if __name__ == "__main__":
    main()
