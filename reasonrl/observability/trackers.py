"""Third-party trackers (tensorboard, wandb, ...) through accelerate. They may fail; a run may not because of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonrl.errors import RecipeError
from reasonrl.redact import redacting_logger

log = redacting_logger(__name__)


def check_trackers(names: Sequence[str]) -> None:
    """Raises RecipeError for a name that accelerate does not know or whose package is not installed."""
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    builtin, installed = {str(kind) for kind in LoggerType}, {str(kind) for kind in get_available_trackers()}
    known = sorted(LOGGER_TYPE_TO_CLASS)
    for name in names:
        if name not in known:
            raise RecipeError(f"logging.trackers: no tracker {name!r}; accelerate knows {', '.join(known)}")
        if name in builtin and name not in installed:
            raise RecipeError(
                f"logging.trackers: {name!r} is not installed here; install its package or remove it"
            )


class Trackers:
    """All trackers of a run. The first failure is logged and switches them off; metrics.jsonl is complete anyway."""

    def __init__(self, accelerator: Any, names: Sequence[str]) -> None:
        self._accelerator = accelerator
        self._names = tuple(names)
        self._on = bool(names)

    def start(self, run_name: str, run_dir: Path | None = None) -> None:
        """Begin; trackers that keep files keep them in ``run_dir/trackers``."""
        if self._on:
            self._guarded(lambda: self._init(run_name, run_dir))

    def _init(self, run_name: str, run_dir: Path | None) -> None:
        options: dict[str, Any] = {}
        if run_dir is not None:
            # The accelerator is older than the folder of its run, and so was made with another one.
            folder = run_dir / "trackers"
            config = self._accelerator.project_configuration
            config.project_dir, config.logging_dir = str(run_dir), str(folder)
            if "wandb" in self._names:
                folder.mkdir(exist_ok=True)
                options["wandb"] = {"dir": str(folder), "name": run_dir.name}  # wandb asks for no logging_dir
        self._accelerator.init_trackers(run_name, init_kwargs=options)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._on:
            self._guarded(lambda: self._accelerator.log(dict(values), step=step))

    def close(self) -> None:
        if self._on:
            self._guarded(lambda: [tracker.finish() for tracker in self._accelerator.trackers])
        self._on = False

    def _guarded(self, call: Any) -> None:
        try:
            call()
        except Exception:
            log.warning("a tracker failed; trackers are switched off for this run", exc_info=True)
            self._on = False
