"""Tests that look for what programs leave behind wait until no other test of this run has a program."""

import fcntl
from collections.abc import Iterator

import pytest


@pytest.fixture
def alone() -> None:
    """No other test runs beside this one, in any process of the run."""


@pytest.fixture(autouse=True)
def among_others(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if hasattr(request.config, "workerinput") else base
    with (folder / "programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if "alone" in request.fixturenames else fcntl.LOCK_SH)
        yield
