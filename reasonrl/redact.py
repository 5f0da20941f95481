"""Secrets stay out of whatever is written, shown, logged or raised. Standard library only.

A secret is known by its name (``api_key``, ``HF_TOKEN``), by its looks (``hf_...``, ``https://user:password@host``), or
because the recipe took it from the environment (``remember``).
"""

import logging
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

REDACTED = "[redacted]"
FROM_ENVIRONMENT = "set from the environment"

_MIN_CHARS = 6  # replacing a shorter text would maim every message
_MIN_CHARS_OF_VARIABLE = 8  # these were not even asked for
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_STRONG = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
_STRONG |= {"apikey", "apikeys"}
_KEYS = {"api", "access", "private", "auth", "signing", "encryption", "ssh", "license"}
_TOKENS = {"access", "auth", "api", "bearer", "hf", "hub", "secret", "refresh", "session"}
# What a model reads or writes is called a token too: `stop_token: "</s>"` is not a secret.
_TEXT_TOKEN = re.compile(
    "pad|eos|bos|unk|sep|cls|mask|stop|start|end|begin|special|think|answer|image|tool|fim|new|next|first|last|per|max"
    "|min|num|extra|wait"
)
# `password_file: x` says where a secret is, `password_length: 8` how long it is.
_REFERENCE = re.compile("file|path|dir|folder|name|env|variable|var|url|length|count|id|type|kind")

_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/'\"<>]*@")
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|glpat-[\w-]{16,})"
)
_VALUE = r"(?P<value>\[redacted\]|\"[^\"]*\"|'[^']*'|[^\s,;&}\])'\"]+)"
_ASSIGNED = re.compile(r"(?P<head>\b(?P<name>[A-Za-z_][\w-]{0,80})[\"']?\s*=\s*)" + _VALUE)
_MAPPED = re.compile(r"(?P<head>[{,]\s*[\"']?(?P<name>[A-Za-z_][\w-]*)[\"']?\s*:\s*)" + _VALUE)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_remembered: set[str] = set()


def remember(value: str) -> None:
    """From now on, in this process, ``value`` is redacted wherever it turns up in a text. Short ones are not."""
    if len(value) >= _MIN_CHARS:
        _remembered.add(value)


@lru_cache(maxsize=4096)  # every text that is written asks for every variable of the environment
def is_secret_name(name: str) -> bool:
    """Whether a key or variable of that name holds a secret: ``HF_TOKEN``, ``apiKey``; not ``max_tokens``."""
    words = [word.lower() for word in _WORDS.split(name) if word]
    if not words or _REFERENCE.fullmatch(words[-1]):
        return False
    if _STRONG & set(words) or any(a in _KEYS and b in ("key", "keys") for a, b in pairwise(words)):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return not _TEXT_TOKEN.fullmatch(before)
    return words[-1] == "tokens" and before in _TOKENS


def holds_secret(name: str, value: object) -> bool:
    """Whether ``value`` under the key ``name`` is a secret by its name. Numbers are, unless they count tokens."""
    if value is None or isinstance(value, bool) or value == "" or not is_secret_name(name):
        return False
    return isinstance(value, str) or "token" not in name.lower()


def looks_secret(text: str) -> bool:
    """Whether a text holds a token of a known provider or a URL with a user or password in it."""
    return bool(_URL.search(text) or _SHAPES.search(text))


def redact_text(text: str, known: Sequence[str] | None = None) -> str:
    """``text`` without secrets. ``known``: the result of ``known_secrets()``, asked once for many texts."""
    text = redact_known(text, known)
    return _MAPPED.sub(_redact_pair, _ASSIGNED.sub(_redact_pair, text))


def redact_known(text: str, known: Sequence[str] | None = None) -> str:
    """``text`` without what is a secret by itself; a value that only its name tells of stays."""
    for value in known_secrets() if known is None else known:
        text = text.replace(value, REDACTED)
    return _SHAPES.sub(REDACTED, _URL.sub(rf"\1{REDACTED}@", text))


def known_secrets() -> list[str]:
    """Every remembered secret and those of the environment, the longest first."""
    own = {os.environ[name] for name in os.environ if is_secret_name(name)}
    return sorted(_remembered | {v for v in own if len(v) >= _MIN_CHARS_OF_VARIABLE}, key=len, reverse=True)


def _redact_pair(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"].strip("\"'")
    is_plain = not value or value.startswith("${") or value in ("None", "null", "True", "False", REDACTED)
    if is_plain or not is_secret_name(name) or (value.isdigit() and "token" in name.lower()):
        return match[0]
    return match["head"] + REDACTED


def redact_data(value: object, known: Sequence[str] | None = None) -> Any:
    """Plain JSON data with every text redacted, and every value under a secret's name.

    ``known``: see ``redact_text``.
    """
    known = known_secrets() if known is None else known
    if isinstance(value, Mapping):
        return {
            redact_known(key, known) if isinstance(key, str) else key: (
                REDACTED if _is_leaf(item) and holds_secret(str(key), item) else redact_data(item, known)
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_data(item, known) for item in value]
    return redact_text(value, known) if isinstance(value, str) else value


def redact_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` under keys without secrets: names of metrics, which plugins choose."""
    known = known_secrets()
    return {redact_known(key, known): value for key, value in values.items()}


def _is_leaf(value: object) -> bool:
    return not isinstance(value, Mapping | float) and value != FROM_ENVIRONMENT  # a measured number is none


def format_traceback(error: BaseException, limit: int | None = None) -> str:
    """The whole traceback of ``error``, causes included; what the error shows of itself may fail."""
    try:
        return "".join(traceback.format_exception(error, limit=limit))
    except Exception as err:  # noqa: BLE001 - an error of a plugin may refuse to be shown
        return f"(the traceback cannot be read: {type(err).__name__})\n"


def redact_traceback(error: BaseException) -> str:
    """The traceback of ``error`` without secrets."""
    return redact_text(format_traceback(error))


def _escape(text: str) -> str:
    """Control characters, which a terminal would obey, as text; line breaks and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _escape(redact_text(record.getMessage())), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = _escape(redact_traceback(record.exc_info[1]).rstrip("\n"))
            record.exc_info = None
        return True


def redacting_logger(name: str) -> logging.Logger:
    """The logger of that name; what it logs, tracebacks of plugins included, holds no secrets."""
    logger = logging.getLogger(name)
    if not any(isinstance(known, _Redacting) for known in logger.filters):
        logger.addFilter(_Redacting())
    return logger


class WarnOnce:
    """Logs the first warning of each key and drops the later ones."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._seen: set[object] = set()

    def __call__(self, key: object, text: str, *args: object, error: BaseException | None = None) -> None:
        """Log ``text % args`` unless ``key`` was seen before."""
        if key not in self._seen:
            self._seen.add(key)
            self._log.warning(text, *args, exc_info=error)


def hide_values(text: str, shown: Mapping[str, str]) -> str:
    """``text`` with each value (a key of ``shown``) as it was written in the recipe: ``${oc.env:NAME}``."""
    for value in sorted(filter(None, shown), key=len, reverse=True):
        text = text.replace(value, shown[value])
    return text
