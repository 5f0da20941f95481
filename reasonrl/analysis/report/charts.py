"""Which curves a report shows, and the lines of each: one color per experiment, seeds pooled."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reasonrl.analysis.behaviors import Timeline
from reasonrl.analysis.doctor.curve import Curve
from reasonrl.analysis.report.figures import RunFigures
from reasonrl.analysis.report.series import Series, pool, to_series
from reasonrl.contracts.metric_keys import CORE_METRICS, POLICY_METRICS, find_metric
from reasonrl.rundir.differences import format_value

COLORS = 8
MAX_FAINT = 12
"""Seeds of one experiment that are drawn beside their mean."""
MAX_NAMED = 3
"""Differing settings in the name of an experiment."""

MAIN = (
    ("train/reward", "Reward"),
    ("train/accuracy", "Training accuracy"),
    ("train/length_tokens", "Completion length"),
    ("train/truncated_frac", "Truncated completions"),
    ("policy/entropy", "Entropy"),
    ("policy/kl_old_k3", "KL of a step"),
    ("policy/kl_ref_k3", "KL from the reference"),
    ("loss/sft", "SFT loss"),
)
MORE = (
    ("policy/clip_frac", "Clipped tokens"),
    ("policy/ratio_max", "Largest probability ratio"),
    ("optim/grad_norm", "Gradient norm"),
    ("optim/learning_rate", "Learning rate"),
    ("optim/skipped_updates", "Skipped updates"),
    ("group/zero_std_frac", "Groups without reward variance"),
    ("train/unscored_frac", "Unscored completions"),
    ("critic/explained_variance", "Explained variance of the critic"),
    ("rollout/logprob_gap", "Log-probability gap of trainer and sampler"),
    ("policy/kl_rollout_k3", "KL of sampler and trainer"),
    ("batch/padding_frac", "Padding"),
    ("throughput/rollout_tokens_per_s", "Sampling speed"),
    ("throughput/train_tokens_per_s", "Training speed"),
    ("memory/peak_gib", "Peak memory"),
)
COMPONENT = "reward/component/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Runs that differ in their seed only."""

    name: str
    runs: Sequence[RunFigures]
    color: int

    @property
    def legend(self) -> str:
        count = len(self.runs)
        return f"{self.name} ({count} seeds)" if count > 1 else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One experiment in a chart; ``faint``: each of its seeds."""

    label: str
    color: int
    series: Series
    faint: Sequence[Series] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Lines over steps. ``has_dots``: few points, each of which was measured by an evaluation."""

    title: str
    unit: str
    meaning: str
    lines: Sequence[Line]
    has_dots: bool = False


def group_runs(runs: Sequence[RunFigures]) -> list[Experiment]:
    """Put the seeds of one experiment together, in order of appearance."""
    found: dict[str, list[RunFigures]] = {}
    for run in runs:
        # Without a recipe (a damaged run.json) nothing tells that two runs belong together.
        key = json.dumps(run.experiment(), sort_keys=True, default=str) if run.recipe else str(run.path)
        found.setdefault(key, []).append(run)
    groups = list(found.values())
    names = _names(groups)
    return [
        Experiment(name=name, runs=group, color=i % COLORS)
        for i, (name, group) in enumerate(zip(names, groups, strict=True))
    ]


