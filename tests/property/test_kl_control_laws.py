"""The adaptive KL coefficient against its paper, and the algorithms that use it."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.kl import adapted

from reasonrl import AlgorithmContext, AlgorithmSpec, SamplingParams
from reasonrl.functional.kl_control import KLCoefficient, adapt_kl_coef
from reasonrl.plugins import load_plugins
from reasonrl.testing.batches import random_case, run

COEF = st.floats(1e-6, 1e3)
TARGET = st.floats(1e-6, 10.0)
HORIZON = st.floats(1.0, 1e4)
KLS = st.lists(st.floats(-1.0, 100.0), max_size=30)
PLUGINS = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
NAMES = sorted(name for kind, name in PLUGINS.provided if kind == "algorithm")


@given(COEF, KLS, TARGET, HORIZON)
def test_it_agrees_with_the_oracle(coef: float, kls: list[float], target: float, horizon: float) -> None:
    found = [coef]
    for kl in kls:
        found.append(adapt_kl_coef(found[-1], kl, target=target, horizon=horizon))
    assert found == pytest.approx(adapted(coef, kls, target, 1 / horizon), rel=1e-12)
    assert all(0.8 * (1 - 1e-12) <= after / before <= 1.2 * (1 + 1e-12) for before, after in pairwise(found))


@given(COEF, TARGET, HORIZON, st.floats(1e-3, 0.5))
def test_it_moves_against_the_error(coef: float, target: float, horizon: float, error: float) -> None:
    assert adapt_kl_coef(coef, target, target=target, horizon=horizon) == coef
    assert adapt_kl_coef(coef, target * (1 + error), target=target, horizon=horizon) > coef
    assert adapt_kl_coef(coef, target * (1 - error), target=target, horizon=horizon) < coef


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_a_kl_that_is_not_finite_changes_nothing(measured: float) -> None:
    assert adapt_kl_coef(0.3, measured, target=0.1, horizon=10.0) == 0.3


@given(st.floats(0.01, 10.0), st.floats(0.01, 10.0))
def test_it_finds_the_coefficient_of_its_target(coef: float, wanted: float) -> None:
    """Where the KL falls with the coefficient as 1 / coef, it settles where the KL is the target."""
    for _ in range(2000):
        coef = adapt_kl_coef(coef, 0.05 * wanted / coef, target=0.05, horizon=10.0)
    assert coef == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(("placement", "key"), [("reward", "policy/kl_ref_k1"), ("loss", "policy/kl_ref_k3")])
def test_it_reads_the_metric_of_its_placement(placement: Any, key: str) -> None:
    control = KLCoefficient(1.0, target=0.1, horizon=10.0, placement=placement)
    control.after_step({})
    assert control.value == 1.0, "a skipped step has measured nothing"
    control.after_step({"policy/kl_ref_k1": 0.0, "policy/kl_ref_k3": 0.0} | {key: 9.0})
    assert control.value == 1.02
    constant = KLCoefficient(1.0, target=None, horizon=10.0, placement=placement)
    constant.after_step({key: 9.0})
    assert (constant.value, constant.state_dict(), constant.metrics) == (1.0, {}, {})


@given(COEF, KLS, KLS)
def test_it_continues_where_it_was(coef: float, before: list[float], after: list[float]) -> None:
    one, other = (KLCoefficient(c, target=0.05, horizon=10.0, placement="loss") for c in (coef, 1.0))
    for kl in before:
        one.after_step({"policy/kl_ref_k3": kl})
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for kl in after:
        one.after_step({"policy/kl_ref_k3": kl})
        other.after_step({"policy/kl_ref_k3": kl})
    assert one.value == other.value


def build(name: str, kl: dict[str, Any]) -> tuple[Any, Any]:
    """The algorithm and its needs."""
    spec = PLUGINS.get("algorithm", name)
    assert isinstance(spec, AlgorithmSpec)
    config: Any = spec.config()
    config = type(config)(kl=type(config.kl)(**kl))
    context = AlgorithmContext(sampling=SamplingParams(), group_size=4, total_steps=10)
    return PLUGINS.build(spec, config, context), spec.needs(config)


@pytest.mark.parametrize("placement", ["reward", "loss"])
@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_uses_the_coefficient_in_force(name: str, placement: str) -> None:
    """After two steps over the target it computes as one that was started with the larger coefficient."""
    where = {"placement": placement, "estimator": "k1" if placement == "reward" else "k3"}
    adaptive, needs = build(name, {"coef": 0.5, "target": 0.01, "horizon": 1.0, **where})
    for _ in range(2):
        adaptive.after_step({"policy/kl_ref_k1": 1.0, "policy/kl_ref_k3": 1.0})
    larger, _ = build(name, {"coef": 0.5 * 1.2 * 1.2, **where})
    original, _ = build(name, {"coef": 0.5, **where})
    case = random_case(needs, group_size=4)
    one, same, other = (run(algorithm, case, needs) for algorithm in (adaptive, larger, original))
    torch.testing.assert_close(one.by_logprobs, same.by_logprobs)
    assert not torch.allclose(one.by_logprobs, other.by_logprobs)
    assert float(one.metrics["policy/kl_coef"].value) == pytest.approx(0.72)
    assert "policy/kl_coef" not in same.metrics


def test_there_are_algorithms() -> None:
    assert {"ppo", "grpo", "dapo", "rloo"} <= set(NAMES)


def test_only_an_adaptive_coefficient_has_state_and_a_metric() -> None:
    for target, state, metrics in ((None, {}, {}), (0.1, {"kl_coef": 0.3}, {"policy/kl_coef": 0.3})):
        control = KLCoefficient(0.3, target=target, horizon=10.0, placement="loss")
        assert control.state_dict() == state
        assert {key: metric.value for key, metric in control.metrics.items()} == metrics
        control.load_state_dict({})
        assert control.value == 0.3
        control.load_state_dict({"kl_coef": 0.7})
        assert control.value == 0.7
