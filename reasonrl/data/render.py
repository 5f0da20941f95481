"""Problem -> prompt text -> token ids: the one place where a chat template is applied."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reasonrl.contracts.data import Problem
from reasonrl.errors import RAISABLE, RecipeError

Turn = dict[str, str]

_TAG_AT_END = re.compile(r"(?:<(?!/)[^<>\s]+>|\[(?!/)[^\[\]\s]+\])\Z")
_MAX_TAG_CHARS = 80
_SYSTEM_PROBE, _USER_PROBE = "reasonrl-system-probe", "reasonrl-user-probe"


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What the model continues: the text, and its token ids, with the BOS of a tokenizer that adds one to raw text."""

    text: str
    ids: tuple[int, ...]


class PromptRenderer:
    """Renders problems with one tokenizer.

    Raw text is used verbatim, with the tokenizer's own leading special tokens; a conversation goes through the chat
    template, which writes them itself. A template that refuses or drops the system role gets the system text at the
    head of the first user turn.

    Args:
        template_name: what error messages call the template.
        rows: token ids that the model has an embedding for; None = not checked.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template_name: str = "the model's chat template",
        rows: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._name = template_name
        self._rows = rows
        self.has_folded = False
        """Whether a system text went into a user turn."""
        self.has_own_bos = False
        """Whether a prompt began with a BOS, so that the tokenizer's was taken off."""
        self.takes_off_eos = False
        """Whether the tokenizer put an EOS behind raw text, which was taken off."""

    def render(self, problem: Problem) -> RenderedPrompt:
        """One prompt.

        Raises:
            RecipeError: as ``render_all``.
        """
        return self.render_all([problem])[0]

    def render_all(self, problems: Sequence[Problem]) -> list[RenderedPrompt]:
        """The prompts of ``problems``, tokenized together.

        Raises:
            RecipeError: if the template cannot render one, or a prompt is empty, no valid Unicode or holds a token that
                the model has no embedding for.
        """
        texts = [self.text(problem) for problem in problems]
        rendered: dict[int, RenderedPrompt] = {}
        for is_raw in (True, False):
            chosen = [i for i, p in enumerate(problems) if isinstance(p.prompt, str) is is_raw]
            for i, ids in zip(chosen, self._encode([texts[i] for i in chosen], is_raw), strict=True):
                self._check_ids(problems[i], ids)
                rendered[i] = RenderedPrompt(texts[i], tuple(ids))
        return [rendered[i] for i in range(len(problems))]

    def text(self, problem: Problem) -> str:
        """The exact text that the model continues.

        Raises:
            RecipeError: if the prompt is no valid Unicode, or a conversation that cannot be rendered.
        """
        if isinstance(problem.prompt, str):
            text = problem.prompt + problem.assistant_prefix
        else:
            opened = self._conversation(problem)
            text = opened + _prefix_after(opened, problem.assistant_prefix)
        check_encodable(f"the prompt of problem {problem.id!r}", text)
        return text

    def completion_after(self, prompt: RenderedPrompt, problem: Problem, completion: str) -> str:
        """``completion`` without a tag that the chat template has opened already, such as ``<think>``."""
        return completion if isinstance(problem.prompt, str) else _without_open_tag(prompt.text, completion)

    @cached_property
    def folds_system(self) -> bool:
        """Whether the template refuses or drops the system role, so that its text goes into the first user turn."""
        system = {"role": "system", "content": _SYSTEM_PROBE}
        user = {"role": "user", "content": _USER_PROBE}
        try:
            if _SYSTEM_PROBE in self._apply([system, user]):
                return False
        except RAISABLE:
            pass
        try:
            return _USER_PROBE in self._apply([user])
        except RAISABLE:
            return False  # broken either way; rendering the first problem says how

    def _conversation(self, problem: Problem) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise RecipeError(
                f"problem {problem.id!r} is a conversation but the model's tokenizer has no chat template; use a chat "
                "model, give one with model.chat_template=FILE.jinja, or choose the task's raw-text template"
            )
        turns: list[Turn] = [{"role": m.role, "content": m.content} for m in problem.prompt]  # type: ignore[union-attr]
        if turns and turns[0]["role"] == "system" and self.folds_system:
            turns, self.has_folded = _folded(turns), True
        try:
            return self._apply(turns)
        except RAISABLE as err:  # a template is foreign code: it may raise anything
            raise RecipeError(
                f"problem {problem.id!r}: {self._name} cannot render it: {_one_line(err)}; give its variables with "
                "model.chat_template_args, another template with model.chat_template=FILE.jinja, or choose the task's "
                "raw-text template"
            ) from err

    def _apply(self, turns: list[Turn]) -> str:
        text: Any = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    def _encode(self, texts: list[str], is_raw: bool) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=is_raw, return_attention_mask=False)["input_ids"]
        return [self._framed(text, ids, is_raw) for text, ids in zip(texts, encoded, strict=True)]

    def _framed(self, text: str, ids: list[int], is_raw: bool) -> list[int]:
        """With one BOS at most, and without an EOS that the tokenizer has put behind raw text."""
        bos, eos = self.tokenizer.bos_token, self.tokenizer.eos_token
        if bos and text.startswith(bos) and ids[:2] == [self.tokenizer.bos_token_id] * 2:
            ids, self.has_own_bos = ids[1:], True
        if is_raw and ids[-1:] == [self.tokenizer.eos_token_id] and not text.endswith(eos):
            ids, self.takes_off_eos = ids[:-1], True
        return ids

    def _check_ids(self, problem: Problem, ids: Sequence[int]) -> None:
        if not ids:
            raise RecipeError(f"problem {problem.id!r} has an empty prompt")
        if self._rows is not None and max(ids) >= self._rows:
            self.refuse_tokens(ids, f"the prompt of problem {problem.id!r}")

    def refuse_tokens(self, ids: Sequence[int], where: str) -> None:
        """Raises RecipeError if one of ``ids`` has no embedding: the forward pass would end in an IndexError."""
        beyond = [token for token in ids if self._rows is not None and token >= self._rows]
        if beyond:
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise RecipeError(
                f"{where} holds token {token!r} (id {beyond[0]}), but the model has {self._rows} embeddings; take the "
                "tokenizer that the model was saved with, or resize its embeddings (resize_token_embeddings in "
                "transformers), save it and train that"
            )


