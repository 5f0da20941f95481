"""Conformance of algorithms: invariance to masks, padding, order and micro-batches; and learning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from reasonrl.contracts.batch import AdvantageOutput
from reasonrl.contracts.data import SamplingParams
from reasonrl.contracts.metric_keys import find_metric
from reasonrl.contracts.metrics import Metric, mean, resolve
from reasonrl.contracts.protocols import Algorithm, AlgorithmContext
from reasonrl.contracts.specs import AlgorithmSpec, Needs
from reasonrl.errors import one_line
from reasonrl.plugins import Plugins
from reasonrl.testing.bandit import probability_of_the_best
from reasonrl.testing.batches import Case, Outcome, advantages_of, moved, normalizer_of, random_case, run
from reasonrl.testing.checks import CheckError, CheckResult, Checks, Conformance, NotApplicableError, add_tests, require
from reasonrl.testing.devices import FakeGPU
from reasonrl.testing.subjects import Subject, add_common, find

LEARNED = 0.8
"""Probability of the best of three arms that counts as learned; it starts at 1/3."""


@dataclass(kw_only=True)
class AlgorithmSubject(Subject):
    """An algorithm and a random batch for it."""

    spec: AlgorithmSpec

    @cached_property
    def needs(self) -> Needs:
        return self.spec.needs(self.config)

    @property
    def group_size(self) -> int:
        return max(4, self.needs.min_group_size)

    def new(self) -> Algorithm:
        context = AlgorithmContext(sampling=SamplingParams(), group_size=self.group_size, total_steps=10)
        return self.make(context)

    def case(self, padding: int = 0) -> Case:
        return random_case(self.needs, group_size=self.group_size, padding=padding)

    def run(self, case: Case, advantages: AdvantageOutput | None = None) -> Outcome:
        return run(self.new(), case, self.needs, advantages=advantages)


checks: Checks[AlgorithmSubject] = Checks()
add_common(checks)


@checks("defaults_are_valid")
def needs_are_stated(subject: AlgorithmSubject) -> None:
    """``needs(config)`` returns Needs."""
    needs = subject.needs
    require(isinstance(needs, Needs), f"needs(config) returned {type(needs).__name__}, expected Needs")
    require(needs.min_group_size >= 1, f"min_group_size is {needs.min_group_size}")


@checks("needs_are_stated")
def is_built(subject: AlgorithmSubject) -> None:
    """``factory(config, context)`` returns an object with ``compute_advantages`` and ``compute_loss``."""
    algorithm = subject.new()
    name = type(algorithm).__name__
    require(isinstance(algorithm, Algorithm), f"{name} lacks compute_advantages or compute_loss")


@checks("is_built")
def asks_only_for_what_it_declared(subject: AlgorithmSubject) -> None:
    """It computes advantages and a loss from the evaluations declared in ``needs`` alone."""
    case = subject.case()
    algorithm = subject.new()
    advantages = advantages_of(algorithm, case, subject.needs)
    got = type(advantages).__name__
    require(isinstance(advantages, AdvantageOutput), f"compute_advantages returned {got}")
    outcome = run(algorithm, case, subject.needs)
    require(isinstance(outcome.loss, Tensor), f"the loss is {type(outcome.loss).__name__}, expected a tensor")


@checks("asks_only_for_what_it_declared")
def advantages_are_well_formed(subject: AlgorithmSubject) -> None:
    """Advantages and returns are ``[B, T]``, finite, detached, and 0 outside ``response_mask``."""
    case = subject.case()
    output = advantages_of(subject.new(), case, subject.needs)
    mask = case.batch.response_mask
    for name, tensor in (("advantages", output.advantages), ("returns", output.returns)):
        if tensor is None and name == "returns":
            continue
        shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        require(shape == list(mask.shape), f"{name}: got {shape}, expected a tensor {list(mask.shape)}")
        assert tensor is not None
        require(not tensor.requires_grad, f"{name} have a gradient; detach them")
        require(bool(tensor.isfinite().all()), f"{name} are not all finite")
        require(not tensor[~mask].any(), f"{name} are not 0 outside response_mask")


@checks("advantages_are_well_formed")
def the_loss_is_a_finite_scalar(subject: AlgorithmSubject) -> None:
    """The loss is a finite scalar with a gradient."""
    loss = subject.run(subject.case()).loss
    require(loss.ndim == 0, f"the loss has shape {list(loss.shape)}, expected a scalar")
    require(bool(loss.isfinite()), f"the loss is {loss.item()}")
    require(loss.requires_grad, "the loss has no gradient; check for detached tensors")


@checks("the_loss_is_a_finite_scalar")
def gradients_are_finite(subject: AlgorithmSubject) -> None:
    """Gradients with respect to log-probabilities and values are finite, and one is nonzero."""
    outcome = subject.run(subject.case())
    parts = [g for g in (outcome.by_logprobs, outcome.by_values) if g is not None]
    require(all(bool(g.isfinite().all()) for g in parts), "a gradient is not finite")
    require(bool(outcome.by_logprobs.any()), "the gradient of every log-probability is 0, so nothing is learned")


@checks("gradients_are_finite")
def what_is_masked_does_not_matter(subject: AlgorithmSubject) -> None:
    """Values outside ``response_mask``, NaN included, change neither loss nor gradient."""
    case = subject.case()
    _require_equal(subject.run(case), subject.run(case.fill_outside(math.nan)), "with NaN outside the mask")
    _require_equal(subject.run(case), subject.run(case.fill_outside(1e4)), "with 10000 outside the mask")


@checks("gradients_are_finite")
def padding_does_not_matter(subject: AlgorithmSubject) -> None:
    """Five more columns of padding change nothing."""
    case = subject.case()
    width = case.batch.input_ids.shape[1]
    wide = subject.run(subject.case(padding=5))
    narrow = replace(
        wide,
        by_logprobs=wide.by_logprobs[:, :width],
        by_values=None if wide.by_values is None else wide.by_values[:, :width],
    )
    _require_equal(subject.run(case), narrow, "with five columns of padding")


@checks("gradients_are_finite")
def row_order_does_not_matter(subject: AlgorithmSubject) -> None:
    """Permuting rows keeps the loss and permutes the gradients."""
    case = subject.case()
    rows = torch.randperm(case.batch.num_rows, generator=torch.Generator().manual_seed(5))
    moved = subject.run(case.select(rows))
    back = torch.argsort(rows)
    values = None if moved.by_values is None else moved.by_values[back]
    again = replace(moved, by_logprobs=moved.by_logprobs[back], by_values=values)
    _require_equal(subject.run(case), again, "after permuting the rows")


@checks("gradients_are_finite")
def microbatches_add_up(subject: AlgorithmSubject) -> None:
    """The losses of the micro-batches sum to the loss of the optimizer step."""
    case = subject.case()
    whole, algorithm = subject.run(case), subject.new()
    normalizer = normalizer_of(algorithm, case.batch, whole.advantages)
    total = torch.zeros(())
    for rows in torch.arange(case.batch.num_rows).split(5):
        advantages = whole.advantages.select(rows, case.batch.input_ids.shape[1])
        part = run(algorithm, case.select(rows), subject.needs, advantages=advantages, normalizer=normalizer)
        total = total + part.loss.detach()
    message = f"micro-batches sum to {total.item():.6g}, the step's loss is {whole.loss.item():.6g}; use the normalizer"
    require(torch.allclose(total, whole.loss.detach(), atol=1e-5, rtol=1e-4), message)


@checks("gradients_are_finite")
def unscored_rows_take_no_part(subject: AlgorithmSubject) -> None:
    """The reward of a row that is not ``scored`` is ignored."""
    case = subject.case()
    odd = torch.where(case.batch.scored, case.batch.rewards, torch.tensor(1000.0))
    other = replace(case, batch=replace(case.batch, rewards=odd))
    _require_equal(subject.run(case), subject.run(other), "when an unscored row has another reward")


@checks("gradients_are_finite")
def rows_left_out_have_no_gradient(subject: AlgorithmSubject) -> None:
    """A row with ``contributes`` False has zero gradient, because the trainer skips it."""
    case = subject.case()
    same = torch.where(case.batch.group_ids == 0, torch.tensor(0.5), case.batch.rewards)
    outcome = subject.run(replace(case, batch=replace(case.batch, rewards=same)))
    contributes = outcome.advantages.contributes
    if contributes is None:
        raise NotApplicableError("contributes is None: every row contributes")
    shape = list(contributes.shape)
    require(
        contributes.dtype == torch.bool and shape == [case.batch.num_rows],
        f"contributes: got {shape}, expected bool [B]",
    )
    for gradient in (outcome.by_logprobs, outcome.by_values):
        require(gradient is None or not gradient[~contributes].any(), "a skipped row has a gradient")


@checks("gradients_are_finite")
def zero_advantages_teach_nothing(subject: AlgorithmSubject) -> None:
    """With zero advantages, log-probabilities get a gradient from KL and entropy terms only."""
    if subject.needs.reference or subject.needs.entropy == "grad":
        raise NotApplicableError("the loss has a term without advantages")
    case = subject.case()
    some = advantages_of(subject.new(), case, subject.needs)
    none = replace(some, advantages=torch.zeros_like(some.advantages))
    gradient = subject.run(case, advantages=none).by_logprobs
    require(not gradient.any(), f"the largest gradient is {gradient.abs().max().item():.3g} with zero advantages")


@checks("gradients_are_finite")
def inputs_are_left_alone(subject: AlgorithmSubject) -> None:
    """It changes no input tensor in place."""
    case = subject.case()
    subject.run(case)
    fresh = subject.case()
    for one, two in ((case.batch, fresh.batch), (case.evals, fresh.evals)):
        for name in type(one).__dataclass_fields__:
            a, b = getattr(one, name), getattr(two, name)
            pairs = [(a[key], b[key]) for key in b] if isinstance(b, dict) else [(a, b)]
            require(all(x is None or torch.equal(x, y) for x, y in pairs), f"{name} was changed in place")


@checks("gradients_are_finite")
def global_randomness_is_left_alone(subject: AlgorithmSubject) -> None:
    """It does not use torch's global generator."""
    state = torch.get_rng_state()
    subject.run(subject.case())
    untouched = torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    require(untouched, "it used the global generator; create and seed a separate one")


