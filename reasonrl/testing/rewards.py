"""Conformance of rewards: for any completion a finite score, in range, in time, and deterministic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from reasonrl.contracts.data import Problem, RolloutGroup, Score
from reasonrl.contracts.protocols import GroupReward, Reward, RewardContext, Task, TaskContext
from reasonrl.contracts.specs import RewardSpec, TaskSpec
from reasonrl.data.stream import fetch_problem
from reasonrl.errors import PluginNotFoundError
from reasonrl.plugins import Plugins
from reasonrl.rewards.judging import Kind, Verdict, judge_group, judge_one, kind_of
from reasonrl.rewards.pool import Request, WorkerPool
from reasonrl.testing.checks import CheckResult, Checks, Conformance, NotApplicableError, add_tests, require
from reasonrl.testing.hostile import HOSTILE_TEXTS
from reasonrl.testing.subjects import Subject, add_common, find, typed_config
from reasonrl.testing.tasks import group_of

SEED = 20240607
PROBLEMS = 5


@dataclass(kw_only=True)
class RewardSubject(Subject):
    """A reward, and problems to score. Without a task the problem has no info."""

    spec: RewardSpec
    task_spec: TaskSpec | None = None
    task_options: Mapping[str, object] | None = None
    is_paired: bool = False
    """Whether the task was given or uses this reward, so that its references must earn the maximum."""

    def new(self) -> Reward | GroupReward:
        return self.make(RewardContext(seed=SEED))

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.new(), self.spec.name)

    @cached_property
    def task(self) -> Task | None:
        if self.task_spec is None:
            return None
        config = typed_config(self.task_spec, self.task_options or {})
        return self.plugins.build(self.task_spec, config, TaskContext(seed=SEED))

    @cached_property
    def problems(self) -> list[Problem]:
        if self.task is None or self.task_spec is None:
            return [Problem(id="check/0", prompt="2 + 2 =")]
        size = self.task.size("train")
        count = PROBLEMS if size is None else min(PROBLEMS, size)
        return [fetch_problem(self.task, self.task_spec.name, "train", i) for i in range(count)]

    @cached_property
    def references(self) -> list[tuple[Problem, str]]:
        """Return problems with correct completions."""
        reference = getattr(self.task, "reference", None)
        pairs = [(p, reference(p)) for p in self.problems] if reference is not None else []
        return [(problem, text) for problem, text in pairs if text is not None]

    @cached_property
    def group(self) -> RolloutGroup:
        """Build a group of the first problem, all adversarial completions, an echo of the prompt and a reference."""
        problem = self.problems[0]
        prompt = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1].content
        right = [text for of, text in self.references if of is problem]
        return group_of(problem, [*HOSTILE_TEXTS, prompt, *right])

    @cached_property
    def elsewhere(self) -> list[Verdict]:
        """Score ``group`` in a separate process, which may be killed."""
        spec = replace(self.spec, isolation="process")
        pool = WorkerPool(spec, self.config, RewardContext(seed=SEED), name=self.spec.name, size=1)
        try:
            if pool.open() == "group":
                return pool.ask([Request((self.group,), len(self.group.completions))])[0]
            problem = self.group.request.problem
            return [v for (v,) in pool.ask([Request((problem, c)) for c in self.group.completions])]
        finally:
            pool.close()

    def here(self, reward: Reward | GroupReward, group: RolloutGroup) -> list[Verdict]:
        """Score a copy in this process, because the reward may change the problem."""
        return self.ask(reward, replace(group, request=replace(group.request, problem=_copy(group))))

    def ask(self, reward: Reward | GroupReward, group: RolloutGroup) -> list[Verdict]:
        kind_of(reward, self.spec.name)  # refuses what is neither
        if isinstance(reward, GroupReward):
            return judge_group(reward, group, name=self.spec.name)
        return [judge_one(reward, group.request.problem, c, name=self.spec.name) for c in group.completions]

    def require_none(self, trouble: str) -> None:
        """Require that no completion of the group had this trouble."""
        for text, verdict in zip(self.texts, self.elsewhere, strict=True):
            said = verdict.score.reason
            last = verdict.details.strip().splitlines()[-1:] if trouble == "raised" else []
            require(verdict.trouble != trouble, f"of {text[:30]!r}: {said}{': ' if last else ''}{''.join(last)}")

    @property
    def texts(self) -> list[str]:
        return [completion.text for completion in self.group.completions]


checks: Checks[RewardSubject] = Checks()
add_common(checks)


@checks("defaults_are_valid")
def is_built(subject: RewardSubject) -> None:
    """``factory(config, context)`` returns an object with ``score`` or ``score_group``."""
    require(subject.kind in ("each", "group"), f"kind {subject.kind}")


@checks("is_built")
def works_in_a_process(subject: RewardSubject) -> None:
    """It can be imported and built in another process, because a recipe may isolate any reward."""
    require(len(subject.elsewhere) == len(subject.texts), "it gave no answer")


@checks("works_in_a_process")
def answers_in_time(subject: RewardSubject) -> None:
    """No completion exceeds ``timeout_s`` or kills the process."""
    subject.require_none("lost")


@checks("works_in_a_process")
def never_raises(subject: RewardSubject) -> None:
    """It never raises, which would leave a completion unscored."""
    subject.require_none("raised")


@checks("works_in_a_process")
def scores_are_well_formed(subject: RewardSubject) -> None:
    """It returns a Score, a finite number or None, with fields of the right types."""
    subject.require_none("refused")


@checks("works_in_a_process")
def values_are_in_range(subject: RewardSubject) -> None:
    """Every value is within the declared range."""
    low, high = subject.spec.range
    require(low < high, f"range is {subject.spec.range}; expected (low, high)")
    for text, verdict in zip(subject.texts, subject.elsewhere, strict=True):
        value = verdict.score.value
        require(value is None or low <= value <= high, f"of {text[:30]!r}: {value} is outside [{low}, {high}]")


@checks("answers_in_time", "never_raises", "scores_are_well_formed")
def is_the_same_in_both_processes(subject: RewardSubject) -> None:
    """It returns the same scores in the trainer's process and in a separate one."""
    _require_equal(subject, subject.elsewhere, subject.here(subject.new(), subject.group), "in this process")


