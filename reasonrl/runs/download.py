"""Progress of the download of a hub model: how much its folder in the cache has grown."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reasonrl.observability.reporter import Reporter
from reasonrl.recipe.models import source_of
from reasonrl.recipe.places import is_hub_name

EVERY_S = 1.0


@contextmanager
def tell_download(model_path: str, reporter: Reporter) -> Iterator[None]:
    """Tell ``reporter`` what has been downloaded of a model, while the block loads it."""
    name = _hub_name(model_path)
    if name is None:
        yield
        return
    folder, ended = _cache_folder(name), threading.Event()
    before = _bytes_in(folder)

    def watch() -> None:
        last = before
        while not ended.wait(EVERY_S):
            now = _bytes_in(folder)
            if now > last:
                reporter.progress(f"downloading {name}: {(now - before) / 1e6:,.0f} MB")
            last = now

    thread = threading.Thread(target=watch, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _hub_name(model_path: str) -> str | None:
    try:
        base = source_of(model_path).base
    except ValueError:  # whoever loads it says so
        return None
    return base if not Path(base).is_dir() and is_hub_name(base) else None


def _cache_folder(name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"


def _bytes_in(folder: Path) -> int:
    size = 0
    with suppress(OSError):  # there is no folder yet, or a file has just been renamed
        for path in folder.iterdir():
            size += path.stat().st_size
    return size
