"""Names of trackers, told apart without importing accelerate."""

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
from accelerate import tracking

from reasonrl.observability import trackers
from reasonrl.observability.trackers import PACKAGES, tracker_problem

PROBE = """
import json, sys
from reasonrl.observability.trackers import _known
print(json.dumps([_known(), [name for name in ("torch", "accelerate") if name in sys.modules]]))
"""


def test_the_names_are_accelerates_own_and_nothing_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    names, loaded = json.loads(done.stdout)
    assert (names, loaded) == (sorted(tracking.LOGGER_TYPE_TO_CLASS), [])


def test_every_tracker_of_accelerate_says_what_to_install() -> None:
    assert PACKAGES.keys() >= tracking.LOGGER_TYPE_TO_CLASS.keys()


@pytest.mark.parametrize("name", sorted(tracking.LOGGER_TYPE_TO_CLASS))
def test_what_is_installed_is_what_accelerate_finds(name: str) -> None:
    is_there = name in {str(kind) for kind in tracking.get_available_trackers()}
    assert (tracker_problem([name]) == "") == is_there or any(map(find_spec, PACKAGES[name][0]))


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_is_told_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda module: False)
    problem = tracker_problem([name])
    assert problem == f"'{name}' is not installed: pip install {name.replace('_', '-')}, or remove it"
    monkeypatch.setattr(trackers, "is_installed", lambda module: module == PACKAGES[name][0][-1])
    assert tracker_problem([name]) == ""


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracker_problem([]) == ""
    assert tracker_problem(["wanb"]).startswith("no tracker 'wanb'; did you mean 'wandb'?; available: aim, ")
    assert tracker_problem(["all"]).startswith("no tracker 'all'; available: aim, ")
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mine", Any)
    assert tracker_problem(["mine"]) == ""
