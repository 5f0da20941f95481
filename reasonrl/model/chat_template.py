"""The chat template that a recipe asks for, kept where every tool looks for it: in the tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.errors import RecipeError

if TYPE_CHECKING:
    from reasonrl.recipe.schema import ModelConfig


def set_chat_template(tokenizer: Any, model: ModelConfig) -> None:
    """Give ``tokenizer`` the recipe's template, with ``chat_template_args`` as the defaults of its variables.

    What is saved with the tokenizer then renders as the run did, without the recipe; arguments that a caller gives
    still win.

    Raises:
        RecipeError: if the file cannot be read, there is no template, or it reads no such variable.
    """
    args = model.chat_template_args
    if model.chat_template is None and not args:
        return
    text = _read(model.chat_template) if model.chat_template else _own(tokenizer)
    _refuse_unread(text, args)
    defaults = "".join(_default(name, value) for name, value in sorted(args.items()))
    tokenizer.chat_template = text if text.startswith(defaults) else defaults + text


def check_chat_template(model: ModelConfig) -> None:
    """What can be refused without the model: a template file that cannot be read, or that has no such variable.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
    """
    if model.chat_template is not None:
        _refuse_unread(_read(model.chat_template), model.chat_template_args)


def _refuse_unread(text: str, args: Mapping[str, Any]) -> None:
    unread = [name for name in args if not re.search(rf"\b{re.escape(name)}\b", text)]
    if unread:
        raise RecipeError(
            f"model.chat_template_args: the chat template reads no {unread[0]!r}; correct the name or remove it"
        )


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(f"model.chat_template: cannot read {path}: {err}") from err
    if not text.strip():
        raise RecipeError(f"model.chat_template: {path} is empty, expected a Jinja template")
    return text


def _own(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        raise RecipeError(
            "model.chat_template_args: the model's tokenizer has no chat template; give one with model.chat_template"
        )
    return tokenizer.get_chat_template()


def _default(name: str, value: Any) -> str:
    """A line of Jinja; transformers and vLLM drop the line end after a block."""
    unset = f"{name} is not defined or {name} is none"
    return f"{{%- if {unset} %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}\n"


def _literal(value: Any) -> str:
    """A JSON value as Jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
