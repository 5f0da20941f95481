"""A rollout backend that replays given texts, for deterministic tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reasonrl.contracts.data import Completion, FinishReason, RolloutGroup, RolloutRequest
from reasonrl.contracts.protocols import RolloutContext
from reasonrl.contracts.specs import NoConfig, RolloutBackendSpec


class ScriptedBackend:
    """Replays ``texts`` in turn, each encoded by the run's tokenizer with EOS.

    A text over the token limit is truncated, with finish reason LENGTH. ``requests`` records the requests, ``versions``
    the synced policy versions. Every token has log-probability -1.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any) -> None:
        if not texts:
            raise ValueError("texts must hold at least one completion")
        self._texts = tuple(texts)
        self._tokenizer = tokenizer
        self._next = 0
        self._version = 0
        self.requests: list[RolloutRequest] = []
        self.versions: list[int] = []

    def __enter__(self) -> ScriptedBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing."""

    def sync_weights(self, weights: Iterable[object], *, policy_version: int) -> None:
        """Record the version and ignore the weights."""
        self._version = policy_version
        self.versions.append(policy_version)

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Return the next text for each requested completion."""
        self.requests.extend(requests)
        return [
            RolloutGroup(
                request=request, completions=tuple(self._completion(request) for _ in range(request.group_size))
            )
            for request in requests
        ]

    def _completion(self, request: RolloutRequest) -> Completion:
        text = self._texts[self._next % len(self._texts)]
        self._next += 1
        limit = request.sampling.max_completion_tokens
        ids = [*self._tokenizer.encode(text), self._tokenizer.eos_token_id]
        is_cut = len(ids) > limit
        kept = ids[:limit]
        return Completion(
            token_ids=tuple(kept),
            logprobs=(-1.0,) * len(kept),
            text=self._tokenizer.decode(kept) if is_cut else text,
            finish_reason=FinishReason.LENGTH if is_cut else FinishReason.EOS,
            policy_version=self._version,
        )


@dataclass(frozen=True)
class _Factory:
    texts: tuple[str, ...]

    def __call__(self, config: NoConfig, context: RolloutContext) -> ScriptedBackend:
        return ScriptedBackend(self.texts, context.tokenizer)


def scripted_spec(texts: Sequence[str], name: str = "scripted") -> RolloutBackendSpec:
    """Build a spec for ``reasonrl_rollout_backends`` whose backend replays ``texts``."""
    return RolloutBackendSpec(name=name, summary="Replays given completions.", factory=_Factory(tuple(texts)))
