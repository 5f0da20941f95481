"""What importing reasonrl, and through it large libraries, changes of a process."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reasonrl.importing import module_command, without_collection


def openmp_of(chosen: dict[str, str]) -> dict[str, str]:
    """The OpenMP variables of a process that was started with ``chosen`` and has imported reasonrl."""
    prefixes = ("OMP_", "GOMP_", "KMP_")
    code = (
        "import json, os, sys, reasonrl; print(json.dumps({k: os.environ[k] for k in os.environ if k.startswith(%r)}))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    done = subprocess.run(
        [sys.executable, "-c", code % (prefixes,)], env=kept | chosen, capture_output=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_waiting_threads_spin_briefly() -> None:
    assert openmp_of({}) == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def test_a_wait_policy_that_the_user_chose_stays() -> None:
    for chosen in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}):
        assert openmp_of(chosen) == chosen


def test_collection_goes_on_after_imports() -> None:
    with without_collection():
        during = gc.isenabled()
    assert (during, gc.isenabled()) == (False, True)
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("first", "is_found"), [("", True), ("{here}", True), ("/usr/bin", False)])
def test_another_process_looks_in_the_working_directory_only_if_we_do(
    first: str, is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module there must not take the place of Python's."""
    (tmp_path / "mailcap.py").write_text("print('from here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [first.format(here=tmp_path), *sys.path])
    done = subprocess.run(module_command("mailcap"), capture_output=True, text=True, timeout=60, check=False)
    assert ("from here" in done.stdout) == is_found
