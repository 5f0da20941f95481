"""Scores groups with every reward of a recipe and combines the scores.

A reward that raises, hangs, dies or returns nonsense leaves that completion *unscored*: masked in training, out of the
group's statistics, counted; never a silent 0. The first traceback of each reward goes to the log, later ones are
counted.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from reasonrl.contracts.data import Problem, RewardOutput, RolloutGroup, Score, ScoredGroup
from reasonrl.contracts.protocols import GroupReward, Reward, RewardContext
from reasonrl.contracts.specs import RewardSpec
from reasonrl.plugins import Plugins, RewardComponent
from reasonrl.redact import WarnOnce, known_secrets, redact_text, redacting_logger
from reasonrl.rewards.judging import (
    NO_SCORE,
    UNSCORABLE,
    Kind,
    Verdict,
    fitted,
    judge_group,
    judge_one,
    kind_of,
    unfinished,
)
from reasonrl.rewards.pool import Request, WorkerPool

log = redacting_logger(__name__)

MIN_SILENT = 4
"""So many completions at once without any score are more than completions that cannot be judged."""


class _InlineJudge:
    """A reward in this process, for code that is trusted to return."""

    def __init__(self, reward: Reward | GroupReward, name: str) -> None:
        self._reward, self._name = reward, name

    def judge(self, groups: Sequence[RolloutGroup]) -> list[list[Verdict]]:
        return [self._judge(group) for group in groups]

    def _judge(self, group: RolloutGroup) -> list[Verdict]:
        problem = group.request.problem
        if isinstance(self._reward, GroupReward):
            own = replace(group, request=replace(group.request, problem=_copy_problem(problem)))
            return judge_group(self._reward, own, name=self._name)
        return [judge_one(self._reward, _copy_problem(problem), c, name=self._name) for c in group.completions]

    def pop_retired(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing to end."""


class _ProcessJudge:
    """A reward in worker processes. Completions of all groups are judged at the same time."""

    def __init__(self, pool: WorkerPool, kind: Kind) -> None:
        self._pool, self._kind = pool, kind

    def judge(self, groups: Sequence[RolloutGroup]) -> list[list[Verdict]]:
        if self._kind == "group":
            return self._pool.ask([Request((group,), len(group.completions)) for group in groups])
        requests = [
            Request((group.request.problem, completion))
            for group in groups
            for completion in group.completions
            if completion.finish_reason not in UNSCORABLE
        ]
        answers = iter(self._pool.ask(requests))
        return [[unfinished(c) or next(answers)[0] for c in group.completions] for group in groups]

    def pop_retired(self) -> list[str]:
        reasons = list(self._pool.retired)
        self._pool.retired.clear()
        return reasons

    def close(self) -> None:
        self._pool.close()


_Judge = _InlineJudge | _ProcessJudge
"""Asks one reward about the completions of many groups."""

