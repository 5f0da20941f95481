"""The backend ``hf`` with a server's weakness: as long as a file exists, it is gone from some call on."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reasonrl import RolloutBackendSpec, RolloutContext, RolloutGroup, RolloutRequest, hookimpl
from reasonrl.errors import RolloutError
from reasonrl_hf.backend import HFBackend
from reasonrl_hf.config import HFConfig

MESSAGE = "the backend has gone"


@dataclass(frozen=True)
class FragileConfig:
    while_exists: str = field(default="", metadata={"help": "a file"})
    fails: Literal["build", "enter", "generate", "sync"] = field(default="generate", metadata={"help": "what"})
    call: int = field(default=1, metadata={"help": "the first call that fails"})
    rank: int = field(default=0, metadata={"help": "in which process"})


class FragileBackend(HFBackend):
    def __init__(self, config: FragileConfig, context: RolloutContext) -> None:
        super().__init__(HFConfig(), context)
        self._fragile, self._calls = config, {"build": 0, "enter": 0, "generate": 0, "sync": 0}
        self._count("build")

    def _count(self, what: str) -> None:
        self._calls[what] += 1
        config = self._fragile
        if int(os.environ.get("RANK", "0")) != config.rank:
            return
        if what == config.fails and self._calls[what] >= config.call and Path(config.while_exists).exists():
            raise RolloutError(MESSAGE)

    def __enter__(self) -> "FragileBackend":
        self._count("enter")
        return self

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        self._count("generate")
        return super().generate(requests)

    def sync_weights(self, weights: Iterable[Any], *, policy_version: int) -> None:
        self._count("sync")
        super().sync_weights(weights, policy_version=policy_version)


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="fragile", summary="Goes away.", factory=FragileBackend, config=FragileConfig)
