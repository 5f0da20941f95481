"""The critic of adapters: the values of a separate trunk with adapters, on the policy's frozen weights."""

import copy
from pathlib import Path

import pytest
import torch
from support.savers import Subject, same
from support.tiny_policies import load_tiny
from torch import Tensor, nn

from reasonrl.contracts.models import base_model
from reasonrl.model.critic import Critic, build_critic
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import LoraConfig
from reasonrl.rundir.checkpoints import find_newest_valid

IDS = torch.randint(0, 250, (3, 10), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS, dtype=torch.bool)
LORA = LoraConfig(rank=2)


def policy_with(kind: str, folder: Path, **options: object) -> PolicyModule:
    """``copied``: a trunk with adapters that shares nothing."""
    loaded = load_tiny(folder, lora=LORA, **options)
    if kind == "copied":
        trunk = copy.deepcopy(base_model(loaded.model).base_model)
        critic = Critic(loaded.model.config.hidden_size, trunk)
    else:
        critic = build_critic(kind, loaded.model)  # type: ignore[arg-type]
    with torch.no_grad():
        critic.head.weight.copy_(torch.linspace(-1, 1, critic.head.in_features)[None])
    return PolicyModule(loaded.model, critic, path=loaded.logits_path)


def learn_values(policy: PolicyModule, steps: int = 2) -> list[Tensor]:
    """The values before each step of the critic toward one, and after the last."""
    _, trained = policy.parameter_groups()
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    found = []
    for _ in range(steps + 1):
        values = policy(IDS, MASK, MASK, values=True).values
        found.append(values.detach())
        (values - 1).square().sum().backward()
        optimizer.step()
        policy.zero_grad()
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_as_a_trunk_of_its_own_would(tiny_model: Path, checkpointing: bool) -> None:
    shares, copied = (
        policy_with(kind, tiny_model, gradient_checkpointing=checkpointing).train() for kind in ("adapter", "copied")
    )
    start = policy_with("separate", tiny_model)(IDS, MASK, MASK, values=True).values
    mine, expected = learn_values(shares), learn_values(copied)
    torch.testing.assert_close(mine[0], start, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(mine, expected, strict=True))
    assert (mine[-1] - mine[0]).abs().max() > 1e-3


def test_it_shares_all_that_is_frozen_and_nothing_that_is_trained(tiny_model: Path) -> None:
    policy = policy_with("adapter", tiny_model)
    actor, critic = policy.parameter_groups()
    assert {p.data_ptr() for p in actor}.isdisjoint(p.data_ptr() for p in critic)
    trunk = {id(p): p for p in policy.critic.decoder.parameters() if not p.requires_grad}
    assert trunk.keys() <= {id(p) for p in policy.model.parameters() if not p.requires_grad}
    assert sum(p.numel() for p in policy.parameters()) == sum(p.numel() for p in [*policy.model.parameters(), *critic])


def test_training_it_leaves_policy_and_export_alone(tiny_model: Path) -> None:
    policy = policy_with("adapter", tiny_model)
    before, start = dict(iter_hf_weights(policy)), policy(IDS, MASK, MASK).logprobs.detach()
    policy(IDS, MASK, MASK, values=True).values.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in policy.parameter_groups()[0])
    learn_values(policy)
    after = dict(iter_hf_weights(policy))
    assert before.keys() == after.keys() == load_tiny(tiny_model).model.state_dict().keys() - {"lm_head.weight"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(policy(IDS, MASK, MASK).logprobs, start)


def test_it_comes_back_from_a_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    one, other = (Subject(tiny_model, tmp_path / name, critic="adapter", lora=LORA) for name in ("one", "other"))
    one.learn(0)
    one.save(1)
    folder = find_newest_valid(tmp_path / "one")
    assert folder is not None
    other.load(folder)
    assert same(one.tensors(), other.tensors())
    for subject in (one, other):
        subject.learn(7)
    assert same(one.tensors(), other.tensors())
    assert sum("critic.decoder" in name and "lora" in name and "/" not in name for name in one.tensors()) > 10


@pytest.mark.parametrize("kind", ["separate", "adapter"])
def test_checkpointing_recomputes_the_trunk_of_the_critic(tiny_model: Path, kind: str) -> None:
    policy = policy_with(kind, tiny_model, gradient_checkpointing=True).train()
    calls: dict[str, int] = {"policy": 0, "critic": 0}

    def count(name: str) -> object:
        def hook(module: nn.Module, *rest: object) -> None:
            calls[name] += 1

        return hook

    for name, trunk in (("policy", base_model(policy.model).base_model), ("critic", policy.critic.decoder)):
        trunk.layers[0].self_attn.register_forward_hook(count(name))
    output = policy(IDS, MASK, MASK, values=True)
    (output.logprobs.sum() + output.values.sum()).backward()
    assert calls == {"policy": 2, "critic": 2}
