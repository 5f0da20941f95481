"""Load a causal language model and its tokenizer, from a folder or the Hugging Face hub."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from reasonrl.errors import RecipeError
from reasonrl.model.chat_template import set_chat_template
from reasonrl.model.critic import enable_gradient_checkpointing
from reasonrl.model.lora import apply_lora, merge_adapter
from reasonrl.model.mode import in_mode, seeded
from reasonrl.model.quiet import quiet_transformers
from reasonrl.recipe.models import ModelSource, source_of

if TYPE_CHECKING:
    from reasonrl.recipe.schema import ModelConfig

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """``model`` is a transformers causal LM (inside a peft wrapper with LoRA), ``tokenizer`` has EOS and
    pad tokens."""

    model: Any
    tokenizer: Any


def load_model(model: ModelConfig, model_path: str, *, seed: int, device: torch.device) -> LoadedModel:
    """Load what the recipe's ``model`` section describes, on ``device``, in eval mode, with dropout off.

    An adapter folder is its base model with the adapter merged in; ``model.lora`` trains new adapters on top.
    ``init: random`` draws fresh weights for the folder's config from ``seed``; the global generators are
    left as they were. Weights are stored in ``model.dtype``; master copies in float32 are the optimizer's
    matter.

    Raises:
        RecipeError: if there is no such model, no tokenizer, no EOS token, or an option does not fit.
    """
    source = find_source(model_path, model.revision)
    options: dict[str, Any] = {"revision": source.revision, "trust_remote_code": model.trust_remote_code}
    with quiet_transformers():
        config = _load_config(source.base, options)
        tokenizer = load_tokenizer(model_path, revision=model.revision, trust_remote_code=model.trust_remote_code)
        set_chat_template(tokenizer, model)
        network = _build(model, source.base, config, seed, resolve_dtype(model.dtype, device), options)
        for adapter in source.adapters:
            network = _merge(network, adapter)
    _check_token_ids(model_path, network, tokenizer)
    _disable_module_dropout(network)
    _check_train_mode(model_path, network)
    if model.gradient_checkpointing:
        enable_gradient_checkpointing(network)
    if model.lora is not None:
        if model.gradient_checkpointing:
            # The frozen embedding's output needs a gradient, or checkpointed blocks would send none to the
            # adapters.
            network.enable_input_require_grads()
        with seeded(seed):
            network = apply_lora(network, model.lora, base=model_path, revision=model.revision)
    return LoadedModel(model=network.to(device).eval(), tokenizer=tokenizer)


def load_tokenizer(model_path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of ``model_path``; without a pad token it pads with EOS (padding is masked everywhere).

    An adapter folder without one has that of its base model.

    Raises:
        RecipeError: if there is none, or it knows no EOS token.
    """
    from transformers import AutoTokenizer

    source = find_source(model_path, revision)
    own = next((str(f) for f in source.adapters[::-1] if (f / "tokenizer_config.json").is_file()), None)
    model_path, revision = (own, None) if own else (source.base, source.revision)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                model_path, revision=revision, trust_remote_code=trust_remote_code
            )
        except _load_errors() as error:
            raise RecipeError(_load_message("tokenizer", model_path, error)) from error
    probe = tokenizer.encode("1 + 2", add_special_tokens=False)
    if not set(probe) - set(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer of the model's type where it finds no files.
        raise RecipeError(f"model {model_path!r}: found no tokenizer files; add tokenizer.json and its config")
    if tokenizer.eos_token_id is None:
        raise RecipeError(
            f"model {model_path!r}: its tokenizer has no EOS token, so completions could never end; set one"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 on a GPU that computes in it, else float32.

    A CPU gets float32 even where it has bf16 instructions: a recipe's result must not depend on the CPU it
    ran on. Asking for a 16-bit type on a CPU without them works and is warned about (matmul is 50-500 times
    slower there).
    """
    if name == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if on_gpu else torch.float32
    if name not in _DTYPES:
        raise RecipeError(f"model.dtype must be auto, {', '.join(_DTYPES)}, got {name!r}")
    if name != "float32" and device.type == "cpu" and not cpu_computes_bfloat16():
        log.warning("model.dtype %s on this CPU is slower than float32 by orders of magnitude", name)
    return _DTYPES[name]


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bf16 matrix instructions (AVX512-BF16 or AMX)."""
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def find_source(model_path: str, revision: str | None) -> ModelSource:
    """What a model is made of.

    Raises:
        RecipeError: if the base of an adapter cannot be found.
    """
    try:
        return source_of(model_path, revision)
    except ValueError as error:
        raise RecipeError(f"model {model_path!r}: {error}") from error


def _merge(network: Any, adapter: Path) -> Any:
    try:
        return merge_adapter(network, adapter)
    except _load_errors() as error:
        raise RecipeError(_load_message("adapter", str(adapter), error)) from error


def _load_config(model_path: str, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    folder = Path(model_path)
    looks_local = model_path.startswith((".", "/", "~")) or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        raise RecipeError(
            f"model {model_path!r}: expected a model folder with config.json, found none; check model.path"
        )
    try:
        config = AutoConfig.from_pretrained(model_path, **options)
    except _load_errors() as error:
        raise RecipeError(_load_message("config", model_path, error)) from error
    for section in {id(c): c for c in (config, config.get_text_config())}.values():
        _disable_config_dropout(section)
    return config


def _build(
    model: ModelConfig, model_path: str, config: Any, seed: int, dtype: torch.dtype, options: dict[str, Any]
) -> Any:
    from transformers import AutoModelForCausalLM

    common = {"config": config, "dtype": dtype}
    if model.attention != "auto":
        common["attn_implementation"] = model.attention
    try:
        if model.init == "random":
            with seeded(seed):
                return AutoModelForCausalLM.from_config(**common, trust_remote_code=model.trust_remote_code)
        found: Any = AutoModelForCausalLM.from_pretrained(model_path, **common, **options, output_loading_info=True)
        network, report = found
    except _load_errors() as error:
        raise RecipeError(_load_message("weights", model_path, error)) from error
    if report["missing_keys"]:
        # transformers would fill these with random numbers and go on.
        missing = sorted(report["missing_keys"])
        raise RecipeError(
            f"model {model_path!r}: its files lack {len(missing)} weights that its config asks for, "
            f"such as {missing[0]}; get the whole model again"
        )
    return network


def _check_token_ids(model_path: str, network: Any, tokenizer: Any) -> None:
    """Tokens that every run needs have a row in both ends of the model; those of prompts are checked as they come."""
    rows = network.get_input_embeddings().weight.shape[0]
    head = network.get_output_embeddings()
    outputs = rows if head is None else head.weight.shape[0]
    if outputs > rows:
        raise RecipeError(
            f"model {model_path!r}: its output layer has {outputs} tokens, its input {rows} embeddings; a sampled "
            "token could not be read back; get the whole model again"
        )
    generation = getattr(network, "generation_config", None)
    stops = getattr(generation, "eos_token_id", None)
    needed = [
        ("the tokenizer's EOS token", tokenizer.eos_token_id),
        ("its pad token", tokenizer.pad_token_id),
    ]
    needed += [("an EOS token of generation_config.json", stop) for stop in _listed(stops)]
    for name, token in needed:
        if token is not None and token >= min(rows, outputs):
            raise RecipeError(
                f"model {model_path!r}: {name} is {token}, but the model has {min(rows, outputs)} embeddings; take the "
                "tokenizer and configuration that it was saved with"
            )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _load_errors() -> tuple[type[Exception], ...]:
    """What transformers raises for files that are missing, torn, unknown or contradict themselves."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    contradictions = (
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    )
    return *contradictions, OSError, ImportError, SafetensorError, StrictDataclassError


def _load_message(what: str, model_path: str, error: BaseException) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0") and not Path(model_path).exists()
    hint = " (HF_HUB_OFFLINE is set: use a local folder, or unset it)" if offline else ""
    return f"model {model_path!r}: cannot load its {what}: {reason[:300]}{hint}"


def _disable_config_dropout(config: Any) -> None:
    # Dropout would make the policy that is trained another one than the policy that sampled (ratio != 1).
    for key, value in list(vars(config).items()):
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)


def _disable_module_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@torch.no_grad()
def _check_train_mode(model_path: str, network: Any) -> None:
    """Updates run in train mode, sampling in eval mode: router noise or batch norm would make two policies of it."""
    ids = torch.arange(3)[None] % network.get_input_embeddings().weight.shape[0]
    logits = []
    for training in (False, True):
        with in_mode(network, training=training), seeded(0):
            logits.append(network(input_ids=ids, use_cache=False).logits)
    if not torch.equal(*logits):
        raise RecipeError(
            f"model {model_path!r}: {type(network).__name__} predicts something else in train mode than in eval mode, "
            "so sampler and trainer would disagree; choose another architecture"
        )
