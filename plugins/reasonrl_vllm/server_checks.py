"""Check that a `vllm serve` fits the run before sampling from it."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from packaging.version import InvalidVersion, Version

from reasonrl import RolloutContext
from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import RAISABLE, RolloutError, one_line
from reasonrl_vllm.client import KEY, Client
from reasonrl_vllm.config import VLLMConfig, is_loopback
from reasonrl_vllm.engine import SUPPORTED

log = logging.getLogger(__name__)
COMPARED = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_parameters",
    "rms_norm_eps",
)
ON_CPU = ("VLLM_CPU_KVCACHE_SPACE=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", "TORCHDYNAMO_DISABLE=1")
"""1 GiB of cache instead of all memory, no threads pinned onto the trainer's cores, no compilation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What the server reports. ``max_model_len`` in tokens; ``device`` is cpu or cuda.

    ``max_num_seqs``: completions that it makes at once, and the most of one request. ``is_untied``: it was told to have
    an output head apart from the embedding.
    """

    max_model_len: int
    max_num_seqs: int
    dtype: torch.dtype
    device: str
    is_untied: bool
    transfer: Literal["nccl", "folder"]

    def difference(self, other: ServerFacts) -> str:
        """Say what is different, as ``dtype torch.float32, not torch.bfloat16``; empty if nothing is."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return ", ".join(f"{name} {mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs)


def inspect_servers(config: VLLMConfig, context: RolloutContext) -> list[ServerFacts]:
    """Query and check every server of the run.

    Raises:
        RolloutError: one line with the fix, if the run cannot sample from one, or they are not alike.
    """
    found = [inspect_server(url, config, context) for url in config.urls]
    for url, facts in zip(config.urls, found, strict=True):
        alike = replace(facts, max_model_len=found[0].max_model_len, max_num_seqs=found[0].max_num_seqs)
        if alike != found[0]:
            raise RolloutError(
                f"vllm: {url} differs from {config.urls[0]}: {alike.difference(found[0])}; start all servers with the "
                "same options"
            )
    return found


def inspect_server(url: str, config: VLLMConfig, context: RolloutContext) -> ServerFacts:
    """Query and check one server.

    Raises:
        RolloutError: one line with the fix, if the run cannot sample from it.
    """
    command = start_command(url, context)
    client = Client(url, timeout_s=min(config.timeout_s, 60.0), retry_s=0.0, advice=f"start it: {command}")
    with client:
        _check_kind(client, command)
        found = _describe(client)
    facts = _facts(found, url, config, context)
    _check_options(found, context, facts, command)
    _check_model(found["model_config"], context)
    return facts


def _check_kind(client: Client, command: str) -> None:
    reply = client.ask("GET", "/version")
    found = reply.body.get("version") if isinstance(reply.body, dict) else None
    if not isinstance(found, str):
        raise RolloutError(f"vllm: {client.url} is not a vLLM server; start one: {command}")
    if not _is_supported(found):
        raise RolloutError(
            f"vllm: the server at {client.url} runs vLLM {one_line(found)[:40]}, expected {SUPPORTED}; install a "
            "supported version"
        )
    if client.ask("GET", "/v1/models").status == 401:
        raise RolloutError(
            f"vllm: the server at {client.url} rejected the key; set {KEY} to the key it was started with"
        )


def _is_supported(found: str) -> bool:
    try:
        return SUPPORTED.contains(Version(found), prereleases=True)
    except InvalidVersion:
        return False


