"""The architecture of a recipe's model: from its folder or the hub's cache, else from a table of known models."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.errors import RecipeError
from reasonrl.model.load import find_source, load_config
from reasonrl.model.quiet import quiet_transformers
from reasonrl.recipe.models import is_at_hand

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from reasonrl.recipe.resolved import AnyResolved

TABLE = Path(__file__).with_name("architectures.json")


@cache
def known_architectures() -> dict[str, dict[str, Any]]:
    """Hub name -> the fields of its ``config.json`` that shape the model."""
    families = json.loads(TABLE.read_text(encoding="utf-8"))["families"]
    return {
        name + suffix: {**family["common"], **own}
        for family in families
        for name, own in family["models"].items()
        for suffix in family["suffixes"]
    }


def find_config(resolved: AnyResolved) -> tuple[PretrainedConfig, str]:
    """The config of the recipe's model, and where it comes from.

    Raises:
        RecipeError: if it is neither on this machine nor in the table.
    """
    model = resolved.recipe.model
    source = find_source(resolved.model_path, model.revision)
    if not is_at_hand(resolved.model_path, model.revision):
        return _from_table(source.base)
    options: dict[str, object] = {"revision": source.revision, "trust_remote_code": model.trust_remote_code}
    with quiet_transformers():
        return load_config(source.base, options), "its config.json"


def _from_table(name: str) -> tuple[PretrainedConfig, str]:
    from transformers import AutoConfig

    known = known_architectures()
    if name not in known:
        raise RecipeError(
            f"model {name!r}: its config.json is not on this machine, and reasonrl knows no shape of it; download the "
            f"model, or set model.path to one of {', '.join(known)}"
        )
    fields = dict(known[name])
    return AutoConfig.for_model(fields.pop("model_type"), **fields), "reasonrl's table of known models"
