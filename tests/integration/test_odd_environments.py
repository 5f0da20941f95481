"""Variables of the environment that libraries refuse, or that describe no terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REFUSED = {
    "TORCH_LOGS": "nonsense",
    "TORCH_DISTRIBUTED_DEBUG": "garbage",
    "HF_HUB_DOWNLOAD_TIMEOUT": "soon",
    "ACCELERATE_USE_CPU": "banana",
    "ACCELERATE_DYNAMO_BACKEND": "nonsense",
}
RECIPE = """
name: odd
model: {{path: {model}}}
task: {{name: countdown}}
algorithm: {{name: grpo}}
sampling: {{group_size: 2, max_completion_tokens: 4, max_prompt_tokens: 600}}
optimizer: {{learning_rate: 0.001}}
trainer: {{steps: 1, prompts_per_step: 1, minibatches: 1}}
"""


def recipe_in(folder: Path, model: Path) -> Path:
    path = folder / "odd.yaml"
    path.write_text(RECIPE.format(model=model), encoding="utf-8")
    return path


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reasonrl", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_that_a_library_refuses_is_named_in_one_line(name: str, tmp_path: Path, tiny_model: Path) -> None:
    done = run("train", recipe_in(tmp_path, tiny_model), "--run-dir", tmp_path / "r", **{name: REFUSED[name]})
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert lines[0].startswith("error: ")
    assert f"correct or unset {name}='{REFUSED[name]}' in the environment" in lines[0]
    assert not (tmp_path / "r").exists()


BROKEN = "raise RuntimeError('built for another machine')"


def test_a_library_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "__init__.py").write_text(BROKEN)
    recipe = recipe_in(tmp_path, tiny_model)
    done = run("train", recipe, "--run-dir", tmp_path / "r", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot import accelerate: RuntimeError: built for another machine; reinstall")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("size", ["0", "-5", "1", "abc"])
def test_a_width_that_is_none_hides_nothing(size: str, tmp_path: Path, tiny_model: Path) -> None:
    recipe = recipe_in(tmp_path, tiny_model)
    done = run("train", recipe, "--plain", "--run-dir", tmp_path / "r", COLUMNS=size, LINES=size)
    assert done.returncode == 0, done.stderr
    assert "step 1/1  reward" in done.stdout
    assert "completed after 1 step" in done.stdout
