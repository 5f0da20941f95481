"""Models that vLLM lays out in other ways keep the trainer's log-probabilities through two weight syncs."""

from typing import Any

import pytest
import torch
from support.tiny_policies import CPU, mixed_requests, teacher_forced

from reasonrl import RolloutContext, RolloutGroup, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl.testing import byte_tokenizer
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

pytestmark = pytest.mark.vllm
SAMPLING = SamplingParams(temperature=1.0, max_completion_tokens=8)
COMMON = {
    "vocab_size": 258,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 256,
    "eos_token_id": 256,
    "bos_token_id": None,
    "pad_token_id": 257,
}
SHAPES = {
    "gpt2": COMMON,  # learned positions, transposed matrices, a tied head
    "qwen2": {**COMMON, "num_key_value_heads": 1, "tie_word_embeddings": True},  # biases of q, k and v
    "gemma2": {**COMMON, "num_key_value_heads": 2, "head_dim": 32},  # no head of its own in vLLM
    "gpt_neox": COMMON,
    "mixtral": {**COMMON, "num_key_value_heads": 2, "num_local_experts": 2},
}


def policy_of(name: str) -> PolicyModule:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SHAPES[name])).eval()
    policy = PolicyModule(model)
    disturb(policy, 0)
    return policy


def disturb(policy: PolicyModule, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))


def backend_of(policy: PolicyModule, **options: Any) -> VLLMBackend:
    context = RolloutContext(
        policy=policy,
        tokenizer=byte_tokenizer(),
        sampling=SAMPLING,
        device=CPU,
        model_path="random",
        max_prompt_tokens=64,
    )
    return VLLMBackend(VLLMConfig(**{"kv_cache_gib": 0.1, **options}), context)


def gap(policy: PolicyModule, groups: list[RolloutGroup]) -> float:
    """Largest |trainer - sampler| over the sampled tokens."""
    pairs = [(group.request.prompt_ids, c) for group in groups for c in group.completions]
    return max(
        float((teacher_forced(policy.model, p, c.token_ids, 1.0) - torch.tensor(c.logprobs)).abs().max())
        for p, c in pairs
    )


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_log_probabilities_are_the_trainers(name: str) -> None:
    policy = policy_of(name)
    with backend_of(policy) as backend:
        for version in range(3):
            if version:
                disturb(policy, version)
                assert gap(policy, backend.generate(mixed_requests(SAMPLING))) > 1e-2
            backend.sync_weights(iter_hf_weights(policy), policy_version=version)
            assert gap(policy, backend.generate(mixed_requests(SAMPLING))) < 1e-4
        if name == "qwen2":
            weights = dict(iter_hf_weights(policy))
            del weights["model.layers.0.self_attn.v_proj.bias"]
            with pytest.raises(RolloutError, match=r"qkv_proj\.bias \(partially\) got no weights"):
                backend.sync_weights(iter(weights.items()), policy_version=9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "gpt_neox",
            {},
            "vllm: it runs GPTNeoXForCausalLM through transformers and patches its classes; set",
        ),
        ("mixtral", {}, "vllm: its CPU build cannot update the weights of experts; set rollout_backend.name to hf"),
        ("qwen2", {"kv_cache_gib": 1e5}, "did not start: a KV cache of 100000.0 GiB does not fit into "),
        ("qwen2", {"kv_cache_gib": 1e-4}, "; raise rollout_backend.kv_cache_gib (now 0.0001)"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(name: str, options: dict[str, float], message: str) -> None:
    policy = policy_of(name)
    with pytest.raises(RolloutError) as refused, backend_of(policy, **options):
        pass
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    ids = torch.arange(5)[None]
    assert policy.model(ids).logits.shape == (1, 5, 258), "the trainer's model is what it was"
