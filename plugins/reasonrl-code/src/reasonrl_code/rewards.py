"""The reward: which part of the tests a program passes."""

from typing import Any

from reasonrl import Completion, Problem, RewardContext, Score
from reasonrl_code.config import PassedTestsConfig
from reasonrl_code.extraction import MAX_CHARS, find_program, rest_of_block, rest_of_function
from reasonrl_code.judging import Outcome, judge
from reasonrl_code.sandbox import Launcher, SandboxError


class PassedTestsReward:
    """The fraction of tests passed, or with ``partial_credit=false`` 1.0 for all and 0.0 else.

    Programs run in a sandbox. A program that is too slow, breaks a limit or ends early fails the test at hand.

    Raises:
        NoSandboxError: if this system cannot keep programs apart as the options ask. While scoring (the completion
            stays unscored): DataFaultError when the problem's tests do not run, SandboxError when no sandbox starts.
    """

    def __init__(self, config: PassedTestsConfig, context: RewardContext) -> None:
        del context
        self._partial, self._limits, self._method = config.partial_credit, config.limits(), config.sandbox
        self._launcher = Launcher(self._limits, self._method)

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Run the completion's program against the tests of ``problem.info``."""
        info = dict(problem.info)
        if "tests" not in info:
            return Score(value=0.0, correct=False, reason="no_tests")
        program = _program(info, completion.text)
        if not program.strip() or len(program) > MAX_CHARS:
            return Score(value=0.0, correct=False, reason="too_long" if program.strip() else "no_program")
        outcome = self._judge(info, [info.get("given", ""), program])
        share = outcome.passed / len(outcome.faults)
        is_right = outcome.passed == len(outcome.faults)
        value = share if self._partial else float(is_right)
        return Score(value=value, correct=is_right, answer=program, reason=outcome.reason)

    def _judge(self, info: dict[str, Any], sources: list[str]) -> Outcome:
        try:
            return judge(self._launcher, self._limits, info, sources)
        except SandboxError:  # once: a launcher that was killed is replaced
            self._launcher.close()
            self._launcher = Launcher(self._limits, self._method)
            return judge(self._launcher, self._limits, info, sources)


def _program(info: dict[str, Any], text: str) -> str:
    if info["form"] == "function":
        return str(info["stub"]) + rest_of_function(text)
    return rest_of_block(text) if info["form"] == "block" else find_program(text, info.get("entry", ""))
