"""The tokenizer of the tiny Countdown model.

Byte-level, so any text can be encoded and is given back exactly; on top of the 256 bytes it knows the
integers 0 to 499 and the fixed pieces of the compact format as single, ordinary tokens (longest piece
first; ``1234`` is ``123`` ``4``). There are no merges: a pre-tokenizer cuts the pieces out and the
vocabulary takes them whole.
"""

import re
from pathlib import Path
from typing import Any

NUM_INTEGERS = 500
VOCAB_SIZE = 768
"""A multiple of 64. The last ids are reserved names that no text encodes to, so that every id decodes."""
PAD = "<|pad|>"
EOS = "<|eos|>"
PIECES = (
    "<think>\n",
    "</think>\n",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    " no\n",
    " yes\n",
    "stop\n",
    "Numbers: ",
    ". Target: ",
    ".\n",
    ", ",
)
"""Longer pieces come before their prefixes, because the first matching alternative wins."""
LATER_PIECES = ("<calc>", "</calc>")
"""Pieces that countdown-base was not trained with. Their ids follow all others, which keep theirs."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def build_tokenizer() -> Any:
    """Build the tokenizer as a ``PreTrainedTokenizerFast`` that can be saved with a model and reloaded."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(),
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def _backend() -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    # ignore_merges: a pre-token that is in the vocabulary is taken whole; the rest falls apart into bytes.
    backend = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    integers = "[1-4][0-9]{2}|[1-9][0-9]|[0-9]"
    pieces = "|".join(re.escape(piece) for piece in (*PIECES, *LATER_PIECES))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"{pieces}|{integers}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, EOS)])
    return backend


def _vocabulary() -> dict[str, int]:
    byte_of = _byte_characters()
    pieces = [*PIECES, *(str(n) for n in range(10, NUM_INTEGERS)), *LATER_PIECES]
    written = ["".join(byte_of[b] for b in piece.encode()) for piece in pieces]
    tokens = [PAD, EOS, *byte_of, *written]
    # Digits are always separate tokens, so encoding never produces these names.
    reserved = [f"<|reserved_{i}|>" for i in range(VOCAB_SIZE - len(tokens))]
    return {token: i for i, token in enumerate([*tokens, *reserved])}


def _byte_characters() -> list[str]:
    """Map bytes to characters as byte-level tokenizers do: printable Latin-1 as is, others from U+0100 up."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256))
    return [chr(b) if b in printable else chr(256 + next(others)) for b in range(256)]


def model_config() -> Any:
    """The configuration of ``countdown-base``, 0.85M parameters.

    Llama, not Qwen2: transformers 5 loads every tokenizer that lies beside a ``qwen2`` config as Qwen's own
    class, which drops our pre-tokenizer and normalizes Unicode, whatever ``tokenizer_class`` says.
    """
    from transformers import LlamaConfig

    tokenizer = build_tokenizer()
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def write_model_folder(folder: Path) -> None:
    """Write config, generation config and tokenizer of ``countdown-base``, without weights."""
    from transformers import GenerationConfig

    config = model_config()
    config.save_pretrained(folder)
    GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
