"""PPO: agreement with the oracle, and what its loss and gradients must not depend on."""

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ppo as oracle
from reference.kl import divergence, reverse_gradient
from reference.token_batches import (
    CONTEXT,
    Layout,
    Outcome,
    assert_same,
    loss_input,
    on_first_pass,
    random_rows,
    run,
    tensors,
)

from reasonrl import AlgorithmContext, SamplingParams
from reasonrl.contracts.batch import LossInput, LossNormalizer, Reduce, StepContext
from reasonrl.functional.logprobs import logprobs_and_entropy
from reasonrl_ppo.algorithm import PPO
from reasonrl_ppo.config import KLConfig, PPOConfig

EXAMPLES = settings(max_examples=25)
CONFIGS = st.sampled_from(
    [
        PPOConfig(),
        PPOConfig(clip_eps_high=0.28, value_clip=None, value_coef=0.5, gamma=0.9, lam=0.8, entropy_coef=0.01),
        PPOConfig(lam=0.0, whiten=False, kl=KLConfig(coef=0.3)),
        PPOConfig(gamma=0.95, value_clip=0.2, kl=KLConfig(coef=0.2, estimator="k2", placement="loss")),
        PPOConfig(critic_lam=1.0, lam_alpha=0.4, dual_clip=1.1),
        PPOConfig(gamma=0.9, lam=0.5, critic_lam=0.0, dual_clip=1.5, clip_eps_high=0.9),
        PPOConfig(lam=0.9, entropy_coef=0.02, kl=KLConfig(coef=0.2, estimator="k3", placement="loss")),
    ]
)
SEEDS = st.integers(0, 10_000)


def build(config: PPOConfig) -> PPO:
    return PPO(config, AlgorithmContext(sampling=SamplingParams(), group_size=1, total_steps=10))


def expected(rows: dict, config: PPOConfig) -> tuple[oracle.Gradients, list, list]:
    in_reward = config.kl.placement == "reward"
    adv, ret = oracle.advantages(
        rows,
        config.gamma,
        config.lam,
        config.kl.coef if in_reward else 0.0,
        critic_lam=config.critic_lam,
        alpha=config.lam_alpha,
    )
    if config.whiten:
        adv = oracle.whiten(adv, rows["mask"])
    options = {
        "low": config.clip_eps,
        "high": config.eps_high,
        "dual": config.dual_clip,
        "value_clip": config.value_clip,
        "value_coef": config.value_coef,
        "entropy_coef": config.entropy_coef,
        "loss_kl": 0.0 if in_reward else config.kl.coef,
        "estimator": config.kl.estimator,
    }
    return oracle.loss(rows, adv, ret, options), adv, ret


