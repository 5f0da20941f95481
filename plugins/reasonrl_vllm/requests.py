"""From a request to what vLLM is asked, and from its answer to completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reasonrl import Completion, FinishReason, RolloutRequest
from reasonrl.errors import RolloutError
from reasonrl.functional.randomness import derive_seed

LOWEST_TEMPERATURE = 0.01
"""Below it vLLM would silently sample at this temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the engine holds: ``context`` tokens of prompt and completion; ``option`` is the key that sets it."""

    context: int
    option: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One completion as an engine gives it. ``stopped_by``: the token or string that ended it, if vLLM says so."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: str | None
    stopped_by: int | str | None


def check_request(request: RolloutRequest, limits: Limits) -> None:
    """Raise RolloutError for a request that the engine would refuse, cut short or answer otherwise."""
    where = f"vllm: problem {request.problem.id!r}"
    prompt, limit = len(request.prompt_ids), request.sampling.max_completion_tokens
    if prompt == 0:
        raise RolloutError(f"{where}: the prompt has no tokens; a model needs at least one")
    if prompt + limit > limits.context:
        raise RolloutError(
            f"{where}: {prompt} prompt tokens and {limit} completion tokens exceed {limits.option} of "
            f"{limits.context}; lower sampling.max_prompt_tokens or sampling.max_completion_tokens"
        )
    if 0.0 < request.sampling.temperature < LOWEST_TEMPERATURE:
        raise RolloutError(
            f"{where}: temperature {request.sampling.temperature:g} is under vLLM's lowest, "
            f"{LOWEST_TEMPERATURE}; use 0 for greedy completions"
        )


def sampling_options(request: RolloutRequest, eos_ids: tuple[int, ...]) -> dict[str, Any]:
    """Keyword arguments of vLLM's ``SamplingParams`` for a group as one request.

    Full vocabulary. A greedy completion is asked for once: all of its group are the same. EOS tokens are given as
    stop tokens, so that the engine's own idea of them does not matter. vLLM adds the sample's number to the seed;
    hashed first, neighboring seeds share no samples.
    """
    sampling = request.sampling
    return {
        "n": 1 if sampling.is_greedy else request.group_size,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "seed": None if sampling.is_greedy else derive_seed(request.seed, "vllm") >> 2,
        "max_tokens": sampling.max_completion_tokens,
        "ignore_eos": True,
        "stop_token_ids": list(eos_ids),
        "stop": list(sampling.stop) or None,
        "detokenize": bool(sampling.stop),
        "skip_special_tokens": False,
        "logprobs": 0,  # those of the sampled tokens, and no others
    }


class Reader:
    """Reads an engine's answers. ``tokenizer`` is the trainer's: texts are those of the token ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def completion(self, answer: Answer, policy_version: int) -> Completion:
        """The completion.

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
    """vLLM says ``stop`` of an end token (``stopped_by`` is its id) and of a stop string alike."""
    if finished == "stop":
        return FinishReason.STOP_STRING if isinstance(stopped_by, str) else FinishReason.EOS
    return {"length": FinishReason.LENGTH, "abort": FinishReason.ABORT}.get(finished or "", FinishReason.ERROR)


def eos_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's EOS and those of the model's generation config (chat models end turns with another one)."""
    extra = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(extra if isinstance(extra, list | tuple) else [extra])}
    return tuple(sorted(i for i in ids if i is not None))


def _check_logprobs(answer: Answer) -> None:
    if len(answer.logprobs) != len(answer.token_ids):
        raise RolloutError(f"vllm: {len(answer.logprobs)} log-probabilities came for {len(answer.token_ids)} tokens")
    if not all(value <= 0.0 and value != -float("inf") for value in answer.logprobs):
        raise RolloutError("vllm: the model gives non-finite log-probabilities; its weights have diverged")
