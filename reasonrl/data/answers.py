"""What a rollout backend answers, checked before anything else reads it."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from reasonrl.contracts.data import Completion, FinishReason, RolloutGroup, RolloutRequest

SHOWN = 60
"""Characters of a wrong value in a message."""

OF_THE_CORE: dict[str, Any] = {"sampled_mask": None, "messages": (), "state": {}, "tool_calls": {}}
"""What the core says of a conversation; a backend knows of none."""


class WrongAnswerError(ValueError):
    """An answer that breaks the contract; says what was returned."""


def read_answers(
    requests: Sequence[RolloutRequest], answers: Iterable[RolloutGroup], rows: int | None
) -> list[RolloutGroup]:
    """Return the groups of all requests, in order, with completions of plain Python values.

    Each completion gets the text of its prompt, for the rewards.

    Args:
        rows: the number of the model's embeddings; None = not checked.

    Raises:
        WrongAnswerError: If something is missing, too much or of a wrong type; says what was returned.
    """
    groups = list(islice(answers, len(requests) + 1))
    if len(groups) != len(requests):
        given = len(groups) if len(groups) < len(requests) else f"over {len(requests)}"
        raise WrongAnswerError(f"{given} groups for {len(requests)} requests")
    return [_read_group(request, group, rows) for request, group in zip(requests, groups, strict=True)]


def _read_group(request: RolloutRequest, group: RolloutGroup, rows: int | None) -> RolloutGroup:
    where = f"for problem {request.problem.id!r}"
    _expect(isinstance(group, RolloutGroup), group, "a RolloutGroup", where)
    if group.request is not request and group.request != request:
        raise WrongAnswerError(f"the group of another request {where}; groups have the order of the requests")
    completions = list(islice(group.completions, request.group_size + 1))
    if len(completions) != request.group_size:
        given = len(completions) if len(completions) < request.group_size else f"over {request.group_size}"
        raise WrongAnswerError(f"{given} completions, expected {request.group_size}, {where}")
    read = tuple(_read(one, request, rows, where) for one in completions)
    return replace(group, completions=read)


def _read(one: Completion, request: RolloutRequest, rows: int | None, where: str) -> Completion:
    _expect(isinstance(one, Completion), one, "a Completion", where)
    _expect(isinstance(one.text, str), one.text, "text that is a str", where)
    _expect(isinstance(one.finish_reason, FinishReason), one.finish_reason, "a FinishReason", where)
    _expect(type(one.policy_version) is int, one.policy_version, "a policy_version that is an int", where)
    ids, logprobs = _token_ids(one, rows, where), _logprobs(one, where)
    if logprobs is not None and len(logprobs) != len(ids):
        raise WrongAnswerError(f"{len(logprobs)} log-probabilities for {len(ids)} tokens {where}")
    plain: dict[str, Any] = {"token_ids": ids, "logprobs": logprobs, "prompt_text": request.prompt_text}
    return replace(one, **plain, **OF_THE_CORE)


def _token_ids(one: Completion, rows: int | None, where: str) -> tuple[int, ...]:
    """Ids of another library, such as numpy's, become Python's."""
    try:
        ids = tuple(map(operator.index, one.token_ids))
    except TypeError:
        raise WrongAnswerError(f"token_ids {one.token_ids!r:.{SHOWN}}, expected a tuple of ints, {where}") from None
    if ids and (min(ids) < 0 or (rows is not None and max(ids) >= rows)):
        wrong = next(token for token in ids if token < 0 or (rows is not None and token >= rows))
        most = "" if rows is None else f" to {rows - 1}"
        raise WrongAnswerError(f"token id {wrong!s:.{SHOWN}}, expected one from 0{most}, {where}")
    return ids


def _logprobs(one: Completion, where: str) -> tuple[float, ...] | None:
    """Numbers of another library, such as numpy's, become Python's."""
    given = one.logprobs
    if given is None:
        return None
    try:
        return tuple(value if type(value) is float else value.__float__() for value in given)
    except (TypeError, AttributeError):
        raise WrongAnswerError(f"logprobs {given!r:.{SHOWN}}, expected a tuple of floats or None, {where}") from None


def _expect(holds: bool, got: object, expected: str, where: str) -> None:
    if not holds:
        raise WrongAnswerError(f"{type(got).__name__} {got!r:.{SHOWN}}, expected {expected}, {where}")
