"""What SFT imitates: a task's demonstrations or pairs."""

import random
from itertools import islice

import pytest
from support.builders import Numbers
from support.chat_templates import CHATML, QWEN3_THINKING

from reasonrl import Message, Problem
from reasonrl.data.demonstrations import Encoder, pair_examples, task_examples
from reasonrl.data.pairs import Pair
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.testing.models import byte_tokenizer

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


def encoder(prompt: int = 50, completion: int = 50) -> Encoder:
    return Encoder(PromptRenderer(TOKENIZER), max_prompt_tokens=prompt, max_completion_tokens=completion)


def test_reasoning_that_the_chat_template_opens_is_not_opened_again() -> None:
    tokenizer = byte_tokenizer()
    problem = Problem(id="p", prompt=(Message(role="user", content="1+1"),))
    for template, text in ((CHATML, "<think>\n2</think>2"), (QWEN3_THINKING, "2</think>2")):
        tokenizer.chat_template = template
        encode = Encoder(PromptRenderer(tokenizer), max_prompt_tokens=200, max_completion_tokens=50)
        example = encode(problem, "<think>\n2</think>2")
        assert tokenizer.decode(example.completion_ids[:-1]) == text


class Teacher(Numbers):
    """Demonstrates every problem but those divisible by three."""

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return None if problem.info["n"] % 3 == 0 else f"{rng.random():.6f}"


class Silent(Numbers):
    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        return None


def pairs(*prompts: str) -> list[Pair]:
    return [Pair(Problem(id=prompt, prompt=prompt), "yes") for prompt in prompts]


def prompts(examples: object, count: int) -> list[str]:
    return [TOKENIZER.decode(e.prompt_ids) for e in islice(examples, count)]  # type: ignore[call-overload]


def test_an_example_ends_with_eos() -> None:
    example = encoder()(Problem(id="p", prompt="ab", assistant_prefix=":"), "yes")
    assert TOKENIZER.decode(example.prompt_ids) == "ab:"
    assert TOKENIZER.decode(example.completion_ids[:-1]) == "yes"
    assert example.completion_ids[-1] == EOS
    assert example.num_tokens == 7


@pytest.mark.parametrize(("limit", "text"), [(4, "yes<|endoftext|>"), (3, "yes"), (2, "ye")])
def test_a_completion_over_its_limit_loses_its_end_and_its_eos(limit: int, text: str) -> None:
    example = encoder(completion=limit)(Problem(id="p", prompt="ab"), "yes")
    assert TOKENIZER.decode(example.completion_ids) == text


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
    with pytest.raises(PluginContractError, match="'silent' gave no demonstration for 1000 problems"):
        next(task_examples(Silent(), "silent", encoder(), seed=0))


def test_pairs_are_reshuffled_every_epoch_and_covered() -> None:
    taken = prompts(pair_examples(pairs(*"012345"), encoder(), seed=0), 18)
    epochs = [taken[i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(epoch) == list("012345") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_ranks_share_pairs_without_overlap() -> None:
    shares = [
        prompts(pair_examples(pairs(*"012345"), encoder(), seed=0, rank=r, ranks=2), 3) for r in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == list("012345")


def test_fewer_pairs_than_ranks_still_feed_each() -> None:
    assert prompts(pair_examples(pairs("a"), encoder(), seed=0, rank=1, ranks=2), 2) == ["a", "a"]


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
        (7, "returned int, expected text or None"),
        (["a"], "returned list, expected text or None"),
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
