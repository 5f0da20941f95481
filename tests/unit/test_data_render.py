"""Prompts as tokens: chat templates, prefixes, leading special tokens, tokens that the model does not know."""

import sys
from typing import Any

import pytest
from support.chat_templates import (
    CHATML,
    FOLDS_SYSTEM,
    OPENS_THINKING,
    R1,
    SHAPES,
)

from reasonrl import Message, Problem
from reasonrl.data import render
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import RecipeError
from reasonrl.testing.models import byte_tokenizer

TALK = (Message(role="system", content="Be brief."), Message(role="user", content="2+2?"))


def renderer(template: str | None = None, **options: Any) -> PromptRenderer:
    tokenizer = byte_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    return PromptRenderer(tokenizer, **options)


def with_bos() -> Any:
    """A tokenizer that puts a BOS before what it encodes, as Llama's does; its template writes one too."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer("llama")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer.chat_template = "<s>" + tokenizer.chat_template
    return tokenizer


def test_raw_text_is_used_verbatim_with_its_prefix() -> None:
    problem = Problem(id="p", prompt="  2+2 =\n<think>", assistant_prefix="<think>")
    prompt = renderer().render(problem)
    assert prompt.text == "  2+2 =\n<think><think>"
    assert byte_tokenizer().decode(prompt.ids) == prompt.text
    assert len(prompt.ids) == len(prompt.text)


def test_a_conversation_goes_through_the_chat_template_and_the_prefix_follows_it() -> None:
    problem = Problem(id="p", prompt=TALK, assistant_prefix="<think>")
    prompt = renderer().render(problem)
    assert prompt.text == "[system]Be brief.\n[user]2+2?\n[assistant]<think>"
    assert byte_tokenizer().decode(prompt.ids) == prompt.text


@pytest.mark.parametrize("prompt", ["2+2?", TALK], ids=["raw", "chat"])
def test_there_is_one_bos_either_way(prompt: Any) -> None:
    tokenizer = with_bos()
    ids = PromptRenderer(tokenizer).render(Problem(id="p", prompt=prompt)).ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("prompt", ["<s>2+2?", "<s>", (Message(role="user", content="<s>"),)])
def test_a_bos_of_the_text_is_not_doubled(prompt: Any) -> None:
    tokenizer = with_bos()
    if not isinstance(prompt, str):
        tokenizer.chat_template = "<s>{% for m in messages %}{{ m['content'] }}{% endfor %}"
    one = PromptRenderer(tokenizer)
    ids = one.render(Problem(id="p", prompt=prompt)).ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert one.has_own_bos


def test_an_eos_that_the_tokenizer_puts_behind_raw_text_is_taken_off() -> None:
    """A prompt is continued; an EOS that the text itself ends with is the text's own affair."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = with_bos()
    ends = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<s>", tokenizer.eos_token)}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"<s> $A {tokenizer.eos_token}", special_tokens=list(ends.items())
    )
    one = PromptRenderer(tokenizer)
    plain = PromptRenderer(with_bos())
    problem = Problem(id="p", prompt="2+2?")
    assert one.render(problem).ids == plain.render(problem).ids
    assert one.takes_off_eos
    assert not plain.takes_off_eos
    ended = Problem(id="p", prompt=f"2+2?{tokenizer.eos_token}")
    assert one.render(ended).ids[-1] == tokenizer.eos_token_id


def test_prompts_rendered_together_are_those_rendered_alone_in_order() -> None:
    problems = [
        Problem(id=str(i), prompt=f"{i}" * i if i % 3 else (Message(role="user", content=f"{i}"),))
        for i in range(1, 20)
    ]
    one = PromptRenderer(with_bos())
    assert one.render_all(problems) == [one.render(problem) for problem in problems]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_template_keeps_what_was_said(shape: str) -> None:
    one = renderer(SHAPES[shape])
    text = one.render(Problem(id="p", prompt=TALK)).text
    assert text.count("Be brief.") == text.count("2+2?") == 1
    assert text.index("Be brief.") < text.index("2+2?")
    assert one.has_folded == (shape in FOLDS_SYSTEM)
    if shape in FOLDS_SYSTEM:
        assert "Be brief.\n\n2+2?" in text
    assert text.rstrip().endswith("<think>") == (shape in OPENS_THINKING)


