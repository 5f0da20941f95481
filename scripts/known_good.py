"""The versions that the tests last passed with, as constraints for pip.

python scripts/known_good.py            write reasonrl/constraints.txt from this environment
python scripts/known_good.py --check    exit status 1 if this environment tests other versions; says which
"""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).resolve().parents[1] / "reasonrl" / "constraints.txt"
TESTED = frozenset({"test"})
ALL = frozenset({"test", "docs", "dev", "lora", "gguf", "low-memory"})
HEADER = """\
# The versions that the tests last passed with; written by scripts/known_good.py.
#   pip install -e . -c reasonrl/constraints.txt
"""


def main() -> int:
    """Write the file, or with --check compare it with the environment."""
    is_check = "--check" in sys.argv[1:]
    here = {name: metadata.version(name).partition("+")[0] for name in needed(TESTED if is_check else ALL)}
    if not is_check:
        lines = [f"{name}=={version}\n" for name, version in sorted(here.items())]
        FILE.write_text(HEADER + "".join(lines), encoding="utf-8")
        return 0
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    known = dict(line.split("==") for line in lines)
    differing = sorted(name for name in here.keys() & known.keys() if here[name] != known[name])
    for name in differing:
        print(f"{name} {here[name]} (known good: {known[name]})")  # noqa: T201 - a script
    return 1 if differing else 0


def needed(extras: frozenset[str]) -> set[str]:
    """Every installed distribution that reasonrl needs, with those extras."""
    found: set[str] = set()
    todo = [("reasonrl", extras)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) not in seen:
            seen.add((name, extras))
            found.add(name)
            todo += list(_below(name, extras))
    return found - {"reasonrl"}


def _below(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker, below = requirement.marker, canonicalize_name(requirement.name)
        is_wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if is_wanted and _is_installed(below):
            yield below, frozenset(requirement.extras)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
