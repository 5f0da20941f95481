"""Render problems to prompt text and token ids; the only place that applies a chat template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reasonrl.contracts.clock import TooSlowError, limited_to
from reasonrl.contracts.data import Message, Problem
from reasonrl.contracts.headroom import memory_limited_to
from reasonrl.errors import RAISABLE, RecipeError, describe

Turn = dict[str, str]

_TAG_AT_END = re.compile(r"(?:<(?!/)[^<>\s]+>|\[(?!/)[^\[\]\s]+\])\Z")
_MAX_TAG_CHARS = 80
TEMPLATE_S, TEMPLATE_BYTES, PROMPT_CHARS = 5.0, 2 << 30, 10_000_000
"""Of processor time and memory that a chat template may take for one prompt, and the prompt's length."""
_SYSTEM_PROBE, _USER_PROBE = "reasonrl-system-probe", "reasonrl-user-probe"


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The prompt text and its token ids, including a BOS if the tokenizer adds one to raw text."""

    text: str
    ids: tuple[int, ...]


class PromptRenderer:
    """Renders problems with one tokenizer.

    Raw text is used verbatim, with the leading special tokens that the tokenizer adds; a conversation goes through the
    chat template, which writes them itself. If the template rejects or drops the system role, the system text is
    prepended to the first user turn.

    Args:
        template_name: Name of the template in error messages.
        rows: Number of embeddings of the model; None = not checked.
    """

    def __init__(
        self, tokenizer: Any, *, template_name: str = "the model's chat template", rows: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._name = template_name
        self.rows = rows
        self.has_folded = False
        """Whether a system message was folded into a user turn."""
        self.has_own_bos = False
        """Whether a prompt already began with a BOS, so that the tokenizer's was removed."""
        self.takes_off_eos = False
        """Whether the tokenizer appended an EOS to raw text, which was removed."""

    def render(self, problem: Problem) -> RenderedPrompt:
        """Render one prompt.

        Raises:
            RecipeError: As ``render_all``.
        """
        return self.render_all([problem])[0]

    def render_all(self, problems: Sequence[Problem]) -> list[RenderedPrompt]:
        """Render the prompts of ``problems``, tokenized together.

        Raises:
            RecipeError: If the template cannot render one, or a prompt is empty, not valid Unicode or has a token
                without an embedding.
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
        """Render the exact text that the model continues.

        Raises:
            RecipeError: If the prompt is not valid Unicode, or a conversation that cannot be rendered.
        """
        if isinstance(problem.prompt, str):
            text = problem.prompt + problem.assistant_prefix
        else:
            opened = self._conversation(problem)
            text = opened + _prefix_after(opened, problem.assistant_prefix)
        where = f"the prompt of problem {problem.id!r}"
        if len(text) > PROMPT_CHARS:  # to encode more takes minutes
            raise RecipeError(f"{where} has {len(text):,} characters, expected at most {PROMPT_CHARS:,}; shorten it")
        check_encodable(where, text)
        return text

    def completion_after(self, prompt: RenderedPrompt, problem: Problem, completion: str) -> str:
        """Strip a leading tag that the chat template has already opened, such as ``<think>``."""
        return completion if isinstance(problem.prompt, str) else _without_open_tag(prompt.text, completion)

    @cached_property
    def folds_system(self) -> bool:
        """Whether the template rejects or drops the system role, so that its text goes into the first user turn."""
        system = {"role": "system", "content": _SYSTEM_PROBE}
        user = {"role": "user", "content": _USER_PROBE}
        try:
            if _SYSTEM_PROBE in self._apply([system, user]):
                return False
        except (TooSlowError, MemoryError):
            return False
        except RAISABLE:
            pass
        try:
            return _USER_PROBE in self._apply([user])
        except RAISABLE:
            return False  # broken either way; rendering the first problem reports it

    def _conversation(self, problem: Problem) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise RecipeError(
                f"problem {problem.id!r} is a conversation but the tokenizer has no chat template; use a chat model, "
                "set model.chat_template=FILE.jinja, or choose the task's raw-text template"
            )
        return self.apply(problem, ())

    def apply(self, problem: Problem, following: Sequence[Message]) -> str:
        """Render the problem's messages and those that follow, up to where the model continues.

        Raises:
            RecipeError: If the chat template cannot render them.
        """
        turns = _turns(problem.prompt)  # type: ignore[arg-type]
        if turns and turns[0]["role"] == "system" and self.folds_system:
            turns, self.has_folded = _fold_system(turns), True
        try:
            return self._apply([*turns, *_turns(following)], problem.tools)
        except RAISABLE as err:  # a template may raise anything
            what = f"the turn after {len(turns) + 1} messages" if following else "it"
            raise RecipeError(
                f"problem {problem.id!r}: {self._name} cannot render {what}: {_one_line(err)}; set its variables with "
                "model.chat_template_args, use another template with model.chat_template=FILE.jinja, or choose the "
                "task's raw-text template"
            ) from err

    @cached_property
    def folds_tools(self) -> bool:
        """Whether the template rejects or drops the role ``tool``, so that its text becomes a user's message."""
        asked, said = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
        try:
            return _USER_PROBE not in self._apply([asked, said, {"role": "tool", "content": _USER_PROBE}])
        except RAISABLE:
            return True

    def _apply(self, turns: list[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        given = {"tools": list(tools)} if tools else {}
        with limited_to(TEMPLATE_S), memory_limited_to(TEMPLATE_BYTES):
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **given)
        if len(text) > PROMPT_CHARS:
            raise ValueError(f"the prompt would have {len(text):,} characters, over {PROMPT_CHARS:,}")
        return text

    def encode_turn(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text in the middle of a conversation: no special token is added."""
        return tuple(self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])

    @property
    def name(self) -> str:
        """Name of the chat template in messages."""
        return self._name

    def _encode(self, texts: list[str], is_raw: bool) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=is_raw, return_attention_mask=False)["input_ids"]
        return [self._fix_special_tokens(text, ids, is_raw) for text, ids in zip(texts, encoded, strict=True)]

    def _fix_special_tokens(self, text: str, ids: list[int], is_raw: bool) -> list[int]:
        """Remove a duplicate BOS, and an EOS that the tokenizer appended to raw text."""
        bos, eos = self.tokenizer.bos_token, self.tokenizer.eos_token
        if bos and text.startswith(bos) and ids[:2] == [self.tokenizer.bos_token_id] * 2:
            ids, self.has_own_bos = ids[1:], True
        if is_raw and ids[-1:] == [self.tokenizer.eos_token_id] and not text.endswith(eos):
            ids, self.takes_off_eos = ids[:-1], True
        return ids

    def _check_ids(self, problem: Problem, ids: Sequence[int]) -> None:
        if not ids:
            raise RecipeError(f"problem {problem.id!r} has an empty prompt")
        if self.rows is not None and max(ids) >= self.rows:
            self.check_tokens(ids, f"the prompt of problem {problem.id!r}")

    def check_tokens(self, ids: Sequence[int], where: str) -> None:
        """Raise RecipeError if one of ``ids`` has no embedding, instead of an IndexError in the forward pass."""
        beyond = [token for token in ids if self.rows is not None and token >= self.rows]
        if beyond:
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise RecipeError(
                f"{where} contains token {token!r} (id {beyond[0]}), but the model has {self.rows} embeddings; use "
                "the tokenizer the model was saved with, or resize the embeddings (resize_token_embeddings in "
                "transformers) and train the resized model"
            )


def _turns(messages: Sequence[Message]) -> list[Turn]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _fold_system(turns: list[Turn]) -> list[Turn]:
    """Prepend the system text to the first user turn."""
    system, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]


def _prefix_after(opened: str, prefix: str) -> str:
    """Return ``prefix``, or nothing if the generation prompt already ends with it."""
    tag = _tag_at_end(opened)
    is_there = opened.rstrip().endswith(prefix.strip()) or (tag and prefix.rstrip().endswith(tag))
    return "" if is_there else _without_open_tag(opened, prefix)


def _without_open_tag(opened: str, following: str) -> str:
    """Strip from ``following`` a leading tag that ``opened`` ends with."""
    tag, body = _tag_at_end(opened), following.lstrip()
    if not tag or not body.startswith(tag):
        return following
    rest = body[len(tag) :]
    return rest.lstrip("\n") if opened.endswith("\n") else rest


def opens_tag(text: str) -> bool:
    """Whether a generation prompt ends with an opening tag, such as ``<think>``."""
    return bool(_tag_at_end(text))


def _tag_at_end(text: str) -> str:
    """Return the opening tag that a text ends with, such as ``<think>``, or an empty string."""
    found = _TAG_AT_END.search(text.rstrip()[-_MAX_TAG_CHARS:])
    return found[0] if found else ""


def _one_line(err: BaseException) -> str:
    return describe(err)[:300]


def check_encodable(where: str, text: str) -> None:
    """Reject lone surrogates, which tokenizers reject without naming the source.

    Raises:
        RecipeError: If ``text`` has one; names ``where``.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise RecipeError(
            f"{where} has a lone surrogate, {text[err.start]!r}, at character {err.start}; expected valid Unicode; "
            "fix the data"
        ) from err