def test_a_system_text_alone_becomes_the_user_turn() -> None:
    text = renderer(SHAPES["gemma"]).text(Problem(id="p", prompt=TALK[:1]))
    assert text == "<start_of_turn>user\nBe brief.<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize(
    ("opened", "prefix", "joined"),
    [
        ("<A><think>\n", "Step by step.\n<think>", "<A><think>\n"),  # Countdown's
        ("<A><think>\n", "<think>\n", "<A><think>\n"),
        ("<A><think>", " <think>", "<A><think>"),
        ("<A><think>\n", "<think>\nOkay", "<A><think>\nOkay"),
        ("<A><think>", "<think>\nOkay", "<A><think>\nOkay"),
        ("<A><think>\n", "Okay", "<A><think>\nOkay"),
        ("<A>\nOkay, let me see.", "Okay, let me see.", "<A>\nOkay, let me see."),
        ("<A>[THINK]", "[THINK]", "<A>[THINK]"),
        ("<A><think>\n\n</think>\n\n", "<think>", "<A><think>\n\n</think>\n\n<think>"),  # thinking was closed
        ("<A>assistant\n", "<think>", "<A>assistant\n<think>"),
        ("<A>", "", "<A>"),
    ],
)
def test_a_prefix_does_not_open_again_what_the_template_opened(opened: str, prefix: str, joined: str) -> None:
    template = "{% if add_generation_prompt %}{{ " + repr(opened) + " }}{% endif %}"
    problem = Problem(id="p", prompt=TALK[1:], assistant_prefix=prefix)
    assert renderer(template).text(problem) == joined


def test_a_completion_to_imitate_does_not_either() -> None:
    problem = Problem(id="p", prompt=TALK)
    for template, text in ((R1, "so</think>4<think>"), (CHATML, "<think>\nso</think>4<think>")):
        one = renderer(template)
        completion = "<think>\nso</think>4<think>"
        assert one.completion_after(one.render(problem), problem, completion) == text
    raw = Problem(id="p", prompt="2+2?<think>")
    assert one.completion_after(one.render(raw), raw, "<think>4") == "<think>4"


def test_without_a_chat_template_a_conversation_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match="no chat template; use a chat model"):
        PromptRenderer(tokenizer).render(Problem(id="p", prompt=TALK))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError: Unexpected end of template"),
        ("{{ raise_exception('give the date') }}", "TemplateError: give the date"),
        ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
        ("{{ date.year }}", "UndefinedError: 'date' is undefined"),
        ("{% for m in messages %}{{ m.tool_calls[0].name }}{% endfor %}", "UndefinedError"),
        ("{{ messages[7]['content'] }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_a_template_that_fails_is_one_line_with_a_way_out(template: str, reason: str) -> None:
    one = renderer(template, template_name="the chat template mine.jinja")
    for prompt in (TALK, TALK[1:]):
        with pytest.raises(RecipeError) as caught:
            one.render(Problem(id="odd", prompt=prompt))
        text = str(caught.value)
        assert text.startswith("problem 'odd': the chat template mine.jinja cannot render it: ")
        assert reason in text
        assert "model.chat_template_args" in text
        assert "\n" not in text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "took longer than 0.1 s"),
        ("{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "MemoryError"),
        ("{{ 'a' * 10**11 }}", "MemoryError"),
        ("{{ '%9999999999d' % 1 }}", "MemoryError"),
        ("{{ 'a' * 10**7 }}b", "would have 10,000,001 characters"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_template_that_takes_time_or_memory_without_end_is_one_line(
    template: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "TEMPLATE_S", 0.1 if "longer" in reason else 5.0)
    monkeypatch.setattr(render, "TEMPLATE_BYTES", 64 << 20)
    with pytest.raises(RecipeError, match="the model's chat template cannot render it: ") as caught:
        renderer(template).render(Problem(id="odd", prompt=TALK))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_refused() -> None:
    for problem in (Problem(id="p", prompt=""), Problem(id="p", prompt=TALK)):
        with pytest.raises(RecipeError, match="'p' has an empty prompt"):
            renderer("{{ '' }}").render_all([problem])


@pytest.mark.parametrize("prompt", ["2+2\ud83d", (Message(role="user", content="2+2\ud83d"),)], ids=["raw", "chat"])
def test_half_a_character_is_refused_in_one_line_that_names_the_problem(prompt: Any) -> None:
    with pytest.raises(RecipeError, match=r"problem 'odd' has a lone surrogate, '\\ud83d', at") as caught:
        renderer().render(Problem(id="odd", prompt=prompt))
    assert "\n" not in str(caught.value)


def test_a_token_without_an_embedding_is_refused_where_it_occurs() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    one = PromptRenderer(tokenizer, rows=258)
    assert len(one.render(Problem(id="p", prompt="no tool")).ids) == 7
    with pytest.raises(RecipeError, match=r"prompt of problem 'odd' contains token '<tool>' \(id 258\), but the"):
        one.render_all([Problem(id="p", prompt="a"), Problem(id="odd", prompt="a <tool>")])
    assert PromptRenderer(tokenizer, rows=300).render(Problem(id="p", prompt="<tool>")).ids == (258,)
