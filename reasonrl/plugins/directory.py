"""Which distribution a name comes from that is not installed here. Torch-free."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read_directory() -> list[dict[str, Any]]:
    """The entries of ``directory.yaml``, whose head says what they hold."""
    import yaml

    return list(yaml.safe_load((files("reasonrl.plugins") / "directory.yaml").read_text(encoding="utf-8")))


def origin(kind: str, name: str) -> str:
    """Where to get the component, as ``it comes with reasonrl-math: ...``; empty if the directory has none."""
    for entry in read_directory():
        if name in entry["offers"].get(kind, ()):
            return f"it comes with {entry['distribution']}: {entry['install']}"
    return ""
