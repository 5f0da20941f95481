"""The plugin ``vllm`` where vLLM is not needed: options, refusals, and the two languages."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from support.small_recipes import cli
from support.tiny_policies import request

from reasonrl import FinishReason, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl_vllm import engine
from reasonrl_vllm.checks import check_options
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.requests import Answer, Limits, Reader, check_request, finish_reason, sampling_options

LIMITS = Limits(context=64, option="the model's context")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_model_len", 0, "max_model_len must be >= 1, got 0"),
        ("max_num_seqs", 0, "max_num_seqs must be >= 1, got 0"),
        ("tensor_parallel_size", -1, "tensor_parallel_size must be >= 1, got -1"),
        ("gpu_memory_utilization", 1.0, "gpu_memory_utilization must be in (0, 1), got 1.0"),
        ("gpu_memory_utilization", float("nan"), "must be in (0, 1), got nan"),
        ("kv_cache_gib", 0.0, "kv_cache_gib must be a number of GiB > 0, got 0.0"),
        ("kv_cache_gib", float("nan"), "got nan"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        VLLMConfig(**{option: value})


def test_without_vllm_the_engine_is_unavailable_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    wanted = "rollout_backend 'vllm' is unavailable here: no module vllm; `pip install -e '.[vllm]'` in the clone"
    checked = cli("recipes", "check", "countdown_grpo", "rollout_backend.name=vllm")
    assert (checked.exit_code, wanted in " ".join(checked.output.split())) == (0, True), checked.output
    refused = cli("train", "countdown_grpo", "rollout_backend.name=vllm")
    assert (refused.exit_code, wanted in refused.output) == (2, True), refused.output


@pytest.mark.parametrize(("found", "is_known"), [("0.32.0", True), ("0.32.4+cpu", True), ("0.33.0", False)])
def test_a_version_out_of_range_is_named(found: str, is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "version", lambda name: found)
    if is_known:
        assert engine.check_version() == found
    else:
        with pytest.raises(RolloutError, match=r"vllm 0\.33\.0 is installed, .*pip install 'vllm<0\.33,>=0\.32'"):
            engine.check_version()


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        ((), SamplingParams(), "the prompt is empty"),
        (
            tuple(range(60)),
            SamplingParams(max_completion_tokens=5),
            "60 prompt tokens and 5 completion tokens exceed the model's context of 64; lower",
        ),
        (
            (1,),
            SamplingParams(temperature=0.001, max_completion_tokens=5),
            "temperature 0.001 is below vLLM's minimum",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    prompt: tuple[int, ...], sampling: SamplingParams, message: str
) -> None:
    with pytest.raises(RolloutError) as refused:
        check_request(request(prompt, sampling), LIMITS)
    assert message in str(refused.value)
    assert "vllm: problem 'seed-0'" in str(refused.value)


def context_of(**config: int) -> Any:
    """Of a model with a context of 64 tokens and, unless ``config`` says otherwise, 6 heads of 32 dimensions."""
    shape = {"max_position_embeddings": 64, "hidden_size": 192, "num_attention_heads": 6, **config}
    text = SimpleNamespace(**{"num_key_value_heads": shape["num_attention_heads"], **shape})
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    return SimpleNamespace(
        policy=SimpleNamespace(model=model),
        max_prompt_tokens=20,
        sampling=SamplingParams(max_completion_tokens=40),
        device="cpu",
    )


@pytest.mark.parametrize(
    ("option", "shape", "processes", "message"),
    [
        ({"max_model_len": 40}, {}, 1, "need 60 tokens, rollout_backend.max_model_len is 40; raise it"),
        (
            {"max_model_len": 100},
            {},
            1,
            "rollout_backend.max_model_len is 100, the model's context is 64; lower or remove it",
        ),
        (
            {"tensor_parallel_size": 4},
            {},
            2,
            "vllm: rollout_backend.tensor_parallel_size is 4, the run has 2 processes; "
            "start it with accelerate launch --num_processes 4",
        ),
        ({"tensor_parallel_size": 2}, {}, 1, "the run has 1 process; start it with accelerate launch --num_"),
        (
            {"tensor_parallel_size": 2},
            {},
            3,
            "the run has 3 processes; start it with accelerate launch --num_processes 4",
        ),
        (
            {"tensor_parallel_size": 4},
            {},
            4,
            "is 4, which does not divide the model's 6 attention heads; lower it",
        ),
        (
            {"tensor_parallel_size": 3},
            {"num_key_value_heads": 2},
            3,
            "is 3, which does not divide the model's 2 key-value heads; lower it",
        ),
        (
            {},
            {"num_attention_heads": 12},
            1,
            "head size is 16, vLLM's CPU build needs at least 32; set rollout",
        ),
    ],
)
def test_options_that_do_not_fit_the_run_are_refused(
    option: dict[str, Any], shape: dict[str, int], processes: int, message: str
) -> None:
    with pytest.raises(RolloutError) as refused:
        check_options(VLLMConfig(**option), context_of(**shape), processes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("spread", "heads", "shared", "processes"), [(1, 6, 6, 5), (2, 6, 2, 2), (2, 6, 1, 4), (6, 6, 3, 12)]
)
def test_options_that_fit_the_run_are_taken(spread: int, heads: int, shared: int, processes: int) -> None:
    context = context_of(num_attention_heads=heads, num_key_value_heads=shared)
    check_options(VLLMConfig(max_model_len=60, tensor_parallel_size=spread), context, processes)


def test_neighboring_seeds_share_no_samples() -> None:
    """The engine adds the sample's number to the seed that it is given."""
    seeds = [sampling_options(request((1,), SamplingParams(), seed=s), (1,))["seed"] for s in (1, 2, 3, 2**64 - 1)]
    assert all(abs(a - b) > 1000 for i, a in enumerate(seeds) for b in seeds[:i])
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_a_group_is_one_request_and_a_greedy_group_one_completion() -> None:
    options = sampling_options(request((1,), SamplingParams(stop=("x",)), group_size=8), (3, 5))
    assert (options["n"], options["stop_token_ids"], options["stop"]) == (8, [3, 5], ["x"])
    greedy = sampling_options(request((1,), SamplingParams(temperature=0.0), group_size=8), (3,))
    assert (greedy["n"], greedy["temperature"], greedy["seed"]) == (1, 0.0, None)
    assert (options["top_p"], options["top_k"]) == (1.0, -1)
    cut = sampling_options(request((1,), SamplingParams(top_p=0.9, top_k=20)), (3,))
    assert (cut["top_p"], cut["top_k"]) == (0.9, 20)


@pytest.mark.parametrize(
    ("finished", "stopped_by", "expected"),
    [
        ("stop", 3, FinishReason.EOS),
        ("stop", None, FinishReason.EOS),
        ("stop", "ABA", FinishReason.STOP_STRING),
        ("length", None, FinishReason.LENGTH),
        ("abort", None, FinishReason.ABORT),
        ("error", None, FinishReason.ERROR),
        (None, None, FinishReason.ERROR),
    ],
)
def test_every_end_has_its_reason(finished: Any, stopped_by: Any, expected: FinishReason) -> None:
    assert finish_reason(finished, stopped_by) is expected


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.5])
def test_log_probabilities_that_are_none_are_refused(value: float) -> None:
    answer = Answer(token_ids=(4,), logprobs=(value,), finished="length", stopped_by=None)
    with pytest.raises(RolloutError, match="the weights have diverged"):
        Reader(tokenizer=None).completion(answer, 0)
