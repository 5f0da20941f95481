"""A suite asks the same thing every time, and an unscored completion is not a right one."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from reference import subsets
from support.builders import Judge, Numbers, completion, output, runner, scored

from reasonrl import Problem, RolloutGroup, RolloutRequest, SamplingParams, ScoredGroup
from reasonrl.data.render import PromptRenderer
from reasonrl.data.rollouts import BackendCalls
from reasonrl.errors import PluginContractError
from reasonrl.evaluation.suites import Suite, SuiteResult, run_suite, summarize
from reasonrl.statistics.proportions import wilson_interval
from reasonrl.testing.models import byte_tokenizer
from reasonrl.trainer.evaluator import EvaluationWatch, evaluate_suites, suite_metrics

TOKENIZER = byte_tokenizer()
RENDERER = PromptRenderer(TOKENIZER)


def suite(samples: int = 1, problems: int = 5, name: str = "held_out", seed: int = 0, **parts: Any) -> Suite:
    return Suite(
        name=name,
        task=parts.pop("task", Numbers()),
        task_name="numbers",
        rewards=runner(Judge(lambda problem, c: float(c.token_ids[0] % 2))),
        indices=range(problems),
        samples=samples,
        ks=parts.pop("ks", [samples] if samples > 1 else []),
        sampling=SamplingParams(temperature=0.7, max_completion_tokens=3),
        seed=seed,
    )


class Backend:
    """Answers with numbers that depend on the request's seed alone."""

    def __init__(self, spoil: Any = lambda groups: groups) -> None:
        self.seen: list[RolloutRequest] = []
        self._spoil = spoil

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        self.seen += requests
        groups = [
            RolloutGroup(
                request=r,
                completions=tuple(completion(((r.seed >> n) % 256,), logprobs=(-1.0,)) for n in range(r.group_size)),
            )
            for r in requests
        ]
        return self._spoil(groups)


class Rank:
    """One of several processes; ``others`` is what the others would send to a gather."""

    def __init__(self, rank: int = 0, size: int = 1, others: Sequence[Any] = ()) -> None:
        self.rank, self.size, self.others, self.sent = rank, size, others, []

    def together(self) -> Any:
        return nullcontext()

    def gather(self, items: Sequence[Any]) -> list[Any]:
        self.sent = list(items)
        return [*items, *self.others]


def evaluate(asked: Suite, backend: Backend, ranks: Any) -> SuiteResult:
    return evaluate_suites([asked], backend, RENDERER, ranks, EvaluationWatch())[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2])
def test_a_backend_that_counts_is_heard(size: int) -> None:
    """Completions of this rank become problems of all ranks and suites."""
    told: list[tuple[str, int, int]] = []
    watch = EvaluationWatch(tell=lambda p: told.append((p.suite, p.done, p.total)))

    class Counting(Backend):
        def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
            for done in range(0, sum(r.group_size for r in requests) + 1, 3):
                watch.finished(done)
            return super().generate(requests)

    watch.finished(99)  # training samples too, and is no evaluation
    both = [suite(samples=2), suite(samples=3, name="other", problems=10)]
    evaluate_suites(both, Counting(lambda groups: groups), RENDERER, Rank(size=size), watch)  # type: ignore[arg-type]
    watch.finished(99)
    assert [told[0], told[-1]] == [("held_out", 0, 15), ("other", 15, 15)]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {name for name, _, _ in told} == {"held_out", "other"}
    assert ("other", 5, 15) in told


def test_requests_carry_the_suites_own_sampling() -> None:
    requests = suite(samples=3).requests(RENDERER, [4, 2])
    assert [r.problem.id for r in requests] == ["eval/4", "eval/2"]
    assert {(r.group_size, r.sampling.temperature, r.sampling.max_completion_tokens) for r in requests} == {(3, 0.7, 3)}
    assert TOKENIZER.decode(requests[0].prompt_ids) == "4"


