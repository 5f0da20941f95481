"""Conformance of tasks: deterministic, index-addressed problems, and references that earn the maximum."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import methodcaller
from typing import ClassVar, get_args

from reasonrl.contracts.data import (
    Completion,
    FinishReason,
    Message,
    Problem,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    Split,
)
from reasonrl.contracts.protocols import RewardContext, Task, TaskContext
from reasonrl.contracts.specs import TaskSpec
from reasonrl.data.both_sides import CONVERSATION, is_conversation
from reasonrl.data.stream import fetch_problem, fetch_size
from reasonrl.data.summary import fetch_summaries
from reasonrl.observability.transcripts import as_turns, plain_prompt
from reasonrl.plugins import Plugins, RewardComponent
from reasonrl.rewards.runner import RewardRunner
from reasonrl.testing.checks import CheckError, CheckResult, Checks, Conformance, NotApplicableError, add_tests, require
from reasonrl.testing.conversations import check_purity, check_replies, check_tools
from reasonrl.testing.digest import digest
from reasonrl.testing.hostile import HOSTILE_TEXTS
from reasonrl.testing.subjects import Subject, add_common, find, typed_config

SPLITS: tuple[Split, ...] = get_args(Split)
PROBLEMS = 200
"""Problems to check per split."""
SEED = 20240607
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from reasonrl.testing.digest import main; main()"


@dataclass(kw_only=True)
class TaskSubject(Subject):
    """A task and ``PROBLEMS`` problems per split, read once."""

    spec: TaskSpec
    count: int = PROBLEMS
    _read: dict[str, list[Problem]] = field(default_factory=dict)

    def new(self, seed: int = SEED) -> Task:
        return self.make(TaskContext(seed=seed))

    @cached_property
    def task(self) -> Task:
        return self.new()

    def indices(self, split: Split) -> range:
        size = fetch_size(self.task, self.spec.name, split)
        return range(self.count if size is None else min(self.count, size))

    def problems(self, split: Split) -> list[Problem]:
        if split not in self._read:
            self._read[split] = self.read(self.task, split, self.indices(split))
        return self._read[split]

    def read(self, task: Task, split: Split, indices: Sequence[int]) -> list[Problem]:
        return [fetch_problem(task, self.spec.name, split, index) for index in indices]

    @property
    def everything(self) -> list[Problem]:
        return [problem for split in SPLITS for problem in self.problems(split)]


checks: Checks[TaskSubject] = Checks()
add_common(checks)


@checks("defaults_are_valid")
def is_built(subject: TaskSubject) -> None:
    """``factory(config, context)`` returns an object with ``size`` and ``problem``."""
    task = subject.task
    require(isinstance(task, Task), f"the factory returned {type(task).__name__}, which lacks size or problem")


@checks("is_built")
def sizes_are_honored(subject: TaskSubject) -> None:
    """``size(split)`` is None or a constant positive number; the last problem exists."""
    for split in SPLITS:
        size = fetch_size(subject.task, subject.spec.name, split)
        require(size is None or size > 0, f"size({split!r}) is {size}; expected None or a positive number")
        again = fetch_size(subject.new(), subject.spec.name, split)
        require(size == again, f"size({split!r}) is {size}, then {again}")
        if size is not None:
            fetch_problem(subject.task, subject.spec.name, split, size - 1)


@checks("is_built")
def problems_are_well_formed(subject: TaskSubject) -> None:
    """Ids are text, prompts are non-empty text or messages."""
    for problem in subject.everything:
        where = f"problem {problem.id!r}"
        require(isinstance(problem.id, str) and bool(problem.id), f"{where}: id must be non-empty text")
        require(isinstance(problem.assistant_prefix, str), f"{where}: assistant_prefix must be text")
        if isinstance(problem.prompt, str):
            require(bool(problem.prompt), f"{where}: the prompt is empty")
        else:
            is_tuple = isinstance(problem.prompt, tuple) and bool(problem.prompt)
            good = is_tuple and all(isinstance(message, Message) for message in problem.prompt)
            require(good, f"{where}: prompt must be text or a tuple of Message, got {problem.prompt!r:.80}")


@checks("problems_are_well_formed")
def info_is_json(subject: TaskSubject) -> None:
    """``info`` round-trips through JSON: no tuples, no NaN, no non-text keys."""
    for problem in subject.everything:
        written = json.dumps(dict(problem.info))
        same = json.loads(written) == dict(problem.info) and "NaN" not in written and "Infinity" not in written
        require(same, f"info of {problem.id!r} does not round-trip through JSON: {written[:80]}")


@checks("problems_are_well_formed")
def ids_are_unique(subject: TaskSubject) -> None:
    """Ids are unique across splits."""
    seen: set[str] = set()
    for problem in subject.everything:
        require(problem.id not in seen, f"two problems have the id {problem.id!r}")
        seen.add(problem.id)


@checks("problems_are_well_formed")
def problems_are_repeatable(subject: TaskSubject) -> None:
    """Problems depend only on seed, split and index, not on order or the object."""
    other = subject.new()
    for split in SPLITS:
        first, backwards = subject.problems(split), list(reversed(subject.indices(split)))
        for name, task in (("the same object", subject.task), ("a new object", other)):
            again = subject.read(task, split, backwards)[::-1]
            for index, (one, two) in enumerate(zip(first, again, strict=True)):
                message = f"problem({split!r}, {index}) changes when {name} reads it in another order"
                require(one == two, message)


@checks("problems_are_well_formed")
def problems_are_the_same_everywhere(subject: TaskSubject) -> None:
    """A new process with another PYTHONHASHSEED produces the same problems."""
    made = {split: [digest(p) for p in subject.problems(split)] for split in SPLITS}
    counts = {split: len(problems) for split, problems in made.items()}
    request = (subject.spec.factory, subject.config, SEED, counts, subject.spec.name)
    try:
        payload = pickle.dumps(request)
    except (pickle.PicklingError, AttributeError, TypeError) as err:
        raise NotApplicableError(f"factory or config cannot be pickled: {err}") from None
    for split, theirs in _elsewhere(payload).items():
        for index, (mine, other) in enumerate(zip(made[split], theirs, strict=True)):
            require(mine == other, f"problem({split!r}, {index}) differs in another process")


def _elsewhere(payload: bytes) -> dict[Split, list[str]]:
    command = [sys.executable, "-P", "-c", CHILD, json.dumps([p or "." for p in sys.path])]
    env = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(command, input=payload, capture_output=True, env=env, timeout=300, check=False)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    require(
        done.returncode == 0, f"another process failed to produce the problems: {said[-1] if said else 'no output'}"
    )
    return json.loads(done.stdout.splitlines()[-1])


@checks("problems_are_well_formed")
def the_seed_matters(subject: TaskSubject) -> None:
    """Another seed gives an endless split different problems; a dataset may ignore the seed."""
    if fetch_size(subject.task, subject.spec.name, "train") is not None:
        raise NotApplicableError("the train split is finite")
    indices = subject.indices("train")
    mine = [p.prompt for p in subject.problems("train")]
    theirs = [p.prompt for p in subject.read(subject.new(SEED + 1), "train", indices)]
    require(mine != theirs, "two seeds give the same problems; derive them from context.seed")


@checks("problems_are_well_formed")
def splits_are_apart(subject: TaskSubject) -> None:
    """No prompt is in both train and eval."""
    train = {(p.prompt, p.assistant_prefix): p.id for p in subject.problems("train")}
    for problem in subject.problems("eval"):
        twin = train.get((problem.prompt, problem.assistant_prefix))
        require(twin is None, f"{problem.id!r} of eval has the same prompt as {twin!r} of train")


@checks("problems_are_well_formed")
def global_randomness_is_left_alone(subject: TaskSubject) -> None:
    """It does not use the global generator of ``random``."""
    state = random.getstate()
    subject.read(subject.new(), "train", subject.indices("train")[:20])
    untouched = random.getstate() == state
    random.setstate(state)
    require(untouched, "it used the global random generator; create a random.Random")


@checks("problems_are_well_formed")
def references_earn_the_maximum(subject: TaskSubject) -> None:
    """``reference(problem)`` earns the maximum of each of the task's default rewards."""
    reference = getattr(subject.task, "reference", None)
    if reference is None:
        raise NotApplicableError("the task has no reference")
    if not subject.spec.default_rewards:
        raise NotApplicableError("the task has no default rewards")
    specs = {name: subject.plugins.get("reward", name) for name in subject.spec.default_rewards}
    rewards = {n: RewardComponent(spec=s, config=typed_config(s, {})) for n, s in specs.items()}
    with RewardRunner.build(rewards, subject.plugins, RewardContext(seed=SEED)) as runner:
        for problem in subject.everything:
            _check_reference(problem, reference(problem), runner, {n: s.range[1] for n, s in specs.items()})


