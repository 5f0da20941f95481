"""`accelerate launch --num_processes 2` really trains on two processes, also without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_recipes import PLUGIN, recipe, summary_of
from support.tiny_runs import metrics_of

HIDDEN = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.slow
def test_accelerate_launch_starts_two_processes(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = [*launcher, "-m", "reasonrl", "train", str(path), "--plugin", PLUGIN]
    environ = {k: v for k, v in os.environ.items() if k not in HIDDEN and not k.startswith("ACCELERATE_")}
    environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "run")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["machine"]["processes"] == 2
    assert summary_of(tmp_path / "run")["outcome"] == "completed"
    assert len(metrics_of(tmp_path / "run")) == 2
    assert done.stdout.count("completed after 2 steps") == 1
