"""The contract of the rollout backend: ends, limits, text, order, and what it leaves untouched."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_policies import backend_for, end_often, load_tiny, mixed_requests, request, teacher_forced
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import ModelOutput

from reasonrl import FinishReason, RolloutBackend, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.model.load import LoadedModel
from reasonrl.recipe.schema import LoraConfig
from reasonrl.testing.models import Architecture, tiny_model_folder
from reasonrl_hf.cached import CachedModel
from reasonrl_hf.config import HFConfig

EOS = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def loaded(folder: Path) -> LoadedModel:
    return load_tiny(folder)


def favor(loaded: LoadedModel, *tokens: int, by: float = 100.0) -> None:
    """Replace the model's head by one that always prefers ``tokens``."""
    bias = torch.zeros(loaded.model.config.vocab_size)
    bias[list(tokens)] = by
    loaded.model.lm_head.register_forward_hook(lambda _m, _a, logits: logits * 0.0 + bias)


def test_it_is_a_rollout_backend(loaded: LoadedModel) -> None:
    assert isinstance(backend_for(loaded, SamplingParams()), RolloutBackend)


def test_groups_come_in_order_with_their_requests(loaded: LoadedModel) -> None:
    sampling = SamplingParams(max_completion_tokens=3)
    requests = mixed_requests(sampling, group_size=2)[::-1]
    with backend_for(loaded, sampling, max_batch_rows=3) as backend:
        groups = backend.generate(requests)
    assert [group.request for group in groups] == requests
    assert [len(group.completions) for group in groups] == [2] * len(requests)


def test_no_requests_give_no_groups(loaded: LoadedModel) -> None:
    with backend_for(loaded, SamplingParams()) as backend:
        assert backend.generate([]) == []


def test_samples_of_a_group_and_equal_prompts_of_other_seeds_differ(loaded: LoadedModel) -> None:
    sampling = SamplingParams(max_completion_tokens=8)
    requests = [request((5, 6), sampling, group_size=3, seed=seed) for seed in (1, 2)]
    with backend_for(loaded, sampling) as backend:
        groups = backend.generate(requests)
    assert len({c.token_ids for g in groups for c in g.completions}) == 6


def test_eos_is_kept_in_the_tokens_and_left_out_of_the_text(loaded: LoadedModel) -> None:
    favor(loaded, EOS)
    sampling = SamplingParams(max_completion_tokens=8)
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert completion.token_ids == (EOS,)
    assert completion.text == ""
    assert completion.finish_reason is FinishReason.EOS
    assert completion.logprobs == pytest.approx((0.0,), abs=1e-6)


def test_an_eos_of_the_generation_config_ends_too(loaded: LoadedModel) -> None:
    favor(loaded, 7)
    loaded.model.generation_config.eos_token_id = [EOS, 7]
    sampling = SamplingParams(max_completion_tokens=8)
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert (completion.token_ids, completion.finish_reason) == ((7,), FinishReason.EOS)


def test_eos_on_the_last_allowed_token_is_eos_not_length(loaded: LoadedModel) -> None:
    favor(loaded, EOS)
    sampling = SamplingParams(max_completion_tokens=1)
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert completion.finish_reason is FinishReason.EOS


def test_the_token_limit_cuts(loaded: LoadedModel) -> None:
    favor(loaded, 35, 36)
    sampling = SamplingParams(max_completion_tokens=5)
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert len(completion.token_ids) == 5
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.logprobs == pytest.approx([math.log(0.5)] * 5, abs=1e-5)


def test_a_stop_string_over_several_tokens_ends_and_stays_in_the_text(loaded: LoadedModel) -> None:
    sampling = SamplingParams(max_completion_tokens=400, stop=("aba", "never"))
    a, b = loaded.tokenizer.encode("ab")
    favor(loaded, a, b)
    with backend_for(loaded, sampling) as backend:
        completions = backend.generate([request((5, 6), sampling, group_size=20, seed=4)])[0].completions
    for completion in completions:
        assert completion.finish_reason is FinishReason.STOP_STRING
        assert completion.text.endswith("aba")
        assert completion.text.count("aba") == 1
        assert len(completion.token_ids) == len(completion.text) == len(completion.logprobs or ())
    assert len({c.text for c in completions}) > 3


def test_stop_strings_work_beyond_ascii(loaded: LoadedModel) -> None:
    tokens = loaded.tokenizer.encode("é")
    assert len(tokens) == 2
    favor(loaded, *tokens)
    sampling = SamplingParams(max_completion_tokens=200, stop=("éé",))
    with backend_for(loaded, sampling) as backend:
        completions = backend.generate([request((5, 6), sampling, group_size=4)])[0].completions
    assert all(c.text.endswith("éé") and c.text.count("éé") == 1 for c in completions)


