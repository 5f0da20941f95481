"""Prints as JSON what the installed reasonrl has: its commands with their options, and every key of its recipes.

Executed by the environment under test.
"""

import json
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import typer

from reasonrl.cli.app import app
from reasonrl.plugins import load_plugins
from reasonrl.recipe.schema import Recipe, SftRecipe

KINDS = ("task", "reward", "algorithm", "rollout_backend")


def commands(command: Any) -> dict[str, Any]:
    """Name -> ``{options, passes_more, commands}``, like ``--help`` shows them."""
    return {
        "options": ["--help", *(o for p in command.params if p.param_type_name == "option" for o in p.opts)],
        "flags": [o for p in command.params if getattr(p, "is_flag", False) for o in p.opts],
        "passes_more": bool(command.context_settings.get("ignore_unknown_options")),
        "commands": {name: commands(inner) for name, inner in getattr(command, "commands", {}).items()},
    }


def keys(cls: type, prefix: str = "") -> dict[str, str]:
    """Every key below a config class -> ``module:Class.field``; empty for a field without a default.

    ``<name>`` stands for a name of the user's.
    """
    found = {}
    for field in fields(cls):
        hint = get_type_hints(cls)[field.name]
        inner = dataclasses(hint)
        name = f"{prefix}{field.name}" + (".<name>" if inner and get_origin(hint) is dict else "")
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        owner = declared_in(cls, field.name)
        found[prefix + field.name] = f"{owner.__module__}:{owner.__name__}.{field.name}" if has_default else ""
        for one in inner:
            found |= keys(one, f"{name}.")
    return found


def declared_in(cls: type, name: str) -> type:
    """The class whose body has the field: for an inherited one, the base."""
    return next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))


def dataclasses(hint: Any) -> list[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    return [cls for part in get_args(hint) for cls in dataclasses(part)]


def main() -> None:
    plugins = load_plugins()
    components = {
        f"{kind}.{spec.name}": keys(spec.config) if is_dataclass(spec.config) else {}
        for kind in KINDS
        for spec in plugins.specs(kind)
    }
    sys.stdout.write(
        json.dumps(
            {
                "cli": commands(typer.main.get_command(app)),
                "train": keys(Recipe),
                "sft": keys(SftRecipe),
                "components": components,
                "reward": dict.fromkeys(sorted(reward_keys()), ""),
                "recipes": sorted(spec.name for spec in plugins.specs("recipe")),
            }
        )
    )


def reward_keys() -> set[str]:
    """What every reward's section takes beside the reward's own options."""
    from reasonrl.contracts.specs import REWARD_LIMITS

    return {"weight", "path", *REWARD_LIMITS}


if __name__ == "__main__":
    main()
