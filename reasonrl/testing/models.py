"""Tiny random models with a real tokenizer, for tests that need a model folder and no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reasonrl.model.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

Architecture = Literal["qwen2", "qwen3", "llama", "gpt_neox", "gemma2", "gpt2"]

EOS_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def byte_tokenizer(architecture: Architecture = "qwen2") -> PreTrainedTokenizerBase:
    """Build a byte-level tokenizer: 256 single bytes, then EOS (256) and pad (257).

    Any NFC text round-trips exactly. ``AutoTokenizer`` chooses the class by the *model's* type and ignores the saved
    class and pre-tokenizer of a Qwen2 folder, so this uses the class that a folder of the architecture reloads as.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    special = {"eos_token": EOS_TOKEN, "unk_token": EOS_TOKEN, "pad_token": PAD_TOKEN}
    if architecture in ("qwen2", "qwen3"):
        tokenizer: PreTrainedTokenizerBase = Qwen2Tokenizer(vocab=vocabulary, merges=[], **special)
    else:
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(
    architecture: Architecture = "qwen2",
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vocab_size: int = 258,
    max_positions: int = 2048,
    tie: bool = True,
) -> PreTrainedConfig:
    """Build the config of a small model; Qwen2, Qwen3, Llama and Gemma 2 have grouped-query attention."""
    from transformers import AutoConfig

    shape: dict[str, object] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": max_positions,
        "tie_word_embeddings": tie,
        "eos_token_id": 256,
        "bos_token_id": None,
        "pad_token_id": 257,
    }
    if architecture in ("qwen2", "qwen3", "llama", "gemma2"):
        shape["num_key_value_heads"] = kv_heads
    if architecture == "qwen3":
        shape["head_dim"] = hidden // heads
    if architecture == "gemma2":
        # Caps low enough and windows short enough to matter at this size.
        shape |= {"head_dim": hidden // heads, "sliding_window": 16, "final_logit_softcapping": 0.5}
    return AutoConfig.for_model(architecture, **shape)


def tiny_model_folder(
    path: Path,
    *,
    architecture: Architecture = "qwen2",
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    tie: bool = True,
) -> Path:
    """Write a random float32 model and its tokenizer to ``path`` and return ``path``.

    Needs no network and less than a second. Weights are larger than usual, so that distributions are not flat. Does not
    change torch's global random state.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(architecture, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, tie=tie)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    with quiet_transformers():
        model.save_pretrained(path)
        byte_tokenizer(architecture).save_pretrained(path)
    return path
