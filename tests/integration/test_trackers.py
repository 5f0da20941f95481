"""Each tracker with a real run and a resume, in an environment that has it: `pytest -m trackers -k wandb`."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small_recipes import cli, recipe

from reasonrl.observability.tracker_kinds import COLUMNS

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("ignore")]
OPTIONS = {
    "tensorboard": "{filename_suffix: .t}",
    "wandb": "{tags: [t]}",
    "trackio": "{group: t}",
    "mlflow": "{tags: {a: t}}",
    "swanlab": "{tags: [t]}",
}
Seen = dict[str, Any]


def of_tensorboard(folder: Path) -> Seen:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run" / "trackers" / "proj"), size_guidance={"tensors": 0})
    events.Reload()
    samples = events.Tensors("samples/held_out/text_summary")
    assert events.Tensors("summary/text_summary")
    return {
        "reward": [event.step for event in events.Scalars("train/reward")],
        "accuracy": [event.step for event in events.Scalars("eval/held_out/accuracy")],
        "samples": [event.step for event in samples],
        "config": len([*(folder / "run" / "trackers" / "proj").rglob("hparams.yml")]) == 1,
    }


def of_wandb(folder: Path) -> Seen:
    files = sorted((folder / "run" / "trackers" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in files}) == 1, "one identity"
    assert len(files) == 2, "a folder per process"
    from wandb.proto.wandb_internal_pb2 import Record

    records = [Record.FromString(record) for path in files for record in level_records(path)]
    rows = [(r.history.step.num, {name_of(i) for i in r.history.item}) for r in records if r.HasField("history")]
    summary = {name_of(item) for record in records if record.HasField("summary") for item in record.summary.update}
    assert {"outcome", "held_out/ci95_low"} <= summary
    config = {name_of(item) for record in records for item in (*record.config.update, *record.run.config.update)}

    def steps(key: str) -> list[int]:
        return [step for step, names in rows if any(f"{name}.".startswith(f"{key}.") for name in names)]

    found = {"reward": "train/reward", "accuracy": "eval/held_out/accuracy", "samples": "samples/held_out"}
    return {name: steps(key) for name, key in found.items()} | {"config": "optimizer.learning_rate" in config}


def level_records(path: Path) -> Iterator[bytes]:
    """The records of a LevelDB log after its header: blocks of 32 KiB, a record in one or several pieces."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, piece = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if piece in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def name_of(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def of_trackio(folder: Path) -> Seen:
    base = sqlite3.connect(folder / "trackio" / "proj.db")
    rows = [
        (run, step, json.loads(values))
        for run, step, values in base.execute("SELECT run_id, step, metrics FROM metrics")
    ]
    assert len({run for run, _, _ in rows}) == 1

    def steps(key: str) -> list[int]:
        return [step for _, step, values in rows if key in values]

    assert steps("summary/held_out/accuracy") == [2, 4]
    config = b"optimizer.learning_rate" in b"".join(row[0] for row in base.execute("SELECT config FROM configs"))
    found = {"reward": "train/reward", "accuracy": "eval/held_out/accuracy", "samples": "samples/held_out"}
    return {name: steps(key) for name, key in found.items()} | {"config": config}


def of_mlflow(folder: Path) -> Seen:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("proj")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["summary.outcome"] == "completed"

    def steps(key: str) -> list[int]:
        return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]

    return {
        "reward": steps("train/reward"),
        "accuracy": steps("eval/held_out/accuracy"),
        "samples": [int(f.path[-11:-5]) for f in client.list_artifacts(run.info.run_id, "samples/held_out")],
        "config": run.data.params["trainer.steps"] == "2",
    }


def of_swanlab(folder: Path) -> Seen:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    files = sorted((folder / "swanlog").glob("run-*/run-*.swanlab"))
    assert len({path.name for path in files}) == 1, "one identity"
    assert len(files) == 2, "a folder per process"
    records = [Record.FromString(record) for path in files for record in level_records(path)]
    scalars = [r.scalar for r in records if r.HasField("scalar")]
    tables = [r.media for r in records if r.HasField("media")]
    assert {"summary/steps", "summary/held_out/ci95_low"} <= {scalar.key for scalar in scalars}
    shown = json.loads(next(files[0].parent.glob("media/echarts/*.json")).read_text(encoding="utf-8"))
    assert [column["field"] for column in shown["colDefs"]] == list(COLUMNS)
    assert len(shown["rowData"]) == 3
    config = yaml.safe_load((files[0].parent / "files" / "config.yaml").read_text(encoding="utf-8"))
    return {
        "reward": [scalar.step for scalar in scalars if scalar.key == "train/reward"],
        "accuracy": [scalar.step for scalar in scalars if scalar.key == "eval/held_out/accuracy"],
        "samples": [table.step for table in tables if table.key == "samples/held_out"],
        "config": config["optimizer.learning_rate"]["value"] == 0.01,
    }


READERS: dict[str, Callable[[Path], Seen]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "trackio": of_trackio,
    "mlflow": of_mlflow,
    "swanlab": of_swanlab,
}


@pytest.mark.parametrize("tracker", sorted(READERS))
def test_a_run_and_its_resume_are_one_tracker_run(
    tracker: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before its first import
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    suites = {"held_out": {"problems": 3}}
    path = recipe(tmp_path, tiny_model, evaluation={"every": 1, "suites": suites}, checkpoint={"every": 1})
    options = f"logging.tracker_options={{{tracker}: {OPTIONS[tracker]}}}"
    more = (f"logging.trackers=[{tracker}]", "logging.project=proj", options)
    for command in (
        ("train", path, *more, "--run-dir", tmp_path / "run"),
        ("resume", tmp_path / "run", "trainer.steps=4"),
    ):
        done = cli(*command)
        assert done.exit_code == 0, done.output
    assert "a tracker failed" not in caplog.text
    steps = [*range(5)]
    assert READERS[tracker](tmp_path) == {"reward": steps[1:], "accuracy": steps, "samples": steps, "config": True}
