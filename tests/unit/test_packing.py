"""Packed rows: outputs and gradients are those of padded ones, and models that cannot pack are refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripted import CASES, run_update, scripted_groups
from support.tiny_policies import load_tiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reasonrl.model.critic import build_critic, enable_gradient_checkpointing
from reasonrl.model.lora import apply_lora
from reasonrl.model.packing import Packed, packs_up_to
from reasonrl.model.policy import PolicyModule
from reasonrl.model.reference import build_reference
from reasonrl.recipe.schema import LoraConfig
from reasonrl.testing.models import tiny_model_folder
from reasonrl.trainer.microbatch import Cutting, plan_packed
from reasonrl.trainer.work import RowShape, SamplingWork, Work

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
    "head_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
EXACT: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "granite": {"logits_scaling": 3.0},
    "gpt_neox": {},
    "gpt2": {},
    "gemma": {},
}
Rows = tuple[Tensor, Tensor, Tensor]


def model_of(architecture: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """Random weights, larger than usual; RMSNorm computes in the precision of its input, as LayerNorm does."""
    config = AutoConfig.for_model(architecture, **{**SHAPE, **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if hasattr(module, "variance_epsilon"):  # not Gemma's, whose weights are one less
                exact = nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
                exact.weight = module.weight
                setattr(parent, name, exact)
    return model


def rows_of(seed: int, *, prompts: int = 4, longest: int = 40) -> Rows:
    """Groups of 1 to 5 rows, some with gaps in what was sampled, one without a sampled token, in any order."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    rows = []
    for _ in range(prompts):
        prompt = torch.randint(2, 64, (number(1, longest),), generator=generator)
        for _ in range(number(1, 5)):
            completion = torch.randint(2, 64, (number(1, longest),), generator=generator)
            sampled = torch.rand(len(completion), generator=generator) < 0.8
            sampled[0] = True
            rows.append((torch.cat([prompt, completion]), torch.cat([torch.zeros(len(prompt), dtype=bool), sampled])))
    rows[-1][1].fill_(False)
    order = torch.randperm(len(rows), generator=generator).tolist()
    width = max(len(ids) for ids, _ in rows) + 2
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    attention, response = (torch.zeros((len(rows), width), dtype=torch.bool) for _ in range(2))
    for at, row in enumerate(order):
        tokens, sampled = rows[row]
        ids[at, : len(tokens)] = tokens
        attention[at, : len(tokens)], response[at, : len(tokens)] = True, sampled
    return ids, attention, response


def outcomes(policy: PolicyModule, rows: Rows, *, values: bool) -> list[Tensor]:
    """All outputs, and the gradients of something that depends on all of them."""
    policy.zero_grad()
    out = policy(*rows, temperature=0.8, entropy="grad", values=values)
    found = [out.logprobs, out.entropy, *([out.values] if values else [])]
    weights = torch.linspace(-1, 1, rows[0].numel()).view(rows[0].shape).to(out.logprobs)
    sum((x * weights).sum() + (x * x).sum() for x in found).backward()
    return [*(x.detach() for x in found), *(p.grad for p in policy.parameters() if p.grad is not None)]


def both(policy: PolicyModule, rows: Rows, *, values: bool = False) -> zip:
    """Packed and padded, pair by pair."""
    sides = []
    for longest in (sys.maxsize, 0):
        policy.packs_up_to = longest
        sides.append(outcomes(policy, rows, values=values))
    return zip(*sides, strict=True)


@pytest.mark.parametrize("architecture", EXACT)
def test_every_architecture_that_packs_is_exact(architecture: str) -> None:
    model = model_of(architecture, **EXACT[architecture])
    assert packs_up_to(model) == sys.maxsize
    policy = PolicyModule(model).double()
    tolerance = 2e-5 if architecture == "gemma" else 1e-9  # its norms compute in float32
    for packed, padded in both(policy, rows_of(1)):
        torch.testing.assert_close(packed, padded, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(6))
def test_any_groups_and_lengths_give_the_same_in_float64(seed: int) -> None:
    """One model, random rows; also where a prompt or a completion is a single token."""
    model = model_of("llama", seed=seed)
    critic = build_critic("separate" if seed % 2 else "shared", model)
    nn.init.normal_(critic.head.weight)
    assert packs_up_to(model)
    policy = PolicyModule(model, critic).double()
    for longest in (2, 40):
        for packed, padded in both(policy, rows_of(seed, longest=longest), values=True):
            torch.testing.assert_close(packed, padded, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "checkpointing", "lora", "adapter critic"])
def test_what_training_adds_gives_the_same_in_float32(kind: str) -> None:
    model: Any = model_of("qwen2")
    assert packs_up_to(model)
    if kind != "full":
        enable_gradient_checkpointing(model)
        model.enable_input_require_grads()
    if kind in ("lora", "adapter critic"):
        model = apply_lora(model, LoraConfig(rank=2))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    critic = build_critic("adapter", model) if kind == "adapter critic" else None
    policy = PolicyModule(model, critic).train()
    for packed, padded in both(policy, rows_of(2), values=critic is not None):
        scale = float(padded.abs().max())
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4 * scale)


