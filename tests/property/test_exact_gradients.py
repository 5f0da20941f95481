"""Expected gradients by enumeration: every completion of a 3-token vocabulary, every group of two.

The policy is a table of logits, one row a prefix; token 2 ends a completion, two tokens are the limit. So the expected
gradient of an algorithm's loss is a finite sum, and so is the gradient of the objective it stands for.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from reasonrl import AlgorithmContext, SamplingParams
from reasonrl.contracts.batch import LossInput, LossNormalizer, PolicyEval, StepContext, TrainBatch
from reasonrl.functional.group import group_advantages
from reasonrl_critic_free import algorithm as algorithms
from reasonrl_critic_free.config import KLConfig
from reasonrl_critic_free.plugin import reasonrl_algorithms

END, LIMIT, GROUP = 2, 2, 2
PREFIXES: list[tuple[int, ...]] = [(), (0,), (1,)]
COMPLETIONS: list[tuple[int, ...]] = [(END,), *((first, second) for first in (0, 1) for second in (0, 1, END))]
CONTEXT = StepContext(step=1, total_steps=1, policy_version=0)
BETA = 0.3


@dataclass(frozen=True)
class World:
    """Policy, reference ``[3, 3]`` and rewards ``[7]``."""

    logits: Tensor
    reference: Tensor
    rewards: Tensor


@cache
def world(seed: int) -> World:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return World(normal(3, 3), normal(3, 3), (normal(7) > 0).double() + 0.2 * normal(7).abs())


def token_logprobs(logits: Tensor, completion: tuple[int, ...]) -> list[Tensor]:
    table = torch.log_softmax(logits, dim=-1)
    return [table[PREFIXES.index(completion[:t]), token] for t, token in enumerate(completion)]


def objective(here: World, beta: float) -> Tensor:
    """The gradient of E[R] - beta KL(policy || reference) by the logits, over whole completions."""
    logits = here.logits.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for completion, reward in zip(COMPLETIONS, here.rewards, strict=True):
        logp = torch.stack(token_logprobs(logits, completion)).sum()
        ref = torch.stack(token_logprobs(here.reference, completion)).sum()
        total = total + logp.exp() * (reward - beta * (logp - ref))
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient


def build(name: str, **options: Any) -> Any:
    spec = next(spec for spec in reasonrl_algorithms() if spec.name == name)
    context = AlgorithmContext(
        sampling=SamplingParams(max_completion_tokens=LIMIT),
        group_size=GROUP,
        total_steps=1,
        reward_weights={"main": 1},
    )
    return getattr(algorithms, str(spec.factory).rpartition(":")[2])(spec.config(**options), context)


def batch_of(here: World, group: tuple[int, ...]) -> TrainBatch:
    mask = torch.zeros(GROUP, LIMIT + 1, dtype=torch.bool)
    for row, number in enumerate(group):
        mask[row, 1 : 1 + len(COMPLETIONS[number])] = True
    rewards = here.rewards[list(group)]
    return TrainBatch(
        input_ids=torch.zeros(mask.shape, dtype=torch.int64),
        attention_mask=torch.ones_like(mask),
        response_mask=mask,
        rollout_logprobs=None,
        rewards=rewards,
        token_rewards=None,
        scored=torch.ones(GROUP, dtype=torch.bool),
        truncated=torch.tensor([COMPLETIONS[number][-1] != END for number in group]),
        group_ids=torch.zeros(GROUP, dtype=torch.int64),
        policy_versions=torch.zeros(GROUP, dtype=torch.int64),
        component_rewards={"main": rewards},
    )


def rows_of(logits: Tensor, group: tuple[int, ...]) -> Tensor:
    out = torch.zeros(GROUP, LIMIT + 1, dtype=torch.float64)
    for row, number in enumerate(group):
        for t, logp in enumerate(token_logprobs(logits, COMPLETIONS[number])):
            out[row, 1 + t] = logp
    return out


def expected_gradient(algorithm: Any, here: World) -> Tensor:
    """Minus the expectation of the loss's gradient by the logits, on samples of the policy itself."""
    total = torch.zeros_like(here.logits)
    for group in product(range(len(COMPLETIONS)), repeat=GROUP):
        logits = here.logits.clone().requires_grad_()
        logprobs = rows_of(logits, group)
        old = logprobs.detach()
        batch = batch_of(here, group)
        evals = PolicyEval(old_logprobs=old, ref_logprobs=rows_of(here.reference, group), values=None)
        advantages = algorithm.compute_advantages(batch, evals, CONTEXT)
        normalizer = LossNormalizer(
            num_response_tokens=float(batch.response_mask.sum()),
            num_sequences=float(GROUP),
            extra=algorithm.counts(batch, advantages),
        )
        inputs = LossInput(
            logprobs=logprobs, entropy=None, values=None, batch=batch, evals=evals, advantages=advantages
        )
        loss = algorithm.compute_loss(inputs, normalizer, CONTEXT).loss
        (gradient,) = torch.autograd.grad(loss, logits, allow_unused=True)
        if gradient is not None:
            total -= old.sum().exp() * gradient
    return total


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize(("name", "factor"), [("rloo", 1.0), ("dr_grpo", (GROUP - 1) / GROUP / LIMIT)])
def test_the_gradient_is_that_of_the_objective(name: str, factor: float, beta: float, seed: int) -> None:
    """Without bias, with a KL penalty in the reward too: it is the KL between sequences."""
    here = world(seed)
    kl = KLConfig(coef=beta, placement="reward", estimator="k1")
    got = expected_gradient(build(name, kl=kl), here)
    torch.testing.assert_close(got, factor * objective(here, beta), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_in_the_loss_is_not_the_kl_of_sequences(estimator: Any, seed: int) -> None:
    """Weighted k3 and k2 have one gradient, that of each state's KL; it leaves out how a token changes later states."""
    here = world(seed)
    plain = expected_gradient(build("dr_grpo"), here)
    kl = KLConfig(coef=BETA, estimator=estimator, weighted=True)
    penalty = (expected_gradient(build("dr_grpo", kl=kl), here) - plain) * LIMIT
    torch.testing.assert_close(penalty, -BETA * state_kl_gradient(here), rtol=1e-10, atol=1e-12)
    of_sequences = objective(here, BETA) - objective(here, 0.0)
    assert (penalty - of_sequences).norm() > 0.02 * of_sequences.norm()


def state_kl_gradient(here: World) -> Tensor:
    """sum over prefixes of their probability, a constant, times the gradient of their KL."""
    logits = here.logits.clone().requires_grad_()
    table, ref = torch.log_softmax(logits, dim=-1), torch.log_softmax(here.reference, dim=-1)
    first = table[0].detach().exp()
    reached = torch.stack([torch.ones((), dtype=torch.float64), first[0], first[1]])
    total = (reached[:, None] * table.exp() * (table - ref)).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient


# Why the expected gradient is not a multiple of that of E[R]. Worst in groups of two, which a standard deviation
# turns into +-1 however little their rewards differ.
BIASED = {
    "grpo": "random token count, standard deviation",
    "dapo": "random token count, standard deviation",
    "gspo": "lengths, standard deviation",
    "sapo": "lengths, standard deviation",
    "cispo": "random token count, standard deviation",
    "dppo": "random token count, standard deviation",
    "max_rl": "another objective, the likelihood of success",
    "gdpo": "normalized twice",
    "reinforce_pp": "whitened over the batch",
    "reinforce_pp_baseline": "whitened over the batch",
}


def test_every_algorithm_is_looked_at() -> None:
    assert {spec.name for spec in reasonrl_algorithms()} == BIASED.keys() | {"rloo", "dr_grpo"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", BIASED)
def test_the_bias_is_bounded(name: str, seed: int) -> None:
    here = world(seed)
    got, true = expected_gradient(build(name), here), objective(here, 0.0)
    assert 0.7 < cosine(got, true) < 1 - 1e-6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cispo", {}),
        ("dppo", {}),
        ("dapo", {}),
        ("gspo", {"normalization": "sequence"}),
        ("sapo", {"normalization": "sequence"}),
    ],
)
def test_on_policy_the_surrogates_have_one_gradient(name: str, options: dict[str, Any]) -> None:
    """They differ in what they do once the policy has moved."""
    here = world(0)
    want = expected_gradient(build("grpo", **options), here)
    torch.testing.assert_close(expected_gradient(build(name), here), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("q", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_max_rl_follows_the_log_likelihood_of_success(size: int, q: float) -> None:
    """Its weight on the gradient of the success rate q is that of ln q, truncated after size - 1 terms."""
    same_group = torch.zeros(size, dtype=torch.int64)
    weight = 0.0
    for successes in range(size + 1):
        rewards = (torch.arange(size) < successes).double()
        advantages = group_advantages(rewards, same_group, same_group == 0, scale="mean")
        score = rewards / q - (1 - rewards) / (1 - q)  # times the gradient of q: the expected gradient of ln p
        chance = math.comb(size, successes) * q**successes * (1 - q) ** (size - successes)
        weight += chance * float((advantages * score).mean())
    assert weight == pytest.approx((1 - (1 - q) ** (size - 1)) / q)
