"""Convert requests to vLLM's sampling parameters, and its answers to completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reasonrl import Completion, FinishReason, RolloutRequest
from reasonrl.errors import RolloutError
from reasonrl.functional.randomness import derive_seed

LOWEST_TEMPERATURE = 0.01
"""vLLM silently raises lower temperatures to this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the engine: ``context`` tokens of prompt and completion; ``option`` is the key that sets it."""

    context: int
    option: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A completion from an engine. ``stopped_by``: the token or string that ended it, if reported."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: str | None
    stopped_by: int | str | None


def check_request(request: RolloutRequest, limits: Limits) -> None:
    """Raise RolloutError for a request that the engine would reject, truncate or alter."""
    where = f"vllm: problem {request.problem.id!r}"
    prompt, limit = len(request.prompt_ids), request.sampling.max_completion_tokens
    if prompt == 0:
        raise RolloutError(f"{where}: the prompt is empty; expected at least one token")
    if prompt + limit > limits.context:
        raise RolloutError(
            f"{where}: {prompt} prompt tokens and {limit} completion tokens exceed {limits.option} of "
            f"{limits.context}; lower sampling.max_prompt_tokens or sampling.max_completion_tokens"
        )
    if 0.0 < request.sampling.temperature < LOWEST_TEMPERATURE:
        raise RolloutError(
            f"{where}: temperature {request.sampling.temperature:g} is below vLLM's minimum of "
            f"{LOWEST_TEMPERATURE}; use 0 for greedy sampling"
        )


def sampling_options(request: RolloutRequest, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """Build vLLM's ``SamplingParams`` arguments for a group as one request.

    A greedy completion is asked for once: all of its group are the same. EOS tokens are given as
    stop tokens, so that the engine's own idea of them does not matter. vLLM adds the sample's number to the seed;
    hashed first, neighboring seeds share no samples.
    """
    sampling = request.sampling
    return {
        "n": 1 if sampling.is_greedy else request.group_size,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": -1 if sampling.top_k is None else sampling.top_k,
        "min_p": 0.0,
        "seed": None if sampling.is_greedy else derive_seed(request.seed, "vllm") >> 2,
        "max_tokens": sampling.max_completion_tokens,
        "ignore_eos": True,
        "stop_token_ids": list(eos_ids),
        "stop": list(sampling.stop) or None,
        "detokenize": bool(sampling.stop),
        "skip_special_tokens": False,
        "logprobs": 0,  # only those of the sampled tokens
    }


class Reader:
    """Converts an engine's answers, decoding texts with the trainer's tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def completion(self, answer: Answer, policy_version: int) -> Completion:
        """Convert one answer.

        Raises:
            RolloutError: for log-probabilities that are not finite.
        """
        tokens, reason = answer.token_ids, finish_reason(answer.finished, answer.stopped_by)
        _check_logprobs(answer)
        return Completion(
            token_ids=tokens,
            logprobs=answer.logprobs,
            text=self._text(tokens[:-1] if reason is FinishReason.EOS else tokens),
            finish_reason=reason,
            policy_version=policy_version,
        )

    def _text(self, tokens: tuple[int, ...]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def finish_reason(finished: str | None, stopped_by: int | str | None) -> FinishReason:
    """Map vLLM's finish reason; ``stop`` covers EOS tokens (``stopped_by`` is the id) and stop strings."""
    if finished == "stop":
        return FinishReason.STOP_STRING if isinstance(stopped_by, str) else FinishReason.EOS
    return {"length": FinishReason.LENGTH, "abort": FinishReason.ABORT}.get(finished or "", FinishReason.ERROR)


def _check_logprobs(answer: Answer) -> None:
    if len(answer.logprobs) != len(answer.token_ids):
        raise RolloutError(f"vllm: got {len(answer.logprobs)} log-probabilities for {len(answer.token_ids)} tokens")
    if not all(value <= 0.0 and value != -float("inf") for value in answer.logprobs):
        raise RolloutError("vllm: non-finite log-probabilities; the weights have diverged")
