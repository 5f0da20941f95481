"""Processes of one run that cannot run together end together: one line of the first process, nothing written."""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.processes import Ended, differing, on_ranks
from support.resume_runs import assert_same_run
from support.small_recipes import PLUGIN, recipe, summary_of

pytestmark = pytest.mark.slow
FAST = {"REASONRL_PROCESS_TIMEOUT_S": "5"}
MACHINES = {rank: {"environ": {"LOCAL_RANK": "0"}} for rank in (0, 1)}
TRAPS = "support.traps_plugin"


def start(
    changes: Mapping[int, Mapping[str, Any]], *words: object, more: Mapping[str, str] = {}, ends_others: bool = False
) -> Ended:
    """``reasonrl WORDS`` in two processes, which differ as ``changes`` say."""
    return on_ranks(2, differing, changes, *map(str, words), more=more, ends_others=ends_others)


def the_line(ended: Ended) -> str:
    """The one error that was said."""
    lines = [line for line in ended.stderr.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(lines) == 1, ended.stderr
    return lines[0]


@pytest.fixture
def path(tiny_model: Path, tmp_path: Path) -> Path:
    return recipe(tmp_path, tiny_model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"words": ("trainer.steps=3",)}, "differ: recipe.trainer.steps: 2 and 3; start the same command"),
        ({"versions": {"torch": "1.0"}}, 'and "1.0"; start the same command'),
        ({"words": ("--run-dir=other",)}, "differ: run folder: "),
        ({"words": ("no.such=key",)}, "process 1: override"),
    ],
)
def test_processes_that_differ_end_with_one_line(change: dict[str, Any], said: str, path: Path, tmp_path: Path) -> None:
    done = start({1: change}, "train", path, f"--plugin={PLUGIN}")
    assert done.codes == [2, 2]
    assert said in the_line(done)
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob(".reasonrl-*"))


def test_a_plugin_that_was_edited_on_one_machine_ends_both(path: Path, tmp_path: Path) -> None:
    changes = {}
    for rank, text in enumerate(("", "# edited\n")):
        plugin = tmp_path / str(rank) / "my_faults.py"
        plugin.parent.mkdir()
        plugin.write_text(Path(PLUGIN).read_text() + text)
        changes[rank] = {"words": (f"--plugin={plugin}",)}
    done = start(changes, "train", path)
    assert done.codes == [2, 2]
    assert "differ: plugin files.my_faults: " in the_line(done)