def _check_reference(problem: Problem, text: object, runner: RewardRunner, tops: Mapping[str, float]) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise CheckError(f"reference of {problem.id!r} is {type(text).__name__}, expected text or None")
    output = runner.score(group_of(problem, [text])).rewards[0]
    for name, top in tops.items():
        value = output.components[name]
        why = f" ({output.reasons[name]})" if name in output.reasons else ""
        require(value == top, f"the reference of {problem.id!r} earns {value} from {name!r}, expected {top}{why}")


@checks("problems_are_well_formed")
def demonstrations_are_repeatable(subject: TaskSubject) -> None:
    """``demonstration(problem, rng)`` is text, a conversation or None, and depends only on its arguments."""
    if getattr(subject.task, "demonstration", None) is None:
        raise NotApplicableError("the task has no demonstration")
    for problem in subject.problems("train")[:50]:
        tasks = (subject.task, subject.new())
        one, two = (methodcaller("demonstration", problem, random.Random(7))(task) for task in tasks)
        is_valid = one is None or isinstance(one, str) or is_conversation(one)
        expected = f"expected text, {CONVERSATION}, or None"
        require(is_valid, f"demonstration of {problem.id!r} is {type(one).__name__}; {expected}")
        require(one == two, f"demonstrations of {problem.id!r} differ for equal generators")


