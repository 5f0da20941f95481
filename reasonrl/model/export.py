"""Weights out of a trained policy: the only place that unwraps, gathers, merges adapters and handles tied
weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reasonrl.errors import CheckpointError
from reasonrl.model.lora import base_model, iter_merged_weights
from reasonrl.model.policy import PolicyModule
from reasonrl.model.quiet import quiet_transformers

CRITIC_FILE = "critic.safetensors"


def unwrap(policy: nn.Module) -> PolicyModule:
    """The ``PolicyModule`` inside what accelerate or torch wrapped around it.

    Raises: CheckpointError for a wrapper whose weights cannot be read this way.
    """
    from accelerate.utils import extract_model_from_parallel

    module = extract_model_from_parallel(policy)
    if not isinstance(module, PolicyModule):
        found = type(module).__name__
        raise CheckpointError(
            f"export: expected a PolicyModule, plain or wrapped by DDP or FSDP version 2, got {found}; "
            "set fsdp_version: 2 in accelerate's config"
        )
    return module


def iter_hf_weights(policy: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The policy's weights under the names that its model folder on disk has, without the critic.

    Adapters are merged into copies; the live weights are not changed. A tied weight comes once, under the
    name that transformers saves. Tensors are detached, on their own device, and whole (sharded ones are
    gathered, which every rank must join). They may alias the live weights: read them before the next
    update.

    Raises: CheckpointError if the policy is wrapped in something unknown.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    model = unwrap(policy).model
    base = base_model(model)
    if getattr(base, "_weight_conversions", None) or get_model_conversion_mapping(base, add_legacy=False):
        # This architecture is laid out otherwise in memory (stacked experts): all weights are needed to
        # convert back.
        yield from revert_weight_conversion(base, dict(_plain_weights(model))).items()
    else:
        yield from _plain_weights(model)


def save_model(policy: nn.Module, tokenizer: Any, folder: Path, *, critic: bool = False) -> None:
    """Write a model folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load as it is.

    ``critic`` adds its weights as ``critic.safetensors``, which those loaders ignore. Not atomic:
    checkpoints are.

    Raises: CheckpointError if the folder cannot be written.
    """
    module = unwrap(policy)
    base = base_model(module.model)
    try:
        with quiet_transformers():
            base.save_pretrained(folder, state_dict=dict(_plain_weights(module.model)))
            tokenizer.save_pretrained(folder)
        if critic and module.critic is not None:
            _save_critic(module.critic, folder / CRITIC_FILE)
    except OSError as error:
        raise CheckpointError(f"cannot write the model to {folder}: {error}") from error


def load_critic(policy: nn.Module, folder: Path) -> None:
    """Load what :func:`save_model` wrote with ``critic=True`` into the policy's critic.

    Raises: CheckpointError if there is no such file, no critic, or their shapes differ.
    """
    from safetensors.torch import load_file

    critic = unwrap(policy).critic
    path = folder / CRITIC_FILE
    if critic is None or not path.is_file():
        raise CheckpointError(
            f"cannot load a critic from {path}: {'no such file' if critic else 'the policy has none'}"
        )
    try:
        critic.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the recipe's critic: {str(error).splitlines()[0]}"
        ) from error


def _plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    base = base_model(model)
    aliases = _tied_names(base)
    for name, tensor in iter_merged_weights(model):
        if name not in aliases:
            yield name, _whole(tensor.detach())


def _tied_names(base: Any) -> set[str]:
    """Names that are a second name of another saved weight."""
    parameters = dict(base.named_parameters(remove_duplicate=False))
    tied: dict[str, str] = getattr(base, "all_tied_weights_keys", None) or {}
    return {name for name, source in tied.items() if parameters.get(name) is parameters.get(source, base)}


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _save_critic(critic: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {
        name: _whole(value.detach()).contiguous().clone() for name, value in critic.state_dict().items()
    }
    save_file(tensors, path)
