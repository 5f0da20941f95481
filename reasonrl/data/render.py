"""Problem -> prompt token ids: the one place where a chat template is applied."""

from typing import Any

from reasonrl.contracts.data import Problem
from reasonrl.errors import RecipeError


def prompt_text(problem: Problem, tokenizer: Any) -> str:
    """The exact text that the model continues.

    Raises: RecipeError if the prompt is a conversation and the tokenizer has no chat template.
    """
    if isinstance(problem.prompt, str):
        return problem.prompt + problem.assistant_prefix
    if not getattr(tokenizer, "chat_template", None):
        raise RecipeError(
            f"problem {problem.id!r} is a conversation but the model's tokenizer has no chat template; "
            "use a chat model or the task's raw-text template"
        )
    messages = [{"role": m.role, "content": m.content} for m in problem.prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text + problem.assistant_prefix


def render_prompt(problem: Problem, tokenizer: Any, *, max_prompt_tokens: int) -> tuple[int, ...]:
    """Token ids of the prompt.

    Raw text gets the tokenizer's own leading special tokens (a BOS, if it has one); a chat template has written
    them already.
    Raises: RecipeError if the prompt is empty, no valid Unicode or longer than ``max_prompt_tokens``.
    """
    text = prompt_text(problem, tokenizer)
    _check_encodable(problem, text)
    ids = tokenizer(text, add_special_tokens=isinstance(problem.prompt, str))["input_ids"]
    if not ids:
        raise RecipeError(f"problem {problem.id!r} has an empty prompt")
    if len(ids) > max_prompt_tokens:
        raise RecipeError(
            f"the prompt of problem {problem.id!r} has {len(ids)} tokens, over sampling.max_prompt_tokens="
            f"{max_prompt_tokens}; raise the limit or shorten the task's prompts"
        )
    return tuple(ids)


def _check_encodable(problem: Problem, text: str) -> None:
    """Half a surrogate pair is no character: tokenizers refuse it without saying where it came from."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise RecipeError(
            f"the prompt of problem {problem.id!r} has a lone surrogate, {text[err.start]!r}, at character "
            f"{err.start}; expected valid Unicode: correct the task's data"
        ) from err
