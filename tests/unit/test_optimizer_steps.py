"""Gradient accumulation and the guarded optimizer step, each alone."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reasonrl.contracts.metric_keys import MAX_CONSECUTIVE_SKIPS
from reasonrl.trainer.microbatch import Microbatch, accumulate_gradients
from reasonrl.trainer.optim import GuardedOptimizer, set_learning_rate


class Recorder:
    """An accelerator that records which backward passes run without synchronization."""

    def __init__(self) -> None:
        self.is_synced, self.backward_passes = True, list[bool]()

    @contextmanager
    def no_sync(self, module: nn.Module) -> Iterator[None]:
        self.is_synced = False
        yield
        self.is_synced = True

    def backward(self, loss: Tensor) -> None:
        self.backward_passes.append(self.is_synced)
        loss.backward()


def accumulate(plan: list[list[int]], *, ranks: int, most: int) -> tuple[Recorder, list[Microbatch], nn.Linear, float]:
    """``most``: micro-batches of the rank that has most."""
    recorder, seen, policy = Recorder(), list[Microbatch](), nn.Linear(1, 1, bias=False).eval()

    def compute_loss(micro: Microbatch) -> Tensor:
        assert policy.training
        seen.append(micro)
        return policy.weight.sum() * (0.0 if micro.is_dummy else float(len(micro.rows)))

    total = accumulate_gradients(
        policy,
        plan,
        compute_loss,
        spare_row=7,
        accelerator=recorder,  # type: ignore[arg-type]
        ranks=SimpleNamespace(size=ranks, max=lambda mine: max(mine, most)),  # type: ignore[arg-type]
    )
    assert not policy.training
    return recorder, seen, policy, total


def test_ranks_synchronize_in_their_last_backward_pass_only() -> None:
    recorder, seen, policy, total = accumulate([[0, 1], [2]], ranks=2, most=4)
    assert recorder.backward_passes == [False, False, False, True]
    assert [(list(micro.rows), micro.position, micro.is_dummy) for micro in seen] == [
        ([0, 1], 0, False),
        ([2], 1, False),
        ([7], 2, True),
        ([7], 3, True),
    ]
    assert total == pytest.approx(3 * policy.weight.item())
    assert policy.weight.grad is not None
    assert float(policy.weight.grad) == 6.0, "the launcher averages over two ranks"


def test_one_rank_synchronizes_always_and_runs_at_least_once() -> None:
    assert accumulate([[0], [1], [2]], ranks=1, most=0)[0].backward_passes == [True, True, True]
    recorder, seen, policy, total = accumulate([], ranks=1, most=0)
    assert recorder.backward_passes == [True]
    assert [(list(micro.rows), micro.is_dummy) for micro in seen] == [([7], True)]
    assert total == 0.0
    assert policy.weight.grad is not None


def guarded(gradients: dict[str, float], max_norm: float = 1.0) -> tuple[GuardedOptimizer, dict[str, nn.Parameter]]:
    parameters = {role: nn.Parameter(torch.ones(2)) for role in gradients}
    groups: list[dict[str, Any]] = [
        {"params": [parameters[role]], "role": role, "base_lr": 0.5, "lr": 0.5} for role in gradients
    ]
    for role, value in gradients.items():
        parameters[role].grad = torch.tensor([value, 0.0])
    return GuardedOptimizer(torch.optim.SGD(groups), max_norm), parameters


def test_each_role_is_clipped_by_its_own_norm() -> None:
    guard, parameters = guarded({"policy": 4.0, "critic": 0.25})
    result = guard.step(is_finite=True)
    assert result.norms == {"policy": 4.0, "critic": 0.25}
    assert (result.is_taken, result.has_finite_gradient) == (True, True)
    assert parameters["policy"].tolist() == pytest.approx([0.5, 1.0], abs=1e-5)
    assert parameters["critic"].tolist() == pytest.approx([0.875, 1.0])
    assert [p.grad for p in parameters.values()] == [None, None]
    assert (guard.begun, guard.consecutive_skips) == (1, 0)


@pytest.mark.parametrize(
    ("gradient", "is_finite"), [(1.0, False), (math.nan, True), (math.inf, True), (math.nan, False)]
)
def test_a_step_that_is_not_finite_is_skipped(gradient: float, is_finite: bool) -> None:
    guard, parameters = guarded({"policy": 1.0, "critic": gradient})
    result = guard.step(is_finite=is_finite)
    assert not result.is_taken
    assert result.has_finite_gradient == math.isfinite(gradient)
    assert all(p.tolist() == [1.0, 1.0] and p.grad is None for p in parameters.values())
    assert (guard.begun, guard.consecutive_skips) == (0, 1)


def test_a_frozen_role_keeps_its_parameters_and_has_no_norm() -> None:
    guard, parameters = guarded({"policy": math.nan, "critic": 0.5})
    result = guard.step(is_finite=True, frozen=("policy",))
    assert (result.is_taken, set(result.norms)) == (True, {"critic"})
    assert parameters["policy"].tolist() == [1.0, 1.0]
    assert parameters["critic"].tolist() != [1.0, 1.0]


def test_it_is_stuck_after_so_many_skips_in_a_row_and_a_step_begins_anew() -> None:
    guard, parameters = guarded({"policy": 1.0})
    for skips in range(1, MAX_CONSECUTIVE_SKIPS + 1):
        assert not guard.is_stuck
        guard.skip()
        assert guard.consecutive_skips == skips
    assert guard.is_stuck
    parameters["policy"].grad = torch.ones(2)
    assert guard.step(is_finite=True).is_taken
    assert (guard.is_stuck, guard.consecutive_skips) == (False, 0)


def test_an_optimizer_that_raises_leaves_no_half_state() -> None:
    guard, parameters = guarded({"policy": 1.0, "critic": 1.0})
    optimizer = guard._optimizer
    optimizer.state[parameters["policy"]] = {"kept": torch.ones(1)}

    def fail() -> None:
        optimizer.state[parameters["critic"]] = {"half": torch.ones(1)}
        raise MemoryError

    optimizer.step = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(MemoryError):
        guard.step(is_finite=True)
    assert list(optimizer.state) == [parameters["policy"]]
    assert guard.begun == 1


def test_the_learning_rate_of_every_group_is_scaled() -> None:
    guard, _ = guarded({"policy": 1.0, "critic": 1.0})
    set_learning_rate(guard._optimizer, 0.1)
    assert [group["lr"] for group in guard._optimizer.param_groups] == pytest.approx([0.05, 0.05])
