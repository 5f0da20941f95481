"""A plan in words and rows, for the command line, a run's header and the documentation. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reasonrl.planning.plan import Plan
    from reasonrl.planning.remedies import Remedy
    from reasonrl.planning.timing import Duration

MIB, GIB = 1 << 20, 1 << 30


def gib(size: float) -> str:
    """Bytes as GiB, with two digits below 1."""
    value = size / GIB
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def head_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """What is planned, and for what."""
    work, seen = plan.workload, plan.counted
    yield "plan", f"{plan.recipe} on {plan.target.name}, {plan.target.gib:.1f} GiB, {plan.precision}"
    trained = f", {seen.trained:,} trained" if seen.trained != seen.model else ", all of them trained"
    yield "model", f"{plan.model} (shape from {plan.shape_from}): {seen.model:,} parameters{trained}"
    yield (
        "largest",
        f"rows of {work.prompt:,} prompt + {work.completion:,} completion tokens, all at their limits; {work.rows} of "
        f"them in a micro-batch" + (f", {work.decoded_rows} decoded together" if work.decoded_rows else ""),
    )


def memory_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Header, a row per part that matters, the totals: at the peak of each stage."""
    from reasonrl.planning.plan import PARTS

    stages = list(plan.stages)
    unit, size_of = (GIB, "GiB") if plan.peak >= GIB else (MIB, "MiB")
    yield (size_of, *stages)
    for part in PARTS:
        sizes = [plan.stages[stage].get(part, 0) for stage in stages]
        if max(sizes) >= 0.005 * plan.peak:
            yield (part, *(f"{size / unit:.1f}" if size else "-" for size in sizes))
    yield ("total", *(f"{sum(plan.stages[stage].values()) / unit:.1f}" for stage in stages))


def summary_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """Peak, time, money and notes."""
    yield "memory", memory_line(plan)
    if plan.durations:
        fast, slow = plan.durations
        yield "time", f"{show_range(fast.hours, slow.hours)} hours for {fast.steps:,} steps; {_step(fast, slow)}"
        yield (
            "work",
            (
                f"a step: {show_range(fast.sampled_tokens, slow.sampled_tokens)} tokens sampled, "
                f"{show_range(fast.trained_tokens, slow.trained_tokens)} trained on, "
                f"{show_range(fast.flops / 1e12, slow.flops / 1e12)} TFLOP"
            ),
        )
        yield "assumed", f"fast: {fast.assumed}; slow: {slow.assumed}"
    elif plan.target.gpu:
        yield "time", "not estimated: this GPU's speed is not known; name one, such as --gpu H100"
    else:
        yield "time", "not estimated for a CPU"
    if plan.money:
        low, high = plan.money
        yield "money", f"{show_range(low, high)} at {plan.price:g} per GPU and hour"
    for note in plan.notes:
        yield "note", note


def forecast_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """For the header of a run: one or two lines."""
    advice = "" if plan.fits else "; `reasonrl plan` looks for changes that make it fit"
    yield "expected", f"memory: {memory_line(plan)}{advice}"
    if plan.durations:
        fast, slow = plan.durations
        yield "expected", f"time: {show_range(fast.hours, slow.hours)} hours; {_step(fast, slow)}"


def remedy_lines(plan: Plan, remedies: Sequence[Remedy]) -> Iterator[tuple[str, str]]:
    """What would make it fit, with its price in time."""
    for remedy in remedies:
        price = remedy.price(plan)
        cost = "" if price is None else f", a step takes {price:.2g} times as long"
        need = gib(remedy.plan.peak + remedy.plan.reserve)
        yield "fits with", f"{' '.join(remedy.overrides)} ({need} GiB{cost})"
    if not plan.fits and not remedies:
        yield "fits with", "nothing that was tried; take a larger GPU, or several: --gpus N model.sharding=fsdp"


def memory_line(plan: Plan) -> str:
    """The peak, and whether it fits."""
    reserve = f" + {gib(plan.reserve)} for CUDA and fragmentation" if plan.reserve else ""
    verdict = "fits" if plan.fits else "does not fit"
    if plan.is_engine_short:
        engine = plan.stages["sampling"]["engine"]
        verdict += f", and the engine needs {gib(plan.engine_needs)} GiB for its weights but has {gib(engine)}"
    return f"peak {gib(plan.peak)} GiB ({plan.peak_stage}){reserve}, of {plan.target.gib:.1f} GiB: {verdict}"


def _step(fast: Duration, slow: Duration) -> str:
    parts = [f"a step {show_range(fast.step_s, slow.step_s)} s"]
    if slow.sampling_s:
        parts.append(f"of them sampling {show_range(fast.sampling_s, slow.sampling_s)}")
    return ", ".join(parts)


def show_range(low: float, high: float) -> str:
    """Both ends, with two or three digits."""
    return f"{_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    """Two or three significant digits, thousands separated."""
    if value >= 100:
        digits = 10 ** (len(str(int(value))) - 3)
        return f"{round(value / digits) * digits:,}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
