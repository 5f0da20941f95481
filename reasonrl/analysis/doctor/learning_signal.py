"""Checks of the learning signal: rewards, groups, lengths, held-out accuracy."""

from collections.abc import Iterator, Mapping

from reasonrl.analysis.doctor.curve import WINDOW, Curve
from reasonrl.analysis.doctor.findings import Finding, Severity
from reasonrl.analysis.doctor.records import RunRecords, number
from reasonrl.contracts.metric_keys import MAX_UNSCORED_FRAC

FLAT_FRAC = 0.8
"""Healthy runs of the packaged recipes reach 0.6; at 0.8, four of five prompts have no learning signal."""
HOPELESS_FRAC = 0.99
"""At this share practically no group has reward variance: the update has no signal at all."""
ONE_SIDED = 2 / 3
"""If two thirds of the flat groups are all wrong (or all correct), report that cause alone."""
SAME_REWARD = 0.005
"""For a group size of 1: mean rewards that vary by less over the window count as constant."""
UNSCORED_FRAC = 0.01
"""Fewer failures are occasional timeouts; more are a bug in the reward. At 0.2 the trainer stops."""
TRUNCATED_FRAC = 0.5
"""Countdown runs learn well at 0.3; above one half, most completions never reach an answer."""
LENGTH_FACTOR = 3.0
"""Completions that are three times longer (or shorter) than at the start without better rewards are drift."""
BETTER_BY = 0.05
"""A gain in training reward or accuracy that justifies a change in length."""
MIN_EVAL_STEPS = 20
"""In the packaged recipes held-out accuracy leaves its initial interval within 10 steps."""
SOLVED = 0.9
"""Above this accuracy low entropy is expected, not a collapse."""


