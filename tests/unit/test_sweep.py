"""`reasonrl sweep`: the points of a command, what is left of them, refusals before anything starts, processes."""

import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from support.small_recipes import PLUGIN, cli, recipe, sft_recipe
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.errors import RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.recipe.grid import Point, grid, split_values
from reasonrl.rundir.folder import RunDir
from reasonrl.runs.jobs import Ended, Heard, carry_out, environment
from reasonrl.runs.sweep import SweepRun, plan_sweep

VALUES = [
    ("seed=0,1,2", ["0", "1", "2"]),
    ("seed=0", ["0"]),
    ("a.b=1e-4, 3e-4", ["1e-4", "3e-4"]),
    ("k=[q,v]", ["[q,v]"]),
    ("k=[q,v],[k]", ["[q,v]", "[k]"]),
    ("k={a: 1, b: 2},null", ["{a: 1, b: 2}", "null"]),
    ("k='a,b'", ["'a,b'"]),
    ("k='a,b',\"c,d\"", ["'a,b'", '"c,d"']),
    ("k=it's", ["it's"]),
    ("k=[[1,2],[3]],[]", ["[[1,2],[3]]", "[]"]),
    ("k=org/a,org/b-1.5", ["org/a", "org/b-1.5"]),
]


@pytest.mark.parametrize(("word", "values"), VALUES, ids=[word for word, _ in VALUES])
def test_values_are_separated_by_commas_outside_brackets_and_quotes(word: str, values: list[str]) -> None:
    assert list(split_values(word)) == values


