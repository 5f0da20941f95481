"""Every key of a recipe has an effect that can be seen in what a run leaves."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from stranger.commands import Commands
from stranger.keys.registry import PROBES, load_all
from stranger.lab import Lab, distance

load_all()


@pytest.mark.parametrize(("kind", "key"), sorted(PROBES), ids=lambda part: part)
def test_the_key_has_its_effect(kind: str, key: str, lab: Lab) -> None:
    PROBES[kind, key](lab, kind)


def test_every_key_is_observed(described: dict[str, Any]) -> None:
    """A new key needs an entry in ``keys/``, in which its effect is seen and not only its parsing."""
    schema = {kind: described[kind] for kind in ("train", "sft", "reward")} | described["components"]
    there = {(kind, key) for kind, keys in schema.items() for key in keys}
    needed = {(kind, key) for kind, keys in schema.items() for key in leaves(keys)}
    # A field that algorithms inherit from one class is observed in one of them.
    inherited = {schema[kind][key] for kind, key in PROBES if kind.startswith("algorithm.")} - {""}
    needed -= {(k, key) for k, key in needed if k.startswith("algorithm.") and schema[k][key] in inherited}
    assert sorted(needed - PROBES.keys()) == [], "keys without an entry"
    assert sorted(PROBES.keys() - there) == [], "entries without a key"


def leaves(keys: Iterable[str]) -> list[str]:
    """Without the sections that only hold other keys."""
    return [key for key in keys if not any(other.startswith(key + ".") for other in keys)]


def test_the_same_recipe_gives_the_same_run(lab: Lab) -> None:
    """So that a difference is the key's."""
    for kind in ("train", "ppo", "sft"):
        one, other = lab.run(kind), lab.run(kind, "name=again")
        assert distance(one.weights(), other.weights()) == 0.0
        assert [r["completion"] for r in one.evaluation()] == [r["completion"] for r in other.evaluation()]


def test_files_of_the_installed_wheel_are_used(lab: Lab, commands: Commands, tmp_path: Path) -> None:
    """The folder in which the commands run holds no reasonrl, and neither does the path."""
    assert not list(lab.folder.glob("reasonrl*"))
    code = "import reasonrl, sys; print(reasonrl.__file__); assert 'site-packages' in reasonrl.__file__"
    (tmp_path / "where.py").write_text(code, encoding="utf-8")
    assert commands.script(tmp_path / "where.py", cwd=tmp_path).code == 0
