"""The sampler, the trainer's forward pass and a plain forward pass of transformers say the same."""

from pathlib import Path

import pytest
import torch
from support.tiny_policies import backend_for, end_often, load_tiny, mixed_requests, teacher_forced
from transformers import AutoConfig, AutoModelForCausalLM

from reasonrl import SamplingParams
from reasonrl.model.load import LoadedModel
from reasonrl.model.policy import PolicyModule
from reasonrl.testing.models import Architecture, byte_tokenizer, tiny_model_folder

ARCHITECTURES: tuple[Architecture, ...] = ("qwen2", "qwen3", "llama", "gpt_neox", "gemma2", "gpt2")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Large enough weights that some rows end early and are removed while others go on.
    return tiny_model_folder(tmp_path_factory.mktemp("model") / request.param, architecture=request.param)


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_sampler_agrees_with_plain_forward_passes(folder: Path, temperature: float) -> None:
    loaded = end_often(load_tiny(folder))
    sampling = SamplingParams(temperature=temperature, max_completion_tokens=24)
    with backend_for(loaded, sampling, compact_fraction=0.01) as backend:
        groups = backend.generate(mixed_requests(sampling))
    for group in groups:
        for completion in group.completions:
            expected = teacher_forced(
                loaded.model, group.request.prompt_ids, completion.token_ids, sampling.logprob_temperature
            )
            assert completion.logprobs is not None
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_sampler_agrees_with_the_trainers_padded_forward(folder: Path) -> None:
    loaded = load_tiny(folder)
    sampling = SamplingParams(temperature=0.9, max_completion_tokens=24)
    with backend_for(loaded, sampling) as backend:
        groups = backend.generate(mixed_requests(sampling))
    rows = [(g.request.prompt_ids, c) for g in groups for c in g.completions]
    width = max(len(prompt) + len(c.token_ids) for prompt, c in rows) + 3
    ids = torch.full((len(rows), width), 257)
    response, sampler = torch.zeros(ids.shape, dtype=torch.bool), torch.zeros(ids.shape)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion.token_ids)
        ids[i, :end] = torch.tensor(prompt + completion.token_ids)
        response[i, len(prompt) : end] = True
        sampler[i, len(prompt) : end] = torch.tensor(completion.logprobs)
    output = PolicyModule(loaded.model)(ids, ids != 257, response, temperature=0.9)
    torch.testing.assert_close(output.logprobs, sampler, atol=1e-5, rtol=0)


def test_completions_do_not_depend_on_the_rest_of_the_batch(folder: Path) -> None:
    loaded = end_often(load_tiny(folder))
    sampling = SamplingParams(max_completion_tokens=20)
    requests = mixed_requests(sampling)
    sampled = []
    for options in ({}, {"max_batch_rows": 4}, {"compact_fraction": 1.0}):
        with backend_for(loaded, sampling, **options) as backend:
            sampled.append([[c.token_ids for c in g.completions] for g in backend.generate(requests)])
    with backend_for(loaded, sampling) as backend:
        alone = [backend.generate([request])[0] for request in requests]
    sampled.append([[c.token_ids for c in group.completions] for group in alone])
    lengths = {len(tokens) for group in sampled[0] for tokens in group}
    assert min(lengths) < 20 == max(lengths), "no row was removed while others went on; choose other seeds"
    assert all(tokens == sampled[0] for tokens in sampled[1:])
    assert len({tuple(map(tuple, group)) for group in sampled[0]}) == len(requests)


def test_greedy_is_the_argmax_loop(folder: Path) -> None:
    loaded = load_tiny(folder)
    sampling = SamplingParams(temperature=0.0, max_completion_tokens=12)
    with backend_for(loaded, sampling) as backend:
        groups = backend.generate(mixed_requests(sampling, group_size=1))
    for group in groups:
        ids = list(group.request.prompt_ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 256:
                break
        assert group.completions[0].token_ids == tuple(ids[len(group.request.prompt_ids) :])


def test_a_float64_model_agrees_to_float32_precision(tmp_path: Path) -> None:
    loaded = load_tiny(tiny_model_folder(tmp_path / "model"))
    sampling = SamplingParams(temperature=0.8, max_completion_tokens=16)
    with backend_for(loaded, sampling) as backend:
        groups = backend.generate(mixed_requests(sampling))
    wide = loaded.model.double()
    for group in groups:
        for completion in group.completions:
            expected = teacher_forced(wide, group.request.prompt_ids, completion.token_ids, 0.8)
            actual = torch.tensor(completion.logprobs, dtype=torch.float64)
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


OTHERS = {
    "no position ids": ("bloom", {"n_layer": 2, "n_head": 4}),
    "positions from the mask": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "scaled logits": ("granite", {"num_key_value_heads": 2, "logits_scaling": 4.0}),
    "sliding window": ("mistral", {"num_key_value_heads": 2, "sliding_window": 16}),
    "experts": ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_agree(kind: str) -> None:
    architecture, extra = OTHERS[kind]
    shape = {"vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"eos_token_id": 256, "pad_token_id": 257, "intermediate_size": 64}
    config = AutoConfig.for_model(architecture, **(shape | special | extra))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    loaded = end_often(LoadedModel(model=model, tokenizer=byte_tokenizer()))
    sampling = SamplingParams(temperature=0.9, max_completion_tokens=24)
    with backend_for(loaded, sampling, compact_fraction=0.01) as backend:
        groups = backend.generate(mixed_requests(sampling))
    policy = PolicyModule(model)
    for group in groups:
        for completion in group.completions:
            prompt, tokens = group.request.prompt_ids, completion.token_ids
            sampled = torch.tensor(completion.logprobs)
            expected = teacher_forced(model, prompt, tokens, 0.9)
            torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=0)
            ids = torch.tensor([prompt + tokens + (257, 257)])
            response = torch.zeros_like(ids, dtype=torch.bool)
            response[0, len(prompt) : len(prompt) + len(tokens)] = True
            trained = policy(ids, ids != 257, response, temperature=0.9).logprobs[response]
            torch.testing.assert_close(trained, expected, atol=1e-5, rtol=0)
