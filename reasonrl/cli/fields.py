"""Options that describe a problem of a task, such as ``--numbers 3,5,8 --target 16``."""

from collections.abc import Sequence

from reasonrl.errors import RecipeError


def parse_fields(args: Sequence[str]) -> dict[str, str]:
    """Parse ``["--numbers", "3,5", "--target=16"]`` into ``{"numbers": "3,5", "target": "16"}``."""
    fields: dict[str, str] = {}
    rest = list(args)
    while rest:
        option = rest.pop(0)
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise RecipeError(f"unexpected argument {option!r}; expected --key value pairs that describe the problem")
        if not equals:
            if not rest:
                raise RecipeError(f"--{name} needs a value")
            value = rest.pop(0)
        fields[name.replace("-", "_")] = value
    return fields
