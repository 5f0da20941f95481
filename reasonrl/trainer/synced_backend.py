"""The rollout backend of a run, with the policy's weights."""

from typing import Any

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.model.export import iter_hf_weights
from reasonrl.trainer.signals import StopSignals
from reasonrl.trainer.workbench import Workbench


class SyncedBackend:
    """Hands weights over when somebody is about to sample: a failure then undoes nothing that a step has made."""

    def __init__(self, backend: RolloutBackend, policy: Any, bench: Workbench, stop: StopSignals) -> None:
        self._backend, self._policy, self._bench, self._stop = backend, policy, bench, stop
        self._version: int | None = None

    def at(self, version: int) -> RolloutBackend:
        """The backend with the policy's present weights, whose version this is; every rank calls it.

        Raises:
            RolloutError: if the backend does not take them.
        """
        if self._version != version:
            self._version = None  # a failure leaves who knows what in the backend
            policy = self._bench.accelerator.unwrap_model(self._policy)
            with self._stop.deferred(), self._bench.ranks.together():  # half of the weights are of no use
                self._backend.sync_weights(iter_hf_weights(policy), policy_version=version)
            self._version = version
        return self._backend
