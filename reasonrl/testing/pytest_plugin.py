"""Fixtures for plugin authors, loaded by pytest through the entry point ``pytest11``.

pytest loads this module in every project with reasonrl installed, so it imports neither reasonrl nor torch before a
fixture is used (an import here would also precede coverage measurement).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reasonrl.plugins import Plugins
    from reasonrl.runs.result import RunResult
    from reasonrl.testing.policies import TinyPolicy
    from reasonrl.testing.scripted import ScriptedBackend


@pytest.fixture
def isolated_plugins() -> Callable[..., Plugins]:
    """Load only these plugins: ``isolated_plugins(module_or_object_or_file, ..., installed=("hf",))``."""

    def load(*plugins: object, installed: Sequence[str] = ()) -> Plugins:
        from reasonrl.plugins import load_plugins

        files = [plugin for plugin in plugins if isinstance(plugin, str)]
        objects = [plugin for plugin in plugins if not isinstance(plugin, str)]
        environ = {"REASONRL_PLUGINS": ",".join(installed)}
        return load_plugins(files=files, objects=objects, environ=environ)

    return load


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a random two-layer model with a byte tokenizer, for ``model: {path: ...}``."""
    from reasonrl.testing.models import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("reasonrl") / "tiny", tie=False)


@pytest.fixture
def tiny_policy(tiny_model_path: Path) -> TinyPolicy:
    """Load that model as the trainer does: ``policy``, ``tokenizer``, ``path``. A new copy per test."""
    from reasonrl.testing.policies import tiny_policy

    return tiny_policy(tiny_model_path)


@pytest.fixture
def scripted_backend() -> Callable[..., ScriptedBackend]:
    """Build a backend that replays texts: ``scripted_backend(["first completion", "second"])``."""

    def make(texts: Sequence[str], tokenizer: Any = None) -> ScriptedBackend:
        from reasonrl.testing.models import byte_tokenizer
        from reasonrl.testing.scripted import ScriptedBackend

        return ScriptedBackend(texts, tokenizer if tokenizer is not None else byte_tokenizer())

    return make


@pytest.fixture
def run_recipe(tmp_path: Path, tiny_model_path: Path) -> Callable[..., RunResult]:
    """Run two small steps of a recipe: ``run_recipe("recipes/mine.yaml", "task.count=2", plugins=["mine.py"])``.

    The recipe is a file, a packaged name, or a mapping. It runs on a tiny random model below ``tmp_path``; overrides
    take precedence.
    """

    def run(recipe: str | Path | Mapping[str, object], *overrides: str, plugins: Sequence[str] = ()) -> RunResult:
        import reasonrl
        from reasonrl.testing.recipes import shrink_overrides, write_recipe

        path = write_recipe(recipe, tmp_path) if isinstance(recipe, Mapping) else recipe
        return reasonrl.run(path, [*shrink_overrides(tiny_model_path, tmp_path / "runs"), *overrides], plugins=plugins)

    return run