def _describe(client: Client) -> dict[str, Any]:
    reply = client.ask("GET", "/server_info?config_format=json")
    if reply.status == 404:
        raise RolloutError(
            f"vllm: the server {client.url} forbids weight updates; start it with VLLM_SERVER_DEV_MODE=1"
        )
    # An empty request always fails; the status tells whether the endpoint is enabled.
    if client.ask("POST", "/inference/v1/generate", {}).status in (403, 404):
        raise RolloutError(
            f"vllm: the server at {client.url} does not accept token ids; start it with --enable-scale-out"
        )
    try:
        return dict(reply.body["vllm_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unknown(client.url, error) from error


def _facts(found: dict[str, Any], url: str, config: VLLMConfig, context: RolloutContext) -> ServerFacts:
    try:
        model, device = found["model_config"], str(found["device_config"]["device"]).split(":")[0]
        on_gpus = device == "cuda" == torch.device(context.device).type
        dtype = getattr(torch, str(model["dtype"]).removeprefix("torch."))
        if not isinstance(dtype, torch.dtype) or not isinstance(model["model"], str):
            raise TypeError("dtype or model")
        return ServerFacts(
            max_model_len=_positive(model["max_model_len"]),
            max_num_seqs=_positive(found["scheduler_config"]["max_num_seqs"]),
            dtype=dtype,
            device=device,
            is_untied=(model.get("hf_overrides") or {}).get("tie_word_embeddings") is False,
            transfer=_transfer(found, url, config, on_gpus=on_gpus),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unknown(url, error) from error


def _positive(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r:.60}, expected a positive integer")
    return value


def _unknown(url: str, error: Exception) -> RolloutError:
    return RolloutError(f"vllm: unexpected server info from {url}: {one_line(repr(error))}; is it a vLLM server?")


def _transfer(found: dict[str, Any], url: str, config: VLLMConfig, *, on_gpus: bool) -> Literal["nccl", "folder"]:
    backend = (found.get("weight_transfer_config") or {}).get("backend")
    is_one = len(config.urls) == 1
    if config.weight_transfer == "nccl" or (config.weight_transfer == "auto" and on_gpus and is_one):
        if not on_gpus:
            raise RolloutError(
                "vllm: rollout_backend.weight_transfer nccl needs a GPU on both trainer and server; set it to folder"
            )
        if backend != "nccl":
            raise RolloutError(
                f"vllm: the server at {url} was not started with NCCL weight transfer; start it with "
                """--weight-transfer-config '{"backend": "nccl"}', or set rollout_backend.weight_transfer to folder"""
            )
        return "nccl"
    if config.sync_dir is None and not is_loopback(urlsplit(url).hostname or ""):
        raise RolloutError(
            "vllm: a server on another machine cannot read the local temporary folder; set "
            "rollout_backend.sync_dir to a shared folder"
        )
    return "folder"


def _check_options(found: dict[str, Any], context: RolloutContext, facts: ServerFacts, command: str) -> None:
    model = found["model_config"]
    for option, value in (("logprobs_mode", "processed_logprobs"), ("generation_config", "vllm")):
        if model.get(option, value) != value:
            flag = f"--{option.replace('_', '-')}"
            raise RolloutError(f"vllm: the server runs with {flag} {model[option]}; start it with {flag} {value}")
    wanted = context.max_prompt_tokens + context.sampling.max_completion_tokens
    if wanted > facts.max_model_len:
        raise RolloutError(
            f"vllm: sampling.max_prompt_tokens {context.max_prompt_tokens} and max_completion_tokens "
            f"{context.sampling.max_completion_tokens} need {wanted} tokens, the server allows {facts.max_model_len}; "
            f"start it with --max-model-len {wanted}, or lower them"
        )
    if facts.device == "cpu" and tied_names(context.policy.model) and not facts.is_untied:
        raise RolloutError(
            "vllm: a server on a CPU does not update an output head that is tied to the embedding; start it with "
            f"an untied head: {command}"
        )
    if facts.dtype is not getattr(torch, context.precision):
        log.warning(
            "vllm: the server computes in %s, the trainer in %s; rollout/logprob_gap measures the difference",
            str(facts.dtype).removeprefix("torch."),
            context.precision,
        )


def _check_model(model: dict[str, Any], context: RolloutContext) -> None:
    """Compare the model configs, if the server's is readable here."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model["model"], local_files_only=True)
    except RAISABLE:  # it names any folder, whose config may be anything
        shown = one_line(model["model"])
        log.warning("vllm: the server's model, %s, is not on this machine; skipping the comparison", shown)
        return
    theirs, ours = config.get_text_config(), base_model(context.policy.model).config.get_text_config()
    for name in COMPARED:
        here, there = getattr(ours, name, None), getattr(theirs, name, None)
        if here != there:
            raise RolloutError(
                f"vllm: the server has another model, {model['model']}: its {name} is {there}, the policy's {here}; "
                f"start it with {context.model_path}"
            )


def start_command(url: str, context: RolloutContext) -> str:
    """Return the command that starts a server at ``url`` for this run."""
    parts = urlsplit(url)
    on_gpu = torch.device(context.device).type == "cuda"
    settings = ["VLLM_SERVER_DEV_MODE=1", *([] if on_gpu else ON_CPU)]
    words = [*serve(context.model_path), "--host", parts.hostname or "", "--port", str(parts.port or 80)]
    words += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    words += ["--dtype", context.precision]
    if on_gpu:
        words += ["--weight-transfer-config", '{"backend": "nccl"}']
    else:
        words.append("--enforce-eager")
        if tied_names(context.policy.model):
            words += ["--load-format", "dummy", "--hf-overrides", '{"tie_word_embeddings": false}']
    return " ".join([*settings, shlex.join(words)])


def serve(model_path: str) -> list[str]:
    """Return the start of the command. vLLM's CPU build does not find its own version under ``vllm serve``."""
    try:
        version("vllm")
    except PackageNotFoundError:
        return ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", model_path]
    return ["vllm", "serve", model_path]
