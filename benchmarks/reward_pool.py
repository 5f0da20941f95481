"""What a process of its own costs a reward: completions per second inline and through the pool.

    python benchmarks/reward_pool.py [--completions 2000] [--repeats 5]

Three rewards: the shipped ``countdown`` verifier on a short and on a long completion, and one that computes for 2 ms.
The best of the repeats counts, after one that does not. CPU seconds suffer less from other work on the machine than the
clock does; they are those of the trainer and, for the pool, those of the workers. Nothing is asserted or written.
"""

import argparse
import resource
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
    request = RolloutRequest(problem=problem, prompt_ids=(1, 2), group_size=GROUP, sampling=SamplingParams(), seed=0)
    return [RolloutGroup(request=request, completions=(row,) * GROUP)] * (completions // GROUP)


@dataclass(frozen=True)
class Figures:
    per_s: float
    trainer_us: float
    workers_us: float
    first_worker_s: float


def best(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least seconds by the clock and least CPU seconds of this process."""
    took, cpu = [], []
    for _ in range(repeats + 1):
        started, busy = time.perf_counter(), time.process_time()
        work()
        took.append(time.perf_counter() - started)
        cpu.append(time.process_time() - busy)
    return min(took[1:]), min(cpu[1:])


def measure(factory: str, isolation: Any, text: str, completions: int, repeats: int) -> Figures:
    spec = RewardSpec(name="r", summary="r", factory=factory, isolation=isolation)
    idle = children_s()
    with build(spec) as runner:
        runner.score_all(groups_of(text, GROUP))
    idle, before = children_s() - idle, children_s()
    started = time.perf_counter()
    with build(spec) as runner:
        first_worker_s = time.perf_counter() - started
        groups = groups_of(text, completions)
        count = len(groups) * GROUP
        took_s, cpu_s = best(lambda: runner.score_all(groups), repeats)
    workers_s = max(0.0, children_s() - before - idle)
    workers_us = workers_s / count / (repeats + 1) * 1e6
    return Figures(count / took_s, cpu_s / count * 1e6, workers_us, first_worker_s)


def build(spec: RewardSpec) -> RewardRunner:
    return RewardRunner.build({"r": Slot(spec)}, Direct(), RewardContext())


def children_s() -> float:
    """CPU seconds of the workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        for isolation in ("inline", "process"):
            f = measure(factory, isolation, text, count, options.repeats)
            print(  # noqa: T201
                f"{name:18} {isolation:8} {f.per_s:8.0f}/s   CPU us a completion: trainer {f.trainer_us:6.0f}, "
                f"workers {f.workers_us:6.0f}   built after {f.first_worker_s:.2f} s"
            )


if __name__ == "__main__":
    main()
