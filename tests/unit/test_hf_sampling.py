"""Inverse-CDF sampling: the right frequencies, the right log-probabilities, no impossible token."""

import numpy as np
import pytest
import torch
from reference.truncation import kept_tokens

from reasonrl import SamplingParams
from reasonrl.functional.randomness import row_uniforms
from reasonrl_hf.sampling import greedy_tokens, sample_tokens, truncate


def uniforms(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_match_probabilities(temperature: float) -> None:
    draws = 40_000
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -3.0, 0.5])
    u = torch.from_numpy(row_uniforms(11, 0, draws))
    tokens, _ = sample_tokens(logits.expand(draws, -1), u, temperature)
    expected = torch.softmax(logits.double() / temperature, -1).numpy() * draws
    counts = np.bincount(tokens.numpy(), minlength=6)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 99.9% quantile at 5 degrees of freedom


def test_logprobs_are_those_of_the_drawn_tokens_after_temperature() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 300) * 5
    u = torch.from_numpy(row_uniforms(1, 2, 64))
    tokens, logprobs = sample_tokens(logits, u, 0.7)
    expected = torch.log_softmax(logits.double() / 0.7, -1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, atol=2e-6, rtol=1e-6)


def test_tokens_are_the_inverse_of_the_cdf() -> None:
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.25]])).expand(5, -1)
    tokens, _ = sample_tokens(logits, uniforms(0.0, 0.2499, 0.2501, 0.7499, 0.7501), 1.0)
    assert tokens.tolist() == [0, 0, 1, 1, 2]


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    blocked = float("-inf")
    logits = torch.tensor([[blocked, 0.0, blocked, 0.0, blocked, blocked]]).expand(4, -1)
    tokens, logprobs = sample_tokens(logits, uniforms(0.0, 0.5, 1.0 - 2**-53, 1.0), 1.0)
    assert tokens.tolist() == [1, 3, 3, 3]
    assert torch.isfinite(logprobs).all()


def test_rare_tokens_of_a_large_vocabulary_keep_their_share() -> None:
    vocabulary = 150_000
    logits = torch.zeros(1, vocabulary)
    tokens, logprobs = sample_tokens(logits.expand(3, -1), uniforms(0.0, 0.5, 1.0 - 1e-9), 1.0)
    assert tokens.tolist()[0] == 0
    assert abs(tokens[1].item() - vocabulary // 2) <= 2
    assert tokens[2].item() >= vocabulary - 2
    torch.testing.assert_close(logprobs, torch.full((3,), -float(np.log(vocabulary))), atol=1e-5, rtol=0)


def test_bfloat16_logits_are_normalized_in_float32() -> None:
    logits = torch.randn(8, 500, generator=torch.Generator().manual_seed(3)).bfloat16()
    tokens, logprobs = sample_tokens(logits, torch.from_numpy(row_uniforms(0, 0, 8)), 1.0)
    expected = torch.log_softmax(logits.double(), -1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)


def test_greedy_takes_the_first_maximum_and_states_it_at_temperature_1() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [2.0, 1.0, -1.0]])
    tokens, logprobs = greedy_tokens(logits)
    assert tokens.tolist() == [1, 0]
    expected = torch.log_softmax(logits.double(), -1).max(-1).values
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(None, 0.3), (None, 0.9), (1, 1.0), (5, 1.0), (99, 1.0), (6, 0.8), (3, 1e-9)]
)
def test_truncation_keeps_the_tokens_of_the_definition(temperature: float, top_k: int | None, top_p: float) -> None:
    logits = torch.randn(32, 12, generator=torch.Generator().manual_seed(5)) * 2
    logits[0] = 0.0  # all alike
    logits[1, 1:] = float("-inf")
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    found = truncate(logits, sampling)
    for row, before in zip(found, logits.double().tolist(), strict=True):
        kept = kept_tokens(before, temperature, top_k, top_p)
        assert set(torch.isfinite(row).nonzero()[:, 0].tolist()) == kept
    assert torch.equal(found[torch.isfinite(found)], logits[torch.isfinite(found)])


def test_truncated_samples_have_the_renormalized_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    cut = truncate(logits, SamplingParams(top_p=0.5)).expand(3, -1)
    tokens, logprobs = sample_tokens(cut, uniforms(0.0, 0.56, 0.99), 1.0)
    assert tokens.tolist() == [0, 0, 1]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([4 / 7, 4 / 7, 3 / 7]))
