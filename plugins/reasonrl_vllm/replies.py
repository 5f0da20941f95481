"""Read a server's answers. What it sends is believed only in the form that was asked for. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonrl_vllm.requests import Answer

NO_LOGPROB = -9999.0
"""The value the server reports in place of -inf and NaN."""
FINISHED = ("stop", "length", "abort", "error", "repetition")
BROKEN_OFF = ("abort", "error")
BYTES_PER_TOKEN, BYTES_BESIDE = 1024, 2**20


def most_bytes(asked: Mapping[str, Any], context: int) -> int:
    """The size of an answer to these sampling parameters, generously."""
    return BYTES_BESIDE + BYTES_PER_TOKEN * asked.get("n", 1) * asked.get("max_tokens", context)


def read_choices(reply: Any) -> list[dict[str, Any]]:
    """The completions in order.

    Raises:
        ValueError: if the reply has another form.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("no list of choices")
    indices = [choice.get("index") for choice in choices]
    if not all(_is_int(index) for index in indices) or sorted(indices) != list(range(len(indices))):
        raise ValueError(f"choices are not numbered from 0 to {len(indices) - 1}")
    return sorted(choices, key=lambda choice: int(choice["index"]))


def made_by(choice: Mapping[str, Any]) -> list[str]:
    """The names of the weights that sampled its tokens.

    Raises:
        ValueError: if they have another form.
    """
    spans = choice.get("weight_versions") or []
    if not isinstance(spans, list) or not all(isinstance(span, dict) and "version" in span for span in spans):
        raise ValueError("weight_versions is not a list of versions")
    return [str(span["version"])[:100] for span in spans] or ["unnamed"] * bool(choice.get("token_ids"))


def read_answer(choice: Mapping[str, Any], asked: Mapping[str, Any], vocabulary: int) -> Answer:
    """One completion.

    Args:
        asked: the sampling parameters of its request.
        vocabulary: the number of the policy's tokens.

    Raises:
        ValueError: if it has another form, or is not what was asked for.
    """
    tokens, finished = choice.get("token_ids"), choice.get("finish_reason")
    if not isinstance(tokens, list) or not all(_is_int(token) and 0 <= token < vocabulary for token in tokens):
        raise ValueError(f"token_ids is not a list of ids from 0 to {vocabulary - 1}")
    if len(tokens) > (most := asked.get("max_tokens", len(tokens))):
        raise ValueError(f"{len(tokens)} tokens, {most} asked for")
    if not isinstance(finished, str) or finished not in FINISHED:
        raise ValueError(f"unknown finish_reason {finished!r:.60}")
    if not tokens and finished not in BROKEN_OFF:
        raise ValueError(f"no tokens, although it finished by {finished!r}")
    return Answer(
        token_ids=tuple(tokens),
        logprobs=_logprobs(choice),
        finished=finished,
        stopped_by=_stopped_by(choice, tokens, asked),
    )


def _logprobs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    held = choice.get("logprobs")
    entries = held.get("content") if isinstance(held, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("no list of log-probabilities")
    values = [entry.get("logprob") for entry in entries]
    if not all(isinstance(value, float) or (_is_int(value) and abs(value) < 2**53) for value in values):
        raise ValueError("a log-probability is not a number")
    return tuple(float(value) if value > NO_LOGPROB else -float("inf") for value in values)


def _stopped_by(choice: Mapping[str, Any], tokens: list[int], asked: Mapping[str, Any]) -> int | str | None:
    """The token or string that ended it, which the request must have named."""
    by = choice.get("stop_reason")
    if by is not None and not isinstance(by, str) and not _is_int(by):
        raise ValueError(f"unknown stop_reason {by!r:.60}")
    if choice.get("finish_reason") != "stop":
        return by
    ends, strings = asked.get("stop_token_ids"), asked.get("stop") or ()
    if isinstance(by, str) and by not in strings:
        raise ValueError(f"stopped by the string {by!r:.60}, which was not asked for")
    if not isinstance(by, str) and ends is not None and tokens[-1] not in ends:
        raise ValueError(f"finished by 'stop' at token {tokens[-1]}, which is not an EOS token")
    return by


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
