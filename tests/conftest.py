"""Fixtures shared by all tests. No test needs network or GPU."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# pytest runs a worker per core; threads on top of that only fight for the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores these, and so would everything that a test starts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

# The same examples in every run: a change that fails is at fault. `pytest --hypothesis-profile random` draws others.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("same")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what could not run on this machine, and why; .ci/run repeats these lines at its end."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    for reason in sorted({told[2] for told in skipped if isinstance(told, tuple)}):
        if "not allowed here" in reason:
            terminalreporter.write_line(f"NOT RUN: {reason.removeprefix('Skipped: ')}", red=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 with a byte tokenizer, as a model folder."""
    from reasonrl.testing.models import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def forget_precision() -> Iterator[None]:
    """accelerate keeps the precision of a process's last run for whoever asks next."""
    yield
    if (state := sys.modules.get("accelerate.state")) is not None:
        state.AcceleratorState._reset_state()


@pytest.fixture
def hangup_by_default() -> Iterator[None]:
    """SIGHUP as in a terminal. Behind nohup it is ignored, also by everything that a test starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
