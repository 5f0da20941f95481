"""The recipe's chat template and its variables live in the tokenizer, and are saved with it."""

from pathlib import Path
from typing import Any

import pytest
from support.chat_templates import CHATML, QWEN3, chat_model

from reasonrl.errors import RecipeError
from reasonrl.model.chat_template import set_chat_template
from reasonrl.model.load import load_tokenizer
from reasonrl.recipe.schema import ModelConfig
from reasonrl.testing.models import byte_tokenizer

USER = [{"role": "user", "content": "hi"}]
VALUES: dict[str, Any] = {
    "a": False,
    "b": None,
    "c": 'quote " and \\ back\nslash {% endif %} 😀',
    "d": [1, 2.5, {"e": True, "f": "g"}],
    "e": {"x": None, "y": [False]},
}


def rendered(tokenizer: Any, **args: Any) -> str:
    return tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True, **args)


def with_template(text: str, **args: Any) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = text
    set_chat_template(tokenizer, ModelConfig(path="x", chat_template_args=args))
    return tokenizer


@pytest.mark.parametrize("name", VALUES)
def test_an_argument_is_the_default_of_its_variable(name: str) -> None:
    """As if it had been given to ``apply_chat_template``, whatever JSON value it is."""
    template = f"{{{{ {name} | tojson }}}}"
    asked = byte_tokenizer()
    asked.chat_template = template
    assert rendered(with_template(template, **{name: VALUES[name]})) == rendered(asked, **{name: VALUES[name]})


@pytest.mark.parametrize("head", ["", "\n", "  ", "\n\n  {% set x = 1 %}\n", "{%- set x = 1 %}\n  {% if x %}\n"])
def test_the_rest_of_the_template_renders_as_before(head: str) -> None:
    body = head + "{{ messages[0].content }}{{ enable_thinking }}" + ("{% endif %}" if "if x" in head else "")
    plain = byte_tokenizer()
    plain.chat_template = body
    assert rendered(with_template(body, enable_thinking=3)) == rendered(plain, enable_thinking=3)


def test_macros_and_loops_see_it_and_a_caller_still_wins() -> None:
    template = (
        "{% macro end() %}{{ enable_thinking }}{% endmacro %}"
        "{% for m in messages %}{{ enable_thinking }}{% endfor %}{{ end() }}"
    )
    tokenizer = with_template(template, enable_thinking=False)
    assert rendered(tokenizer) == "FalseFalse"
    assert rendered(tokenizer, enable_thinking=True) == "TrueTrue"


def test_it_is_saved_and_setting_it_again_changes_nothing(tmp_path: Path) -> None:
    model = ModelConfig(path="x", chat_template_args={"enable_thinking": False})
    tokenizer = load_tokenizer(str(chat_model(tmp_path / "model", QWEN3)))
    assert not rendered(tokenizer).endswith("</think>\n\n")
    set_chat_template(tokenizer, model)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(str(tmp_path / "saved"))
    assert rendered(again) == rendered(tokenizer)
    assert rendered(again).endswith("<think>\n\n</think>\n\n")
    before = again.chat_template
    set_chat_template(again, model)
    assert again.chat_template == before


def test_a_file_replaces_the_tokenizers_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("\ufeff" + CHATML, encoding="utf-8")
    tokenizer = byte_tokenizer()
    set_chat_template(tokenizer, ModelConfig(path="x", chat_template=str(file)))
    assert tokenizer.chat_template == CHATML


def test_several_named_templates_give_the_default_one() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": "{{ enable_thinking }}", "tool_use": "no"}
    set_chat_template(tokenizer, ModelConfig(path="x", chat_template_args={"enable_thinking": 1}))
    assert rendered(tokenizer) == "1"


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (QWEN3, {"chat_template_args": {"enable_thinkin": False}}, "does not use 'enable_thinkin'"),
        (QWEN3, {"chat_template_args": {"thinking": False}}, "does not use 'thinking'"),
        (None, {"chat_template_args": {"enable_thinking": False}}, "tokenizer has no chat template"),
        (QWEN3, {"chat_template": "none.jinja"}, "model.chat_template: cannot read none.jinja"),
        (QWEN3, {"chat_template": "empty.jinja"}, "empty.jinja is empty"),
        (QWEN3, {"chat_template": "latin.jinja"}, "cannot read latin.jinja"),
    ],
)
def test_what_has_no_effect_or_cannot_be_read_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str | None,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jinja").write_text(" \n")
    Path("latin.jinja").write_bytes("ä".encode("latin-1"))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RecipeError, match=message):
        set_chat_template(tokenizer, ModelConfig(path="x", **options))


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "no name", ""])
def test_names_that_the_core_sets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="chat_template_args must be variable names"):
        ModelConfig(path="x", chat_template_args={name: 1})
