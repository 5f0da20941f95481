"""The client of ``mode: server``: an external `vllm serve` process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from reasonrl import RolloutContext
from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import RolloutError, one_line
from reasonrl_vllm.client import Client
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.replies import made_by, most_bytes, read_answer, read_choices
from reasonrl_vllm.requests import Answer
from reasonrl_vllm.server_checks import ServerFacts, start_command
from reasonrl_vllm.sync import Delivery
from reasonrl_vllm.transfer import FolderTransfer, NCCLTransfer, Transfer

PAUSES_S = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Pauses before the attempts to reset the prefix cache."""


class ServerEngine:
    """Samples from the server and sends it weights.

    Its weights have a name: this run's, and the policy's version. Every answer says by which weights it was made, so
    that a restarted server, or one used by another run, is noticed at once.
    Of several processes each asks for its own completions; the first one hands over the weights.
    """

    def __init__(self, config: VLLMConfig, context: RolloutContext, facts: ServerFacts) -> None:
        self.max_model_len = facts.max_model_len
        self._max_samples = facts.max_num_seqs
        self._vocabulary = base_model(context.policy.model).config.get_text_config().vocab_size
        # The server may have an untied output head where the policy ties it to the embedding.
        self._tied = tied_names(context.policy.model) if facts.is_untied else {}
        self._run, self._weights, self._held = "", "", ""
        self._client = Client(
            config.url or "",
            timeout_s=config.timeout_s,
            retry_s=config.retry_s,
            advice=f"restart it and resume the run: {start_command(config, context)}",
        ).__enter__()
        self._transfer: Transfer = (
            NCCLTransfer(self._client, dtype=facts.dtype, device=torch.device(context.device))
            if facts.transfer == "nccl"
            else FolderTransfer(self._client, dtype=facts.dtype, sync_dir=config.sync_dir)
        )

    def release(self) -> bool:
        """The server's memory is its own."""
        return False

    def generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]:
        """Sample every prompt, one request each. ``options``: fields of vLLM's ``SamplingParams``."""
        asked = [self._parts(list(prompt), given) for prompt, given in zip(prompts, options, strict=True)]
        samples = max((given.get("n", 1) for given in options), default=1)
        replies = self._client.post_all(
            "/inference/v1/generate",
            [part for parts in asked for part in parts],
            at_once=max(1, 2 * self._max_samples // samples),  # keep as many requests queued as it runs
            max_bytes=max((most_bytes(given, self.max_model_len) for given in options), default=0),
        )
        rest = iter(replies)
        return [[answer for part in parts for answer in self._answers(next(rest), part)] for parts in asked]

    def _parts(self, prompt: list[int], given: dict[str, Any]) -> list[dict[str, Any]]:
        """Split a request with more samples than the server takes at once. Sample i has the seed + i."""
        count, most = given.get("n", 1), self._max_samples
        if count <= most:
            return [{"token_ids": prompt, "sampling_params": given}]
        return [
            {
                "token_ids": prompt,
                "sampling_params": {**given, "n": min(most, count - start), "seed": given["seed"] + start},
            }
            for start in range(0, count, most)
        ]

    def _answers(self, reply: Any, part: dict[str, Any]) -> list[Answer]:
        asked = part["sampling_params"]
        try:
            choices = read_choices(reply)
            names = {name for choice in choices for name in made_by(choice)}
            if not names - {self._weights}:
                if len(choices) != asked.get("n", 1):
                    raise ValueError(f"{len(choices)} choices, {asked.get('n', 1)} asked for")
                return [read_answer(choice, asked, self._vocabulary) for choice in choices]
        except ValueError as error:
            raise RolloutError(
                f"vllm: unexpected response from {self._client.url}/inference/v1/generate: {one_line(error)}; "
                "restart the server and resume"
            ) from error
        raise RolloutError(
            f"vllm: {self._client.url} samples with weights {', '.join(sorted(names))!r}, expected "
            f"{self._weights!r}: it was restarted or is used by another run; use a dedicated server and resume"
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Send the weights.

        Every process must call this and exhaust ``weights``, because gathering sharded ones needs all of them.
        """
        pairs = iter(weights)
        try:
            self._run = self._run or broadcast_name(uuid.uuid4().hex[:12])
            self._weights = f"{self._run}-{policy_version}"
            if is_first_process():
                self._send(Delivery(pairs, self._tied))
        finally:
            for _ in pairs:
                pass

    def _send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self._held and not self._transfer.survives_restart:
            self._expect(self._held)
        self._forget()  # before the update too, so that no request changes weights midway
        self._held, between = "", f"{self._weights}-not-yet-{uuid.uuid4().hex[:8]}"
        self._name(between)  # a partial update must not pass for the old weights
        self._transfer.send(weights)
        self._forget()
        self._expect(between)
        self._name(self._weights, again=False)  # a server restarted in between has other weights
        self._held = self._weights

    def _forget(self) -> None:
        """Reset the prefix cache. A busy server refuses; canceled requests need a moment to leave."""
        for pause in PAUSES_S:
            time.sleep(pause)
            reset = self._client.post("/reset_prefix_cache")
            if isinstance(reset, dict) and reset.get("success"):
                return
        raise RolloutError(f"vllm: {self._client.url} is in use by another run; use a dedicated server per run")

    def _expect(self, weights: str) -> None:
        """Raise RolloutError unless the server has the weights of this name."""
        found = self._client.get("/weight_info")
        if not isinstance(found, dict) or found.get("weight_version") != weights:
            raise RolloutError(
                f"vllm: {self._client.url} has lost the run's weights: it was restarted or is used by another run; "
                "use a dedicated server and resume"
            )

    def _name(self, weights: str, *, again: bool = True) -> None:
        self._client.post("/update_weight_version", {"new_version": weights}, again=again)

    def close(self) -> None:
        """Close the connections; the server keeps running. Idempotent."""
        try:
            self._transfer.close()
        finally:
            self._client.__exit__()


def is_first_process() -> bool:
    """Whether this is the run's first process."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def broadcast_name(name: str) -> str:
    """Return the first process's ``name`` in every process."""
    if not torch.distributed.is_initialized():
        return name
    names = [name]
    torch.distributed.broadcast_object_list(names, src=0)
    return names[0]
