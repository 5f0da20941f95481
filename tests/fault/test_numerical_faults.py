"""NaN and infinity at each place of an update: counted by cause, no bit changed, and three in a row diagnosed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support.scripted import CASES, PAD, Case, scripted_groups, tiny_policy

from reasonrl.contracts.batch import AdvantageOutput, PolicyEval, StepContext, TrainBatch, UpdateOutput
from reasonrl.contracts.metric_keys import CORE_METRICS, MAX_CONSECUTIVE_SKIPS
from reasonrl.data.collate import collate
from reasonrl.model.policy import PolicyModule
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.numerics import CAUSES, diagnose_skips
from reasonrl.trainer.policy_eval import evaluate_policy
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.update import Updater, UpdateSettings

Inputs = tuple[TrainBatch, PolicyEval, AdvantageOutput]
GROUP_SIZE = 3
ROW = 4  # of the first minibatch of two; scored
BAD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass
class Bench:
    """A real update with AdamW, whose inputs a test may spoil."""

    case: Case
    minibatches: int = 1
    policy: PolicyModule = field(init=False)
    updater: Updater = field(init=False)
    optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        accelerator = Accelerator(cpu=True)
        self.ranks = Ranks(accelerator)
        policy = tiny_policy(self.case, dtype=torch.float32)
        groups = [
            {"params": parameters, "role": role, "lr": 1e-3}
            for role, parameters in zip(("policy", "critic"), policy.parameter_groups(), strict=True)
            if parameters
        ]
        self.policy, self.optimizer = accelerator.prepare(policy, torch.optim.AdamW(groups))
        self.algorithm = AlgorithmCalls(self.case.algorithm(GROUP_SIZE), "algorithm 'case'")
        self.updater = Updater(
            policy=self.policy,
            optimizer=self.optimizer,
            algorithm=self.algorithm,
            needs=self.case.needs,
            settings=UpdateSettings(
                minibatches=self.minibatches,
                update_epochs=1,
                max_tokens_per_microbatch=40,
                max_grad_norm=1.0,
                temperature=1.0,
            ),
            accelerator=accelerator,
            ranks=self.ranks,
        )

    def update(
        self,
        spoil_batch: Callable[[TrainBatch], TrainBatch] = lambda batch: batch,
        spoil: Callable[[Inputs], Inputs] = lambda inputs: inputs,
    ) -> UpdateOutput:
        groups = scripted_groups(4, GROUP_SIZE, unscored=True)
        batch = spoil_batch(collate(groups, pad_id=PAD, device=torch.device("cpu")))
        ctx = StepContext(step=1, total_steps=9, policy_version=0, reduce=self.ranks.reduce)
        needs = replace(self.case.needs, old_for_advantages=True)
        evals = evaluate_policy(
            self.policy,
            self.policy if needs.reference else None,
            batch,
            needs=needs,
            used_once=False,
            temperature=1.0,
            max_tokens=10_000,
            ranks=self.ranks,
        )
        inputs = spoil((batch, evals, self.algorithm.compute_advantages(batch, evals, ctx)))
        return self.updater.update(*inputs, ctx)

    def state(self) -> dict[str, torch.Tensor]:
        """Every parameter and every tensor of the optimizer."""
        found = {name: p.detach().clone() for name, p in self.policy.named_parameters()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            found |= {f"{index}.{key}": torch.as_tensor(value).clone() for key, value in entry.items()}
        return found


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def spoilt(tensor: torch.Tensor | None, batch: TrainBatch, value: float) -> torch.Tensor:
    """One response token of row ``ROW`` becomes ``value``."""
    assert tensor is not None
    changed = tensor.detach().clone()
    changed[ROW, int(batch.response_mask[ROW].nonzero()[0])] = value
    return changed


def in_rewards(value: float) -> dict[str, Any]:
    rows = torch.arange(12) == ROW
    return {"spoil_batch": lambda b: replace(b, rewards=b.rewards.masked_fill(rows, value))}


def in_token_rewards(value: float) -> dict[str, Any]:
    return {
        "spoil_batch": lambda b: replace(
            b, token_rewards=spoilt(torch.zeros_like(b.response_mask, dtype=torch.float32), b, value)
        )
    }


def in_rollout_logprobs(value: float) -> dict[str, Any]:
    return {"spoil_batch": lambda b: replace(b, rollout_logprobs=spoilt(b.rollout_logprobs, b, value))}


def in_evals(name: str) -> Callable[[float], dict[str, Any]]:
    def change(inputs: Inputs, value: float) -> Inputs:
        batch, evals, advantages = inputs
        return batch, replace(evals, **{name: spoilt(getattr(evals, name), batch, value)}), advantages

    return lambda value: {"spoil": lambda inputs: change(inputs, value)}


def in_advantages(name: str) -> Callable[[float], dict[str, Any]]:
    def change(inputs: Inputs, value: float) -> Inputs:
        batch, evals, advantages = inputs
        return batch, evals, replace(advantages, **{name: spoilt(getattr(advantages, name), batch, value)})

    return lambda value: {"spoil": lambda inputs: change(inputs, value)}


PLACES: dict[str, tuple[str, Callable[[float], dict[str, Any]], str]] = {
    "reward": ("grpo", in_rewards, "rewards"),
    "token reward": ("grpo", in_token_rewards, "rewards"),
    "reward of ppo": ("ppo", in_rewards, "rewards"),
    "old log-probability": ("ppo", in_evals("old_logprobs"), "logprobs"),
    "reference": ("grpo_sequence_kl", in_evals("ref_logprobs"), "ref_logprobs"),
    "value": ("ppo", in_evals("values"), "values"),
    "advantage": ("grpo", in_advantages("advantages"), "advantages"),
    "return": ("ppo", in_advantages("returns"), "advantages"),
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("place", PLACES)
def test_a_bad_number_is_counted_and_changes_no_bit(place: str, value: float) -> None:
    name, spoil, key = PLACES[place]
    bench = Bench(CASES[name])
    assert bench.update().num_skipped == 0  # the optimizer has a state to lose
    before = bench.state()
    output = bench.update(**spoil(value))
    assert (output.num_skipped, output.num_consecutive_skips, output.policy_version) == (1, 1, 1)
    assert output.metrics[f"numerics/nonfinite_{key}"] >= 1
    assert same_bits(before, bench.state())
    assert CAUSES[f"numerics/nonfinite_{key}"][0] in diagnose_skips(output.metrics, 3)
    good = bench.update()
    assert (good.num_skipped, good.num_consecutive_skips) == (0, 0)
    assert not same_bits(before, bench.state())
    assert not any(count for metric, count in good.metrics.items() if metric.startswith("numerics/"))


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_a_bad_number_of_the_sampler_is_counted_and_costs_no_step(value: float) -> None:
    """Neither PPO nor GRPO computes with its log-probabilities."""
    clean, dirty = Bench(CASES["grpo"]), Bench(CASES["grpo"])
    clean.update()
    output = dirty.update(**in_rollout_logprobs(value))
    assert (output.num_skipped, output.metrics["numerics/nonfinite_rollout_logprobs"]) == (0, 1.0)
    assert same_bits(clean.state(), dirty.state())


def test_a_bad_weight_shows_in_the_policys_own_log_probabilities() -> None:
    """Also where the clip of the ratio would hide it from the loss."""
    bench = Bench(CASES["grpo"])
    with torch.no_grad():
        next(bench.policy.parameters())[1, 0] = math.nan  # token 1 is in every scripted batch or in none
        next(bench.policy.parameters())[:, 0] = math.nan
    before = bench.state()
    output = bench.update(spoil=lambda i: (i[0], replace(i[1], old_logprobs=None), i[2]))
    assert output.num_skipped == 1
    assert output.metrics["numerics/nonfinite_logprobs"] >= 1
    after = bench.state()
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)
    assert "weights have diverged" in diagnose_skips(output.metrics, 3)


def test_only_the_minibatch_with_the_bad_number_is_left_out() -> None:
    both, alone = Bench(CASES["grpo"], minibatches=2), Bench(CASES["grpo"], minibatches=2)
    output = both.update(**in_rewards(math.nan))
    assert (output.num_skipped, output.num_consecutive_skips, output.policy_version) == (1, 0, 1)
    assert output.metrics["numerics/nonfinite_rewards"] == 1.0
    assert math.isfinite(output.metrics["loss/total"])
    assert alone.update().num_skipped == 0


def test_what_no_one_looks_at_may_be_anything() -> None:
    """Rewards of unscored rows and positions outside the masks."""
    clean, dirty = Bench(CASES["ppo"]), Bench(CASES["ppo"])

    def spoil_batch(batch: TrainBatch) -> TrainBatch:
        assert batch.rollout_logprobs is not None
        return replace(
            batch,
            rewards=batch.rewards.masked_fill(~batch.scored, math.nan),
            rollout_logprobs=batch.rollout_logprobs.masked_fill(~batch.response_mask, math.inf),
        )

    clean.update()
    assert dirty.update(spoil_batch=spoil_batch).num_skipped == 0
    assert same_bits(clean.state(), dirty.state())


def test_three_in_a_row_over_several_batches_are_stuck() -> None:
    bench = Bench(CASES["grpo"])
    outputs = [bench.update(**in_rewards(math.inf)) for _ in range(MAX_CONSECUTIVE_SKIPS)]
    assert [output.num_consecutive_skips for output in outputs] == [1, 2, 3]
    text = diagnose_skips(outputs[-1].metrics, 3)
    assert text.startswith("3 updates in a row were skipped: rewards came out NaN or infinite first")
    assert "numerics/nonfinite_rewards = 1 in the last step" in text
    assert "\n" not in text


def test_the_count_of_skips_can_be_put_back() -> None:
    bench = Bench(CASES["grpo"])
    bench.updater.guard.consecutive_skips = 2
    assert bench.update(**in_rewards(math.nan)).num_consecutive_skips == 3


def test_the_diagnosis_names_the_first_cause_in_the_order_of_effects() -> None:
    for position, key in enumerate(CAUSES):
        metrics = dict.fromkeys(list(CAUSES)[position:], 2.0)
        assert CAUSES[key][0] in diagnose_skips(metrics, 3)
    assert "something came out NaN" in diagnose_skips({}, 3)


def test_every_count_is_declared() -> None:
    assert set(CAUSES) <= {definition.key for definition in CORE_METRICS}