@checks("gradients_are_finite")
def works_on_a_gpu(subject: AlgorithmSubject) -> None:
    """It makes its tensors where its inputs are, and none in float64, which Apple's GPUs lack."""
    case, on_host = subject.case(), subject.run(subject.case())
    with FakeGPU() as gpu:
        try:
            there = subject.run(moved(case, gpu.device))
        except (RuntimeError, TypeError) as error:
            raise CheckError(f"it works on a CPU only: {one_line(error)}") from error
        require(there.loss.device == gpu.device, "the loss is not on the device of the log-probabilities")
        require(torch.allclose(there.by_logprobs.cpu(), on_host.by_logprobs, atol=1e-5), "its gradient is another one")


@checks("gradients_are_finite")
def state_is_restored(subject: AlgorithmSubject) -> None:
    """A new instance that loads its state, stored as JSON, continues exactly as it does."""
    saved, resumed = subject.new(), subject.new()
    names = [name for name in ("state_dict", "load_state_dict") if hasattr(saved, name)]
    require(len(names) != 1, f"it has {''.join(names)} alone; to be resumed it needs state_dict and load_state_dict")
    for seed in range(1, 4):
        _take_step(saved, subject, seed)
    if names:
        loader: Any = resumed
        loader.load_state_dict(_state_of(saved))
        require(_state_of(resumed) == _state_of(saved), "load_state_dict does not restore what state_dict returned")
    for seed in range(4, 7):
        one, two = _take_step(saved, subject, seed), _take_step(resumed, subject, seed)
        message = "after three steps a new instance with its state computes another loss; state_dict lacks something"
        require(torch.equal(one.loss, two.loss) and torch.equal(one.by_logprobs, two.by_logprobs), message)


