"""Laws of the Countdown plugin on arbitrary input."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrl import Completion, FinishReason, NoConfig, RewardContext, TaskContext
from reasonrl_countdown import extract_answer, solve, verify
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.expression import REASONS
from reasonrl_countdown.rewards import CountdownReward, TinyZeroReward
from reasonrl_countdown.task import CountdownTask

TEXT = st.text() | st.text(alphabet="019+-*/() =.\n") | st.text(alphabet="(1+")
TAGS = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "1+2", "\n", "<", "/answer>"]),
    max_size=30,
)
NUMBERS = st.lists(st.integers(0, 120), min_size=1, max_size=4)
TASK = CountdownTask(CountdownConfig(template="compact"), TaskContext(seed=0))
REWARDS = [reward(NoConfig(), RewardContext()) for reward in (CountdownReward, TinyZeroReward)]


@given(answer=TEXT, numbers=NUMBERS, target=st.integers(-1000, 1000))
def test_verify_takes_any_text(answer: str, numbers: list[int], target: int) -> None:
    verdict = verify(answer, numbers, target)
    assert verdict.reason in REASONS
    assert verdict.correct is (verdict.reason == "ok")


@given(parts=TAGS, noise=st.text(max_size=20), at=st.integers(0, 30))
def test_rewards_take_any_completion(parts: list[str], noise: str, at: int) -> None:
    text = "".join([*parts[:at], noise, *parts[at:]])
    completion = Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.LENGTH)
    problem = TASK.problem_from_fields({"numbers": "1,2", "target": "3"})
    strict, tinyzero = (reward.score(problem, completion) for reward in REWARDS)
    assert (strict.value, tinyzero.value) in {(0.0, 0.0), (0.0, 0.1), (1.0, 1.0)}
    assert strict.correct is tinyzero.correct


@given(parts=TAGS)
def test_an_extracted_answer_holds_no_tag_and_follows_the_thinking(parts: list[str]) -> None:
    text = "".join(parts)
    answer = extract_answer(text)
    if answer is not None:
        tail = text.rpartition("</think>")[2].partition("<think>")[0]
        assert tail.count("<answer>") == 1
        assert answer in tail
        assert "<answer>" not in answer
        assert "</answer>" not in answer


@given(numbers=NUMBERS, target=st.integers(-10, 200))
@settings(max_examples=60)
def test_every_solution_verifies_with_its_numbers_only(numbers: list[int], target: int) -> None:
    for solution in solve(numbers, target):
        assert verify(solution, numbers, target).correct
        assert verify(solution, [*numbers, 1], target).reason == "bad_numbers"
        assert verify(solution, numbers, target + 1).reason == "wrong_value"


@given(seed=st.integers(0, 2**63), index=st.integers(0, 10**9), is_chat=st.booleans())
def test_references_of_generated_problems_score_one(seed: int, index: int, is_chat: bool) -> None:
    config = CountdownConfig(template="chat" if is_chat else "base")
    task = CountdownTask(config, TaskContext(seed=seed))
    problem = task.problem("train", index)
    text = task.reference(problem) or ""
    completion = Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS)
    assert all(reward.score(problem, completion).value == 1.0 for reward in REWARDS)


@given(index=st.integers(0, 1000), seed=st.integers())
@settings(max_examples=50)
def test_demonstrations_hold_exactly_one_answer(index: int, seed: int) -> None:
    text = TASK.demonstration(TASK.problem("train", index), random.Random(seed))
    assert extract_answer(text) is not None
    assert text.endswith("</answer>")
