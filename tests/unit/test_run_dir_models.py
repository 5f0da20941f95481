"""Run folders: created once, numbered, locked; models in them whole or not at all."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from reasonrl.errors import CheckpointError, RecipeError, RunDirInUseError
from reasonrl.rundir import files
from reasonrl.rundir.checkpoints import list_saved_steps, new_checkpoint
from reasonrl.rundir.files import write_atomic
from reasonrl.rundir.folder import RunDir, refuse_taken
from reasonrl.rundir.jsonl import append_jsonl, read_jsonl
from reasonrl.rundir.layout import step_dir


def make(path: Path | str) -> RunDir:
    return RunDir.create(output_dir="unused", name="unused", explicit=path)


def test_runs_number_themselves_after_the_highest(tmp_path: Path) -> None:
    for taken in ("r-2", "r-10", "r-x", "other-99", "r-3.old", "xr-50"):
        (tmp_path / "runs" / taken).mkdir(parents=True)
    runs = [RunDir.create(output_dir=tmp_path / "runs", name="r") for _ in range(2)]
    assert [run.path.name for run in runs] == ["r-11", "r-12"]
    for run in runs:
        run.close()


def test_an_explicit_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    run = make(tmp_path / "a" / "b" / "run")
    assert run.path.is_dir()
    run.close()
    run.close()


def test_an_existing_folder_is_refused_early_and_late(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for refuse in (refuse_taken, make):
        with pytest.raises(RecipeError, match=r"run already exists; choose another --run-dir"):
            refuse(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    refuse_taken(tmp_path / "free")
    refuse_taken(None)


def test_a_folder_in_use_is_told_from_a_finished_one(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for refuse in (refuse_taken, make):
        with pytest.raises(RunDirInUseError, match="in use by another run"):
            refuse(tmp_path / "run")
    run.close()
    for refuse in (refuse_taken, make):
        with pytest.raises(RecipeError, match="already exists"):
            refuse(tmp_path / "run")


def test_a_lock_that_cannot_be_opened_is_an_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(RecipeError, match="already exists"):
        refuse_taken(tmp_path / "run")


def test_a_command_that_only_looks_at_the_lock_refuses_no_resume(tmp_path: Path) -> None:
    make(tmp_path / "run").close()
    handle = os.open(tmp_path / "run" / ".lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # as `report --watch` and `sweep --dry-run` do for a moment
    timer = threading.Timer(0.1, os.close, [handle])
    timer.start()
    RunDir.reopen(tmp_path / "run").close()
    timer.join()


def test_a_parent_that_is_no_folder_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecipeError, match=r"cannot create a run folder in .*file: .*file is not a folder; choose"):
        make(tmp_path / "file" / "run")
    with pytest.raises(RecipeError, match="cannot create a run folder"):
        RunDir.create(output_dir=tmp_path / "file", name="r")


def test_a_place_that_takes_no_folder_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if self.parent == tmp_path:  # as in /proc, where even root meets ENOENT
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    started = time.monotonic()
    for explicit in (tmp_path / "x", None):
        with pytest.raises(RecipeError, match=r"cannot create .*: No such file or directory"):
            RunDir.create(output_dir=tmp_path, name="r", explicit=explicit)
    assert time.monotonic() - started < 5


def test_an_empty_name_is_refused() -> None:
    for refuse in (refuse_taken, make):
        with pytest.raises(RecipeError, match="--run-dir is empty"):
            refuse("")


def test_nothing_is_left_beside_a_run_folder(tmp_path: Path) -> None:
    make(tmp_path / "run").close()
    RunDir.create(output_dir=tmp_path, name="r").close()
    for taken in ("run", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match="already exists"):
            make(tmp_path / taken)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "r-1", "run"]


def _race(path: Path, barrier: object, results: object, rounds: int) -> None:
    for n in range(rounds):
        barrier.wait(30)  # type: ignore[attr-defined]
        try:
            run = make(path / f"run-{n}")
            results.put((n, "won"))  # type: ignore[attr-defined]
            barrier.wait(30)  # type: ignore[attr-defined]
            run.close()
        except RunDirInUseError:
            results.put((n, "in use"))  # type: ignore[attr-defined]
            barrier.wait(30)  # type: ignore[attr-defined]
        except RecipeError as err:
            results.put((n, str(err)))  # type: ignore[attr-defined]
            barrier.wait(30)  # type: ignore[attr-defined]


def test_of_two_racing_processes_exactly_one_wins(tmp_path: Path) -> None:
    context, rounds = multiprocessing.get_context("spawn"), 50
    barrier, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, barrier, results, rounds)) for _ in range(2)]
    for racer in racers:
        racer.start()
    seen = [results.get(timeout=60) for _ in range(2 * rounds)]
    for racer in racers:
        racer.join(60)
    for n in range(rounds):
        assert sorted(what for m, what in seen if m == n) == ["in use", "won"]


def _number(path: Path, barrier: object, results: object, rounds: int) -> None:
    for _ in range(rounds):
        barrier.wait(30)  # type: ignore[attr-defined]
        try:
            run = RunDir.create(output_dir=path, name="r")
            results.put(run.path.name)  # type: ignore[attr-defined]
            run.close()
        except RecipeError as err:
            results.put(str(err))  # type: ignore[attr-defined]


def test_racing_runs_get_numbers_of_their_own(tmp_path: Path) -> None:
    context, rounds = multiprocessing.get_context("spawn"), 50
    barrier, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_number, args=(tmp_path, barrier, results, rounds)) for _ in range(2)]
    for racer in racers:
        racer.start()
    seen = [results.get(timeout=60) for _ in range(2 * rounds)]
    for racer in racers:
        racer.join(60)
    assert sorted(seen) == sorted(f"r-{n}" for n in range(1, 2 * rounds + 1))


def test_writing_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half\ud800")
    assert path.read_text() == "old"
    write_atomic(path, "néw\n")
    assert path.read_bytes() == "néw\n".encode()


def test_json_in_a_run_folder(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.write_json("a.json", {"é": 1})
    run.write_text("recipe.yaml", "x: 1\n")
    assert json.loads((run.path / "a.json").read_text(encoding="utf-8")) == {"é": 1}
    assert sorted(p.name for p in run.path.iterdir()) == [".lock", "a.json", "recipe.yaml"]
    run.close()


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def save_step(run_dir: Path, step: int, write: Any, *, keep: int) -> Path:
    with new_checkpoint(run_dir, step, keep=keep) as folder:
        write(folder)
    return step_dir(run_dir, step)


def test_only_the_last_models_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1000000):
        final = save_step(tmp_path, step, write_model, keep=2)
        assert (final / "config.json").is_file()
    assert list_saved_steps(tmp_path) == [10, 1000000]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_000010", "step_1000000"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_step(tmp_path, 1, lambda folder: (folder / "old").write_text("x"), keep=1)
    save_step(tmp_path, 1, write_model, keep=1)
    assert sorted(p.name for p in step_dir(tmp_path, 1).iterdir()) == ["config.json", "manifest.json"]


def test_there_is_nothing_in_a_folder_without_checkpoints(tmp_path: Path) -> None:
    assert list_saved_steps(tmp_path) == []
    for odd in (".tmp-step_000003", "step_3", "step_000004.old"):
        (tmp_path / "checkpoints" / odd).mkdir(parents=True)
    assert list_saved_steps(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CheckpointError),
        (SafetensorError("Error while serializing: I/O error"), CheckpointError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("bug"), RuntimeError),
    ],
)
def test_a_failed_save_leaves_no_trace_and_the_earlier_ones(
    error: BaseException, raised: type[BaseException], tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        write_model(folder)
        raise error

    save_step(tmp_path, 1, write_model, keep=1)
    with pytest.raises(raised) as caught:
        save_step(tmp_path, 2, fail, keep=1)
    if raised is CheckpointError:
        assert "step_000002" in str(caught.value)
        assert "earlier checkpoints are kept" in str(caught.value)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]
    assert (step_dir(tmp_path, 1) / "config.json").is_file()


def test_a_leftover_of_a_killed_run_is_no_obstacle(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / ".tmp-step_000001"
    leftover.mkdir(parents=True)
    (leftover / "junk").write_text("x")
    final = save_step(tmp_path, 1, write_model, keep=1)
    assert sorted(p.name for p in final.iterdir()) == ["config.json", "manifest.json"]
    assert not leftover.exists()


def test_a_folder_whose_handle_a_network_has_dropped_is_still_that_of_the_run(tmp_path: Path) -> None:
    lost = 1_000_000
    assert files.is_opened_folder(lost, tmp_path)
    assert not files.is_opened_folder(lost, tmp_path / "deleted")


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_a_folder_that_is_gone_is_not_written_again(how: str, tmp_path: Path) -> None:
    folder = RunDir.create(output_dir=tmp_path, name="run")
    folder.check_there()
    folder.path.rename(tmp_path / "elsewhere") if how == "renamed" else shutil.rmtree(folder.path)
    with pytest.raises(CheckpointError, match=r"run-1 was renamed or deleted during the run; to continue"):
        folder.check_there()
    with (
        pytest.raises(CheckpointError, match="the run folder was renamed or deleted"),
        new_checkpoint(folder.path, 1, keep=1),
    ):
        pass
    assert not folder.path.exists()
    folder.close()


def test_another_folder_in_the_place_of_a_run_is_not_written(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.path.rename(tmp_path / "renamed")
    other = make(tmp_path / "run")
    for write in (run.check_there, lambda: run.write_json("summary.json", {}), lambda: run.write_text("x", "y")):
        with pytest.raises(CheckpointError, match="was renamed or deleted during the run"):
            write()
    assert [path.name for path in other.path.iterdir()] == [".lock"]
    other.check_there()
    (tmp_path / "link").symlink_to(other.path)
    other.path = tmp_path / "link"
    other.check_there()
    for each in (run, other):
        each.close()


@pytest.mark.parametrize("lost", ['{"step": 2, "lo', "", '{"step": 2}\n'])
def test_metrics_that_lost_their_end_take_whole_lines_again(lost: str, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    metrics = run.path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n' + lost)
    run.rewind(3, 1000)
    append_jsonl(metrics, {"step": 4})
    run.close()
    steps = [record["step"] for record in read_jsonl(metrics)]
    assert steps == [1, *([2] if lost.endswith("\n") else []), 4]
