"""Options of every pytest run in this repository."""

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run in one process under a debugger, which the ``-n 2`` of pyproject.toml would rule out."""
    if config.getoption("usepdb") or config.getoption("trace") or "pydevd" in sys.modules:
        config.option.numprocesses = 0
