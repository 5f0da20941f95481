"""The model that a run started from, as a card names it, and its license. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl.errors import describe
from reasonrl.redact import FROM_ENVIRONMENT, redacting_logger

log = redacting_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """``hub``: its name there, if it has one; ``text``: how to name it without a path of this machine."""

    text: str
    hub: str | None = None
    revision: str | None = None
    license: str | None = None


def find_base(manifest: Mapping[str, Any], *, online: bool = False) -> Base:
    """Describe the starting model of the run of ``manifest``.

    The license comes from the model card in its folder or in the cache; with ``online`` from the hub too.
    """
    model, path = manifest["recipe"]["model"], str(manifest["model_path"])
    how = "random weights for the config of " if model.get("init") == "random" else ""
    if path == FROM_ENVIRONMENT:
        return Base(text=f"{how}a model {FROM_ENVIRONMENT}")
    if Path(path).is_absolute():
        name = model.get("name")
        text = f"`{name}`, a model that a plugin ships" if name else f"a local model, `{Path(path).name}`"
        return Base(text=how + text, license=_license_in(Path(path) / "README.md"))
    revision = model.get("revision")
    found = _license_in(_cached_card(path, revision)) or (_license_on_hub(path, revision) if online else None)
    return Base(text=f"{how}[{path}](https://huggingface.co/{path})", hub=path, revision=revision, license=found)


def _license_in(card: Path | None) -> str | None:
    from huggingface_hub import ModelCard

    if card is None or not card.is_file():
        return None
    try:
        return _as_text(ModelCard.load(card, ignore_metadata_errors=True).data.license)
    except (OSError, ValueError):
        return None


def _cached_card(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "README.md", revision=revision)
    return Path(found) if isinstance(found, str) else None


def _license_on_hub(name: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    try:
        data = HfApi().model_info(name, revision=revision, timeout=10).card_data
        return _as_text(data.license) if data is not None else None
    except Exception as err:  # noqa: BLE001 - the HTTP library depends on the version; a license is not worth a failure
        log.warning("cannot look up the license of %s: %s", name, describe(err))
        return None


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
