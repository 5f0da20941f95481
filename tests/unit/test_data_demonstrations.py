"""What SFT imitates: a task's demonstrations or pairs."""

import random
from collections.abc import Collection
from itertools import islice
from typing import Any

import pytest
from support.builders import Numbers
from support.chat_templates import CHATML, QWEN3_THINKING

from reasonrl import Message, Problem, Split
from reasonrl.data.demonstrations import Encoder, Example, PairExamples, task_examples
from reasonrl.data.pairs import Pair
from reasonrl.data.prompts import PromptLimit
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.testing.models import byte_tokenizer

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


def encoder(
    prompt: int = 50,
    completion: int = 50,
    *,
    tokenizer: Any = TOKENIZER,
    ends: Collection[int] = (),
    **limits: Any,
) -> Encoder:
    limit = PromptLimit(max_prompt_tokens=prompt, completion_tokens=1, **limits)
    return Encoder(PromptRenderer(tokenizer), limit, max_completion_tokens=completion, ends=ends)


def encoded(problem: Problem, text: str, /, **options: Any) -> Example:
    example = encoder(**options)(problem, text)
    assert example is not None
    return example


def test_reasoning_that_the_chat_template_opens_is_not_opened_again() -> None:
    tokenizer = byte_tokenizer()
    problem = Problem(id="p", prompt=(Message(role="user", content="1+1"),))
    for template, text in ((CHATML, "<think>\n2</think>2"), (QWEN3_THINKING, "2</think>2")):
        tokenizer.chat_template = template
        example = encoded(problem, "<think>\n2</think>2", prompt=200, tokenizer=tokenizer)
        assert tokenizer.decode(example.completion_ids[:-1]) == text


class Teacher(Numbers):
    """Demonstrates every problem but those divisible by three."""

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return None if problem.info["n"] % 3 == 0 else f"{rng.random():.6f}"


class Tall(Numbers):
    """Every prompt is long."""

    def problem(self, split: Split, index: int) -> Problem:
        return Problem(id=str(index), prompt="123", info={"n": index})

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return "yes"


class Silent(Numbers):
    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return None


def pairs(*prompts: str) -> list[Pair]:
    return [Pair(Problem(id=prompt, prompt=prompt), "yes") for prompt in prompts]


def prompts(examples: object, count: int) -> list[str]:
    return [TOKENIZER.decode(e.prompt_ids) for e in islice(examples, count)]  # type: ignore[call-overload]


def test_an_example_ends_with_eos() -> None:
    example = encoded(Problem(id="p", prompt="ab", assistant_prefix=":"), "yes")
    assert TOKENIZER.decode(example.prompt_ids) == "ab:"
    assert TOKENIZER.decode(example.completion_ids[:-1]) == "yes"
    assert example.completion_ids[-1] == EOS
    assert example.num_tokens == 7


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"completion": 4}, "yes<|endoftext|>"),
        ({"completion": 3}, "yes"),
        ({"completion": 2}, "ye"),
        ({"context": 6}, "yes<|endoftext|>"),
        ({"context": 5}, "yes"),
        ({"context": 3}, "y"),
    ],
)
def test_a_completion_over_its_limit_or_the_context_loses_its_end_and_its_eos(
    limits: dict[str, int], text: str
) -> None:
    example = encoded(Problem(id="p", prompt="ab"), "yes", **limits)
    assert TOKENIZER.decode(example.completion_ids) == text
    assert example.is_cut is not text.endswith("<|endoftext|>")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"prompt": 3}, "sampling.max_prompt_tokens=3; set sampling.max_prompt_tokens=4"),
        (
            {"context": 4},
            "the 3 tokens that the model's context of 4 leaves besides a completion; it does not fit",
        ),
    ],
)
def test_a_prompt_over_its_limit_or_the_context_stops_or_is_dropped(limits: dict[str, int], said: str) -> None:
    problem = Problem(id="pairs.jsonl:7", prompt="abcd")
    with pytest.raises(RecipeError, match=rf"the prompt of problem 'pairs.jsonl:7' has 4 tokens, over {said}"):
        encoder(**limits)(problem, "yes")
    assert encoder(**limits, overlong="drop")(problem, "yes") is None


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("yes<|endoftext|>", "yes<|endoftext|>"),
        ("yes<|endoftext|>\n", "yes<|endoftext|>"),
        ("yes\n<|endoftext|><|endoftext|> \n", "yes\n<|endoftext|>"),
        ("yes<|pad|>", "yes<|pad|>"),
        ("yes", "yes<|endoftext|>"),
        ("yes\n", "yes\n<|endoftext|>"),
        ("a<|endoftext|>b", "a<|endoftext|>b<|endoftext|>"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("", "<|endoftext|>"),
    ],
)
def test_a_completion_ends_with_one_eos(completion: str, expected: str) -> None:
    """Its own, or that of generation_config.json, or a new one."""
    pad = TOKENIZER.pad_token_id
    encode = encoder(ends=[pad])
    example = encode(Problem(id="p", prompt="ab"), completion)
    assert example is not None
    assert TOKENIZER.decode(example.completion_ids) == expected
    assert encode.num_ended == (completion not in ("yes", "yes\n", "a<|endoftext|>b", ""))


