"""Laws of conversations: what the policy did not sample teaches nothing, and no token of the past ever changes."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripted import CASES, PAD, Case, run_update, scripted_groups, tiny_policy
from support.scripted_plugin import Picky
from support.talking_plugin import Script

from reasonrl import (
    Completion,
    FinishReason,
    Message,
    Needs,
    Problem,
    RewardOutput,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    ScoredGroup,
    Transcript,
    Turn,
)
from reasonrl.conversations.loop import Alone, Dialogue, converse
from reasonrl.conversations.replies import TaskReplies
from reasonrl.data.collate import collate
from reasonrl.data.render import PromptRenderer
from reasonrl.data.turns import TurnRenderer
from reasonrl.functional.gae import gae
from reasonrl.testing.models import byte_tokenizer
from reasonrl.trainer.rollout_metrics import rollout_metrics

ANY_CASE = pytest.mark.parametrize("name", CASES)
TEMPLATES = sorted((Path(__file__).parents[1] / "support" / "templates").glob("*.jinja"))
REWRITES = {"qwen3": "drops the thinking", "mistral_v3_system": "changes earlier messages"}
WORDS = st.text("ab <>/\n{}'é|", max_size=8)


def with_masks(groups: list[ScoredGroup], seed: int = 0) -> list[ScoredGroup]:
    """The same groups, with runs of tokens inside the completions that the policy did not sample."""
    rng = random.Random(seed)

    def mixed(one: Completion) -> Completion:
        mask = [rng.random() < 0.6 for _ in one.token_ids]
        mask[0] = True
        return replace(one, sampled_mask=tuple(mask))

    return [replace(g, group=replace(g.group, completions=tuple(map(mixed, g.group.completions)))) for g in groups]


def batch_of(groups: list[ScoredGroup]) -> Any:
    return collate(groups, pad_id=PAD, device=torch.device("cpu"))


@ANY_CASE
def test_tokens_that_were_not_sampled_have_no_gradient_and_enter_no_mean(name: str) -> None:
    """Their log-probabilities, rewards and values may be anything; advantages are whitened without them, too."""
    case, groups = CASES[name], with_masks(scripted_groups(4, 3))
    plain = run_update(case, tiny_policy(case), groups, group_size=3)
    rng = random.Random(1)

    def spoiled(one: Completion) -> Completion:
        assert one.logprobs is not None
        assert one.sampled_mask is not None
        pairs = zip(one.logprobs, one.sampled_mask, strict=True)
        return replace(one, logprobs=tuple(lp if ours else -1e4 * rng.random() for lp, ours in pairs))

    other = [replace(g, group=replace(g.group, completions=tuple(map(spoiled, g.group.completions)))) for g in groups]
    again = run_update(case, tiny_policy(case), other, group_size=3)
    assert plain.metrics == again.metrics
    assert all(torch.equal(value, again.parameters[key]) for key, value in plain.parameters.items())
    batch = batch_of(groups)
    policy = tiny_policy(case).train()
    ids = batch.input_ids.clone()
    out = policy(ids, batch.attention_mask, batch.response_mask)
    assert not out.logprobs[~batch.response_mask].any()
    assert int(batch.response_mask.sum()) == sum(
        c.sampled_tokens
        for g in groups
        for c, r in zip(g.group.completions, g.rewards, strict=True)
        if r.total is not None
    )


def test_figures_of_completions_count_sampled_tokens_only() -> None:
    groups = with_masks(scripted_groups(4, 3))
    metrics = rollout_metrics(groups, set())
    lengths = [c.sampled_tokens for g in groups for c in g.group.completions]
    assert metrics["train/length_tokens"].value == sum(lengths)
    assert metrics["train/length_tokens_max"].value == max(lengths)


def one_row(prompt: tuple[int, ...], ids: tuple[int, ...], mask: tuple[bool, ...] | None, value: float) -> ScoredGroup:
    request = RolloutRequest(
        problem=Problem(id="p", prompt="x"), prompt_ids=prompt, group_size=1, sampling=SamplingParams(), seed=0
    )
    said = Completion(
        token_ids=ids, logprobs=(-1.0,) * len(ids), text="", finish_reason=FinishReason.EOS, sampled_mask=mask
    )
    reward = RewardOutput(total=value, components={"r": value}, correct=False)
    return ScoredGroup(group=RolloutGroup(request=request, completions=(said,)), rewards=(reward,))


class Reinforce(Case):
    """Advantage = reward - 0.5, every token weighs the same."""

    @property
    def needs(self) -> Needs:
        return Needs()

    def algorithm(self, group_size: int) -> Any:
        return Picky(None, None)


@pytest.mark.parametrize("turns", [[(1, 1)], [(2, 3), (1, 1), (3, 2)], [(1, 2), (4, 1), (1, 0)]])
def test_a_conversation_has_the_gradient_of_its_turns_as_rows(turns: list[tuple[int, int]]) -> None:
    """One update on conversations = the same on a row for each of the model's messages, after all that came before."""
    rng, case = random.Random(len(turns)), Reinforce("reinforce", None)
    whole: list[ScoredGroup] = []
    split: list[ScoredGroup] = []
    for value in (1.0, 0.0):
        prompt, ids, mask = (5, 6), [], []
        for ours, theirs in turns:
            start = len(ids)
            ids += [rng.randrange(256) for _ in range(ours + theirs)]
            mask += [True] * ours + [False] * theirs
            split.append(one_row((*prompt, *ids[:start]), tuple(ids[start : start + ours]), None, value))
        whole.append(one_row(prompt, tuple(ids), tuple(mask), value))
    one, other = (run_update(case, tiny_policy(case), groups, group_size=1) for groups in (whole, split))
    before = dict(tiny_policy(case).named_parameters())
    for name, value in one.parameters.items():
        torch.testing.assert_close(value, other.parameters[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(before[name], value) for name, value in one.parameters.items())
    assert one.metrics["loss/total"] == pytest.approx(other.metrics["loss/total"], rel=1e-6)


def test_generalized_advantages_skip_what_was_not_sampled() -> None:
    """The next sampled token follows directly: cutting the task's tokens out changes nothing."""
    torch.manual_seed(0)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 0, 1, 1, 0]], dtype=torch.bool)
    rewards, values = torch.randn(1, 10), torch.randn(1, 10)
    whole = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    short = gae(rewards[mask][None], values[mask][None], mask[mask][None], gamma=0.9, lam=0.8)
    for one, other in zip(whole, short, strict=True):
        torch.testing.assert_close(one[mask], other[0])
        assert not one[~mask].any()