@EXAMPLES
@given(SEEDS, CONFIGS, st.sampled_from([(torch.float64, 1e-9), (torch.float32, 1e-4)]))
def test_ppo_agrees_with_the_oracle(seed: int, config: PPOConfig, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    rows = random_rows(seed)
    got = run(build(config), rows, Layout(dtype=dtype))
    want, advantages, returns = expected(rows, config)
    close = {"rtol": tolerance, "atol": tolerance / 10}
    np.testing.assert_allclose(got.advantages, advantages, **close)
    np.testing.assert_allclose(got.returns, returns, **close)
    np.testing.assert_allclose(got.loss, want.loss, **close)
    np.testing.assert_allclose(got.gradients["logprobs"], want.logprobs, **close)
    np.testing.assert_allclose(got.gradients["values"], want.values, **close)
    np.testing.assert_allclose(got.gradients["entropy"], want.entropy, **close)


@EXAMPLES
@given(SEEDS, CONFIGS, st.data())
def test_ppo_ignores_layout_and_split(seed: int, config: PPOConfig, data: st.DataObject) -> None:
    rows = random_rows(seed)
    order = tuple(data.draw(st.permutations(range(6))))
    splits = data.draw(st.sampled_from([(1,) * 6, (2, 4), (3, 3), (5, 1)]))
    columns = data.draw(st.integers(0, 3))
    junk = data.draw(st.sampled_from([0.0, 100.0, math.nan, math.inf, -math.inf]))
    for dtype, rtol, atol in ((torch.float64, 1e-9, 1e-12), (torch.float32, 1e-4, 1e-5)):
        plain = run(build(config), rows, Layout(dtype=dtype))
        other = Layout(dtype=dtype, order=order, extra_columns=columns, junk=junk, splits=splits)
        assert_same(run(build(config), rows, other), plain, rtol=rtol, atol=atol)


@EXAMPLES
@given(SEEDS, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_ppo_gradients_are_zero_outside_the_response(seed: int, junk: float) -> None:
    config = PPOConfig(entropy_coef=0.1, kl=KLConfig(coef=0.2, estimator="k3", placement="loss"))
    rows = random_rows(seed)
    outside = ~np.array(rows["mask"])
    got = run(build(config), rows, Layout(junk=junk))
    for gradient in got.gradients.values():
        assert (gradient[outside] == 0).all()
    assert (got.advantages[outside] == 0).all()
    assert (got.returns[outside] == 0).all()


@EXAMPLES
@given(SEEDS)
def test_ppo_first_pass_is_reinforce(seed: int) -> None:
    rows = on_first_pass(random_rows(seed))
    got = run(build(PPOConfig()), rows)
    num_tokens = np.array(rows["mask"]).sum()
    assert got.metrics["policy/clip_frac"] == 0
    assert got.metrics["policy/ratio_max"] == 1
    assert got.metrics["policy/kl_old_k3"] == 0
    np.testing.assert_allclose(got.gradients["logprobs"], -got.advantages / num_tokens, rtol=1e-12)


@EXAMPLES
@given(SEEDS)
def test_ppo_truncation_keeps_the_real_reward(seed: int) -> None:
    rows = random_rows(seed)
    cut = run(build(PPOConfig()), {**rows, "truncated": [True] * 6})
    assert_same(cut, run(build(PPOConfig()), {**rows, "truncated": [False] * 6}), rtol=0, atol=0)


@EXAMPLES
@given(SEEDS)
def test_ppo_unscored_rows_change_nothing(seed: int) -> None:
    rows = random_rows(seed)
    gone = [i for i, scored in enumerate(rows["scored"]) if not scored]
    kept = [i for i in range(6) if i not in gone]
    without = {name: [column[i] for i in kept] for name, column in rows.items()}
    got = run(
        build(PPOConfig()),
        {
            **rows,
            "rewards": [r if s else math.nan for r, s in zip(rows["rewards"], rows["scored"], strict=True)],
        },
    )
    alone = run(build(PPOConfig()), without)
    np.testing.assert_allclose(got.loss, alone.loss, rtol=1e-12)
    np.testing.assert_allclose(got.gradients["logprobs"][kept], alone.gradients["logprobs"], rtol=1e-9, atol=1e-14)
    assert not got.contributes[gone].any()
    assert got.contributes[kept].all()


@EXAMPLES
@given(SEEDS)
def test_ppo_whitens_over_all_ranks(seed: int) -> None:
    """Two ranks that add their sums up give what one process gives on all rows."""
    rows = random_rows(seed)
    config = PPOConfig(kl=KLConfig(coef=0.1))
    whole = run(build(config), rows)
    outputs = _on_two_ranks(config, rows, [0, 1, 2, 3], [4, 5])
    got = np.concatenate([o.advantages for o in outputs])
    np.testing.assert_allclose(got, whole.advantages, rtol=1e-9, atol=1e-12)
    key = "critic/explained_variance"
    for output in outputs:
        assert (key in output.metrics) == (key in whole.metrics)
        if key in whole.metrics:
            np.testing.assert_allclose(output.metrics[key], whole.metrics[key], rtol=1e-9)


def _on_two_ranks(config: PPOConfig, rows: dict, *shards: list[int]) -> list[Outcome]:
    barrier = threading.Barrier(len(shards), timeout=10)
    posted: list = [None] * len(shards)
    outputs: list = [None] * len(shards)

    def work(rank: int) -> None:
        def add_up(x: torch.Tensor) -> torch.Tensor:
            posted[rank] = x
            barrier.wait()
            total = sum(posted)
            barrier.wait()
            return total

        context = StepContext(step=1, total_steps=10, policy_version=0, reduce=Reduce(sum=add_up))
        mine = {name: [column[i] for i in shards[rank]] for name, column in rows.items()}
        outputs[rank] = run(build(config), mine, context=context)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shards))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outputs


