"""Where the program is in a completion."""

import re

CLOSING = "</think>"
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LANGUAGES = ("", "python", "python3", "py")
_CONTINUES = re.compile(r"(def |class |import |from |@|async def |[)\]}])")
MAX_CHARS = 200_000


def find_program(completion: str, entry: str = "") -> str:
    """Return the last fenced block that defines ``entry``, else the last one, else the text after the reasoning."""
    text = completion[completion.rfind(CLOSING) + len(CLOSING) :] if CLOSING in completion else completion
    blocks = [body for _, language, body in _FENCE.findall(text) if language.lower() in _LANGUAGES]
    if not blocks:
        return text
    defining = [body for body in blocks if entry and re.search(rf"\b{re.escape(entry)}\b", body)]
    return (defining or blocks)[-1]


def rest_of_block(completion: str) -> str:
    """What a completion adds to a fenced block that the prompt has opened."""
    return re.split(r"^[ \t]*```", completion, maxsplit=1, flags=re.MULTILINE)[0]


def rest_of_function(completion: str) -> str:
    """What a completion adds to a function that the prompt has begun, and the definitions that follow it."""
    kept: list[str] = []
    for number, line in enumerate(completion.split("\n")):
        if number and line and not line[0].isspace() and not _CONTINUES.match(line):
            break
        kept.append(line)
    return "\n".join(kept)
