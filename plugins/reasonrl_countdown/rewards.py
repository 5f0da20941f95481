"""Two Countdown rewards on the same verifier."""

from reasonrl import Completion, NoConfig, Problem, RewardContext, Score
from reasonrl_countdown.expression import MAX_CHARS, verify
from reasonrl_countdown.extraction import find_answer

FORMAT_VALUE = 0.1
"""TinyZero's reward for a wrong answer."""


class CountdownReward:
    """1.0 for a correct answer, else 0.0; ``reason`` says why."""

    _format_value = 0.0

    def __init__(self, config: NoConfig, context: RewardContext) -> None:
        del config, context

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Score what the model wrote: a prompt contains an example answer, and a tool answers nothing."""
        found = find_answer("".join(completion.replies))
        if not found.answer:
            return Score(value=0.0, correct=False, reason="empty" if found.reason == "ok" else found.reason)
        verdict = verify(found.answer, problem.info["numbers"], problem.info["target"])
        return Score(
            value=1.0 if verdict.correct else self._format_value,
            correct=verdict.correct,
            answer=found.answer[:MAX_CHARS],
            reason=verdict.reason,
        )


class TinyZeroReward(CountdownReward):
    """TinyZero's scale on the strict verifier: 0.0 without an answer, 0.1 for a wrong one, 1.0 for a correct one.

    Differs from TinyZero: the answer may stand on any line after the last ``</think>``, not only on the
    last line; several answers or an empty one are no answer (TinyZero judges the last one, and pays 0.1 for
    an empty one); ``**``, ``//``, decimal points and unary signs are wrong (TinyZero's pattern lets them
    through to ``eval``); values are compared exactly, not up to 1e-5.
    """

    _format_value = FORMAT_VALUE
