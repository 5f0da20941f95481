"""Write a model or adapter folder from a checkpoint, in any precision. No model is built: tensors pass one by one."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.errors import RecipeError
from reasonrl.export.request import Precision
from reasonrl.export.source import Source
from reasonrl.rundir.layout import ADAPTER
from reasonrl.rundir.reading import read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TENSORS, INDEX = ".safetensors", ".safetensors.index.json"


def write_merged(source: Source, folder: Path, precision: Precision) -> None:
    """Write the whole model, adapters merged, and its tokenizer."""
    size = 0
    for name in source.model_files:
        if name.endswith(TENSORS):
            size += cast_tensors(source.folder / name, folder / name, precision)
        elif not name.endswith(INDEX):
            _copy(source.folder / name, folder / name)
    for name in source.model_files:
        if name.endswith(INDEX):
            index = read_object(source.folder / name)
            index["metadata"] = {**index.get("metadata", {}), "total_size": size}
            _write_json(folder / name, index)
    config = read_object(folder / "config.json")
    _write_json(folder / "config.json", {**config, "dtype": precision})


def write_adapter(source: Source, folder: Path, precision: Precision) -> None:
    """Write the adapter alone, for ``peft.PeftModel.from_pretrained``, with the tokenizer.

    Raises:
        RecipeError: If the run trained no adapter.
    """
    if not source.has_adapter:
        raise RecipeError(
            f"{source.run} trained all weights (its recipe has no model.lora), so there is no adapter; use --format "
            "merged"
        )
    for path in sorted((source.folder / ADAPTER).iterdir()):
        if path.name.endswith(TENSORS):
            cast_tensors(path, folder / path.name, precision)
        else:
            _copy(path, folder / path.name)
    copy_tokenizer(source, folder)


def copy_tokenizer(source: Source, folder: Path) -> None:
    """Copy the tokenizer with its chat template."""
    for name in source.model_files:
        if not name.endswith((TENSORS, INDEX)) and name not in ("config.json", "generation_config.json"):
            _copy(source.folder / name, folder / name)


def cast_tensors(source: Path, target: Path, precision: Precision) -> int:
    """Copy a safetensors file with its floating-point tensors in ``precision``; returns their bytes.

    Raises:
        RecipeError: If a value does not fit.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    dtype: torch.dtype = getattr(torch, precision)
    with safe_open(source, "pt") as file:
        tensors = {name: _cast(name, file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {"format": "pt"}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata=metadata)
    return sum(tensor.nbytes for tensor in tensors.values())


def _cast(name: str, tensor: "Tensor", dtype: "torch.dtype") -> "Tensor":
    if not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    if cast.isinf().any() and not tensor.isinf().any():
        raise RecipeError(f"{name} has values that {dtype} cannot hold; export with --dtype bfloat16 or float32")
    return cast


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
