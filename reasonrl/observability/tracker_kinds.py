"""What is special to each tracker: where it writes, how it continues a run, how it shows samples and a summary."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasonrl.rundir.layout import TRACKERS

Values = Mapping[str, float | str]
Rows = Sequence[Sequence[float | str]]
COLUMNS = ("problem", "prompt", "completion", "reward", "verdict")


@dataclass(kw_only=True, slots=True)
class Session:
    """The tracker runs of one run folder, kept in ``trackers/state.json``.

    ``last_step``: the last step that was sent; ``ids``: of trackers that choose their own.
    """

    run_dir: Path
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    last_step: int = -1
    ids: dict[str, str] = field(default_factory=dict)
    is_resumed: bool = False


def options_of(name: str, session: Session) -> dict[str, Any]:
    """Arguments with which tracker ``name`` starts, or continues, the run of ``session``."""
    make = _OPTIONS.get(name)
    return make(session) if make is not None else {}


def takes_config_again(name: str) -> bool:
    """Whether a resumed run sends its config: MLflow refuses changed values, TensorBoard would show a second run."""
    return name not in ("mlflow", "tensorboard")


def show_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    """Send completions as a table, if the tracker has tables."""
    show = _SAMPLES.get(tracker.name)
    if show is not None:
        show(tracker, step, name, rows)


def show_summary(tracker: Any, step: int, values: Values) -> None:
    """Send how the run ended, if the tracker has a place for it."""
    show = _SUMMARIES.get(tracker.name)
    if show is not None:
        show(tracker, step, values)


def _folder(session: Session) -> str:
    folder = session.run_dir / TRACKERS
    folder.mkdir(exist_ok=True)
    return str(folder)


def _wandb(session: Session) -> dict[str, Any]:
    return {"dir": _folder(session), "name": session.run_dir.name, "id": session.id, "resume": "allow"}


def _trackio(session: Session) -> dict[str, Any]:
    return {"name": f"{session.run_dir.name}-{session.id}", "resume": "allow"}


def _mlflow(session: Session) -> dict[str, Any]:
    import mlflow

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{session.run_dir.absolute().parent / 'mlflow.db'}")
    artifacts = (session.run_dir.absolute().parent / "mlflow").as_uri()
    return {"run_name": session.run_dir.name, "run_id": session.ids.get("mlflow"), "logging_dir": artifacts}


def _swanlab(session: Session) -> dict[str, Any]:
    folder = session.run_dir.absolute().parent / "swanlog"
    return {"log_dir": str(folder), "name": session.run_dir.name, "id": session.id, "resume": "allow"}


_OPTIONS: Mapping[str, Callable[[Session], dict[str, Any]]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
}


def _wandb_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    tracker.log_table(name, columns=list(COLUMNS), data=[list(row) for row in rows], step=step)


def _trackio_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    import pandas
    import trackio

    tracker.log({name: trackio.Table(dataframe=pandas.DataFrame(rows, columns=list(COLUMNS)))}, step=step)


def _mlflow_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    import mlflow

    columns = {column: [row[i] for row in rows] for i, column in enumerate(COLUMNS)}
    mlflow.log_table(columns, artifact_file=f"{name}/step_{step:06d}.json")


def _tensorboard_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    tracker.log({name: markdown_table(COLUMNS, rows)}, step=step)


def _swanlab_samples(tracker: Any, step: int, name: str, rows: Rows) -> None:
    import swanlab

    table = swanlab.echarts.Table()
    table.add(list(COLUMNS), [list(row) for row in rows])
    tracker.log({name: table}, step=step)


_SAMPLES: Mapping[str, Callable[[Any, int, str, Rows], None]] = {
    "wandb": _wandb_samples,
    "trackio": _trackio_samples,
    "mlflow": _mlflow_samples,
    "tensorboard": _tensorboard_samples,
    "swanlab": _swanlab_samples,
}


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """Build a Markdown table; what a model wrote shows as text."""
    lines = [columns, ["---"] * len(columns), *([_as_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _as_cell(value: float | str) -> str:
    text = value if isinstance(value, str) else f"{value:g}"
    for char in "&<>|`*_[]":
        text = text.replace(char, f"&#{ord(char)};")
    return "<br>".join(text.splitlines())


def _wandb_summary(tracker: Any, step: int, values: Values) -> None:
    tracker.tracker.summary.update(dict(values))


def _mlflow_summary(tracker: Any, step: int, values: Values) -> None:
    import mlflow

    mlflow.set_tags({f"summary.{key}": str(value) for key, value in values.items()})


def _tensorboard_summary(tracker: Any, step: int, values: Values) -> None:
    rows = [(key, value) for key, value in values.items()]
    tracker.log({"summary": markdown_table(("figure", "value"), rows)}, step=step)


def _numbers(tracker: Any, step: int, values: Values) -> None:
    tracker.log({f"summary/{k}": v for k, v in values.items() if not isinstance(v, str)}, step=step)


_SUMMARIES: Mapping[str, Callable[[Any, int, Values], None]] = {
    "wandb": _wandb_summary,
    "trackio": _numbers,
    "mlflow": _mlflow_summary,
    "tensorboard": _tensorboard_summary,
    "swanlab": _numbers,
}