def test_an_error_of_all_is_said_once(path: Path, tmp_path: Path) -> None:
    done = start({}, "train", path, f"--plugin={PLUGIN}", "trainer.prompts_per_step=3")
    assert done.codes == [2, 2]
    assert "trainer.prompts_per_step=3 must be a multiple of" in the_line(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_model_that_one_machine_lacks_ends_both(damage: str, tiny_model: Path, tmp_path: Path) -> None:
    """The recipe takes it from the environment, which may name another place on each machine."""
    path = recipe(tmp_path, Path("${oc.env:MODEL}"))
    other = tmp_path / "other"
    if damage == "broken":  # as large as before
        shutil.copytree(tiny_model, other)
        config = other / "config.json"
        config.write_text("x" * config.stat().st_size)
    changes = {0: {"environ": {"MODEL": str(tiny_model)}}, 1: {"environ": {"MODEL": str(other)}}}
    done = start(changes, "train", path, f"--plugin={PLUGIN}")
    assert done.codes == [2, 2]
    assert "error: process 1: " in the_line(done)
    assert not (tmp_path / "runs").exists()


def test_a_model_with_other_files_ends_both(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, Path("${oc.env:MODEL}"))
    other = shutil.copytree(tiny_model, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    changes = {0: {"environ": {"MODEL": str(tiny_model)}}, 1: {"environ": {"MODEL": str(other)}}}
    done = start(changes, "train", path, f"--plugin={PLUGIN}")
    assert done.codes == [2, 2]
    assert "differ: model files.config.json: " in the_line(done)


def test_an_error_of_the_first_does_not_wait_for_one_that_never_comes(path: Path) -> None:
    done = start({1: {"waits": 15.0}}, "train", path, f"--plugin={PLUGIN}", "no.such=key", ends_others=True)
    assert done.codes[0] == 2
    assert "error: override 'no.such=key'" in the_line(done)


def test_an_error_is_said_where_the_first_never_comes(path: Path) -> None:
    changes = {0: {"waits": 15.0}, 1: {"words": ("no.such=key",)}}
    done = start(changes, "train", path, f"--plugin={PLUGIN}", more=FAST, ends_others=True)
    assert done.codes[1] == 2
    assert "error: override 'no.such=key'" in the_line(done)


def test_a_process_that_never_comes_is_named(path: Path) -> None:
    done = start({1: {"waits": 600.0}}, "train", path, f"--plugin={PLUGIN}", more=FAST, ends_others=True)
    assert done.codes[0] == 1
    assert "process 1 has not come to 127.0.0.1:" in the_line(done)


def test_a_first_process_that_never_comes_is_missed(path: Path) -> None:
    done = start({0: {"waits": 600.0}}, "train", path, f"--plugin={PLUGIN}", more=FAST, ends_others=True)
    assert done.codes[1] == 1
    assert "process 1 cannot reach process 0 at 127.0.0.1:" in the_line(done)


@pytest.mark.parametrize("missing", [0, 1])
def test_the_wait_for_a_process_is_said_before_it_ends(missing: int, path: Path) -> None:
    changes = {missing: {"waits": 60.0}, 1 - missing: {"patience": 0.5, **MACHINES[1 - missing]}}
    done = start(changes, "train", path, f"--plugin={PLUGIN}", more=FAST, ends_others=True)
    (said,) = [line for line in done.stderr.splitlines() if "waiting" in line]
    assert f"waiting for process {missing} at 127.0.0.1:" in said
    assert said.endswith(", 5 s at most")
    assert "process " in the_line(done)


def test_a_port_in_use_is_named(path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        changes = {rank: {"environ": {"MASTER_PORT": port}} for rank in (0, 1)}
        done = start(
            {**changes, 1: {**changes[1], "waits": 600.0}}, "train", path, f"--plugin={PLUGIN}", ends_others=True
        )
    assert done.codes[0] == 1
    assert f"port {port} is in use on this machine; choose another one" in the_line(done)


@pytest.mark.parametrize(
    ("size", "place", "status", "said"),
    [
        (2, {"MASTER_ADDR": "no-such-host.invalid"}, 1, "process 0 cannot be reached by its own address"),
        (1, {"MASTER_ADDR": "no-such-host.invalid"}, 1, "process 0 cannot be reached by its own address"),
        (2, {"MASTER_ADDR": "a..b"}, 1, "set MASTER_ADDR to an address of this machine"),
        (2, {"MASTER_PORT": "70000"}, 2, "the variable MASTER_PORT is 70000, expected 1 to 65535"),
    ],
)
def test_an_unusable_address_is_named(
    size: int, place: dict[str, str], status: int, said: str, path: Path, tmp_path: Path
) -> None:
    alone = {"environ": {"WORLD_SIZE": str(size), **place}}
    done = on_ranks(1, differing, {0: alone}, "train", str(path), f"--plugin={PLUGIN}", more=FAST)
    assert done.codes == [status]
    assert said in the_line(done)
    assert "frame #" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_what_answers_nothing_in_place_of_the_first_is_named(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        second = {"environ": {"MASTER_PORT": port, "RANK": "1", "WORLD_SIZE": "2"}}
        done = on_ranks(1, differing, {0: second}, "train", str(path), f"--plugin={PLUGIN}", more=FAST)
    assert done.codes == [1]
    assert f"what takes connections at 127.0.0.1:{port} is not process 0" in the_line(done)


def test_a_run_that_one_machine_does_not_see_is_not_resumed(path: Path, tmp_path: Path) -> None:
    done = start({}, "train", path, f"--plugin={PLUGIN}", "--run-dir", tmp_path / "run")
    assert done.codes == [0, 0], done.stderr
    before = sorted((tmp_path / "run").rglob("*"))
    (tmp_path / "empty").mkdir()
    cwd = {0: {"cwd": str(tmp_path)}, 1: {"cwd": str(tmp_path / "empty")}}
    done = start(cwd, "resume", "run", "trainer.steps=4", f"--plugin={PLUGIN}")
    assert done.codes == [2, 2]
    assert "error: process 1: run is not a run folder: it has no run.json" in the_line(done)
    shutil.copytree(tmp_path / "run", tmp_path / "empty" / "run")
    done = start(cwd, "resume", "run", "trainer.steps=4", f"--plugin={PLUGIN}")
    assert done.codes == [2, 2]
    assert "differ: run folder: " in the_line(done)
    assert sorted((tmp_path / "run").rglob("*")) == before


def trapped(folder: Path, model: Path, **trap: Any) -> Path:
    """A run of 5 steps that fails in its update while a file exists; every other step is saved."""
    return recipe(
        folder,
        model,
        task={"name": "numbers"},
        algorithm={"name": "trap", "file": str(folder / "armed"), "site": "compute_loss", **trap},
        rollout_backend={"name": "script"},
        trainer={"steps": 5, "prompts_per_step": 4},
        checkpoint={"every": 2},
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_resumes(rank: int, tiny_model: Path, tmp_path: Path) -> None:
    """In the update of step 4. Step 3 was not due to be saved: only the first process can do that."""
    path = trapped(tmp_path, tiny_model, error="killed", call=4, rank=rank)
    whole, run = tmp_path / "whole", tmp_path / "run"
    done = start({}, "train", path, f"--plugin={TRAPS}", "--run-dir", whole)
    assert done.codes == [0, 0], done.stderr
    (tmp_path / "armed").touch()
    done = start(MACHINES, "train", path, f"--plugin={TRAPS}", "--run-dir", run, more=FAST)
    (tmp_path / "armed").unlink()
    assert (done.codes[rank], done.codes[1 - rank]) == (-9, 1), done.stderr
    line = the_line(done)
    assert "lost the connection to another process of this run" in line
    assert "Traceback" not in done.stdout + done.stderr
    steps = sorted(folder.name for folder in (run / "checkpoints").glob("step_*"))
    assert steps[-1] == ("step_000003" if rank else "step_000002")
    if rank:
        assert f"saved: step_000003; to continue: reasonrl resume {run}" in line
        assert summary_of(run)["outcome"] == "failed"
    done = start({}, "resume", run, f"--plugin={TRAPS}")
    assert done.codes == [0, 0], done.stderr
    assert_same_run(whole, run)


def test_a_process_that_hangs_ends_the_other_within_the_limit(tiny_model: Path, tmp_path: Path) -> None:
    path = trapped(tmp_path, tiny_model, error="hung", call=2, rank=1)
    (tmp_path / "armed").touch()
    done = start({}, "train", path, f"--plugin={TRAPS}", "--run-dir", tmp_path / "run", more=FAST)
    assert done.codes == [1, 1], done.stderr
    line = the_line(done)
    assert "no answer from another process of this run within 5 s (REASONRL_PROCESS_TIMEOUT_S)" in line
    assert "saved: step_000001" in line
