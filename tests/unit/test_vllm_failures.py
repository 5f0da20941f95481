"""What vLLM raises reaches the user in the recipe's words."""

import re

import pytest

from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.failures import Failures

KNOWN = [
    (
        "Available memory on node 0 (11.44/13.21 GiB) on kv cache allocation is less than requested memory for kv "
        "(1000.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other "
        "processes.",
        "a KV cache of 1000.0 GiB does not fit into 11.44 GiB of free memory; lower rollout_backend.kv_cache_gib",
    ),
    (
        "To serve at least one request with the model's max seq len (4096), (0.02 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (0.01 GiB). Based on the available memory, the estimated maximum "
        "model length is 2432. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU "
        "backend) or decreasing `max_model_len` when initializing the engine. See https://docs.vllm.ai for details.",
        "a sequence of rollout_backend.max_model_len 4096 tokens needs 0.02 GiB of KV cache, 0.01 are available; "
        "lower rollout_backend.max_model_len to 2432, or raise rollout_backend.gpu_memory_utilization (now 0.4)",
    ),
    (
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the "
        "engine (this flag also controls CPU memory reservation on the CPU backend, despite its name).",
        "no memory left for a KV cache after loading the model; raise rollout_backend.gpu_memory_utilization (now 0.4)",
    ),
    (
        "Free memory on device cuda:0 (20.1/79.25 GiB) on startup is less than desired GPU memory utilization (0.4, "
        "31.7 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "rollout_backend.gpu_memory_utilization 0.4 is 31.7 GiB, 20.1 of the GPU's 79.25 GiB are free; lower it, "
        "or stop other processes on the GPU",
    ),
    (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB",
        "out of GPU memory; lower rollout_backend.gpu_memory_utilization (now 0.4) or "
        "rollout_backend.max_num_seqs (now 256)",
    ),
    (
        "User-specified max_model_len (8192) is greater than the derived max_model_len (max_position_embeddings=4096 "
        "or model_max_length=None in model's config.json). To allow overriding this maximum, set the env var",
        "rollout_backend.max_model_len is 8192, the model's context is 4096; lower or remove it",
    ),
    (
        "Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0",
        "its CPU build does not support a head size of 16; set rollout_backend.name to hf",
    ),
    (
        "1 validation error for ModelConfig Value error, The repository /tmp/x contains custom code which must be "
        "executed to correctly load the model.",
        "the model has custom code that vLLM does not support; set rollout_backend.name to hf",
    ),
    (
        "token_id(s) [50256] in stop_token_ids contain out-of-vocab token ids. Vocabulary size: 770 "
        "(parameter=stop_token_ids, value=[50256])",
        "the model's vocabulary has 770 tokens, its generation config has EOS tokens 50256; fix that config",
    ),
]


@pytest.mark.parametrize(("words", "expected"), KNOWN, ids=[re.sub(r"\W.*", "", w) for w, _ in KNOWN])
def test_known_failures_name_our_options(words: str, expected: str) -> None:
    assert Failures(config=VLLMConfig(), on_gpu=True).explain(ValueError(words)) == expected


@pytest.mark.parametrize(
    ("config", "on_gpu", "option"),
    [
        (VLLMConfig(), True, "rollout_backend.gpu_memory_utilization (now 0.4)"),
        (VLLMConfig(kv_cache_gib=2.5), True, "rollout_backend.kv_cache_gib (now 2.5)"),
        (VLLMConfig(), False, "rollout_backend.kv_cache_gib (now 1)"),
    ],
)
def test_a_small_cache_names_the_option_that_sets_it(config: VLLMConfig, on_gpu: bool, option: str) -> None:
    failures = Failures(config=config, on_gpu=on_gpu)
    words = "No available memory for the cache blocks."
    assert failures.explain(ValueError(words)).endswith(f"; raise {option}")
    assert failures.cache_too_small(128, 200) == (
        f"the KV cache holds 128 tokens, sampling.max_prompt_tokens and max_completion_tokens need 200; raise {option}"
    )


def test_an_unknown_failure_is_its_first_cause_in_one_line() -> None:
    error = RuntimeError("Engine core initialization failed. See root cause above.")
    error.__cause__ = KeyError("first\n  cause")
    failures = Failures(config=VLLMConfig(), on_gpu=False)
    assert failures.explain(error) == r"KeyError: 'first\n cause'"
