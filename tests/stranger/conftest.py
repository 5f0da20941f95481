"""What a stranger has: an installed wheel, a folder of his own, and the documentation. Nothing of the repository else.

Tests in this folder run the documented commands on that installation (``installation.py``), each command a process with
a folder of its own (``commands.py``). They import nothing of reasonrl.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stranger.commands import HERE, Commands
from stranger.installation import Installation, installation
from stranger.lab import Lab
from stranger.words import Words

MODELS = {
    "qwen2": "architecture='qwen2'",
    "qwen3": "architecture='qwen3'",
    "llama": "architecture='llama'",
    "gemma2": "architecture='gemma2'",
    "deep": "layers=8",
}
"""Folder of a tiny random model -> how it is made."""

RUNS = (
    "reasonrl.cli.app",
    "reasonrl.cli.train",
    "reasonrl.runs.assemble",
    "reasonrl.runs.start",
    "reasonrl_hf.backend",
)
"""Modules that with those that they import are most of what a run needs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).is_relative_to(HERE):
            item.add_marker("stranger")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if base.name.startswith("pytest-") else base.parent) / "stranger"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def installed(shared: Path) -> Installation:
    return installation(shared)


@pytest.fixture(scope="session")
def commands(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("commands")
    found = Commands(installed, folder, folder / "models", modules=RUNS)
    try:
        lines = [f"tiny_model_folder(Path('models/{name}'), {how})" for name, how in MODELS.items()]
        head = ["from pathlib import Path", "from reasonrl.testing.models import tiny_model_folder"]
        (folder / "make_models.py").write_text("\n".join([*head, *lines]), encoding="utf-8")
        made = found.ready().script(folder / "make_models.py", cwd=folder)
        assert made.code == 0, made
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def described(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = commands.script(HERE / "describe.py", cwd=tmp_path_factory.mktemp("describe"))
    assert done.code == 0, done
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.fixture(scope="session")
def lab(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(commands, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def words(described: dict[str, Any]) -> Words:
    return Words(described)