REFUSED = [
    (["seed=0,,1"], "cannot tell its values apart"),
    (["seed=0,1,"], "cannot tell its values apart"),
    (["seed=,1"], "cannot tell its values apart"),
    (["k=[a,b"], "cannot tell its values apart"),
    (["k=a],[b"], "cannot tell its values apart"),
    (["k=${oc.env:NAME,x}"], "cannot tell its values apart"),
    (["k='a,b"], "cannot tell its values apart"),
    (["seed=0"], "nothing to vary"),
    ([], "nothing to vary"),
    (["seed=0,1", "seed=2"], "seed is given twice"),
    (["seed=2", "seed=0,1"], "seed is given twice"),
    (["seed=0,1,0"], "0 and 0 are the same value"),
    (["a.b=1e-4,0.0001"], "1e-4 and 0.0001 are the same value"),
    (["=1,2"], "expected section.key=value,value"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_could_mean_two_things_is_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as err:
        grid(words)
    assert message in str(err.value)
    assert "\n" not in str(err.value)


def test_points_are_all_combinations_and_the_last_key_varies_fastest() -> None:
    points = grid(["name=x", "optimizer.learning_rate=1e-4,3e-4", "trainer.steps=2", "seed=0,1", "trainer.steps=3"])
    assert [point.name for point in points] == [
        "learning_rate=1e-4_seed=0",
        "learning_rate=1e-4_seed=1",
        "learning_rate=3e-4_seed=0",
        "learning_rate=3e-4_seed=1",
    ]
    fixed = ("name=x", "trainer.steps=2", "trainer.steps=3")
    assert points[1].overrides == (*fixed, "optimizer.learning_rate=1e-4", "seed=1")


NAMES = [
    (["algorithm.name=grpo,ppo"], ["algorithm.name=grpo", "algorithm.name=ppo"]),
    (
        ["a.rate=1,2", "b.rate=3,4"],
        ["a.rate=1_b.rate=3", "a.rate=1_b.rate=4", "a.rate=2_b.rate=3", "a.rate=2_b.rate=4"],
    ),
    (["model.path=Qwen/Qwen2.5-0.5B,/data/my model"], ["model.path=Qwen-Qwen2.5-0.5B", "model.path=data-my-model"]),
    (["k=-1,1"], ["k=-1", "k=1"]),
    (["k=[a, b],'c,d'"], ["k=a-b", "k=c-d"]),
]


@pytest.mark.parametrize(("words", "names"), NAMES, ids=[words[0] for words, _ in NAMES])
def test_folders_are_named_after_what_varies(words: list[str], names: list[str]) -> None:
    assert [point.name for point in grid(words)] == names


def test_no_two_points_share_a_folder_on_any_file_system() -> None:
    words = ["k='a/b','a b','A/B',''", f"l={'x' * 50}1,{'x' * 50}2", *(f"{'m' * 40}{i}=1,2" for i in range(4))]
    names = [point.name.lower() for point in grid(words)]
    assert len(set(names)) == len(names) == 4 * 2 * 16
    assert max(map(len, names)) < 250
    assert not any(set(name) & set('/\\:*?"<>| ') for name in names)


def test_every_point_is_checked_before_anything_starts(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    for words, message in (
        (
            ["optimizer.learning_rate=0.1,-1", "seed=0,1"],
            "learning_rate=-1_seed=0: override 'optimizer.learning_rate=-1'",
        ),
        (["sampling.group_size=8,9x"], "group_size=9x: override"),
        (["logging.trackers=tensorboard,wandb"], "write logging.trackers=[a,b] for one list, "),
        (["task.name=counting,nothing"], "task.name=nothing: "),
        (["seed=0,1", "--only", 3], "--only 3: the sweep has 2 points"),
    ):
        done = cli("sweep", path, *words)
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_ranks_are_refused(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = cli("sweep", recipe(tmp_path, tiny_model), "seed=0,1")
    assert done.exit_code == 2
    assert "start it without accelerate launch or torchrun" in done.stderr


def test_the_dry_run_lists_what_is_left(tiny_model: Path, tmp_path: Path) -> None:
    """Of points that are finished, began, died at their start, and never began; nothing is changed."""
    path = recipe(tmp_path, tiny_model, output_dir=str(tmp_path / "sweeps"))
    home = tmp_path / "sweeps" / "faulty-seed"
    done = cli("train", path, "trainer.steps=1", "seed=0", "--run-dir", home / "seed=0")
    assert done.exit_code == 0, done.output
    (home / "seed=2").mkdir()
    (home / "seed=2" / ".lock").touch()
    for steps, state in ((1, "finished"), (2, "unfinished")):
        listed = cli("sweep", path, f"trainer.steps={steps}", "seed=0,1,2", "--dry-run").stdout.splitlines()
        assert listed[0] == f"3 points in {home}"
        assert [line.split() for line in listed[2:]] == [
            ["1", state, "seed=0"],
            ["2", "missing", "seed=1"],
            ["3", "missing", "seed=2"],
        ]
    refused = cli("resume", home)
    assert refused.exit_code == 2
    assert "it holds runs; resume one of them, or repeat the command of the sweep" in refused.stderr
    only = cli("sweep", path, "seed=0,1,2", "--only", 2, "--dry-run").stdout
    assert only.startswith("1 point in ")
    assert "seed=1" in only
    assert "seed=0" not in only
    done = cli("sweep", path, "trainer.steps=1", "optimizer.learning_rate=0.02", "seed=0,1,2")
    assert done.exit_code == 2
    assert "optimizer.learning_rate: 0.01 -> 0.02; undo the change, or start another sweep with --dir" in done.stderr
    (home / "seed=1").mkdir()
    (home / "seed=1" / "notes.txt").touch()
    done = cli("sweep", path, "trainer.steps=1", "seed=0,1,2")
    assert done.exit_code == 2
    assert "seed=1 exists and is not a run; remove it, or start another sweep" in done.stderr
    assert not list(home.glob("*.log"))


def test_a_changed_limit_is_passed_on_to_the_resumed_run(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    run = tmp_path / "s" / "seed=0"
    assert cli("train", path, "trainer.steps=1", "--run-dir", run).exit_code == 0
    words = ["seed=0,1", "trainer.steps=3", "checkpoint.every=1", "logging.project=${oc.env:HOME}"]
    _, runs = plan_sweep(str(path), words, load_plugins(files=[PLUGIN]), folder=tmp_path / "s", plugin_files=[PLUGIN])
    changes = ["checkpoint.every=1", 'logging.project="${oc.env:HOME}"', "trainer.steps=3"]
    command = list(runs[0].command)
    assert command[command.index("reasonrl") + 1 :] == ["resume", str(run), *changes, "--plain", "--plugin", PLUGIN]
    command = list(runs[1].command)
    assert command[command.index("reasonrl") + 1 :][:2] == ["train", str(path)]
    assert command[-5:] == ["--run-dir", str(tmp_path / "s" / "seed=1"), "--plain", "--plugin", PLUGIN]


def test_an_sft_recipe_is_swept_too(tiny_model: Path, tmp_path: Path) -> None:
    listed = cli("sweep", sft_recipe(tmp_path, tiny_model), "optimizer.learning_rate=0.01,0.02", "--dry-run")
    assert listed.exit_code == 0, listed.output
    assert "learning_rate=0.02" in listed.stdout


# The processes, with shell commands in place of training.


def shell_runs(folder: Path, *scripts: str) -> list[SweepRun]:
    return [
        SweepRun(
            number=number,
            total=len(scripts),
            point=Point(name=f"p{number}", values={}, overrides=()),
            folder=folder / f"p{number}",
            state="missing",
            command=("sh", "-c", script),
        )
        for number, script in enumerate(scripts, start=1)
    ]


class Listener:
    def __init__(self) -> None:
        self.most, self.events = 0, list[str]()
        self.heard = Heard(
            started=lambda run: self.events.append(f"+{run.number}"),
            ended=self._ended,
            active=self._active,
            stopping=lambda count: None,
        )

    def _active(self, runs: Sequence[SweepRun]) -> None:
        self.most = max(self.most, len(runs))

    def _ended(self, one: Ended) -> None:
        self.events.append(f"-{one.run.number}")


def test_a_failure_does_not_stop_the_others_and_its_reason_is_kept(tmp_path: Path) -> None:
    said = Listener()
    runs = shell_runs(tmp_path / "s", "true", "echo 'error: no luck' >&2; echo bye; exit 2", "kill -9 $$", "true")
    ended, signum = carry_out(runs, 2, said.heard)
    by_number = {one.run.number: one for one in ended}
    assert signum == 0
    assert [by_number[n].ending for n in (1, 2, 3, 4)] == ["finished", "failed", "failed", "finished"]
    assert (by_number[2].code, by_number[2].reason) == (2, "no luck")
    assert by_number[3].code == 137
    assert runs[1].log.read_text() == "error: no luck\nbye\n"
    assert said.most == 2
    assert said.events[:2] == ["+1", "+2"]


def test_a_log_that_is_gone_or_cannot_be_written_concerns_its_run_alone(tmp_path: Path) -> None:
    runs = shell_runs(tmp_path / "s", f"rm {tmp_path / 's' / 'p1.log'}; exit 2", "true", "true", "true")
    runs[1].log.mkdir(parents=True)
    os.mkfifo(runs[2].log)
    ended, _ = carry_out(runs, 1, Listener().heard)
    assert [(one.ending, one.code) for one in ended] == [("failed", 2), ("failed", 1), ("failed", 1), ("finished", 0)]
    assert ended[0].reason.startswith("its log cannot be read: FileNotFoundError")
    assert f"{runs[1].log}: Is a directory" in ended[1].reason
    assert f"{runs[2].log}: is a FIFO, expected a file" in ended[2].reason


def test_a_run_that_another_sweep_has_started_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Both were planned when its folder was missing."""
    runs = shell_runs(tmp_path / "s", *["echo trained"] * 3)
    for run in runs:
        run.folder.mkdir(parents=True)
    (runs[0].folder / "run.json").write_text("{}")  # finished by now
    running = RunDir.reopen(runs[1].folder)
    (runs[2].folder / "recipe.yaml").touch()  # died at its start
    ended, _ = carry_out(runs, 1, Listener().heard)
    running.close()
    assert [(one.ending, one.code) for one in ended] == [("failed", 3), ("failed", 3), ("finished", 0)]
    assert "another sweep" in ended[0].reason
    assert [run.folder.exists() for run in runs] == [True, True, False]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_every_run_once_and_starts_no_more(
    signum: signal.Signals, hangup_by_default: None, tmp_path: Path
) -> None:
    name = signum.name.removeprefix("SIG")
    script = f"trap 'echo got; sleep 0.3; exit {128 + signum}' {name}; echo ready; while :; do sleep 0.05; done"
    runs = shell_runs(tmp_path / "s", script, script, "true")

    def send() -> None:
        while not all(run.log.exists() and "ready" in run.log.read_text() for run in runs[:2]):
            time.sleep(0.02)
        os.kill(os.getpid(), signum)

    threading.Thread(target=send, daemon=True).start()
    ended, found = carry_out(runs, 2, Listener().heard)
    assert found == signum
    assert [one.ending for one in ended] == ["stopped", "stopped"]
    assert [run.log.read_text() for run in runs[:2]] == ["ready\ngot\n"] * 2
    assert not runs[2].log.exists()
    assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert environment(1, {}) == {"PYTHONUNBUFFERED": "1"}
    assert environment(3, {})["OMP_NUM_THREADS"] == "2"
    assert environment(3, {"OMP_NUM_THREADS": "5"})["OMP_NUM_THREADS"] == "5"
    assert environment(99, {})["OMP_NUM_THREADS"] == "1"


@pytest.mark.slow
def test_a_sweep_fails_in_part_resumes_and_is_reported(tiny_model: Path, tmp_path: Path) -> None:
    """The real command: one of three runs fails, the repeated command finishes it alone; then report and compare."""
    home = tmp_path / "runs" / "faulty-seed"
    path = recipe(tmp_path, tiny_model)
    fragile = str(Path(__file__).parents[1] / "support" / "fragile_backend.py")
    backend = {"name": "fragile", "while_exists": str(tmp_path / "broken"), "fails": "generate", "call": 3}
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**data, "rollout_backend": backend, "checkpoint": {"every": 1}}))
    (tmp_path / "broken").touch()
    command = ("sweep", path, "seed=0,1", "--plugin", fragile)
    failed = cli(*command)
    assert failed.exit_code == 1, failed.output
    *_, one, two, again = failed.stdout.splitlines()
    assert "failed with exit status" in one
    assert "the backend has gone" in one + two
    assert again.startswith("to resume: reasonrl sweep ")
    (tmp_path / "broken").unlink()
    done = CliRunner().invoke(app, shlex.split(again.removeprefix("to resume: reasonrl ")))
    assert done.exit_code == 0, done.output
    assert done.stdout.count(": resumed") == 2
    assert f"{home}: 2 finished" in done.stdout
    assert {json.loads((home / f"seed={s}" / "summary.json").read_text())["steps"] for s in (0, 1)} == {2}
    assert f"2 runs in {home}, 2 finished" in cli(*command).stdout
    for words in (["report", str(home), "--output", str(tmp_path / "r.html")], ["compare", str(home)]):
        read = CliRunner().invoke(app, words)
        assert read.exit_code == 0, read.output
