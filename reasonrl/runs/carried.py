"""``carried.jsonl`` and ``pending.jsonl`` of a checkpoint: scored groups for the next step, one a line, bit-exact."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from reasonrl.contracts.data import (
    Completion,
    FinishReason,
    Message,
    Problem,
    RewardOutput,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    ScoredGroup,
)
from reasonrl.errors import CheckpointError, describe
from reasonrl.redact import known_secrets, redact_data
from reasonrl.rundir import files
from reasonrl.rundir.reading import UnreadableError, read_lines
from reasonrl.runs.group_checks import refuse_wrong


def write_groups(path: Path, groups: Sequence[ScoredGroup]) -> None:
    """A new file, without secrets; not synced. Training needs no text of a group that is scored."""
    known = known_secrets()
    plain = (redact_data(_plain(group), known) for group in groups)
    # ASCII: the text of a completion may hold half a character, which UTF-8 cannot.
    files.write_text(path, "".join(json.dumps(group, default=_number) + "\n" for group in plain))


def read_groups(path: Path) -> tuple[ScoredGroup, ...]:
    """The groups of a verified checkpoint; none without the file.

    Raises:
        CheckpointError: if another version of reasonrl wrote it.
    """
    if not path.exists():
        return ()
    try:
        groups = tuple(_scored_group(record) for record in _records(path))
        for group in groups:
            refuse_wrong(group)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        reason = f"it lacks {err}" if isinstance(err, KeyError) else describe(err)
        raise CheckpointError(
            f"{path}: cannot be read: {reason}; resume with the version of reasonrl that wrote it"
        ) from err
    return groups


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, record, _ in read_lines(path):
        if record is None:
            raise UnreadableError(f"line {number} does not hold a JSON object")
        yield record


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _number(value: Any) -> object:
    """A scalar of numpy or torch, which a plugin may have put where a number belongs."""
    try:
        return value.item()
    except AttributeError:
        raise TypeError(f"{type(value).__name__} {value!r} is not JSON") from None


def _scored_group(data: dict[str, Any]) -> ScoredGroup:
    group = data["group"]
    return ScoredGroup(
        group=RolloutGroup(
            request=_request(group["request"]), completions=tuple(_completion(c) for c in group["completions"])
        ),
        rewards=tuple(RewardOutput(**_with_tuples(reward, "token_values")) for reward in data["rewards"]),
    )


def _request(data: dict[str, Any]) -> RolloutRequest:
    problem = data["problem"]
    if not isinstance(problem["prompt"], str):
        problem["prompt"] = tuple(Message(**message) for message in problem["prompt"])
    parts = {
        "problem": Problem(**_with_tuples(problem, "tools")),
        "sampling": SamplingParams(**_with_tuples(data["sampling"], "stop")),
    }
    return RolloutRequest(**_with_tuples(data, "prompt_ids") | parts)


def _completion(data: dict[str, Any]) -> Completion:
    data["finish_reason"] = FinishReason(data["finish_reason"])
    data["messages"] = tuple(Message(**message) for message in data["messages"])
    return Completion(**_with_tuples(data, "token_ids", "logprobs", "sampled_mask"))


def _with_tuples(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """JSON has lists only."""
    return data | {name: tuple(data[name]) for name in names if data[name] is not None}
