"""Load and check a recipe, given by file or name. Torch-free, well under a second."""

import os
from collections.abc import Sequence
from pathlib import Path

from reasonrl.errors import RecipeError
from reasonrl.plugins import Plugins
from reasonrl.plugins.directory import origin
from reasonrl.recipe.resolve import resolve
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.recipe.source import read_source
from reasonrl.text import suggest


def load_recipe(
    path_or_name: str | Path,
    overrides: Sequence[str],
    plugins: Plugins,
    *,
    allow_unavailable: bool = False,
    model_path: str | None = None,
) -> AnyResolved:
    """Read, merge, type and check a recipe.

    Args:
        path_or_name: a file, or the name of a packaged recipe (``reasonrl recipes list``).
        overrides: ``"section.key=value"``, the value in YAML; they win over the file.
        allow_unavailable: accept components whose modules are not installed here, as ``recipes check`` does.
        model_path: a model to take instead of the recipe's own, which may be gone.

    Returns:
        A ResolvedSft if the recipe has a top-level ``sft`` key, else a ResolvedRecipe.

    Raises:
        RecipeError: each says where, in one line.
        PluginNotFoundError: each says where, in one line.
        PluginConflictError: each says where, in one line.
    """
    source = read_source(find_recipe(path_or_name, plugins), overrides)
    return resolve(source, plugins, allow_unavailable=allow_unavailable, model_path=model_path)


def check_recipe(path_or_name: str | Path, overrides: Sequence[str], plugins: Plugins) -> AnyResolved:
    """All checks of ``load_recipe``, for a machine that may lack modules of the recipe's components."""
    return load_recipe(path_or_name, overrides, plugins, allow_unavailable=True)


def find_recipe(path_or_name: str | Path, plugins: Plugins) -> Path:
    """The file behind a path or the name of a packaged recipe."""
    path = Path(os.path.expanduser(path_or_name))
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        raise RecipeError(f"{path_or_name}: is a folder, expected a recipe file")
    name = str(path_or_name)
    names = sorted({spec.name for spec in plugins.specs("recipe")})
    if name in names:
        packaged = Path(plugins.get("recipe", name).path)
        if not packaged.is_file():
            raise RecipeError(f"recipe '{name}': its file is missing: {packaged}; reinstall the plugin")
        # Messages name the file; inside the repository a relative path is the one that the user knows.
        return packaged.relative_to(Path.cwd()) if packaged.is_relative_to(Path.cwd()) else packaged
    home = origin("recipe", path.stem)
    hint = f"; {home}" if home else suggest(path.stem, names)
    left_out = ", ".join(record.name for record in plugins.records if record.status == "disabled")
    disabled = f"; plugins disabled by REASONRL_PLUGINS: {left_out}" if left_out else ""
    known = f"packaged recipes: {', '.join(names) or 'none'}"
    if len(names) > 6:
        known = "`reasonrl recipes list` lists the packaged ones"
    raise RecipeError(f"{name}: no such recipe file{hint}; {known}{disabled}")
