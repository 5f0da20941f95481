"""The task and its reward over reasoning-gym itself."""

import importlib
import inspect
import random
import re
import time
from pathlib import Path

import pytest

from reasonrl import Completion, FinishReason, Problem, RewardContext, Score, Split, TaskContext
from reasonrl_reasoning_gym.catalog import dataset_names
from reasonrl_reasoning_gym.config import DatasetConfig, ReasoningGymConfig, ReasoningGymRewardConfig
from reasonrl_reasoning_gym.guard import GUARDED
from reasonrl_reasoning_gym.rewards import ReasoningGymReward
from reasonrl_reasoning_gym.source import split_of
from reasonrl_reasoning_gym.task import ReasoningGymTask

NUM_DATASETS = 105
"""106 in 0.1.25, less composite, which is a mixture of others."""
UPSTREAM_FAULTS: dict[str, str] = {}
"""Datasets whose own answer does not earn 1.0 from their own scorer, and why. In the documentation too."""


def make(**options: object) -> ReasoningGymTask:
    return ReasoningGymTask(ReasoningGymConfig(**options), TaskContext(seed=0))  # type: ignore[arg-type]


def judge(problem: Problem, text: str, *, partial_credit: bool = True) -> Score:
    reward = ReasoningGymReward(ReasoningGymRewardConfig(partial_credit=partial_credit), RewardContext())
    end = FinishReason.EOS
    return reward.score(problem, Completion(token_ids=(), logprobs=None, text=text, finish_reason=end))


def test_all_datasets_are_there() -> None:
    assert len(dataset_names()) >= NUM_DATASETS
    assert "composite" not in dataset_names()


@pytest.mark.parametrize("name", dataset_names())
def test_the_right_answer_earns_the_maximum(name: str) -> None:
    """Two problems of each split of every dataset; and no dataset takes long over one."""
    task = make(dataset=name)
    started = time.process_time()
    for split in ("train", "eval"):
        for index in range(2):
            problem = task.problem(split, index)  # type: ignore[arg-type]
            assert split_of(problem.info["question"]) == split
            score = judge(problem, task.reference(problem))
            if name in UPSTREAM_FAULTS:
                assert score.value is not None
                continue
            assert (score.value, score.correct) == (1.0, True), (score, problem.info)
            assert judge(problem, "<answer></answer>").value == 0.0
    assert time.process_time() - started < 60


def test_every_scorer_that_evaluates_text_is_guarded() -> None:
    """Read from the source of the scorers, so that a new one in a later release is found."""
    factory = importlib.import_module("reasoning_gym.factory")
    evaluating = set()
    for name in dataset_names():
        source = inspect.getsource(factory.DATASETS[name][0].score_answer)
        if re.search(r"\b(eval|exec|parse_expr|sympify)\((?!entry)", source):
            evaluating.add(name)
    assert evaluating <= GUARDED
    assert len(evaluating) >= 8


def test_problems_are_repeatable_and_leave_the_global_generators_alone() -> None:
    mixture = {
        "chain_sum": DatasetConfig(),
        "list_functions": DatasetConfig(),
        "pool_matrix": DatasetConfig(),
    }
    random.seed(5)
    state = random.getstate()
    first = [make(datasets=mixture).problem("train", i) for i in range(8)]
    task = make(datasets=mixture)
    assert first == [task.problem("train", i) for i in reversed(range(8))][::-1]
    assert random.getstate() == state


def test_no_question_is_in_both_splits_even_of_a_small_dataset() -> None:
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = make(dataset="chain_sum", config=config)

    def questions(split: Split) -> set[str]:
        return {task.problem(split, i).info["question"] for i in range(150)}

    train, held_out = questions("train"), questions("eval")
    assert not train & held_out
    assert len(held_out) > 10


def test_weights_decide_how_often() -> None:
    mixture = {"chain_sum": DatasetConfig(weight=3.0), "leg_counting": DatasetConfig(weight=1.0)}
    task = make(datasets=mixture)
    names = [task.problem("train", i).info["dataset"] for i in range(200)]
    assert 120 < names.count("chain_sum") < 180


def test_options_reach_the_dataset() -> None:
    problem = make(dataset="chain_sum", config={"min_terms": 5, "max_terms": 5}).problem("train", 0)
    assert len(re.findall(r"[+-] ", problem.info["question"])) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "chian_sum"}, "dataset must be .* did you mean 'chain_sum'"),
        ({"dataset": "chain_sum", "config": {"min_term": 2}}, "'min_term'; did you mean 'min_terms'"),
        ({"config": {"min_term": 2}}, "config must hold options of chain_sum, got 'min_term'"),
        ({"dataset": "chain_sum", "config": {"seed": 2}}, "must not set seed"),
        ({"dataset": "chain_sum", "config": {"min_terms": -1}}, "valid options of chain_sum"),
        ({"dataset": "composite"}, "datasets"),
        ({"datasets": {"maz": DatasetConfig()}}, "datasets.maz must be .* did you mean 'maze'"),
        ({"dataset": "maze", "datasets": {"maze": DatasetConfig()}}, "datasets must be empty"),
        ({"template": "chatt"}, "template must be one of"),
        ({"answer_tag": "a b"}, "answer_tag must be"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReasoningGymConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight must be > 0"):
        DatasetConfig(weight=0.0)


@pytest.mark.parametrize("template", ["chat", "base", "bare"])
@pytest.mark.parametrize("tag", ["answer", "solution", ""])
def test_every_template_has_a_reference_that_is_paid(template: str, tag: str) -> None:
    task = make(dataset="leg_counting", template=template, answer_tag=tag)
    problem = task.problem("train", 0)
    assert judge(problem, task.reference(problem)).value == 1.0
    assert task.demonstration(problem, random.Random(0)) == task.reference(problem)


def test_partial_credit_can_be_left_out() -> None:
    task = make(dataset="spell_backward")
    problem = task.problem("train", 0)
    nearly = f"<answer>{problem.info['answer'][:-1]}?</answer>"
    assert 0.0 < (judge(problem, nearly).value or 0.0) < 1.0
    assert judge(problem, nearly, partial_credit=False).value == 0.0


def test_code_in_an_answer_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "written"
    for name in sorted(GUARDED):
        problem = make(dataset=name).problem("train", 0)
        score = judge(problem, f"<answer>open({str(target)!r}, 'w').write('x')</answer>")
        assert (score.value, score.reason) == (0.0, "refused_answer")
    assert not target.exists()


def test_an_answer_that_takes_its_scorer_too_long_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def spins(*_: object) -> float:
        while True:
            pass

    problem = make(dataset="chain_sum").problem("train", 0)
    monkeypatch.setattr("reasonrl_reasoning_gym.rewards._LIMIT_S", 0.02)
    monkeypatch.setattr("reasonrl_reasoning_gym.rewards._Scorer.score", spins)
    score = judge(problem, "<answer>1</answer>")
    assert (score.value, score.correct, score.reason) == (0.0, False, "too_slow")
