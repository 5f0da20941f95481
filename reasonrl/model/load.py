"""Load a causal language model and its tokenizer, from a folder or the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from reasonrl.contracts.models import generation_eos_ids
from reasonrl.errors import ReasonRLError, RecipeError, is_out_of_memory, one_line
from reasonrl.importing import without_collection
from reasonrl.model.chat_template import set_chat_template
from reasonrl.model.critic import enable_gradient_checkpointing
from reasonrl.model.frozen import store_frozen
from reasonrl.model.heads import LogitsPath, probe_logits_path
from reasonrl.model.lora import apply_lora, embeddings, merge_adapter
from reasonrl.model.mode import in_mode, plain_attention, seeded
from reasonrl.model.packing import packs_up_to
from reasonrl.model.quantize import quantize
from reasonrl.model.quiet import quiet_transformers
from reasonrl.recipe.models import ModelSource, source_of
from reasonrl.rundir.reading import UnreadableError, open_regular, read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from reasonrl.recipe.schema import ModelConfig

log = logging.getLogger(__name__)

_LARGE_FILES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Parsed by libraries that check what they read."""
_SUFFIXES = (".json", ".safetensors", ".bin", ".jinja", ".txt", ".model")
_LAYERS, _WIDTH, _TOKENS = 10_000, 1 << 20, 1 << 24
_MOST = {
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_experts", "num_local_experts"), _LAYERS
    ),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "head_dim"), _WIDTH),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "d_model"), _WIDTH),
    "vocab_size": _TOKENS,
}
"""Keys of a config, and more than any model has."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A transformers causal LM (in a peft wrapper with LoRA) and a tokenizer with EOS and pad tokens.

    ``logits_path``: how to compute its logits, found out in full precision; None: ``PolicyModule`` finds out.
    ``packs_up_to``: the longest row that may be packed, found out likewise; 0 without ``model.packing``.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    logits_path: LogitsPath | None = None
    packs_up_to: int = 0


@without_collection()  # transformers imports the model's code
def load_model(
    model: ModelConfig, model_path: str, *, seed: int, device: torch.device, frozen: torch.dtype | None = None
) -> LoadedModel:
    """Load the model of the recipe's ``model`` section on ``device``, in eval mode, without dropout.

    An adapter folder loads its base model with the adapter merged in; ``model.lora`` adds new adapters on top.
    ``init: random`` initializes weights for the folder's config from ``seed``, without touching the global generators.
    Weights are stored in ``model.dtype``, those of linear layers that are not trained in ``frozen``, if given: the
    precision under whose autocast the model is then used.

    Raises:
        RecipeError: If the model, its tokenizer or an EOS token is missing, or an option does not fit.
    """
    if sys.flags.optimize > 1:
        raise RecipeError(
            "Python drops docstrings (-OO or PYTHONOPTIMIZE=2), and transformers loads no model without them; start "
            "Python without that option"
        )
    source = find_source(model_path, model.revision)
    options: dict[str, object] = {"revision": source.revision, "trust_remote_code": model.trust_remote_code}
    with quiet_transformers(), _loading("files", model_path):
        config = load_config(source.base, options)
        tokenizer = load_tokenizer(model_path, revision=model.revision, trust_remote_code=model.trust_remote_code)
        set_chat_template(tokenizer, model)
        network = build_network(model, source.base, config, seed, resolve_dtype(model.dtype, device), options)
        for adapter in source.adapters:
            network = _merge(network, adapter)
    _check_token_ids(model_path, network, tokenizer)
    _disable_module_dropout(network)
    with plain_attention(network), _loading("weights", model_path):
        _check_train_mode(model_path, network)
        logits_path = probe_logits_path(network)
        longest = packs_up_to(network) if model.packing else 0
    trained = make_trainable(network, model, model_path, seed=seed, frozen=frozen)
    trained = trained.to(device).eval()
    return LoadedModel(model=trained, tokenizer=tokenizer, logits_path=logits_path, packs_up_to=longest)


def make_trainable(
    network: PreTrainedModel, model: ModelConfig, model_path: str, *, seed: int, frozen: torch.dtype | None = None
) -> nn.Module:
    """Set up ``network`` for training as ``model`` says: gradient checkpointing, and LoRA adapters on a frozen base.

    Linear layers that are not trained are stored in ``frozen``, if given: before the move to the device, on which the
    float32 weights may not fit.
    """
    if model.gradient_checkpointing:
        enable_gradient_checkpointing(network)
    if model.lora is None:
        return network
    if model.gradient_checkpointing:
        # Without a gradient at the frozen embedding's output, checkpointed blocks give the adapters none.
        network.enable_input_require_grads()
    if model.lora.quantization is not None:
        quantize(network, frozen or torch.float32)
    with seeded(seed):
        adapted = apply_lora(network, model.lora, base=model_path, revision=model.revision)
    if frozen is not None:
        store_frozen(adapted, frozen)
    return adapted


def load_tokenizer(
    model_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``model_path``; a missing pad token is set to EOS (padding is always masked).

    An adapter folder without a tokenizer uses that of its base model.

    Raises:
        RecipeError: If there is no tokenizer, or it has no EOS token.
    """
    from transformers import AutoTokenizer

    source = find_source(model_path, revision)
    own = next((str(f) for f in source.adapters[::-1] if (f / "tokenizer_config.json").is_file()), None)
    model_path, revision = (own, None) if own else (source.base, source.revision)
    with quiet_transformers(), _loading("tokenizer", model_path):
        _check_files(model_path)
        tokenizer = AutoTokenizer.from_pretrained(model_path, revision=revision, trust_remote_code=trust_remote_code)
        probe = tokenizer.encode("1 + 2", add_special_tokens=False)
    if not set(probe) - set(tokenizer.all_special_ids):
        # Without files transformers builds an empty tokenizer of the model's type.
        raise RecipeError(f"model {model_path!r}: found no tokenizer files; add tokenizer.json and its config")
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            f"model {model_path!r}: its tokenizer has no EOS token, so completions would never end; set one"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``model.dtype``; ``auto`` is bfloat16 on a GPU that supports it, else float32.

    A CPU gets float32 even if it has bf16 instructions, so that results do not depend on the CPU. Explicit bfloat16 on
    a CPU without them logs a warning (matmul is 50-500 times slower there).
    """
    if name == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if on_gpu else torch.float32
    if name not in _DTYPES:
        raise RecipeError(f"model.dtype must be auto, {', '.join(_DTYPES)}, got {name!r}")
    if name != "float32" and device.type == "cpu" and not cpu_computes_bfloat16():
        log.warning("model.dtype %s is orders of magnitude slower than float32 on this CPU", name)
    return _DTYPES[name]


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bf16 matrix instructions (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def find_source(model_path: str, revision: str | None) -> ModelSource:
    """Find the base model and the adapters of a model.

    Raises:
        RecipeError: If the base of an adapter cannot be found.
    """
    try:
        return source_of(model_path, revision)
    except ValueError as error:
        raise RecipeError(f"model {model_path!r}: {error}") from error


def _merge(network: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    with _loading("adapter", str(adapter)):
        return merge_adapter(network, adapter)


def load_config(model_path: str, options: dict[str, object]) -> PretrainedConfig:
    """Load the config of a folder or hub model, without dropout; ``options`` are those of transformers."""
    from transformers import AutoConfig, PreTrainedConfig

    folder = Path(model_path)
    looks_local = model_path.startswith((".", "/", "~")) or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        raise RecipeError(
            f"model {model_path!r}: expected a model folder with config.json, found none; check model.path"
        )
    with _loading("config", model_path):
        _check_files(model_path)
        found: dict[str, Any] = PreTrainedConfig.get_config_dict(model_path, revision=options.get("revision"))[0]
        _check_sizes(found)
        config = AutoConfig.from_pretrained(model_path, **options)
        _keep_plain_attention(config, model_path)
    for section in {id(c): c for c in (config, config.get_text_config())}.values():
        _disable_config_dropout(section)
    return config


def build_network(
    model: ModelConfig,
    model_path: str,
    config: PretrainedConfig,
    seed: int,
    dtype: torch.dtype,
    options: dict[str, object],
) -> PreTrainedModel:
    """Build the network of ``config``, with the weights of ``model_path`` or random ones."""
    from transformers import AutoModelForCausalLM

    common: dict[str, object] = {"config": config, "dtype": dtype}
    if model.attention != "auto":
        common["attn_implementation"] = model.attention
    with _loading("weights", model_path):
        if model.init == "random":
            with seeded(seed):
                return AutoModelForCausalLM.from_config(**common, trust_remote_code=model.trust_remote_code)
        found: Any = AutoModelForCausalLM.from_pretrained(model_path, **common, **options, output_loading_info=True)
        network, report = found
    if report["missing_keys"]:
        # transformers would silently initialize these at random.
        missing = sorted(report["missing_keys"])
        raise RecipeError(
            f"model {model_path!r}: {len(missing)} weights of its config are missing from its files, "
            f"such as {missing[0]}; download the model again"
        )
    return network


def _check_token_ids(model_path: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokens every run needs have embeddings; those of prompts are checked later."""
    rows = embeddings(network).shape[0]
    head = network.get_output_embeddings()
    outputs = rows if head is None else head.weight.shape[0]
    if outputs > rows:
        raise RecipeError(
            f"model {model_path!r}: its output layer has {outputs} tokens but its input only {rows} embeddings, "
            "so sampled tokens could not be fed back; download the model again"
        )
    needed = [("the tokenizer's EOS token", tokenizer.eos_token_id), ("its pad token", tokenizer.pad_token_id)]
    needed += [("an EOS token of generation_config.json", stop) for stop in generation_eos_ids(network)]
    for name, token in needed:
        if token is not None and (isinstance(token, bool) or not isinstance(token, int) or token < 0):
            raise RecipeError(f"model {model_path!r}: {name} is {token!r:.40}, expected the id of a token")
        if token is not None and token >= min(rows, outputs):
            raise RecipeError(
                f"model {model_path!r}: {name} is {token}, but the model has {min(rows, outputs)} embeddings; use the "
                "tokenizer and config it was saved with"
            )