@pytest.mark.parametrize(
    "kl",
    [KLConfig(coef=0.7), KLConfig(coef=0.7, estimator="k2", placement="loss")],
    ids=["k1-reward", "k2-loss"],
)
def test_ppo_kl_has_the_reverse_gradient(kl: KLConfig) -> None:
    """Rows 0, 0, 1, 2 are the distribution (1/2, 1/4, 1/4) exactly: the batch is the expectation."""
    logits = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)], dtype=torch.float64, requires_grad=True)
    reference = [0.2, 0.5, 0.3]
    tokens = torch.tensor([0, 0, 1, 2])
    logprobs = torch.log_softmax(logits, -1)[tokens]
    rows = random_rows(0, groups=4, group_size=1, max_prompt=1, max_response=1)
    rows |= {
        "mask": [[False, True]] * 4,
        "scored": [True] * 4,
        "rewards": [0.0] * 4,
        "token_rewards": [[0.0, 0.0]] * 4,
        "old_values": [[0.0, 0.0]] * 4,
        "old_logprobs": [[0.0, x] for x in logprobs.tolist()],
        "ref_logprobs": [[0.0, math.log(reference[k])] for k in tokens],
    }
    algorithm = build(PPOConfig(kl=kl, whiten=False, value_clip=None, value_coef=1e-9))
    batch, evals, leaves = tensors(rows, Layout(), range(4))
    output = algorithm.compute_advantages(batch, evals, CONTEXT)
    padded = torch.nn.functional.pad(logprobs[:, None], (1, 0))
    inputs = LossInput(
        logprobs=padded, entropy=None, values=leaves["values"], batch=batch, evals=evals, advantages=output
    )
    algorithm.compute_loss(inputs, LossNormalizer(num_response_tokens=4, num_sequences=4), CONTEXT).loss.backward()
    want = [0.7 * g for g in reverse_gradient(logits.tolist(), reference)]
    np.testing.assert_allclose(logits.grad, want, rtol=1e-9, atol=1e-12)
    if kl.placement == "reward":
        paid = output.metrics["policy/kl_ref_k1"]
        np.testing.assert_allclose(paid.value / paid.weight, divergence([0.5, 0.25, 0.25], reference), rtol=1e-12)


@EXAMPLES
@given(SEEDS, st.sampled_from([(6,), (1,) * 6, (2, 4)]), st.sampled_from([math.nan, math.inf]))
def test_ppo_gradients_by_logits(seed: int, splits: tuple[int, ...], junk: float) -> None:
    """Chunked, split and with junk outside the response: the same as plain autograd in one piece."""
    rows = random_rows(seed)
    mask = torch.tensor(rows["mask"])
    clean = torch.randn(*mask.shape, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ids = torch.randint(5, mask.shape, generator=torch.Generator().manual_seed(seed + 1))
    whole = clean.clone().requires_grad_()
    everything = torch.log_softmax(whole / 0.8, -1)
    entropy = -(everything.exp() * everything).sum(-1)
    _loss_of(rows, everything.gather(-1, ids[..., None]).squeeze(-1), entropy, (6,)).backward()

    leaf = clean.masked_fill(~mask[..., None], junk).requires_grad_()
    flat, flat_entropy = logprobs_and_entropy(leaf[mask], ids[mask], temperature=0.8, entropy="grad", chunk_size=2)
    empty = torch.zeros(mask.shape, dtype=torch.float64)
    _loss_of(rows, empty.masked_scatter(mask, flat), empty.masked_scatter(mask, flat_entropy), splits).backward()
    torch.testing.assert_close(leaf.grad, whole.grad, rtol=1e-9, atol=1e-12)


def _loss_of(rows: dict, logprobs: torch.Tensor, entropy: torch.Tensor, splits: tuple[int, ...]) -> torch.Tensor:
    """The summed shares, first pass with a perturbed old policy."""
    old = logprobs.detach() + torch.tensor(rows["old_logprobs"], dtype=torch.float64).clamp(min=-1) / 3
    rows = {**rows, "old_logprobs": old.nan_to_num(0.0).tolist()}
    kl = KLConfig(coef=0.2, estimator="k3", placement="loss")
    algorithm = build(PPOConfig(entropy_coef=0.1, kl=kl))
    batch, evals, leaves = tensors(rows, Layout(), range(6))
    output = algorithm.compute_advantages(batch, evals, CONTEXT)
    leaves |= {"logprobs": logprobs, "entropy": entropy}
    mask = batch.response_mask
    normalizer = LossNormalizer(num_response_tokens=float(mask.sum()), num_sequences=1.0)
    shares, start = [], 0
    for size in splits:
        picked = torch.arange(start, start + size)
        inputs = loss_input(batch, evals, leaves, output, picked, mask.shape[1])
        shares.append(algorithm.compute_loss(inputs, normalizer, CONTEXT).loss)
        start += size
    return torch.stack(shares).sum()
