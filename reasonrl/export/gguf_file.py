"""Write a GGUF file from a checkpoint with the package ``gguf`` (extra ``gguf``). Tensors pass one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.contracts.install import install_extra
from reasonrl.errors import RecipeError
from reasonrl.export.folders import TENSORS, copy_tokenizer
from reasonrl.export.gguf_tokenizer import add_tokenizer
from reasonrl.export.request import Precision
from reasonrl.export.source import Source
from reasonrl.rundir.reading import read_object

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from gguf import GGUFWriter, TensorNameMap
    from torch import Tensor

GGUF_FILE = "model.gguf"
ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""transformers' model types and the architectures of the package ``gguf``."""
PERMUTED = ("self_attn.q_proj.", "self_attn.k_proj.")
"""Of Llama: llama.cpp rotates neighboring dimensions, transformers the two halves of a head."""
TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """A tensor of the checkpoint: its name in GGUF, its type there, and what reads it."""

    name: str
    shape: tuple[int, ...]
    kind: Any
    read: Callable[[], Tensor]


def check_gguf(source: Source) -> None:
    """Refuse a model that cannot become a GGUF file.

    Raises:
        RecipeError: If the package is missing or the architecture is not supported.
    """
    _gguf()
    config = _config(source)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise RecipeError(
            f"--format gguf supports the architectures {known}, got {kind}; export with --format merged and convert "
            "the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    rope = config.get("rope_parameters", {}).get("rope_type", "default")
    is_special = config.get("use_sliding_window") or rope != "default"
    if is_special:
        what = "sliding-window attention" if config.get("use_sliding_window") else f"RoPE scaling of type {rope}"
        raise RecipeError(
            f"--format gguf does not support {what}; export with --format merged and convert the folder with "
            "llama.cpp's convert_hf_to_gguf.py"
        )


def write_gguf(source: Source, folder: Path, precision: Precision) -> str:
    """Write ``model.gguf`` and the tokenizer files; returns a warning about its tokenizer, or an empty text.

    Raises:
        RecipeError: If the model cannot become a GGUF file.
    """
    check_gguf(source)
    gguf, config = _gguf(), _config(source)
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[config["model_type"]])
    writer = gguf.GGUFWriter(folder / GGUF_FILE, gguf.MODEL_ARCH_NAMES[architecture])
    _add_metadata(writer, config, str(source.manifest["name"]))
    writer.add_file_type(getattr(gguf.LlamaFileType, _file_type(precision)))
    warning = add_tokenizer(writer, gguf, source.folder, rows=config["vocab_size"])
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    with ExitStack() as stack:
        stored = list(_tensors(source, names, config, gguf, precision, stack))
        for tensor in stored:
            _add_info(writer, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in stored:
            _write(writer, tensor.name, _as_array(tensor, gguf))
    writer.close()
    copy_tokenizer(source, folder)
    return warning


def _gguf() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise RecipeError(f"--format gguf needs the package gguf: {install_extra('gguf')}") from error
    return gguf


def _config(source: Source) -> dict[str, Any]:
    config: dict[str, Any] = read_object(source.folder / "config.json")
    return config


def _file_type(precision: Precision) -> str:
    return {"float32": "ALL_F32", "bfloat16": "MOSTLY_BF16", "float16": "MOSTLY_F16"}[precision]


def _add_metadata(writer: GGUFWriter, config: Mapping[str, Any], name: str) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config.get("rope_parameters", {}).get("rope_theta") or config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _tensors(
    source: Source,
    names: TensorNameMap,
    config: Mapping[str, Any],
    gguf: ModuleType,
    precision: Precision,
    stack: ExitStack,
) -> Iterator[_Stored]:
    from safetensors import safe_open

    heads = config["num_attention_heads"]
    for path in [source.folder / name for name in source.model_files if name.endswith(TENSORS)]:
        file = stack.enter_context(safe_open(path, "pt"))
        for key in sorted(file.keys()):
            name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise RecipeError(f"--format gguf has no name for the weight {key}; export with --format merged")
            shape = tuple(file.get_slice(key).get_shape())
            groups = heads if PERMUTED[0] in key else config.get("num_key_value_heads") or heads
            is_permuted = config["model_type"] == "llama" and any(part in key for part in PERMUTED)
            # llama.cpp keeps vectors, such as norms and biases, in float32.
            kind = getattr(gguf.GGMLQuantizationType, TYPES[precision] if len(shape) > 1 else "F32")
            yield _Stored(name=name, shape=shape, kind=kind, read=_reader(file, key, groups if is_permuted else 0))


def _reader(file: Any, key: str, groups: int) -> Callable[[], Tensor]:
    def read() -> Tensor:
        tensor: Tensor = file.get_tensor(key).float()
        if not groups:
            return tensor
        halves = tensor.reshape(groups, 2, tensor.shape[0] // groups // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)

    return read


def _add_info(writer: GGUFWriter, tensor: _Stored) -> None:
    import numpy as np

    size = 4 if tensor.kind.name == "F32" else 2
    count = int(np.prod(tensor.shape, dtype=np.int64))
    # The dtype is read only where no raw_dtype is given.
    writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size * count, raw_dtype=tensor.kind)


def _as_array(tensor: _Stored, gguf: ModuleType) -> np.ndarray[Any, Any]:
    import numpy as np

    values = tensor.read().contiguous().numpy()
    with np.errstate(over="ignore"):
        array: np.ndarray[Any, Any] = gguf.quants.quantize(values, tensor.kind)
    if array.dtype == np.float16 and np.isinf(array).any() and not np.isinf(values).any():
        raise RecipeError(f"{tensor.name} has values that float16 cannot hold; export with --dtype bfloat16 or float32")
    return array


def _write(writer: GGUFWriter, name: str, array: np.ndarray[Any, Any]) -> None:
    """Write a tensor as ``write_tensor_data`` does, but for numpy's ``tofile``: it hides that a disk is full.

    Raises:
        RecipeError: If its size is not the announced one: what follows would be read from a wrong place.
    """
    assert writer.fout is not None
    (file,) = writer.fout
    (infos,) = writer.tensors
    if array.nbytes != infos[name].nbytes:
        raise RecipeError(
            f"--format gguf: {name} takes {array.nbytes:,} bytes instead of {infos[name].nbytes:,}; "
            "export with --format merged and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    writer.write_padding(file, file.tell())
    file.write(array.data)
    writer.write_padding(file, array.nbytes)
