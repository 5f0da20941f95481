"""The loop between a backend and a task that replies: tokens, masks, limits, and tasks that misbehave."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from support.builders import completion
from support.talking_plugin import Chat, Script, Talk

from reasonrl import (
    Completion,
    ContinueRequest,
    FinishReason,
    Message,
    Problem,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    Score,
    TaskSpec,
    Transcript,
    Turn,
)
from reasonrl.conversations.build import open_dialogue
from reasonrl.conversations.loop import Alone, converse
from reasonrl.data.render import PromptRenderer
from reasonrl.plugins import Component
from reasonrl.rewards.judging import Verdict, fitted
from reasonrl.testing.models import byte_tokenizer

RENDERER = PromptRenderer(byte_tokenizer())
COMPONENT = Component(spec=TaskSpec(name="talk", summary="Replies.", factory=Talk), config=None)


def request(task: Talk, index: int = 0, *, limit: int = 200, size: int = 3) -> RolloutRequest:
    problem = task.problem("train", index)
    prompt = RENDERER.render(problem)
    return RolloutRequest(
        problem=problem,
        prompt_ids=prompt.ids,
        prompt_text=prompt.text,
        group_size=size,
        sampling=SamplingParams(max_completion_tokens=limit, stop=("!",)),
        seed=index,
    )


def talk(
    task: Any, *requests: RolloutRequest, turns: int = 8, backend: Any = None, timeout_s: float = 5.0
) -> list[RolloutGroup]:
    dialogue = open_dialogue(task, COMPONENT, max_turns=turns, respond_timeout_s=timeout_s)
    return converse(backend or Script(), requests, RENDERER, Alone(), dialogue)


def decoded(completion: Completion) -> str:
    text = RENDERER.tokenizer.decode(list(completion.token_ids))
    return text.removesuffix("<|endoftext|>") if completion.finish_reason is FinishReason.EOS else text


@pytest.mark.parametrize("task", [Talk(), Chat()], ids=["raw", "chat"])
def test_a_conversation_is_one_completion_of_both_sides(task: Talk) -> None:
    backend = Script()
    requests = [request(task, index) for index in range(4)]
    groups = talk(task, *requests, backend=backend)
    for asked, group in zip(requests, groups, strict=True):
        assert group.request is asked
        for one in group.completions:
            assert one.sampled_mask is not None
            assert len(one.replies) == 4 == len(one.state["said"])
            assert one.state["said"] == [len(reply) for reply in one.replies]
            assert decoded(one) == one.text
            assert len(one.token_ids) == len(one.sampled_mask) == len(one.logprobs or ())
            theirs = [lp for lp, ours in zip(one.logprobs or (), one.sampled_mask, strict=True) if not ours]
            assert set(theirs) == {0.0}
            assert [m.role for m in one.messages] == ["assistant", "user"] * 3 + ["assistant"]
            assert len(one.turn_ends) == 4
            assert one.sampled_tokens == sum(one.sampled_mask) < len(one.token_ids)
    later = [one for call in backend.calls[1:] for one in call]
    assert len(backend.calls) == 4
    assert len({one.seed for one in later}) == len(later) == 4 * 3 * 3
    earlier = {one.prompt_ids for one in requests}
    for call in backend.calls[1:]:
        assert all(any(one.prompt_ids[: len(ids)] == ids for ids in earlier) for one in call)
        assert all(isinstance(one, ContinueRequest) and one.group_size == 1 for one in call)
        earlier = {one.prompt_ids for one in call}


def test_a_task_that_never_replies_is_sampled_as_before() -> None:
    class Silent(Talk):
        respond = None  # type: ignore[assignment]

    backend, plain = Script(), Script()
    asked = request(Talk())
    assert open_dialogue(Silent(), COMPONENT, max_turns=8) is None
    assert talk(Silent(), asked, backend=backend) == plain.generate([asked])
    assert backend.calls == [[asked]]


@pytest.mark.parametrize("limit", [1, 2, 5, 9, 14, 22, 40])
def test_the_token_limit_holds_for_both_sides_together(limit: int) -> None:
    backend = Script()
    groups = talk(Talk(), *(request(Talk(), i, limit=limit) for i in range(6)), backend=backend)
    everything = [one for group in groups for one in group.completions]
    assert max(len(one.token_ids) for one in everything) <= limit
    for one in (one for call in backend.calls[1:] for one in call):
        assert isinstance(one, ContinueRequest)
        assert one.tokens_before + one.sampling.max_completion_tokens == limit
        assert one.sampling.max_completion_tokens >= 1
        assert one.sampling.stop == ("!",)
    cut = [one for one in everything if len(one.replies) < 4]
    assert all(one.finish_reason is FinishReason.LENGTH for one in cut)
    assert cut or limit > 22


def test_the_turn_limit_ends_a_conversation_with_the_models_message() -> None:
    for turns in (1, 2, 3):
        (group,) = talk(Talk(), request(Talk()), turns=turns)
        for one in group.completions:
            assert len(one.replies) == turns
            assert one.messages[-1].role == "assistant"
            assert len(one.state["said"]) == turns, "the task sees the last message, too"
            assert one.sampled_mask is None or one.sampled_mask[-1]
            assert (one.sampled_mask is None) == (turns == 1)


def test_what_respond_changes_and_returns_is_its_own() -> None:
    class Careless(Talk):
        def respond(self, transcript: Transcript) -> Any:
            transcript.problem.info["n"] = "spoiled"  # type: ignore[index]
            transcript.state.setdefault("seen", []).append(1)  # type: ignore[attr-defined]
            return super().respond(transcript)

    asked = request(Talk())
    (group,) = talk(Careless(), asked)
    assert asked.problem.info == {"n": 0}
    assert "seen" not in group.completions[0].state


class _Raises(Talk):
    def respond(self, transcript: Transcript) -> Any:
        if len(transcript.replies) > 1:
            raise RuntimeError("no idea")
        return super().respond(transcript)


class _Exits(Talk):
    def respond(self, transcript: Transcript) -> Any:
        raise SystemExit(3)


class _Closes(Talk):
    def respond(self, transcript: Transcript) -> Any:
        raise GeneratorExit


def _returning(value: Any) -> type[Talk]:
    class Returns(Talk):
        def respond(self, transcript: Transcript) -> Any:
            return value

    return Returns


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (_Raises, "no idea"),
        (_Exits, "SystemExit"),
        (_Closes, "GeneratorExit"),
        (_returning(Turn(content="x")), "expected a pair"),
        (_returning(("x", {})), "expected a Turn"),
        (_returning((Turn(content=["x"]), {})), "expected a Turn"),  # type: ignore[arg-type]
        (_returning((None, [1])), "expected a mapping"),
        (_returning((None, {"x": {1}})), "not JSON"),
        (_returning((Turn(content=""), {})), "is empty"),
        (_returning((Turn(content="\udc80"), {})), "lone surrogate"),
        (_returning((Turn(content="x" * 10**7), {})), "10,000,000 characters"),
        (_returning((Turn(content=(Message(role="user", content="x"),)), {})), "both must have one form"),
    ],
)
def test_a_reply_that_fails_costs_its_completion_and_is_logged_once(
    task: type[Talk], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (group,) = talk(task(), request(Talk()))
    assert {one.finish_reason for one in group.completions} == {FinishReason.ERROR}
    assert len(caplog.records) == 1
    assert "stays unscored" in caplog.text
    assert message in caplog.text


class _Sleeps(Talk):
    def respond(self, transcript: Transcript) -> Any:
        if transcript.problem.info["n"] == 1:
            time.sleep(600)
        return super().respond(transcript)


class _Spins(_Sleeps):
    def respond(self, transcript: Transcript) -> Any:
        while transcript.problem.info["n"] == 1:
            pass
        return Talk.respond(self, transcript)


class _Retries(_Sleeps):
    def respond(self, transcript: Transcript) -> Any:
        while True:
            with contextlib.suppress(Exception):
                return super().respond(transcript)


@pytest.mark.parametrize("task", [_Sleeps, _Spins, _Retries])
def test_a_reply_that_hangs_costs_its_completion_and_a_line(task: type[Talk], caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with caplog.at_level(logging.WARNING):
        groups = talk(task(), *(request(Talk(), index) for index in range(3)), timeout_s=0.05)
    ends = [{one.finish_reason for one in group.completions} for group in groups]
    assert ends[1] == {FinishReason.ERROR}
    assert FinishReason.ERROR not in ends[0] | ends[2]
    (record,) = caplog.records
    assert record.getMessage() == (
        "task 'talk': respond to problem 'talk/train/1' took longer than 0.05 s; make it faster, or raise "
        "sampling.respond_timeout_s; the completion stays unscored"
    )
    assert record.exc_info is None
    assert (signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM)) == (0, before)


def test_credit_belongs_to_sampled_tokens() -> None:
    one = completion((1, 2, 3, 4), logprobs=(0.0,) * 4)
    mixed = Completion(
        token_ids=one.token_ids,
        logprobs=one.logprobs,
        text="",
        finish_reason=FinishReason.EOS,
        sampled_mask=(True, True, False, True),
    )
    assert mixed.turn_ends == (1, 3)
    assert one.turn_ends == (3,)
    assert one.replies == ("x",)
    at_ends = Verdict(Score(value=1.0, token_values=(0.0, 0.5, 0.0, 0.5)))
    astray = Verdict(Score(value=1.0, token_values=(0.0, 0.0, 0.5, 0.0)))
    assert fitted(at_ends, (0.0, 1.0), mixed) is at_ends
    assert fitted(astray, (0.0, 1.0), one) is astray
    refused = fitted(astray, (0.0, 1.0), mixed)
    assert (refused.trouble, refused.score.value) == ("refused", None)
    assert "token 2" in refused.score.reason


def test_ranks_without_an_open_conversation_take_part_in_every_round() -> None:
    class Others(Alone):
        """Another process needs five more rounds."""

        rounds: Sequence[int] = ()

        def __init__(self) -> None:
            self.left = 6

        def max(self, value: int) -> int:
            self.left -= 1
            return max(value, int(self.left > 0))

    backend = Script()
    groups = converse(backend, [], RENDERER, Others(), open_dialogue(Talk(), COMPONENT, max_turns=8))
    assert groups == []
    assert backend.calls == [[]] * 6  # the first round is asked for by everybody


def test_problem_of_a_transcript() -> None:
    prompt = (Message(role="system", content="s"), Message(role="assistant", content="an example"))
    said = (Message(role="assistant", content="a"), Message(role="user", content="u"))
    last = Message(role="assistant", content="b")
    transcript = Transcript(problem=Problem(id="p", prompt=prompt), messages=(*prompt, *said, last))
    assert (transcript.text, transcript.replies) == ("b", ("a", "b"))
