"""Convert parameters and optimizer state to plain tensors and back, bit-exactly.

One path serves one process, DDP and FSDP: torch's distributed state dicts, gathered whole, under the names that the
unwrapped ``PolicyModule`` has. Every rank calls every function; only rank 0 holds what was gathered.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from reasonrl.errors import CheckpointError
from reasonrl.model.export import model_names
from reasonrl.rundir import files
from reasonrl.rundir.layout import OPTIMIZER_FILE, TRAINABLE_FILE
from reasonrl.rundir.manifest import list_manifest_files

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import ValueType

MODEL_PREFIX = "model."

_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_SCATTERED = StateDictOptions(full_state_dict=True, strict=False)


@dataclass(frozen=True, slots=True)
class TensorState:
    """On the host. ``trainable``: what the model folder cannot give back; ``optimizer``: ``<parameter>.<entry>``."""

    trainable: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]

    def of_model(self) -> dict[str, Tensor]:
        """``trainable`` without the critic's, under the model's own names."""
        return {
            name.removeprefix(MODEL_PREFIX): tensor
            for name, tensor in self.trainable.items()
            if name.startswith(MODEL_PREFIX)
        }

    def write(self, folder: Path) -> None:
        """Beside the model's files."""
        if self.trainable:
            files.write_tensors(folder / TRAINABLE_FILE, self.trainable)
        files.write_tensors(folder / OPTIMIZER_FILE, self.optimizer)


def gather(policy: nn.Module, optimizer: Optimizer) -> TensorState:
    """What a checkpoint holds beside the model folder; empty on ranks other than 0."""
    wanted = _trainable_names(policy) - {MODEL_PREFIX + name for name in model_names(policy)}
    parameters = cast("dict[str, Tensor]", get_model_state_dict(policy, options=_GATHERED))
    return TensorState(
        trainable={name: parameters[name] for name in sorted(wanted) if name in parameters},
        optimizer=_gather_optimizer(policy, unwrap_optimizer(optimizer)),
    )


def scatter(policy: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Put a verified checkpoint back into a policy and an optimizer that were made by the same recipe.

    Raises:
        CheckpointError: if the checkpoint lacks a trained parameter, or shapes differ.
    """
    tensors = _read_parameters(policy, folder)
    missing = sorted(_trainable_names(policy) - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} trained parameters, such as {missing[0]}; a different recipe wrote it"
        )
    try:
        set_model_state_dict(policy, tensors, options=_SCATTERED)
        _scatter_optimizer(policy, unwrap_optimizer(optimizer), load_file(folder / OPTIMIZER_FILE))
    except (RuntimeError, ValueError) as err:
        reason = str(err).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{folder} does not fit the recipe's model: {reason}") from err


def unwrap_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside what accelerate wrapped around it."""
    return getattr(optimizer, "optimizer", optimizer)


def _trainable_names(policy: nn.Module) -> set[str]:
    return {name.removeprefix("module.") for name, p in policy.named_parameters() if p.requires_grad}


def _read_parameters(policy: nn.Module, folder: Path) -> "dict[str, ValueType]":
    listed = list_manifest_files(folder)
    tensors: dict[str, ValueType] = {}
    known = set(model_names(policy))
    for name in listed:
        if known and name.startswith("model") and name.endswith(".safetensors"):
            loaded = load_file(folder / name)
            tensors |= {MODEL_PREFIX + key: value for key, value in loaded.items() if key in known}
    if TRAINABLE_FILE in listed:
        tensors |= load_file(folder / TRAINABLE_FILE)
    return tensors


def _gather_optimizer(policy: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    if not optimizer.state:
        return {}  # torch would take a step to fill it
    state: Any = get_optimizer_state_dict(policy, optimizer, options=_GATHERED).get("state", {})
    return {
        f"{name}.{key}": torch.as_tensor(value) for name, entries in state.items() for key, value in entries.items()
    }


def _scatter_optimizer(policy: nn.Module, optimizer: Optimizer, flat: Mapping[str, Tensor]) -> None:
    state: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        parameter, _, entry = name.rpartition(".")
        state.setdefault(parameter, {})[entry] = tensor
    if not state:
        return
    # The groups' options follow from the recipe and the step; only their names are asked for here. Asking also
    # makes torch fill the state with zeros, by a step at learning rate 0.
    whole: Any = {**get_optimizer_state_dict(policy, optimizer), "state": state}
    set_optimizer_state_dict(policy, optimizer, whole, options=_SCATTERED)
    _forget_others(policy, optimizer, state.keys())


def _forget_others(policy: nn.Module, optimizer: Optimizer, known: Container[str]) -> None:
    """A parameter that had no state when it was saved (the policy during the critic's warm-up) has none now."""
    for name, parameter in policy.named_parameters():
        if name.removeprefix("module.") not in known:
            optimizer.state.pop(parameter, None)
