"""Whether a group from a checkpoint is one that a run writes: types and lengths that the trainer computes with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reasonrl.contracts.data import Completion, RewardOutput, ScoredGroup


def refuse_wrong(scored: ScoredGroup) -> None:
    """Raise ValueError, naming the part, if a run cannot have written the group."""
    for name, is_right in _facts(scored):
        if not is_right:
            raise ValueError(f"invalid {name}")


def _facts(scored: ScoredGroup) -> Iterator[tuple[str, bool]]:
    request, completions = scored.group.request, scored.group.completions
    yield "prompt_ids", _are_ids(request.prompt_ids)
    yield "info", isinstance(request.problem.info, Mapping)
    yield "completions", len(completions) == len(scored.rewards) > 0
    for completion in completions:
        yield from _facts_of_completion(completion)
    for reward in scored.rewards:
        yield from _facts_of_reward(reward)


def _facts_of_completion(one: Completion) -> Iterator[tuple[str, bool]]:
    count, logprobs, mask = len(one.token_ids), one.logprobs, one.sampled_mask
    yield "token_ids", _are_ids(one.token_ids)
    yield "logprobs", logprobs is None or (len(logprobs) == count and all(map(_is_number, logprobs)))
    yield "sampled_mask", mask is None or (len(mask) == count and all(isinstance(here, bool) for here in mask))
    yield "text", isinstance(one.text, str) and isinstance(one.prompt_text, str)
    yield "policy_version", _is_count(one.policy_version)
    yield "messages", all(isinstance(message.content, str) for message in one.messages)
    yield "state", isinstance(one.state, Mapping)
    yield "tool_calls", isinstance(one.tool_calls, Mapping) and all(map(_is_count, one.tool_calls.values()))


def _facts_of_reward(one: RewardOutput) -> Iterator[tuple[str, bool]]:
    yield "total", one.total is None or _is_number(one.total)
    yield "correct", one.correct is None or isinstance(one.correct, bool)
    yield "answer", one.answer is None or isinstance(one.answer, str)
    yield "token_values", all(map(_is_number, one.token_values))
    yield "components", _maps_to(one.components, (int, float, type(None)))
    yield "metrics", _maps_to(one.metrics, (int, float))
    yield "reasons", _maps_to(one.reasons, (str,))


def _are_ids(values: Sequence[Any]) -> bool:
    return all(map(_is_count, values))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _maps_to(values: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(values, Mapping) and all(isinstance(value, kinds) for value in values.values())
