"""The rollout backend of a run, synced with the policy's weights."""

from contextlib import ExitStack
from typing import Any

from torch import nn

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.model.export import iter_hf_weights
from reasonrl.model.sharding import gathered
from reasonrl.signals import StopSignals
from reasonrl.trainer.background import Background
from reasonrl.trainer.bundle import ModelBundle


class SyncedBackend:
    """Syncs the weights right before sampling, not after an update: a failed sync then loses no finished step."""

    def __init__(self, backend: RolloutBackend, policy: nn.Module, bundle: ModelBundle, stop: StopSignals) -> None:
        self._backend, self._policy, self._bundle, self._stop = backend, policy, bundle, stop
        self._version: int | None = None
        self._whole: ExitStack | None = None
        self.background: Background[Any] = Background()
        """Where it samples during an update. Sampling ends there before the weights change."""

    def sync(self, version: int) -> RolloutBackend:
        """The backend with the policy's present weights, whose version this is; every rank calls it.

        Raises:
            RolloutError: if the backend does not take them.
        """
        with self._bundle.ranks.together():
            self.background.drain()
        if self._version != version:
            self._version = None  # on failure the backend's weights are undefined
            policy = self._bundle.accelerator.unwrap_model(self._policy)
            with self._stop.deferred(), self._bundle.ranks.together():  # half of the weights are of no use
                weights = iter_hf_weights(policy, getattr(self._backend, "weights_dtype", None))
                self._backend.sync_weights(weights, policy_version=version)
            self._version = version
        if self._bundle.gathers and self._whole is None:
            self._whole = ExitStack()
            self._whole.enter_context(gathered(self._bundle.policy))
        return self._backend

    def release(self) -> None:
        """Sampling is over until the next ``sync``: the backend may free its memory. Every rank calls it."""
        if self._whole is not None:
            self._whole.close()
            self._whole = None
        release = getattr(self._backend, "release", None)
        if release is not None:
            with self._bundle.ranks.together():
                if release():
                    self._version = None  # it takes the weights again, even the same
