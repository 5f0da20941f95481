"""One checkpoint format for one process, DDP and FSDP: each gives the same state back, bit by bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]


def on_ranks(kind: str, ranks: int, model: Path, folder: Path) -> dict[str, torch.Tensor]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    command = [*launcher, str(TESTS / "support" / "sharded_worker.py"), kind, str(model), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "after.pt", weights_only=True)


@pytest.mark.fault
def test_two_ranks_save_and_resume_and_agree_with_one(tiny_model: Path, tmp_path: Path) -> None:
    found = {kind: on_ranks(kind, 2, tiny_model, tmp_path / kind) for kind in ("ddp", "fsdp")}
    assert found["ddp"].keys() == found["fsdp"].keys()
    for name, tensor in found["ddp"].items():
        torch.testing.assert_close(found["fsdp"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    for kind in found:
        names = sorted(path.name for path in (tmp_path / kind).iterdir())
        assert {"model.safetensors", "optimizer.safetensors", "trainable.safetensors"} <= set(names)