class Scripted:
    """A task that says what it is given; at last it ends the conversation."""

    def __init__(self, prompt: Any, turns: list[Any]) -> None:
        self._problem, self._turns = Problem(id="p", prompt=prompt), turns

    def size(self, split: Any) -> int:
        return 1

    def problem(self, split: Any, index: int) -> Problem:
        return self._problem

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        at = len(transcript.replies) - 1
        return (Turn(content=self._turns[at]) if at < len(self._turns) else None), {"at": at}


def renderer_of(template: Path) -> PromptRenderer:
    tokenizer = byte_tokenizer("llama")
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    return PromptRenderer(tokenizer)


def test_there_are_templates_of_every_family() -> None:
    names = {path.stem for path in TEMPLATES}
    assert names >= {"qwen2_5", "qwen3", "llama3", "gemma", "smollm2", "mistral", "mistral_v3_system"}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
@given(st.lists(WORDS, min_size=1, max_size=4), st.booleans(), st.integers(0, 2**32), st.sampled_from(["user", "tool"]))
@settings(max_examples=25, deadline=None)
def test_the_ids_of_every_turn_are_an_exact_prefix_of_the_next(
    template: Path, words: list[str], has_system: bool, seed: int, role: Any
) -> None:
    renderer, backend = renderer_of(template), Script()
    system = (Message(role="system", content="Be brief."),) if has_system else ()
    task = Scripted(
        (*system, Message(role="user", content="hi")), [(Message(role=role, content=word),) for word in words]
    )
    prompt = renderer.render(task.problem("train", 0))
    request = RolloutRequest(
        problem=task.problem("train", 0),
        prompt_ids=prompt.ids,
        prompt_text=prompt.text,
        group_size=1,
        sampling=SamplingParams(max_completion_tokens=10_000),
        seed=seed,
    )
    dialogue = Dialogue(responder=TaskReplies(task, "scripted"), max_turns=99)
    (group,) = converse(backend, [request], renderer, Alone(), dialogue)
    (whole,) = group.completions
    assert len(whole.replies) == len(words) + 1
    seen = [call[0].prompt_ids for call in backend.calls] + [(*prompt.ids, *whole.token_ids)]
    texts = [call[0].prompt_text for call in backend.calls]
    for before, after in pairwise(seen):
        assert after[: len(before)] == before
    for ids, text in zip(seen, texts, strict=False):
        assert renderer.tokenizer.decode(list(ids)) == text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_that_rewrites_the_past_is_found(template: Path) -> None:
    renderer = renderer_of(template)
    prompt = (Message(role="system", content="Be brief."), Message(role="user", content="hi"))
    said = TurnRenderer(renderer).find_rewriting(Problem(id="p", prompt=prompt))
    expected = REWRITES.get(template.stem)
    assert (expected in said) if expected else said == ""
    if template.stem == "qwen3":  # it keeps the thinking while only tools have answered
        assert TurnRenderer(renderer).find_rewriting(Problem(id="p", prompt=prompt), "tool") == ""
    if template.stem == "mistral_v3_system":  # nothing moves without a system message
        assert TurnRenderer(renderer).find_rewriting(Problem(id="p", prompt=prompt[1:])) == ""


@pytest.mark.parametrize("template", [t for t in TEMPLATES if t.stem not in REWRITES], ids=lambda path: path.stem)
def test_a_turn_is_what_the_template_renders(template: Path) -> None:
    """Prompt, message, end and turn, in tokens, are those of the whole conversation rendered at once."""
    renderer = renderer_of(template)
    problem = Problem(id="p", prompt=(Message(role="user", content="hi"),))
    said, asked = Message(role="assistant", content="well"), Message(role="user", content="and?")
    turn = TurnRenderer(renderer).render(problem, Turn(content=(asked,)), None)
    whole = renderer.apply(problem, (said, asked))
    assert "".join((renderer.text(problem) + "well" + turn.text).split(" ")) == "".join(whole.split(" "))
    eos = renderer.tokenizer.eos_token_id
    ended = TurnRenderer(renderer).render(problem, Turn(content=(asked,)), eos)
    assert turn.text in (ended.text, renderer.tokenizer.eos_token + ended.text)
