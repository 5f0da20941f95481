"""The trainer's small pure parts: micro-batches, schedules, metrics of rollouts, the run's records."""

import json
import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from accelerate.utils import ProjectConfiguration
from support.builders import completion, group, output, scored
from support.small_recipes import PLUGIN, recipe

from reasonrl import FinishReason, RunInfo, ScoredGroup, StepRecord
from reasonrl.analysis.report import page as report_page
from reasonrl.contracts.metrics import resolve
from reasonrl.data.collate import collate
from reasonrl.errors import RecipeError
from reasonrl.functional.group import group_advantages
from reasonrl.observability import tracker_kinds
from reasonrl.observability.reporter import SilentReporter
from reasonrl.observability.trackers import Trackers
from reasonrl.observability.transcripts import transcript_records
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import ResolvedRecipe
from reasonrl.recipe.schema import OptimizerConfig
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.assemble import check_divisible
from reasonrl.runs.record import RunWriter
from reasonrl.trainer.microbatch import count_padded_tokens, list_local_prompts, plan_microbatches
from reasonrl.trainer.rollout_metrics import rollout_metrics
from reasonrl.trainer.schedule import open_schedule
from reasonrl.trainer.update import measure_rollout_gap


def test_micro_batches_hold_the_budget_and_every_row_once() -> None:
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.randint(1, 30) for _ in range(rng.randint(1, 20))]
        rows = rng.sample(range(len(lengths)), rng.randint(0, len(lengths)))
        budget = rng.randint(1, 90)
        plan = plan_microbatches(lengths, rows, budget)
        assert sorted(row for part in plan for row in part) == sorted(rows)
        for part in plan:
            assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= budget
        order = [lengths[row] for part in plan for row in part]
        assert order == sorted(order, reverse=True)


def test_the_budget_is_filled_to_the_last_token() -> None:
    assert plan_microbatches([5, 2, 4], [0, 1, 2], 10) == [[0, 2], [1]]
    assert plan_microbatches([5, 2, 4], [0, 1, 2], 9) == [[0], [2, 1]]
    assert plan_microbatches([5, 5, 5], [2, 0, 1], 15) == [[0, 1, 2]]
    assert count_padded_tokens([5, 2, 4], [[0, 2], [1]]) == 12
    assert count_padded_tokens([5], [[]]) == 0


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_a_minibatch_holds_the_same_prompts_however_many_ranks(ranks: int) -> None:
    shares = [list_local_prompts(12, 2, ranks, rank) for rank in range(ranks)]
    assert sorted(i for share in shares for i in share) == list(range(12))
    for minibatch in range(2):
        size = 6 // ranks
        members = {i for share in shares for i in share[minibatch * size : (minibatch + 1) * size]}
        assert members == set(range(minibatch * 6, minibatch * 6 + 6))


def factors(total: int = 8, **options: Any) -> list[float]:
    schedule = open_schedule(OptimizerConfig(**options), total)
    return [schedule.factor(step) for step in range(1, total + 1)]


