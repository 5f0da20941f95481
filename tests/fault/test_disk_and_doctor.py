"""What the doctor says of real checkpoints after the disk, or a kill, has been at them."""

import random
import shutil
from pathlib import Path

import pytest
from support.savers import Subject
from support.sick_runs import write_run

from reasonrl.analysis.doctor import Finding, examine

DAMAGES = 20


def findings(run_dir: Path) -> list[Finding]:
    return [f for f in examine(run_dir).findings if f.check == "checkpoints"]


@pytest.fixture
def run_dir(tiny_model: Path, tmp_path: Path) -> Path:
    """A run of 40 steps by hand, with two checkpoints of a real model and its optimizer."""
    folder = write_run(tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    subject = Subject(tiny_model, folder, keep=2)
    for step in (1, 2):
        subject.learn(step)
        subject.save(step)
    return folder


@pytest.mark.fault
def test_one_changed_bit_anywhere_is_told_with_its_file_and_the_step_to_go_on_from(run_dir: Path) -> None:
    assert findings(run_dir) == []
    rng = random.Random(0)
    for path in sorted((run_dir / "checkpoints" / "step_000002").iterdir()):
        content = path.read_bytes()
        for _ in range(DAMAGES):
            at = rng.randrange(len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :])
            (found,) = findings(run_dir)
            assert (found.severity, found.step) == ("error", 2)
            # A damaged manifest may accuse the file whose entry it garbles.
            assert path.name in found.message or path.name == "manifest.json"
            assert "from step 1, which is intact" in found.remedy
        path.write_bytes(content)
    assert findings(run_dir) == []


@pytest.mark.fault
@pytest.mark.parametrize("name", [".tmp-step_000003", ".old-step_000002", ".gone-step_000001"])
def test_what_a_kill_leaves_behind_is_a_note(name: str, run_dir: Path) -> None:
    shutil.copytree(run_dir / "checkpoints" / "step_000002", run_dir / "checkpoints" / name)
    (found,) = findings(run_dir)
    assert found.severity == "note"
    assert name in found.message
