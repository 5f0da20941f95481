"""Whatever happened to a run folder, a command reads it, falls back, or says what is wrong in one line."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.damages import NO_PLUGINS, READERS, damage, whole_run
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.errors import CheckpointError, ReasonRLError, RecipeError
from reasonrl.rundir import reading
from reasonrl.rundir.checkpoints import list_saved_steps, new_checkpoint, refuse_damaged
from reasonrl.rundir.files import write_text
from reasonrl.rundir.layout import step_dir
from reasonrl.rundir.reading import UnreadableError, read_json, read_lines
from reasonrl.runs.resume import read_manifest
from reasonrl.runs.targets import locate

SEED = 16
LIMIT_S = 120  # of a busy machine; whatever waits for a FIFO would wait forever


def try_damages(folder: Path, seed: int, count: int) -> int:
    """Damage fresh copies of a run and read them; returns how many reads were refused."""
    rng, refused = random.Random(seed), 0
    whole = whole_run(folder / "whole")

    def give_up(*_: Any) -> None:
        raise TimeoutError("a read takes more than the limit")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        for number in range(count):
            run = folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            said = [damage(run, rng) for _ in range(rng.choice([1, 1, 2, 4]))]
            name = rng.choice(list(READERS))
            signal.alarm(LIMIT_S)
            message = ""
            try:
                READERS[name](run)
            except ReasonRLError as err:
                refused += 1
                message = str(err)
            except BaseException as err:
                raise AssertionError(f"input {number} of seed {seed}: {name} on {said}: {err!r}") from err
            finally:
                signal.alarm(0)
            assert "\n" not in message, (number, name, said)
            assert len(message) < 1000, (number, name, said, message)
    finally:
        signal.signal(signal.SIGALRM, before)
    return refused


def test_damages_end_in_one_line(tmp_path: Path) -> None:
    assert try_damages(tmp_path, SEED, 300) > 30


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(SEED + 1, 1_000, marks=pytest.mark.slow),
        *(pytest.param(SEED + more, 2_000, marks=pytest.mark.long) for more in range(2, 7)),
    ],
)
def test_thousands_of_damages_end_in_one_line(seed: int, count: int, tmp_path: Path) -> None:
    assert try_damages(tmp_path, seed, count) > count / 10


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[100] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))


def zero(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(200))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGED: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip,
    "zeroed tensors": zero,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "deep manifest": lambda folder: (folder / "manifest.json").write_text("[" * 200_000),
    "empty folder": empty,
}
STRAY: dict[str, Callable[[Path], object]] = {
    "step_000099": lambda path: path.write_text("a file"),
    "step_00009\u0669": Path.mkdir,
    "step_0000099": Path.mkdir,
    "step_000098": lambda path: path.symlink_to(path.parent / "nowhere"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_checkpoint_is_used_by_no_command(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = whole_run(tmp_path / "run")
    newest = run / "checkpoints" / "step_000040"
    DAMAGED[kind](newest)
    assert locate(str(run), NO_PLUGINS)[0].endswith("step_000030")
    assert f"skipping corrupted checkpoint {newest}: " in caplog.text
    with pytest.raises(CheckpointError, match="without --strict"):
        locate(str(run), NO_PLUGINS, strict=True)
    with pytest.raises(CheckpointError, match="it is not what was saved: use another checkpoint"):
        refuse_damaged(newest)
    for command in ("eval", "generate", "chat", "export"):
        done = CliRunner().invoke(app, [command, str(run), "--strict"])
        assert (done.exit_code, done.stderr.count("step_000040: ")) == (1, 1), done.output
    if kind != "empty folder":
        done = CliRunner().invoke(app, ["chat", str(newest)])
        assert (done.exit_code, "it is not what was saved" in done.stderr) == (1, True), done.output


@pytest.mark.parametrize("name", STRAY)
def test_a_stray_entry_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    STRAY[name](run / "checkpoints" / name)
    assert list_saved_steps(run) == [30, 40]
    assert locate(str(run), NO_PLUGINS, strict=True)[0].endswith("step_000040")
    for step in (98, 99):
        with new_checkpoint(run, step, keep=9) as folder:
            write_text(folder / "config.json", "{}")
    assert list_saved_steps(run) == [30, 40, 98, 99]


def test_deleting_old_checkpoints_keeps_what_can_be_resumed_and_follows_no_link(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    first, elsewhere = step_dir(run, 30), tmp_path / "elsewhere"
    first.rename(elsewhere)
    first.symlink_to(elsewhere)
    step_dir(run, 41).mkdir()
    with new_checkpoint(run, 42, keep=2) as folder:
        write_text(folder / "config.json", "{}")
    assert list_saved_steps(run) == [40, 41, 42], "the empty folder does not count"
    assert (elsewhere / "manifest.json").exists()
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_large_document_or_line_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    path = tmp_path / "x"
    path.write_text('{"a": 1}\n' + '{"b": "' + "x" * 5000 + '"}\n{"c": 3}\n{"d"')
    found = [(record, is_cut) for _, record, is_cut in read_lines(path)]
    assert found == [({"a": 1}, False), (None, False), ({"c": 3}, False), (None, True)]
    with pytest.raises(UnreadableError, match="is larger than"):
        read_json(path)


@pytest.mark.parametrize(
    "command", ["resume", "eval", "generate", "export", "doctor", "report", "compare", "behaviors"]
)
@pytest.mark.parametrize(
    "target", ["a" * 300, "a\0b", "~nobody_of_this_name/run", "run@" + "9" * 5000, "/dev/null", "run/run.json/x"]
)
def test_a_path_that_cannot_be_one_is_refused_in_a_line(command: str, target: str, tmp_path: Path) -> None:
    whole_run(tmp_path / "run")
    done = CliRunner().invoke(app, [command, target])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert (done.exit_code, done.stderr.count("error: ")) == (2, 1), done.output


@pytest.mark.parametrize("key", ["recipe", "model_path", "plugins", "resumed"])
@pytest.mark.parametrize("value", ["nothing", None, 5, ["x"], {"x": 1}, "x"])
def test_a_manifest_of_a_run_that_lacks_a_part_names_it(key: str, value: object, tmp_path: Path) -> None:
    whole: dict[str, Any] = {"recipe": {}, "model_path": "tiny", "plugins": [{"name": "ppo"}], "resumed": []}
    if value == "nothing":
        del whole[key]
    else:
        whole[key] = value
    (tmp_path / "run.json").write_text(json.dumps(whole))
    if (key, value) in (("recipe", {"x": 1}), ("model_path", "x"), ("resumed", "nothing")):
        assert read_manifest(tmp_path).get(key, []) == whole.get(key, [])
        return
    with pytest.raises(RecipeError, match=f"run.json: cannot be read: {key} missing or damaged; restore it from"):
        read_manifest(tmp_path)
