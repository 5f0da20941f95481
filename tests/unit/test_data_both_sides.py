"""Conversations to imitate: the tokens that sampling makes, and a loss on the model's messages alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.chat_templates import CHATML, QWEN3_THINKING, R1
from support.talking_plugin import EOS, FIRST, Chat, Script, Talk

from reasonrl import FinishReason, Message, Problem, RolloutGroup, RolloutRequest, SamplingParams, TaskSpec
from reasonrl.conversations.build import open_dialogue
from reasonrl.conversations.loop import Alone, converse
from reasonrl.data.both_sides import is_conversation
from reasonrl.data.demonstrations import Encoder, Example
from reasonrl.data.prompts import PromptLimit
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import RecipeError
from reasonrl.plugins import Component
from reasonrl.testing.models import byte_tokenizer

STOP = "!"
COMPONENT = Component(spec=TaskSpec(name="talk", summary="Replies.", factory=Talk), config=None)
ASK = Message(role="user", content="1?")
SAY, REPLY = Message(role="assistant", content="ab"), Message(role="user", content="cd")


class Ends(Script):
    """Messages that end in the stop string or in an EOS."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        groups = super().generate(requests)
        return [replace(group, completions=tuple(map(self._ended, group.completions))) for group in groups]

    def _ended(self, one: Any) -> Any:
        if one.finish_reason is FinishReason.EOS:
            return one
        ids = (*one.token_ids, ord(STOP) - FIRST)
        return replace(one, token_ids=ids, text=one.text + STOP, logprobs=None, finish_reason=FinishReason.STOP_STRING)


def encoder(tokenizer: Any = None, *, limit: int = 500, **options: Any) -> Encoder:
    renderer = PromptRenderer(tokenizer or byte_tokenizer())
    limits = PromptLimit(max_prompt_tokens=500, completion_tokens=1)
    return Encoder(renderer, limits, max_completion_tokens=limit, stop=(STOP,), **options)


def encoded(problem: Problem, said: Any, **options: Any) -> Example:
    example = encoder(**options)(problem, said)
    assert example is not None
    return example


@pytest.mark.parametrize("task", [Talk(), Chat()], ids=["raw", "chat"])
def test_an_example_is_what_sampling_made_of_the_same_messages(task: Talk) -> None:
    renderer, dialogue = PromptRenderer(byte_tokenizer()), open_dialogue(task, COMPONENT, max_turns=8)
    ends = set()
    for index in range(20):
        problem = task.problem("train", index)
        prompt = renderer.render(problem)
        request = RolloutRequest(
            problem=problem,
            prompt_ids=prompt.ids,
            group_size=2,
            sampling=SamplingParams(max_completion_tokens=400, stop=(STOP,)),
            seed=index,
        )
        (group,) = converse(Ends(), [request], renderer, Alone(), dialogue)
        for one in group.completions:
            example = encoded(problem, one.messages)
            assert example.prompt_ids == prompt.ids
            assert example.trained_mask is not None
            last = () if one.finish_reason is FinishReason.EOS else (EOS,)
            assert example.completion_ids == (*one.token_ids, *last)
            assert example.trained == (*(one.sampled_mask or ()), *[True] * len(last))
            ends.add(one.finish_reason)
    assert ends == {FinishReason.EOS, FinishReason.STOP_STRING}


def test_only_what_the_model_says_is_trained_on() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHATML
    problem = Problem(id="p", prompt=(ASK,))
    example = encoded(problem, (SAY, REPLY, SAY), tokenizer=tokenizer)
    written = [token for token, mine in zip(example.completion_ids, example.trained, strict=True) if mine]
    assert tokenizer.decode(written) == "ab<|endoftext|>" * 2
    assert tokenizer.decode(example.completion_ids).count("cd") == 1
    assert example.num_trained == len(written) == 6
    text = encoded(problem, "ab", tokenizer=tokenizer)
    assert (text.trained_mask, text.num_trained) == (None, 3)


@pytest.mark.parametrize("limit", range(1, 12))
def test_a_conversation_is_cut_at_the_limit(limit: int) -> None:
    problem = Problem(id="p", prompt="1?")
    whole = encoded(problem, (SAY, REPLY, SAY))
    example = encoded(problem, (SAY, REPLY, SAY), limit=limit)
    assert example.completion_ids == whole.completion_ids[:limit]
    assert example.trained == whole.trained[:limit]
    assert example.is_cut == (limit < len(whole.completion_ids) == 8)


def test_a_template_that_rewrites_history_is_refused_or_kept() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = R1
    problem = Problem(id="p", prompt=(ASK,))
    with pytest.raises(RecipeError, match=r"changes earlier messages.*sampling.rewritten_history=keep"):
        encoded(problem, (SAY, REPLY, SAY), tokenizer=tokenizer)
    kept = encoded(problem, (SAY, REPLY, SAY), tokenizer=tokenizer, history="keep")
    assert kept.num_trained == 6
    assert encoded(problem, (SAY,), tokenizer=tokenizer).num_trained == 3, "nothing follows that could change it"


def test_thinking_that_a_turn_opens_is_not_opened_again() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = QWEN3_THINKING
    thought = Message(role="assistant", content="<think>\n2</think>3")
    example = encoded(Problem(id="p", prompt=(ASK,)), (thought, REPLY, thought), tokenizer=tokenizer, history="keep")
    written = [token for token, mine in zip(example.completion_ids, example.trained, strict=True) if mine]
    assert tokenizer.decode(written) == "2</think>3<|endoftext|>" * 2


@pytest.mark.parametrize("said", [(), (REPLY,), (SAY, SAY), (SAY, REPLY), (REPLY, SAY), [SAY], ("ab",), "ab", None])
def test_what_is_no_conversation(said: Any) -> None:
    assert not is_conversation(said)


def test_any_order_of_a_conversation_is_one() -> None:
    rng = random.Random(0)
    for _ in range(50):
        said = [SAY]
        for _ in range(rng.randrange(4)):
            said += [REPLY] * rng.randint(1, 3) + [SAY]
        assert is_conversation(tuple(said))
        assert encoded(Problem(id="p", prompt="1?"), tuple(said)).num_trained == 3 * said.count(SAY)
