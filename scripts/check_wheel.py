"""Does a wheel hold everything that an editable install finds in the repository?

python scripts/check_wheel.py WHEEL
"""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = Path("reasonrl_countdown/models/countdown-base")


def expected() -> Iterator[str]:
    """Names inside the wheel: every Python file, the templates of new plugins, the recipes, the model folder."""
    for package in (ROOT / "reasonrl", *(ROOT / "plugins").glob("reasonrl_*")):
        for pattern in ("*.py", "*.tmpl"):
            yield from (path.relative_to(package.parent).as_posix() for path in package.rglob(pattern))
    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        yield f"reasonrl_countdown/recipes/{recipe.relative_to(ROOT / 'recipes').as_posix()}"
    for file in (ROOT / "plugins" / MODEL).iterdir():
        yield (MODEL / file.name).as_posix()
    yield (MODEL / "model.safetensors").as_posix()
    yield "reasonrl/py.typed"


def main() -> int:
    """Print what is missing; the exit status is 1 if anything is."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        missing = sorted(set(expected()) - set(wheel.namelist()))
    for name in missing:
        sys.stderr.write(f"{sys.argv[1]}: lacks {name}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
