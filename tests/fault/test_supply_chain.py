"""What a run takes from outside and what it opens to the outside: pinned code only, no telemetry, no socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.errors import RecipeError
from reasonrl.recipe.schema import ModelConfig

PLUGIN = str(Path(__file__).parents[1] / "support" / "secrets_plugin.py")


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "org/model"},
        {"name": "countdown-base"},
        {"name": "countdown-base", "revision": "abc"},
    ],
)
def test_code_of_a_model_runs_only_if_repository_and_revision_are_named(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="trust_remote_code must be false unless path and revision pin"):
        ModelConfig(**fields, trust_remote_code=True)  # type: ignore[arg-type]
    assert ModelConfig(path="org/model", revision="abc", trust_remote_code=True).trust_remote_code
    assert not ModelConfig(path="org/model").trust_remote_code


def test_a_model_that_brings_code_is_refused_and_its_code_not_run(tmp_path: Path, tiny_model: Path) -> None:
    """transformers would ask on a terminal, and run it on a yes."""
    import torch

    from reasonrl.model.load import load_model

    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(RecipeError, match="cannot load its config"):
        load_model(ModelConfig(path=str(folder)), str(folder), seed=0, device=torch.device("cpu"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault
def test_the_libraries_know_that_telemetry_is_off() -> None:
    program = (
        "import reasonrl, datasets, huggingface_hub.constants as c\n"
        "assert c.HF_HUB_DISABLE_TELEMETRY, 'telemetry is on'\n"
    )
    environment = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)


def test_a_run_listens_nowhere_and_records_the_versions_of_its_plugins(tmp_path: Path, tiny_model: Path) -> None:
    data: dict[str, Any] = {
        "name": "closed",
        "output_dir": str(tmp_path),
        "model": {"path": str(tiny_model)},
        "task": {"name": "vault"},
        "algorithm": {"name": "open"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4},
        "trainer": {"steps": 2, "prompts_per_step": 2},
    }
    path = tmp_path / "closed.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    done = CliRunner().invoke(app, ["train", str(path), "--plugin", PLUGIN])
    assert done.exit_code == 0, done.output
    assert sys.modules["secrets_plugin"].LISTENING[-2:] == ["asked after step 1", "asked after step 2"]
    manifest = json.loads((tmp_path / "closed-1" / "run.json").read_text())
    plugins = {plugin["name"]: plugin for plugin in manifest["plugins"]}
    assert plugins["critic_free"]["version"]
    assert plugins["critic_free"]["distribution"] == "reasonrl"
    assert plugins["secrets_plugin"]["status"] == "active"
    assert manifest["versions"]["torch"]
