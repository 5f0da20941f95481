"""What it took a run to reach a level of accuracy: steps, tokens, seconds."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasonrl.analysis.compare.evaluation import read_object
from reasonrl.errors import RecipeError
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.rundir.layout import EVALS, METRICS, SUMMARY, find_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Up to the first evaluation at the level. ``tokens`` are sampled ones, ``seconds`` those of training steps."""

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
    lines = [line for line in _metrics(run_dir / METRICS) if line.get("step", 0) <= reached]
    tokens = [_tokens(line) for line in lines]
    seconds = [_number(line.get("time/step_s")) for line in lines]
    return Cost(
        step=reached,
        tokens=None if None in tokens else round(sum(value or 0.0 for value in tokens)),
        seconds=None if None in seconds else sum(value or 0.0 for value in seconds),
    )


def accuracies(run_dir: Path, suite: str) -> Iterator[tuple[int, float]]:
    """(step, accuracy) of every evaluation, oldest first."""
    for step, folder in find_steps((run_dir / EVALS).glob("*")):
        if (folder / SUMMARY).is_file():
            result = read_object(folder / SUMMARY).get(suite)
            value = _number(result.get("accuracy")) if isinstance(result, dict) else None
            if value is not None:
                yield step, value


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        return list(read_jsonl(path)) if path.exists() else []
    except (OSError, ValueError) as err:
        raise RecipeError(f"cannot read {path}: {err}; reasonrl doctor {path.parent} says more") from err


def _tokens(line: dict[str, Any]) -> float | None:
    rate, seconds = _number(line.get("throughput/rollout_tokens_per_s")), _number(line.get("time/rollout_s"))
    return None if rate is None or seconds is None else rate * seconds


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
