"""The tables of a report: batch arithmetic, first and last step, time and memory by stage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reasonrl.analysis.doctor.records import number
from reasonrl.analysis.report.charts import MAIN
from reasonrl.analysis.report.figures import RunFigures
from reasonrl.analysis.report.svg import figure
from reasonrl.contracts.metric_keys import CORE_METRICS, POLICY_METRICS, find_metric

STAGES = (  # name in the keys of the metrics, name in the table
    ("rollout", "sampling"),
    ("reward", "scoring"),
    ("collate", "collating"),
    ("policy_eval", "log-probabilities and values"),
    ("advantage", "advantages"),
    ("update", "update"),
    ("sync", "handing weights to the rollout backend"),
    ("other", "rest of the step"),
    ("evaluation", "evaluation"),
    ("checkpoint", "checkpoints"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Time and memory of one stage over a run. ``share``: of the time of all stages."""

    name: str
    total_s: float
    per_step_s: float
    share: float
    peak_gib: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A figure before and after training."""

    name: str
    before: str
    after: str


def stages_of(run: RunFigures) -> list[Stage]:
    """Time and memory by stage, in the order of a step."""
    found = []
    for key, name in STAGES:
        time = run.curves.get(f"time/{key}_s")
        memory = run.curves.get(f"memory/{key}_gib")
        if time is not None:
            found.append((name, sum(time.values), len(time), max(memory.values) if memory else None))
    whole = sum(total for _, total, _, _ in found) or 1.0
    return [
        Stage(name=name, total_s=total, per_step_s=total / count, share=total / whole, peak_gib=peak)
        for name, total, count, peak in found
    ]


def batch_lines(run: RunFigures) -> list[tuple[str, str]]:
    """How many prompts, completions and optimizer steps the recipe makes of a step."""
    settings = run.settings
    prompts, group = _count(settings, "trainer.prompts_per_step"), _count(settings, "sampling.group_size")
    if not prompts or not group:
        return list(_sft_lines(settings))
    parts, epochs = _count(settings, "trainer.minibatches") or 1, _count(settings, "trainer.update_epochs") or 1
    steps, limit = _count(settings, "trainer.steps") or 0, _count(settings, "sampling.max_completion_tokens")
    completions = prompts * group
    lines = [
        (
            "completions per step",
            f"{prompts:,} prompts x {group:,} = {completions:,}, each of at most {limit or '?'} tokens",
        ),
        (
            "optimizer steps per step",
            f"{_plural(parts, 'minibatch', 'minibatches')} of {completions // parts:,} completions x "
            f"{_plural(epochs, 'epoch', 'epochs')} = {parts * epochs}",
        ),
        ("planned", f"{steps:,} steps x {completions:,} = {steps * completions:,} completions"),
    ]
    return lines + list(_done_lines(run, completions))


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _sft_lines(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tokens, most = _count(settings, "sft.tokens_per_batch"), _count(settings, "sft.max_tokens")
    if tokens and most:
        yield "tokens", f"{tokens:,} per step, {most:,} in total"


def _done_lines(run: RunFigures, completions: int) -> Iterator[tuple[str, str]]:
    length = run.curves.get("train/length_tokens")
    if length is not None:
        sampled = sum(length.values) * completions
        yield "done", f"{run.last_step:,} steps, about {sampled:,.0f} tokens sampled"
    trained = run.curves.get("batch/train_tokens")
    if trained is not None:
        yield "trained on", f"{sum(trained.values):,.0f} prompt and completion tokens"


def changes_of(run: RunFigures) -> list[Change]:
    """What changed between the first and the last evaluation, and the first and last steps."""
    return [*_evaluation_changes(run), *_training_changes(run)]


def _evaluation_changes(run: RunFigures) -> Iterator[Change]:
    if not run.evaluations:
        return
    (first_step, first), (last_step, last) = run.evaluations[0], run.evaluations[-1]
    for suite in run.suites:
        before, after = first.get(suite), last.get(suite)
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            continue
        for key in dict.fromkeys((*before, *after)):
            is_figure = number(before.get(key)) is not None or number(after.get(key)) is not None
            if is_figure and key not in ("problems", "samples"):
                place = f"{suite}, step {first_step} and {last_step}" if key == "accuracy" else suite
                unit = _unit(f"eval/{suite}/{key}")
                sides = [_with_interval(figures, key, unit) for figures in (before, after)]
                yield Change(name=f"{key} ({place})", before=sides[0], after=sides[1])


def _training_changes(run: RunFigures) -> Iterator[Change]:
    for key, name in MAIN:
        if curve := run.curves.get(key):
            before, after = (figure(value, _unit(key)) for value in curve.ends())
            yield Change(name=f"{name} (training)", before=before, after=after)


def component_weights(run: RunFigures) -> list[tuple[str, str, str, str]]:
    """Name, weight, first and last value of every reward."""
    rewards = run.recipe.get("rewards")
    named = rewards if isinstance(rewards, Mapping) else {}
    rows = []
    for name, config in named.items():
        curve = run.curves.get(f"reward/component/{name}")
        weight = config.get("weight", 1.0) if isinstance(config, Mapping) else 1.0
        first, last = (figure(value, "reward") for value in curve.ends()) if curve else ("-", "-")
        rows.append((str(name), f"{weight}", first, last))
    return rows


def facts_of(run: RunFigures) -> list[tuple[str, str]]:
    """What ran, on what, and how it ended."""
    machine = run.manifest.get("machine")
    known = machine if isinstance(machine, Mapping) else {}
    settings = run.settings
    git = run.manifest.get("git")
    rows = [
        ("state", run.state + (f": {error}" if (error := run.summary.get("error")) else "")),
        ("steps", f"{run.last_step:,}" + (f" of {total:,}" if (total := _count(settings, "trainer.steps")) else "")),
        ("time", _duration(number(run.summary.get("wall_s")))),
        ("seed", run.manifest.get("seed")),
        ("model", settings.get("model.name") or settings.get("model.path")),
        ("task", settings.get("task.name")),
        ("algorithm", settings.get("algorithm.name")),
        ("device", known.get("gpu") or known.get("device")),
        ("processes", known.get("processes")),
        ("reasonrl", run.manifest.get("reasonrl")),
        ("commit", git.get("commit") if isinstance(git, Mapping) else None),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


def _count(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _unit(key: str) -> str:
    known = find_metric(key, (*CORE_METRICS, *POLICY_METRICS))
    return known.unit if known else "1"


def _text(value: object, unit: str) -> str:
    known = number(value)
    return "-" if known is None else figure(known, unit)


def _with_interval(suite: Mapping[str, Any], key: str, unit: str) -> str:
    """Format a figure with its 95% interval, if it has one."""
    text = _text(suite.get(key), unit)
    intervals = suite.get("intervals")
    ends = suite.get("ci95") if key == "accuracy" else intervals.get(key) if isinstance(intervals, Mapping) else None
    if not isinstance(ends, list) or len(ends) != 2:
        return text
    return f"{text} ({' to '.join(_text(end, unit) for end in ends)})"