def test_bfloat16_is_as_close_as_its_precision() -> None:
    policy = PolicyModule(model_of("llama"))
    assert packs_up_to(policy.model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outs = []
        for longest in (sys.maxsize, 0):
            policy.packs_up_to = longest
            outs.append(policy(*rows_of(3)).logprobs)
    torch.testing.assert_close(*outs, rtol=0.02, atol=0.1)


def test_a_reference_packs_as_the_policy_does() -> None:
    model = model_of("llama")
    policy = PolicyModule(model, packs_up_to=packs_up_to(model))
    rows = rows_of(4)
    seen: list[int] = []
    reference = build_reference(policy)
    reference.weights.model.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    torch.testing.assert_close(reference(*rows).logprobs, policy(*rows).logprobs.detach(), rtol=0, atol=0)
    assert seen == [1]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {"attn_implementation": "eager"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
        ("gemma2", {}),
        ("bloom", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("mamba", {"state_size": 4}),
    ],
)
def test_other_kinds_of_attention_and_state_are_refused(architecture: str, options: dict[str, Any]) -> None:
    assert packs_up_to(model_of(architecture, **options)) == 0


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("mistral", {"sliding_window": 30}), ("gemma3_text", {"sliding_window": 30})],
)
def test_rows_longer_than_a_window_stay_padded(architecture: str, options: dict[str, Any]) -> None:
    model = model_of(architecture, **options)
    longest = packs_up_to(model)
    assert longest in (0, 30)
    policy = PolicyModule(model, packs_up_to=longest)
    rows = rows_of(5)
    assert rows[0].shape[1] > 30
    found = policy(*rows).logprobs
    policy.packs_up_to = 0
    assert torch.equal(found, policy(*rows).logprobs)
    short = tuple(x[:, :30] for x in rows)
    padded = policy(*short).logprobs
    policy.packs_up_to = longest
    torch.testing.assert_close(policy(*short).logprobs, padded, rtol=1e-4, atol=1e-5)


def test_a_model_whose_prompts_would_see_their_completions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    monkeypatch.setattr("reasonrl.model.packing._allowed", lambda prompts, n: torch.ones(1, 1, n, max(prompts) + n) > 0)
    monkeypatch.setattr("reasonrl.model.packing.Layout._tensor", lambda _self, x: torch.as_tensor(x))
    assert packs_up_to(model) == 0


def test_a_lack_of_memory_is_not_taken_for_a_model_that_cannot_pack() -> None:
    model = model_of("llama")

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.base_model.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        packs_up_to(model)


def test_loading_finds_out_unless_the_recipe_says_no(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    assert load_tiny(folder).packs_up_to == sys.maxsize
    assert load_tiny(folder, packing=False).packs_up_to == 0
    assert load_tiny(folder, attention="eager").packs_up_to == 0


@pytest.mark.parametrize("case", ["ppo_kl_reward", "grpo_sequence_kl"])
def test_an_update_with_packed_rows_is_the_update_with_padded_ones(case: str) -> None:
    found = []
    for longest in (sys.maxsize, 0):
        torch.manual_seed(0)
        model = model_of("llama", vocab_size=258, seed=1)
        assert packs_up_to(model)
        critic = build_critic("shared", model) if case.startswith("ppo") else None
        policy = PolicyModule(model, critic, packs_up_to=longest).double()
        groups = scripted_groups(4, 4)
        outcome = run_update(CASES[case], policy, groups, group_size=4, max_tokens=40, minibatches=2, update_epochs=2)
        found.append(outcome)
    packed, padded = found
    assert packed.metrics["batch/shared_frac"] > 0.2
    assert packed.metrics["batch/padding_frac"] == 0 == padded.metrics["batch/shared_frac"]
    for name, parameter in padded.parameters.items():
        torch.testing.assert_close(packed.parameters[name], parameter, rtol=1e-9, atol=1e-9)
    same = {key for key in padded.metrics if not key.startswith("batch/")}
    assert {k: packed.metrics[k] for k in same} == pytest.approx({k: padded.metrics[k] for k in same}, rel=1e-6)


def test_plans_hold_the_budget_and_keep_groups_together() -> None:
    assert plan_packed([5, 2, 4], [0, 1, 0], [0, 1, 2], 9) == [[0, 2], [1]]
    assert plan_packed([5, 2, 4], [0, 1, 0], [0, 1, 2], 11) == [[0, 2, 1]]
    assert plan_packed([5, 5, 5], [0, 0, 0], [2, 0, 1], 10) == [[0, 1], [2]]
    assert plan_packed([5, 9], [0, 1], [0, 1], 3) == [[1], [0]]
    assert plan_packed([], [], [], 3) == []


def test_every_token_is_computed_once_and_counted_as_torch_counts() -> None:
    """A prompt once, no padding, and no last tokens: nothing follows them."""
    model = model_of("llama")
    policy = PolicyModule(model, packs_up_to=packs_up_to(model))
    row = torch.arange(12)[None].repeat(4, 1) + torch.tensor([0, 0, 0, 20])[:, None]
    response = torch.arange(12)[None].repeat(4, 1) >= 7
    assert Packed(row, response).num_tokens == 7 + 3 * 4 + 11
    work = Work(policy, SamplingWork(), 1.0)
    with work.observed(), FlopCounterMode(display=False) as counter:
        policy(row, response | True, response).logprobs.sum().backward()
    counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(flops for op, flops in counted.items() if op in ("aten.mm", "aten.addmm"))
    attention = work._networks[0].flops
    pairs = 2 * 11 * 12 / 2 + 3 * 4 * (7 + 4)  # the prompt is computed beside the single row, padded
    assert work.executed == pytest.approx(products + pairs * (attention.pair + attention.pair_back), rel=1e-6)


def test_a_batch_with_one_row_over_the_window_is_cut_as_padded() -> None:
    policy = PolicyModule(model_of("mistral", sliding_window=30), packs_up_to=30)
    assert Cutting.of([RowShape(0, 4, 30, 5)], policy).packs
    assert not Cutting.of([RowShape(0, 4, 30, 5), RowShape(0, 4, 31, 5)], policy).packs
