"""Whatever fails while a checkpoint is saved, one that was there before or the new one loads."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fault_points import POINTS, fail_at
from support.savers import Subject, same

from reasonrl.errors import CheckpointError
from reasonrl.rundir.checkpoints import clear_leftovers, find_newest_valid
from reasonrl.runs.state import read_state

MOST_CALLS = 200


def saved_state(subject: Subject, run_dir: Path, model: Path, scratch: Path) -> int:
    """The step of the newest checkpoint, after it was put into a fresh policy."""
    clear_leftovers(run_dir)
    folder = find_newest_valid(run_dir)
    assert folder is not None
    fresh = Subject(model, scratch)
    fresh.load(folder)
    fresh.folder.close()
    step = read_state(folder).step
    assert same(fresh.tensors(), subject.states[step])  # type: ignore[attr-defined]
    return step


def two_steps(model: Path, run_dir: Path) -> Subject:
    """Step 1 is saved, step 2 is not yet."""
    subject = Subject(model, run_dir)
    subject.states = {}  # type: ignore[attr-defined]
    for step in (1, 2):
        subject.learn(step)
        subject.states[step] = subject.tensors()  # type: ignore[attr-defined]
        if step == 1:
            subject.save(1)
    return subject


@pytest.mark.fault
@pytest.mark.parametrize(
    ("code", "persistently"),
    [
        pytest.param(errno.ENOSPC, True, id="ENOSPC-from then on"),
        pytest.param(errno.EIO, False, id="EIO-once", marks=pytest.mark.long),
        pytest.param(errno.EIO, True, id="EIO-from then on", marks=pytest.mark.long),
        pytest.param(errno.ENOSPC, False, id="ENOSPC-once", marks=pytest.mark.long),
    ],
)
def test_every_file_system_call_of_a_save_may_fail(
    code: int, persistently: bool, tiny_model: Path, tmp_path: Path
) -> None:
    outcomes = []
    for n in range(1, MOST_CALLS):
        run_dir = tmp_path / f"run-{n}"
        subject = two_steps(tiny_model, run_dir)
        message = ""
        with POINTS.acting(f"{run_dir}/checkpoints", fail_at(n, code, persistently=persistently)) as points:
            try:
                subject.save(2)
            except CheckpointError as err:
                message = str(err)
        step = saved_state(subject, run_dir, tiny_model, tmp_path / f"fresh-{n}")
        assert step == 2 or "earlier checkpoints are kept" in message
        subject.save(2)  # the disk is well again
        assert saved_state(subject, run_dir, tiny_model, tmp_path / f"again-{n}") == 2
        assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["step_000002"]
        outcomes.append((bool(message), step))
        subject.folder.close()
        if points.count < n:
            break
    assert outcomes[-1] == (False, 2)
    assert len(outcomes) > 30  # that many calls there are
    assert (True, 1) in outcomes


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk: no file grows beyond ``size`` bytes, whoever writes it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.fault
def test_writes_that_break_off_anywhere_leave_the_checkpoint_before(tiny_model: Path, tmp_path: Path) -> None:
    subject = two_steps(tiny_model, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "step_000001"
    largest = max(path.stat().st_size for path in folder.iterdir())
    for n, size in enumerate(int(largest * share / 40) for share in range(40)):
        with files_of_at_most(size), pytest.raises(CheckpointError, match="earlier checkpoints are kept"):
            subject.save(2)
        assert saved_state(subject, tmp_path / "run", tiny_model, tmp_path / f"fresh-{n}") == 1
    subject.save(2)
    assert saved_state(subject, tmp_path / "run", tiny_model, tmp_path / "last") == 2
