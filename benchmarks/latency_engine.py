"""A rollout backend of known latency that computes nothing. Loaded with ``--plugin`` by ``overlap.py``."""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonrl import (
    Completion,
    FinishReason,
    RolloutBackendSpec,
    RolloutContext,
    RolloutGroup,
    RolloutRequest,
    hookimpl,
)

LETTERS = "0123456789+-*/() "


@dataclass(frozen=True)
class LatencyConfig:
    """How long sampling takes."""

    latency_s: float = field(default=1.0, metadata={"help": "seconds of one call"})
    tokens: int = field(default=64, metadata={"help": "length of a completion"})


class LatencyEngine:
    """Waits, then returns random completions, the same for the same seeds."""

    def __init__(self, config: LatencyConfig, context: RolloutContext) -> None:
        self._config, self._tokenizer, self._version = config, context.tokenizer, 0

    def __enter__(self) -> "LatencyEngine":
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing."""

    def sync_weights(self, weights: Iterable[Any], *, policy_version: int) -> None:
        """Read the weights, as a transfer would."""
        for _ in weights:
            pass
        self._version = policy_version

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Wait, once for all requests."""
        time.sleep(self._config.latency_s)
        return [
            RolloutGroup(request=r, completions=tuple(self._one(r, i) for i in range(r.group_size))) for r in requests
        ]

    def _one(self, request: RolloutRequest, sample: int) -> Completion:
        rng = random.Random(f"{request.seed}/{sample}")
        ids = tuple(self._tokenizer.encode("".join(rng.choices(LETTERS, k=self._config.tokens))))
        return Completion(
            token_ids=ids,
            logprobs=(-3.0,) * len(ids),
            text=self._tokenizer.decode(ids),
            finish_reason=FinishReason.LENGTH,
            policy_version=self._version,
        )


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    """The engine ``latency``."""
    yield RolloutBackendSpec(
        name="latency",
        summary="Waits.",
        config=LatencyConfig,
        factory=LatencyEngine,
        samples_during_update=lambda config: True,
    )
