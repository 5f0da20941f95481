"""Third-party trackers (tensorboard, wandb, ...) through accelerate. They may fail; a run may not because of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)


class Trackers:
    """All trackers of a run. The first failure is logged and switches them off; metrics.jsonl is complete anyway."""

    def __init__(self, accelerator: Any, names: Sequence[str]) -> None:
        self._accelerator = accelerator
        self._on = bool(names)

    def start(self, run_name: str) -> None:
        if self._on:
            self._guarded(lambda: self._accelerator.init_trackers(run_name))

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