def _folded(turns: list[Turn]) -> list[Turn]:
    """The system text at the head of the first user turn."""
    system, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]


def _prefix_after(opened: str, prefix: str) -> str:
    """``prefix``; nothing of it if the template's generation prompt already ends as it does."""
    tag = _tag_at_end(opened)
    is_there = opened.rstrip().endswith(prefix.strip()) or (tag and prefix.rstrip().endswith(tag))
    return "" if is_there else _without_open_tag(opened, prefix)


def _without_open_tag(opened: str, following: str) -> str:
    """``following`` without the tag at its start that ``opened`` ends with."""
    tag, body = _tag_at_end(opened), following.lstrip()
    if not tag or not body.startswith(tag):
        return following
    rest = body[len(tag) :]
    return rest.lstrip("\n") if opened.endswith("\n") else rest


def _tag_at_end(text: str) -> str:
    """The opening tag, such as ``<think>``, that a text ends with; empty without one."""
    found = _TAG_AT_END.search(text.rstrip()[-_MAX_TAG_CHARS:])
    return found[0] if found else ""


def _one_line(err: BaseException) -> str:
    text = " ".join(str(err).split())[:300]
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def check_encodable(where: str, text: str) -> None:
    """Half a surrogate pair is no character: tokenizers refuse it without saying where it came from.

    Raises:
        RecipeError: naming ``where``.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise RecipeError(
            f"{where} has a lone surrogate, {text[err.start]!r}, at character {err.start}; expected valid Unicode: "
            "correct the task's data"
        ) from err
