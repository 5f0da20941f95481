"""Limits of a recipe's text, checked on its events, before anything is built from it."""

import re
from functools import partial

import yaml

from reasonrl.errors import RecipeError
from reasonrl.text import clip

MAX_BYTES = 100_000
MAX_DEPTH = 32
MAX_VALUES = 2_000
MAX_CHARS = 10_000
"""Of one value or key."""
MAX_DIGITS = 64
"""Of one number. Python refuses 4,300 digits, and takes seconds for hexadecimal ones."""

MAX_INTERPOLATIONS = 16
"""In one value. Each is parsed by a grammar, nested ones in quadratic time."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML has it: ten times as fast."""

_NUMBER = re.compile(r"[-+.]?[0-9][-+0-9a-fA-FxXoO_.:]*")
_PLAIN_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")))


def refuse_oversized(text: str, where: str) -> None:
    """Refuse what would cost time or memory to build, and tags, which no recipe needs.

    Args:
        where: file or override, for messages.

    Raises:
        RecipeError: if the text exceeds a limit.
        yaml.YAMLError: if it is not YAML.
    """
    if (size := len(text.encode(errors="replace"))) > MAX_BYTES:
        raise too_large(where, size)
    depth = values = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        refuse = partial(_refuse, where, event)
        if depth > MAX_DEPTH:
            refuse(f"nested more than {MAX_DEPTH} levels deep; a recipe needs six")
        if values > MAX_VALUES:
            refuse(f"more than {MAX_VALUES:,} keys and values; put data into a file")
        if (tag := getattr(event, "tag", None)) not in _PLAIN_TAGS:
            shown = clip(str(tag).replace("tag:yaml.org,2002:", "!!"), 60)
            refuse(f"not valid YAML for a recipe: the tag {shown}; remove it")
        if isinstance(event, yaml.ScalarEvent):
            _check_scalar(event, refuse)


def too_large(where: str, size: int) -> RecipeError:
    """Return the error for a text of ``size`` bytes."""
    return RecipeError(f"{where}: {size:,} bytes; a recipe has at most {MAX_BYTES:,}")


def _check_scalar(event: yaml.ScalarEvent, refuse: partial[None]) -> None:
    chars = len(event.value)
    if chars > MAX_CHARS:
        refuse(f"a text of {chars:,} characters; a recipe's have at most {MAX_CHARS:,}")
    if event.value.count("${") > MAX_INTERPOLATIONS:
        refuse(f"more than {MAX_INTERPOLATIONS} interpolations in one value, expected ${{oc.env:NAME}}")
    if event.style in (None, "") and event.tag is None and chars > MAX_DIGITS and _NUMBER.fullmatch(event.value):
        refuse(f"a number of {chars} characters, expected at most {MAX_DIGITS}; quote it for text")


def _refuse(where: str, event: yaml.Event, message: str) -> None:
    line = f":{event.start_mark.line + 1}" if event.start_mark and not where.startswith("override") else ""
    raise RecipeError(f"{where}{line}: {message}")
