"""The rollout backend of a run behind checks: an error in a call of it names the backend and the call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from reasonrl.contracts.data import RolloutGroup, RolloutRequest
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.data.answers import WrongAnswerError, read_answers
from reasonrl.errors import PluginContractError, check_returned, plugin_call

if TYPE_CHECKING:
    from torch import Tensor


class BackendCalls:
    """A plugin's rollout backend. What a call raises is a ReasonRLError, or lack of memory.

    Args:
        label: names the backend and its plugin in messages.
        rows: the number of the model's embeddings, which bounds token ids; None = not checked.
    """

    def __init__(self, backend: RolloutBackend, label: str, rows: int | None = None) -> None:
        self._backend, self._label, self._rows = backend, label, rows

    def __enter__(self) -> BackendCalls:
        with self._call("__enter__"):
            self._backend = self._backend.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._call("__exit__"):
            self._backend.__exit__(*exc)

    @property
    def weights_dtype(self) -> torch.dtype | None:
        """What the backend wants weights to be cast to, if it says so.

        Raises:
            PluginContractError: if that is not a dtype.
        """
        with self._call("weights_dtype") as call:
            found = getattr(self._backend, "weights_dtype", None)
        check_returned(found is None or isinstance(found, torch.dtype), call, found, "a torch dtype or None")
        return found

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], *, policy_version: int) -> None:
        """Pass new weights on to the backend."""
        with self._call("sync_weights"):
            self._backend.sync_weights(weights, policy_version=policy_version)

    def release(self) -> bool:
        """Let the backend free memory, if it can; returns whether it needs the weights again."""
        release = getattr(self._backend, "release", None)
        if release is None:
            return False
        with self._call("release"):
            return bool(release())

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Groups in the order of the requests. Each completion gets the text of its prompt, for the rewards.

        Raises:
            PluginContractError: if they are not what was asked for.
        """
        with self._call("generate") as call:
            answers = self._backend.generate(requests)
            try:
                return read_answers(requests, answers, self._rows)
            except WrongAnswerError as err:
                raise PluginContractError(f"{call} returned {err}; see RolloutBackend in reasonrl.contracts") from None

    def _call(self, method: str) -> AbstractContextManager[str]:
        return plugin_call(f"{self._label}: {method}")
