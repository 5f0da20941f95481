"""A checkpoint of a full fine-tune is whole: the starting model may be gone. What still needs it says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.resume_runs import ALGORITHMS, SCRIPTED, assert_same_run, cut_back, resumable_recipe
from typer.testing import CliRunner

from reasonrl.cli.app import app

TRAINER = {"steps": 4, "prompts_per_step": 4}


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", SCRIPTED])


def whole_run(folder: Path, model: Path, **sections: Any) -> tuple[Path, Path]:
    """A run on a copy of ``model``: (its folder, the copy)."""
    base = shutil.copytree(model, folder / "base")
    common = {"rollout_backend": {"name": "script"}, "checkpoint": {"every": 1, "keep": 99}}
    recipe = resumable_recipe(folder, base, **{**common, "trainer": TRAINER, **sections})
    done = cli("sft" if "sft" in sections else "train", recipe, "--run-dir", folder / "whole")
    assert done.exit_code == 0, done.output
    return folder / "whole", base


SFT = {"sft": {"max_tokens": 200, "tokens_per_batch": 50}, "trainer": None, "algorithm": None, "critic": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [{}, {"critic": {"kind": "separate"}}, SFT],
    ids=["ppo", "separate critic", "sft"],
)
def test_a_full_fine_tune_is_resumed_exactly(
    sections: dict[str, Any], tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, base = whole_run(tmp_path, tiny_model, **sections)
    cut = cut_back(whole, tmp_path / "cut", 2)
    shutil.rmtree(base)
    done = cli("resume", cut)
    assert done.exit_code == 0, done.output
    assert f"the starting model '{base}' is not found; loading model" in caplog.text
    assert_same_run(whole, cut)
    manifests = [json.loads((run / "run.json").read_text()) for run in (whole, cut)]
    assert manifests[0]["model_path"] == manifests[1]["model_path"] == str(base)
    assert "is finished" in cli("resume", cut).output
    assert cli("resume", cut, *(["sft.max_tokens=250"] if sections is SFT else ["trainer.steps=5"])).exit_code == 0


def test_a_run_is_measured_and_asked_without_its_base(tiny_model: Path, tmp_path: Path) -> None:
    whole, base = whole_run(tmp_path, tiny_model, rollout_backend={"name": "hf"})
    before = cli("eval", whole, "--json")
    shutil.rmtree(base)
    for target in (whole, whole / "checkpoints" / "step_000004"):
        done = cli("eval", target, "--json")
        assert done.exit_code == 0, done.output
        assert done.stdout == before.stdout
        assert cli("generate", target).exit_code == 0


@pytest.mark.parametrize(
    ("sections", "step", "why"),
    [
        ({**ALGORITHMS["grpo"]}, 2, "algorithm 'grpo' needs it as the reference of its KL penalty"),
        ({"lora": {"rank": 2}}, 2, "model.lora trains adapters on top of it"),
        ({}, -1, "no checkpoint is saved yet"),
    ],
    ids=["reference", "lora", "no checkpoint"],
)
def test_what_still_needs_the_base_says_so(
    sections: dict[str, Any], step: int, why: str, tiny_model: Path, tmp_path: Path
) -> None:
    whole, base = whole_run(tmp_path, tiny_model, **sections)
    cut = cut_back(whole, tmp_path / "cut", step)
    base.rename(tmp_path / "moved")
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    done = cli("resume", cut)
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith(f"error: cannot resume {cut}: the starting model '{base}' is not found, and {why}")
    assert before == {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    (tmp_path / "moved").rename(base)
    done = cli("resume", cut)
    assert done.exit_code == 0, done.output
    assert_same_run(whole, cut)


def test_a_relative_path_is_found_from_another_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "base")
    recipe = resumable_recipe(
        tmp_path, Path("base"), lora={"rank": 2}, rollout_backend={"name": "script"}, trainer=TRAINER
    )
    assert cli("train", recipe, "--run-dir", "run").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli("resume", tmp_path / "run", "trainer.steps=5")
    assert done.exit_code == 0, done.output
