"""Options of every pytest run in this repository."""

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run in one process, despite the ``-n 2`` of pyproject.toml, under a debugger and on a GPU, which has no room."""
    is_debugged = config.getoption("usepdb") or config.getoption("trace") or "pydevd" in sys.modules
    if is_debugged or config.getoption("markexpr") == "gpu":
        config.option.numprocesses = 0