def test_every_evaluation_draws_alike() -> None:
    backend = Backend()
    first, second = (evaluate(suite(samples=2), backend, Rank()) for _ in range(2))
    assert first == second
    assert [r.seed for r in backend.seen[:5]] == [r.seed for r in backend.seen[5:]]


def test_problems_suites_and_seeds_draw_differently() -> None:
    seeds = {r.seed for s in (suite(), suite(name="other"), suite(seed=1)) for r in s.requests(RENDERER, range(5))}
    assert len(seeds) == 15


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_number_of_ranks_does_not_matter(size: int) -> None:
    alone = evaluate(suite(samples=2), Backend(), Rank())
    shares = []
    for rank in range(size):
        one = Rank(rank, size)
        evaluate(suite(samples=2), Backend(), one)
        shares.append(one.sent)
    together = Rank(0, size, [item for share in shares[1:] for item in share])
    assert evaluate(suite(samples=2), Backend(), together) == alone
    assert sorted(index for share in shares for index, _ in share) == [0, 1, 2, 3, 4]


def test_figures_by_hand() -> None:
    groups = [scored([1.0, 0.0], lengths=[4, 2]), scored([None, 0.5], lengths=[1, 1])]
    result = summarize(suite(samples=2), groups)
    assert dict(result.metrics) == pytest.approx(
        {
            "accuracy": 0.25,
            "format": 0.75,
            "reward": 1.5 / 4,
            "length_tokens": 2.0,
            "truncated_frac": 0.0,
            "unscored_frac": 0.25,
            "pass@2": 0.5,
            "maj@2": 0.25,
        }
    )
    assert result.problems == 2
    assert result.groups == tuple(groups)


def test_pass_and_maj_for_several_k_by_hand() -> None:
    """c = 1 and 2 of 4. pass@2: 1 - C(3,2)/C(4,2) = 1/2 and 1 - C(2,2)/C(4,2) = 5/6."""
    groups = [scored([1.0, 0.0, 0.0, 0.0]), scored([1.0, 1.0, 0.0, 0.0])]
    result = summarize(suite(samples=4, ks=[1, 2, 4]), groups)
    found = {key: value for key, value in result.metrics.items() if "@" in key}
    assert found == pytest.approx(
        {
            "pass@1": 0.375,
            "pass@2": (1 / 2 + 5 / 6) / 2,
            "pass@4": 1.0,
            "maj@1": 0.375,
            "maj@2": (3 * 0.5 / 6 + (1 + 4 * 0.5) / 6) / 2,  # the pairs with a tie count half
            "maj@4": 0.25,
        }
    )
    assert result.intervals["pass@1"] == result.ci95
    assert result.intervals["pass@4"] == pytest.approx(subsets.mean_interval([1.0, 1.0], 2), abs=1e-9)
    assert result.to_json()["intervals"] == {key: list(interval) for key, interval in result.intervals.items()}


class Graded(Numbers):
    """Rates problems by their info."""

    def difficulty(self, problem: Problem) -> Any:
        return problem.info["level"]


def rated(level: Any, value: float, key: str = "level") -> ScoredGroup:
    group = scored([value])
    problem = replace(group.group.request.problem, info={key: level})
    return replace(group, group=replace(group.group, request=replace(group.group.request, problem=problem)))


def levels(groups: list[ScoredGroup], task: Any) -> list[tuple[str, int, float]]:
    found = summarize(suite(task=task), groups).levels
    return [(level.difficulty, level.problems, level.accuracy) for level in found]


def test_accuracy_by_difficulty() -> None:
    values = [("hard", 0.0), ("easy", 1.0), ("hard", 1.0), (None, 1.0)]
    by_task = [rated(level, value) for level, value in values]
    by_info = [rated(level, value, "difficulty") for level, value in values]
    expected = [("easy", 1, 1.0), ("hard", 2, 0.5)]
    assert levels(by_task, Graded()) == expected
    assert levels(by_info, Numbers()) == expected
    assert levels(by_task[:1] + by_task[2:3], Graded()) == []  # one level is no table
    result = summarize(suite(task=Graded()), by_task)
    assert result.to_json()["by_difficulty"][1] == {  # type: ignore[index]
        "difficulty": "hard",
        "problems": 2,
        "accuracy": 0.5,
        "ci95": list(wilson_interval(1, 2)),
    }


