"""Fake installed distributions: a module and a ``.dist-info`` folder with an entry point."""

from pathlib import Path
from textwrap import dedent


def write_distribution(
    folder: Path, name: str, code: str, *, entry: str = "", requires: str = "", version: str = "1.0"
) -> Path:
    """Write distribution ``reasonrl-<name>`` with module ``fake_<name>`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    module = f"fake_{name}"
    (folder / f"{module}.py").write_text(dedent(code), encoding="utf-8")
    info = folder / f"reasonrl_{name}-{version}.dist-info"
    info.mkdir()
    requirement = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: reasonrl-{name}\nVersion: {version}\n{requirement}", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(f"[reasonrl]\n{entry or name} = {module}\n", encoding="utf-8")
    return folder
