"""Recipes over the plugin whose parts fail on command, and the command line that runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app

PLUGIN = str(Path(__file__).with_name("faults_plugin.py"))


def recipe(folder: Path, model: Path, **sections: Any) -> Path:
    """A run of two steps of 4 prompts x 8 completions; ``sections`` replace whole sections."""
    data: dict[str, Any] = {
        "name": "faulty",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model)},
        "task": {"name": "counting"},
        "algorithm": {"name": "sabotage"},
        "sampling": {"group_size": 8, "max_prompt_tokens": 20, "max_completion_tokens": 4},
        "optimizer": {"learning_rate": 0.01},
        "trainer": {"steps": 2, "prompts_per_step": 4},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 3}}},
    }
    return write(folder, {**data, **sections})


def sft_recipe(folder: Path, model: Path, **sections: Any) -> Path:
    """Imitation of the task's demonstrations, two steps."""
    data: dict[str, Any] = {
        "name": "imitate",
        "output_dir": str(folder / "runs"),
        "model": {"path": str(model)},
        "task": {"name": "counting"},
        "sft": {"max_tokens": 200, "tokens_per_batch": 100},
        "sampling": {"max_prompt_tokens": 20, "max_completion_tokens": 8},
        "optimizer": {"learning_rate": 0.003},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 2}}},
    }
    return write(folder, {**data, **sections})


def write(folder: Path, data: dict[str, Any]) -> Path:
    path = folder / f"{data['name']}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


def cli(*arguments: object) -> Result:
    """One command of the console script, with the plugin loaded."""
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", PLUGIN])


def summary_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
