"""When a completion ends: EOS tokens and stop strings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StopStrings:
    """Finds stop strings in a completion's decoded tail; the work per token does not grow with its length."""

    def __init__(self, stop: tuple[str, ...], tokenizer: Any, vocabulary: int, device: torch.device) -> None:
        self._stop = stop
        self._tokenizer = tokenizer
        # Every token is at least one byte of text, so a match lies within that many tokens; the rest is for a
        # character cut by the window's left edge.
        self.window = max(len(text.encode()) for text in stop) + 4
        self._can_complete = self._completing_tokens(vocabulary).to(device)

    def candidates(self, tokens: Tensor) -> Tensor:
        """``[B]`` bool: rows whose newest token ``tokens`` ``[B]`` may complete a stop string."""
        return self._can_complete[tokens]

    def ends(self, tail: list[int]) -> bool:
        """Whether the text of the last ``window`` tokens holds a stop string."""
        text = decode(self._tokenizer, tail)
        return any(stop in text for stop in self._stop)

    def _completing_tokens(self, vocabulary: int) -> Tensor:
        """``[V]`` bool. A token can complete a match only if it holds a stop string's last character, or part of it."""
        last = {text[-1] for text in self._stop}
        if any(char.isspace() for char in last):
            # Some tokenizers drop a token's spaces when it is decoded alone.
            return torch.ones(vocabulary, dtype=torch.bool)
        wanted = last | {"\ufffd"}
        flags = torch.zeros(vocabulary, dtype=torch.bool)
        for token in range(min(vocabulary, len(self._tokenizer))):
            flags[token] = not wanted.isdisjoint(decode(self._tokenizer, [token]))
        return flags


def decode(tokenizer: Any, token_ids: list[int]) -> str:
    """The text of ``token_ids``, special tokens and spaces as they are."""
    return tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
