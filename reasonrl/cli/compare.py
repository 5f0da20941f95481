"""``reasonrl compare``."""

from collections.abc import Iterator, Sequence

import typer

from reasonrl.analysis.compare import compare
from reasonrl.analysis.compare.comparison import Accuracy, Comparison, Report
from reasonrl.analysis.compare.cost import Cost
from reasonrl.cli.streams import print_json
from reasonrl.cli.table import table, wrap
from reasonrl.statistics.paired import Method
from reasonrl.text import sanitize

METHODS: dict[Method, str] = {
    "mcnemar": "McNemar's exact test, paired bootstrap",
    "sign-flip": "sign-flip test, paired bootstrap",
    "seeds": "problems and seeds as random effects",
    "blocks": "one difference per seed",
}


def run_compare(targets: Sequence[str], suite: str | None, level: float | None, pool: bool, as_json: bool) -> None:
    """Print how runs or saved evaluations differ."""
    report = compare(targets, suite=suite, level=level, pool_seeds=pool)
    if as_json:
        print_json(report.to_json())
        return
    typer.echo(sanitize("\n".join(_lines(report))))  # a run of someone else may hold anything


def _lines(report: Report) -> Iterator[str]:
    yield from table(("", "what is compared"), [(one.name, one.title) for one in report.pools])
    if report.young:
        yield wrap(f"left out, not evaluated yet: {', '.join(report.young)}", indent="  ")
    for suite, found in report.suites.items():
        for one in found:
            yield f"\n{suite}, {one.problems:,} problems"
            yield from _comparison_lines(one)
    if report.level is not None:
        yield f"\ncost to reach {report.level:.1%} on {report.cost_suite}"
        for name, costs in report.costs.items():
            yield from (wrap(_cost_text(cost), lead=f"  {name}  ", indent="     ") for cost in costs)
    for other in report.pools[1:]:
        base = report.pools[0].name
        changes = report.changes(other)
        yield f"\nrecipes, {base} -> {other.name}" + ("" if changes else ": no difference")
        for key, old, new in changes:
            yield wrap(f"{old} -> {new}", lead=f"  {key}  ", indent="    ")


def _comparison_lines(one: Comparison) -> Iterator[str]:
    for name, accuracy in ((one.a, one.accuracy_a), (one.b, one.accuracy_b)):
        yield wrap(_accuracy_text(accuracy), lead=f"  {name:<5}  ", indent=" " * 9)
    d = one.difference
    points = f"{100 * d.value:+.1f} points ({100 * d.low:+.1f} to {100 * d.high:+.1f}), p {_p_text(d.p_value)}"
    counts = "" if one.only_a is None else f"; {one.only_a} solved only by {one.a}, {one.only_b} only by {one.b}"
    yield wrap(f"{points}{counts}", lead=f"  {one.b} - {one.a}  ", indent=" " * 9)
    power = f"; detects {100 * d.detectable:.1f} points with 80% power" if d.detectable <= 1 else "; too few problems"
    yield wrap(METHODS[d.method] + (power if d.detectable > 0 else ""), indent=" " * 9)
    if one.left_out:
        yield wrap(f"left out, for want of the same problems: {', '.join(one.left_out)}", indent=" " * 9)


def _accuracy_text(accuracy: Accuracy) -> str:
    if accuracy.ci95 is not None:
        return f"{accuracy.mean:.1%} ({accuracy.ci95[0]:.1%} to {accuracy.ci95[1]:.1%})"
    return f"{accuracy.mean:.1%} (seeds: {', '.join(f'{run:.1%}' for run in accuracy.runs)})"


def _p_text(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.0001 else "< 0.0001"


def _cost_text(cost: Cost | None) -> str:
    if cost is None:
        return "not reached"
    tokens = "" if cost.tokens is None else f", {cost.tokens:,} tokens sampled"
    seconds = "" if cost.seconds is None else f", {cost.seconds:,.0f} s of training"
    return f"step {cost.step}{tokens}{seconds}"
