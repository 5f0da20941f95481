"""``\\boxed{...}`` and ``\\fbox{...}`` in a text."""

import re

_MARK = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(\{)|(-?\d[^\s\\{}$]*))|\\.|([{}])", re.DOTALL | re.ASCII)


def last_box(text: str) -> str | None:
    """What the last closed box holds, the outer one of nested boxes; None without one. ``\\boxed 5`` counts too."""
    open_at: list[tuple[int, bool]] = []
    open_boxes = 0
    found: str | None = None
    for mark in _MARK.finditer(text):
        if mark[2] is not None:
            found = found if open_boxes else mark[2]
        elif mark[1] or mark[3] == "{":
            open_at.append((mark.end(), mark[1] is not None))
            open_boxes += mark[1] is not None
        elif mark[3] == "}" and open_at:
            start, is_box = open_at.pop()
            if is_box:
                open_boxes -= 1
                found = text[start : mark.start()].strip()
    return found