def check_unscored(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("train/unscored_frac")
    bad = [(step, v) for step, v in zip(curve.steps, curve.values, strict=True) if v >= UNSCORED_FRAC]
    if bad:
        worst = max(value for _, value in bad)
        yield Finding(
            severity="warning",
            check="unscored",
            message=f"in {len(bad)} of {len(curve)} steps at least {UNSCORED_FRAC:.0%} of the completions were "
            f"unscored, at worst {worst:.0%}; the trainer stops at {MAX_UNSCORED_FRAC:.0%}",
            remedy="check `reasons` in the transcripts and the first traceback of each of the `rewards` in the log",
            step=bad[0][0],
        )


def check_flat_groups(run: RunRecords) -> Iterator[Finding]:
    """Find flat groups (no reward variance) and split them into all wrong and all correct."""
    accuracy = run.curve("train/accuracy")
    if run.count("sampling.group_size") == 1:
        yield from _single(run, accuracy)
        return
    flat = run.curve("group/zero_std_frac")
    since = flat.since(lambda share: share >= FLAT_FRAC)
    if since is None:
        return
    if not len(accuracy):
        yield _flat(run, flat.last, "flat-groups", "(the rewards do not report correctness)", since)
        return
    right = all_right_frac(flat.last, accuracy.last, run.count("sampling.group_size") or 2)
    wrong = flat.last - right
    text = f"about {wrong:.0%} all wrong, {right:.0%} all correct"
    one_sided = "all-wrong" if wrong >= ONE_SIDED * flat.last else "all-right"
    mixed = max(wrong, right) < ONE_SIDED * flat.last
    yield _flat(run, flat.last, "flat-groups" if mixed else one_sided, text, since)


def all_right_frac(flat: float, accuracy: float, group_size: int) -> float:
    """Estimate the share of all-correct groups from the share of flat groups and the overall accuracy.

    A mixed group has an accuracy between 1/G and 1 - 1/G, so the accuracy bounds the share of all-correct groups;
    this is the midpoint. Exact when every group is flat. Assumes that wrong completions earn less.
    """
    mixed = 1.0 - flat
    low = max(0.0, accuracy - mixed * (1.0 - 1.0 / group_size))
    high = min(flat, accuracy - mixed / group_size)
    return min(max((low + high) / 2, 0.0), flat)


def _flat(run: RunRecords, share: float, check: str, split: str, since: int) -> Finding:
    return Finding(
        severity=_severity(check, share),
        check=check,
        message=f"{share:.0%} of the groups have no reward variance, so no learning signal: {split}",
        remedy=_REMEDIES[check],
        step=since,
    )


def _severity(check: str, share: float) -> Severity:
    if check == "all-right":
        return "note"
    return "error" if share >= HOPELESS_FRAC else "warning"


_REMEDIES: Mapping[str, str] = {
    "all-wrong": "make `task` easier, raise `sampling.group_size` or `sampling.max_completion_tokens`, or run "
    "SFT first (`reasonrl sft`); check in the transcripts whether the model ever writes an answer",
    "all-right": "the problems are solved: make `task` harder, or stop",
    "flat-groups": "choose problems of medium difficulty in `task`, or raise `sampling.group_size`",
}


def _single(run: RunRecords, accuracy: Curve) -> Iterator[Finding]:
    """Group size 1: find batches in which every completion earns the same reward."""
    rewards = run.curve("train/reward").values[-WINDOW:]
    if not rewards or max(rewards) - min(rewards) > SAME_REWARD:
        return
    for check, holds in (
        ("all-wrong", lambda share: share <= 1 - HOPELESS_FRAC),
        ("all-right", lambda share: share >= HOPELESS_FRAC),
    ):
        since = accuracy.since(holds)
        if since is not None:
            word = "correct" if check == "all-right" else "wrong"
            share = accuracy.last if word == "correct" else 1 - accuracy.last
            yield Finding(
                severity=_severity(check, 1.0),
                check=check,
                message=f"{share:.1%} of the completions are {word} with equal rewards, so there is no learning signal",
                remedy=_REMEDIES[check].replace("`sampling.group_size`", "`trainer.prompts_per_step`"),
                step=since,
            )


def is_solved(run: RunRecords) -> bool:
    """Whether the training problems are practically solved, so that low entropy is not a collapse."""
    accuracy = run.curve("train/accuracy")
    return len(accuracy) > 0 and accuracy.last >= SOLVED


def _has_improved(run: RunRecords) -> bool:
    curves = [run.curve(key) for key in ("train/accuracy", "train/reward")]
    return any(len(curve) and curve.last >= curve.first + BETTER_BY for curve in curves)


def check_length(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("train/length_tokens")
    if len(curve) < 2 * WINDOW or _has_improved(run) or is_solved(run):
        return
    first = max(curve.first, 1.0)
    longer = curve.since(lambda tokens: tokens >= LENGTH_FACTOR * first)
    shorter = curve.since(lambda tokens: tokens <= first / LENGTH_FACTOR)
    since = longer if longer is not None else shorter
    if since is None:
        return
    remedy = (
        "check the transcripts for repetition; lower `optimizer.learning_rate` or `sampling.max_completion_tokens`"
        if longer is not None
        else "check the transcripts for reward hacking (a shortcut to the same reward) and fix `rewards`; or lower "
        "`optimizer.learning_rate`"
    )
    yield Finding(
        severity="warning",
        check="length",
        message=f"completion length went from {first:.0f} to {curve.last:.0f} tokens without better rewards",
        remedy=remedy,
        step=since,
    )


def check_truncation(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("train/truncated_frac")
    since = curve.since(lambda share: share >= TRUNCATED_FRAC)
    if since is not None:
        limit = run.count("sampling.max_completion_tokens")
        yield Finding(
            severity="warning",
            check="truncation",
            message=f"{curve.last:.0%} of the completions are truncated at {limit or 'the limit of'} tokens",
            remedy="raise `sampling.max_completion_tokens`; if the completions loop, lower "
            "`optimizer.learning_rate` or set a stop string in `sampling.stop`",
            step=since,
        )


def check_progress(run: RunRecords) -> Iterator[Finding]:
    """Compare the first suite's held-out accuracy over time, with its 95% intervals."""
    suites = run.setting("evaluation.suites")
    if not isinstance(suites, Mapping) or not suites:
        return
    headline = str(next(iter(suites)))  # the first suite is the headline
    points = _evaluations(run, headline)
    if len(points) >= 2 and points[-1][0] - points[0][0] >= MIN_EVAL_STEPS:
        yield from _judge(headline, points)


Point = tuple[int, float, float, float]
"""Step, accuracy, and its interval."""


def _evaluations(run: RunRecords, suite: str) -> list[Point]:
    figures = [(step, _inline(values, suite)) for _, step, values in run.metrics.lines]
    if first := run.first_evaluation.get(suite):
        figures.insert(0, (0, _saved(first)))
    return [(step, *known) for step, known in figures if known is not None]


def _inline(values: Mapping[str, object], suite: str) -> tuple[float, float, float] | None:
    names = ("accuracy", "accuracy_ci95_low", "accuracy_ci95_high")
    accuracy, low, high = (number(values.get(f"eval/{suite}/{name}")) for name in names)
    return None if accuracy is None or low is None or high is None else (accuracy, low, high)


def _saved(suite: object) -> tuple[float, float, float] | None:
    if not isinstance(suite, Mapping):
        return None
    ends = suite.get("ci95")
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    accuracy, low, high = number(suite.get("accuracy")), number(ends[0]), number(ends[1])
    return None if accuracy is None or low is None or high is None else (accuracy, low, high)


def _judge(suite: str, points: list[Point]) -> Iterator[Finding]:
    first, last, best = points[0], points[-1], max(points, key=lambda point: point[1])
    if best[2] > last[3]:
        yield Finding(
            severity="warning",
            check="progress",
            message=f"{suite} accuracy fell from {best[1]:.1%} at step {best[0]} to {last[1]:.1%} at step {last[0]}, "
            "outside both 95% intervals",
            remedy="use an earlier checkpoint (`checkpoint.keep`); lower `optimizer.learning_rate`, or stop earlier "
            "(`trainer.steps`)",
            step=best[0],
        )
    elif last[1] <= first[3] and first[1] < SOLVED:
        yield Finding(
            severity="warning",
            check="progress",
            message=f"{suite} accuracy was {first[1]:.1%} (95% {first[2]:.1%} to {first[3]:.1%}) at step {first[0]} "
            f"and is {last[1]:.1%} at step {last[0]}: no significant progress",
            remedy="raise `optimizer.learning_rate` if the policy hardly moves (policy/kl_old_k3 below 1e-5), raise "
            "`trainer.steps`, or evaluate on more `evaluation.suites` problems",
            step=first[0],
        )
