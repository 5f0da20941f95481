"""Call the algorithm of a run; an error or invalid return value of a call is reported with the algorithm's name."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from numbers import Real

import torch
from torch import Tensor

from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    LossOutput,
    PolicyEval,
    StepContext,
    TrainBatch,
)
from reasonrl.contracts.data import ScoredGroup
from reasonrl.contracts.metrics import Metric
from reasonrl.contracts.protocols import Algorithm
from reasonrl.errors import PluginContractError, check_returned, plugin_call


class AlgorithmCalls:
    """An algorithm of a plugin with its optional methods filled in. Every call raises PluginContractError at worst.

    Args:
        label: names the algorithm and its plugin in messages.
    """

    def __init__(self, algorithm: Algorithm, label: str) -> None:
        self._algorithm, self._label = algorithm, label

    @property
    def filters_groups(self) -> bool:
        """Whether it may ask for further prompts."""
        return hasattr(self._algorithm, "keep")

    def keep(self, group: ScoredGroup) -> bool:
        """Whether to train on the group; True unless the algorithm filters."""
        if not hasattr(self._algorithm, "keep"):
            return True
        with self._call("keep"):
            return bool(self._algorithm.keep(group))

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        """Return advantages, their shapes checked."""
        with self._call("compute_advantages") as call:
            out = self._algorithm.compute_advantages(batch, evals, ctx)
        check_returned(isinstance(out, AdvantageOutput), call, out, "AdvantageOutput")
        shape = batch.input_ids.shape
        device, tensors = batch.input_ids.device, {"advantages": out.advantages}
        _check_metrics(call, out.metrics, device)
        if out.returns is not None:
            tensors["returns"] = out.returns
        for name, tensor in tensors.items():
            check_returned(_is_plain(tensor, device), f"{call}: {name}", tensor, f"a dense real tensor on {device}")
            if tensor.shape != shape:
                got, wanted = list(tensor.shape), list(shape)
                raise PluginContractError(f"{call} returned {name} of shape {got}, expected {wanted}")
        return out

    def counts(self, batch: TrainBatch, advantages: AdvantageOutput) -> dict[str, float]:
        """Return the algorithm's own counts of these rows; empty if it has none."""
        if not hasattr(self._algorithm, "counts"):
            return {}
        with self._call("counts"):
            return {str(key): float(value) for key, value in self._algorithm.counts(batch, advantages).items()}

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        """Return a micro-batch's loss, checked to be a scalar with a gradient."""
        with self._call("compute_loss") as call:
            out = self._algorithm.compute_loss(inputs, normalizer, ctx)
        check_returned(isinstance(out, LossOutput), call, out, "LossOutput")
        loss, device = out.loss, inputs.logprobs.device
        _check_metrics(call, out.metrics, device)
        if not _is_plain(loss, device) or loss.numel() != 1 or not loss.requires_grad:
            raise PluginContractError(f"{call} returned a loss that is not a real scalar tensor with a gradient")
        return out

    def after_step(self, metrics: Mapping[str, float]) -> None:
        """Let its controllers see the metrics of a finished step."""
        if hasattr(self._algorithm, "after_step"):
            with self._call("after_step"):
                self._algorithm.after_step(dict(metrics))

    def state_dict(self) -> object:
        """A copy of its controllers' state, plain JSON."""
        if not hasattr(self._algorithm, "state_dict"):
            return {}
        with self._call("state_dict"):
            return json.loads(json.dumps(self._algorithm.state_dict()))

    def load_state_dict(self, state: object) -> None:
        """Restore what ``state_dict`` returned."""
        if hasattr(self._algorithm, "load_state_dict"):
            with self._call("load_state_dict"):
                self._algorithm.load_state_dict(state)

    def _call(self, method: str) -> AbstractContextManager[str]:
        return plugin_call(f"{self._label}: {method}")


def _is_plain(tensor: object, device: torch.device) -> bool:
    """Whether it is a dense tensor of real numbers on the batch's device."""
    return (
        isinstance(tensor, Tensor)
        and not tensor.is_nested
        and tensor.layout is torch.strided
        and tensor.device == device
        and not tensor.is_complex()
    )


def _check_metrics(call: str, metrics: object, device: torch.device) -> None:
    if not isinstance(metrics, Mapping) or not all(_is_metric(*pair, device) for pair in metrics.items()):
        raise PluginContractError(
            f"{call} returned metrics of a wrong type, expected names with a Metric of numbers or scalar tensors each, "
            "such as mean(total, weight)"
        )


def _is_metric(key: object, metric: object, device: torch.device) -> bool:
    if not isinstance(key, str) or not isinstance(metric, Metric):
        return False
    return _is_scalar(metric.value, device) and _is_scalar(metric.weight, device)


def _is_scalar(value: object, device: torch.device) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and value.device.type in ("cpu", device.type)
    return isinstance(value, Real)
