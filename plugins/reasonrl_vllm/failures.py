"""Translate vLLM's errors to recipe keys and remedies. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from reasonrl_vllm.config import VLLMConfig

OTHER_BACKEND = "set rollout_backend.name to hf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failures:
    """Explains the errors of an engine with these options."""

    config: VLLMConfig
    on_gpu: bool

    def explain(self, error: BaseException) -> str:
        """Return cause and remedy in one line; vLLM's own message if it is unknown."""
        text = " ".join(str(_root(error)).split())
        for pattern, say in _KNOWN:
            if found := re.search(pattern, text):
                return say(self, *found.groups())
        return first_cause(error)

    def cache_too_small(self, holds: int, needs: int) -> str:
        """Explain a cache of ``holds`` tokens that is too small for ``needs``."""
        return (
            f"the KV cache holds {holds} tokens, sampling.max_prompt_tokens and max_completion_tokens need "
            f"{needs}; raise {self._cache_option()}"
        )

    def _cache_option(self) -> str:
        if self.config.kv_cache_gib is None and self.on_gpu:
            return f"rollout_backend.gpu_memory_utilization (now {self.config.gpu_memory_utilization:g})"
        return f"rollout_backend.kv_cache_gib (now {self.config.kv_cache_gib or 1.0:g})"


def first_cause(error: BaseException) -> str:
    """Return the root cause in one line."""
    cause = _root(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:400]}"


def _root(error: BaseException) -> BaseException:
    """Unwrap to the first error; vLLM wraps its errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cache_over_memory(of: Failures, free: str, wanted: str) -> str:
    return f"a KV cache of {wanted} GiB does not fit into {free} GiB of free memory; lower rollout_backend.kv_cache_gib"


def _length_over_cache(of: Failures, length: str, needed: str, there: str, holds: str | None) -> str:
    lower = f"lower rollout_backend.max_model_len to {holds}" if holds else "lower rollout_backend.max_model_len"
    return (
        f"a sequence of rollout_backend.max_model_len {length} tokens needs {needed} GiB of KV cache, "
        f"{there} are available; {lower}, or raise {of._cache_option()}"
    )


def _no_cache(of: Failures) -> str:
    return f"no memory left for a KV cache after loading the model; raise {of._cache_option()}"


def _share_over_free(of: Failures, free: str, total: str, wanted: str) -> str:
    return (
        f"rollout_backend.gpu_memory_utilization {of.config.gpu_memory_utilization:g} is {wanted} GiB, {free} of the "
        f"GPU's {total} GiB are free; lower it, or stop other processes on the GPU"
    )


def _out_of_memory(of: Failures) -> str:
    return (
        "out of GPU memory; lower rollout_backend.gpu_memory_utilization (now "
        f"{of.config.gpu_memory_utilization:g}) or rollout_backend.max_num_seqs (now {of.config.max_num_seqs})"
    )


def _length_over_model(of: Failures, length: str, holds: str) -> str:
    return f"rollout_backend.max_model_len is {length}, the model's context is {holds}; lower or remove it"


def _heads(of: Failures, size: str) -> str:
    return f"its CPU build does not support a head size of {size}; {OTHER_BACKEND}"


def _own_code(of: Failures) -> str:
    return f"the model has custom code that vLLM does not support; {OTHER_BACKEND}"


def _end_tokens(of: Failures, tokens: str, size: str) -> str:
    return f"the model's vocabulary has {size} tokens, its generation config has EOS tokens {tokens}; fix that config"


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
"""Patterns of vLLM 0.32's messages, with their numbers and names."""
