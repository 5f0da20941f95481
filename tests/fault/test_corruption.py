"""One byte that changed, or a file that was cut off, is found wherever it is."""

import random
import re
import shutil
from pathlib import Path

import pytest
from support.savers import Subject

from reasonrl.errors import CheckpointError
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.rundir.manifest import check_manifest

DAMAGES = 100


def damaged(content: bytes, rng: random.Random, cut: bool) -> bytes:
    at = rng.randrange(len(content))
    if cut:
        return content[:at]
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


@pytest.mark.fault
@pytest.mark.parametrize("cut", [False, True], ids=["flipped bit", "cut off"])
def test_a_hundred_damages_of_every_file_are_all_found(cut: bool, tiny_model: Path, tmp_path: Path) -> None:
    run_dir, rng = tmp_path / "run", random.Random(0)
    subject = Subject(tiny_model, run_dir, keep=2)
    for step in (1, 2):
        subject.learn(step)
        subject.save(step)
    folder = run_dir / "checkpoints" / "step_000002"
    missed = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(DAMAGES):
            path.write_bytes(damaged(content, rng, cut))
            if check_manifest(folder) is None:
                missed.append(path.name)
        path.write_bytes(content)
        assert check_manifest(folder) is None
    assert not missed


@pytest.mark.fault
def test_missing_swapped_zeroed_and_linked_files_are_found(tiny_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    subject = Subject(tiny_model, run_dir, keep=2)
    for step in (1, 2):
        subject.learn(step)
        subject.save(step)
    first, second = (run_dir / "checkpoints" / f"step_00000{n}" for n in (1, 2))
    for name in ("model.safetensors", "optimizer.safetensors", "trainer_state.json"):
        path, content = second / name, (second / name).read_bytes()
        path.unlink()
        assert check_manifest(second) == f"{name}: is missing"
        path.symlink_to(first / name)
        assert check_manifest(second) == f"{name}: is missing"
        path.unlink()
        shutil.copy(first / name, path)
        assert str(check_manifest(second)).startswith(f"{name}: ")
        path.write_bytes(bytes(len(content)))
        assert str(check_manifest(second)).startswith(f"{name}: its content changed")
        path.write_bytes(content)
    assert check_manifest(second) is None


@pytest.mark.fault
def test_a_damaged_checkpoint_is_passed_over_with_its_name_or_refused(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    subject = Subject(tiny_model, run_dir, keep=2)
    for step in (1, 2):
        subject.learn(step)
        subject.save(step)
    (run_dir / "checkpoints" / "step_000002" / "model.safetensors").write_bytes(b"")
    found = find_newest_valid(run_dir)
    assert found is not None
    assert found.name == "step_000001"
    assert re.search("skipping corrupted checkpoint .*step_000002: model.safetensors: has 0 bytes", caplog.text)
    with pytest.raises(CheckpointError, match=r"step_000002: model.safetensors: has 0 bytes.*without --strict"):
        find_newest_valid(run_dir, strict=True)
    (run_dir / "checkpoints" / "step_000001" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"all checkpoints of .* are corrupted"):
        find_newest_valid(run_dir)
