"""Partial results of micro-batches and ranks: a mean of sums, never a mean of means."""

import math

import pytest
import torch
from accelerate import Accelerator

from reasonrl import Metric, MetricDef
from reasonrl.contracts.metric_keys import CORE_METRICS, POLICY_METRICS, find_metric
from reasonrl.contracts.metrics import combine, mean, resolve
from reasonrl.trainer.ranks import Ranks

NAN = float("nan")


def reduced(*metrics: Metric) -> float:
    return resolve(combine({"m": metric} for metric in metrics))["m"]


def test_a_mean_is_over_items_not_over_parts() -> None:
    assert reduced(mean(1.0, 1), mean(9.0, 9 * 3)) == pytest.approx(10 / 28)
    assert reduced(mean(3.0, 1), mean(0.0, 0)) == 3.0


def test_sums_and_maxima() -> None:
    assert reduced(Metric(2.0, 1.0, "sum"), Metric(3.0, 5.0, "sum")) == 5.0
    assert reduced(Metric(2.0, 1.0, "max"), Metric(3.0, 1.0, "max"), Metric(-1.0, 1.0, "max")) == 3.0
    assert reduced(Metric(0.0, 0.0, "sum")) == 0.0


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("tensors", [False, True])
def test_a_maximum_keeps_a_nan_wherever_it_stands(position: int, tensors: bool) -> None:
    values = [1.0, 2.0]
    values.insert(position, NAN)
    parts = [Metric(torch.tensor(v) if tensors else v, 1.0, "max") for v in values]
    assert math.isnan(reduced(*parts))


def test_a_nan_in_a_mean_is_seen() -> None:
    assert math.isnan(reduced(mean(NAN, 2), mean(1.0, 2)))


def test_a_mean_over_nothing_is_left_out() -> None:
    assert resolve({"a": mean(0.0, 0), "b": mean(1.0, 2)}) == {"b": 0.5}


def test_two_reductions_of_one_key_are_a_bug() -> None:
    with pytest.raises(ValueError, match="one metric key with two reductions: mean and max"):
        reduced(mean(1.0, 1), Metric(1.0, 1.0, "max"))


def test_keys_that_only_some_parts_have_stay() -> None:
    assert resolve(combine([{"a": mean(1.0, 1)}, {"b": mean(2.0, 1)}, {"a": mean(3.0, 1)}])) == {
        "a": 2.0,
        "b": 2.0,
    }


def test_a_process_resolves_tensors_to_plain_numbers() -> None:
    ranks = Ranks(Accelerator(cpu=True))
    parts = [
        {"a": mean(torch.tensor(1.0), torch.tensor(2)), "m": Metric(torch.tensor(4.0), 1.0, "max")},
        {"a": mean(torch.tensor(2.0), 4)},
    ]
    out = ranks.resolve(parts)
    assert out == {"a": 0.5, "m": 4.0}
    assert {type(v) for v in out.values()} == {float}
    assert ranks.sums([1, 2.5]) == [1.0, 2.5]
    assert ranks.max(3) == 3
    assert ranks.gather(["x"]) == ["x"]
    assert ranks.broadcast("x") == "x"


@pytest.mark.parametrize(
    ("key", "declared"),
    [
        ("train/reward", "train/reward"),
        ("eval/held_out/accuracy", "eval/<suite>/accuracy"),
        ("eval/held_out/pass@8", "eval/<suite>/pass@<k>"),
        ("eval/held_out/maj@", None),
        ("reward/detail/countdown/depth", "reward/detail/<reward>/<detail>"),
        ("reward/component/x", "reward/component/<reward>"),
        ("reward/detail/countdown", None),
        ("reward/detail/a/b/c", None),
        ("eval/held_out/accurate", None),
        ("train/rewards", None),
        ("", None),
    ],
)
def test_finding_a_declaration(key: str, declared: str | None) -> None:
    found = find_metric(key, CORE_METRICS)
    assert (found.key if found else None) == declared


def test_only_a_bracketed_word_stands_for_a_part() -> None:
    half = MetricDef(key="a/<b", unit="1", meaning="")
    assert find_metric("a/x", [half]) is None
    assert find_metric("a/<b", [half]) is half


def test_every_key_is_declared_once_with_unit_and_meaning() -> None:
    declared = [*CORE_METRICS, *POLICY_METRICS]
    assert len({d.key for d in declared}) == len(declared)
    assert all(d.unit and d.meaning.endswith(".") for d in declared)