def test_schedules_by_hand() -> None:
    assert factors(4) == [1.0] * 4
    assert factors(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert factors(4, schedule="cosine") == pytest.approx(
        [1.0, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2)]
    )
    assert factors(6, schedule="linear", warmup_steps=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert factors(3, warmup_steps=4, schedule="cosine") == [0.25, 0.5, 0.75]
    assert factors(2, warmup_steps=2, schedule="linear") == [0.5, 1.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_factor_is_never_zero_or_above_one(schedule: Any) -> None:
    assert all(0 < f <= 1 for f in factors(50, schedule=schedule, warmup_steps=7))


def test_rollout_metrics_by_hand() -> None:
    first = ScoredGroup(
        group=group([completion(range(4), reason=FinishReason.LENGTH), completion(range(2)), completion(range(3))]),
        rewards=(
            output(1.0, correct=True, metrics={"r/depth": 2.0}),
            output(0.0, correct=False),
            output(None, correct=True, metrics={"r/depth": 4.0}),
        ),
    )
    metrics = resolve(rollout_metrics([first, scored([0.5, 0.5])]))
    assert metrics == pytest.approx(
        {
            "train/reward": 2.0 / 4,
            "train/unscored_frac": 1 / 5,
            "train/accuracy": 1 / 4,
            "train/length_tokens": 13 / 5,
            "train/length_tokens_max": 4.0,
            "train/truncated_frac": 1 / 5,
            "group/zero_std_frac": 1 / 2,
            "reward/component/r": 2.0 / 4,
            "reward/detail/r/depth": 3.0,
        }
    )


def test_nothing_scored_has_no_mean_reward() -> None:
    metrics = resolve(rollout_metrics([scored([None, None])]))
    assert metrics["train/unscored_frac"] == 1.0
    assert not {"train/reward", "train/accuracy", "reward/component/r"} & metrics.keys()


@pytest.mark.parametrize(
    ("totals", "flat"),
    [
        ([1.0, 1.0], True),
        ([1.0, 0.0], False),
        ([None, 1.0], True),
        ([None, None], True),
        ([0.1 + 0.2, 0.3], True),
        ([0.0, 2e-6], False),
        ([1000.0, 1000.0005], True),
        ([1000.0, 1000.1], False),
    ],
)
def test_a_flat_group_has_zero_advantages(totals: list[float | None], flat: bool) -> None:
    assert resolve(rollout_metrics([scored(totals)]))["group/zero_std_frac"] == float(flat)
    rewards = torch.tensor([total or 0.0 for total in totals], dtype=torch.float64)
    known = torch.tensor([total is not None for total in totals])
    advantages = group_advantages(rewards, torch.zeros(len(totals), dtype=torch.int64), known, scale="std")
    assert (not advantages.any()) is flat


def test_the_gap_to_the_sampler_by_hand() -> None:
    rows = ScoredGroup(
        group=group([completion((1, 2, 3), logprobs=(-1.0, -2.0, -math.inf)), completion((4,), logprobs=(-9.0,))]),
        rewards=(output(1.0), output(None)),
    )
    batch = collate([rows], pad_id=0, device=torch.device("cpu"))
    old = torch.tensor([[5.0, -1.5, -2.0, -3.0], [5.0, -1.0, 0.0, 0.0]])
    metrics = resolve(measure_rollout_gap(old, batch, 0))
    assert metrics == pytest.approx(
        {
            "policy/kl_rollout_k3": (math.exp(-0.5) - 1 + 0.5) / 2,
            "rollout/logprob_gap": 0.25,
            "rollout/logprob_gap_max": 0.5,
        }
    )
    assert measure_rollout_gap(None, batch, 0) == {}
    assert measure_rollout_gap(old, batch, 1) == {}, "an earlier policy sampled these rows"
    silent = collate([scored([1.0])], pad_id=0, device=torch.device("cpu"))
    assert measure_rollout_gap(old, silent, 0) == {}


class Recorder(SilentReporter):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.ends: list[str] = []

    def stepped(self, record: StepRecord, total_steps: int, groups: Any) -> None:
        self.steps.append(record.step)

    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None:
        self.ends.append(outcome)


def open_writer(folder: RunDir | None, reporter: Any = None, **options: Any) -> RunWriter:
    path = folder.path if folder else Path("nowhere")
    return RunWriter(
        run_dir=folder,
        info=RunInfo(name="r", run_dir=path, seed=0, total_steps=3, recipe={}),
        reporter=reporter or Recorder(),
        plugins=load_plugins(environ={"REASONRL_PLUGINS": ""}),
        transcripts_per_step=options.pop("transcripts", 2),
        **options,
    )


def record(step: int, value: float = 1.0) -> StepRecord:
    return StepRecord(step=step, metrics={"train/reward": value}, timing_s={"time/step_s": 0.5})


def open_folder(tmp_path: Path) -> RunDir:
    return RunDir.create(output_dir=tmp_path, name="r")


def test_the_writer_writes_metrics_and_transcripts(tmp_path: Path) -> None:
    reporter = Recorder()
    writer = open_writer(open_folder(tmp_path), reporter)
    writer.transcribe(1, [scored([1.0, 0.0, 0.5])])
    writer.show(record(1), [scored([1.0, 0.0, 0.5])])
    writer.record(record(1), [scored([1.0, 0.0, 0.5])])
    writer.transcribe(2, [])
    writer.show(record(2, float("nan")), [])
    writer.record(record(2, float("nan")), [])
    folder = tmp_path / "r-1"
    assert list(read_jsonl(folder / "metrics.jsonl")) == [
        {"step": 1, "train/reward": 1.0, "time/step_s": 0.5},
        {"step": 2, "train/reward": None, "time/step_s": 0.5},
    ]
    assert len(list(read_jsonl(folder / "transcripts" / "step_000001.jsonl"))) == 2
    assert not (folder / "transcripts" / "step_000002.jsonl").exists()
    summary = writer.finish("completed")
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (summary["outcome"], summary["steps"]) == ("completed", 2)
    assert summary["eval"] == {"first": {}, "last": {}}
    assert (reporter.steps, reporter.ends) == ([1, 2], ["completed"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, None),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (RuntimeError(), "RuntimeError"),
        (
            OSError("https://me:hunter2@hub.example/x is away"),
            "OSError: https://[redacted]@hub.example/x is away",
        ),
    ],
)
def test_the_summary_says_what_ended_the_run_and_no_secret(
    tmp_path: Path, error: BaseException | None, said: str | None
) -> None:
    writer = open_writer(open_folder(tmp_path))
    assert writer.finish("failed", error)["error"] == said
    assert json.loads((tmp_path / "r-1" / "summary.json").read_text())["error"] == said


@pytest.mark.parametrize("fault", [None, OSError(28, "No space left on device"), RecursionError("deep")])
def test_a_run_ends_with_a_report_and_never_fails_for_it(
    tmp_path: Path, fault: BaseException | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, reporter = open_folder(tmp_path), Recorder()
    folder.write_json("run.json", {"reasonrl": "0.1.0", "recipe": {"name": "r"}})
    writer = open_writer(folder, reporter, has_report=True)
    writer.record(record(1), [])
    if fault is not None:
        monkeypatch.setattr(report_page, "build_page", Mock(side_effect=fault))
    assert writer.finish("completed")["outcome"] == "completed"
    assert reporter.ends == ["completed"]
    path = folder.path / "report.html"
    assert path.exists() == (fault is None)
    assert ("cannot write report.html" in caplog.text) == (fault is not None)
    if fault is None:  # the lock is still held, but the run is over
        assert "<td>completed</td>" in path.read_text(encoding="utf-8")


def test_other_ranks_write_and_say_nothing(tmp_path: Path) -> None:
    reporter = Recorder()
    writer = open_writer(None, reporter)
    writer.show(record(1), [scored([1.0])])
    writer.record(record(1), [scored([1.0])])
    assert writer.finish("completed")["steps"] == 1
    assert (reporter.steps, reporter.ends) == ([], [])


def test_a_failing_tracker_is_switched_off_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    class Accelerator:
        trackers = ()

        def init_trackers(self, name: str, config: Mapping[str, Any], init_kwargs: Mapping[str, Any]) -> None:
            assert (name, config, init_kwargs) == ("run", {"a.b": 1, "a.c": "[1]"}, {})

        def log(self, values: Mapping[str, float], step: int) -> None:
            calls.append((dict(values), step))
            if step == 2:
                raise ConnectionError("no network")

    trackers = Trackers(Accelerator(), ["board"])
    trackers.start("run", config={"a": {"b": 1, "c": [1]}})
    writer = open_writer(open_folder(tmp_path), trackers=trackers)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            writer.record(record(step), [])
    assert [step for _, step in calls] == [1, 2]
    assert calls[0][0] == {"train/reward": 1.0, "time/step_s": 0.5}
    assert caplog.text.count("a tracker failed") == 1
    assert len(list(read_jsonl(tmp_path / "r-1" / "metrics.jsonl"))) == 3
    writer.finish("completed")


@pytest.mark.parametrize(("tracker", "key"), [("mlflow", "eval/a/pass_at_8"), ("wandb", "eval/a/pass@8")])
def test_mlflow_gets_metric_names_that_it_accepts(tracker: str, key: str) -> None:
    calls: list[Mapping[str, float]] = []

    class Accelerator:
        def log(self, values: Mapping[str, float], step: int) -> None:
            calls.append(values)

    Trackers(Accelerator(), [tracker]).log({"eval/a/pass@8": 1.0}, 1)
    assert calls == [{key: 1.0}]


class Board:
    """A tracker that keeps what it gets."""

    name = "board"

    def __init__(self) -> None:
        self.config: list[Mapping[str, Any]] = []
        self.logged: list[int] = []
        self.ended = 0

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.config.append(values)

    def finish(self) -> None:
        self.ended += 1


class BoardAccelerator:
    def __init__(self) -> None:
        self.board, self.started = Board(), list[tuple[Any, ...]]()
        self.trackers = [self.board]
        self.project_configuration = ProjectConfiguration()

    def init_trackers(self, name: str, config: Any, init_kwargs: Any) -> None:
        self.started.append((name, config, init_kwargs))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.board.logged.append(step)


def test_a_resumed_run_continues_its_tracker_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, Any]] = []
    monkeypatch.setitem(tracker_kinds._SAMPLES, "board", lambda t, step, name, rows: shown.append((name, step, rows)))
    monkeypatch.setitem(tracker_kinds._SUMMARIES, "board", lambda t, step, values: shown.append(("end", step, values)))
    monkeypatch.setitem(tracker_kinds._OPTIONS, "board", lambda session: {"id": session.id, "group": "ours"})
    first, again = BoardAccelerator(), BoardAccelerator()
    completions = [*transcript_records([scored([1.0] * 20)])]
    for accelerator, steps in ((first, (0, 1, 2)), (again, (2, 3))):
        trackers = Trackers(accelerator, ["board"], {"board": {"group": "mine"}})
        trackers.start("project", tmp_path, {"a": 1})
        for step in steps:
            trackers.samples(step, "held_out", completions)
            trackers.log({"x": 1.0}, step)
    (name, config, options), (_, later, same) = first.started[0], again.started[0]
    assert (name, config, options["board"]["group"]) == ("project", {"a": 1}, "mine")
    assert (later, same) == (None, options)
    assert (first.board.config, again.board.config) == ([], [{"a": 1}])
    assert (first.board.logged, again.board.logged) == ([0, 1, 2], [3])
    assert [(name, step, len(rows)) for name, step, rows in shown] == [("samples/held_out", n, 16) for n in range(4)]
    figures = {"accuracy": 0.5, "ci95": [0.2, 0.8]}
    trackers.close({"outcome": "completed", "steps": 3, "wall_s": 1.0, "eval": {"last": {"suites": {"a": figures}}}})
    assert shown[-1][:2] == ("end", 3)
    assert shown[-1][2]["a/ci95_high"] == 0.8
    assert again.board.ended == 1


