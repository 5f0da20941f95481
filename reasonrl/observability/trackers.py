"""Experiment trackers (tensorboard, wandb, ...) through accelerate. A tracker error never stops a run."""

import ast
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.importing import is_installed
from reasonrl.redact import redacting_logger
from reasonrl.rundir.layout import TRACKERS
from reasonrl.text import suggest

if TYPE_CHECKING:
    from accelerate import Accelerator

log = redacting_logger(__name__)

PACKAGES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "aim": (("aim",), "aim"),
    "clearml": (("clearml",), "clearml"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "dvclive": (("dvclive",), "dvclive"),
    "mlflow": (("mlflow",), "mlflow"),
    "swanlab": (("swanlab",), "swanlab"),
    "tensorboard": (("tensorboard", "tensorboardX"), "tensorboard"),
    "trackio": (("trackio",), "trackio"),
    "wandb": (("wandb",), "wandb"),
}
"""Tracker -> modules, one of which it needs, and the package to install."""


def tracker_problem(names: Sequence[str]) -> str:
    """Say which tracker is unknown or not installed; empty if all are fine.

    Imports neither accelerate nor torch.
    """
    known = _known() if names else []
    for name in names:
        if name not in known:
            return f"no tracker '{name}'{suggest(name, known)}; available: {', '.join(known)}"
        modules, package = PACKAGES.get(name, ((), ""))
        if modules and not any(is_installed(module) for module in modules):
            return f"'{name}' is not installed: pip install {package}, or remove it"
    return ""


def _known() -> list[str]:
    """List accelerate's trackers, including those a plugin registered."""
    loaded = sys.modules.get("accelerate.tracking")
    if loaded is not None:
        return sorted(loaded.LOGGER_TYPE_TO_CLASS)
    spec = importlib.util.find_spec("accelerate")  # of a top-level package: imports nothing
    source = Path(str(spec.origin)).with_name("tracking.py") if spec is not None else Path()
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError):
        return sorted(PACKAGES)
    for node in [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]:
        is_wanted = ast.unparse(node).startswith(("LOGGER_TYPE_TO_CLASS = ", "LOGGER_TYPE_TO_CLASS: "))
        if is_wanted and isinstance(node.value, ast.Dict):
            return sorted(ast.literal_eval(key) for key in node.value.keys if isinstance(key, ast.Constant))
    return sorted(PACKAGES)


def flatten(config: Mapping[str, object], at: str = "") -> dict[str, object]:
    """Flatten nested JSON to dotted keys; other values than numbers, strings and booleans become JSON text."""
    found: dict[str, object] = {}
    for key, value in config.items():
        dotted = f"{at}.{key}" if at else str(key)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, dotted)
        else:
            found[dotted] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


class Trackers:
    """All trackers of a run. The first error is logged and disables them; metrics.jsonl stays complete."""

    def __init__(self, accelerator: "Accelerator", names: Sequence[str]) -> None:
        self._accelerator = accelerator
        self._names = tuple(names)
        self._on = bool(names)

    def start(self, run_name: str, run_dir: Path | None = None, config: Mapping[str, object] | None = None) -> None:
        """Start with ``config`` as the run's parameters; trackers that write files use ``run_dir/trackers``."""
        if self._on:
            self._try_call(lambda: self._init(run_name, run_dir, flatten(config or {})))

    def _init(self, run_name: str, run_dir: Path | None, config: Mapping[str, object]) -> None:
        options: dict[str, object] = {}
        if run_dir is not None:
            # The accelerator was created before the run folder, with another folder.
            folder = run_dir / TRACKERS
            places = self._accelerator.project_configuration
            places.project_dir, places.logging_dir = str(run_dir), str(folder)
            if "wandb" in self._names:
                folder.mkdir(exist_ok=True)
                options["wandb"] = {"dir": str(folder), "name": run_dir.name}  # wandb ignores logging_dir
        self._accelerator.init_trackers(run_name, config=dict(config), init_kwargs=options)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._on:
            # MLflow rejects "@" in a metric name and would drop every figure of the step.
            named = {key.replace("@", "_at_"): value for key, value in values.items()}
            shown = named if "mlflow" in self._names else dict(values)
            self._try_call(lambda: self._accelerator.log(shown, step=step))

    def close(self) -> None:
        if self._on:
            self._try_call(lambda: [tracker.finish() for tracker in self._accelerator.trackers])
        self._on = False

    def _try_call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            log.warning("a tracker failed; disabling trackers for this run", exc_info=True)
            self._on = False
