"""The tokenizer of a GGUF file: byte-level BPE, which is what Qwen, Llama 3 and GPT-2 use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.errors import RecipeError

if TYPE_CHECKING:
    from types import ModuleType

    from gguf import GGUFWriter

UNKNOWN_SPLIT = "default"
SPLITS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
}
"""llama.cpp's name of a pre-tokenizer -> the beginning of its pattern."""


def add_tokenizer(writer: GGUFWriter, gguf: ModuleType, folder: Path, *, rows: int) -> str:
    """Add the tokenizer of ``folder``; returns a warning if llama.cpp may split text differently.

    Args:
        rows: Rows of the embeddings; those without a token are padded.

    Raises:
        RecipeError: If it is not byte-level BPE.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    plan = json.loads(tokenizer.backend_tokenizer.to_str())
    if plan["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(plan.get("pre_tokenizer")):
        raise RecipeError(
            f"--format gguf supports byte-level BPE tokenizers, got {plan['model']['type']} without bytes; export "
            "with --format merged and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    split = find_split(plan)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in plan["model"]["merges"]]
    tokens, kinds = _vocabulary(tokenizer, gguf, rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if merges:
        writer.add_token_merges(merges)
    else:
        writer.add_token_scores([0.0] * rows)  # readers want one or the other
    _add_special_tokens(writer, tokenizer)
    if split != UNKNOWN_SPLIT:
        return ""
    return (
        "llama.cpp does not know how this tokenizer splits text and may produce other tokens; use the tokenizer files "
        "beside it"
    )


def find_split(plan: Mapping[str, Any]) -> str:
    """Name the pre-tokenizer of ``tokenizer.json`` as llama.cpp does; ``default`` if it knows none."""
    before = plan["pre_tokenizer"]
    parts = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and parts[1].get("use_regex", True):
        return "smollm"
    pattern = parts[0].get("pattern", {}).get("Regex", "") if kinds == ["Split", "ByteLevel"] else ""
    return next((name for name, start in SPLITS.items() if pattern.startswith(start)), UNKNOWN_SPLIT)


def _vocabulary(tokenizer: Any, gguf: ModuleType, rows: int) -> tuple[list[str], list[int]]:
    kind = gguf.TokenType
    named = {index: token for token, index in tokenizer.get_vocab().items() if index < rows}
    added = tokenizer.added_tokens_decoder
    tokens = [named.get(index, f"[PAD{index}]") for index in range(rows)]
    kinds = []
    for index in range(rows):
        if index in added:
            kinds.append(kind.CONTROL if added[index].special else kind.USER_DEFINED)
        else:
            kinds.append(kind.NORMAL if index in named else kind.UNUSED)
    return tokens, [int(one) for one in kinds]


def _add_special_tokens(writer: GGUFWriter, tokenizer: Any) -> None:
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            add(index)
    writer.add_add_bos_token(tokenizer.encode("1")[:1] == [tokenizer.bos_token_id])
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
