"""The messages that the page of troubleshooting explains are those of the code."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
OTHERS = (
    "reasonrl: command not found",
    "rollout_backend.clip_eps: unknown key for rollout_backend 'hf'; 'clip_eps' belongs in algorithm",
    "sampling.group_size: grpo needs sampling.group_size >= 2, got 1",
    "no option --steps; write overrides as trainer.steps=3",
    "algorithm 'mine' (plugin mine (my-plugin 0.1)): compute_loss raised KeyError: 'nums'",
    "out of memory in the update: asked for 2.50 GiB, 0.50 GiB were free; lower trainer.max_tokens_per_microbatch "
    "(now 16384)",
)
"""Of the shell, or made of little else than what is put into them."""

WINDOW = 4
"""So many words in a row must be those of the code."""

INSERTED = re.compile(r"'[^']*'|\.\.\.|\S*(?:\d|\w\.\w|=)\S*")
"""What the code puts into a message, and the page shows: names, numbers, keys."""


def messages(page: str) -> list[str]:
    """The code spans in the terms of the page, each followed by its explanation."""
    terms = re.findall(r"^(`.+`)\n:   ", page, flags=re.MULTILINE)
    return [message for term in terms for message in re.findall(r"`([^`]+)`", term)]


def said_by_the_code() -> str:
    """Every source, with texts in one piece that are broken over lines, and a space for what is put into them."""
    files = [*(ROOT / "reasonrl").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    text = re.sub(r"\"\s*\n\s*f?\"", "", text)
    return " ".join(re.sub(r"\{[^{}]*\}|%s", " ", text).split())


def is_said(message: str, code: str) -> bool:
    words = INSERTED.sub(" ", message).split()
    windows = [" ".join(words[at : at + WINDOW]) for at in range(max(1, len(words) - WINDOW + 1))]
    return any(window.strip(".,;:") in code for window in windows)


def test_every_message_is_one_of_the_code() -> None:
    found, code = messages(PAGE.read_text(encoding="utf-8")), said_by_the_code()
    assert len(found) > 50
    assert not [message for message in found if message not in OTHERS and not is_said(message, code)]


def test_a_message_that_is_gone_is_noticed() -> None:
    assert not is_said("the frobnicator of your model is not adjusted", said_by_the_code())
