"""A backend with the worst of silent faults: it takes the version of new weights and not the weights."""

from collections.abc import Iterable

from torch import Tensor

from reasonrl import RolloutBackendSpec, hookimpl
from reasonrl_vllm.backend import VLLMBackend
from reasonrl_vllm.config import VLLMConfig


class StaleVLLM(VLLMBackend):
    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], *, policy_version: int) -> None:
        if policy_version:
            self._policy_version = policy_version
        else:
            super().sync_weights(weights, policy_version=policy_version)


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(
        name="stale-vllm", summary="Never renews its weights.", factory=StaleVLLM, config=VLLMConfig
    )
