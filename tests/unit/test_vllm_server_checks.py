"""What is refused before a run samples from a vLLM server: one line with the fix for each."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripted_vllm import Script, scripted, server_config
from support.vllm_server import free_url

from reasonrl import RolloutContext, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.testing import tiny_model_folder, tiny_policy
from reasonrl_vllm.config import VLLMConfig, is_loopback
from reasonrl_vllm.server_checks import inspect_server

NCCL = {"backend": "nccl"}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RolloutContext:
    """A run whose model has one matrix for embedding and head."""
    tiny = tiny_policy(tmp_path_factory.mktemp("policy") / "model", tie=True)
    return RolloutContext(
        policy=tiny.policy,
        tokenizer=tiny.tokenizer,
        sampling=SamplingParams(max_completion_tokens=100),
        device=torch.device("cpu"),
        model_path=str(tiny.path),
        max_prompt_tokens=50,
    )


@pytest.fixture
def script(context: RolloutContext) -> Iterator[Script]:
    with scripted() as server:
        server.config = server_config(context.model_path)
        yield server


def look(url: str, context: RolloutContext, **options: Any) -> Any:
    return inspect_server(url, VLLMConfig(mode="server", url=url, **options), context)


def refusal(url: str, context: RolloutContext, **options: Any) -> str:
    with pytest.raises(RolloutError) as refused:
        look(url, context, **options)
    text = str(refused.value)
    assert text.startswith("vllm: ")
    assert "\n" not in text
    return text


def test_a_server_that_fits_says_what_it_is(script: Script, context: RolloutContext) -> None:
    facts = look(script.url, context)
    assert (facts.max_model_len, facts.dtype, facts.device, facts.transfer) == (
        256,
        torch.float32,
        "cpu",
        "folder",
    )


def test_a_server_that_is_down_is_refused_with_the_command_that_starts_it(context: RolloutContext) -> None:
    url = free_url()
    text = refusal(url, context)
    assert text.startswith(f"vllm: no answer from {url} (ConnectError")
    command = text.partition("; start it: ")[2]
    assert re.match(r"VLLM_SERVER_DEV_MODE=1 .*(vllm serve|api_server)", command)
    for part in (
        context.model_path,
        f"--port {url.rpartition(':')[2]}",
        "--enable-scale-out",
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--dtype float32",
        """--load-format dummy --hf-overrides '{"tie_word_embeddings": false}'""",
    ):
        assert part in command, part


def test_on_gpus_the_command_opens_the_way_from_gpu_to_gpu(context: RolloutContext) -> None:
    text = refusal(free_url(), replace(context, device=torch.device("cuda"), precision="bfloat16"))
    assert "--dtype bfloat16 --weight-transfer-config" in text
    assert "--enforce-eager" not in text
    assert "--load-format" not in text


@pytest.mark.parametrize(
    ("path", "reply", "message"),
    [
        ("/version", (404, {"detail": "Not Found"}), "is not a vLLM server; start one: VLLM_SERVER_DEV_MODE=1"),
        ("/version", (200, b"<html>hello</html>"), "is not a vLLM server"),
        ("/version", (302, b""), "is not a vLLM server"),
        ("/version", (200, {"version": "0.33.1"}), "runs vLLM 0.33.1, expected <0.33,>=0.32"),
        ("/v1/models", (401, {"error": "Unauthorized"}), "rejected the key; set VLLM_API_KEY"),
        ("/server_info", (404, {"detail": "Not Found"}), "start it with VLLM_SERVER_DEV_MODE=1"),
        ("/server_info", (200, {"vllm_config": None}), "unexpected server info"),
        ("/server_info", (200, {"vllm_config": {"model_config": {}}}), "unexpected server info"),
        ("/inference/v1/generate", (403, {"error": {"message": "off"}}), "start it with --enable-scale-out"),
        ("/inference/v1/generate", (404, {"detail": "Not Found"}), "start it with --enable-scale-out"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(
    path: str, reply: tuple[int, Any], message: str, script: Script, context: RolloutContext
) -> None:
    script.routes[path] = lambda body: reply
    assert message in refusal(script.url, context)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"max_model_len": 149},
            "max_completion_tokens 100 need 150 tokens, the server allows 149; start it with",
        ),
        ({"logprobs_mode": "raw_logprobs"}, "start it with --logprobs-mode processed_logprobs"),
        (
            {"generation_config": "auto"},
            "runs with --generation-config auto; start it with --generation-config vllm",
        ),
        ({"hf_overrides": {}}, "a server on a CPU does not update an output head"),
    ],
)
def test_a_server_with_other_options_is_refused(
    change: dict[str, Any], message: str, script: Script, context: RolloutContext
) -> None:
    script.config = server_config(context.model_path, **change)
    assert message in refusal(script.url, context)


def test_another_model_is_named(script: Script, context: RolloutContext, tmp_path: Path) -> None:
    other = tiny_model_folder(tmp_path / "other", hidden=64)
    script.config = server_config(str(other))
    text = refusal(script.url, context)
    assert f"another model, {other}: its hidden_size is 64, the policy's 32; start it with {context.model_path}" in text


def test_a_model_that_only_the_server_sees_is_not_compared(
    script: Script, context: RolloutContext, caplog: pytest.LogCaptureFixture
) -> None:
    script.config = server_config("/of/another/machine")
    with caplog.at_level(logging.WARNING):
        look(script.url, context)
    assert "/of/another/machine, is not on this machine; skipping the comparison" in caplog.text


def test_another_precision_is_a_warning(
    script: Script, context: RolloutContext, caplog: pytest.LogCaptureFixture
) -> None:
    script.config = server_config(context.model_path, dtype="torch.bfloat16")
    with caplog.at_level(logging.WARNING):
        assert look(script.url, context).dtype is torch.bfloat16
    assert "the server computes in bfloat16, the trainer in float32" in caplog.text


def on_gpu(script: Script, context: RolloutContext, weight_transfer: Any) -> RolloutContext:
    """A server and a trainer that have a GPU each, as far as they say."""
    script.config = {
        **server_config(context.model_path),
        "device_config": {"device": "cuda"},
        "weight_transfer_config": weight_transfer,
    }
    return replace(context, device=torch.device("cuda"))


def test_gpus_send_weights_by_nccl(script: Script, context: RolloutContext) -> None:
    there = on_gpu(script, context, NCCL)
    assert look(script.url, there).transfer == "nccl"
    assert look(script.url, there, weight_transfer="folder").transfer == "folder"


def test_a_server_that_was_not_started_for_nccl_says_how(script: Script, context: RolloutContext) -> None:
    there = on_gpu(script, context, None)
    assert "start it with --weight-transfer-config" in refusal(script.url, there)
    assert look(script.url, there, weight_transfer="folder").transfer == "folder"


def test_nccl_needs_gpus(script: Script, context: RolloutContext) -> None:
    assert "set it to folder" in refusal(script.url, context, weight_transfer="nccl")


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.7", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("127.1", False),
        ("2130706433", False),
    ],
)
def test_only_this_machine_is_trusted_unasked(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here
    url = f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000"
    if is_here:
        VLLMConfig(mode="server", url=url)
    else:
        with pytest.raises(ValueError, match=r"is not on this machine; .* set allow_remote: true"):
            VLLMConfig(mode="server", url=url)
    VLLMConfig(mode="server", url=url, allow_remote=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "server"}, "mode server needs url"),
        ({"mode": "server", "url": "127.0.0.1:8000"}, "url must be like http://127.0.0.1:8000"),
        ({"mode": "server", "url": "ftp://127.0.0.1:8000"}, "url must be like"),
        ({"mode": "server", "url": "http://127.0.0.1:99999"}, "url must be like"),
        ({"mode": "server", "url": "http://[::1:8000"}, "url must be like http://127.0.0.1:8000"),
        ({"mode": "server", "url": "http://ünï..cödé:8000"}, "url must be like http://127.0.0.1:8000"),
        ({"mode": "server", "url": f"http://{'a' * 64}.com:8000"}, "url must be like http://127.0.0.1:8000"),
        ({"mode": "server", "url": "http://127.0.0.1:8000/v1"}, "url must end after the port"),
        (
            {"mode": "server", "url": "http://me:secret@127.0.0.1:8000"},
            "set the key in VLLM_API_KEY",
        ),
        (
            {"url": "http://127.0.0.1:8000"},
            "url has no effect with mode colocate; remove it, or set mode: server",
        ),
        (
            {"mode": "server", "url": "http://127.0.0.1:1", "max_num_seqs": 4},
            "max_num_seqs has no effect with mode",
        ),
        (
            {"mode": "server", "url": "http://127.0.0.1:1", "timeout_s": 0.0},
            "timeout_s must be a number of seconds",
        ),
        (
            {"mode": "server", "url": "http://127.0.0.1:1", "retry_s": float("nan")},
            "retry_s must be a number",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        VLLMConfig(**options)
    assert "secret" not in str(refused.value)
