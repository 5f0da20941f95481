"""What it takes to score programs: seconds for so many completions, in one process.

    python plugins/reasonrl-code/benchmarks/code_reward.py [--completions 64] [--repeats 3]

Needs reasonrl-code. Right programs for the bundled problems, and one that never ends. The best of the repeats counts.
Nothing is asserted or written.
"""

import argparse
import sys
import time

from reasonrl import Completion, FinishReason, Problem, RewardContext, TaskContext
from reasonrl_code.config import CodeConfig, PassedTestsConfig
from reasonrl_code.dataset import CodeTask
from reasonrl_code.rewards import PassedTestsReward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    task = CodeTask(CodeConfig(), TaskContext(seed=0))
    problems = [task.problem("train", i) for i in range(task.size("train"))]
    reward = PassedTestsReward(PassedTestsConfig(seconds=10.0), RewardContext())
    sys.stdout.write(f"{options.completions} completions; sandbox: {reward._launcher.method}\n")
    for kind in ("function", "stdio"):
        chosen = [problem for problem in problems if problem.info["kind"] == kind and len(problem.info["tests"]) == 3]
        texts: list[tuple[Problem, str | None]] = [(chosen[i % len(chosen)], None) for i in range(options.completions)]
        took = min(measure(reward, texts) for _ in range(options.repeats))
        sys.stdout.write(f"{kind}, 3 tests: {took:.2f} s\n")
    short = PassedTestsReward(PassedTestsConfig(seconds=2.0), RewardContext())
    took = measure(short, [(problems[0], "```python\nwhile True: pass\n```")])
    sys.stdout.write(f"one that never ends: {took:.2f} s\n")


def measure(reward: PassedTestsReward, cases: list[tuple[Problem, str | None]]) -> float:
    """Time the scoring of the texts, in seconds; None is replaced by the known solution."""
    started = time.perf_counter()
    for problem, text in cases:
        said = problem.info["solution"] if text is None else text
        end = FinishReason.EOS
        score = reward.score(problem, Completion(token_ids=(), logprobs=None, text=said, finish_reason=end))
        if text is None and score.value != 1.0:
            raise SystemExit(f"{problem.id} earned {score.value}: {score.reason}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
