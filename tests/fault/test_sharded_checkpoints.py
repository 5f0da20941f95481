"""One checkpoint format for one process, DDP and FSDP2: any number of processes writes it, and any other reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.processes import on_ranks
from support.savers import Subject
from support.sharded_worker import Save, carry_out
from support.tiny_policies import experts_folder
from transformers import AutoModelForCausalLM

from reasonrl.rundir.manifest import check_manifest

KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora and separate critic": {"lora": True, "critic": "separate"},
    "moments in bfloat16": {"optimizer": "adamw_bf16"},
}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whichever file it is in."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.rglob("*.safetensors"):
        kind = path.name.removesuffix(".safetensors").partition("-")[0]
        tensors = {f"{kind}/{name}": tensor for name, tensor in load_file(path).items()}
        assert not tensors.keys() & found.keys()
        found |= tensors
    return found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


@pytest.mark.fault
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_processes_gives_back_what_another_wrote(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """1 -> 2 sharded -> 3 sharded -> 2 replicated -> 1, bit by bit."""
    folder, options = None, KINDS[kind]
    chain = [(1, False), (2, True), (3, True), (2, False), (1, False)]
    folders = []
    for n, (processes, shards) in enumerate(chain):
        save = Save(tmp_path / str(n), tiny_model, folder, processes=processes, shards=shards, **options)
        folder = save.carry_out()
        assert check_manifest(folder) is None
        folders.append(folder)
    assert_same_bits(folders)
    assert len(list(folders[2].glob("model-0000?-of-00003.safetensors"))) == 3
    assert {path.name for path in folders[-1].iterdir()} == {path.name for path in folders[0].iterdir()}


@pytest.mark.fault
def test_stacked_experts_come_back_too(tmp_path: Path) -> None:
    """They are converted layer by layer, for which each process gathers a layer."""
    model, folder, folders = experts_folder(tmp_path / "model"), None, []
    for n, processes in enumerate((1, 2, 1)):
        save = Save(
            tmp_path / str(n), model, folder, processes=processes, shards=processes > 1, critic=None, is_watched=False
        )
        folder = save.carry_out()
        folders.append(folder)
    assert_same_bits(folders)
    AutoModelForCausalLM.from_pretrained(folders[1])


def assert_same_bits(folders: list[Path]) -> None:
    first, *others = map(tensors_of, folders)
    assert any(name.endswith("exp_avg") for name in first)
    for other in others:
        assert_same(first, other)


@pytest.mark.fault
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "bfloat16" not in kind])  # whose rounding is random
def test_a_sharded_policy_learns_and_saves_what_a_replicated_one_does(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    found = {}
    for name, shards in (("ddp", False), ("fsdp", True)):
        folder = Save(tmp_path / name, tiny_model, shards=shards, **KINDS[kind]).carry_out()
        found[name] = tensors_of(folder)
        network = AutoModelForCausalLM.from_pretrained(folder)  # by its index
        weights = {f"model/{key}": tensor for key, tensor in network.state_dict().items() if key != "lm_head.weight"}
        assert_same(weights, {key: found[name][key] for key in weights})
    assert found["ddp"].keys() == found["fsdp"].keys()
    for key, tensor in found["ddp"].items():
        torch.testing.assert_close(found["fsdp"][key], tensor, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.fault
def test_each_process_holds_and_writes_its_half(tiny_model: Path, tmp_path: Path) -> None:
    """No process gathers the model: a share of its tensors goes to each, and each writes its own file."""
    save = Save(tmp_path / "run", tiny_model, shards=True, critic="separate")
    folder = save.carry_out()
    largest = max(tensor.nbytes for tensor in tensors_of(folder).values())
    for rank in range(2):
        held = save.held(rank)
        for kind in ("parameters", "moments"):
            assert held["here"][kind] < 0.51 * held["whole"][kind], kind
        for kind in ("model", "trainable", "optimizer"):
            own, whole = held[kind]
            assert own <= whole / 2 + largest, kind
            path = folder / f"{kind}-{rank + 1:05d}-of-00002.safetensors"
            assert own < path.stat().st_size < own + 20_000
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) < listed.keys()


@pytest.mark.fault
@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_for_one_process_ends_all(rank: int, tiny_model: Path, tmp_path: Path) -> None:
    """One says why, none waits, and nothing is half written."""
    save = Save(tmp_path / "run", tiny_model, shards=True, full_on=rank)
    done = on_ranks(2, carry_out, save)
    assert done.returncode != 0
    assert f"cannot save checkpoint {save.folder}: No space left on device; earlier checkpoints are kept" in done.stderr
    assert all(done.codes)
    assert list((save.run / "checkpoints").iterdir()) == []


@pytest.mark.fault
def test_one_process_goes_on_from_a_sharded_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    folder = Save(tmp_path / "sharded", tiny_model, shards=True).carry_out()
    one, other = (Subject(tiny_model, tmp_path / name) for name in ("one", "other"))
    for seed in range(3):
        one.learn(seed)
    other.load(folder)
    for subject in (one, other):
        subject.learn(7)
    for key, tensor in one.tensors().items():
        torch.testing.assert_close(other.tensors()[key], tensor, rtol=1e-5, atol=1e-6, msg=key)