@checks("gradients_are_finite")
def metrics_are_declared(subject: AlgorithmSubject) -> None:
    """Every metric is a Metric under a key that the spec declares."""
    for key, value in subject.run(subject.case()).metrics.items():
        require(isinstance(value, Metric), f"{key} is {type(value).__name__}, expected a Metric")
        known = find_metric(key, subject.spec.metrics) is not None
        require(known, f"{key} is not in the spec's metrics; add MetricDef(key={key!r}, unit=..., meaning=...)")


@checks("gradients_are_finite")
def learns_a_bandit(subject: AlgorithmSubject) -> None:
    """It learns the best arm of a three-armed bandit in sixty steps."""
    probability = probability_of_the_best(subject.new(), subject.needs, group_size=max(8, subject.group_size))
    require(probability >= LEARNED, f"the best arm has probability {probability:.2f}, expected {LEARNED} or more")


def _take_step(algorithm: Any, subject: AlgorithmSubject, seed: int) -> Outcome:
    """Compute the outcome on a batch of its own, then finish the step as the trainer does."""
    case = random_case(subject.needs, group_size=subject.group_size, seed=seed)
    outcome = run(algorithm, case, subject.needs)
    if hasattr(algorithm, "after_step"):
        rows, tokens = case.batch.num_rows, case.batch.response_mask.sum()
        core = {
            "train/reward": mean(case.batch.rewards.sum(), case.batch.scored.sum()),
            "train/length_tokens": mean(tokens, rows),
        }
        algorithm.after_step(resolve({**core, **outcome.metrics}))
    return outcome


def _state_of(algorithm: Any) -> object:
    state = algorithm.state_dict()
    try:
        return json.loads(json.dumps(state))
    except (TypeError, ValueError) as err:
        raise CheckError(f"state_dict returned what JSON cannot hold: {err}") from None


def _require_equal(one: Outcome, two: Outcome, when: str) -> None:
    def same(a: Tensor | None, b: Tensor | None) -> bool:
        return a is None or b is None or torch.allclose(a, b, atol=1e-5, rtol=1e-4)

    require(
        same(one.loss.detach(), two.loss.detach()), f"the loss changes from {one.loss:.6g} to {two.loss:.6g} {when}"
    )
    gradients = same(one.by_logprobs, two.by_logprobs) and same(one.by_values, two.by_values)
    require(gradients, f"the gradient changes {when}")


def check_algorithm(
    spec: str | AlgorithmSpec,
    config: Mapping[str, object] | None = None,
    *,
    plugins: Plugins | None = None,
    files: Sequence[str] = (),
) -> list[CheckResult]:
    """Run every check of an algorithm, given by name or spec, with options as in a recipe.

    Raises:
        PluginNotFoundError: if there is no such algorithm.
    """
    found, known = find("algorithm", spec, plugins, files)
    subject = AlgorithmSubject(spec=found, plugins=known, options=config or {})
    return checks.run(subject, subject.label)


class AlgorithmConformance(Conformance):
    """Tests of an algorithm: ``class TestMine(AlgorithmConformance): spec = "mine"``."""

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        return check_algorithm(cls.spec, cls.config, files=cls.plugins)


add_tests(AlgorithmConformance, checks)