@checks("answers_in_time", "never_raises", "scores_are_well_formed")
def does_not_remember(subject: RewardSubject) -> None:
    """It is stateless: repeated and reordered calls return the same scores."""
    reward = subject.new()
    first = subject.here(reward, subject.group)
    _require_equal(subject, first, subject.here(reward, subject.group), "when asked again")
    if subject.kind == "each":
        completions = subject.group.completions[::-1]
        backwards = subject.here(reward, replace(subject.group, completions=completions))
        _require_equal(subject, first, backwards[::-1], "in another order")


@checks("answers_in_time", "never_raises")
def leaves_the_problem_alone(subject: RewardSubject) -> None:
    """It does not change ``problem.info``."""
    own = _copy(subject.group)
    before = deepcopy(dict(own.info))
    subject.ask(subject.new(), replace(subject.group, request=replace(subject.group.request, problem=own)))
    require(dict(own.info) == before, f"scoring changed info from {before} to {dict(own.info)}")


@checks("answers_in_time", "never_raises", "scores_are_well_formed")
def references_earn_the_maximum(subject: RewardSubject) -> None:
    """The task's reference solutions earn the maximum."""
    if not (subject.is_paired and subject.references):
        raise NotApplicableError("no task with references for it")
    reward, top = subject.new(), subject.spec.range[1]
    for problem, text in subject.references:
        score = subject.here(reward, group_of(problem, [text]))[0].score
        require(score.value == top, f"the reference of {problem.id!r} earns {score.value}, expected {top}")


@checks("answers_in_time", "never_raises", "scores_are_well_formed")
def tells_completions_apart(subject: RewardSubject) -> None:
    """Correct and other completions earn different rewards."""
    if not subject.references:
        raise NotApplicableError("no correct answer is known")
    values = {verdict.score.value for verdict in subject.elsewhere}
    require(len(values) > 1, f"every completion earns {values.pop()}, including a correct one")


def _copy(group: RolloutGroup) -> Problem:
    problem = group.request.problem
    return replace(problem, info=deepcopy(dict(problem.info)))


def _require_equal(subject: RewardSubject, first: Sequence[Verdict], second: Sequence[Verdict], when: str) -> None:
    for text, one, two in zip(subject.texts, first, second, strict=True):
        expected, got = _plain(one.score), _plain(two.score)
        require(expected == got, f"of {text[:30]!r}: {expected}, but {got} {when}")


def _plain(score: Score) -> tuple[object, ...]:
    return score.value, score.correct, score.answer, score.reason


def check_reward(
    spec: str | RewardSpec,
    config: Mapping[str, object] | None = None,
    *,
    task: str | TaskSpec | None = None,
    task_config: Mapping[str, object] | None = None,
    plugins: Plugins | None = None,
    files: Sequence[str] = (),
) -> list[CheckResult]:
    """Run every check of a reward.

    Args:
        spec: its name, or a RewardSpec. config: its options, as in a recipe.
        task: name or spec of the task whose problems it judges; default: one whose ``default_rewards`` name it, else
            one of the same plugin, else a problem that holds nothing.

    Raises:
        PluginNotFoundError: if there is no such reward or task.
    """
    found, known = find("reward", spec, plugins, files)
    chosen, paired = (find("task", task, known, ())[0], True) if task is not None else _guess(found, known)
    subject = RewardSubject(
        spec=found, plugins=known, options=config or {}, task_spec=chosen, task_options=task_config, is_paired=paired
    )
    return checks.run(subject, subject.label)


def _guess(spec: RewardSpec, plugins: Plugins) -> tuple[TaskSpec | None, bool]:
    tasks = [task for task in plugins.specs("task") if isinstance(task, TaskSpec)]
    for task in tasks:
        if spec.name in task.default_rewards:
            return task, True
    try:
        owner = plugins.provider("reward", spec.name)
    except PluginNotFoundError:
        return None, False
    return next((t for t in tasks if plugins.provider("task", t.name) == owner), None), False


class RewardConformance(Conformance):
    """Tests of a reward: ``class TestAdd(RewardConformance): spec = "add"; task = "add"``."""

    task: ClassVar[Any] = None
    task_config: ClassVar[Mapping[str, object]] = {}

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        return check_reward(cls.spec, cls.config, task=cls.task, task_config=cls.task_config, files=cls.plugins)


add_tests(RewardConformance, checks)
