"""The fused decoding step computes what the model computes, and is left out where it would not."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_policies import backend_for, end_often, load_tiny, mixed_requests
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from reasonrl import SamplingParams
from reasonrl.recipe.schema import LoraConfig
from reasonrl.testing.models import tiny_model_folder
from reasonrl_hf.cached import CachedModel
from reasonrl_hf.fused import FusedCache, FusedStep, why_not

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "one key-value head": ("llama", {"num_key_value_heads": 1}),
    "a head per key-value head": ("llama", {"num_key_value_heads": 6, "tie_word_embeddings": True}),
    "wide heads": ("llama", {"head_dim": 16}),
    "llama3 positions": ("llama", {"rope_parameters": LLAMA3}),
    "yarn positions": ("llama", {"rope_parameters": YARN}),
    "another activation": ("llama", {"hidden_act": "gelu"}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 12}),
}


def make(kind: str, **fields: Any) -> Any:
    """A model whose weights, biases and norms are all random, so that none of them can be forgotten."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPE, **fields})).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


def norms_in_float64(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models compute their norms in float32, whatever their weights."""

    def forward(norm: Any, x: Tensor) -> Tensor:
        scaled: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight
        return scaled

    for kind in {type(m) for m in model.modules() if type(m).__name__.endswith("RMSNorm")}:
        monkeypatch.setattr(kind, "forward", forward)


@torch.no_grad()
def logits_of(model: Any, *, fused: bool) -> list[Tensor]:
    """Those of 150 steps after padded prompts; rows are copied, dropped and exchanged on the way."""
    cached, random = CachedModel(model, fused=fused), torch.Generator().manual_seed(1)
    assert cached._fused == fused
    ids = torch.randint(0, 90, (3, 20), generator=random)
    lengths = torch.tensor([20, 5, 13])
    mask = torch.ones(3, 170, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, : 20 - length] = 0
    positions = (mask[:, :20].cumsum(-1) - 1).clamp(min=0)
    rows = torch.tensor([0, 0, 1, 2, 2, 1])
    _, cache = cached.prefill(ids, mask[:, :20], positions)
    cache.reorder_cache(rows)
    assert isinstance(cache, FusedCache) == fused
    found = []
    for step in range(150):
        if step in (30, 100):
            kept = torch.tensor([3, 0, 2, 5] if step == 30 else [2, 1])
            rows = rows[kept]
            cache.reorder_cache(kept)
        newest = torch.randint(0, 90, (len(rows), 1), generator=random)
        found.append(cached.decode(cache, newest, mask[rows, : 21 + step], (lengths[rows] + step)[:, None]))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_step_gives_the_models_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, fields = MODELS[name]
    model = make(kind, **fields)
    for got, wanted in zip(logits_of(model, fused=True), logits_of(model, fused=False), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    norms_in_float64(model, monkeypatch)
    model.double()
    for got, wanted in zip(logits_of(model, fused=True), logits_of(model, fused=False), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_new_weights_are_used_at_once() -> None:
    model = make("qwen2")
    before = logits_of(model, fused=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = logits_of(model, fused=True)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(after, before, strict=True))
    for got, wanted in zip(after, logits_of(model, fused=False), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def hook_a_layer(model: Any) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _i, out: out * 2)


def replace_a_forward(model: Any) -> None:
    layer = model.model.layers[0].self_attn.q_proj
    plain = layer.forward
    layer.forward = lambda x: plain(x) * 2


def quantize(model: Any) -> None:
    class Linear4bit(nn.Linear):
        pass

    model.model.layers[2].mlp.up_proj.__class__ = Linear4bit


def adapt_the_embeddings(model: Any) -> None:
    """As an adapter does: the layer still shows the plain weights."""

    class Embedding(nn.Embedding):
        pass

    model.model.embed_tokens.__class__ = Embedding


def move_out_of_transformers(model: Any) -> None:
    model.__class__ = type("LlamaForCausalLM", (type(model),), {"__module__": "their_package.modeling"})


UNFIT: dict[str, tuple[str, dict[str, Any], Callable[[Any], object]]] = {
    "another family": ("gpt_neox", {}, lambda model: None),
    "sliding windows": ("mistral", {"sliding_window": 8}, lambda model: None),
    "positions that depend": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        lambda model: None,
    ),
    "biases": ("llama", {"attention_bias": True}, lambda model: None),
    "hooks": ("llama", {}, hook_a_layer),
    "hook": ("llama", {}, replace_a_forward),
    "quantized": ("llama", {}, quantize),
    "adapters": ("llama", {}, adapt_the_embeddings),
    "weights of another kind": ("llama", {}, lambda model: model.bfloat16()),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_other_models_decode_by_their_own_passes(reason: str) -> None:
    kind, fields, change = UNFIT[reason]
    model = make(kind, **fields)
    change(model)
    assert reason in (why_not(model) or "")
    assert not CachedModel(model, fused=True)._fused


def test_code_of_others_decodes_by_its_own_passes() -> None:
    model = make("llama")
    move_out_of_transformers(model)
    assert why_not(model) == "another family"


def test_adapters_and_global_hooks_are_seen(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    adapted = load_tiny(folder, lora=LoraConfig(rank=2)).model.get_base_model()
    assert "adapters" in (why_not(adapted) or "")
    handle = nn.modules.module.register_module_forward_hook(lambda _m, _i, out: out)
    try:
        assert why_not(make("llama")) == "hooks"
    finally:
        handle.remove()


def test_a_hook_that_comes_later_is_respected(tmp_path: Path) -> None:
    loaded = load_tiny(tiny_model_folder(tmp_path / "model"))
    sampling = SamplingParams(max_completion_tokens=4)
    with backend_for(loaded, sampling) as backend:
        backend.generate(mixed_requests(sampling))
        only = torch.zeros(loaded.model.config.vocab_size)
        only[65] = 100.0
        loaded.model.lm_head.register_forward_hook(lambda _m, _i, logits: logits * 0.0 + only)
        groups = backend.generate(mixed_requests(sampling))
    assert {t for g in groups for c in g.completions for t in c.token_ids} == {65}


def test_the_samples_are_the_same_without_it(tmp_path: Path) -> None:
    loaded = end_often(load_tiny(tiny_model_folder(tmp_path / "model")))
    sampling = SamplingParams(max_completion_tokens=90)
    found = []
    for fused in (True, False):
        with backend_for(loaded, sampling, fused_decoding=fused) as backend:
            assert backend._model._fused == fused
            groups = backend.generate(mixed_requests(sampling, group_size=12))
            found.append([c.token_ids for g in groups for c in g.completions])
    assert found[0] == found[1]


def test_a_step_that_computes_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, plain = load_tiny(tiny_model_folder(tmp_path / "model")), FusedStep.__call__
    monkeypatch.setattr(FusedStep, "__call__", lambda *inputs: plain(*inputs) * 1.01)
    with caplog.at_level(logging.WARNING):
        assert not CachedModel(loaded.model, fused=True)._fused
    assert "fused decoding is off" in caplog.text


def test_classes_that_this_version_does_not_know_cost_speed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_tiny(tiny_model_folder(tmp_path / "model"))

    def raise_one(model: Any) -> None:
        raise AttributeError("no rotary_emb")

    monkeypatch.setattr("reasonrl_hf.cached.why_not", raise_one)
    with caplog.at_level(logging.WARNING):
        assert not CachedModel(loaded.model, fused=True)._fused
    assert "no rotary_emb" in caplog.text
