"""Third-party trackers (tensorboard, wandb, ...) through accelerate. They may fail; a run may not because of them."""

import ast
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonrl.redact import redacting_logger
from reasonrl.rundir.layout import TRACKERS
from reasonrl.text import nearest

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
"""Tracker -> modules of which it needs one, and what pip installs."""


def tracker_problem(names: Sequence[str]) -> str:
    """What is wrong with the names: one that accelerate does not know, or whose package is missing; else empty.

    Imports neither accelerate nor torch.
    """
    known = _known() if names else []
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean '{close}'? " if close else ""
            return f"no tracker '{name}'; {hint}accelerate knows {', '.join(known)}"
        modules, package = PACKAGES.get(name, ((), ""))
        if modules and not any(_is_installed(module) for module in modules):
            return f"'{name}' is not installed here: pip install {package}, or remove it"
    return ""


def _known() -> list[str]:
    """The names of accelerate's trackers, those that a plugin has registered included."""
    loaded = sys.modules.get("accelerate.tracking")
    if loaded is not None:
        return sorted(loaded.LOGGER_TYPE_TO_CLASS)
    spec = importlib.util.find_spec("accelerate")  # of a top-level package: imports nothing
    source = Path(str(spec.origin)).with_name("tracking.py") if spec is not None else Path()
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError):
        return sorted(PACKAGES)
    names = (_string_keys(node.value) for node in tree.body if _assigns(node, "LOGGER_TYPE_TO_CLASS"))  # type: ignore[attr-defined]
    return sorted(next(names, PACKAGES))


def _assigns(node: ast.stmt, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _string_keys(node: ast.expr) -> list[str]:
    keys = node.keys if isinstance(node, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Nested JSON as one level of dotted keys; what is no number, text or switch is text, as every tracker takes it."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        dotted = f"{at}.{key}" if at else str(key)
        if isinstance(value, Mapping) and value:
            found |= flat(value, dotted)
        else:
            found[dotted] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


class Trackers:
    """All trackers of a run. The first failure is logged and switches them off; metrics.jsonl is complete anyway."""

    def __init__(self, accelerator: Any, names: Sequence[str]) -> None:
        self._accelerator = accelerator
        self._names = tuple(names)
        self._on = bool(names)

    def start(self, run_name: str, run_dir: Path | None = None, config: Mapping[str, Any] | None = None) -> None:
        """Begin, with ``config`` as the run's parameters. Trackers that keep files keep them in ``run_dir/trackers``,
        if they take a folder.
        """
        if self._on:
            self._guarded(lambda: self._init(run_name, run_dir, flat(config or {})))

    def _init(self, run_name: str, run_dir: Path | None, config: Mapping[str, Any]) -> None:
        options: dict[str, Any] = {}
        if run_dir is not None:
            # The accelerator is older than the folder of its run, and so was made with another one.
            folder = run_dir / TRACKERS
            places = self._accelerator.project_configuration
            places.project_dir, places.logging_dir = str(run_dir), str(folder)
            if "wandb" in self._names:
                folder.mkdir(exist_ok=True)
                options["wandb"] = {"dir": str(folder), "name": run_dir.name}  # wandb asks for no logging_dir
        self._accelerator.init_trackers(run_name, config=dict(config), init_kwargs=options)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._on:
            # MLflow rejects "@" in a metric name and would drop every figure of the step.
            named = {key.replace("@", "_at_"): value for key, value in values.items()}
            shown = named if "mlflow" in self._names else dict(values)
            self._guarded(lambda: self._accelerator.log(shown, step=step))

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
