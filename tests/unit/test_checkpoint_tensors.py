"""A checkpoint gives parameters and optimizer state back bit by bit, whatever is trained."""

import json
from pathlib import Path

import pytest
import torch
from support.savers import Subject, same

from reasonrl.errors import CheckpointError
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.recipe.schema import LoraConfig
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.runs.state import TrainState, read_state
from reasonrl.testing.models import tiny_model_folder


@pytest.mark.parametrize("only", [None, "critic"], ids=["all", "critic's warm-up"])
@pytest.mark.parametrize("critic", [None, "shared", "separate"])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
def test_what_was_saved_comes_back_and_goes_on_alike(
    lora: LoraConfig | None, critic: str | None, only: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    one = Subject(tiny_model, tmp_path / "one", critic=critic, lora=lora)
    for seed in range(3):
        one.learn(seed, only if critic else None)
    one.save(3)
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other = Subject(tiny_model, tmp_path / "other", critic=critic, lora=lora)
    other.load(folder)
    assert same(one.tensors(), other.tensors())
    for subject in (one, other):
        subject.learn(7)
    assert same(one.tensors(), other.tensors())


def test_moments_in_bfloat16_come_back_in_bfloat16(tiny_model: Path, tmp_path: Path) -> None:
    one, other = (Subject(tiny_model, tmp_path / name, optimizer="adamw_bf16") for name in ("one", "other"))
    one.learn(0)
    one.save(1)
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other.load(folder)
    assert same(one.tensors(), other.tensors())
    assert {t.dtype for name, t in other.tensors().items() if "exp_avg" in name} == {torch.bfloat16}
    for subject in (one, other):
        subject.learn(7)
    assert same(one.tensors(), other.tensors())


def test_a_state_before_the_first_step_comes_back_without_changing_anything(tiny_model: Path, tmp_path: Path) -> None:
    one = Subject(tiny_model, tmp_path / "one")
    before = one.tensors()
    one.save(0)
    assert same(one.tensors(), before)
    other = Subject(tiny_model, tmp_path / "other")
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other.load(folder)
    for subject in (one, other):
        subject.learn(1)
    assert same(one.tensors(), other.tensors())


def test_the_folder_holds_safetensors_json_and_text_only(tiny_model: Path, tmp_path: Path) -> None:
    one = Subject(tiny_model, tmp_path / "one", lora=LoraConfig(rank=2))
    one.learn(0)
    one.save(1)
    folder = tmp_path / "one" / "checkpoints" / "step_000001"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".txt"}
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert {path.relative_to(folder).as_posix() for path in files} == {*listed, "manifest.json"}
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= listed.keys()


def test_a_checkpoint_of_another_recipe_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    Subject(tiny_model, tmp_path / "plain", critic=None).save(1)
    wider = tiny_model_folder(tmp_path / "wider", hidden=64)
    Subject(wider, tmp_path / "wide", critic="shared").save(1)
    subject = Subject(tiny_model, tmp_path / "own", critic="shared")
    for run, message in (
        ("plain", "lacks 2 trained parameters, such as critic.head"),
        ("wide", "does not fit"),
    ):
        folder = find_newest_valid(tmp_path / run)
        assert folder is not None
        with pytest.raises(CheckpointError, match=message) as caught:
            subject.load(folder, TrainState(machine={}))
        assert "\n" not in str(caught.value)


def test_parameters_that_are_not_trained_are_not_written_twice(tiny_model: Path, tmp_path: Path) -> None:
    one = Subject(tiny_model, tmp_path / "one", critic="shared")
    one.learn(0)
    one.save(1)
    from safetensors.torch import load_file

    folder = tmp_path / "one" / "checkpoints" / "step_000001"
    assert set(load_file(folder / "trainable.safetensors")) == {"critic.head.weight", "critic.head.bias"}
    model = load_file(folder / "model.safetensors")
    assert torch.equal(model["model.embed_tokens.weight"], one.tensors()["model.model.embed_tokens.weight"])


@pytest.mark.parametrize("is_due", [True, False])
def test_where_a_run_was_stopped_does_not_change_its_best(tiny_model: Path, tmp_path: Path, is_due: bool) -> None:
    metrics = {"accuracy": 0.5, "format": 1.0, "length_tokens": 3.0}
    result = SuiteResult(name="held_out", problems=2, samples=1, metrics=metrics, ci95=(0.1, 0.9), groups=())
    subject = Subject(tiny_model, tmp_path / "run", keep_best=True)
    subject.checkpointer.writer.evaluated(1, [result])
    subject.save(1, is_due=is_due)
    best = {"step": 1, "suite": "held_out", "accuracy": 0.5} if is_due else None
    assert subject.checkpointer.best == best
    assert read_state(tmp_path / "run" / "checkpoints" / "step_000001").records["best"] == best