def test_many_numbers_are_cut_into_quarters() -> None:
    groups = [rated(level, float(level > 30)) for level in range(40)]
    assert levels(groups, Graded()) == [
        ("0 to 9", 10, 0.0),
        ("10 to 19", 10, 0.0),
        ("20 to 29", 10, 0.0),
        ("30 to 39", 10, 0.9),
    ]
    few = [rated(level, 1.0) for level in (10, 9.5, 2)]
    assert [name for name, *_ in levels(few, Graded())] == ["2", "9.5", "10"]


def test_a_difficulty_of_the_wrong_kind_names_the_task() -> None:
    with pytest.raises(PluginContractError, match="task 'numbers': difficulty returned list, expected text, a number"):
        summarize(suite(task=Graded()), [rated([1], 1.0)])


def test_an_unscored_completion_is_not_correct_whatever_one_reward_thought() -> None:
    right, lost = Judge(lambda p, c: 1.0), Judge(lambda p, c: None)
    asked = suite()
    group = scored([0.0]).group
    result = summarize(asked, [runner(right, lost).score(group)])
    assert result.metrics["accuracy"] == 0.0
    assert result.metrics["unscored_frac"] == 1.0


def test_one_sample_has_no_votes() -> None:
    result = summarize(suite(), [scored([1.0]), scored([0.0])])
    assert not [key for key in result.metrics if "@" in key]
    assert result.to_json()["ci95"] == list(result.ci95)
    assert list(result.to_json())[:4] == ["accuracy", "ci95", "problems", "samples"]


def test_metric_keys_of_a_suite() -> None:
    metrics = suite_metrics([summarize(suite(), [scored([1.0]), scored([0.0])])])
    assert metrics["eval/held_out/accuracy"] == 0.5
    low, high = metrics["eval/held_out/accuracy_ci95_low"], metrics["eval/held_out/accuracy_ci95_high"]
    assert 0 < low < 0.5 < high < 1


def drop_one_completion(groups: list[RolloutGroup]) -> list[RolloutGroup]:
    return [RolloutGroup(request=g.request, completions=g.completions[1:]) for g in groups]


def lose_logprobs(groups: list[RolloutGroup]) -> list[RolloutGroup]:
    short = completion((1, 2), logprobs=(-1.0,))
    return [RolloutGroup(request=g.request, completions=(short,) * len(g.completions)) for g in groups]


def behind_checks(backend: Any) -> BackendCalls:
    return BackendCalls(backend, "rollout_backend 'spoilt'")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda groups: groups[:-1], "returned 4 groups for 5 requests"),
        (drop_one_completion, "returned 0 completions, expected 1, for problem 'eval/0'"),
        (lambda groups: None, "raised TypeError: 'NoneType'"),
        (lose_logprobs, "returned 1 log-probabilities for 2 tokens for problem 'eval/0'"),
    ],
)
def test_a_backend_that_answers_too_little_is_named(spoil: Any, message: str) -> None:
    with pytest.raises(PluginContractError, match=f"rollout_backend 'spoilt': generate {message}"):
        run_suite(suite(), behind_checks(Backend(spoil)), RENDERER, range(5), Rank())


def test_a_backend_need_not_know_logprobs() -> None:
    def forget(groups: list[RolloutGroup]) -> list[RolloutGroup]:
        return [RolloutGroup(request=g.request, completions=(completion((1, 2)),)) for g in groups]

    requests = suite().requests(RENDERER, [0])
    assert behind_checks(Backend(forget)).generate(requests)[0].completions[0].logprobs is None


def test_the_reward_of_nothing_scored_is_zero() -> None:
    group = scored([1.0]).group
    result = summarize(suite(), [ScoredGroup(group=group, rewards=(output(None),))])
    assert result.metrics["reward"] == 0.0
