"""Asking a backend for completions: the one place that calls ``generate``."""

from collections.abc import Sequence
from dataclasses import replace

from reasonrl.contracts.data import Completion, RolloutGroup, RolloutRequest
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.errors import PluginContractError


def sample(backend: RolloutBackend, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
    """``backend.generate(requests)``, checked: a backend's mistake is named, not met deep in the trainer.

    Every completion gets the text of its prompt, which rewards judge it by.

    Raises:
        PluginContractError: if groups, completions or log-probabilities are not as many as asked for.
    """
    groups = backend.generate(requests)
    if len(groups) != len(requests):
        raise _wrong(backend, f"{len(groups)} groups for {len(requests)} requests")
    for request, group in zip(requests, groups, strict=True):
        where = f"for problem {request.problem.id!r}"
        if len(group.completions) != request.group_size:
            raise _wrong(backend, f"{len(group.completions)} completions, expected {request.group_size}, {where}")
        for completion in group.completions:
            if not _fits(completion):
                count = len(completion.logprobs or ())
                raise _wrong(backend, f"{count} log-probabilities for {len(completion.token_ids)} tokens {where}")
    return [_with_prompt(group, request.prompt_text) for request, group in zip(requests, groups, strict=True)]


def _with_prompt(group: RolloutGroup, text: str) -> RolloutGroup:
    return replace(group, completions=tuple(replace(c, prompt_text=text) for c in group.completions))


def _fits(completion: Completion) -> bool:
    return completion.logprobs is None or len(completion.logprobs) == len(completion.token_ids)


def _wrong(backend: RolloutBackend, what: str) -> PluginContractError:
    return PluginContractError(
        f"rollout backend {type(backend).__name__}: generate returned {what}; see RolloutBackend in the contracts"
    )