def test_a_table_shows_what_a_model_wrote_as_text() -> None:
    table = tracker_kinds.markdown_table(("a", "b"), [["<script>x|y</script>\n**z**", 0.5]])
    assert table.splitlines()[0] == "| a | b |"
    assert table.splitlines()[2] == "| &#60;script&#62;x&#124;y&#60;/script&#62;<br>&#42;&#42;z&#42;&#42; | 0.5 |"


def test_a_reporter_that_breaks_at_the_end_leaves_summary_and_free_folder(tmp_path: Path) -> None:
    class Broken(Recorder):
        def finished(self, *args: Any) -> None:
            raise BrokenPipeError

    writer = open_writer(open_folder(tmp_path), Broken())
    with pytest.raises(BrokenPipeError):
        writer.finish("failed")
    assert json.loads((tmp_path / "r-1" / "summary.json").read_text())["outcome"] == "failed"
    from filelock import FileLock

    with FileLock(tmp_path / "r-1" / ".lock", timeout=0):
        pass


def test_prompts_must_divide_over_minibatches_and_processes(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, trainer={"steps": 1, "prompts_per_step": 12, "minibatches": 2})
    resolved = load_recipe(path, [], load_plugins(files=[PLUGIN]))
    assert isinstance(resolved, ResolvedRecipe)
    for size in (1, 2, 3, 6):
        check_divisible(resolved, Processes(size))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"prompts_per_step=12 must be a multiple of .* = 2 x 4 = 8"):
        check_divisible(resolved, Processes(4))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Processes:
    size: int