def test_a_completion_with_a_lone_surrogate_is_named() -> None:
    with pytest.raises(RecipeError, match=r"the completion of problem 'p' has a lone surrogate, '\\udc00', at char"):
        encoder()(Problem(id="p", prompt="ab"), "a\udc00")


def test_pairs_are_counted() -> None:
    prompts = [("a", "yes"), ("a", "yes"), ("b" * 9, "yes"), ("c", "y" * 9), ("d", "no<|endoftext|>")]
    pairs = [Pair(Problem(id=str(i), prompt=p), c) for i, (p, c) in enumerate(prompts)]
    found = PairExamples.encode(pairs, encoder(prompt=5, completion=5, overlong="drop"))
    assert found.line() == (
        "5 rows read, 4 kept, 1 dropped (prompt over 5 tokens), 1 duplicates (kept), "
        "1 truncated, without EOS, 1 already ended in EOS"
    )
    assert PairExamples.encode(pairs[:1], encoder()).line() == "1 rows read, 1 kept"
    with pytest.raises(RecipeError, match=r"^data.path: all 1 prompts are over sampling.max_prompt_tokens=5; raise"):
        PairExamples.encode(pairs[2:3], encoder(prompt=5, overlong="drop"))


def test_a_task_whose_prompts_are_all_overlong_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"task 'teacher': 1000 consecutive problems .* sampling.max_prompt_tokens=1"):
        next(task_examples(Tall(), "teacher", encoder(prompt=1, overlong="drop"), seed=0))


def test_a_tasks_demonstrations_leave_out_what_it_cannot_show() -> None:
    examples = task_examples(Teacher(), "teacher", encoder(), seed=0)
    assert prompts(examples, 4) == ["1", "2", "4", "5"]


def test_a_demonstration_depends_on_seed_and_position_alone() -> None:
    def drawn(seed: int, rank: int, ranks: int, count: int) -> list[tuple[tuple[int, ...], ...]]:
        stream = task_examples(Teacher(), "teacher", encoder(), seed=seed, rank=rank, ranks=ranks)
        return [(e.prompt_ids, e.completion_ids) for e in islice(stream, count)]

    alone = drawn(0, 0, 1, 8)
    assert drawn(0, 0, 1, 8) == alone
    assert drawn(1, 0, 1, 8) != alone
    shares = [drawn(0, rank, 2, 4) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])
    assert set(shares[0]) | set(shares[1]) == set(alone)


def test_a_task_without_demonstrations_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'numbers' has no demonstrations.*data.path"):
        next(task_examples(Numbers(), "numbers", encoder(), seed=0))
    with pytest.raises(PluginContractError, match="'silent' returned no demonstration for 1000 consecutive problems"):
        next(task_examples(Silent(), "silent", encoder(), seed=0))


def test_pairs_are_reshuffled_every_epoch_and_covered() -> None:
    taken = prompts(PairExamples.encode(pairs(*"012345"), encoder()).stream(seed=0), 18)
    epochs = [taken[i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(epoch) == list("012345") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_ranks_share_pairs_without_overlap() -> None:
    shares = [
        prompts(PairExamples.encode(pairs(*"012345"), encoder()).stream(seed=0, rank=r, ranks=2), 3) for r in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == list("012345")


def test_fewer_pairs_than_ranks_still_feed_each() -> None:
    assert prompts(PairExamples.encode(pairs("a"), encoder()).stream(seed=0, rank=1, ranks=2), 2) == [
        "a",
        "a",
    ]


class Wrong(Numbers):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def demonstration(self, problem: Problem, rng: random.Random) -> object:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (KeyError("nums"), "raised KeyError: 'nums'"),
        (SystemExit(0), "raised SystemExit: 0"),
        (7, "returned int, expected text, messages that"),
        (["a"], "returned list, expected text, messages that"),
    ],
)
def test_a_wrong_demonstration_names_the_task(result: object, message: str) -> None:
    with pytest.raises(PluginContractError, match=f"task 'wrong': demonstration of problem '.*' {message}"):
        next(task_examples(Wrong(result), "wrong", encoder(), seed=0))
    with pytest.raises(RecipeError, match=r"^as it is$"):
        next(task_examples(Wrong(RecipeError("as it is")), "wrong", encoder(), seed=0))


class Rare(Numbers):
    """Demonstrates one problem of 600."""

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return "yes" if problem.info["n"] % 600 == 599 else None


def test_rare_demonstrations_are_waited_for() -> None:
    """The limit is on problems in a row, not on all of them."""
    assert prompts(task_examples(Rare(), "rare", encoder(), seed=0), 3) == ["599", "1199", "1799"]
