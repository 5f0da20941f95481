"""A sync that leaves something out of vLLM's model is an error, and the next one is whole again."""

import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_policies import context_of, load_tiny, mixed_requests, teacher_forced
from torch import Tensor

from reasonrl import SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.policy import PolicyModule
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig

pytestmark = pytest.mark.vllm
BASE = Path(__file__).resolve().parents[2] / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
SAMPLING = SamplingParams(temperature=1.0, max_completion_tokens=8)
LAYER = "model.layers.1"


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_tiny(BASE)


@pytest.fixture(scope="module")
def backend(loaded: Any) -> Iterator[VLLMBackend]:
    context = context_of(loaded, SAMPLING, BASE)
    with VLLMBackend(VLLMConfig(), context) as engine:
        yield engine


def weights_of(loaded: Any) -> dict[str, Tensor]:
    return dict(iter_hf_weights(PolicyModule(loaded.model)))


@pytest.mark.parametrize(
    ("dropped", "named"),
    [
        ("model.norm.weight", "vllm: model.norm.weight got no weights from the trainer"),
        (f"{LAYER}.mlp.down_proj.weight", f"vllm: {LAYER}.mlp.down_proj.weight got no weights"),
        (f"{LAYER}.self_attn.k_proj.weight", f"{LAYER}.self_attn.qkv_proj.weight (partially) got no"),
        (f"{LAYER}.mlp.up_proj.weight", f"{LAYER}.mlp.gate_up_proj.weight (partially) got no"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight, lm_head.weight got no weights"),
    ],
)
def test_a_weight_that_is_not_delivered_is_named(dropped: str, named: str, loaded: Any, backend: VLLMBackend) -> None:
    weights = weights_of(loaded)
    del weights[dropped]
    refused(backend, weights, named)
    works_again(loaded, backend)


@pytest.mark.parametrize(
    ("name", "tensor", "named"),
    [
        (f"{LAYER}.self_attn.ghost.weight", torch.zeros(2), f"weight sync failed at '{LAYER}.self_attn.ghost.weight'"),
        ("model.norm.weight", torch.zeros(7), "weight sync failed at 'model.norm.weight'"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    name: str, tensor: Tensor, named: str, loaded: Any, backend: VLLMBackend
) -> None:
    refused(backend, {**weights_of(loaded), name: tensor}, named)
    works_again(loaded, backend)


def test_a_sync_holds_a_few_tensors_at_a_time(loaded: Any, backend: VLLMBackend) -> None:
    """As FSDP gathers them and adapters are merged: each tensor is a copy that only the engine keeps."""
    alive, most = 0, 0

    def forget(size: int) -> None:
        nonlocal alive
        alive -= size

    def copies() -> Iterator[tuple[str, Tensor]]:
        nonlocal alive, most
        for name, tensor in iter_hf_weights(PolicyModule(loaded.model)):
            copy = tensor.clone()
            alive += copy.nbytes
            most = max(most, alive)
            weakref.finalize(copy, forget, copy.nbytes)
            yield name, copy
            del copy

    backend.sync_weights(copies(), policy_version=1)
    weights = weights_of(loaded)
    whole, largest = (f(tensor.nbytes for tensor in weights.values()) for f in (sum, max))
    assert most <= 3 * largest < whole / 2
    works_again(loaded, backend)


def refused(backend: VLLMBackend, weights: dict[str, Tensor], named: str) -> None:
    with pytest.raises(RolloutError, match=re.escape(named)) as error:
        backend.sync_weights(iter(weights.items()), policy_version=1)
    assert "\n" not in str(error.value)
    with pytest.raises(RolloutError, match="no weights yet"):
        backend.generate(mixed_requests(SAMPLING))


def works_again(loaded: Any, backend: VLLMBackend) -> None:
    backend.sync_weights(iter(weights_of(loaded).items()), policy_version=2)
    for group in backend.generate(mixed_requests(SAMPLING)):
        for completion in group.completions:
            expected = teacher_forced(loaded.model, group.request.prompt_ids, completion.token_ids, 1.0)
            torch.testing.assert_close(expected, torch.tensor(completion.logprobs), rtol=0.0, atol=1e-4)
