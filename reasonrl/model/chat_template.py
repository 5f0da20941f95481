"""Apply the recipe's chat template to the tokenizer, where every tool looks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reasonrl.recipe.schema import ModelConfig


def set_chat_template(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> None:
    """Set the recipe's chat template on ``tokenizer``, with ``chat_template_args`` as defaults of its variables.

    A saved tokenizer then renders as in the run, without the recipe; arguments of a caller still take precedence.

    Raises:
        RecipeError: If the file is unreadable, there is no template, or it does not use a given variable.
    """
    args = model.chat_template_args
    if model.chat_template is None and not args:
        return
    text = _read(model.chat_template) if model.chat_template else _own(tokenizer)
    _check_variables(text, args)
    defaults = "".join(_default(name, value) for name, value in sorted(args.items()))
    tokenizer.chat_template = text if text.startswith(defaults) else defaults + text


def check_chat_template(model: ModelConfig) -> None:
    """Check the template file without the model: it must be readable and use the given variables.

    Raises:
        RecipeError: If it is unreadable or does not use a variable.
    """
    if model.chat_template is not None:
        _check_variables(_read(model.chat_template), model.chat_template_args)


def _check_variables(text: str, args: Mapping[str, object]) -> None:
    unread = [name for name in args if not re.search(rf"\b{re.escape(name)}\b", text)]
    if unread:
        raise RecipeError(
            f"model.chat_template_args: the chat template does not use {unread[0]!r}; correct the name or remove it"
        )


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise RecipeError(f"model.chat_template: cannot read {path}: {err}") from err
    if not text.strip():
        raise RecipeError(f"model.chat_template: {path} is empty, expected a Jinja template")
    return text


def _own(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise RecipeError(
            "model.chat_template_args: the tokenizer has no chat template; set one with model.chat_template"
        )
    return tokenizer.get_chat_template()


def _default(name: str, value: object) -> str:
    """Write a line of Jinja; transformers and vLLM drop the newline after a block."""
    unset = f"{name} is not defined or {name} is none"
    return f"{{%- if {unset} %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}\n"


def _literal(value: object) -> str:
    """Write a JSON value as a Jinja literal."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
