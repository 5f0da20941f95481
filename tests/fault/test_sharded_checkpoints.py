"""One checkpoint format for one process, DDP and FSDP: each gives the same state back, bit by bit."""

from pathlib import Path

import pytest
import torch
from support.processes import on_ranks
from support.sharded_worker import save_and_read_back


def after_a_save(kind: str, model: Path, folder: Path, optimizer: str = "adamw") -> dict[str, torch.Tensor]:
    done = on_ranks(2, save_and_read_back, kind, model, folder, optimizer)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "after.pt", weights_only=True)


@pytest.mark.fault
def test_two_ranks_save_and_resume_and_agree_with_one(tiny_model: Path, tmp_path: Path) -> None:
    found = {kind: after_a_save(kind, tiny_model, tmp_path / kind) for kind in ("ddp", "fsdp")}
    assert found["ddp"].keys() == found["fsdp"].keys()
    for name, tensor in found["ddp"].items():
        torch.testing.assert_close(found["fsdp"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    for kind in found:
        names = sorted(path.name for path in (tmp_path / kind).iterdir())
        assert {"model.safetensors", "optimizer.safetensors", "trainable.safetensors"} <= set(names)


@pytest.mark.fault
def test_moments_in_bfloat16_are_sharded_and_resumed(tiny_model: Path, tmp_path: Path) -> None:
    found = after_a_save("fsdp", tiny_model, tmp_path / "fsdp", "adamw_bf16")
    assert {t.dtype for name, t in found.items() if "exp_avg" in name} == {torch.bfloat16}
