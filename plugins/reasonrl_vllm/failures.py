"""What vLLM raises, in the words of the recipe. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from reasonrl_vllm.config import VLLMConfig

OTHER_BACKEND = "set rollout_backend.name to hf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """Explains what an engine of these options raises."""

    config: VLLMConfig
    on_gpu: bool

    def explain(self, error: BaseException) -> str:
        """What went wrong first and what to do, in one line; vLLM's own words where we know no better."""
        text = " ".join(str(_root(error)).split())
        for pattern, say in _KNOWN:
            if found := re.search(pattern, text):
                return say(self, *found.groups())
        return first_cause(error)

    def cache_too_small(self, holds: int, needs: int) -> str:
        """For a cache of ``holds`` tokens where a prompt and its completion may have ``needs``."""
        return (
            f"the key-value cache holds {holds} tokens, sampling.max_prompt_tokens and max_completion_tokens need "
            f"{needs}; raise {self._cache_option()}"
        )

    def _cache_option(self) -> str:
        if self.config.kv_cache_gib is None and self.on_gpu:
            return f"rollout_backend.gpu_memory_utilization, which is {self.config.gpu_memory_utilization:g}"
        return f"rollout_backend.kv_cache_gib, which is {self.config.kv_cache_gib or 1.0:g}"


def first_cause(error: BaseException) -> str:
    """What went wrong first, in one line of vLLM's words."""
    cause = _root(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:400]}"


def _root(error: BaseException) -> BaseException:
    """What was raised first: vLLM wraps its errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cache_over_memory(of: Failures, free: str, wanted: str) -> str:
    return f"a key-value cache of {wanted} GiB does not fit, {free} GiB are free; lower rollout_backend.kv_cache_gib"


def _length_over_cache(of: Failures, length: str, needed: str, there: str, holds: str | None) -> str:
    lower = f"lower rollout_backend.max_model_len to {holds}" if holds else "lower rollout_backend.max_model_len"
    return (
        f"a sequence of rollout_backend.max_model_len {length} tokens needs {needed} GiB of key-value cache, there are "
        f"{there}; {lower}, or raise {of._cache_option()}"
    )


def _no_cache(of: Failures) -> str:
    return f"there is no room for a key-value cache beside the model; raise {of._cache_option()}"


def _share_over_free(of: Failures, free: str, total: str, wanted: str) -> str:
    return (
        f"rollout_backend.gpu_memory_utilization {of.config.gpu_memory_utilization:g} is {wanted} GiB, {free} of the "
        f"GPU's {total} GiB are free; lower it, or end what else uses the GPU"
    )


def _out_of_memory(of: Failures) -> str:
    return (
        "the GPU's memory is full; lower rollout_backend.gpu_memory_utilization, which is "
        f"{of.config.gpu_memory_utilization:g}, or rollout_backend.max_num_seqs, which is {of.config.max_num_seqs}"
    )


def _length_over_model(of: Failures, length: str, holds: str) -> str:
    return f"rollout_backend.max_model_len is {length}, the model's context is {holds}; lower it or leave it out"


def _heads(of: Failures, size: str) -> str:
    return f"its CPU build knows no attention heads of {size} dimensions; {OTHER_BACKEND}"


def _own_code(of: Failures) -> str:
    return f"the model has code of its own, which vLLM's one is not made for; {OTHER_BACKEND}"


def _end_tokens(of: Failures, tokens: str, size: str) -> str:
    return f"the model's vocabulary has {size} tokens, its generation config ends completions on {tokens}; correct it"


_KNOWN: tuple[tuple[str, Callable[..., str]], ...] = (
    (
        r"\(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested .*?\(([\d.]+)",
        _cache_over_memory,
    ),
    (
        r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed.*?KV cache memory \(([\d.]+) GiB\)"
        r"(?:.*?maximum model length is (\d+))?",
        _length_over_cache,
    ),
    (r"No available memory for the cache blocks|Cannot auto-fit max_model_len", _no_cache),
    (
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) .*?utilization \([\d.]+, ([\d.]+) GiB\)",
        _share_over_free,
    ),
    (r"CUDA (?:[Ee]rror: )?out of memory", _out_of_memory),
    (r"max_model_len \((\d+)\) is greater than the derived max_model_len \(\w+=(\d+)", _length_over_model),
    (r"Unsupported CPU attention configuration: head_dim=(\d+)", _heads),
    (r"token_id\(s\) \[([\d, ]+)\] in stop_token_ids .*?Vocabulary size: (\d+)", _end_tokens),
    (r"contains custom code which must be executed|does not recognize this architecture", _own_code),
)
"""vLLM 0.32's messages, by the parts that carry a number or a name."""