Workers = dict[bytes, _ProcessJudge]
"""Worker processes by what they were told to build."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    spec: RewardSpec
    weight: float
    judge: _Judge


class RewardRunner:
    """All rewards of one recipe, in its order. A context manager: leaving it ends the worker processes, if any."""

    def __init__(self, entries: Sequence[_Entry], warn_once: WarnOnce) -> None:
        self._entries = tuple(entries)
        self._warn_once = warn_once

    @classmethod
    def build(
        cls,
        rewards: Mapping[str, RewardComponent],
        plugins: Plugins,
        context: RewardContext,
        warn_once: WarnOnce | None = None,
        workers: "Workers | None" = None,
    ) -> "RewardRunner":
        """Build every reward of ``rewards`` (name -> spec, config, weight).

        Runners that share ``warn_once`` warn once between them; those that share ``workers`` start the worker
        processes of equal rewards once.

        Raises:
            RecipeError: if a reward cannot be built, here or in a worker.
            PluginContractError: if a reward cannot be built, here or in a worker.
        """
        shared = Workers() if workers is None else workers
        entries = [
            _Entry(name, slot.spec, slot.weight, _build_judge(name, slot, plugins, context, shared))
            for name, slot in rewards.items()
        ]
        return cls(entries, warn_once or WarnOnce(log))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rewards, in the recipe's order."""
        return tuple(entry.name for entry in self._entries)

    def __enter__(self) -> "RewardRunner":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes. Without it they end when the runner is collected or this process ends."""
        for entry in self._entries:
            entry.judge.close()

    def score(self, group: RolloutGroup) -> ScoredGroup:
        """One ``RewardOutput`` for each completion of ``group``."""
        return self.score_all([group])[0]

    def score_all(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """``score`` of each group, in order; isolated rewards judge all their completions at the same time."""
        columns = [self._scores(entry, groups) for entry in self._entries]
        known = known_secrets()
        return [
            ScoredGroup(
                group=group,
                rewards=tuple(
                    self._combine([column[g][c] for column in columns], known) for c in range(len(group.completions))
                ),
            )
            for g, group in enumerate(groups)
        ]

    def _scores(self, entry: _Entry, groups: Sequence[RolloutGroup]) -> list[list[Score]]:
        judged = [
            [fitted(verdict, entry.spec.range, c) for verdict, c in zip(verdicts, group.completions, strict=True)]
            for verdicts, group in zip(entry.judge.judge(groups), groups, strict=True)
        ]
        for reason in entry.judge.pop_retired():
            self._warn(entry.name, "retired", f"{reason}; its worker was replaced, its score kept")
        flat = [verdict for verdicts in judged for verdict in verdicts]
        for verdict in (v for v in flat if v.trouble):
            self._report(entry.name, verdict)
        if len(flat) >= MIN_SILENT and all(v.score.reason == NO_SCORE and v.score.value is None for v in flat):
            self._warn(entry.name, "silent", f"returned None for all of {len(flat)} completions; they stay unscored")
        return [[verdict.score for verdict in verdicts] for verdicts in judged]

    def _report(self, name: str, verdict: Verdict) -> None:
        """Log the first trouble of its kind that a reward makes."""
        said = "raised" if verdict.trouble == "raised" else verdict.score.reason
        text = f"{said}; the completion stays unscored"
        if verdict.details:
            text += f"\n{verdict.details.rstrip()}"
        self._warn(name, verdict.trouble, text, verdict.error)

    def _warn(self, name: str, trouble: str, text: str, error: BaseException | None = None) -> None:
        self._warn_once((name, trouble), "reward %r %s", name, text, error=error)

    def _combine(self, scores: Sequence[Score], known: Sequence[str]) -> RewardOutput:
        """One completion's rewards; their texts, which files, trackers and terminals show, without secrets."""
        named = list(zip(self._entries, scores, strict=True))
        values = [score.value for score in scores]
        unscored = any(value is None for value in values)
        total = None if unscored else sum(e.weight * s.value for e, s in named if s.value is not None)
        return RewardOutput(
            total=total,
            components={entry.name: score.value for entry, score in named},
            correct=None if unscored else _verdict(named),
            answer=next((redact_text(s.answer, known) for s in scores if s.answer is not None), None),
            token_values=() if unscored else _add_token_values(named),
            metrics={f"{e.name}/{redact_text(key, known)}": v for e, s in named for key, v in s.metrics.items()},
            reasons={entry.name: redact_text(score.reason, known) for entry, score in named if score.reason},
        )


def _build_judge(
    name: str, slot: RewardComponent, plugins: Plugins, context: RewardContext, workers: Workers
) -> _Judge:
    if slot.spec.isolation == "process":
        pool = WorkerPool(slot.spec, slot.config, context, name=name)
        if pool.identity not in workers:
            workers[pool.identity] = _ProcessJudge(pool, pool.open())
        return workers[pool.identity]
    reward = plugins.build(slot.spec, slot.config, context)
    kind_of(reward, name)  # refuses what is neither
    return _InlineJudge(reward, name)


def _copy_problem(problem: Problem) -> Problem:
    """``info`` holds lists that a reward could sort or empty, for itself and for every later epoch."""
    return replace(problem, info=deepcopy(dict(problem.info)))


def _verdict(named: Sequence[tuple[_Entry, Score]]) -> bool | None:
    """The first reward that states whether the completion is correct; if none does, the first one's range."""
    stated = next((score.correct for _, score in named if score.correct is not None), None)
    if stated is not None or not named:
        return stated
    entry, score = named[0]
    return score.value is not None and score.value >= entry.spec.range[1]


def _add_token_values(named: Sequence[tuple[_Entry, Score]]) -> tuple[float, ...]:
    weighted = [[e.weight * v for v in s.token_values] for e, s in named if s.token_values]
    return tuple(sum(column) for column in zip(*weighted, strict=True))