def _keep_plain_attention(config: PretrainedConfig, model_path: str) -> None:
    """Drop an attention kernel that the config names: transformers would download its code. A recipe may name one."""
    named = getattr(config, "_attn_implementation", None)
    values = named.values() if isinstance(named, dict) else [named]
    if foreign := [str(value) for value in values if value not in (None, "eager", "sdpa")]:
        log.warning(
            "model %r: its config.json names the attention kernel %.80r, which is not used; to use one, set "
            "model.attention",
            model_path,
            foreign[0],
        )
        config._attn_implementation = None


def _check_files(model_path: str) -> None:
    """Read the JSON files of a local folder as untrusted ones, before transformers does, and open the others.

    Raises:
        ValueError: naming a file that is not a regular file, or does not hold a JSON object.
        OSError: naming one that cannot be read; of weights, safetensors would say that they are missing.
    """
    for path in sorted(Path(model_path).iterdir()) if Path(model_path).is_dir() else ():
        if path.suffix not in _SUFFIXES:
            continue
        try:
            if path.name in _LARGE_FILES or path.suffix != ".json":
                with open_regular(path):
                    continue
            read_object(path)
        except UnreadableError as error:
            raise ValueError(f"{path.name} {error}") from error


def _check_sizes(config: Mapping[str, Any], at: str = "") -> None:
    """Check the numbers that decide how much is built.

    Raises:
        ValueError: naming one that no model has.
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and key.endswith("_config"):
            _check_sizes(value, f"{at}{key}.")
        most = _MOST.get(key)
        if most is None or value is None:
            continue
        least = 0 if "experts" in key else 1  # a dense model may have none
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{at}{key} is {value!r:.40}, expected a whole number from {least} to {most:,}")


@contextmanager
def _loading(what: str, model_path: str) -> Iterator[None]:
    """Files of a model may be missing, truncated, unknown, contradictory or hostile: any error is one of the model.

    Raises:
        RecipeError: for everything but lack of memory, which has a message of its own.
    """
    try:
        yield
    except ReasonRLError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise RecipeError(_load_message(what, model_path, error)) from error


def _load_message(what: str, model_path: str, error: BaseException) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    reason = one_line(reason)
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") and not Path(model_path).exists()
    hint = " (HF_HUB_OFFLINE is set: use a local folder, or unset it)" if offline else ""
    return f"model {model_path!r}: cannot load its {what}: {reason[:300]}{hint}"


def _disable_config_dropout(config: PretrainedConfig) -> None:
    # With dropout the trained policy would differ from the sampling policy (ratio != 1).
    for key, value in list(vars(config).items()):
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)


def _disable_module_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@torch.no_grad()
def _check_train_mode(model_path: str, network: PreTrainedModel) -> None:
    """Check that train and eval mode agree: router noise or batch norm would make sampling off-policy."""
    ids = torch.arange(3)[None] % embeddings(network).shape[0]
    logits = []
    for training in (False, True):
        with in_mode(network, training=training), seeded(0):
            logits.append(network(input_ids=ids, use_cache=False).logits)
    if not torch.equal(*logits):
        raise RecipeError(
            f"model {model_path!r}: {type(network).__name__} gives different outputs in train and eval mode, "
            "so sampler and trainer would disagree; choose another architecture"
        )