def test_a_stop_string_of_the_prompt_does_not_end_the_completion(loaded: LoadedModel) -> None:
    favor(loaded, *loaded.tokenizer.encode("b"))
    sampling = SamplingParams(max_completion_tokens=3, stop=("ab",))
    prompt = tuple(loaded.tokenizer.encode("xa"))
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request(prompt, sampling)])[0].completions[0]
    assert (completion.text, completion.finish_reason) == ("bbb", FinishReason.LENGTH)


def test_settings_may_differ_between_requests(loaded: LoadedModel) -> None:
    short = SamplingParams(max_completion_tokens=2)
    greedy = SamplingParams(temperature=0.0, max_completion_tokens=4)
    requests = [request((5, 6), s, group_size=2, seed=i) for i, s in enumerate((short, greedy, short))]
    with backend_for(loaded, short) as backend:
        groups = backend.generate(requests)
    assert [max(len(c.token_ids) for c in g.completions) for g in groups] == [2, 4, 2]
    assert groups[1].completions[0].token_ids == groups[1].completions[1].token_ids


def test_the_policy_version_is_the_last_synced_and_the_weights_are_not_read(loaded: LoadedModel) -> None:
    def weights():
        raise AssertionError("hf shares the module")
        yield

    sampling = SamplingParams(max_completion_tokens=1)
    with backend_for(loaded, sampling) as backend:
        backend.sync_weights(weights(), policy_version=17)
        completion = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert completion.policy_version == 17


def test_new_weights_are_used_at_once(loaded: LoadedModel) -> None:
    sampling = SamplingParams(temperature=0.0, max_completion_tokens=6)
    with backend_for(loaded, sampling) as backend:
        before = backend.generate([request((5, 6), sampling)])[0].completions[0]
        with torch.no_grad():
            loaded.model.get_input_embeddings().weight.copy_(loaded.model.get_input_embeddings().weight.flip(0).clone())
        after = backend.generate([request((5, 6), sampling)])[0].completions[0]
    assert before.token_ids != after.token_ids


@pytest.mark.parametrize("training", [True, False])
def test_mode_gradients_and_global_generators_are_left_alone(loaded: LoadedModel, training: bool) -> None:
    loaded.model.train(training)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    sampling = SamplingParams(max_completion_tokens=6)
    with backend_for(loaded, sampling) as backend:
        backend.generate(mixed_requests(sampling))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training is training for module in loaded.model.modules())
    assert all(p.requires_grad and p.grad is None for p in loaded.model.parameters())
    loaded.model(torch.tensor([[1, 2]])).logits.sum().backward()


def test_a_failure_restores_the_mode_too(loaded: LoadedModel) -> None:
    loaded.model.train()
    favor(loaded, 3, by=float("nan"))
    sampling = SamplingParams(max_completion_tokens=2)
    with backend_for(loaded, sampling) as backend, pytest.raises(RolloutError, match="non-finite"):
        backend.generate([request((5, 6), sampling)])
    assert loaded.model.training


def test_context_overflow_is_refused_before_sampling(loaded: LoadedModel) -> None:
    sampling = SamplingParams(max_completion_tokens=2047)
    refused = pytest.raises(RolloutError, match="context of 2048")
    with backend_for(loaded, sampling) as backend, refused as error:
        backend.generate([request((5, 6), sampling)])
    assert "\n" not in str(error.value)


def test_an_empty_prompt_is_refused(loaded: LoadedModel) -> None:
    sampling = SamplingParams()
    with backend_for(loaded, sampling) as backend, pytest.raises(RolloutError, match="no tokens"):
        backend.generate([request((), sampling)])


def test_gradient_checkpointing_does_not_disturb_sampling(folder: Path) -> None:
    sampling = SamplingParams(max_completion_tokens=6)
    sampled = []
    for checkpointing in (False, True):
        loaded = load_tiny(folder, gradient_checkpointing=checkpointing)
        loaded.model.train()
        with backend_for(loaded, sampling) as backend:
            sampled.append([g.completions for g in backend.generate(mixed_requests(sampling))])
    assert sampled[0] == sampled[1]


