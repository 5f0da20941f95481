"""The engine of ``mode: server``: a `vllm serve` that somebody started."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from reasonrl import RolloutContext
from reasonrl.errors import RolloutError
from reasonrl_vllm.client import Client
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.requests import Answer
from reasonrl_vllm.server_checks import ServerFacts, start_command
from reasonrl_vllm.sync import Delivery, tied_names
from reasonrl_vllm.transfer import FolderTransfer, NCCLTransfer, Transfer

NO_LOGPROB = -9999.0
"""What the server says in place of -inf and NaN."""
PAUSES_S = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Before each time that it is asked to forget."""


class ServerEngine:
    """Asks the server for completions and hands it weights.

    Its weights have a name: this run's, and the policy's version. Every answer says by which weights it was made, so
    that a server that was started anew, or that another run uses too, is noticed at once.
    Of several processes each asks for its own completions; the first one hands over the weights.
    """

    def __init__(self, config: VLLMConfig, context: RolloutContext, facts: ServerFacts) -> None:
        self.max_model_len = facts.max_model_len
        self._max_samples = facts.max_num_seqs
        # The server may have the head apart from the embedding where the policy has one for both.
        self._tied = tied_names(context.policy.model) if facts.is_untied else {}
        self._run, self._weights, self._held = "", "", ""
        self._client = Client(
            config.url or "",
            timeout_s=config.timeout_s,
            retry_s=config.retry_s,
            advice=f"start it again and resume the run: {start_command(config, context)}",
        ).__enter__()
        self._transfer: Transfer = (
            NCCLTransfer(self._client, dtype=facts.dtype, device=torch.device(context.device))
            if facts.transfer == "nccl"
            else FolderTransfer(self._client, dtype=facts.dtype, sync_dir=config.sync_dir)
        )

    def generate(self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]) -> list[list[Answer]]:
        """The samples of every prompt, one request each. ``options``: fields of vLLM's ``SamplingParams``."""
        asked = [self._parts(list(prompt), given) for prompt, given in zip(prompts, options, strict=True)]
        samples = max((given.get("n", 1) for given in options), default=1)
        replies = self._client.post_all(
            "/inference/v1/generate",
            [part for parts in asked for part in parts],
            at_once=max(1, 2 * self._max_samples // samples),  # as many again as it is at work on wait there
        )
        rest = iter(replies)
        return [[answer for _ in parts for answer in self._answers(next(rest))] for parts in asked]

    def _parts(self, prompt: list[int], given: dict[str, Any]) -> list[dict[str, Any]]:
        """A request, in parts if it has more samples than the server takes at once. Sample i has the seed + i."""
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

    def _answers(self, reply: Any) -> list[Answer]:
        try:
            choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
            made_by = {name for choice in choices for name in _made_by(choice)}
            answers = [_answer(choice) for choice in choices]
        except (KeyError, TypeError, ValueError) as error:
            raise RolloutError(
                f"vllm: {self._client.url} answers in a way that this plugin does not know: {error!r}"
            ) from error
        if made_by - {self._weights}:
            raise RolloutError(
                f"vllm: {self._client.url} answers with weights {', '.join(sorted(made_by))!r}, the run's are "
                f"{self._weights!r}: it was restarted, or another run uses it too; see that none does, and resume"
            )
        return answers

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Hand the weights over. Every process calls it and reads ``weights`` to the end, whatever happens: gathering
        sharded ones needs all of them."""
        pairs = iter(weights)
        try:
            self._run = self._run or agreed(uuid.uuid4().hex[:12])
            self._weights = f"{self._run}-{policy_version}"
            if is_first_process():
                self._send(Delivery(pairs, self._tied))
        finally:
            for _ in pairs:
                pass

    def _send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self._held and not self._transfer.survives_restart:
            self._expect(self._held)
        self._forget()  # at first, too: nobody's requests are answered by other weights in their middle
        self._held, between = "", f"{self._weights}-not-yet-{uuid.uuid4().hex[:8]}"
        self._name(between)  # half of the new weights must not answer as the old ones
        self._transfer.send(weights)
        self._forget()
        self._expect(between)
        self._name(self._weights, again=False)  # a server that comes back in between has other weights
        self._held = self._weights

    def _forget(self) -> None:
        """Have it forget cached prefixes. At work it does not; requests that were given up need a moment to leave."""
        for pause in PAUSES_S:
            time.sleep(pause)
            reset = self._client.post("/reset_prefix_cache")
            if isinstance(reset, dict) and reset.get("success"):
                return
        raise RolloutError(f"vllm: {self._client.url} is at work for somebody else; give the run a server of its own")

    def _expect(self, weights: str) -> None:
        """Raise RolloutError if the server has not the weights of this name."""
        found = self._client.get("/weight_info")
        if not isinstance(found, dict) or found.get("weight_version") != weights:
            raise RolloutError(
                f"vllm: {self._client.url} has lost the run's weights: it was restarted, or another run uses it too; "
                "see that none does, and resume"
            )

    def _name(self, weights: str, *, again: bool = True) -> None:
        self._client.post("/update_weight_version", {"new_version": weights}, again=again)

    def close(self) -> None:
        """End the connections; the server stays. A second time does nothing."""
        try:
            self._transfer.close()
        finally:
            self._client.__exit__()


def _made_by(choice: dict[str, Any]) -> list[str]:
    """The weights that made its tokens."""
    named = [str(span["version"]) for span in choice["weight_versions"] or ()]
    return named or ["unnamed"] * bool(choice["token_ids"])


def _answer(choice: dict[str, Any]) -> Answer:
    said = [float(entry["logprob"]) for entry in choice["logprobs"]["content"]]
    return Answer(
        token_ids=tuple(int(token) for token in choice["token_ids"]),
        logprobs=tuple(value if value > NO_LOGPROB else -float("inf") for value in said),
        finished=choice["finish_reason"],
        stopped_by=choice["stop_reason"],
    )


def is_first_process() -> bool:
    """Whether this process is the one that speaks for all of the run's."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def agreed(name: str) -> str:
    """The first process's ``name``, in all of them."""
    if not torch.distributed.is_initialized():
        return name
    names = [name]
    torch.distributed.broadcast_object_list(names, src=0)
    return names[0]
