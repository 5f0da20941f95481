"""Which distribution a name comes from that is not installed here. Torch-free."""

from __future__ import annotations

from importlib.resources import files


def origin(kind: str, name: str) -> str:
    """Where to get the component, as ``it comes with reasonrl-math: ...``; empty if ``directory.yaml`` has none."""
    import yaml

    text = (files("reasonrl.plugins") / "directory.yaml").read_text(encoding="utf-8")
    for entry in yaml.safe_load(text):
        if name in entry["offers"].get(kind, ()):
            return f"it comes with {entry['distribution']}: {entry['install']}"
    return ""
