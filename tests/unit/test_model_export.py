"""Weights out of a policy: the saved folder is the model, whatever wraps it."""

import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.savers import write_model
from support.tiny_policies import experts_folder, load_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasonrl.errors import CheckpointError
from reasonrl.model.critic import build_critic
from reasonrl.model.export import iter_hf_weights, iter_own_weights, model_names, unwrap
from reasonrl.model.policy import PolicyModule
from reasonrl.model.reference import build_reference
from reasonrl.recipe.schema import LoraConfig
from reasonrl.rundir.layout import MODEL
from reasonrl.runs.tensors import share_out
from reasonrl.testing.devices import fake_gpu
from reasonrl.testing.models import Architecture, tiny_model_folder

IDS = torch.arange(1, 25)[None]


def shaken(policy: PolicyModule, by: float = 0.05) -> PolicyModule:
    """The policy after some update of everything that trains."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return policy


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gpt_neox", "gemma2", "gpt2"])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8.0)], ids=["full", "lora"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_the_saved_folder_loads_as_it_is_with_the_same_logits(
    tmp_path: Path, architecture: Architecture, lora: LoraConfig | None, tie: bool
) -> None:
    loaded = load_tiny(tiny_model_folder(tmp_path / "base", architecture=architecture, tie=tie), lora=lora)
    policy = shaken(PolicyModule(loaded.model))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    write_model(policy, loaded.tokenizer, tmp_path / "saved")
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(again).__name__ == type(unwrap(policy).model).__name__ or lora
    torch.testing.assert_close(again(IDS).logits, loaded.model(IDS).logits, atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(tokenizer) is type(loaded.tokenizer)
    assert tokenizer.encode("a (b) 12é") == loaded.tokenizer.encode("a (b) 12é")
    assert tokenizer.chat_template == loaded.tokenizer.chat_template
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        exported = dict(iter_hf_weights(policy))
        assert set(file.keys()) == set(exported)
        assert all(torch.equal(file.get_tensor(name), exported[name]) for name in exported)
        assert not any("lora" in name or "base_layer" in name for name in exported)


def test_stacked_experts_are_written_one_by_one_as_they_were(tmp_path: Path) -> None:
    loaded = load_tiny(experts_folder(tmp_path / "base"))
    write_model(PolicyModule(loaded.model), loaded.tokenizer, tmp_path / "saved")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "saved"))
    assert len([name for name in before if ".experts." in name]) == 2 * 4 * 3
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_tied_weights_come_once(tmp_path: Path) -> None:
    policy = PolicyModule(load_tiny(tiny_model_folder(tmp_path / "base", tie=True)).model)
    names = [name for name, _ in iter_hf_weights(policy)]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names))


def test_weights_can_be_loaded_into_a_plain_model(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "base", tie=False)
    policy = shaken(PolicyModule(load_tiny(folder, lora=LoraConfig(rank=2)).model))
    plain = load_tiny(folder).model
    plain.load_state_dict(dict(iter_hf_weights(policy)))
    torch.testing.assert_close(plain(IDS).logits, policy.model(IDS).logits, atol=1e-5, rtol=0)


def test_bfloat16_keeps_its_type_on_disk(tmp_path: Path) -> None:
    loaded = load_tiny(tiny_model_folder(tmp_path / "base"))
    policy = PolicyModule(loaded.model.bfloat16())
    write_model(policy, loaded.tokenizer, tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype == torch.bfloat16


def test_a_folder_gives_the_policys_own_weights_back_unless_adapters_are_merged(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "base")
    loaded = load_tiny(folder)
    policy = shaken(PolicyModule(loaded.model, build_critic("separate", loaded.model)))
    assert sorted(model_names(policy)) == sorted(name for name, _ in iter_hf_weights(policy))
    assert model_names(PolicyModule(load_tiny(folder, lora=LoraConfig(rank=2)).model)) == []


def test_a_gpu_holds_one_merged_weight_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With quantized weights a merged copy of all of them would need several times the memory of training."""
    merged: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    with fake_gpu() as gpu:
        policy = PolicyModule(
            load_tiny(tiny_model_folder(tmp_path / "base"), lora=LoraConfig(rank=2)).model.to(gpu.device)
        )

        def merge(layer: object, weight: torch.Tensor) -> torch.Tensor:
            alive.append(sum(one() is not None for one in merged))
            made = weight.clone()
            merged.append(weakref.ref(made))
            return made

        monkeypatch.setattr("reasonrl.model.lora._merge", merge)
        weights = share_out(MODEL, iter_own_weights(policy), (0,), 0).own
        assert {tensor.device.type for tensor in weights.values()} == {"cpu"}
        assert len(merged) == 2 * 7
        assert max(alive) <= 1


def test_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError, match="PolicyModule"):
        unwrap(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
def test_the_reference_stays_what_the_policy_was(tmp_path: Path, lora: LoraConfig | None) -> None:
    policy = PolicyModule(load_tiny(tiny_model_folder(tmp_path / "base"), lora=lora).model)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    start = policy(IDS, mask, mask, temperature=0.8).logprobs.detach()
    reference = build_reference(policy)
    shaken(policy).train()
    output = reference(IDS, mask, mask, temperature=0.8)
    torch.testing.assert_close(output.logprobs, start, atol=1e-6, rtol=0)
    assert not output.logprobs.requires_grad
    assert policy.training
    moved = policy(IDS, mask, mask, temperature=0.8).logprobs
    assert (moved - start).abs().max() > 1e-3
    assert sum(p.requires_grad for p in policy.parameters()) > 0
