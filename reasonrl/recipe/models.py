"""Find the model of a recipe, and the base model of an adapter folder. Torch-free."""

import os
from dataclasses import dataclass
from pathlib import Path

from reasonrl.plugins import Plugins
from reasonrl.recipe.places import is_hub_name, no_model
from reasonrl.recipe.schema import ModelConfig
from reasonrl.rundir.reading import read_object

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A model: ``base`` (folder or hub name, at ``revision``) with ``adapters`` merged into it, the first one first."""

    base: str
    revision: str | None = None
    adapters: tuple[Path, ...] = ()


def find_model(model: ModelConfig, plugins: Plugins) -> str:
    """Folder or hub name of the recipe's model.

    Raises:
        ValueError: saying what is missing.
        PluginError: if no plugin ships a model of that name.
    """
    if model.name:
        path = Path(plugins.get("model", model.name).path)
        if not path.is_dir():
            raise ValueError(f"its folder is missing: {path}")
        return str(path)
    text = os.path.expanduser(model.path or "")
    folder = Path(text)
    if not folder.is_dir() and not is_hub_name(text):
        raise ValueError(f"no such folder, and not a hub name: {text!r}")
    if not is_adapter(folder) and folder.is_dir() and not (folder / CONFIG).is_file():
        raise ValueError(no_model(folder, text))
    source_of(text)
    return text


def source_of(model_path: str, revision: str | None = None) -> ModelSource:
    """What a model is made of. An adapter's base may be an adapter itself.

    Args:
        revision: of a model on the hub; an adapter names its own.

    Raises:
        ValueError: if the base of an adapter cannot be found.
    """
    adapters: list[Path] = []
    while is_adapter(Path(model_path)):
        folder = Path(model_path)
        if folder in adapters:
            raise ValueError(f"adapter {folder}: its base model is the adapter itself")
        adapters.insert(0, folder)
        model_path, revision = _base_of(folder)
    return ModelSource(base=model_path, revision=revision, adapters=tuple(adapters))


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter; transformers, too, then looks at nothing else in it."""
    return os.path.isfile(folder / ADAPTER_CONFIG)  # a name that is too long is none


def is_at_hand(model_path: str, revision: str | None = None) -> bool:
    """Whether a folder or hub name can be loaded without a network."""
    try:
        source = source_of(model_path, revision)
    except ValueError:
        return False
    return find_config(source) is not None


def find_config(source: ModelSource) -> Path | None:
    """``config.json`` of a model, if it can be read without a network."""
    if Path(source.base).is_dir() or not is_hub_name(source.base):
        file = Path(source.base) / CONFIG
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.base, CONFIG, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def find_context(model_path: str, revision: str | None = None) -> int | None:
    """Tokens of a model's context, as its config says; None if that cannot be read yet."""
    try:
        file = find_config(source_of(model_path, revision))
        config = read_object(file) if file is not None else {}
    except (OSError, ValueError):  # whoever loads the model says so
        return None
    nested = config.get("text_config")  # of a model of several parts
    found = (nested if isinstance(nested, dict) else config).get("max_position_embeddings")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _base_of(folder: Path) -> tuple[str, str | None]:
    file = folder / ADAPTER_CONFIG
    try:
        config = read_object(file)
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ValueError(f"{file} has no base_model_name_or_path; expected a PEFT adapter") from err
    if not isinstance(base, str) or not (Path(base).is_dir() or is_hub_name(base)):
        raise ValueError(
            f"adapter {folder}: its base model {base!r} is not found; restore it, or set base_model_name_or_path in "
            f"{ADAPTER_CONFIG}"
        )
    return base, revision if isinstance(revision, str) else None