def different_settings(runs: Sequence[RunFigures]) -> dict[str, list[str]]:
    """Return the recipe keys in which the runs differ, with the value of each run; ``-`` where it has no such key."""
    tables = [run.settings for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    values = {key: [table.get(key) for table in tables] for key in keys}
    return {key: [*map(_plain, row)] for key, row in values.items() if any(value != row[0] for value in row)}


def _plain(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else format_value(value)


def _names(groups: Sequence[Sequence[RunFigures]]) -> list[str]:
    """Name a group after its recipe; groups of one name after what differs, else after their first folder."""
    plain = [str(group[0].recipe.get("name") or group[0].label) for group in groups]
    if len(set(plain)) == len(plain):
        return plain if len(groups) > 1 or len(groups[0]) > 1 else [groups[0][0].label]
    rows = different_settings([group[0] for group in groups])
    keys = [key for key in rows if key in groups[0][0].experiment() and key.split(".")[-1] != "name"][:MAX_NAMED]
    named = [", ".join(f"{key}={rows[key][i]}" for key in keys) for i in range(len(groups))]
    if len(set(named)) == len(named):
        return [f"{name}: {text}" for name, text in zip(plain, named, strict=True)]
    return [group[0].label for group in groups]


def main_charts(groups: Sequence[Experiment]) -> list[Chart]:
    """Reward, accuracy, length, entropy, KL."""
    charts = _metric_charts(groups, MAIN)
    return [*charts[:2], *accuracy_charts(groups), *charts[2:]]


def more_charts(groups: Sequence[Experiment]) -> list[Chart]:
    """Diagnostics."""
    return _metric_charts(groups, MORE)


def component_charts(groups: Sequence[Experiment]) -> list[Chart]:
    """Every reward by itself."""
    names = dict.fromkeys(
        key for group in groups for run in group.runs for key in run.curves if key.startswith(COMPONENT)
    )
    return _metric_charts(groups, [(key, key.removeprefix(COMPONENT)) for key in names])


def accuracy_charts(groups: Sequence[Experiment]) -> list[Chart]:
    """Held-out accuracy of every suite: with the interval of one run, or the range of several seeds."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.suites)
    charts = (
        Chart(
            title=f"Held-out accuracy: {name}",
            unit="fraction",
            meaning="Band: 95% interval of a run, or the range of several seeds.",
            lines=list(_accuracy_lines(groups, name)),
            has_dots=True,
        )
        for name in names
    )
    return [chart for chart in charts if chart.lines]


def _accuracy_lines(groups: Sequence[Experiment], suite: str) -> Iterator[Line]:
    for group in groups:
        each = [series for run in group.runs if (series := run.accuracy(suite))]
        if len(each) == 1:
            yield Line(label=group.legend, color=group.color, series=each[0])
        elif each:
            yield _pooled(group, [Curve.of((p.step, p.value) for p in series) for series in each])


def behavior_charts(groups: Sequence[Experiment]) -> dict[str, list[Chart]]:
    """Behaviors over the evaluations, by suite."""
    suites = dict.fromkeys(line.suite for group in groups for run in group.runs for line in run.behaviors)
    return {suite: charts for suite in suites if (charts := list(_behavior_charts(groups, suite)))}


def _behavior_charts(groups: Sequence[Experiment], suite: str) -> Iterator[Chart]:
    timelines = [
        (group, [line for run in group.runs for line in run.behaviors if line.suite == suite]) for group in groups
    ]
    names = dict.fromkeys(name for _, lines in timelines for line in lines for name in line.rows)
    for name in names:
        curves = [(group, [_behavior_curve(line, name) for line in lines]) for group, lines in timelines]
        is_silent = not any(value for _, each in curves for curve in each for value in curve.values)
        if name != "accuracy" and not name.endswith("_hits") and not is_silent:
            yield _chart(name, f"behavior/{suite}/{name}", curves, has_dots=True)


def _behavior_curve(timeline: Timeline, name: str) -> Curve:
    pairs = zip(timeline.steps, timeline.rows.get(name, ()), strict=False)
    return Curve.of((step, value) for step, value in pairs if value is not None)


def _metric_charts(groups: Sequence[Experiment], wanted: Iterable[tuple[str, str]]) -> list[Chart]:
    charts = (
        _chart(title, key, [(group, [run.curves[key] for run in group.runs if key in run.curves]) for group in groups])
        for key, title in wanted
    )
    return [chart for chart in charts if chart.lines]


def _chart(
    title: str, key: str, curves: Iterable[tuple[Experiment, Sequence[Curve]]], *, has_dots: bool = False
) -> Chart:
    known = find_metric(key, (*CORE_METRICS, *POLICY_METRICS))
    unit, meaning = (known.unit, known.meaning) if known else ("1", "")
    measured = ((group, [curve for curve in each if len(curve)]) for group, each in curves)
    lines = [_pooled(group, each) for group, each in measured if each]
    return Chart(title=title, unit=unit, meaning=meaning, lines=lines, has_dots=has_dots)


def _pooled(group: Experiment, curves: Sequence[Curve]) -> Line:
    faint = [to_series(curve) for curve in curves[:MAX_FAINT]] if len(curves) > 1 else []
    return Line(label=group.legend, color=group.color, series=pool(curves), faint=faint)
