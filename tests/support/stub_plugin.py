"""An engine with a copy of the weights and a known latency, as a server has them: it samples during updates."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasonrl import (
    RolloutBackendSpec,
    RolloutContext,
    RolloutGroup,
    RolloutRequest,
    RunInfo,
    ScoredGroup,
    StepRecord,
    hookimpl,
)
from reasonrl.errors import RolloutError


@dataclass(frozen=True)
class StubConfig:
    """``journal``: a file with one line for every event; of several processes each has its own."""

    latency_s: float = field(default=0.0, metadata={"help": "of generate"})
    journal: str = field(default="", metadata={"help": "a file"})
    gone_while: str = field(default="", metadata={"help": "a file; while it exists, generate fails"})
    can: bool = field(default=True, metadata={"help": "sample during updates"})


class StubEngine:
    """Samples with ``hf`` on its own copy of the model."""

    def __init__(self, config: StubConfig, context: RolloutContext) -> None:
        from reasonrl_hf.backend import HFBackend
        from reasonrl_hf.config import HFConfig

        self._config = config
        self._policy = deepcopy(context.policy)
        self._inner = HFBackend(HFConfig(), replace(context, policy=self._policy))
        self.version = -1

    def __enter__(self) -> StubEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._note("closed")

    def sync_weights(self, weights: Iterable[tuple[str, Any]], *, policy_version: int) -> None:
        own = dict(self._policy.model.named_parameters())
        for name, tensor in weights:
            own[name].data.copy_(tensor)
        self.version = policy_version
        self._inner.sync_weights((), policy_version=policy_version)
        self._note("synced")

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        problems = [request.problem.id for request in requests]
        self._note("began", problems=problems)
        if self._config.gone_while and Path(self._config.gone_while).exists():
            raise RolloutError("the stub has gone")
        time.sleep(self._config.latency_s)
        groups = self._inner.generate(requests)
        self._note("ended", problems=problems)
        return groups

    def _note(self, event: str, **more: Any) -> None:
        note(self._config.journal, event, version=self.version, **more)


def note(journal: str, event: str, **more: Any) -> None:
    """Add a line to the journal of this process."""
    if journal:
        with Path(f"{journal}.{os.environ.get('RANK', '0')}").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "at": time.monotonic(), **more}) + "\n")


@hookimpl
def reasonrl_step_finished(run: RunInfo, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
    """The end of a step, in the journal of the engine."""
    backend: Any = run.recipe.get("rollout_backend", {})
    if backend.get("name") == "stub":
        note(backend.get("journal", ""), "stepped", step=record.step)


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(
        name="stub",
        summary="Has its own weights.",
        config=StubConfig,
        factory=StubEngine,
        samples_during_update=lambda config: config.can,
    )
