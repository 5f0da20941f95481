"""The dataset's own scorer as a reward. Runs in a worker process: see the spec in ``plugin.py``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonrl import Completion, Problem, RewardContext, Score
from reasonrl.contracts.clock import TooSlowError, limited_to
from reasonrl_reasoning_gym.catalog import gym
from reasonrl_reasoning_gym.config import ReasoningGymRewardConfig
from reasonrl_reasoning_gym.extraction import find_answer
from reasonrl_reasoning_gym.guard import is_harmless
from reasonrl_reasoning_gym.plain import from_plain
from reasonrl_reasoning_gym.source import entry_of, make_dataset, options_key, undisturbed

RIGHT = 0.999
"""Scores are sums of floating point parts; from here on an answer is right."""
_SHOWN_CHARS = 200
_LIMIT_S = 3.0
"""For scoring one answer. The worker is killed only when this fails to stop it."""


@dataclass
class _Scorer:
    """Datasets by name and options, made once. Their scorers read the entry, not the dataset's seed."""

    _made: dict[tuple[str, str], Any] = field(default_factory=dict)

    def prepare(self, info: Mapping[str, Any]) -> Any:
        """The dataset, made at its first use."""
        name, options = info["dataset"], info["options"]
        key = (name, options_key(options))
        if key not in self._made:
            self._made[key] = make_dataset(name, options, seed=0)
        return self._made[key]

    def score(self, info: Mapping[str, Any], answer: str) -> float:
        """The score that the dataset gives ``answer``; its scorer may raise anything."""
        name, dataset = info["dataset"], self.prepare(info)
        entry = {"question": info["question"], "answer": info["answer"], "metadata": _metadata(info)}
        with undisturbed(f"{name}/score"):
            return float(dataset.score_answer(answer, entry))


class ReasoningGymReward:
    """0 to 1 by the dataset's scorer; ``correct`` from 0.999 on.

    A completion without exactly one answer, or with one that the guard refuses or that takes over 3 s to score, earns
    0. So does one on which the scorer fails, if it does not fail on the right answer; if it does, the completion stays
    unscored.
    """

    def __init__(self, config: ReasoningGymRewardConfig, context: RewardContext) -> None:
        del context
        gym()  # now, not on the clock of the first completion
        self._config = config
        self._scorer = _Scorer()

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Judge the completion's text; ``problem.info`` is what ``ReasoningGymTask`` wrote there."""
        info = problem.info
        found = find_answer(completion.text, info["answer_tag"])
        if found.answer is None:
            return _wrong(found.reason)
        if not is_harmless(info["dataset"], found.answer):
            return _wrong("refused_answer", found.answer)
        try:
            self._scorer.prepare(info)  # its time is not the answer's
            with limited_to(_LIMIT_S):
                value = self._scorer.score(info, found.answer)
        except TooSlowError:
            return _wrong("too_slow", found.answer)
        except Exception as err:  # noqa: BLE001 - a foreign scorer may raise anything on what a model writes
            if info["answer"] is not None:
                self._scorer.score(info, info["answer"])  # raises if what the model wrote is not to blame
            return _wrong(f"unreadable: {type(err).__name__}", found.answer)
        return self._judged(value, found.answer)

    def _judged(self, value: float, answer: str) -> Score:
        if not math.isfinite(value):
            raise ValueError(f"the dataset's scorer returned {value}")
        is_right = value >= RIGHT
        paid = min(max(value, 0.0), 1.0) if self._config.partial_credit else 0.0
        return Score(
            value=1.0 if is_right else paid,
            correct=is_right,
            answer=answer[:_SHOWN_CHARS],
            reason="right" if is_right else ("partly_right" if value > 0.0 else "wrong"),
        )


def _wrong(reason: str, answer: str | None = None) -> Score:
    return Score(value=0.0, correct=False, answer=answer and answer[:_SHOWN_CHARS], reason=reason)


def _metadata(info: Mapping[str, Any]) -> Any:
    if info["metadata"] is not None:
        return from_plain(info["metadata"])
    # It holds objects that JSON has not: the entry is made again where it is needed.
    dataset = make_dataset(info["dataset"], info["options"], info["seed"])
    made = entry_of(dataset, info["dataset"], info["options"], info["seed"], info["position"])
    if made.answer != info["answer"]:
        raise ValueError(f"{info['dataset']} does not give the same entry twice")
    return made.metadata
