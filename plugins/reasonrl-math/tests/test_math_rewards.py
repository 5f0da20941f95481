"""Boxed answers compared by value, and the shape of a completion."""

import pytest

from reasonrl import Completion, FinishReason, Message, NoConfig, Problem, RewardContext, Score
from reasonrl.testing import completion_of
from reasonrl_math import rewards
from reasonrl_math.rewards import BoxedReward, ThinkFormatReward, find_boxed


def completion(text: str) -> Completion:
    return Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS)


def boxed(known: str, text: str) -> Score:
    problem = Problem(id="m/0", prompt="?", info={"answer": known})
    return BoxedReward(NoConfig(), RewardContext()).score(problem, completion(text))


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        ("18", "18"),
        ("18", "18.0"),
        ("1,234", "1234"),
        ("1234", "1,234"),
        ("\\frac{1}{2}", "0.5"),
        ("0.5", "\\frac{2}{4}"),
        ("x^2+1", "1 + x^2"),
        ("\\frac{3}{4}", "\\dfrac34"),
        ("(1, 2)", "(1,2)"),
        ("1234", "1234."),
        ("1234.", "1234"),
        ("1234", "1\\,234"),
        ("12 1/2", "12.5"),
    ],
)
def test_equal_values_are_right(known: str, answer: str) -> None:
    score = boxed(known, f"<think>a</think> It is \\boxed{{{answer}}}.")
    assert (score.value, score.correct, score.answer) == (1.0, True, answer)


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        *(("18", a) for a in ("19", "", "x", "\\text{eighteen}", "}{", "9^{9^{9}}", "__import__('os')", "17=18")),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
        ("5", "2=5"),
        ("1/3", "0.333333"),
    ],
)
def test_anything_else_is_wrong(known: str, answer: str) -> None:
    score = boxed(known, f"\\boxed{{{answer}}}")
    assert (score.value, score.correct) == (0.0, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{\\frac{1}{2}}", ("\\frac{1}{2}", "")),
        ("\\boxed{1} and again \\boxed{1}", ("1", "")),
        ("\\boxed{1} or \\boxed{2}", ("2", "")),
        ("\\boxed{1}, that is \\boxed{}", (None, "no_answer")),
        ("<think>\\boxed{1}</think> \\boxed{2}", ("2", "")),
        ("<think>\\boxed{1}</think>", (None, "no_answer")),
        ("\\boxed{1", (None, "no_answer")),
        ("\\boxed{ }", (None, "no_answer")),
        ("1", (None, "no_answer")),
        ("\\boxed{" + "1" * 501 + "}", (None, "too_long")),
    ],
)
def test_where_the_answer_is_looked_for(text: str, found: tuple[str | None, str]) -> None:
    assert find_boxed(text) == found


def test_a_known_answer_that_cannot_be_read_leaves_the_completion_unscored() -> None:
    with pytest.raises(ValueError, match=r"the known answer .* cannot be read: .* is not closed"):
        boxed("\\qqq{", "\\boxed{1}")
    assert boxed("\\qqq", "\\boxed{\\qqq}").value == 1.0, "equal texts need no reading"


def test_an_answer_that_takes_too_long_is_wrong_and_not_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare_for_ever(known: str, answer: str) -> bool:
        while True:
            pass

    monkeypatch.setattr(rewards, "is_equal", compare_for_ever)
    monkeypatch.setattr(rewards, "_LIMIT_S", 0.05)
    score = boxed("5", "\\boxed{5}")
    assert (score.value, score.correct, score.reason) == (0.0, False, "too_slow")


@pytest.mark.parametrize(
    ("text", "opened", "plain"),
    [
        ("<think>a</think>b", "several_tags", ""),
        ("  <think>\na\n</think>\n\nb", "several_tags", ""),
        ("a</think>b", "", "no_opening"),
        ("</think>b", "no_reasoning", "no_opening"),
        ("a</think> \n", "no_answer", "no_opening"),
        ("a", "no_closing", "no_opening"),
        ("<think>a</think>", "several_tags", "no_answer"),
        ("<think> </think>b", "several_tags", "no_reasoning"),
        ("<think>a</think>b</think>", "several_tags", "several_tags"),
        ("x<think>a</think>b", "several_tags", "no_opening"),
    ],
)
def test_the_shape_of_a_completion(text: str, opened: str, plain: str) -> None:
    reward = ThinkFormatReward(NoConfig(), RewardContext())
    raw = Problem(id="m/0", prompt="Question: ?", assistant_prefix=" <think>")
    chat = Problem(id="m/1", prompt=(Message(role="user", content="Use <think> </think>."),))
    for problem, prompt_text, reason in (
        (raw, "Question: ? <think>", opened),
        (chat, "<|user|>Use <think> </think>.<|assistant|><think>\n", opened),  # DeepSeek-R1, Qwen3 thinking
        (chat, "<|user|>Use <think> </think>.<|assistant|>", plain),
        (chat, "<|user|>Use <think> </think>.<|assistant|><think>\n\n</think>\n\n", plain),  # thinking off
    ):
        score = reward.score(problem, completion_of(text, prompt_text=prompt_text))
        assert (score.value, score.reason, score.correct) == (0.0 if reason else 1.0, reason, None)
