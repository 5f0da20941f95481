"""pytest in this repository: a debugger needs no further options, and our own deprecations are errors."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = "tests/architecture/test_sizes.py"
CATEGORIES = (DeprecationWarning, FutureWarning)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_a_debugger_needs_no_further_options(option: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", option, QUICK]
    done = subprocess.run(command, cwd=ROOT, input="c\n" * 20, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed in " in done.stdout


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("module", ["reasonrl.trainer.loop", "reasonrl_grpo.plugin", "test_x", "tests.unit.test_x"])
def test_own_deprecations_are_errors(module: str, category: type[Warning]) -> None:
    with pytest.raises(category):
        warnings.warn_explicit("old", category, "file.py", 1, module=module)


@pytest.mark.parametrize("category", CATEGORIES)
def test_deprecations_inside_a_dependency_are_ignored(category: type[Warning]) -> None:
    warnings.warn_explicit("old", category, "file.py", 1, module="transformers.modeling_utils")
