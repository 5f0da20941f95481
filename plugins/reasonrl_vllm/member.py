"""One `vllm serve` process of a run, and the name of the weights that it has."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from reasonrl.errors import RolloutError
from reasonrl_vllm.client import Client, ServerLostError
from reasonrl_vllm.server_checks import ServerFacts

log = logging.getLogger(__name__)
PAUSES_S = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Pauses before the attempts to reset the prefix cache."""
INITIAL = "default"
"""What vLLM calls its weights until it is told another name."""
LOOKS, LOOK_S = 25, 0.2
"""Looks at a server with another run's weights, and the pause before each. A busy server may idle for a moment."""


class Server:
    """A server. ``inspect``: looks at it again, as before the run."""

    def __init__(self, client: Client, facts: ServerFacts, inspect: Callable[[], ServerFacts]) -> None:
        self.client, self.facts, self._inspect = client, facts, inspect
        self.max_num_seqs = facts.max_num_seqs
        self._held, self._between = "", ""

    def prepare(self, weights: str, *, may_restart: bool) -> None:
        """Get ready for the weights of this name. A partial update does not pass for the old ones.

        Args:
            may_restart: the transfer works after a restart of the server.
        """
        if self._held:
            self._check_held(may_restart=may_restart)
        self._forget()  # before the update too, so that no request changes weights midway
        if not (self._held or self._between) and self._named() != INITIAL:
            self._watch()
        self._held, self._between = "", f"{weights}-not-yet-{uuid.uuid4().hex[:8]}"
        self._name(self._between)

    def accept(self, weights: str) -> None:
        """Give the weights that it now has their name; a server that was restarted in between has others."""
        self._forget()
        if self._named() != self._between:
            raise self._lost()
        self._name(weights, again=False)
        self._held = weights

    def _check_held(self, *, may_restart: bool) -> None:
        """Notice a restart since the last update: it may have brought another model."""
        name = self._named()
        if name == self._held:
            return
        if name != INITIAL or not may_restart:  # a server that was restarted has its first name
            raise self._lost()
        found = self._inspect()
        if found != self.facts:
            raise RolloutError(
                f"vllm: {self.client.url} was restarted with other options: {found.difference(self.facts)}; restart it "
                "as before and resume"
            )
        log.warning("vllm: %s was restarted since the last step; it gets the weights again", self.client.url)

    def _forget(self) -> None:
        """Reset the prefix cache. A busy server refuses; canceled requests need a moment to leave."""
        for pause in PAUSES_S:
            time.sleep(pause)
            if self._reset():
                return
        raise self._in_use()

    def _watch(self) -> None:
        """Refuse a server that another run still samples from."""
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            if not self._reset():
                raise self._in_use()

    def _reset(self) -> bool:
        """Reset the prefix cache, which fails while there are requests."""
        reply = self.client.post("/reset_prefix_cache")
        return isinstance(reply, dict) and bool(reply.get("success"))

    def _named(self) -> object:
        found = self.client.get("/weight_info")
        return found.get("weight_version") if isinstance(found, dict) else None

    def _name(self, weights: str, *, again: bool = True) -> None:
        self.client.post("/update_weight_version", {"new_version": weights}, again=again)

    def _in_use(self) -> RolloutError:
        return RolloutError(f"vllm: {self.client.url} is in use by another run; use a dedicated server per run")

    def _lost(self) -> ServerLostError:
        return ServerLostError(
            f"{self.client.url} has lost the run's weights: it was restarted or is used by another run",
            "use a dedicated server and resume",
        )
