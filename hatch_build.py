"""Puts the recipes into the wheel, and only there.

An editable install reads ``recipes/`` of the repository. A static ``force-include`` would copy the folder into
site-packages for that kind of install too, where the copy goes stale; a hook can tell the two apart.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class RecipesHook(BuildHookInterface[Any]):
    """``recipes/`` of the repository becomes ``reasonrl_countdown/recipes`` of a standard wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["recipes"] = "reasonrl_countdown/recipes"
