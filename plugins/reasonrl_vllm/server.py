"""The client side of ``mode: server``: one or several external `vllm serve` processes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reasonrl import RolloutContext
from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import RolloutError, one_line
from reasonrl_vllm.client import Client, ServerLostError
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.event_loop import EventLoop
from reasonrl_vllm.fleet import Fleet
from reasonrl_vllm.member import Server
from reasonrl_vllm.replies import made_by, most_bytes, read_answer, read_choices
from reasonrl_vllm.requests import Answer
from reasonrl_vllm.server_checks import ServerFacts, inspect_server, start_command
from reasonrl_vllm.sync import Delivery
from reasonrl_vllm.transfer import FolderTransfer, NCCLTransfer, Transfer

GENERATE = "/inference/v1/generate"


class ServerEngine:
    """Samples from the servers and sends them weights.

    The weights have a name: this run's, and the policy's version. Every answer says by which weights it was made, so
    that a restarted server, or one used by another run, is noticed at once.
    Of several processes each asks for its own completions; the first one hands over the weights.
    """

    def __init__(self, config: VLLMConfig, context: RolloutContext, facts: Sequence[ServerFacts]) -> None:
        self.max_model_len = min(fact.max_model_len for fact in facts)
        self.weights_dtype: torch.dtype | None = facts[0].dtype
        self._max_samples = min(fact.max_num_seqs for fact in facts)
        self._vocabulary = base_model(context.policy.model).config.get_text_config().vocab_size
        # A server may have an untied output head where the policy ties it to the embedding.
        self._tied = tied_names(context.policy.model) if facts[0].is_untied else {}
        self._run, self._weights = "", ""
        with ExitStack() as opened:
            self._loop = EventLoop()
            opened.callback(self._loop.close)
            servers = [self._open(config, context, *pair, opened) for pair in zip(config.urls, facts, strict=True)]
            self._fleet = Fleet(servers, self._loop)
            self._transfer: Transfer = (
                NCCLTransfer(servers[0].client, dtype=facts[0].dtype, device=torch.device(context.device))
                if facts[0].transfer == "nccl"
                else FolderTransfer(self._fleet, dtype=facts[0].dtype, sync_dir=config.sync_dir)
            )
            opened.callback(self._transfer.close)
            self._stack = opened.pop_all()

    def _open(
        self, config: VLLMConfig, context: RolloutContext, url: str, facts: ServerFacts, opened: ExitStack
    ) -> Server:
        advice = f"restart it and resume the run: {start_command(url, context)}"
        client = Client(url, timeout_s=config.timeout_s, retry_s=config.retry_s, advice=advice, loop=self._loop)
        opened.enter_context(client)
        return Server(client, facts, partial(inspect_server, url, config, context))

    def release(self) -> bool:
        """The servers' memory is their own."""
        return False

    def generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]:
        """Sample every prompt, one request each. ``options``: fields of vLLM's ``SamplingParams``."""
        asked = [self._parts(list(prompt), given) for prompt, given in zip(prompts, options, strict=True)]
        samples = max((given.get("n", 1) for given in options), default=1)
        most = max((most_bytes(given, self.max_model_len) for given in options), default=0)

        async def ask(server: Server, part: dict[str, Any]) -> list[Answer]:
            return self._answers(server, await server.client.fetch(GENERATE, part, max_bytes=most), part)

        rest = iter(self._fleet.spread([part for parts in asked for part in parts], ask, samples=samples))
        return [[answer for _ in parts for answer in next(rest)] for parts in asked]

    def _parts(self, prompt: list[int], given: dict[str, Any]) -> list[dict[str, Any]]:
        """Split a request with more samples than a server takes at once. Sample i has the seed + i."""
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

    def _answers(self, server: Server, reply: Any, part: dict[str, Any]) -> list[Answer]:
        asked, url = part["sampling_params"], server.client.url
        try:
            choices = read_choices(reply)
            names = {name for choice in choices for name in made_by(choice)}
            if not names - {self._weights}:
                if len(choices) != asked.get("n", 1):
                    raise ValueError(f"{len(choices)} choices, {asked.get('n', 1)} asked for")
                return [read_answer(choice, asked, self._vocabulary) for choice in choices]
        except ValueError as error:
            raise RolloutError(
                f"vllm: unexpected response from {url}{GENERATE}: {one_line(error)}; restart the server and resume"
            ) from error
        raise ServerLostError(
            f"{url} samples with weights {', '.join(sorted(names))!r}, expected {self._weights!r}: it was restarted or "
            "is used by another run",
            "use a dedicated server and resume",
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
        name, may_restart = self._weights, self._transfer.survives_restart
        self._fleet.each(lambda server: server.prepare(name, may_restart=may_restart))
        self._transfer.send(weights)
        self._fleet.each(lambda server: server.accept(name))

    def close(self) -> None:
        """Cancel requests and close the connections; the servers keep running. Idempotent."""
        self._loop.cancel()
        self._stack.close()


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
