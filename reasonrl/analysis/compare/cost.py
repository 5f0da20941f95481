"""What it took a run to reach a level of accuracy: steps, tokens, seconds."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasonrl.analysis.doctor.records import number, read_metrics
from reasonrl.rundir.evaluations import list_evaluations, read_suites
from reasonrl.rundir.layout import METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Up to the first evaluation at the level. ``tokens`` are sampled ones, ``seconds`` those of training steps.

    Both are None unless the metrics of every step are there.
    """

    step: int
    tokens: int | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def cost_to_reach(run_dir: Path, suite: str, level: float) -> Cost | None:
    """Find the first evaluation with at least this accuracy; None if there is none."""
    reached = next((step for step, accuracy in accuracies(run_dir, suite) if accuracy >= level), None)
    if reached is None:
        return None
    lines = {step: values for _, step, values in read_metrics(run_dir / METRICS, []).lines if 0 < step <= reached}
    tokens = [value for line in lines.values() if (value := _tokens(line)) is not None]
    seconds = [value for line in lines.values() if (value := number(line.get("time/step_s"))) is not None]
    return Cost(
        step=reached,
        tokens=round(sum(tokens)) if len(tokens) == reached else None,
        seconds=sum(seconds) if len(seconds) == reached else None,
    )


def accuracies(run_dir: Path, suite: str) -> Iterator[tuple[int, float]]:
    """(step, accuracy) of every evaluation, oldest first."""
    for step, folder in list_evaluations(run_dir):
        value = number(read_suites(folder).get(suite, {}).get("accuracy"))
        if value is not None:
            yield step, value


def _tokens(line: Mapping[str, object]) -> float | None:
    rate, seconds = number(line.get("throughput/rollout_tokens_per_s")), number(line.get("time/rollout_s"))
    return None if rate is None or seconds is None else rate * seconds
