"""An evaluation suite: the first problems of a task's eval split, the same in every evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reasonrl.contracts.data import FinishReason, RolloutRequest, SamplingParams, ScoredGroup
from reasonrl.contracts.protocols import RolloutBackend, Task
from reasonrl.conversations.loop import Dialogue, Together, converse
from reasonrl.data.render import PromptRenderer
from reasonrl.data.stream import fetch_problem
from reasonrl.evaluation.behaviors import BehaviorMeter
from reasonrl.evaluation.difficulty import Level, by_difficulty
from reasonrl.functional.randomness import derive_seed
from reasonrl.rewards.runner import RewardRunner
from reasonrl.statistics.proportions import accuracy_interval, mean_interval, standard_error
from reasonrl.statistics.samples import majority_at_k, pass_at_k


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A suite ready to run.

    ``indices``: its problems in the eval split; ``asked``: the number requested; ``ks``: the k of pass@k and maj@k.
    """

    name: str
    task: Task
    task_name: str
    rewards: RewardRunner
    indices: Sequence[int]
    samples: int
    sampling: SamplingParams
    seed: int
    asked: int = 0
    ks: Sequence[int] = ()
    dialogue: Dialogue | None = field(default=None, compare=False, repr=False)
    meter: BehaviorMeter = field(default_factory=BehaviorMeter, compare=False, repr=False)

    @property
    def problems(self) -> int:
        """Number of problems."""
        return len(self.indices)

    def line(self) -> str:
        """Summarize the suite in one line: problems and sampling."""
        count = len(self.indices)
        fewer = f" ({self.asked:,} requested, {count:,} available)" if count < self.asked else ""
        return f"{self.name}: {count:,} problem{'s' * (count != 1)}{fewer} x {self.samples}, {self.sampling.line()}"

    def requests(self, renderer: PromptRenderer, indices: Sequence[int]) -> list[RolloutRequest]:
        """Build requests. Seeds depend on the problem only, so every evaluation samples alike."""
        problems = [fetch_problem(self.task, self.task_name, "eval", index) for index in indices]
        prompts = renderer.render_all(problems)
        return [
            RolloutRequest(
                problem=problem,
                prompt_ids=prompt.ids,
                prompt_text=prompt.text,
                group_size=self.samples,
                sampling=self.sampling,
                seed=derive_seed(self.seed, "eval", self.name, index),
            )
            for problem, prompt, index in zip(problems, prompts, indices, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteResult:
    """The result of a suite.

    ``ci95`` is the interval of ``metrics["accuracy"]``, ``intervals`` holds those of pass@k and maj@k, ``errors`` the
    standard errors of all three; ``behavior`` maps names to means.
    """

    name: str
    problems: int
    samples: int
    metrics: Mapping[str, float]
    ci95: tuple[float, float]
    groups: tuple[ScoredGroup, ...]
    behavior: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The result as ``evals/`` stores it, without the completions."""
        return {
            "accuracy": self.metrics["accuracy"],
            "ci95": [self.ci95[0], self.ci95[1]],
            "problems": self.problems,
            "samples": self.samples,
            **{key: value for key, value in self.metrics.items() if key != "accuracy"},
            "intervals": {key: list(interval) for key, interval in self.intervals.items()},
            "by_difficulty": [level.to_json() for level in self.levels],
            "behavior": dict(self.behavior),
        }


def run_suite(
    suite: Suite, backend: RolloutBackend, renderer: PromptRenderer, indices: Sequence[int], ranks: Together
) -> list[ScoredGroup]:
    """Sample and score the problems ``indices`` (this rank's share), in order.

    Every rank calls it, also without a problem: a backend may be spread over ranks.
    """
    with ranks.together():
        requests = suite.requests(renderer, indices)
    groups = converse(backend, requests, renderer, ranks, suite.dialogue)
    with ranks.together():
        return suite.rewards.score_all(groups)


def summarize(suite: Suite, groups: Sequence[ScoredGroup]) -> SuiteResult:
    """Compute the metrics of a suite from all its problems.

    An unscored completion counts as incorrect and in ``unscored_frac``.
    """
    pairs = [pair for g in groups for pair in zip(g.group.completions, g.rewards, strict=True)]
    correct = [[bool(r.correct) for r in g.rewards] for g in groups]
    total = max(1, len(pairs))
    metrics = {
        "accuracy": sum(map(sum, correct)) / total,
        "format": sum(r.answer is not None for _, r in pairs) / total,
        "reward": sum(r.total or 0.0 for _, r in pairs) / total,
        "length_tokens": sum(c.sampled_tokens for c, _ in pairs) / total,
        "truncated_frac": sum(c.finish_reason == FinishReason.LENGTH for c, _ in pairs) / total,
        "unscored_frac": sum(r.total is None for _, r in pairs) / total,
    }
    over_problems = _over_problems(suite, groups, correct)
    metrics |= {key: sum(values) / max(1, len(values)) for key, (values, _) in over_problems.items()}
    return SuiteResult(
        name=suite.name,
        problems=len(groups),
        samples=suite.samples,
        metrics=metrics,
        ci95=accuracy_interval(correct),
        groups=tuple(groups),
        behavior=suite.meter.measure(suite.task, suite.task_name, groups),
        intervals={key: mean_interval(values, trials) for key, (values, trials) in over_problems.items()},
        errors={
            "accuracy": standard_error([sum(c) / len(c) for c in correct]),
            **{key: standard_error(values) for key, (values, _) in over_problems.items()},
        },
        levels=tuple(by_difficulty(suite.task, suite.task_name, groups, correct)),
    )


def _over_problems(
    suite: Suite, groups: Sequence[ScoredGroup], correct: Sequence[Sequence[bool]]
) -> dict[str, tuple[list[float], int]]:
    """Compute pass@k and maj@k of every problem, and the number of disjoint groups of k samples behind them."""
    found: dict[str, tuple[list[float], int]] = {}
    for k in suite.ks:
        trials = len(groups) * (suite.samples // k)
        found[f"pass@{k}"] = [pass_at_k(len(c), sum(c), k) for c in correct], trials
        votes = [majority_at_k([r.answer for r in g.rewards], c, k) for g, c in zip(groups, correct, strict=True)]
        found[f"maj@{k}"] = votes, trials
    return found