def test_adapters_are_sampled_with(folder: Path) -> None:
    loaded = load_tiny(folder, lora=LoraConfig(rank=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    sampling = SamplingParams(max_completion_tokens=8)
    with backend_for(loaded, sampling) as backend:
        completion = backend.generate([request((5, 6, 7), sampling)])[0].completions[0]
    expected = teacher_forced(loaded.model, (5, 6, 7), completion.token_ids, 1.0)
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)
    with loaded.model.disable_adapter():
        base = teacher_forced(loaded.model, (5, 6, 7), completion.token_ids, 1.0)
    assert (base - expected).abs().max() > 1e-2


def rename_cache(model: Any, name: str, *, takes: str | None = None) -> None:
    """Let the cache go in and out under another name, as a release of transformers may have it."""
    inner, own = model.forward, CachedModel(model)._argument

    def forward(input_ids: Any, position_ids: Any = None, logits_to_keep: int = 0, **more: Any) -> ModelOutput:
        cache = {own: more.pop(takes or name)} if (takes or name) in more else {}
        more.pop(name, None)
        output = inner(input_ids=input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **more, **cache)
        return ModelOutput({name: output.get(own), "logits": output.logits})

    model.forward = forward


@pytest.mark.parametrize("name", ["past_key_values", "cache", "state_of_next_year"])
def test_the_cache_argument_may_have_any_name(loaded: LoadedModel, name: str) -> None:
    sampling = SamplingParams(max_completion_tokens=6)
    requests = mixed_requests(sampling, group_size=2)
    with backend_for(loaded, sampling, fused_decoding=False) as backend:
        expected = backend.generate(requests)
    rename_cache(loaded.model, name)
    with backend_for(loaded, sampling) as backend:
        assert backend.generate(requests) == expected


def test_a_cache_that_the_model_ignores_is_refused(loaded: LoadedModel) -> None:
    """Else every token would be sampled without the prompt before it."""
    rename_cache(loaded.model, "cache", takes="kept")
    with pytest.raises(RolloutError, match="it ignores the argument 'cache'"):
        backend_for(loaded, SamplingParams())


def test_a_model_without_a_key_value_cache_is_refused(loaded: LoadedModel) -> None:
    inner = loaded.model.forward
    loaded.model.forward = lambda *a, **k: ModelOutput({"logits": inner(*a, **k).logits})
    with pytest.raises(RolloutError, match=r"Qwen2ForCausalLM.*its output holds none"):
        backend_for(loaded, SamplingParams())


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba"])
def test_a_recurrent_model_is_refused(loaded: LoadedModel, family: str) -> None:
    """Its state has read the padding before a shorter prompt. Older releases of transformers give no cache at all."""
    shape = {"vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    recurrent = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    with pytest.raises(RolloutError, match="gives no key-value cache that this backend can use"):
        backend_for(LoadedModel(model=recurrent, tokenizer=loaded.tokenizer), SamplingParams())


def test_a_model_that_gets_no_positions_is_refused(loaded: LoadedModel) -> None:
    """As if a release of transformers had renamed ``position_ids``: absolute positions would count the padding."""
    shape = {"vocab_size": 258, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **shape))
    gpt2 = LoadedModel(model=model, tokenizer=loaded.tokenizer)
    backend_for(gpt2, SamplingParams())
    inner = model.forward
    model.forward = lambda input_ids, **more: inner(input_ids=input_ids, **more)
    with pytest.raises(RolloutError, match="logits with the cache are not those without"):
        backend_for(gpt2, SamplingParams())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_batch_rows": 0}, "max_batch_rows"), ({"compact_fraction": 0.0}, "compact_fraction")],
)
def test_config_is_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HFConfig(**options)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_under_autocast_the_cache_is_narrow_and_samples_are_the_same(
    tmp_path: Path, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = SamplingParams(max_completion_tokens=18)  # beyond the window of gemma2
    loaded = end_often(load_tiny(tiny_model_folder(tmp_path / "model", architecture=architecture)))
    seen: list[set[torch.dtype]] = []
    decode = CachedModel.decode

    def look(self: CachedModel, cache: Any, *inputs: Any) -> Tensor:
        logits = decode(self, cache, *inputs)
        seen.append({t.dtype for layer in cache.layers for t in (layer.keys, layer.values)})
        return logits

    found = []
    for narrow in (True, False):
        if not narrow:
            monkeypatch.setattr("reasonrl_hf.cached.narrow_cache", lambda cache, dtype: None)
        with backend_for(loaded, sampling) as backend, torch.autocast("cpu", torch.bfloat16):
            monkeypatch.setattr(CachedModel, "decode", look)
            found.append(
                [completion for group in backend.generate(mixed_requests(sampling)) for completion in group.completions]
            )
            monkeypatch.setattr(CachedModel, "decode", decode)
        if narrow:
            assert all(dtypes == {torch.bfloat16} for dtypes in seen)
    assert found[0] == found[1]
    assert torch.float32 in seen[-1]


def test_rows_of_one_batch_have_limits_of_their_own(loaded: LoadedModel) -> None:
    """As the later messages of conversations do; a completion is the beginning of the one with more room."""
    roomy = SamplingParams(max_completion_tokens=9)
    asked = [
        request((5, 6, seed), SamplingParams(max_completion_tokens=limit), group_size=2, seed=seed)
        for seed, limit in ((1, 2), (2, 9), (3, 1), (4, 5))
    ]
    with backend_for(loaded, roomy) as backend:
        groups = backend.generate(asked)
        alone = [backend.generate([replace(one, sampling=roomy)])[0] for one in asked]
    for group, whole in zip(groups, alone, strict=True):
        limit = group.request.sampling.max_completion_tokens
        for one, full in zip(group.completions, whole.completions, strict=True):
            assert one.token_ids == full.token_ids[:limit]
            assert one.logprobs == pytest.approx(full.logprobs[:limit], abs=1e-5)
            assert (one.finish_reason is FinishReason.LENGTH) == (
                len(one.token_ids) == limit and EOS not in one.token_ids
            )
