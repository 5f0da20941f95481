"""8-bit optimizer states, with bitsandbytes: `pip install -e ".[low-memory]"`."""

from pathlib import Path

import pytest
import torch
from support.savers import Subject, same
from support.small_recipes import cli, recipe
from torch import nn

from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.testing.models import tiny_model_folder

pytestmark = pytest.mark.lowmem


def test_8_bit_moments_come_back_bit_by_bit(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", hidden=64)
    one, other = (Subject(model, tmp_path / name, optimizer="adamw_8bit") for name in ("one", "other"))
    for seed in range(3):
        one.learn(seed)
    one.save(3)
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other.load(folder)
    assert same(one.tensors(), other.tensors())
    codes = {name: t for name, t in other.tensors().items() if "/state" in name and t.numel() >= 4096}
    assert len(codes) > 10
    assert {t.dtype for t in codes.values()} == {torch.uint8}
    for subject in (one, other):
        subject.learn(7)
    assert same(one.tensors(), other.tensors())


def test_8_bit_moments_learn_as_adamw_does() -> None:
    from reasonrl.trainer.adamw_8bit import AdamW8bit

    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(64, 64, generator=generator), torch.randint(5, (64,), generator=generator)
    curves = []
    for kind in (torch.optim.AdamW, AdamW8bit):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 5))
        optimizer = kind(model.parameters(), lr=0.003, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        curves.append([])
        for _ in range(40):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            curves[-1].append(loss.item())
    assert curves[0][-1] < 0.1 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=0.1, abs=0.02)


def test_a_run_with_8_bit_moments_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", hidden=64)
    path = recipe(tmp_path, model, optimizer={"name": "adamw_8bit"})
    ends = []
    for folder, steps in (("whole", (2,)), ("parts", (1, 2))):
        run = tmp_path / folder
        for first, total in enumerate(steps):
            command = ("resume", run) if first else ("train", path, "--run-dir", run)
            done = cli(*command, f"trainer.steps={total}")
            assert done.exit_code == 0, done.output
        ends.append((run / "checkpoints" / "step_000002" / "optimizer.safetensors").read_bytes())
    assert ends[0] == ends[1]
