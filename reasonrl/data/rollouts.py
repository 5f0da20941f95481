"""The rollout backend of a run behind checks: an error in a call of it names the backend and the call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from reasonrl.contracts.data import Completion, RolloutGroup, RolloutRequest
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.errors import PluginContractError, check_returned, plugin_call

if TYPE_CHECKING:
    from torch import Tensor


class BackendCalls:
    """A plugin's rollout backend. What a call raises is a ReasonRLError, or lack of memory.

    Args:
        label: names the backend and its plugin in messages.
    """

    def __init__(self, backend: RolloutBackend, label: str) -> None:
        self._backend, self._label = backend, label

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
            PluginContractError: if groups, completions or log-probabilities are not as many as asked for.
        """
        with self._call("generate") as call:
            groups = list(self._backend.generate(requests))
            problem = _find_problem(requests, groups)
        if problem:
            raise PluginContractError(f"{call} returned {problem}; see RolloutBackend in reasonrl.contracts")
        return [_with_prompt(group, request.prompt_text) for request, group in zip(requests, groups, strict=True)]

    def _call(self, method: str) -> AbstractContextManager[str]:
        return plugin_call(f"{self._label}: {method}")


def _find_problem(requests: Sequence[RolloutRequest], groups: Sequence[RolloutGroup]) -> str:
    if len(groups) != len(requests):
        return f"{len(groups)} groups for {len(requests)} requests"
    for request, group in zip(requests, groups, strict=True):
        where = f"for problem {request.problem.id!r}"
        if len(group.completions) != request.group_size:
            return f"{len(group.completions)} completions, expected {request.group_size}, {where}"
        for completion in group.completions:
            if not _fits(completion):
                count = len(completion.logprobs or ())
                return f"{count} log-probabilities for {len(completion.token_ids)} tokens {where}"
    return ""


def _with_prompt(group: RolloutGroup, text: str) -> RolloutGroup:
    return replace(group, completions=tuple(replace(c, prompt_text=text) for c in group.completions))


def _fits(completion: Completion) -> bool:
    return completion.logprobs is None or len(completion.logprobs) == len(completion.token_ids)
