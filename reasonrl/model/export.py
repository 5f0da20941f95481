"""Export a trained policy: unwrap, gather, merge adapters, handle tied weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import CheckpointError
from reasonrl.model.lora import is_lora, iter_merged_weights, write_adapter
from reasonrl.model.policy import PolicyModule
from reasonrl.model.quiet import quiet_transformers
from reasonrl.rundir.layout import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def unwrap(policy: nn.Module) -> PolicyModule:
    """Return the ``PolicyModule`` inside the wrappers of accelerate or torch.

    Raises:
        CheckpointError: If the wrapper is unsupported.
    """
    from accelerate.utils import extract_model_from_parallel

    module = extract_model_from_parallel(policy)
    if not isinstance(module, PolicyModule):
        found = type(module).__name__
        raise CheckpointError(
            f"export: expected a PolicyModule, plain, wrapped by DDP or sharded by FSDP2, got {found}"
        )
    return module


def iter_hf_weights(policy: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the policy's weights by their names in a model folder, without the critic.

    Adapters are merged into copies; the live weights do not change. A tied weight comes once, under the name that
    transformers saves. Tensors are detached, on their own device and unsharded (every rank must join the gathering).
    They may alias the live weights: read them before the next update.

    Raises:
        CheckpointError: If the policy is in an unsupported wrapper.
    """
    from transformers.core_model_loading import revert_weight_conversion

    model = unwrap(policy).model
    base = base_model(model)
    if _is_converted(base):
        # The layout in memory differs (stacked experts); converting back needs all weights.
        yield from revert_weight_conversion(base, dict(_iter_weights(model))).items()
    else:
        yield from _iter_weights(model)


def gather_model(policy: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """Collect ``iter_hf_weights`` for a save; every rank joins.

    Live weights are aliased: use them before the next update. Merged, dequantized and unsharded ones go to the host one
    by one, so that a GPU never holds the whole model a second time.

    Args:
        keep: False on a rank that does not write; the result is empty.
    """
    live = {_storage(parameter) for parameter in unwrap(policy).model.parameters()}
    found = {}
    for name, tensor in iter_hf_weights(policy):
        if keep:
            found[name] = tensor if _storage(tensor) in live else tensor.cpu()
    return found


def write_model(
    policy: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: Mapping[str, Tensor]
) -> None:
    """Write gathered ``weights`` as a folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.

    Not atomic; checkpoints are.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    base = base_model(unwrap(policy).model)
    try:
        with quiet_transformers():
            base.save_pretrained(folder, state_dict=dict(weights))
            tokenizer.save_pretrained(folder)
    except OSError as error:
        raise CheckpointError(f"cannot write the model to {folder}: {error}") from error


def write_adapters(policy: nn.Module, folder: Path, trained: Mapping[str, Tensor]) -> None:
    """Write the adapters as a separate PEFT folder; nothing for a policy without adapters.

    Not into the model's folder: transformers would merge them a second time.
    """
    model = unwrap(policy).model
    if is_lora(model):
        write_adapter(model, trained, folder / ADAPTER)


def model_names(policy: nn.Module) -> list[str]:
    """Return the weight names that a model folder restores bit-exactly.

    Empty with adapters, which the folder has merged, or if the layout on disk differs.
    """
    model = unwrap(policy).model
    base = base_model(model)
    if is_lora(model) or _is_converted(base):
        return []
    aliases = tied_names(base)
    return [name for name in base.state_dict() if name not in aliases]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_converted(base: PreTrainedModel) -> bool:
    from transformers.conversion_mapping import get_model_conversion_mapping

    return bool(getattr(base, "_weight_conversions", None) or get_model_conversion_mapping(base, add_legacy=False))


def _iter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    base = base_model(model)
    aliases = tied_names(base)
    for name, tensor in iter_merged_weights(model):
        if name not in aliases:
            plain = tensor.detach()
            yield name, plain.full_tensor() if hasattr(plain, "full_tensor") else plain
