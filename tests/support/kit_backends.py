"""Backends that are wrong in one way each, over the bundled one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from reasonrl import Completion, ContinueRequest, FinishReason, RolloutContext, RolloutGroup, RolloutRequest
from reasonrl_hf.backend import HFBackend
from reasonrl_hf.config import HFConfig


class Good(HFBackend):
    def __init__(self, config: Any, context: RolloutContext) -> None:
        super().__init__(HFConfig(), context)
        self.tokenizer, self.policy = context.tokenizer, context.policy

    def asked_otherwise(
        self, requests: Sequence[RolloutRequest], change: Callable[[RolloutRequest], RolloutRequest]
    ) -> list[RolloutGroup]:
        """Answers to changed requests, given as answers to the requests."""
        groups = HFBackend.generate(self, [change(request) for request in requests])
        return [replace(group, request=r) for group, r in zip(groups, requests, strict=True)]


class Edited(Good):
    """Changes single completions afterward."""

    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        raise NotImplementedError

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        return [
            replace(group, completions=tuple(self.edit(c, group.request) for c in group.completions))
            for group in super().generate(requests)
        ]


class NoGenerate:
    def __init__(self, config: Any, context: RolloutContext) -> None: ...

    def __enter__(self) -> NoGenerate:
        return self

    def __exit__(self, *exc: object) -> None: ...


class NoEntry(Good):
    def __enter__(self) -> Any:
        return None


class Shuffled(Good):
    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        groups = super().generate(requests)
        is_first = not any(isinstance(request, ContinueRequest) for request in requests)
        return groups[::-1] if len(groups) == 3 and is_first else groups


class OverTheEnd(Edited):
    """Long completions go on after EOS."""

    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        if completion.finish_reason is not FinishReason.EOS or request.sampling.max_completion_tokens < 40:
            return completion
        tokens = (*completion.token_ids, completion.token_ids[0])
        return replace(completion, token_ids=tokens, finish_reason=FinishReason.LENGTH)


class WrongReason(Edited):
    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        is_cut = completion.finish_reason is FinishReason.LENGTH
        return replace(completion, finish_reason=FinishReason.STOP_STRING) if is_cut else completion


class StopLeftOut(Edited):
    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        stopped = completion.finish_reason is FinishReason.STOP_STRING
        return replace(completion, text=completion.text[:-3]) if stopped else completion


class Polished(Edited):
    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        ended = completion.finish_reason is FinishReason.EOS
        return replace(completion, text=completion.text + "\n") if ended else completion


class Imprecise(Edited):
    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        if isinstance(request, ContinueRequest):
            return completion
        return replace(completion, logprobs=tuple(value - 0.01 for value in completion.logprobs or ()))


class NeverGreedy(Good):
    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        def change(request: RolloutRequest) -> RolloutRequest:
            return replace(request, sampling=replace(request.sampling, temperature=1.0))

        return [
            group if not group.request.sampling.is_greedy else self.asked_otherwise([group.request], change)[0]
            for group in super().generate(requests)
        ]


class Copying(Good):
    """The samples of small groups are copies."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        return [
            replace(group, completions=group.completions[:1] * 4) if len(group.completions) == 4 else group
            for group in super().generate(requests)
        ]


class Restless(Good):
    """Answers that no string stops are new ones each time."""

    calls = 0

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        if any(request.sampling.stop for request in requests):
            return super().generate(requests)
        self.calls += 1
        return self.asked_otherwise(requests, lambda r: replace(r, seed=r.seed + 1000 * self.calls))


class Lukewarm(Good):
    """Single tokens are drawn at temperature 1, whatever was asked."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        def change(request: RolloutRequest) -> RolloutRequest:
            is_short = request.sampling.max_completion_tokens == 1
            return replace(request, sampling=replace(request.sampling, temperature=1.0)) if is_short else request

        return self.asked_otherwise(requests, change)


class Stale(Good):
    def sync_weights(self, weights: Iterable[Any], *, policy_version: int) -> None:
        """Forgets the version."""


class Forgetful(Good):
    """Later messages continue the end of the conversation only."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        def change(request: RolloutRequest) -> RolloutRequest:
            is_later = isinstance(request, ContinueRequest)
            return replace(request, prompt_ids=request.prompt_ids[-3:]) if is_later else request

        return self.asked_otherwise(requests, change)


class Sleepy(Good):
    """Leaves the policy in eval mode."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        groups = super().generate(requests)
        self.policy.eval()
        return groups


class CloseOnce(Good):
    is_closed = False

    def __exit__(self, *exc: object) -> None:
        if self.is_closed:
            raise RuntimeError("closed already")
        self.is_closed = True


class Blind(Edited):
    """Gives no log-probabilities, and says so in its spec."""

    def edit(self, completion: Completion, request: RolloutRequest) -> Completion:
        return replace(completion, logprobs=None)