@checks("problems_are_well_formed")
def behaviors_are_numbers(subject: TaskSubject) -> None:
    """``behaviors(problem, text)`` returns named numbers for any text, NaN if not applicable."""
    behaviors = getattr(subject.task, "behaviors", None)
    if behaviors is None:
        raise NotApplicableError("the task has no behaviors")
    problem = subject.problems("eval")[0]
    for text in HOSTILE_TEXTS:
        for name, value in behaviors(problem, text).items():
            named = isinstance(name, str) and name.isidentifier() and name == name.lower()
            require(named, f"behavior {name!r}: expected lower-case words with underscores")
            good = isinstance(value, int | float) and not math.isinf(value)
            require(good, f"behavior {name!r} of {text[:20]!r} is {value!r}, expected a number")


@checks("problems_are_well_formed")
def replies_have_the_form_of_the_prompt(subject: TaskSubject) -> None:
    """``respond(transcript)`` answers any message with a turn like the prompt, or None, and a state of JSON."""
    check_replies(subject.task, subject.spec.name, subject.problems("train")[:4])


@checks("replies_have_the_form_of_the_prompt")
def replies_are_repeatable(subject: TaskSubject) -> None:
    """``respond`` depends only on the transcript, not on order or the object."""
    check_purity(subject.task, subject.new(), subject.spec.name, subject.problems("train")[:4])


@checks("problems_are_well_formed")
def tools_can_be_called(subject: TaskSubject) -> None:
    """``tools()`` are documented functions with typed arguments, and the task can be built in a worker."""
    check_tools(subject.task, subject.spec.name, subject.spec.factory, subject.config)


@checks("is_built")
def data_summaries_add_up(subject: TaskSubject) -> None:
    """``data_summary()`` agrees with the sizes of the splits."""
    if getattr(subject.task, "data_summary", None) is None:
        raise NotApplicableError("the task has no data_summary")
    summaries = fetch_summaries(subject.task, subject.spec.name)
    for summary in summaries:
        counts = [*summary.kept.values(), *summary.dropped.values()]
        require(min(counts, default=0) >= 0, f"a count of {summary.source!r} is negative: {summary}")
    for split in SPLITS if summaries else ():
        kept = sum(summary.kept.get(split, 0) for summary in summaries)
        size = fetch_size(subject.task, subject.spec.name, split)
        require(kept == size, f"data_summary() keeps {kept} rows in {split}, but size({split!r}) is {size}")


def group_of(problem: Problem, texts: Sequence[str]) -> RolloutGroup:
    """Build a group of completions with these texts and one token each."""
    completions = tuple(completion_of(text, problem) for text in texts)
    prompt_text = completions[0].prompt_text if completions else ""
    request = RolloutRequest(
        problem=problem,
        prompt_ids=(0,),
        group_size=len(texts),
        sampling=SamplingParams(),
        seed=0,
        prompt_text=prompt_text,
    )
    return RolloutGroup(request=request, completions=completions)


def completion_of(text: str, problem: Problem | None = None, *, prompt_text: str | None = None) -> Completion:
    """Build a finished completion with this text.

    ``prompt_text`` is what it continues; by default the prompt and prefix of ``problem``, without a chat template's
    markup.
    """
    if prompt_text is None:
        prompt_text = as_turns(plain_prompt(problem)) if problem is not None else ""
    return Completion(
        token_ids=(0,), logprobs=(-1.0,), text=text, finish_reason=FinishReason.EOS, prompt_text=prompt_text
    )


def check_task(
    spec: str | TaskSpec,
    config: Mapping[str, object] | None = None,
    *,
    plugins: Plugins | None = None,
    files: Sequence[str] = (),
    count: int = PROBLEMS,
) -> list[CheckResult]:
    """Run every check of a task.

    Args:
        spec: its name, or a TaskSpec. config: its options, as in a recipe.
        plugins: what is installed, by default; ``files`` are loaded besides.
        count: problems of each split to look at.

    Raises:
        PluginNotFoundError: if there is no such task.
    """
    found, known = find("task", spec, plugins, files)
    subject = TaskSubject(spec=found, plugins=known, options=config or {}, count=count)
    return checks.run(subject, subject.label)


class TaskConformance(Conformance):
    """Tests of a task: ``class TestAdd(TaskConformance): spec = "add"; config = {"count": 4}``."""

    count: ClassVar[int] = PROBLEMS

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        return check_task(cls.spec, cls.config, files=cls.plugins, count=cls.count)


add_tests(TaskConformance, checks)
