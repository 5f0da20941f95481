"""Build hooks: the recipes in the wheel, and links that work on a package index.

An editable install reads ``recipes/`` of the repository. A static ``force-include`` would copy the folder into
site-packages for that kind of install too, where the copy goes stale; a hook can tell the two apart.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"(!?)(\[[^\]\n]*\])\((?![a-z]+:|#)([^)\s]+)\)")


class RecipesHook(BuildHookInterface[Any]):
    """``recipes/`` of the repository becomes ``reasonrl_countdown/recipes`` of a standard wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["recipes"] = "reasonrl_countdown/recipes"


class AddressHook(MetadataHookInterface):
    """README and project links, made from the one ``repository`` setting; without it the README stays as written."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = self.config["repository"].rstrip("/")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute_links(text, repository)}
        metadata["urls"] = project_links(repository)


def absolute_links(text: str, repository: str) -> str:
    """Point the relative links of a page, and its images, to the repository."""
    if not repository:
        return text
    kinds = {"": "blob", "!": "raw"}
    return RELATIVE_LINK.sub(lambda link: f"{link[1]}{link[2]}({repository}/{kinds[link[1]]}/main/{link[3]})", text)


def project_links(repository: str) -> dict[str, str]:
    if not repository:
        return {}
    pages = {"Documentation": "blob/main/docs/index.md", "Changelog": "blob/main/CHANGELOG.md", "Issues": "issues"}
    return {"Repository": repository} | {name: f"{repository}/{page}" for name, page in pages.items()}
