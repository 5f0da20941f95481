"""Counted operations against what torch counts itself, and the least that a step needs."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.builders import scored
from support.tiny_policies import CPU, context_of, load_tiny, mixed_requests
from torch.utils.flop_counter import FlopCounterMode

from reasonrl import SamplingParams
from reasonrl.model.critic import build_critic
from reasonrl.model.flops import Amount, causal_pairs
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import LoraConfig
from reasonrl.trainer import work as work_module
from reasonrl.trainer.peak import peak_flops
from reasonrl.trainer.work import RowShape, SamplingWork, Work, least_work, shapes_of
from reasonrl_hf.backend import HFBackend
from reasonrl_hf.config import HFConfig

IDS = torch.arange(36).view(3, 12)
RESPONSE = torch.arange(12)[None].repeat(3, 1) >= torch.tensor([5, 6, 9])[:, None]
EAGER = {"attention": "eager"}
LORA = {"lora": LoraConfig(rank=2)}


def policy_with(folder: Path, critic: str = "", **options: object) -> PolicyModule:
    loaded = load_tiny(folder, **EAGER, **options)
    return PolicyModule(loaded.model, build_critic(critic, loaded.model) if critic else None)  # type: ignore[arg-type]


def half_frozen(folder: Path) -> PolicyModule:
    policy = policy_with(folder)
    policy.model.get_input_embeddings().requires_grad_(False)
    policy.model.base_model.layers[0].requires_grad_(False)
    return policy


def in_chunks(folder: Path) -> PolicyModule:
    policy = policy_with(folder)
    policy.max_logits_per_chunk = 258 * 4
    return policy


def split(policy: PolicyModule) -> tuple[Work, Work]:
    """One counter of the products with weights, and one of attention."""
    weights, attention = (Work(policy, SamplingWork(), 1.0) for _ in range(2))
    weights._networks = [replace(n, flops=replace(n.flops, pair=0.0, pair_back=0.0)) for n in weights._networks]
    attention._networks = [
        replace(n, flops=replace(n.flops, layers=0.0, layers_back=0.0, head=0.0, head_back=0.0))
        for n in attention._networks
    ]
    return weights, attention


def by_torch(work: Callable[[], object]) -> tuple[float, float]:
    """Operations of products with weights, and of attention without a kernel of its own."""
    with FlopCounterMode(display=False) as counter:
        work()
    found = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert found.keys() <= {"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"}
    whole = found.get("aten.bmm", 0) + found.get("aten.baddbmm", 0)
    return sum(found.values()) - whole, whole


@pytest.mark.parametrize(
    ("build", "tolerance"),
    [
        (policy_with, 0.0),
        # torch does not repeat the last product of a recomputed layer
        (lambda folder: policy_with(folder, gradient_checkpointing=True), 0.06),
        (in_chunks, 0.0),
        # in the first layer that is trained, a few gradients of inputs are taken for others
        (half_frozen, 0.03),
        (lambda folder: policy_with(folder, **LORA), 0.03),
        (lambda folder: policy_with(folder, critic="shared"), 0.0),
        (lambda folder: policy_with(folder, critic="separate"), 0.0),
    ],
    ids=["full", "checkpointing", "chunked head", "frozen", "lora", "shared critic", "separate critic"],
)
def test_forward_and_backward_count_as_torch_counts_them(
    build: Callable[[Path], PolicyModule], tolerance: float, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "causal_pairs", lambda new, past=0: new * (new + past))  # what eager computes
    policy = build(tiny_model)
    for training in (False, True):
        weights, attention = split(policy)

        def passes(training: bool = training) -> None:
            policy.train(training)
            with nullcontext() if training else torch.no_grad():
                out = policy(IDS, RESPONSE, RESPONSE, values=policy.critic is not None)
            if training:
                (out.logprobs.sum() + (0.0 if out.values is None else out.values.sum())).backward()

        with weights.observed(), attention.observed():
            products, rest = by_torch(passes)
        assert weights.executed == pytest.approx(products, rel=tolerance or 1e-9)
        assert attention.executed == pytest.approx(
            rest, rel=max(2 * tolerance, 0.02)
        )  # rotary positions are products too
    assert not any(module._forward_pre_hooks for module in policy.modules())


def test_disabled_adapters_are_not_counted(tiny_model: Path) -> None:
    policy = policy_with(tiny_model, **LORA)
    weights, attention = split(policy)
    with torch.no_grad(), policy.model.disable_adapter(), weights.observed(), attention.observed():
        products, _ = by_torch(lambda: policy(IDS, RESPONSE, RESPONSE))
    assert weights.executed == products


def test_the_backend_says_what_it_computes(tiny_model: Path) -> None:
    sampling = SamplingParams(max_completion_tokens=6)
    loaded, said = load_tiny(tiny_model, **EAGER), SamplingWork()
    context = replace(context_of(loaded, sampling), on_computed=said.computed)
    backend = HFBackend(HFConfig(), context)
    said.amount = None
    products, _ = by_torch(lambda: backend.generate(mixed_requests(sampling)))
    assert said.amount is not None
    weights, _ = split(context.policy)
    assert weights._networks[0].flops.forward(said.amount) == products


def test_the_least_work_has_a_prompt_once_and_no_token_behind_the_last() -> None:
    rows = [RowShape(0, 3, 5, 2), RowShape(0, 3, 7, 4), RowShape(1, 2, 3, 1)]
    pairs = 6 + 3 + (4) + (4 + 5 + 6)
    assert least_work(rows) == Amount(tokens=3 + 1 + 3 + 2 + 0, scored=7, pairs=pairs)
    assert causal_pairs(3, 2) == 3 + 4 + 5
    assert shapes_of([scored([1.0, 0.0], prompt=(1, 2, 3), lengths=(2, 4))]) == rows[:2]


def test_the_speed_of_the_device_is_measured_once() -> None:
    first = peak_flops(CPU)
    assert first > 1e8
    assert peak_flops(CPU, torch.bfloat16) == first
