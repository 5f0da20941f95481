"""Prompts as tokens: chat templates, prefixes, leading special tokens, limits."""

from typing import Any

import pytest

from reasonrl import Message, Problem
from reasonrl.data.render import prompt_text, render_prompt
from reasonrl.errors import RecipeError
from reasonrl.testing.models import byte_tokenizer

TALK = (Message(role="system", content="Be brief."), Message(role="user", content="2+2?"))


def with_bos() -> Any:
    """A tokenizer that puts a BOS before what it encodes, as Llama's does; its template writes one too."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer("llama")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    tokenizer.chat_template = "<s>" + tokenizer.chat_template
    return tokenizer


def test_raw_text_is_used_verbatim_with_its_prefix() -> None:
    problem = Problem(id="p", prompt="  2+2 =\n", assistant_prefix="<think>")
    tokenizer = byte_tokenizer()
    assert prompt_text(problem, tokenizer) == "  2+2 =\n<think>"
    ids = render_prompt(problem, tokenizer, max_prompt_tokens=100)
    assert tokenizer.decode(ids) == "  2+2 =\n<think>"
    assert len(ids) == 15


def test_a_conversation_goes_through_the_chat_template_and_the_prefix_follows_it() -> None:
    problem = Problem(id="p", prompt=TALK, assistant_prefix="<think>")
    tokenizer = byte_tokenizer()
    expected = "[system]Be brief.\n[user]2+2?\n[assistant]<think>"
    assert prompt_text(problem, tokenizer) == expected
    assert tokenizer.decode(render_prompt(problem, tokenizer, max_prompt_tokens=100)) == expected


@pytest.mark.parametrize("prompt", ["2+2?", TALK], ids=["raw", "chat"])
def test_there_is_one_bos_either_way(prompt: Any) -> None:
    tokenizer = with_bos()
    ids = render_prompt(Problem(id="p", prompt=prompt), tokenizer, max_prompt_tokens=100)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_without_a_chat_template_a_conversation_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match="no chat template; use a chat model"):
        render_prompt(Problem(id="p", prompt=TALK), tokenizer, max_prompt_tokens=100)


def test_the_limit_is_inclusive_and_its_message_names_the_key() -> None:
    problem = Problem(id="long one", prompt="12345")
    assert len(render_prompt(problem, byte_tokenizer(), max_prompt_tokens=5)) == 5
    with pytest.raises(RecipeError, match=r"'long one' has 5 tokens, over sampling.max_prompt_tokens=4"):
        render_prompt(problem, byte_tokenizer(), max_prompt_tokens=4)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RecipeError, match="'p' has an empty prompt"):
        render_prompt(Problem(id="p", prompt=""), byte_tokenizer(), max_prompt_tokens=4)


@pytest.mark.parametrize(
    "prompt", ["2+2\ud83d", (Message(role="user", content="2+2\ud83d"),)], ids=["raw", "chat"]
)
def test_half_a_character_is_refused_in_one_line_that_names_the_problem(prompt: Any) -> None:
    with pytest.raises(RecipeError, match=r"problem 'odd' has a lone surrogate, '\\ud83d', at") as caught:
        render_prompt(Problem(id="odd", prompt=prompt), byte_tokenizer(), max_prompt_tokens=99)
    assert "\n" not in str(caught.value)
