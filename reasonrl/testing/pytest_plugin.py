"""Fixtures for plugin authors, found by pytest through the entry point ``pytest11``.

pytest loads this in every run of every project where reasonrl is installed: it imports nothing of reasonrl, and no
torch, before a fixture is used. (It would also start before coverage measurement does.)
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
    """``isolated_plugins(module_or_object_or_file, ..., installed=("hf",))``: only these plugins, and no others."""

    def load(*plugins: Any, installed: Sequence[str] = ()) -> Plugins:
        from reasonrl.plugins import load_plugins

        files = [plugin for plugin in plugins if isinstance(plugin, str)]
        objects = [plugin for plugin in plugins if not isinstance(plugin, str)]
        environ = {"REASONRL_PLUGINS": ",".join(installed)}
        return load_plugins(files=files, objects=objects, environ=environ)

    return load


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer model with a byte tokenizer, for ``model: {path: ...}``."""
    from reasonrl.testing.models import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("reasonrl") / "tiny", tie=False)


@pytest.fixture
def tiny_policy(tiny_model_path: Path) -> TinyPolicy:
    """That model as the trainer holds it: ``policy``, ``tokenizer``, ``path``. A new copy for each test."""
    from reasonrl.testing.policies import tiny_policy

    return tiny_policy(tiny_model_path)


@pytest.fixture
def scripted_backend() -> Callable[..., ScriptedBackend]:
    """``scripted_backend(["first completion", "second"])``: a backend that replays texts."""

    def make(texts: Sequence[str], tokenizer: Any = None) -> ScriptedBackend:
        from reasonrl.testing.models import byte_tokenizer
        from reasonrl.testing.scripted import ScriptedBackend

        return ScriptedBackend(texts, tokenizer if tokenizer is not None else byte_tokenizer())

    return make


@pytest.fixture
def run_recipe(tmp_path: Path, tiny_model_path: Path) -> Callable[..., RunResult]:
    """``run_recipe("recipes/mine.yaml", "task.count=2", plugins=["mine.py"])``: two small steps of a recipe.

    The recipe is a file, a packaged one's name, or a mapping. It runs on a tiny random model, below ``tmp_path``;
    overrides have the last word.
    """

    def run(recipe: str | Path | Mapping[str, Any], *overrides: str, plugins: Sequence[str] = ()) -> RunResult:
        import reasonrl
        from reasonrl.testing.recipes import small, written

        path = written(recipe, tmp_path) if isinstance(recipe, Mapping) else recipe
        return reasonrl.run(path, [*small(tiny_model_path, tmp_path / "runs"), *overrides], plugins=plugins)

    return run
