"""Frozen weights in bfloat16 give the bits that autocast gives from float32 ones."""

from pathlib import Path

import pytest
import torch
from support.tiny_policies import CPU
from torch import Tensor

from reasonrl.model.critic import build_critic
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.frozen import copy_frozen
from reasonrl.model.load import load_model
from reasonrl.model.policy import PolicyModule
from reasonrl.model.reference import build_reference
from reasonrl.recipe.schema import LoraConfig, ModelConfig
from reasonrl.testing.models import Architecture, tiny_model_folder

LOW = torch.bfloat16
IDS = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS, dtype=torch.bool)


def load(folder: Path, frozen: torch.dtype | None, lora: LoraConfig | None = None, critic: str = "") -> PolicyModule:
    config = ModelConfig(path=str(folder), dtype="float32", lora=lora)
    loaded = load_model(config, str(folder), seed=3, device=CPU, frozen=frozen)
    return PolicyModule(loaded.model, build_critic(critic, loaded.model) if critic else None, path=loaded.logits_path)


def learn(policy: PolicyModule) -> list[Tensor]:
    """Log-probabilities under autocast, before and after one step of the adapters, and the gradients of that step."""
    found = []
    for _ in range(2):
        with torch.autocast("cpu", LOW):
            logprobs = policy(IDS, MASK, MASK).logprobs
        logprobs.sum().backward()
        trained, _ = policy.parameter_groups()
        found += [logprobs.detach(), *(p.grad.clone() for p in trained)]
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.1 * parameter.grad.sign()
                parameter.grad = None
    return found


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2"])
def test_lora_on_a_bfloat16_base_is_lora_under_autocast(tmp_path: Path, architecture: Architecture) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture=architecture)
    high, low = (load(folder, dtype, LoraConfig(rank=2)) for dtype in (None, LOW))
    assert low.path == high.path
    assert {p.dtype for p in low.parameters() if p.requires_grad} == {torch.float32}
    stored = {name for name, p in low.named_parameters() if p.dtype == LOW}
    assert stored == {name for name, p in low.named_parameters() if ".base_layer." in name}
    assert all(torch.equal(*pair) for pair in zip(learn(high), learn(low), strict=True))
    assert {t.dtype for name, t in dict(iter_hf_weights(low)).items() if "proj.weight" in name} <= {torch.float32}
    assert {p.dtype for p in load(folder, LOW, LoraConfig(rank=2), "separate").critic.parameters()} == {torch.float32}


def test_float32_and_full_training_store_nothing_in_less(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    for policy in (load(folder, torch.float32, LoraConfig(rank=2)), load(folder, LOW)):
        assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_a_bfloat16_reference_is_the_policy_under_autocast(tmp_path: Path) -> None:
    policy = load(tiny_model_folder(tmp_path / "model", tie=False), LOW)
    reference = build_reference(policy, dtype=LOW)
    copied = copy_frozen(policy.model, LOW)
    kinds = {name.split(".")[-2]: p.dtype for name, p in copied.named_parameters()}
    assert kinds["lm_head"] == kinds["q_proj"] == LOW
    assert kinds["embed_tokens"] == kinds["norm"] == torch.float32
    assert not any(p.requires_grad for p in copied.parameters())
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    with torch.autocast("cpu", LOW):
        outputs = [call(IDS, MASK, MASK, temperature=0.7).logprobs for call in (policy, reference)]
    assert torch.equal(*outputs)
